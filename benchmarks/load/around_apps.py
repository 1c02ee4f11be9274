"""Applications of the loads around a request: files, compression, WSGI. The files are in the working directory."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.load.apps import HELLO, Message, Receive, Send, answer, lifespan

ROWS = [{"number": number, "name": f"item {number}", "tags": ["red", "new"], "price": 49.5} for number in range(300)]
TABLE = json.dumps(ROWS).encode()
SMALL = b"a { color: red }\n" * 240
FILES = {
    "64k.bin": bytes(range(256)) * 256,
    "1m.bin": bytes(range(256)) * 4096,
    **{f"small-{number:02}.css": SMALL for number in range(20)},
}


def write_files(folder: Path) -> None:
    """What the loads ask for, in `folder/static`."""
    static = folder / "static"
    static.mkdir()
    for name, content in FILES.items():
        (static / name).write_bytes(content)


async def table(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    return await answer(send, TABLE, b"application/json")


def gzipped() -> Any:
    """The same with Starlette's compression, at the level that pounce has by itself."""
    from starlette.middleware.gzip import GZipMiddleware

    return GZipMiddleware(table, compresslevel=6)


def files() -> Any:
    """Starlette's static files."""
    from starlette.applications import Starlette
    from starlette.routing import Mount
    from starlette.staticfiles import StaticFiles

    return Starlette(routes=[Mount("/static", StaticFiles(directory="static"))])


type Environ = dict[str, Any]
type StartResponse = Callable[[str, list[tuple[str, str]]], Any]


def wsgi_hello(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(HELLO)))])
    return [HELLO]


def wsgi_echo(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(len(body)))])
    return [body]
