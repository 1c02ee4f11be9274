"""How a server ends: within its bound, whatever applications and clients do."""

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pounce.contract.head import Headers, RequestHead
from pounce.contract.stream import Completed, ConnectionInfo, Stream
from pounce.errors import BindError
from pounce.exchange.service import Service
from pounce.h1.plugin import plugin as h1
from pounce.net.linger import LINGER_MAX
from pounce.plugin import API_VERSION, ObserverFactory, Plugin, Upgrade, Wire
from pounce.registry import Registry
from pounce.testing import MemoryConnection, TestServer
from pounce.testing.memory import memory_service

APP = """
import asyncio, sys, time

async def hold(scope):
    if scope["path"] == "/thread":
        await asyncio.get_running_loop().run_in_executor(None, time.sleep, 600)
    while scope["path"] == "/swallow":
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            pass

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        print("starting", file=sys.stderr, flush=True)
        await receive()
        await asyncio.sleep(600 if "slow" in sys.argv else 0)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    print("called", file=sys.stderr, flush=True)
    await hold(scope)
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body"})
"""
SERVE = "import pounce; pounce.run('main:app', port=0, log_format='text', shutdown_timeout=0.5, access_log=False)"


class Process:
    """A server process, read line by line."""

    def __init__(self, folder: Path, *arguments: str, program: str = SERVE, stdout: int | None = None) -> None:
        (folder / "main.py").write_text(APP)
        self.popen = subprocess.Popen(
            [sys.executable, "-c", program, *arguments], cwd=folder, stdout=stdout, stderr=subprocess.PIPE, text=True
        )

    def line_with(self, text: str) -> str:
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            if text in line:
                return line
        raise AssertionError(f"the server ended without saying {text!r}")

    def port(self) -> int:
        return int(self.line_with("Listening").rpartition(":")[2])

    def end(self, *signals: int) -> tuple[int, float, str]:
        """Exit code, seconds, and what was still written."""
        began = time.monotonic()
        for number in signals:
            os.kill(self.popen.pid, number)
        _, rest = self.popen.communicate(timeout=120)
        return self.popen.returncode, time.monotonic() - began, rest


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Any]:
    started: list[Process] = []

    def start(*arguments: str, **options: Any) -> Process:
        started.append(Process(tmp_path, *arguments, **options))
        return started[-1]

    yield start
    for one in started:
        one.popen.kill()
        one.popen.communicate()


def request(port: int, path: str) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return client


@pytest.mark.parametrize("path", ["/thread", "/swallow"])
def test_an_application_that_does_not_end_cannot_keep_the_process(process: Any, path: str) -> None:
    server = process()
    with request(server.port(), path):
        server.line_with("called")
        _, seconds, _ = server.end(signal.SIGTERM)
    assert seconds < 60


def test_program_goes_on_after_the_server_whose_calls_in_threads_go_on(process: Any) -> None:
    program = f"{SERVE}\nimport sys; print('goes on', file=sys.stderr)"
    server = process(program=program)
    with request(server.port(), "/thread"):
        server.line_with("called")
        code, _, rest = server.end(signal.SIGTERM)
    assert "goes on" in rest
    assert code == 0


def test_threads_of_the_program_around_the_server_are_waited_for(tmp_path: Path, process: Any) -> None:
    """They would be without the server too, as long as they take: for its own ones the time is over before."""
    release = tmp_path / "release"
    program = (
        f"import os, threading, time\ndef own():\n    while not os.path.exists({str(release)!r}): time.sleep(0.01)"
    )
    program += f"\n    print('own thread ended', flush=True)\nthreading.Thread(target=own).start()\n{SERVE}"
    server = process(program=program, stdout=subprocess.PIPE)
    with request(server.port(), "/thread"):
        server.line_with("called")
        os.kill(server.popen.pid, signal.SIGTERM)
        server.line_with("are left")
        release.touch()
        out, _ = server.popen.communicate(timeout=120)
    assert out == "own thread ended\n"


def test_exit_handlers_of_the_program_around_the_server_are_waited_for(process: Any) -> None:
    """Those of the application are called before them, and the bound is for those alone."""
    program = """
import atexit, threading

@atexit.register
def own():
    for thread in threading.enumerate():
        if thread.name == "pounce end":
            thread.join()
    print("own handler ended", flush=True)
"""
    on_ready = "on_ready=lambda info: atexit.register(print, 'of the application', flush=True)"
    program += SERVE.replace("port=0", f"port=0, {on_ready}")
    server = process(program=program, stdout=subprocess.PIPE)
    server.port()
    os.kill(server.popen.pid, signal.SIGTERM)
    out, _ = server.popen.communicate(timeout=120)
    assert out == "of the application\nown handler ended\n"
    assert server.popen.returncode == 0


def test_a_second_signal_during_startup_ends_the_process_without_a_traceback(process: Any) -> None:
    server = process("slow")
    server.line_with("starting")
    code, _, rest = server.end(signal.SIGTERM, signal.SIGINT)
    assert (code, "Traceback" in rest) == (1, False)


async def answer(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


def test_connections_are_refused_once_a_drain_has_begun() -> None:
    refused: list[bool] = []

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        server.shutdown()
        while not server_is_closed():
            await asyncio.sleep(0)
        refused.append(True)
        await answer(scope, receive, send)

    def server_is_closed() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) != 0

    with TestServer(slow, shutdown_timeout=20.0) as server:
        port = server.port
        httpx.get(server.url)
    assert refused == [True]


