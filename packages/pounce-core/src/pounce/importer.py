"""From `module:attribute` to an ASGI application."""

import importlib
import inspect
import sys
import threading
import traceback
from types import TracebackType
from typing import Any

from pounce.config import ServerConfig
from pounce.errors import AppImportError, LifespanError, PounceError
from pounce.gil import gil_enabled

__all__ = ["RemoteTraceback", "adapted", "application_traceback", "called", "import_app", "is_importing"]

_here = threading.local()
_NO_SUBINTERPRETERS = "does not support loading in subinterpreters"
"""How Python refuses an extension module there."""


def is_importing() -> bool:
    """Whether this thread is just importing an application."""
    return getattr(_here, "importing", False)


def import_app(path: str, config: ServerConfig) -> tuple[Any, str | None]:
    """The application that `path` names, and the name of what switched the GIL on while it was imported, if so.

    `path` is `module:attribute`, `module:object.attribute`, or either with `()` after it for a factory that is called
    without arguments (as `config.factory` says for all). Raises `AppImportError`.
    """
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise AppImportError(
            f"{path!r} does not name an application",
            code="POUNCE_APP_PATH",
            hint='Write module:attribute, for example "main:app" for app in main.py.',
        )
    if config.app_dir and config.app_dir not in sys.path:
        sys.path.insert(0, config.app_dir)
    had_gil = gil_enabled()
    app = _attribute(_module(module_name), module_name, attribute.removesuffix("()"))
    if attribute.endswith("()") or config.factory:
        app = called(app, path)
    if not callable(app):
        raise AppImportError(
            f"{path} is not callable, so it is no ASGI application (it is a {type(app).__name__})",
            code="POUNCE_APP_NOT_CALLABLE",
        )
    return adapted(app), module_name if gil_enabled() and not had_gil else None


def _module(name: str) -> Any:
    _here.importing = True
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name and (name == exc.name or name.startswith(exc.name + ".")):
            raise AppImportError(
                f"there is no module {exc.name!r}",
                code="POUNCE_APP_MODULE_NOT_FOUND",
                hint="Start in the folder of the application, or give it with --app-dir.",
            ) from exc
        raise AppImportError(
            f"{name} needs the module {exc.name!r}, which is not installed",
            code="POUNCE_APP_MODULE_NOT_FOUND",
            hint="Install it into the environment that pounce runs in.",
        ) from exc
    except ImportError as exc:
        if _NO_SUBINTERPRETERS not in str(exc):
            raise _import_failed(name, exc) from exc
        extension = str(exc).partition(_NO_SUBINTERPRETERS)[0].removeprefix("module ").strip()
        raise AppImportError(
            f"{name} needs {extension}, an extension module that cannot be loaded in a subinterpreter",
            code="POUNCE_APP_NO_SUBINTERPRETERS",
            hint="Set worker_mode to thread or process.",
        ) from exc
    except Exception as exc:
        raise _import_failed(name, exc) from exc
    finally:
        _here.importing = False


def _import_failed(name: str, error: Exception) -> AppImportError:
    return AppImportError(
        f"{name} could not be imported: {type(error).__name__}: {error}", code="POUNCE_APP_IMPORT_FAILED"
    )


def _attribute(module: Any, module_name: str, path: str) -> Any:
    found = module
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as exc:
            names = [key for key, value in vars(module).copy().items() if callable(value) and not key.startswith("_")]
            raise AppImportError(
                f"{module_name} has no attribute {path!r}",
                code="POUNCE_APP_ATTRIBUTE_NOT_FOUND",
                hint=f"It has {', '.join(names[:8])}." if names else None,
            ) from exc
    return found


def called(factory: Any, path: str) -> Any:
    """What a factory makes. Raises `AppImportError` when it fails."""
    try:
        return factory()
    except Exception as exc:
        raise AppImportError(
            f"the factory {path} failed: {type(exc).__name__}: {exc}", code="POUNCE_APP_FACTORY_FAILED"
        ) from exc


def adapted(app: Any) -> Any:
    """`app` as ASGI 3: the double callable of ASGI 2 is refused with an explanation."""
    if inspect.isclass(app):
        raise AppImportError(
            f"{app.__name__} is a class, not an application",
            code="POUNCE_APP_NOT_CALLABLE",
            hint="Name an instance of it, or a factory: module:ClassName().",
        )
    return app


class RemoteTraceback(Exception):
    """Stands for an exception of the application in another process; its text is the traceback."""


def application_traceback(error: PounceError) -> str:
    """The traceback of the exception behind `error`, from the first frame of the application's code on.

    Empty where the application raised none.
    """
    cause = error.__cause__
    if isinstance(cause, RemoteTraceback):
        return str(cause)
    if cause is None or not isinstance(error, (AppImportError, LifespanError)):
        return ""
    frames = cause.__traceback__
    while frames is not None and _is_ours(frames):
        frames = frames.tb_next
    # A file that does not compile has no frame, its place is in the exception.
    if frames is None and not isinstance(cause, SyntaxError):
        return ""
    return "".join(traceback.format_exception(cause.with_traceback(frames)))


def _is_ours(frames: TracebackType) -> bool:
    module = frames.tb_frame.f_globals.get("__name__") or ""
    return module.partition(".")[0] in (
        "pounce",
        "pounce_cli",
        "importlib",
        "_frozen_importlib",
        "_frozen_importlib_external",
    )
