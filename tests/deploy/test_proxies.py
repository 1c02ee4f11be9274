"""nginx, Caddy and HAProxy as deploy/ sets them up: TLS in front, two servers of pounce behind."""

import asyncio
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.deploy.proxies import PATIENCE, PROXIES, Proxy, client_context, own_addresses
from tests.workers.running import eventually
from websockets.asyncio.client import connect

from pounce.testing import TestServer

CLIENT = "127.0.0.9"


class App:
    """Tells what it was asked; `/events` sends its second event when `go` is set."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.first_piece = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        if scope["type"] == "websocket":
            await self.echo(receive, send)
        elif scope["path"] == "/events":
            fields = [(b"content-type", b"text/event-stream")]
            await send({"type": "http.response.start", "status": 200, "headers": fields})
            await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
            await wait_for(self.go)
            await send({"type": "http.response.body", "body": b"data: 2\n\n"})
        else:
            size = 0
            while (message := await receive())["type"] == "http.request":
                size += len(message["body"])
                if message["body"]:
                    self.first_piece.set()
                if not message["more_body"]:
                    break
            host = next(value.decode() for name, value in scope["headers"] if name == b"host")
            shown = {"client": scope["client"][0], "scheme": scope["scheme"], "host": host, "size": size,
                     "version": scope["http_version"]}  # fmt: skip
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": json.dumps(shown).encode()})

    async def echo(self, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})


async def wait_for(event: threading.Event) -> None:
    assert await asyncio.get_running_loop().run_in_executor(None, event.wait, PATIENCE)


@dataclass
class Front:
    proxy: Proxy
    url: str
    servers: list[TestServer]
    app: App
    cert: Path
    addresses: tuple[str, str, str]
    served: list[int] = field(default_factory=lambda: [0, 0])
    """Requests that each server has got."""

    def client(self, **options: Any) -> httpx.Client:
        """From an address that is no proxy's."""
        context = client_context(self.cert)
        transport = httpx.HTTPTransport(verify=context, local_address=CLIENT, **{"http2": True, **options})
        return httpx.Client(base_url=self.url, transport=transport, timeout=PATIENCE)

    def server(self, number: int) -> TestServer:
        """Health says draining for longer than a proxy takes to notice, as the files ask for."""
        bind = f"{self.addresses[1 + number]}:{8001 + number}{self.proxy.bind}"

        async def app(scope: Any, receive: Any, send: Any) -> None:
            self.served[number] += scope["type"] != "lifespan"
            await self.app(scope, receive, send)

        return TestServer(app, bind=[bind], trusted_hosts=self.proxy.trusted, probes=True, drain_delay=3)


@pytest.fixture(params=PROXIES, ids=lambda proxy: proxy.name)
def front(request: pytest.FixtureRequest, tmp_path: Path, tls_files: tuple[str, str]) -> Iterator[Front]:
    proxy: Proxy = request.param
    if shutil.which(proxy.name) is None:
        pytest.skip(f"needs {proxy.name} (apt install {proxy.name})")
    cert, key = map(Path, tls_files)
    addresses = own_addresses()
    front = Front(proxy, "", [], App(), cert, addresses)
    with ExitStack() as stack:
        for number in range(2):
            front.servers.append(front.server(number))
            front.servers[number].start()
        stack.callback(end, front)
        port = stack.enter_context(proxy.start(tmp_path, addresses, cert, key))
        front.url = f"https://{addresses[0]}:{port}"
        wait_until_healthy(front)
        yield front


def end(front: Front) -> None:
    """End the servers without the delay in which a proxy, which has ended by now, would notice."""
    for server in front.servers:
        server.shutdown(force=True)
        server.stop()


def wait_until_healthy(front: Front) -> None:
    """A proxy that checks its servers may not have found them yet."""
    with front.client() as client:
        eventually(lambda: client.get("/").status_code == 200)


def test_browsers_speak_http2_and_the_application_hears_who_asks(front: Front) -> None:
    with front.client() as client:
        lies = {"x-forwarded-for": "203.0.113.1", "forwarded": "for=203.0.113.2", "x-real-ip": "203.0.113.3"}
        answer = client.get("/", headers={**lies, "host": "app.example"})
    assert answer.http_version == "HTTP/2"
    shown = answer.json()
    assert (shown["client"], shown["scheme"], shown["host"]) == (CLIENT, "https", "app.example")


def test_servers_are_asked_over_the_protocol_that_the_file_says(front: Front) -> None:
    with front.client() as client:
        assert client.get("/").json()["version"] == ("1.1" if front.proxy.name == "nginx" else "2")


def test_an_event_arrives_before_the_next_one_is_sent(front: Front) -> None:
    with front.client() as client, client.stream("GET", "/events") as answer:
        lines = answer.iter_lines()
        assert next(lines) == "data: 1"
        front.app.go.set()
        assert [line for line in lines if line] == ["data: 2"]


def test_an_upload_arrives_while_it_is_sent(front: Front) -> None:
    def body() -> Iterator[bytes]:
        yield b"x" * 100_000
        assert front.app.first_piece.wait(PATIENCE)
        yield b"y" * 100_000

    with front.client() as client:
        assert client.post("/upload", content=body()).json()["size"] == 200_000


def test_websockets_pass(front: Front) -> None:
    async def talk() -> None:
        # On a loop: where one thread waits to read from an SSLSocket, no other can write to it without the GIL.
        url, context = front.url.replace("https", "wss") + "/chat", client_context(front.cert)
        async with asyncio.timeout(PATIENCE), connect(url, ssl=context, open_timeout=PATIENCE) as socket:
            await socket.send("hello")
            assert await socket.recv() == "hello"

    asyncio.run(talk())


def test_one_server_after_the_other_is_restarted_and_nothing_is_lost(front: Front) -> None:
    faults: list[str] = []
    counts = [0] * 4
    over = threading.Event()

    def ask(number: int) -> None:
        with front.client(http2=number % 2 == 0) as client:
            while not over.wait(0.02):
                try:
                    if number < 2:
                        answer = client.get(f"/{counts[number]}")
                    else:
                        answer = client.post("/upload", content=b"x" * 5000)
                except httpx.HTTPError as error:
                    faults.append(repr(error))
                else:
                    if answer.status_code != 200 or answer.json()["size"] != (0 if number < 2 else 5000):
                        faults.append(f"{answer.status_code} {answer.text[:200]}")
                    counts[number] += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for number in range(2):
            wait_for_more(counts, threads)
            front.servers[number].stop()
            wait_for_more(counts, threads)
            front.servers[number] = front.server(number)
            before = front.served[number]
            front.servers[number].start()
            # Who goes on before the proxy has found it again has none left for a moment.
            eventually(partial(is_back, front, number, before, counts, threads))
        wait_for_more(counts, threads)
    finally:
        over.set()
        for thread in threads:
            thread.join(PATIENCE)
    assert faults == []


def is_back(front: Front, number: int, before: int, counts: list[int], threads: list[threading.Thread]) -> bool:
    """Whether the proxy has a server answer again, after some more of all answers."""
    wait_for_more(counts, threads)
    return front.served[number] != before


def wait_for_more(counts: list[int], threads: list[threading.Thread]) -> None:
    """Until every client has got ten more answers."""
    before = counts[:]
    while any(now < then + 10 for now, then in zip(counts, before, strict=True)):
        threads[0].join(0.01)
        assert all(thread.is_alive() for thread in threads)
