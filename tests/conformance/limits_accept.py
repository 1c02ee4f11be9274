"""Limits of accepting: max_connections, and descriptors that run out."""

import asyncio
import errno
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest
from tests.conformance.rfc9112_support import (
    PATIENCE,
    Client,
    get,
    in_loop,
    parser,
    path_app,
    registry_of,
    serve,
    socket_kind,
)

from pounce.net.bind import Bind
from pounce.observe.access_log import plugin as access_log_plugin
from pounce.plugin import API_VERSION, Plugin, Wire
from pounce.testing.memory import memory_service
from pounce.worker.acceptor import Acceptor

__all__ = ["parser", "serve", "socket_kind"]


def test_a_connection_above_max_connections_is_told_so(serve: Any, socket_kind: str) -> None:
    site = serve(path_app, max_connections=2)
    with ExitStack() as stack:
        for _ in range(2):
            client = stack.enter_context(site.client())
            client.send(get("/1"))
            assert client.answer().status == 200
        if socket_kind == "tls":
            # A handshake only to say no would cost more than it is worth.
            with pytest.raises((ConnectionError, OSError)):
                stack.enter_context(site.client())
        else:
            refused = stack.enter_context(site.client())
            answer = refused.answer()
            assert (answer.status, answer.closes) == (503, True)
            assert answer.headers["retry-after"] == "5"
            assert answer.headers["x-pounce-error-code"] == "POUNCE_LIMIT_CONNECTIONS"
        client.send(get("/2"))
        assert client.answer().body == b"/2"


def test_a_connection_that_is_turned_away_has_a_line_and_an_id(
    serve: Any, socket_kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    if socket_kind == "tls":
        pytest.skip("TLS connections are closed before their handshake")
    caplog.set_level("INFO", "pounce.access")
    site = serve(path_app, access_log_plugin, max_connections=1, access_log=True, request_id=True)
    with site.client() as first:
        first.send(get("/1"))
        assert first.answer().status == 200
        with site.client() as refused:
            number = refused.answer().headers["x-request-id"]
    site.server.stop(timeout=PATIENCE)
    entries = [record.msg for record in caplog.records if record.name == "pounce.access"]
    (entry,) = [entry for entry in entries if entry.status == 503]
    assert (entry.target, entry.request_id, entry.complete) == ("-", number, True)
    assert entry.client.startswith("unix" if socket_kind == "unix" else "127.0.0.1:")


def test_a_client_that_sends_at_once_can_read_that_there_are_too_many(serve: Any, socket_kind: str) -> None:
    if socket_kind == "tls":
        pytest.skip("TLS connections are closed before their handshake")
    site = serve(path_app, max_connections=1)
    with site.client() as first:
        first.send(get())
        first.answer()
        for _ in range(20):
            with site.client() as refused:
                try:
                    refused.send(get() * 10)
                except ConnectionError:
                    pass  # it may be closed already; what it said must be there all the same
                assert refused.answer().status == 503


def test_a_place_that_becomes_free_can_be_taken(serve: Any) -> None:
    site = serve(path_app, max_connections=1)
    with site.client() as client:
        client.send(get("/first"))
        assert client.answer().body == b"/first"
    # The server notices the end of a connection a moment after the client has closed it.
    limit = time.monotonic() + PATIENCE
    while True:
        try:
            with site.client() as client:
                client.send(get("/next"))
                answer = client.answer()
        except OSError, EOFError:
            answer = None
        if answer is not None and answer.status == 200:
            assert answer.body == b"/next"
            break
        assert time.monotonic() < limit, "the place does not become free"


def test_as_many_connections_as_allowed_may_come_at_once(serve: Any) -> None:
    """Each connection counts once, also at the moment between being accepted and being served."""
    count = 4
    for _ in range(5):
        site = serve(path_app, max_connections=count)
        together = threading.Barrier(count)

        def ask(site: Any = site, together: threading.Barrier = together) -> int:
            together.wait(PATIENCE)
            with site.client() as client:
                client.send(get())
                status = client.answer().status
                together.wait(PATIENCE)
                return status

        with ThreadPoolExecutor(count) as pool:
            asked = [pool.submit(ask) for _ in range(count)]
            assert [future.result() for future in asked] == [200] * count


SERVER = """
import asyncio, os, resource, sys, time

sys.path[:0] = [os.getcwd()]
from tests.conformance.rfc9112_support import registry_of, reply
from pounce.testing import TestServer

async def app(scope, receive, send):
    if scope["path"] == "/cpu":
        before = time.process_time()
        await asyncio.sleep(1.2)
        await reply(send, b"%.3f" % (time.process_time() - before))
    else:
        await reply(send, scope["raw_path"])

import logging
logging.basicConfig(level="ERROR", format="%(message)s", stream=sys.stderr)
with TestServer(app, registry=registry_of(sys.argv[1]), http_parser=sys.argv[1], header_timeout=100, lifespan="off",
                keep_alive_timeout=100) as server:
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 16, used + 16))
    print(server.port, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def few_descriptors(parser: str) -> Iterator[tuple[int, Any]]:
    """The port of a server that has about 16 descriptors for its connections, and its standard error."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, parser],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    with process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            port = process.stdout.readline()
            assert port, process.communicate()[1]
            yield int(port), process.stderr
        finally:
            process.stdin.close()
            try:
                process.wait(PATIENCE)
            finally:
                process.kill()


class At:
    """What a `Client` needs to know of a server in another process."""

    def __init__(self, port: int) -> None:
        self.url, self.host, self.port = f"http://127.0.0.1:{port}", "127.0.0.1", port


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="counts descriptors in /proc")
def test_running_out_of_descriptors_pauses_accepting_and_goes_on_afterwards(few_descriptors: tuple[int, Any]) -> None:
    """Also when that happens before the first connection was served, with all there may be left to import."""
    port, log = few_descriptors
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(At(port))) for _ in range(30)]
        first, last = clients[0], clients[-1]
        assert "Cannot accept connections" in log.readline()
        first.send(get("/cpu"))
        last.send(get("/last"))
        # While it cannot accept it serves what it has, and does not spin.
        assert float(first.answer().body) < 0.4
        for client in clients[:20]:
            client.close()
        assert last.answer().body == b"/last"
        with Client(At(port)) as new:
            new.send(get("/new"))
            assert new.answer().body == b"/new"


