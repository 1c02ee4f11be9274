"""Middleware that cannot be put together, told with its name and its places.

A framework calls the classes that it was given later, from its own code: what Python says of wrong arguments then has
no line of the application in its traceback. The frame that called has the class, and the module of the application the
line that gave it to the framework.
"""

import inspect
import linecache
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from pounce.app_failure import in_words
from pounce.errors import AppImportError

__all__ = ["defined_at", "middleware_failed"]


def middleware_failed(error: BaseException, path: str | None = None) -> AppImportError:
    """The error for what was raised while a framework put middleware together; `path` is how the application was
    named."""
    middleware, raised_itself = _at_fault(error)
    module, _, _ = (path or "").partition(":")
    of = f"of {path or 'the application'}"
    if middleware is None:
        what, how = f"the middleware {of}{_in(_file_of(module))}", "add_middleware()"
    else:
        name = getattr(middleware, "__qualname__", repr(middleware))
        what = f"the middleware {name}{_in(defined_at(middleware))} {of}{_in(_given_at(middleware, module))}"
        how = f"add_middleware({name}), or Middleware({name}),"
    # The place of the call is the framework's own, and says nothing.
    said = in_words(error) if raised_itself else in_words(error, "")
    return AppImportError(
        f"{what} cannot be put together: {said}",
        code="POUNCE_APP_MIDDLEWARE_FAILED",
        hint=f"See the arguments that {how} gets.",
    )


def defined_at(middleware: Any) -> str:
    """The file and line of a class or function; empty where it has none."""
    try:
        file = inspect.getsourcefile(middleware)
    except OSError, TypeError:
        return ""
    code = getattr(middleware, "__code__", None)
    line = getattr(middleware, "__firstlineno__", getattr(code, "co_firstlineno", None))
    return f"{file}:{line}" if file and line else file or ""


def _at_fault(error: BaseException) -> tuple[Any, bool]:
    """What the framework called last, None where that cannot be told; and whether that raised by itself: else it cannot
    be called so."""
    found, raised_itself = None, True
    for frames in _frames(error.__traceback__):
        if frames.tb_frame.f_code.co_name.endswith("build_middleware_stack"):
            called = frames.tb_frame.f_locals.get("cls")
            found, raised_itself = called if callable(called) else None, frames.tb_next is not None
    return found, raised_itself or found is None


def _frames(traceback: TracebackType | None) -> Iterator[TracebackType]:
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


def _given_at(middleware: Any, module: str) -> str:
    """The one line of the module of the application that gives `middleware` to the framework; the file alone where none
    does, or several do."""
    file = _file_of(module)
    source = "".join(linecache.getlines(file)) if file else ""
    if not source:
        return file
    import ast

    try:
        calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and node.args]
    except SyntaxError:
        return file
    names = {name for name, value in vars(sys.modules[module]).copy().items() if value is middleware}
    names.add(getattr(middleware, "__name__", ""))
    lines = {call.lineno for call in calls if _name(call.func).endswith("iddleware") and _name(call.args[0]) in names}
    return f"{file}:{lines.pop()}" if len(lines) == 1 else file


def _name(node: Any) -> str:
    """The last name of `a.b.c`."""
    return str(getattr(node, "attr", getattr(node, "id", "")))


def _file_of(module: str) -> str:
    return getattr(sys.modules.get(module), "__file__", None) or ""


def _in(place: str) -> str:
    return f" ({place})" if place else ""
