"""The applications of examples/, each served and used by a client that nobody here wrote."""

import asyncio
import importlib
import itertools
import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.workers.running import eventually
from websockets.sync.client import connect

from pounce import create_static_handler
from pounce.testing import TestServer

PATIENCE = 60.0
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports one by its name."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    before = set(sys.modules)
    yield importlib.import_module
    for path in EXAMPLES.glob("*_app.py"):
        if path.stem not in before:
            sys.modules.pop(path.stem, None)


def client(server: TestServer, **settings: Any) -> httpx.Client:
    return httpx.Client(base_url=server.url, timeout=PATIENCE, trust_env=False, **{"verify": False, **settings})


def test_chat_is_heard_by_sockets_and_listeners_of_all_workers(example: Any) -> None:
    with TestServer(example("chat_app").app, workers=2) as server, client(server) as http:
        url = server.url.replace("http", "ws") + "/chat"
        with (
            http.stream("GET", "/listen") as listened,
            connect(url, open_timeout=PATIENCE) as one,
            connect(url, open_timeout=PATIENCE) as two,
        ):
            lines = listened.iter_lines()
            assert next(lines) == ": here"
            two.send("ping")
            assert two.recv(PATIENCE) == "ping"
            while one.recv(PATIENCE) != "ping":
                pass
            one.send("hello")
            assert two.recv(PATIENCE) == "hello"
            assert next(line for line in lines if line not in ("", "data: ping")) == "data: hello"


def test_listeners_of_the_chat_are_let_go_when_the_server_ends(example: Any) -> None:
    server = TestServer(example("chat_app").app, shutdown_timeout=PATIENCE, drain_disconnect=100)
    server.start()
    with client(server) as http, http.stream("GET", "/listen") as listened:
        lines = listened.iter_lines()
        assert next(lines) == ": here"
        ending = threading.Thread(target=server.stop)
        ending.start()
        assert [line for line in lines if line] == []
        ending.join(PATIENCE)
    assert not ending.is_alive()


def test_tokens_come_one_by_one(example: Any) -> None:
    with TestServer(example("tokens_app").app) as server, client(server) as http:
        text = http.get("/", params={"prompt": "tell me"}).text
    events = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert [json.loads(event)["token"] for event in events[:-1]] == ["tell", "me", "and", "so", "on"]
    assert events[-1] == "[DONE]"


def test_a_client_that_leaves_stops_the_model(example: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = example("tokens_app")
    monkeypatch.setattr(module, "generate", lambda prompt: itertools.repeat(prompt))
    ended = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await module.app(scope, receive, send)
        finally:
            if scope["type"] == "http":
                ended.set()

    with TestServer(app) as server, client(server) as http:
        with http.stream("GET", "/", params={"prompt": "on and on"}) as answer:
            assert next(answer.iter_lines()) == 'data: {"token": "on and on"}'
        assert ended.wait(PATIENCE)


class Text:
    """grpclib's codec for messages that are plain text."""

    __content_subtype__ = "text"

    def encode(self, message: str, message_type: object) -> bytes:
        return message.encode()

    def decode(self, data: bytes, message_type: object) -> str:
        return data.decode()


def test_grpc_answers_messages_and_streams_with_the_status_in_trailers(example: Any) -> None:
    grpclib = pytest.importorskip("grpclib.client", reason="install the group dev: `make setup`")
    from grpclib.exceptions import GRPCError

    async def use(host: str, port: int) -> tuple[str, list[str], str | None]:
        async with grpclib.Channel(host, port, codec=Text()) as channel:
            greet = grpclib.UnaryUnaryMethod(channel, "/demo.Greeter/Greet", str, str)
            count = grpclib.UnaryStreamMethod(channel, "/demo.Greeter/Count", str, str)
            nothing = grpclib.UnaryUnaryMethod(channel, "/demo.Greeter/Nothing", str, str)
            with pytest.raises(GRPCError) as refused:
                await nothing("x", timeout=PATIENCE)
            return await greet("you", timeout=PATIENCE), await count("5", timeout=PATIENCE), refused.value.message

    with TestServer(example("grpc_app").app) as server:
        greeting, numbers, refused = asyncio.run(use(server.host, server.port))
    assert greeting == "Hello, you!"
    assert numbers == ["0", "1", "2", "3", "4"]
    assert refused == "no such method"


def test_mcp_keeps_notes(example: Any) -> None:
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    async def use(url: str) -> str:
        async with streamable_http_client(url) as streams, ClientSession(*streams[:2]) as session:
            await session.initialize()
            await session.call_tool("remember", {"name": "a", "text": "hello"})
            answer = await session.call_tool("recall", {"name": "a"})
            return answer.content[0].text  # type: ignore[union-attr]

    with TestServer(example("mcp_app").app) as server:
        assert asyncio.run(use(server.url + "/mcp")) == "hello"


def test_background_work_ends_in_good_order(
    example: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with TestServer(example("background_app").app) as server, client(server) as http:
        assert http.post("/").json() == {"job": 0}
        eventually(lambda: http.get("/").json()["0"])
    kept = json.loads((tmp_path / "jobs.json").read_text())
    assert 0 < kept["0"] < example("background_app").STEPS


def test_the_quota_of_the_middleware_holds(example: Any) -> None:
    with TestServer(example("middleware_app").app) as server, client(server) as http:
        assert [http.get("/").status_code for _ in range(4)] == [200, 200, 429, 429]


def test_clients_are_known_by_their_certificates(
    example: Any, tls_files: tuple[str, str]
) -> None:
    certificate, key = tls_files
    settings = {"ssl_certfile": certificate, "ssl_keyfile": key, "ssl_ca_certs": certificate}
    context = ssl.create_default_context(cafile=certificate)
    context.load_cert_chain(certificate, key)
    app = example("client_certificates_app").app
    with TestServer(app, ssl_cert_reqs="optional", **settings) as server:
        with client(server, verify=context) as http:
            answer = http.get("/")
            assert (answer.status_code, answer.json()["certificates"]) == (200, 1)
            assert "CN=" in answer.json()["client"]
        with client(server, verify=ssl.create_default_context(cafile=certificate)) as http:
            assert http.get("/").status_code == 403


def test_django_answers_and_channels_greets(tmp_path: Path) -> None:
    """In a process of its own: Django is set up once in each."""
    program = (
        "import httpx, json\nfrom websockets.sync.client import connect\nfrom pounce.testing import TestServer\n"
        "from django_app import app\n"
        "with TestServer(app) as server:\n"
        "    print(httpx.get(server.url + '/you/', trust_env=False, timeout=60).text)\n"
        "    with connect(server.url.replace('http', 'ws') + '/greet/', open_timeout=60) as socket:\n"
        "        socket.send(json.dumps({'name': 'me'}))\n        print(socket.recv(60))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=EXAMPLES, capture_output=True, text=True)
    assert done.stdout.splitlines() == ['{"hello": "you", "secure": false}', '{"hello": "me"}'], done.stderr


def test_files_are_served_without_an_application() -> None:
    app = create_static_handler({"/": str(EXAMPLES / "files")})
    with TestServer(app) as server, client(server) as http:
        answer = http.get("/", headers={"range": "bytes=0-14"})
        assert (answer.status_code, answer.text) == (206, "<!doctype html>")
