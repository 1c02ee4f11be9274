"""Tells an ASGI 3 application from what is often named in its place, by the arguments that it takes.

A server that calls anything would start, and answer 500 for ever. What cannot be told is let pass.
"""

import inspect
from typing import Any

from pounce.errors import AppImportError

__all__ = ["check_interface", "seems_wsgi"]

SCOPE, RECEIVE, SEND = object(), object(), object()
_ASGI_2 = "Have it wrapped: asgiref.compatibility.guarantee_single_callable(app)."


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


def seems_wsgi(app: Any) -> bool:
    """Whether it can be called with environ and start_response, and not with scope, receive and send."""
    if not callable(app) or inspect.isclass(app) or inspect.iscoroutinefunction(app):
        return False
    return _takes(app, SCOPE, RECEIVE, SEND) is False and not _takes(app) and _takes(app, SCOPE, RECEIVE) is True


def _is_class(app: type, path: str | None) -> AppImportError:
    if not _takes(app) and _takes(app, SCOPE):
        return _refused("an ASGI 2 application", _ASGI_2, path)
    return AppImportError(
        f"{app.__name__} is a class, not an application",
        code="POUNCE_APP_NOT_CALLABLE",
        hint=f"Name an instance of it, or have it called: {path or 'module:ClassName'}().",
    )


def _refusal(app: Any, path: str | None) -> AppImportError:
    if _takes(app):
        name = path if path and not path.endswith("()") else "module:create_app"
        how = f"Write {name}() to have it called, or give --factory (factory=True)."
        return _refused("a factory, a function that makes the application", how, path)
    if _takes(app, SCOPE):
        return _refused("an ASGI 2 application", _ASGI_2, path)
    if _takes(app, SCOPE, RECEIVE):
        return _refused("a WSGI application", "Leave interface at auto, or set it to wsgi.", path)
    found = _signature(app)
    how = "An ASGI application is async def app(scope, receive, send)."
    return _refused(f"something that takes other arguments, {found}", how, path)


def _refused(what: str, how: str, path: str | None) -> AppImportError:
    return AppImportError(
        f"{path or 'app'} is no ASGI 3 application: it seems to be {what}", code="POUNCE_APP_NOT_ASGI", hint=how
    )


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