def test_a_client_that_never_finishes_its_tls_handshake_does_not_delay_the_end(tls_files: tuple[str, str]) -> None:
    server = TestServer(answer, ssl_certfile=tls_files[0], ssl_keyfile=tls_files[1], shutdown_timeout=120.0)
    server.start()
    with socket.create_connection((server.host, server.port)):
        httpx.get(server.url, verify=False)  # accepted after the silent one, so that one is being opened
        began = time.monotonic()
        server.stop()
    assert time.monotonic() - began < 60


class EndsAtDrain:
    """A tunnel that goes on until the worker drains."""

    def __init__(self, service: Service, head: RequestHead, stream: Stream) -> None:
        stream.exchange = self
        self.service, self.stream = service, stream
        stream.tunnel([])
        service.on_drain.add(self.drain)
        service.on_drain.add(self.fail)

    def drain(self) -> None:
        self.stream.write(b"goodbye", False)

    def fail(self) -> None:
        raise RuntimeError("it cannot keep others from being told")

    def data_received(self, data: bytes) -> None:
        self.stream.consumed(len(data))

    def eof_received(self, trailers: Headers | None = None) -> None:
        pass

    def half_closed(self) -> None:
        pass

    def resume_writing(self) -> None:
        pass

    def stream_lost(self, exc: Exception | None) -> None:
        self.service.on_drain -= {self.drain, self.fail}


def test_a_tunnel_is_told_of_the_drain() -> None:
    plugin = Plugin(name="tunnel", api=(1, 0), upgrades=(Upgrade(token=b"tunnel", open=EndsAtDrain),))
    server = TestServer(answer, registry=Registry.of(h1, plugin), shutdown_timeout=20.0)
    server.start()
    with socket.create_connection((server.host, server.port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tunnel\r\n\r\n")
        accepted = b""
        while b"\r\n\r\n" not in accepted:
            accepted += client.recv(4096)
        server.shutdown()
        with client.makefile("rb") as reader:
            assert reader.read() == b"goodbye"
    server.stop()


def test_a_client_that_is_gone_when_the_server_ends_its_half_is_no_failure() -> None:
    async def end() -> bool:
        connection = MemoryConnection(answer)

        def write_eof() -> None:
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

        connection.transport.write_eof = write_eof  # type: ignore[method-assign]
        connection.feed(b"GET / HTTP/1.1\r\n\r\n")
        return connection.transport.is_closing()

    assert asyncio.run(end())


def test_ipv4_and_ipv6_wildcards_share_a_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with TestServer(answer, bind=(f"0.0.0.0:{port}", f"[::]:{port}")) as server:
        assert len(server.info.urls) == 2


def test_an_unknown_host_is_named() -> None:
    with pytest.raises(BindError) as raised:
        TestServer(answer, host="nosuch.invalid").start()
    assert raised.value.code == "POUNCE_BIND_UNKNOWN_HOST"


def test_time_spent_on_choosing_the_wire_counts_for_the_head() -> None:
    asyncio.run(feed_half_a_head_to_a_chooser())


async def feed_half_a_head_to_a_chooser() -> None:
    from pounce.net.sniff import WireChooser

    other = Plugin(name="x", api=(1, 0), wires=(Wire(name="x", connect=h1.wires[0].connect, preface=b"GETX"),))
    registry = Registry.of(h1, other)
    service = memory_service(answer, registry)
    chooser = Wire(name="sniff", connect=lambda service: WireChooser(service, registry.wire_table(), None))
    connection = MemoryConnection(wire=chooser, service=service)
    due = connection.protocol.deadline
    connection.feed(b"GET")
    connection.feed(b" / HTTP/1.1\r\n")
    handed_over = connection.transport.get_protocol()
    assert handed_over.deadline == due  # type: ignore[attr-defined]


def test_a_connection_whose_wire_is_found_by_its_first_bytes_is_one_for_observers() -> None:
    from pounce.net.sniff import WireChooser

    seen: list[tuple[str, int]] = []

    class Watches:
        def connection_opened(self, connection: ConnectionInfo, wire: str) -> None:
            seen.append((wire, connection.id))

        def connection_closed(self, connection: ConnectionInfo) -> None:
            seen.append(("closed", connection.id))

        def completed(self, exchange: Completed) -> None:
            pass

    async def ask() -> None:
        wires = (Wire(name="x", connect=h1.wires[0].connect, preface=b"GETX"),)
        watches = (ObserverFactory(name="watches", create=lambda service: Watches()),)
        registry = Registry.of(h1, Plugin(name="x", api=API_VERSION, wires=wires, observers=watches))
        chooser = Wire(name="sniff", connect=lambda service: WireChooser(service, registry.wire_table(), None))
        connection = MemoryConnection(wire=chooser, service=memory_service(answer, registry))
        connection.feed(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.lose()
        await asyncio.sleep(0)

    asyncio.run(ask())
    assert seen == [("h1", 1), ("closed", 1)]


def test_a_path_is_never_made_of_the_asterisk() -> None:
    async def ask() -> bytes:
        connection = MemoryConnection(answer, root_path="/api")
        connection.feed(b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")
        return connection.received

    assert asyncio.run(ask()).endswith(b"\r\n\r\n*")


def test_a_large_upload_that_is_refused_may_go_on_until_its_client_has_seen_the_answer() -> None:
    """curl, for one, looks for an answer only now and then while it sends."""

    async def upload() -> tuple[bool, bool]:
        connection = MemoryConnection(answer, max_request_size=1000)
        connection.feed(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 50000000\r\n\r\n")
        connection.feed(bytes(8 * 1024 * 1024))
        await connection.settle()
        open_after_8_mib = not connection.closed
        connection.feed(bytes(LINGER_MAX))
        await connection.settle()
        return open_after_8_mib, connection.closed

    assert asyncio.run(upload()) == (True, True)
