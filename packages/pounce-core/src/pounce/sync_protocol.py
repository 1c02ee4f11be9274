"""SyncApp: answers that need no coroutine, given before the ASGI application is asked.

The same limits, logs and middleware apply as to every request. `handle_sync` runs on the worker's loop, so it must not
block; what it does not want to answer goes on to the ASGI application.
"""

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from pounce.contract.wire import ASGIApp

__all__ = ["RawRequest", "RawResponse", "SyncApp", "answered_first_by"]

type Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class RawRequest:
    """One request with its whole body."""

    method: str
    path: str
    """Decoded, with `root_path`, as in the ASGI scope."""
    query_string: bytes
    headers: Headers
    body: bytes
    client: tuple[str, int] | None
    server: tuple[str, int | None] | None
    http_version: str


@dataclass(frozen=True, slots=True)
class RawResponse:
    """A whole answer."""

    status: int = 200
    headers: Headers = field(default_factory=list)
    body: bytes = b""


@runtime_checkable
class SyncApp(Protocol):
    """Something that answers requests at once, or leaves them to the ASGI application: the setting `sync_app`."""

    def handle_sync(self, request: RawRequest, /) -> RawResponse | None:
        """The answer, None to leave it to the ASGI application. What it raises is an error of the application (500)."""


def answered_first_by(sync_app: SyncApp, app: ASGIApp) -> ASGIApp:
    """An ASGI application that asks `sync_app` first."""

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        pieces, more = [], True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            pieces.append(message.get("body", b""))
            more = message.get("more_body", False)
        body = b"".join(pieces)
        request = RawRequest(
            scope["method"],
            scope["path"],
            scope["query_string"],
            scope["headers"],
            body,
            scope["client"],
            scope["server"],
            scope["http_version"],
        )
        response = sync_app.handle_sync(request)
        if response is not None:
            await send({"type": "http.response.start", "status": response.status, "headers": response.headers})
            await send({"type": "http.response.body", "body": response.body})
            return
        given = False

        async def again() -> dict[str, Any]:
            nonlocal given
            if given:
                message: dict[str, Any] = await receive()
                return message
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await app(scope, again, send)

    def choose(scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        called: Awaitable[None] = (serve if scope["type"] == "http" else app)(scope, receive, send)
        return called

    return choose
