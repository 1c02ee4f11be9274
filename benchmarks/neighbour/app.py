"""The application under attack: small answers, a stream of pieces, bodies that are taken, and WebSockets.

It also looks at the clock in every turn of its loop, and tells at `/turns` how much processor time they took, the
longest ones last: what others have to wait for, whatever else the machine does.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.load import apps

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Turns:
    """Processor time of each turn of the running loop, in milliseconds, while it is watched."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._loop = asyncio.get_running_loop()
        self._last = 0
        self._until = 0.0

    def watch(self, seconds: float) -> None:
        """Take the time of every turn from now on."""
        self.times = []
        self._until = time.monotonic() + seconds
        self._last = time.thread_time_ns()
        self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        now = time.thread_time_ns()
        self.times.append((now - self._last) / 1e6)
        self._last = now
        if time.monotonic() < self._until:
            self._loop.call_soon(self._turn)


async def app(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        scope["state"]["turns"] = Turns()
        await apps.lifespan(receive, send)
    elif scope["type"] == "websocket":
        await websocket(scope["path"] == "/echo", receive, send)
    elif scope["path"] == "/watch":
        scope["state"]["turns"].watch(float(scope["query_string"]))
        await apps.answer(send, b"", b"text/plain")
    elif scope["path"] == "/turns":
        await apps.answer(send, json.dumps(sorted(scope["state"]["turns"].times)).encode(), b"application/json")
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
