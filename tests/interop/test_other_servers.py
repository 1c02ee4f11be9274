"""The middleware of pounce under servers of others, as plain ASGI."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pounce import CORSMiddleware, SecurityHeadersMiddleware, StaticFiles
from pounce.middleware import AllowedHosts, Compression, Dispatch, HTTPSRedirect, ProxyHeaders
from pounce.middleware.static import StaticMount
from pounce.middleware.wsgi import WSGI

uvicorn = pytest.importorskip("uvicorn")
hypercorn = pytest.importorskip("hypercorn.asyncio")
Config = pytest.importorskip("hypercorn.config").Config

PATIENCE = 30


async def site(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise NotImplementedError
    body = f"{scope['client'][0]} {scope['scheme']}".encode() + b" " * 2000
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body})


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["SCRIPT_NAME"].encode(), environ["wsgi.input"].read()]


def stack(folder: Path) -> Any:
    app: Any = Dispatch({"/": site, "/wsgi": WSGI(wsgi), "/moved": HTTPSRedirect(site)})
    app = StaticFiles(app, mounts=[StaticMount("/static", str(folder))])
    app = Compression(app)
    app = CORSMiddleware(app, allow_origins=["https://app.example"])
    app = SecurityHeadersMiddleware(app)
    app = AllowedHosts(app, names=["localhost"])
    return ProxyHeaders(app, trusted_hosts=["localhost"])


def under_uvicorn(app: Any, listening: socket.socket, ended: threading.Event) -> None:
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))

    async def serve() -> None:
        serving = asyncio.create_task(server.serve([listening]))
        await asyncio.to_thread(ended.wait)
        server.should_exit = True
        await serving

    asyncio.run(serve())


def under_hypercorn(app: Any, listening: socket.socket, ended: threading.Event) -> None:
    config = Config()
    # It closes what it is given.
    config.bind = [f"fd://{listening.dup().detach()}"]
    config.loglevel = "CRITICAL"

    async def shut_down() -> None:
        await asyncio.to_thread(ended.wait)

    asyncio.run(hypercorn.serve(app, config, shutdown_trigger=shut_down))


@pytest.fixture(scope="module", params=[under_uvicorn, under_hypercorn])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    serve: Callable[[Any, socket.socket, threading.Event], None] = request.param
    folder = tmp_path_factory.mktemp("static")
    (folder / "a.txt").write_text("from a file " * 100)
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(stack(folder), listening, ended), daemon=True)
        thread.start()
        url = f"http://localhost:{listening.getsockname()[1]}"
        # Whoever connects waits in the queue of the socket until the server accepts.
        transport = httpx.HTTPTransport(local_address="127.0.0.1")
        with httpx.Client(base_url=url, timeout=PATIENCE, trust_env=False, transport=transport) as client:
            yield client
        ended.set()
        thread.join(PATIENCE)


def test_client_is_who_the_proxy_says(client: httpx.Client) -> None:
    said = {"x-forwarded-for": "192.0.2.7", "x-forwarded-proto": "https"}
    assert client.get("/", headers=said).text.split() == ["192.0.2.7", "https"]
    assert client.get("/").text.split() == ["127.0.0.1", "http"]


def test_answers_are_compressed(client: httpx.Client) -> None:
    response = client.get("/", headers={"accept-encoding": "gzip"})
    assert response.headers["content-encoding"] == "gzip"
    assert "accept-encoding" in response.headers["vary"]
    assert response.text.split() == ["127.0.0.1", "http"]


def test_files_are_served_in_part_and_whole(client: httpx.Client) -> None:
    whole = client.get("/static/a.txt", headers={"accept-encoding": "identity"})
    assert (whole.status_code, whole.text) == (200, "from a file " * 100)
    part = client.get("/static/a.txt", headers={"range": "bytes=5-10"})
    assert (part.status_code, part.text) == (206, "a file")
    again = client.get("/static/a.txt", headers={"if-none-match": whole.headers["etag"], "accept-encoding": "identity"})
    assert (again.status_code, again.content) == (304, b"")


def test_preflight_and_headers(client: httpx.Client) -> None:
    asks = {"origin": "https://app.example", "access-control-request-method": "GET"}
    response = client.options("/", headers=asks)
    assert response.headers["access-control-allow-origin"] == "https://app.example"
    assert response.headers["x-content-type-options"] == "nosniff"


def test_hosts_and_schemes_are_enforced(client: httpx.Client) -> None:
    assert client.get("/", headers={"host": "other.example"}).status_code == 421
    response = client.get("/moved/a?b")
    assert (response.status_code, response.headers["location"]) == (308, "https://localhost/moved/a?b")


def test_wsgi_applications_run(client: httpx.Client) -> None:
    assert client.post("/wsgi", content=b" body").text == "/wsgi body"