@in_loop
async def test_an_acceptor_that_was_stopped_without_descriptors_does_not_begin_again(
    parser: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Else a draining server would go on to accept half a second later."""

    class Full(socket.socket):
        """A listening socket whose process has no descriptor left."""

        accepted = 0

        def _accept(self) -> Any:
            self.accepted += 1
            raise OSError(errno.EMFILE, "Too many open files")

    with Full() as full:
        registry = registry_of(parser)
        service = memory_service(path_app, registry, http_parser=parser)
        listener = SimpleNamespace(sock=full, is_unix=False, bind=Bind())
        acceptor = Acceptor(service, listener, registry.wire_table(), None, None)  # type: ignore[arg-type]
        acceptor.start()
        acceptor.stop()
        loop = asyncio.get_running_loop()
        due = [handle for handle in loop._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
        assert (full.accepted, due) == (1, [])
        assert not loop.remove_reader(full.fileno())


def test_a_named_wire_is_turned_away_without_a_word_of_http(socket_kind: str, parser: str, serve: Any) -> None:
    """The 503 is for clients that speak HTTP; a bind for another protocol gets none of it."""
    if socket_kind != "tcp":
        pytest.skip("one kind of socket is enough")

    class Greeter(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            transport.write(b"hello")

    plugin = Plugin(name="greet", api=API_VERSION, wires=(Wire(name="greet", connect=lambda service: Greeter()),))
    site = serve(path_app, plugin, bind=["greet://127.0.0.1:0"], max_connections=1)
    address = site.server.info.urls[0].rpartition(":")
    port = int(address[2].strip("/"))
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as first:
        assert first.recv(100) == b"hello"
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as second:
            assert second.recv(100) == b""
