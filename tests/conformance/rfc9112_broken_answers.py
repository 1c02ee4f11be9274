"""RFC 9112 8: an answer that is cut never looks like a whole one, and one that is whole arrives whole.

Over HTTP/1.0 nothing but the end of the connection marks the end of an answer without a length; so here a cut answer
ends by a reset, over TLS without close_notify. And whatever the kernel has of a connection belongs to somebody, until
the client has it or is given up.
"""

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from tests.conformance.rfc9112_support import PATIENCE, Client, Receive, Send, get, read_answers, registry_of, reply

from pounce.net import linger
from pounce.plugin import API_VERSION, Connection, Plugin, Responder, Wire
from pounce.testing import TestServer

RECEIVE_BUFFER = 32_768
"""Bytes that the kernel keeps for a client that reads nothing: few, so that what is not read shows at the server."""
HALF_READ, HALF_READ_UNIX = 1_500_000, 100_000
"""Bytes of an answer that the server's kernel takes, and the client's does not."""


class Server:
    """A server on one kind of socket whose insides the test may look at."""

    def __init__(self, app: Any, kind: str, tls_files: tuple[str, str], stack: ExitStack, **settings: Any) -> None:
        self._services: list[Any] = []
        self._kind = kind
        settings = {"lifespan": "off", "shutdown_timeout": PATIENCE} | settings
        self.context = None
        if kind == "tls":
            settings |= {"ssl_certfile": tls_files[0], "ssl_keyfile": tls_files[1]}
            self.context = ssl.create_default_context(cafile=tls_files[0])
            self.context.check_hostname = False
        elif kind == "unix":
            settings["uds"] = stack.enter_context(tempfile.TemporaryDirectory()) + "/socket"
        responder = Responder(name="seen", create=self._services.append)
        seen = Plugin(name="seen", api=API_VERSION, responders=(responder,), wires=(RAW,))
        self.server = TestServer(app, registry=registry_of("h11", seen), **settings)
        stack.enter_context(self.server)

    @property
    def connections(self) -> list[Any]:
        return list(self._services[0].connections)

    @property
    def counts(self) -> dict[str, int]:
        return self._services[0].counts

    def client(self) -> Client:
        client = Client(self.server, self.context, receive_buffer=RECEIVE_BUFFER)
        if isinstance(client.sock, ssl.SSLSocket):
            # Python passes over an end without close_notify unless it is told not to.
            client.sock.suppress_ragged_eofs = False
        return client

    def until(self, true: Callable[[], object]) -> None:
        """Wait until something is true of the server."""
        end = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.01)

    def orphaned(self, client: Client) -> int:
        """Bytes for the client in sockets of the kernel that no process has any more."""
        if self._kind == "unix":
            return 0
        port = client.sock.getsockname()[1]
        with open("/proc/net/tcp", encoding="ascii") as table:
            rows = [line.split() for line in list(table)[1:]]
        # Column 9 is the inode, 0 for a socket without an owner.
        return sum(
            int(row[4].partition(":")[0], 16)
            for row in rows
            if int(row[2].partition(":")[2], 16) == port and row[9] == "0"
        )


class Raw(Connection):
    """A wire whose documents end with the connection, and that fails when it is told to."""

    def data_received(self, data: bytes) -> None:
        if data == b"fail":
            raise ZeroDivisionError("on purpose")
        self.send(b"half a document")


RAW = Wire(name="raw", connect=lambda service: Raw(service, "raw"))


