"""A server of one plain application, reached over TCP, TLS and a Unix socket, for clients that nobody here wrote."""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route
from tests.frameworks.wires import Certificate, ServerLog

from pounce.testing import TestServer

CONTENT = random.Random(1).randbytes(5 * 2**20)
"""5 MiB in which no two parts are alike."""


async def hello(request: Request) -> Response:
    return PlainTextResponse(f"hello over {request.scope['http_version']}\n")


async def echo(request: Request) -> Response:
    """What arrived: method, length, hash, and the fields that say how."""
    digest, size = hashlib.sha256(), 0
    async for piece in request.stream():
        digest.update(piece)
        size += len(piece)
    names = ("content-length", "transfer-encoding", "expect", "host")
    return JSONResponse(
        {
            "method": request.method,
            "bytes": size,
            "sha256": digest.hexdigest(),
            "fields": {name: request.headers[name] for name in names if name in request.headers},
        }
    )


async def refuse(request: Request) -> Response:
    """Answers without reading the body."""
    return PlainTextResponse("no\n", status_code=403)


async def stream(request: Request) -> Response:
    async def parts() -> Any:
        for number in range(100):
            yield b"%05d\n" % number

    return StreamingResponse(parts(), media_type="text/plain")


class Trailers:
    """A plain ASGI application: Starlette itself sends no trailers."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        fields = [(b"trailer", b"x-sum")]
        await send({"type": "http.response.start", "status": 200, "headers": fields, "trailers": True})
        await send({"type": "http.response.body", "body": b"body"})
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"42")]})


async def redirect(request: Request) -> Response:
    return RedirectResponse("/hello")


@dataclass(frozen=True)
class Sites:
    """One application, three ways to it."""

    http: TestServer
    https: TestServer
    unix: str
    certificate: Certificate


@pytest.fixture(scope="session")
def content_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("content") / "content.bin"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture(scope="session")
def sites(tmp_path_factory: pytest.TempPathFactory, content_file: Path) -> Iterator[Sites]:
    async def file(request: Request) -> Response:
        return FileResponse(content_file)

    app = Starlette(
        routes=[
            Route("/hello", hello),
            Route("/echo", echo, methods=["GET", "POST", "PUT"]),
            Route("/refuse", refuse, methods=["POST", "PUT"]),
            Route("/stream", stream),
            Route("/file", file),
            Route("/redirect", redirect),
            Route("/trailers", Trailers()),
        ]
    )
    folder = tmp_path_factory.mktemp("interop")
    certificate = Certificate.make(folder)
    unix = str(folder / "socket")
    settings: dict[str, Any] = {"max_request_size": 16 * 1024 * 1024, "keep_alive_timeout": 120}
    with (
        # A client may take its time before it uses a connection again.
        TestServer(app, bind=["127.0.0.1:0", f"unix:{unix}"], **settings) as http,
        TestServer(app, **settings, **certificate.settings) as https,
    ):
        yield Sites(http, https, unix, certificate)


@pytest.fixture(params=["tcp", "tls"])
def url(request: pytest.FixtureRequest, sites: Sites) -> str:
    return (sites.http if request.param == "tcp" else sites.https).url


@pytest.fixture(autouse=True)
def server_log() -> Iterator[ServerLog]:
    """Errors that the server logged; one that the test did not take fails it."""
    log = ServerLog()
    with log.watching():
        yield log
    assert log.take() == []
