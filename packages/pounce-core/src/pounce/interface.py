"""Tells an ASGI 3 application from what is often named in its place, by the arguments that it takes.

A server that calls anything would start, and answer 500 for ever. What cannot be told is let pass.
"""

import functools
import inspect
from typing import Any

from pounce.errors import AppImportError

__all__ = ["check_factory", "check_interface", "check_wsgi", "seems_wsgi"]

SCOPE, RECEIVE, SEND = object(), object(), object()
_ASGI_2 = "Have it wrapped: asgiref.compatibility.guarantee_single_callable(app)."
_ASGI_3 = "An ASGI 3 application takes three arguments: async def app(scope, receive, send)."
_WAITS = "what it has to wait for belongs into the lifespan of the application."


def check_interface(app: Any, path: str | None = None) -> None:
    """Raise `AppImportError` for what cannot be called with scope, receive and send; `path` is how it was named."""
    if inspect.iscoroutine(app):
        app.close()
        raise _refused("a coroutine, as an async function gives", "A factory must be an ordinary function: def.", path)
    if inspect.isclass(app):
        if _takes(app, SCOPE, RECEIVE, SEND) is not False and hasattr(app, "__await__"):
            # One instance for each request, as Starlette's endpoints are.
            return
        raise _is_class(app, path)
    if not callable(app):
        raise AppImportError(
            f"{path or 'app'} is not callable, so it is no ASGI application (it is a {type(app).__name__})",
            code="POUNCE_APP_NOT_CALLABLE",
        )
    if _takes(app, SCOPE, RECEIVE, SEND) is not False and not _is_factory(app):
        return
    raise _refusal(app, path)


def check_wsgi(app: Any, path: str | None = None) -> None:
    """Raise `AppImportError` for what cannot be called with environ and start_response: what is no WSGI application."""
    if not callable(app):
        check_interface(app, path)
    if not inspect.isclass(app) and (_is_async(app) or _takes(app, SCOPE, RECEIVE) is False):
        is_asgi = _takes(app, SCOPE, RECEIVE, SEND) is not False
        what = "an ASGI application" if is_asgi else f"something that takes other arguments, {_signature(app)}"
        raise AppImportError(
            f"{path or 'app'} is no WSGI application: it seems to be {what}",
            code="POUNCE_APP_NOT_WSGI",
            hint="Leave interface at auto, or set it to asgi."
            if is_asgi
            else "A WSGI application takes two arguments: def app(environ, start_response).",
        )


def check_factory(factory: Any, path: str) -> None:
    """Raise `AppImportError` for what cannot be called without arguments to get an application; `path` says how it was
    named."""
    if _is_application(factory):
        name = path.removesuffix("()")
        how = f"Leave out the (): write {name}." if name != path else "Leave out --factory (factory=True)."
        raise _no_factory(f"{name} is an application already, not a factory", how)
    if not inspect.isclass(factory) and _is_async(factory):
        raise _no_factory(f"the factory {path} is an async function", f"Make it def: {_WAITS}")
    if _takes(factory) is False:
        raise _no_factory(f"the factory {path} needs arguments, {_signature(factory)}", _without_arguments(factory))


def seems_wsgi(app: Any) -> bool:
    """Whether it can be called with environ and start_response, and not with scope, receive and send."""
    if not callable(app) or inspect.isclass(app) or _is_async(app) or "scope" in _first(app):
        return False
    return _takes(app, SCOPE, RECEIVE, SEND) is False and not _takes(app) and _takes(app, SCOPE, RECEIVE) is True


def _is_class(app: type, path: str | None) -> AppImportError:
    if not _takes(app) and _takes(app, SCOPE) and not _takes(app.__call__, app, SCOPE, RECEIVE, SEND):
        return _refused(*_of_one_argument(app), path)
    how = f"have it called: {path or 'module:ClassName'}()"
    if _takes(app) is False:
        how = f"write app = {app.__name__}(...) with what it needs, and name that"
    return AppImportError(
        f"{app.__name__} is a class, not an application",
        code="POUNCE_APP_NOT_CALLABLE",
        hint=f"Name an instance of it, or {how}.",
    )


