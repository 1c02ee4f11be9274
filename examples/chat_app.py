"""A chat with FastAPI: WebSockets to talk, server-sent events to listen, one room for all workers of a process.

    pip install fastapi
    pounce serve chat_app:app --workers 2
    curl -N http://127.0.0.1:8000/listen
    python -m websockets ws://127.0.0.1:8000/chat       # what is typed here is heard there

The sockets of all workers are in one list: `send` may be called on another worker's loop.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse

app = FastAPI()


class Room:
    """Who is there. Workers run at the same time, so the sets change under a lock and are copied to be gone through."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: set[WebSocket] = set()
        self._listeners: set[tuple[asyncio.AbstractEventLoop, asyncio.Queue[str]]] = set()

    @contextlib.contextmanager
    def talking(self, socket: WebSocket):
        with self._lock:
            self._sockets.add(socket)
        try:
            yield
        finally:
            with self._lock:
                self._sockets.discard(socket)

    @contextlib.contextmanager
    def listening(self):
        entry = (asyncio.get_running_loop(), asyncio.Queue[str](100))
        with self._lock:
            self._listeners.add(entry)
        try:
            yield entry[1]
        finally:
            with self._lock:
                self._listeners.discard(entry)

    async def say(self, text: str) -> None:
        with self._lock:
            sockets, listeners = list(self._sockets), list(self._listeners)
        for loop, queue in listeners:
            loop.call_soon_threadsafe(put, queue, text)
        for socket in sockets:
            with contextlib.suppress(OSError, WebSocketDisconnect, RuntimeError):  # it has just left
                await socket.send_text(text)


def put(queue: asyncio.Queue[str], text: str) -> None:
    """Somebody who does not read misses what does not fit."""
    with contextlib.suppress(asyncio.QueueFull):
        queue.put_nowait(text)


room = Room()


@app.websocket("/chat")
async def chat(socket: WebSocket) -> None:
    await socket.accept()
    with room.talking(socket), contextlib.suppress(WebSocketDisconnect):
        while True:
            await room.say(await socket.receive_text())


@app.get("/listen")
async def listen(request: Request) -> StreamingResponse:
    draining = request.scope["extensions"]["pounce.worker.draining"]

    async def events() -> AsyncIterator[str]:
        with room.listening() as queue:
            yield ": here\n\n"
            end = asyncio.ensure_future(draining.wait())
            try:
                while not end.done():
                    text = asyncio.ensure_future(queue.get())
                    await asyncio.wait((text, end), return_when=asyncio.FIRST_COMPLETED)
                    if not text.done():
                        text.cancel()
                        break
                    yield f"data: {text.result()}\n\n"
            finally:
                end.cancel()

    return StreamingResponse(events(), media_type="text/event-stream")
