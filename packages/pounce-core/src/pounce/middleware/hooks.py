"""Hooks around the application: before the request, where it raised, before the answer.

Each is a middleware of its own, so that the way back is the reverse of the way in, and what a hook answers passes the
hooks outside of it. They see requests; WebSockets and the lifespan pass them by. A hook may be a coroutine function.
"""

import inspect
from collections.abc import Callable
from typing import Any

from pounce.contract.pieces import Response
from pounce.contract.wire import ASGIApp

__all__ = ["AfterException", "BeforeAnswer", "BeforeRequest", "send_response"]

type Scope = dict[str, Any]
type Send = Callable[[dict[str, Any]], Any]


async def send_response(send: Send, response: Response) -> None:
    """Send a complete answer; Content-Length is added where it is missing."""
    headers = list(response.headers)
    if not any(name.lower() == b"content-length" for name, _ in headers):
        headers.append((b"content-length", b"%d" % len(response.body)))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


async def _result(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


class BeforeRequest:
    """`hook(scope)` returns the scope to go on with, or a `Response` in place of the application's."""

    def __init__(self, app: ASGIApp, *, hook: Callable[[Scope], Any]) -> None:
        self._app = app
        self._hook = hook

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        if scope["type"] == "http":
            result = await _result(self._hook(scope))
            if isinstance(result, Response):
                await send_response(send, result)
                return
            if result is not None:
                scope = result
        await self._app(scope, receive, send)


class AfterException:
    """`hook(scope, exc)` may answer for an application that raised before its answer began; None lets `exc` go on."""

    def __init__(self, app: ASGIApp, *, hook: Callable[[Scope, Exception], Any]) -> None:
        self._app = app
        self._hook = hook

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def watched(message: dict[str, Any]) -> None:
            nonlocal begun
            if _begins_answer(message):
                begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as exc:
            response = None if begun else await _result(self._hook(scope, exc))
            if not isinstance(response, Response):
                raise
            await send_response(send, response)


class BeforeAnswer:
    """`hook(scope, status, headers)` returns the status and headers to send; interim answers (1xx) pass it by."""

    def __init__(self, app: ASGIApp, *, hook: Callable[[Scope, int, Any], Any]) -> None:
        self._app = app
        self._hook = hook

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def changed(message: dict[str, Any]) -> None:
            if _begins_answer(message):
                headers = list(message.get("headers", ()))
                status, headers = await _result(self._hook(scope, message["status"], headers))
                message = message | {"status": status, "headers": headers}
            await send(message)

        await self._app(scope, receive, changed)


def _begins_answer(message: dict[str, Any]) -> bool:
    return message["type"] == "http.response.start" and int(message["status"]) >= 200
