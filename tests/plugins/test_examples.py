"""The example plugins, each used over real sockets, and all of them installed beside each other."""

import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pounce.errors import BindError, ConfigError
from pounce.h1.plugin import plugin as h1
from pounce.registry import Registry
from pounce.testing import TestServer, check_parser

PATIENCE = 60.0
EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(folder.name.removeprefix("pounce-") for folder in EXAMPLES.glob("pounce-*"))
UPGRADE = b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: %b\r\n\r\nhello"


@pytest.fixture(scope="module")
def plugins() -> Iterator[dict[str, Any]]:
    """Those of the examples by name, from their sources."""
    paths = [str(EXAMPLES / f"pounce-{name}" / "src") for name in NAMES]
    sys.path[:0] = paths
    try:
        yield {name: __import__(f"pounce_{name}").plugin for name in NAMES}
    finally:
        del sys.path[: len(paths)]


async def app(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode() + b" " + body})


def received(client: socket.socket, end: bytes) -> bytes:
    """What comes, up to `end`."""
    data = b""
    while not data.endswith(end):
        piece = client.recv(65536)
        assert piece, data
        data += piece
    return data


def test_an_upgrade_echoes_and_says_goodbye_when_the_server_ends(plugins: dict[str, Any]) -> None:
    registry = Registry.of(h1, plugins["echo"], plugins["visits"])
    with (
        TestServer(app, registry=registry) as server,
        socket.create_connection((server.host, server.port), PATIENCE) as client,
    ):
        client.sendall(UPGRADE % b"echo")
        assert received(client, b"hello").startswith(b"HTTP/1.1 101 ")
        assert httpx.get(f"{server.url}/visits").json()["open"] == 1
        client.sendall(b"again")
        received(client, b"again")
        server.shutdown()
        received(client, b"goodbye")


def test_an_upgrade_ends_with_its_client_and_is_counted_once(plugins: dict[str, Any]) -> None:
    registry = Registry.of(h1, plugins["echo"], plugins["visits"])
    with TestServer(app, registry=registry) as server:
        with socket.create_connection((server.host, server.port), PATIENCE) as client:
            client.sendall(UPGRADE % b"echo")
            client.shutdown(socket.SHUT_WR)
            received(client, b"hello")
            assert client.recv(1) == b""
        told = httpx.get(f"{server.url}/visits").json()
    assert (told["open"], told["visits"]) == (0, {"/a": 1})


def test_a_switch_takes_over_the_connection(plugins: dict[str, Any]) -> None:
    with (
        TestServer(app, registry=Registry.of(h1, plugins["echo"])) as server,
        socket.create_connection((server.host, server.port), PATIENCE) as client,
    ):
        client.sendall(UPGRADE % b"shout")
        client.shutdown(socket.SHUT_WR)
        assert received(client, b"\r\n\r\n/a\nHELLO").startswith(b"HTTP/1.1 101 ")
        assert client.recv(1) == b""


@pytest.fixture(scope="module")
def asked(plugins: dict[str, Any], tls_files: tuple[str, str]) -> Iterator[socket.socket]:
    """A UDP socket that is connected to a server which answers questions."""
    tls = {"ssl_certfile": tls_files[0], "ssl_keyfile": tls_files[1]}
    registry = Registry.of(h1, plugins["ask"])
    with (
        TestServer(app, registry=registry, http3_enabled=True, **tls) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        client.settimeout(PATIENCE)
        client.connect((server.host, server.port))
        yield client


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (b"/caves\n", b"200 /caves "),
        (b"/a%20b?c=d\n", b"200 /a b "),
        (b"/caves\xff\n", b"400 Bad Request"),
        (b"/" + b"a%20" * 20, b"200 /" + b"a " * 20 + b" "),
    ],
)
def test_a_question_in_a_datagram_is_answered_in_one(asked: socket.socket, question: bytes, answer: bytes) -> None:
    asked.send(question)
    assert asked.recv(65536) == answer


def test_an_answer_is_no_longer_than_three_times_its_question(asked: socket.socket) -> None:
    asked.send(b"/")
    assert asked.recv(65536) == b"200"


