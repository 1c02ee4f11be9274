"""The example wire for SCGI: by itself, and behind nginx."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.client import HTTPConnection, IncompleteRead
from pathlib import Path
from typing import Any

import pytest

from pounce.h1.plugin import plugin as h1
from pounce.registry import Registry
from pounce.testing import TestServer, check_wire

PATIENCE = 60.0
SOURCE = Path(__file__).parents[2] / "examples" / "pounce-scgi" / "src"
CLIENT = "127.0.0.9"
"""Where the client's connections come from: all of 127.0.0.0/8 is this machine."""
has_begun = threading.Event()
"""The client has the beginning of an answer."""


@pytest.fixture(scope="module")
def scgi() -> Iterator[Any]:
    sys.path.insert(0, str(SOURCE))
    try:
        import pounce_scgi

        yield pounce_scgi.plugin
    finally:
        sys.path.remove(str(SOURCE))


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise NotImplementedError
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length += len(message["body"])
        more = message["more_body"]
    seen = {name: scope[name] for name in ("method", "path", "root_path", "scheme", "client")}
    seen |= {"query": scope["query_string"].decode(), "length": length}
    seen["fields"] = sorted(name.decode() for name, _ in scope["headers"])
    if scope["path"].endswith("/broken"):
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        assert await asyncio.to_thread(has_begun.wait, PATIENCE)
        return
    await send({"type": "http.response.start", "status": 201, "headers": [(b"x-a", b"b")]})
    await send({"type": "http.response.body", "body": json.dumps(seen).encode()})


def request(body: bytes = b"", uri: bytes = b"/a?b=c", **more: bytes) -> bytes:
    variables = {b"CONTENT_LENGTH": b"%d" % len(body), b"SCGI": b"1", b"REQUEST_METHOD": b"POST", b"REQUEST_URI": uri}
    variables |= {name.encode(): value for name, value in more.items()}
    block = b"".join(b"%b\0%b\0" % pair for pair in variables.items())
    return b"%d:%b,%b" % (len(block), block, body)


def test_the_example_keeps_the_contract(scgi: Any) -> None:
    check_wire(
        scgi.wires[0],
        [request(), request(b"abc", HTTP_HOST=b"h"), request(bytes(200_000))],
        registry=Registry.of(h1, scgi),
    )


@pytest.fixture(scope="module")
def server(scgi: Any) -> Iterator[TestServer]:
    """Its first bind speaks SCGI alone, the other finds out."""
    binds = ["scgi://127.0.0.1:0", "127.0.0.1:0"]
    with TestServer(app, registry=Registry.of(h1, scgi), bind=binds, max_request_size=0) as started:
        yield started


def exchange(server: TestServer, data: bytes, bind: int = 0) -> bytes:
    port = int(server.info.urls[bind].rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
        sock.sendall(data)
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    return answer


@pytest.mark.parametrize("bind", [0, 1])
def test_first_bytes_or_the_bind_choose_the_wire(server: TestServer, bind: int) -> None:
    answer = exchange(server, request(b"hello"), bind)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"Status: 201 Created\r\n")
    assert (json.loads(body)["query"], json.loads(body)["length"]) == ("b=c", 5)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"12345678:",
        b"24:CONTENT_LENGTH\x000\x00SCGI\x001\x00;",
        b"4:a\0b\0,",
        request(REQUEST_METHOD=b"G T"),
        request(REQUEST_URI=b"a"),
        request(HTTP_X=b"a\nb"),
        request(CONTENT_LENGTH=b"-1"),
    ],
)
def test_what_is_no_request_is_answered_400(server: TestServer, data: bytes) -> None:
    assert exchange(server, data).startswith(b"Status: 400 ")


def test_a_bind_has_settings_of_its_own(scgi: Any) -> None:
    binds = ["scgi://127.0.0.1:0", "scgi://127.0.0.1:0?root_path=off"]
    with TestServer(app, registry=Registry.of(h1, scgi), bind=binds) as server:
        answers = [exchange(server, request(uri=b"/m/a", SCRIPT_NAME=b"/m"), bind) for bind in (0, 1)]
    seen = [json.loads(answer.partition(b"\r\n\r\n")[2]) for answer in answers]
    assert [(each["root_path"], each["path"]) for each in seen] == [("/m", "/m/a"), ("", "/m/a")]


def test_a_head_too_large_is_answered_431(server: TestServer) -> None:
    assert exchange(server, request(HTTP_X=b"a" * 100_000)).startswith(b"Status: 431 ")


# Behind nginx


@pytest.fixture(scope="module")
def nginx(server: TestServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
    folder = tmp_path_factory.mktemp("nginx")
    names = "REQUEST_METHOD $request_method REQUEST_URI $request_uri"
    names += " REMOTE_ADDR $remote_addr REMOTE_PORT $remote_port SERVER_NAME $server_name SERVER_PORT $server_port"
    words = names.split()
    given = " ".join(f"scgi_param {name} {value};" for name, value in zip(words[::2], words[1::2], strict=True))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(f"""
            daemon off; worker_processes 1; {user} pid {folder}/nginx.pid; error_log {folder}/error.log;
            events {{ worker_connections 64; }}
            http {{
                access_log off; client_body_temp_path {folder}; scgi_temp_path {folder}; client_max_body_size 10m;
                proxy_temp_path {folder}; fastcgi_temp_path {folder}; uwsgi_temp_path {folder};
                server {{
                    listen 127.0.0.1:{port};
                    scgi_param SCGI 1; {given} scgi_buffering off;
                    location / {{ scgi_pass 127.0.0.1:{server.port}; }}
                    location /mounted/ {{ scgi_param SCRIPT_NAME /mounted; scgi_param SCGI 1; {given}
                                          scgi_pass 127.0.0.1:{server.port}; }}
                }}
            }}""")
        command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
        process = subprocess.Popen(
            command,
            pass_fds=[listening.fileno()],
            env={**os.environ, "NGINX": f"{listening.fileno()};"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield port
        finally:
            process.terminate()
            process.wait(PATIENCE)


def ask(port: int, path: str, body: bytes = b"", method: str = "POST") -> tuple[int, Any]:
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE, source_address=(CLIENT, 0))
    try:
        connection.request(method, path, body, {"X-Of-Client": "1"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_nginx_passes_a_request_on_with_client_and_fields(nginx: int) -> None:
    status, body = ask(nginx, "/a%20b?c=d", b"hello")
    seen = json.loads(body)
    assert (status, seen["method"], seen["path"], seen["query"], seen["length"]) == (201, "POST", "/a b", "c=d", 5)
    assert seen["client"][0] == CLIENT
    assert "x-of-client" in seen["fields"]


def test_nginx_says_where_the_application_is_mounted(nginx: int) -> None:
    seen = json.loads(ask(nginx, "/mounted/a", method="GET")[1])
    assert (seen["root_path"], seen["path"]) == ("/mounted", "/mounted/a")


def test_a_long_body_comes_whole(nginx: int) -> None:
    assert json.loads(ask(nginx, "/", bytes(3_000_000))[1])["length"] == 3_000_000


def test_an_answer_that_breaks_off_is_no_whole_one_behind_nginx_either(nginx: int) -> None:
    connection = HTTPConnection("127.0.0.1", nginx, timeout=PATIENCE)
    connection.request("GET", "/broken")
    answer = connection.getresponse()
    assert answer.read(5) == b"begun"
    has_begun.set()
    with pytest.raises(IncompleteRead):
        answer.read()
    connection.close()
