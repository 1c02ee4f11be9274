"""What our middleware have in common: settings first, the application later, and the fields of answers."""

import inspect
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Self, cast

__all__ = ["App", "Headers", "Middleware", "Scope", "Send", "add_vary", "called_like_a_coroutine_function", "refuse"]

type Scope = MutableMapping[str, Any]
type Send = Callable[[dict[str, Any]], Awaitable[None]]
type App = Callable[[Any, Any, Any], Awaitable[None]]
type Headers = list[tuple[bytes, bytes]]


class Middleware:
    """A middleware that is given its application at once, or by `wrap()`.

    A subclass keeps what it was made with by calling `_remember()` in its constructor.
    """

    app: App
    _settings: dict[str, Any]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        called_like_a_coroutine_function(cls)

    def _remember(self, app: App | None, **settings: Any) -> None:
        self.app = app if app is not None else _no_application
        self._settings = settings

    def wrap(self, app: App) -> Self:
        """The same settings around an application."""
        made: Self = cast(Any, type(self))(app, **self._settings)
        return made


def called_like_a_coroutine_function[T: type](cls: T) -> T:
    """A class whose instances are applications: say that a call gives a coroutine, also where it is not written so.

    It is by this that servers and frameworks tell ASGI 3 from what was before.
    """
    call = cls.__dict__.get("__call__")
    if call is not None and not inspect.iscoroutinefunction(call):
        inspect.markcoroutinefunction(call)
    return cls


async def _no_application(scope: Any, receive: Any, send: Any) -> None:
    raise RuntimeError("this middleware has no application: give it one, or use wrap()")


def add_vary(headers: Headers, *fields: bytes) -> None:
    """Say that an answer depends on these fields of the request, unless that is said already (RFC 9110 12.5.5)."""
    named = {
        member.strip() for name, value in headers if name.lower() == b"vary" for member in value.lower().split(b",")
    }
    missing = [field for field in fields if field not in named and b"*" not in named]
    if missing:
        headers.append((b"vary", b", ".join(missing)))


async def refuse(
    scope: Scope, send: Send, status: int, text: bytes, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """Answer a request with a line of text; close a handshake of WebSocket or WebTransport, which becomes a 403."""
    if scope["type"] != "http":
        await send({"type": f"{scope['type']}.close"})
        return
    fields = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(text)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": text if scope["method"] != "HEAD" else b""})
