"""From `module:attribute` to an ASGI application.

The folder of the application comes first on `sys.path`, where a file of it hides an installed module of the same name.
That is for the application alone: what the server needs for certain it imports before, and what it imports later
`InstalledFirst` finds where it would have been found before.
"""

import importlib
import os
import sys
import threading
import traceback
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from pounce.app_failure import in_words, is_from_outside, is_ours
from pounce.config import ServerConfig
from pounce.errors import AppImportError, LifespanError, PounceError, SupervisorError, concerning
from pounce.gil import gil_enabled
from pounce.interface import check_factory, check_interface, check_wsgi, seems_wsgi
from pounce.middleware_failure import middleware_failed
from pounce.spelling import meant

__all__ = [
    "RemoteTraceback",
    "adapted",
    "application_traceback",
    "called",
    "import_app",
    "import_factory",
    "import_object",
    "is_factory",
    "is_importing",
    "look_in_app_dir",
    "made_by",
    "preloaded",
]

_here = threading.local()
_NO_SUBINTERPRETERS = "does not support loading in subinterpreters"
"""How Python refuses an extension module there."""


def is_importing() -> bool:
    """Whether this thread is just importing an application."""
    return getattr(_here, "importing", False)


def is_factory(app: object, config: ServerConfig) -> bool:
    """Whether this, an application or the name of one, is to be called in order to get the application."""
    return config.factory or (isinstance(app, str) and app.endswith("()"))


def import_app(path: str, config: ServerConfig) -> tuple[Any, str | None]:
    """The application that `path` names, and the name of what switched the GIL on while it was imported, if so.

    `path` is `module:attribute`, `module:object.attribute`, or either with `()` after it for a factory that is called
    without arguments (as `config.factory` says for all). Raises `AppImportError`.
    """
    had_gil = gil_enabled()
    found, _ = import_factory(path, config)
    app = made_by(found, path, config) if is_factory(path, config) else adapted(found, config, path)
    return app, path.partition(":")[0] if gil_enabled() and not had_gil else None


def import_factory(path: str, config: ServerConfig) -> tuple[Any, str | None]:
    """The same for what `path` names itself: a factory is for `made_by()` to call."""
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute or _is_file(module_name, config.app_dir):
        raise AppImportError(
            f"{path!r} does not name an application",
            code="POUNCE_APP_PATH",
            hint=_dotted(path) or 'Write module:attribute, for example "main:app" for app in main.py.',
        )
    if "(" in attribute.removesuffix("()"):
        raise _called_otherwise(module_name, attribute)
    look_in_app_dir(config)
    had_gil = gil_enabled()
    found = _attribute(_module(module_name, path, config), module_name, attribute.removesuffix("()"))
    return found, module_name if gil_enabled() and not had_gil else None


def preloaded(path: str, config: ServerConfig) -> Any:
    """What `path` names, for processes that are copies of this one. A factory that `config.factory` speaks of is left
    to them, one that the path calls is called here. Raises `AppImportError`."""
    found, _ = import_factory(path, config)
    return called(found, path) if path.endswith("()") else found


def made_by(factory: Any, path: str, config: ServerConfig) -> Any:
    """The application that a factory makes, which `path` names. Raises `AppImportError`."""
    return adapted(called(factory, path), config, path)


def import_object(path: str, config: ServerConfig, setting: str) -> Any:
    """What `module:attribute` names, the value of that setting. Raises `AppImportError`."""
    with concerning(setting):
        return _imported(path, config)


def _imported(path: str, config: ServerConfig) -> Any:
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise AppImportError(
            f"{path!r} does not name an object", code="POUNCE_APP_PATH", hint="Write module:attribute."
        )
    if "(" in attribute:
        raise AppImportError(
            f"{path!r} does not name an object: nothing is called here",
            code="POUNCE_APP_PATH",
            hint=f"Write {module_name}:{attribute.partition('(')[0]}, or give what it makes a name in the module.",
        )
    look_in_app_dir(config)
    return _attribute(_module(module_name, path, config), module_name, attribute)


def look_in_app_dir(config: ServerConfig) -> None:
    """Whatever is imported from now on may be in the folder of the application."""
    if not config.app_dir or config.app_dir in sys.path:
        return
    if not any(isinstance(finder, InstalledFirst) for finder in sys.meta_path):
        found = [number for number, finder in enumerate(sys.meta_path) if finder is PathFinder]
        sys.meta_path.insert(found[0] if found else len(sys.meta_path), InstalledFirst())
    sys.path.insert(0, config.app_dir)