@pytest.fixture(params=["tcp", "tls", "unix"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["asyncio", "uvloop"])
def start(
    request: pytest.FixtureRequest, kind: str, tls_files: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> Iterator[Callable[..., Server]]:
    """A function that serves an application on each kind of socket and loop."""
    with ExitStack() as stack:
        yield lambda app, **settings: Server(app, kind, tls_files, stack, loop=request.param, **settings)
    assert [record.getMessage() for record in caplog.get_records("call") if record.name == "asyncio"] == []


def without_reset(kind: str) -> None:
    if kind == "unix":
        pytest.skip("a Unix socket knows no reset")


def ends_broken(client: Client) -> bool:
    """Whether a client that reads to the end is told that there is more that it did not get."""
    try:
        client.rest()
    except ConnectionResetError, ssl.SSLEOFError:
        return True
    return False


class Endless:
    """Sends for ever, and says when it can go no further because of its client, and when it is told of the end."""

    def __init__(self) -> None:
        self.stuck = threading.Event()
        self.ended = threading.Event()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200})
            while True:
                piece = asyncio.ensure_future(
                    send({"type": "http.response.body", "body": b"." * 65_536, "more_body": True})
                )
                await asyncio.wait({piece}, timeout=0.2)
                if not piece.done():
                    self.stuck.set()
                await piece
        finally:
            self.ended.set()


def old_get(path: str = "/") -> bytes:
    """A request whose answer the end of the connection ends."""
    return get(path, version="1.0")


# Cut answers


def test_answer_that_is_given_up_after_write_timeout_is_broken_for_its_client(
    start: Callable[..., Server], kind: str
) -> None:
    app = Endless()
    server = start(app, write_timeout=0.3)
    with server.client() as client:
        client.send(old_get())
        assert app.ended.wait(PATIENCE)
        server.until(lambda: not server.connections)
        assert server.counts["write_timeout"] == 1
        assert server.orphaned(client) == 0
        without_reset(kind)
        assert ends_broken(client)


def test_answer_of_a_client_that_takes_a_little_now_and_then_is_given_up_too(
    start: Callable[..., Server], kind: str
) -> None:
    app = Endless()
    server = start(app, write_timeout=0.3, min_write_rate=10_000_000)
    with server.client() as client:
        client.send(old_get())
        while not app.ended.wait(0.01):
            try:
                assert client.sock.recv(1000)
            except ConnectionResetError, ssl.SSLEOFError:
                break
        assert app.ended.wait(PATIENCE)
        server.until(lambda: not server.connections)
        assert server.orphaned(client) == 0
        without_reset(kind)
        assert ends_broken(client)


@pytest.mark.parametrize("force", [False, True], ids=["end of the drain", "second signal"])
def test_answer_that_a_drain_cuts_is_broken_for_its_client(
    start: Callable[..., Server], kind: str, force: bool
) -> None:
    app = Endless()
    server = start(app, **({} if force else {"shutdown_timeout": 0.2}))
    with server.client() as client:
        client.send(old_get())
        assert app.stuck.wait(PATIENCE)
        server.server.shutdown()
        if force:
            server.server.shutdown(force=True)
        server.server.stop()
        assert server.orphaned(client) == 0
        without_reset(kind)
        assert ends_broken(client)


def test_answer_that_waits_for_its_client_is_broken_by_the_end_of_the_drain(
    start: Callable[..., Server], kind: str
) -> None:
    """The application has given all of it, and the transport still has a part."""
    given = threading.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        last = asyncio.ensure_future(send({"type": "http.response.body", "body": b"." * 16_000_000}))
        await asyncio.sleep(0)
        given.set()
        await last

    server = start(app, shutdown_timeout=0.2)
    with server.client() as client:
        client.send(old_get())
        assert given.wait(PATIENCE)
        server.server.stop()
        assert server.orphaned(client) == 0
        without_reset(kind)
        assert ends_broken(client)


@pytest.mark.parametrize("how", ["raises", "returns", "too short"])
def test_answer_that_its_application_breaks_off_is_broken_for_its_client(
    start: Callable[..., Server], kind: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"100")] if how == "too short" else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        if how == "raises":
            raise ZeroDivisionError("on purpose")

    server = start(app)
    with server.client() as client:
        client.send(old_get())
        if how == "too short":
            assert [answer.complete for answer in read_answers(client.rest())] == [False]
        else:
            without_reset(kind)
            assert ends_broken(client)


