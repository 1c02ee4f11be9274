"""The application that `make serve` starts: a page, JSON, an upload and a stream of events.

    pip install fastapi
    pounce serve fastapi_app:app        # http://127.0.0.1:8000
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, StreamingResponse

PAGE = """<!doctype html>
<html lang="en">
<title>pounce</title>
<meta name="viewport" content="width=device-width">
<style>body { font: 16px/1.5 system-ui; max-width: 40em; margin: 3em auto; padding: 0 1em }</style>
<h1>It works</h1>
<p>This page was served by <strong>pounce</strong> over HTTP/<span id="version">…</span>.</p>
<ul>
<li><a href="/items/42?q=hello">JSON with parameters</a>
<li><a href="/docs">the interactive documentation</a>
</ul>
<p>Events: <code id="events"></code></p>
<script>
fetch("/version").then(r => r.json()).then(v => document.getElementById("version").textContent = v.http_version);
const events = new EventSource("/events");
events.onmessage = e => { document.getElementById("events").textContent = e.data; };
</script>
</html>
"""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, int]]:
    """What is yielded here is in `request.state` of every request."""
    yield {"answer": 42}


app = FastAPI(title="pounce example", lifespan=lifespan)


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    return PAGE


@app.get("/version")
async def version(request: Request) -> dict[str, str]:
    return {"http_version": request.scope["http_version"]}


@app.get("/items/{item_id}")
async def item(request: Request, item_id: int, q: str | None = None) -> dict[str, object]:
    return {"item_id": item_id, "q": q, "answer": request.state.answer}


@app.post("/upload")
async def upload(request: Request) -> dict[str, int]:
    """Counts a body without keeping it. `--max-request-size` says how large it may be."""
    size = 0
    async for piece in request.stream():
        size += len(piece)
    return {"bytes": size}


@app.get("/events")
async def events() -> StreamingResponse:
    async def tick() -> AsyncIterator[str]:
        for number in range(1, 3601):
            yield f"data: {number}\n\n"
            await asyncio.sleep(1)

    return StreamingResponse(tick(), media_type="text/event-stream")
