"""Tokens as a language model makes them, one event each; who leaves stops the work.

    pounce serve tokens_app:app
    curl -N 'http://127.0.0.1:8000/?prompt=tell+me'

The model is a thread that would compute for long: `generate` is where yours goes.
"""

import asyncio
import json
import threading
from collections.abc import Iterator
from urllib.parse import parse_qs


def generate(prompt: str) -> Iterator[str]:
    yield from (*prompt.split(), "and", "so", "on")


async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    prompt = parse_qs(scope["query_string"].decode()).get("prompt", ["hello"])[0]
    loop, tokens, gone = asyncio.get_running_loop(), asyncio.Queue[str | None](), threading.Event()
    room = threading.Semaphore(4)  # so far ahead of the client the model may be

    def compute() -> None:
        for token in generate(prompt):
            room.acquire()
            if gone.is_set():
                return
            loop.call_soon_threadsafe(tokens.put_nowait, token)
        loop.call_soon_threadsafe(tokens.put_nowait, None)

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()
        room.release()
        tokens.put_nowait(None)

    work, watching = asyncio.ensure_future(asyncio.to_thread(compute)), asyncio.ensure_future(watch())
    fields = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
    try:
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        while (token := await tokens.get()) is not None and not gone.is_set():
            body = f"data: {json.dumps({'token': token})}\n\n".encode()
            await send({"type": "http.response.body", "body": body, "more_body": True})
            room.release()
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})
    finally:
        gone.set()
        room.release()
        watching.cancel()
        await work