@pytest.mark.parametrize("start", ["asyncio", "uvloop"], indirect=True)
def test_document_of_a_wire_that_fails_is_broken_for_its_client(
    start: Callable[..., Server], kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    if kind != "tcp":
        pytest.skip("a bind that names a wire is TCP here")
    server = start(reply, bind=["raw://127.0.0.1:0"])
    with server.client() as client:
        client.send(b"begin")
        assert client.sock.recv(100) == b"half a document"
        client.send(b"fail")
        assert ends_broken(client)


STREAM = """
import asyncio, os
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"process %d, half" % os.getpid(), "more_body": True})
    await asyncio.Event().wait()
"""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_answer_that_the_death_of_its_process_cuts_is_broken_for_its_client(tmp_path: Any, workers: str) -> None:
    (tmp_path / "main.py").write_text(STREAM)
    command = [sys.executable, "-m", "pounce_cli", "serve", "main:app", "--port", "0", "--log-format", "json"]
    with subprocess.Popen(
        [*command, "--lifespan", "off", "--workers", workers], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            port = 0
            while not port:
                line = process.stderr.readline()
                assert line, "the server did not start"
                if "http://127.0.0.1:" in line:
                    port = int(line.partition("http://127.0.0.1:")[2].partition('"')[0])
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
                client.sendall(old_get())
                data = b""
                while not data.endswith(b"half"):
                    data += client.recv(1000)
                os.kill(int(data.partition(b"process ")[2].partition(b",")[0]), signal.SIGKILL)
                with pytest.raises(ConnectionResetError):
                    client.recv(1000)
        finally:
            process.send_signal(signal.SIGTERM)


# Whole answers


async def half_read(scope: Any, receive: Receive, send: Send) -> None:
    await reply(send, b"." * HALF_READ)


def has_ended(connection: Connection) -> bool:
    """Whether a connection is closed but for what the client has not got yet."""
    return isinstance(connection, linger._Remains) or connection.transport.is_closing()


@pytest.mark.parametrize("request_", [get("/"), get("/", "Connection: close"), old_get()], ids=["idle", "close", "1.0"])
def test_client_that_reads_nothing_of_a_whole_answer_leaves_nothing_behind(
    start: Callable[..., Server], request_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    server = start(half_read, write_timeout=0.5, keep_alive_timeout=0.2)
    with server.client() as client:
        client.send(request_)
        server.until(lambda: server.connections)
        while server.connections:
            assert server.orphaned(client) == 0
            time.sleep(0.05)
        assert server.orphaned(client) == 0
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("request_", [get("/"), get("/", "Connection: close"), old_get()], ids=["idle", "close", "1.0"])
def test_whole_answer_arrives_at_a_client_that_reads_it_late_and_sends_on(
    start: Callable[..., Server], kind: str, request_: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has long ended the connection by then, as far as it can; it takes no more for it than is due."""
    for name in ("LINGER_TIMEOUT", "IDLE_LINGER"):
        monkeypatch.setattr(f"pounce.h1.connection.{name}", 0.0)
    server = start(half_read, keep_alive_timeout=0.2)
    with server.client() as client:
        client.send(request_)
        if kind != "unix":
            server.until(lambda: [each for each in server.connections if has_ended(each)])
            client.send(get("/late"))
        assert [(len(answer.body), answer.complete) for answer in client.answers()] == [(HALF_READ, True)]
        server.until(lambda: not server.connections)


def test_whole_answer_arrives_although_the_server_has_ended(start: Callable[..., Server], kind: str) -> None:
    """The time of the drain is up, and the kernel brings what it has."""
    size = HALF_READ_UNIX if kind == "unix" else HALF_READ
    given = threading.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await reply(send, b"." * size)
        given.set()

    server = start(app, shutdown_timeout=0.5)
    with server.client() as client:
        client.send(get("/", "Connection: close"))
        assert given.wait(PATIENCE)
        server.server.stop()
        assert [(len(answer.body), answer.complete) for answer in client.answers()] == [(size, True)]