def _refusal(app: Any, path: str | None) -> AppImportError:
    name = path if path and not path.endswith("()") else "module:create_app"
    if _is_async(app):
        if _takes(app):
            how = f"Make it def, and write {name}(): {_WAITS}"
            return _refused("a factory that is an async function", how, path)
        return _refused(f"an async function that takes other arguments, {_signature(app)}", _ASGI_3, path)
    if _takes(app):
        how = f"Write {name}() to have it called, or give --factory (factory=True)."
        return _refused("a factory, a function that makes the application", how, path)
    if _takes(app, SCOPE):
        return _refused(*_of_one_argument(app), path)
    if seems_wsgi(app):
        return _refused("a WSGI application", "Leave interface at auto, or set it to wsgi.", path)
    return _refused(f"something that takes other arguments, {_signature(app)}", _ASGI_3, path)


def _of_one_argument(app: Any) -> tuple[str, str]:
    """What it seems to be, and what to do: only the name of its argument tells a factory from ASGI 2."""
    if "scope" in _first(app):
        return "an ASGI 2 application", _ASGI_2
    what = f"a factory that needs an argument, {_signature(app)}, or an ASGI 2 application"
    return what, f"{_without_arguments(app)} An application of ASGI 2 is to be wrapped: {_ASGI_2.partition(': ')[2]}"


def _without_arguments(factory: Any) -> str:
    name = getattr(factory, "__name__", "create_app")
    return (
        "A factory is called without arguments: write one that takes none, or name what"
        f" functools.partial({name}, ...) gives, with ()."
    )


def _no_factory(what: str, how: str) -> AppImportError:
    return AppImportError(what, code="POUNCE_APP_FACTORY_FAILED", hint=how)


def _refused(what: str, how: str, path: str | None) -> AppImportError:
    return AppImportError(
        f"{path or 'app'} is no ASGI 3 application: it seems to be {what}", code="POUNCE_APP_NOT_ASGI", hint=how
    )


def _is_async(app: Any) -> bool:
    """Whether what it gives when it is called is to be awaited, or gone through by `async for`."""
    if not callable(app):
        return False
    both = (app, type(app).__call__)
    return any(inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each) for each in both)


def _is_application(app: Any) -> bool:
    """Whether this is certainly one, and no factory: by the name of its first argument, or as what a factory cannot be
    that has to be given arguments, an async function or an object."""
    if inspect.isclass(app) or not (_takes(app, SCOPE, RECEIVE, SEND) is True or seems_wsgi(app)):
        return False
    if _first(app) in ("scope", "environ"):
        return True
    is_function = inspect.isroutine(app) or isinstance(app, functools.partial)
    return not _takes(app) and (_is_async(app) or not is_function)


def _first(app: Any) -> str:
    """The name of its first argument; empty where there is none, or it does not tell."""
    try:
        return next(iter(_signature(app).parameters), "")
    except TypeError, ValueError:
        return ""


def _is_factory(app: Any) -> bool:
    """Whether all that it takes may be left out, and none of it is anything that an application gets."""
    if not _takes(app) or inspect.iscoroutinefunction(app):
        return False
    parameters = _signature(app).parameters.values()
    return not any(each.kind is each.VAR_POSITIONAL or each.name == "scope" for each in parameters)


def _takes(app: Any, *arguments: object) -> bool | None:
    """Whether it can be called with these; None where it does not tell."""
    try:
        signature = _signature(app)
    except TypeError, ValueError:
        return None
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


def _signature(app: Any) -> inspect.Signature:
    """That of `app` itself: what it wraps may take something else.

    Raises `TypeError` and `ValueError` where there is none to be had.
    """
    return inspect.signature(app, follow_wrapped=False)