def test_beside_datagrams_the_same_server_speaks_http(
    plugins: dict[str, Any], asked: socket.socket, tls_files: tuple[str, str]
) -> None:
    context = ssl.create_default_context(cafile=tls_files[0])
    answer = httpx.get(f"https://localhost:{asked.getpeername()[1]}/a", verify=context)
    assert (answer.text, answer.headers["alt-svc"].partition("=")[0]) == ("/a ", "ask")


def dns(plugins: dict[str, Any], *binds: str, **settings: Any) -> Any:
    """A server whose first bind answers questions for names."""
    return TestServer(
        app,
        registry=Registry.of(h1, plugins["dns"], plugins["ask"]),
        bind=["udp+dns://127.0.0.1:0", *binds],
        plugin_settings={"dns": {"records": "a.test=192.0.2.1 A.test=192.0.2.2 a.test=2001:db8::1"}},
        **settings,
    )


def lookup(server: TestServer, query: bytes) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE)
        client.connect((server.host, server.port))
        client.send(query)
        return client.recv(65536)


QUERY = b"\x12\x34\x01\x00\x00\x01\0\0\0\0\0\0"
ASKED = b"\x01a\x04TEST\0"


def test_names_are_looked_up_on_a_port_of_udp(plugins: dict[str, Any]) -> None:
    with dns(plugins, workers=2) as server:
        assert server.url.startswith("udp+dns://127.0.0.1:")
        answer = lookup(server, QUERY + ASKED + b"\0\x01\0\x01")
        assert answer[:12] == b"\x12\x34\x85\x00\0\x01\0\x02\0\0\0\0"
        assert answer.endswith(b"\0\x04" + socket.inet_aton("192.0.2.2"))
        assert answer.count(socket.inet_aton("192.0.2.1")) == 1
        answer = lookup(server, QUERY + ASKED + b"\0\x1c\0\x01")
        assert answer.endswith(b"\0\x10" + socket.inet_pton(socket.AF_INET6, "2001:db8::1"))
        assert lookup(server, QUERY + b"\x01b\0" + b"\0\x01\0\x01")[2:8] == b"\x85\x03\0\x01\0\0"


@pytest.mark.parametrize(
    ("query", "code"),
    [(b"\0\x01\x08" + bytes(9), 4), (bytes(12), 1), (QUERY, 1), (QUERY + b"\x01a", 1), (QUERY + b"\xc0\x0c\0\x01", 1)],
)
def test_what_is_no_question_is_answered_with_a_code(plugins: dict[str, Any], query: bytes, code: int) -> None:
    with dns(plugins) as server:
        assert lookup(server, query)[3] & 0xF == code


def test_several_wires_over_udp_and_http_have_a_bind_each(plugins: dict[str, Any]) -> None:
    with dns(plugins, "udp+ask://127.0.0.1:0", "127.0.0.1:0") as server:
        urls = server.info.urls
        assert [url.partition("://")[0] for url in urls] == ["udp+dns", "udp+ask", "http"]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(PATIENCE)
            client.connect(("127.0.0.1", int(urls[1].rpartition(":")[2])))
            client.send(b"/caves\n")
            assert client.recv(65536) == b"200 /caves "
        assert httpx.get(f"{urls[2]}/a").text == "/a "
        assert lookup(server, QUERY + ASKED + b"\0\x01\0\x01")[7] == 2


def test_bind_of_udp_has_settings_of_its_wire(plugins: dict[str, Any]) -> None:
    with dns(plugins, "udp+dns://127.0.0.1:0?records=b.test=192.0.2.9") as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(PATIENCE)
            client.connect(("127.0.0.1", int(server.info.urls[1].rpartition(":")[2])))
            client.send(QUERY + b"\x01b\x04test\0" + b"\0\x01\0\x01")
            assert client.recv(65536).endswith(socket.inet_aton("192.0.2.9"))
        assert lookup(server, QUERY + ASKED + b"\0\x01\0\x01")[7] == 2


