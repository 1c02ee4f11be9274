"""Raw ASGI applications under test, one per load, so that no routing is measured."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

HELLO = b"Hello, world!"
DOCUMENT = {"message": "Hello, world!", "numbers": list(range(10)), "nested": {"ok": True, "none": None}}
PIECE = b"x" * 127 + b"\n"
PIECES = 100
MEBIBYTE = b"x" * 2**20
SMALL_FILE = str(Path(__file__).with_name("hypercorn.toml"))
SMALL_FILE_SIZE = b"%d" % Path(SMALL_FILE).stat().st_size


async def hello(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    return await answer(send, HELLO, b"text/plain")


async def json_document(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    return await answer(send, json.dumps(DOCUMENT).encode(), b"application/json")


async def echo(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    pieces = []
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        pieces.append(message.get("body", b""))
        more = message.get("more_body", False)
    return await answer(send, b"".join(pieces), b"application/octet-stream")


async def swallow(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    return await answer(send, b"%d" % size, b"text/plain")


async def takes_all(scope: Message, receive: Receive, send: Send) -> None:
    """Says hello when it has read the request to its end."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        more = message.get("more_body", False)
    return await answer(send, HELLO, b"text/plain")


async def sends_path(scope: Message, receive: Receive, send: Send) -> None:
    """Has the server send a small file by its path, or reads it where the server does not offer that."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    if "http.response.pathsend" not in scope.get("extensions", {}):
        return await answer(send, _read(SMALL_FILE), b"text/plain")
    headers = [(b"content-type", b"text/plain"), (b"content-length", SMALL_FILE_SIZE)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    return await send({"type": "http.response.pathsend", "path": SMALL_FILE})


async def reads_path(scope: Message, receive: Receive, send: Send) -> None:
    """Reads a small file itself, in the way that takes least."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    return await answer(send, _read(SMALL_FILE), b"text/plain")


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


async def stream(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    for _ in range(PIECES):
        await send({"type": "http.response.body", "body": PIECE, "more_body": True})
    return await send({"type": "http.response.body", "body": b""})


async def mebibyte(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    return await answer(send, MEBIBYTE, b"application/octet-stream")


async def answer(send: Send, body: bytes, content_type: bytes) -> None:
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
