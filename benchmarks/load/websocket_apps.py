"""Raw ASGI applications for the WebSocket loads."""

from typing import Any

from benchmarks.load.apps import Message, Receive, Send, lifespan


async def echo(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text")
        if text is not None:
            await send({"type": "websocket.send", "text": text})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})
    return None


room: set[Any] = set()


async def broadcast(scope: Message, receive: Receive, send: Send) -> None:
    """What one client sends goes to all."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    await receive()
    await send({"type": "websocket.accept"})
    room.add(send)
    try:
        while (message := await receive())["type"] == "websocket.receive":
            for each in tuple(room):
                await each({"type": "websocket.send", "text": message["text"]})
    finally:
        room.discard(send)
    return None