@pytest.mark.parametrize("bind", ["udp+h1://127.0.0.1:0", "udp+h3://127.0.0.1:0", "udp+dns://127.0.0.1:0?tls=on"])
def test_bind_of_udp_that_cannot_be_keeps_the_server_from_starting(plugins: dict[str, Any], bind: str) -> None:
    with pytest.raises(ConfigError, match="bind"), dns(plugins, bind):
        pass


def test_two_protocols_cannot_have_the_datagrams_of_one_port(plugins: dict[str, Any]) -> None:
    with dns(plugins) as server:
        port = server.port
    with (
        pytest.raises(BindError, match="datagrams"),
        TestServer(
            app,
            registry=Registry.of(h1, plugins["dns"], plugins["ask"]),
            bind=[f"udp+dns://127.0.0.1:{port}", f"udp+ask://127.0.0.1:{port}"],
        ),
    ):
        pass


def test_the_parser_keeps_the_contract(plugins: dict[str, Any]) -> None:
    check_parser(plugins["plain"].parsers[0].create)


def test_the_parser_serves_where_it_is_named(plugins: dict[str, Any]) -> None:
    with (
        TestServer(app, registry=Registry.of(h1, plugins["plain"]), http_parser="plain") as server,
        httpx.Client(base_url=server.url, verify=False) as client,
    ):
        assert client.post("/a", content=iter([b"one ", b"two"])).text == "/a one two"
        assert client.post("/b", content=b"three").text == "/b three"


@pytest.fixture(scope="module")
def visited(plugins: dict[str, Any]) -> Iterator[httpx.Client]:
    """A client of a server with two workers that counts visits."""
    settings = {"visits": {"field": True}}
    registry = Registry.of(h1, plugins["visits"])
    with (
        TestServer(
            app, registry=registry, plugin_settings=settings, workers=2, worker_mode="thread", lifespan="off"
        ) as server,
        httpx.Client(base_url=server.url, verify=False) as client,
    ):
        yield client


def test_visits_are_counted_by_path_for_the_whole_server(visited: httpx.Client) -> None:
    for path in ("/a", "/a?x=1", "/b", "/a"):
        # A connection for each, so that no worker has all of them.
        httpx.get(f"{visited.base_url}{path}")
    # Its worker may count a request only after its client has the answer.
    deadline = time.monotonic() + PATIENCE
    while (told := visited.get("/visits").json()["visits"]).get("/a", 0) + told.get("/b", 0) < 4:
        assert time.monotonic() < deadline
    assert (told["/a"], told["/b"]) == (3, 1)
    assert visited.post("/visits").status_code == 405


def test_no_more_paths_are_kept_than_are_allowed(plugins: dict[str, Any]) -> None:
    registry = Registry.of(h1, plugins["visits"])
    with (
        TestServer(app, registry=registry, plugin_settings={"visits": {"most": 2}}) as server,
        httpx.Client(base_url=server.url, verify=False) as client,
    ):
        for path in ("/a", "/b", "/c", "/d", "/a"):
            client.get(path)
        assert client.get("/visits").json()["visits"] == {"/a": 2, "/b": 1, "*": 2}


def test_an_answer_says_how_often_its_path_was_asked_for_before(visited: httpx.Client) -> None:
    assert [visited.get("/here").headers["x-visits"] for _ in range(3)] == ["0", "1", "2"]


def pounce(installed: Path, *words: str) -> str:
    """What the command line says with the examples installed."""
    line = [sys.executable, "-m", "pounce_cli", *words]
    environ = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(line, env=environ, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout


def test_all_examples_are_found_beside_each_other(installed: Path) -> None:
    told = {each["name"]: each for each in json.loads(pounce(installed, "plugins", "--json"))["plugins"]}
    assert [told[name]["skipped"] for name in NAMES] == [None] * len(NAMES)


def test_the_command_shows_what_is_asked_for_most(installed: Path, visited: httpx.Client) -> None:
    # The last one on its connection shows that those before it are counted.
    for path in (*("/often",) * 20, "/last"):
        visited.get(path)
    said = pounce(installed, "visits", "--url", f"{visited.base_url}/visits", "--most", "1")
    assert said.split() == ["20", "/often"]
