"""From `module:attribute` to an ASGI application."""

import importlib
import sys
import threading
import traceback
from typing import Any

from pounce.app_failure import in_words, is_from_outside, is_ours
from pounce.config import ServerConfig
from pounce.errors import AppImportError, LifespanError, PounceError, SupervisorError
from pounce.gil import gil_enabled
from pounce.interface import check_interface

__all__ = [
    "RemoteTraceback",
    "adapted",
    "application_traceback",
    "called",
    "import_app",
    "is_importing",
    "middleware_failed",
]

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
    return adapted(app, path), module_name if gil_enabled() and not had_gil else None


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
    except BaseException as exc:
        if is_from_outside(exc):
            raise
        raise _import_failed(name, exc) from exc
    finally:
        _here.importing = False


def _import_failed(name: str, error: BaseException) -> AppImportError:
    return AppImportError(
        f"{name} could not be imported: {in_words(error)}", code="POUNCE_APP_IMPORT_FAILED", hint=_hint(error)
    )


def _hint(error: BaseException) -> str | None:
    """For what ends a program rather than fails."""
    if isinstance(error, Exception):
        return None
    return 'What ends the program belongs below if __name__ == "__main__": a server imports the application.'


def _attribute(module: Any, module_name: str, path: str) -> Any:
    found = module
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as exc:
            names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
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
    except BaseException as exc:
        if is_from_outside(exc):
            raise
        raise AppImportError(f"the factory {path} failed: {in_words(exc)}", code="POUNCE_APP_FACTORY_FAILED") from exc


def adapted(app: Any, path: str | None = None) -> Any:
    """`app`, which was named `path` or came as an object, as it is called for requests.

    What is no ASGI 3 application is refused with an explanation, and so is one that cannot be called: frameworks put
    their middleware together at the first call, where a failure would be that of every request.
    """
    check_interface(app, path)
    build = getattr(app, "build_middleware_stack", None)
    if callable(build) and getattr(app, "middleware_stack", build) is None:
        _build_middleware(app, build)
    return app


def _build_middleware(app: Any, build: Any) -> None:
    """Do what Starlette, and what is made of it, does at the first call."""
    try:
        app.middleware_stack = build()
    except BaseException as exc:
        if is_from_outside(exc):
            raise
        raise middleware_failed(exc) from exc


def middleware_failed(error: BaseException) -> AppImportError:
    return AppImportError(
        f"the middleware of the application cannot be put together: {in_words(error)}",
        code="POUNCE_APP_MIDDLEWARE_FAILED",
        hint="See the arguments that its add_middleware() gets.",
    )


class RemoteTraceback(Exception):
    """Stands for an exception of the application in another process; its text is the traceback."""


def application_traceback(error: PounceError) -> str:
    """The traceback of the exception behind `error`, from the first frame of the application's code on.

    Empty where the application raised none.
    """
    cause = error.__cause__
    if isinstance(cause, RemoteTraceback):
        return str(cause)
    if cause is None or not isinstance(error, (AppImportError, LifespanError, SupervisorError)):
        return ""
    frames = cause.__traceback__
    while frames is not None and is_ours(frames):
        frames = frames.tb_next
    # A file that does not compile has no frame, its place is in the exception.
    if frames is None and not isinstance(cause, SyntaxError):
        return ""
    return "".join(traceback.format_exception(cause.with_traceback(frames)))