class InstalledFirst:
    """Finds what is imported by modules that were there before the folder of an application was put on `sys.path`, or
    by what this has found for them: on the path as it was. Where it finds nothing others look on, in that folder too.
    """

    def __init__(self) -> None:
        self._path = list(sys.path)
        self._importers = {name.partition(".")[0] for name in list(sys.modules)} - {"__main__"}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Called by the import system for what is not loaded yet. Where to find a submodule its package knows."""
        importer = _importer() if path is None else ""
        # What this module here imports is the application.
        if importer == __name__ or importer.partition(".")[0] not in self._importers:
            return None
        found = PathFinder.find_spec(name, self._path, target)
        if found is not None:
            self._importers.add(name)
        return found


def _importer() -> str:
    """The module whose code imports something just now, empty where none is known."""
    depth = 2
    while (name := sys._getframemodulename(depth)) is not None:
        if name.partition(".")[0] not in ("importlib", "_frozen_importlib", "_frozen_importlib_external"):
            return name
        depth += 1
    return ""


def _module(name: str, path: str, config: ServerConfig) -> Any:
    _here.importing = True
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name and (name == exc.name or name.startswith(exc.name + ".")):
            raise AppImportError(
                f"there is no module {exc.name!r}",
                code="POUNCE_APP_MODULE_NOT_FOUND",
                hint=_dotted(path) or _near(name, path, config.app_dir or "."),
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


def _is_file(name: str, folder: str) -> bool:
    """Whether this names a file, which must not be imported in part to find that out: that of `main.py` is `main`."""
    return "/" in name or (name.endswith(".py") and os.path.isfile(os.path.join(folder, name)))


def _dotted(path: str) -> str | None:
    """What to write in place of the name of a file: `app/main.py:app` is `app.main:app`. None for what is none."""
    file, _, attribute = path.partition(":")
    if not file.endswith(".py") and "/" not in file:
        return None
    *folders, module = file.removesuffix(".py").removeprefix("./").split("/")
    if all(folder.isidentifier() for folder in folders):
        name, place = ".".join([*folders, module]), ""
    else:
        # It lies elsewhere, and nothing can be imported by that name.
        name, place = module, f" with --app-dir {'/'.join(folders) or '/'}"
    return f"Write {name}:{attribute or 'app'}{place}: a module is named as in an import, not as a file."


def _called_otherwise(module: str, attribute: str) -> AppImportError:
    """For a call that is more than the `()` at the end."""
    function, _, arguments = attribute.partition("(")
    path = f"{module}:{attribute}"
    if not arguments.strip(" )"):
        return AppImportError(
            f"{path!r} does not name an application: of a factory what comes last is ()",
            code="POUNCE_APP_PATH",
            hint=f"Write {module}:{function.strip()}().",
        )
    return AppImportError(
        f"{path!r} does not name an application: a factory is called without arguments",
        code="POUNCE_APP_PATH",
        hint=f"Write app = {attribute} in {module}, and name {module}:app; or a function without arguments that returns"
        f" {attribute}, and name that with ().",
    )


def _near(name: str, path: str, folder: str) -> str:
    """What may help where there is no module `name` in the folder of the application."""
    try:
        entries = sorted(Path(folder).iterdir())
    except OSError:
        return f"The folder {folder} (app_dir) cannot be read."
    first = name.partition(".")[0]
    for each in entries:
        if (each / f"{first}.py").is_file() or (each / first / "__init__.py").is_file():
            return f"It is in the folder {each}: give that with --app-dir."
    modules = [each.stem for each in entries if each.suffix == ".py" or each.is_dir()]
    close = meant(first, modules)
    if close and close != first:
        return f"Did you mean {close}{path.removeprefix(first)}?"
    return "Start in the folder of the application, or give it with --app-dir."


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
            names = [key for key, value in vars(module).copy().items() if callable(value) and not key.startswith("_")]
            raise AppImportError(
                f"{module_name} has no attribute {path!r}",
                code="POUNCE_APP_ATTRIBUTE_NOT_FOUND",
                hint=f"It has {', '.join(names[:8])}." if names else None,
            ) from exc
    return found


def called(factory: Any, path: str) -> Any:
    """What a factory makes. Raises `AppImportError` when it fails."""
    check_factory(factory, path)
    try:
        return factory()
    except BaseException as exc:
        if is_from_outside(exc):
            raise
        raise AppImportError(f"the factory {path} failed: {in_words(exc)}", code="POUNCE_APP_FACTORY_FAILED") from exc


def adapted(app: Any, config: ServerConfig, path: str | None = None) -> Any:
    """`app`, which was named `path` or came as an object, as it is called for requests.

    A WSGI application is wrapped. What is neither that nor ASGI 3 is refused with an explanation, and so is what cannot
    be called: frameworks put their middleware together at the first call, where a failure would be that of every
    request.
    """
    if config.interface == "wsgi" or (config.interface == "auto" and seems_wsgi(app)):
        check_wsgi(app, path)
        from pounce.middleware.wsgi import WSGI

        return WSGI(app, threads=config.wsgi_threads, sends_files=True)
    check_interface(app, path)
    build = getattr(app, "build_middleware_stack", None)
    if callable(build) and getattr(app, "middleware_stack", build) is None:
        _build_middleware(app, build, path)
    return app


def _build_middleware(app: Any, build: Any, path: str | None) -> None:
    """Do what Starlette, and what is made of it, does at the first call."""
    try:
        app.middleware_stack = build()
    except BaseException as exc:
        if is_from_outside(exc):
            raise
        raise middleware_failed(exc, path) from exc


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
