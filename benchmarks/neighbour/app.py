"""The application under attack: small answers, a stream of pieces, bodies that are taken, and WebSockets."""

from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.load import apps

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def app(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await apps.lifespan(receive, send)
    elif scope["type"] == "websocket":
        await websocket(scope["path"] == "/echo", receive, send)
    elif scope["method"] == "POST":
        await apps.swallow(scope, receive, send)
    elif scope["path"] == "/stream":
        await apps.stream(scope, receive, send)
    else:
        await apps.hello(scope, receive, send)


async def websocket(echoes: bool, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        if echoes:
            await send({**message, "type": "websocket.send"})
