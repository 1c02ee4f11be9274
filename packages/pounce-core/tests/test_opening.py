"""Connections on the server's own loop: how they are accepted, get their wire, and end."""

import asyncio
import errno
import os
import select
import socket
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from pounce.admission.peers import Peers
from pounce.config import ServerConfig
from pounce.h1.connection import H1Connection
from pounce.h1.plugin import plugin as h1
from pounce.net.bind import Bind, Listener
from pounce.net.connection import Connection
from pounce.plugin import API_VERSION, Plugin, Preface, Wire
from pounce.registry import Registry
from pounce.testing.memory import memory_service
from pounce.worker.acceptor import SERVED_AT_ONCE, Acceptor
from pounce.worker.loop import HAS_OWN

if not HAS_OWN:
    pytest.skip("this system has no epoll", allow_module_level=True)

from pounce.net.direct_transport import DirectTransport
from pounce.net.epoll_loop import BATCH, EpollLoop
from pounce.net.opening import Opening

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
PREFACE = b"HELLO"
MANY = 100


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"Hello"})


class Other(asyncio.Protocol):
    """A protocol of somebody else's, which knows asyncio alone."""

    def __init__(self) -> None:
        self.received = b""
        self.lost: list[Exception | None] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(b"greeting")

    def data_received(self, data: bytes) -> None:
        self.received += data

    def eof_received(self) -> bool:
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


class Buffered(asyncio.BufferedProtocol):
    """What `start_tls()` puts in the place of a protocol is of this kind."""

    def __init__(self) -> None:
        self.buffer = bytearray(100)
        self.received = b""

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.received += self.buffer[:nbytes]


class Site:
    """A worker's acceptor, on a loop that turns only while it is told to."""

    def __init__(self, stack: ExitStack, path: Path | None) -> None:
        self.stack = stack
        self.loop = EpollLoop()
        stack.callback(self.loop.close)
        if path is not None:
            self.listening = socket.socket(socket.AF_UNIX)
            self.listening.bind(str(path))
            self.listening.listen(100)
        else:
            self.listening = socket.create_server(("127.0.0.1", 0))
        self.listening.setblocking(False)
        stack.enter_context(self.listening)
        stack.callback(self.end)
        self.others: list[Other] = []
        self.wire = Wire(name="other", connect=self.connect_other, preface=PREFACE)

    def connect_other(self, service: Any) -> Other:
        self.others.append(Other())
        return self.others[-1]

    def start(self, app: Any = hello, *, wire: Wire | None = None, named: bool = False, **settings: Any) -> None:
        """Accept, for HTTP/1.1 and another wire; with `named` for that one alone."""
        wire = wire or self.wire

        async def start() -> None:
            registry = Registry.of(h1, Plugin(name="other", api=API_VERSION, wires=(wire,)))
            self.service = memory_service(app, registry, http_parser="h11", **settings)
            self.service.peers = Peers(ServerConfig(max_connections_per_peer=MANY))
            listener = Listener(self.listening, Bind())
            self.acceptor = Acceptor(self.service, listener, registry.wire_table(), wire if named else None, None)
            self.acceptor.start()

        self.run(start())

    def counted(self) -> int:
        """Connections that are counted for an address."""
        return sum(self.service.peers._counts.values()) if self.service.peers is not None else 0

    def end(self) -> None:
        async def abort() -> None:
            self.acceptor.stop()
            for connection in tuple(self.service.connections):
                connection.abort()

        self.run(abort())
        self.until(lambda: not self.service.connections)
        # However they ended, and whoever had them.
        assert not self.counted()

    def run[T](self, what: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(what)

    def until(self, true: Callable[[], object]) -> None:
        async def wait() -> None:
            async with asyncio.timeout(60):
                while not true():
                    await asyncio.sleep(0)

        self.run(wait())

    def client(self, first: bytes = b"") -> socket.socket:
        """A client that has connected, and has sent this before the server looks."""
        sock = self.stack.enter_context(socket.socket(self.listening.family))
        sock.settimeout(60)
        sock.connect(self.listening.getsockname())
        sock.sendall(first)
        return sock

    def answer(self, client: socket.socket) -> bytes:
        self.until(lambda: select.select([client], [], [], 0)[0])
        return client.recv(65536)

    def only(self) -> Any:
        """The connection that there is."""
        if not self.service.connections:
            self.until(lambda: self.service.connections)
        (found,) = self.service.connections
        return found


@pytest.fixture(params=["tcp", "unix"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(stack, tmp_path / "socket" if request.param == "unix" else None)


def test_request_that_came_with_its_connection_is_answered_in_the_turn_that_accepts_it(site: Site) -> None:
    site.start()
    client = site.client(REQUEST)
    select.select([site.listening], [], [], 60)
    site.loop.call_soon(site.loop.stop)
    site.loop.run_forever()
    assert select.select([client], [], [], 60)[0]
    assert client.recv(4096).endswith(b"Hello")
    assert type(site.only()) is H1Connection
    assert type(site.only().transport) is DirectTransport


def test_connection_without_a_word_counts_and_is_ended_when_a_head_is_due(site: Site) -> None:
    site.start(header_timeout=7.0)
    client = site.client()
    opening = site.only()
    assert type(opening) is Opening
    assert 0 < opening.deadline - site.loop.time() <= 7
    opening.deadline_passed()
    assert not site.service.connections
    assert client.recv(1) == b""


def test_bytes_that_come_later_find_their_wire_and_the_time_until_then_counts(site: Site) -> None:
    site.start()
    client = site.client()
    due = site.only().deadline
    client.sendall(REQUEST[:10])
    site.until(lambda: type(site.only()) is H1Connection)
    assert site.only().deadline == due
    client.sendall(REQUEST[10:])
    assert site.answer(client).endswith(b"Hello")


@pytest.mark.parametrize("cuts", [(), (1,), (2,), (1, 2, 3, 4), (5,)])
def test_preface_is_recognised_however_it_is_cut(site: Site, cuts: tuple[int, ...]) -> None:
    site.start()
    whole = PREFACE + b"rest"
    starts, ends = (0, *cuts), (*cuts, len(whole))
    client = site.client(whole[: ends[0]])
    for start, end in zip(starts[1:], ends[1:], strict=True):
        opening = site.only()
        site.until(lambda start=start, opening=opening: opening._fd < 0 or len(opening._first) == start)
        client.sendall(whole[start:end])
    site.until(lambda: site.others and site.others[0].received == whole)
    assert client.recv(100) == b"greeting"


def test_half_a_preface_and_then_something_else_is_the_wire_of_all_others(site: Site) -> None:
    site.start()
    client = site.client(PREFACE[:3])
    assert type(site.only()) is Opening
    client.sendall(b" / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert site.answer(client).endswith(b"Hello")


def test_client_that_leaves_without_a_word_is_forgotten(site: Site) -> None:
    site.start()
    for early in (True, False):
        client = site.client()
        if not early:
            site.until(lambda: site.service.connections)
        client.close()
        site.until(lambda: not select.select([site.listening], [], [], 0)[0] and not site.service.connections)
    assert site.service.counts == {}


def test_connection_without_a_word_has_a_moment_more_when_the_worker_drains(site: Site) -> None:
    site.start()
    client = site.client()
    opening = site.only()
    opening.drain()
    assert 0 < opening.deadline - site.loop.time() <= 1
    client.sendall(REQUEST)
    assert site.answer(client).endswith(b"Hello")


def test_what_is_accepted_in_a_drain_is_drained(site: Site) -> None:
    site.start()
    site.client()
    select.select([site.listening], [], [], 60)
    site.service.draining = True
    opening = site.only()
    site.until(lambda: opening.deadline - site.loop.time() <= 1)


def test_end_of_the_server_ends_a_connection_without_a_word(site: Site) -> None:
    site.start()
    client = site.client()
    site.only().end()
    assert client.recv(1) == b""
    assert not site.service.connections


def test_wire_that_a_bind_names_may_speak_first(site: Site) -> None:
    site.start(named=True)
    client = site.client()
    assert site.answer(client) == b"greeting"


class Failing(Connection):
    __slots__ = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        raise ValueError("cannot begin")

    def connection_lost(self, exc: Exception | None) -> None:
        raise AssertionError("it never began")


def fail(service: Any) -> asyncio.Protocol:
    raise ValueError("cannot be made")


@pytest.mark.parametrize("connect", [fail, Failing], ids=["constructor", "beginning"])
def test_wire_that_fails_to_begin_costs_its_connection_and_no_other(
    site: Site, connect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    site.start(wire=Wire(name="other", connect=connect, preface=PREFACE))
    client = site.client(PREFACE)
    site.until(lambda: site.service.counts)
    with pytest.raises(ConnectionError) if site.listening.family == socket.AF_INET else ExitStack():
        assert client.recv(100) == b""
    assert site.service.counts == {"plugin_error": 1}
    assert "Plugin other failed to take a connection" in caplog.text
    assert not site.service.connections
    assert site.answer(site.client(REQUEST)).endswith(b"Hello")


@pytest.mark.parametrize("first", [b"", PREFACE[:2]], ids=["silent", "part"])
def test_connection_that_the_kernel_does_not_watch_is_closed_and_reported(
    first: bytes, site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site.start()
    with monkeypatch.context() as patch:
        patch.setattr(site.loop, "read_directly", Mock(side_effect=OSError(errno.ENOSPC, "no room for another")))
        site.client(first)
        site.until(lambda: site.service.counts and not site.service.connections)
    assert "no room for another" in caplog.text
    assert site.answer(site.client(REQUEST)).endswith(b"Hello")


def test_preface_that_fails_costs_its_connection_and_is_logged(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    def matches(first: bytes) -> bool:
        raise ValueError("in a rule")

    site.start(wire=Wire(name="other", connect=fail, preface=Preface(matches, 5)))
    site.client(b"GET")
    site.until(lambda: site.service.counts and not site.service.connections)
    assert site.service.counts == {"plugin_error": 1}
    assert "in a rule" in caplog.text


class Breaking(Connection):
    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        raise ValueError("cannot read that")


def test_wire_that_fails_over_its_first_bytes_is_broken_off_and_reported(site: Site) -> None:
    site.start(wire=Wire(name="other", connect=Breaking, preface=PREFACE))
    reported: list[dict[str, Any]] = []
    site.loop.set_exception_handler(lambda _, context: reported.append(context))
    site.client(PREFACE)
    site.until(lambda: reported and not site.service.connections)
    assert [str(context["exception"]) for context in reported] == ["cannot read that"]
    assert type(reported[0]["protocol"]) is Breaking


def test_requests_of_new_connections_are_served_a_few_in_each_turn(site: Site) -> None:
    site.start()
    for _ in range(SERVED_AT_ONCE + 1):
        site.client(REQUEST)
    select.select([site.listening], [], [], 60)
    site.loop.call_soon(site.loop.stop)
    site.loop.run_forever()
    assert site.service.requests == SERVED_AT_ONCE


def test_connection_waits_for_its_turn_where_many_callbacks_wait_for_theirs(site: Site) -> None:
    site.start()
    site.client(REQUEST)
    sock, peer = site.listening.accept()
    for _ in range(BATCH + 1):
        site.loop.call_soon(int)
    # It is in line behind them.
    site.acceptor.take(sock, peer)
    assert [type(connection) for connection in site.service.connections] == [Opening]
    site.until(lambda: site.service.requests)


def test_idle_connection_is_over_at_once_when_its_client_ends_it(site: Site) -> None:
    site.start()
    client = site.client(REQUEST)
    site.answer(client)
    connection = site.only()
    client.close()
    site.loop.call_later(60, site.loop.stop)
    while not connection.transport.is_closing():
        site.loop.call_soon(site.loop.stop)
        site.loop.run_forever()
    assert not site.service.connections
    assert connection.transport._sock is None


def test_connection_is_counted_for_its_address_from_its_beginning(site: Site) -> None:
    site.start()
    client = site.client()
    site.only()
    once = site.listening.family == socket.AF_INET
    assert site.counted() == once
    client.sendall(REQUEST)
    assert site.answer(client).endswith(b"Hello")
    assert site.counted() == once


def test_answers_leave_without_delay_on_connections_over_tcp(site: Site) -> None:
    site.start()
    for _ in range(2):
        client = site.client(REQUEST)
        site.answer(client)
        sock = site.only().transport.get_extra_info("socket")
        if sock.family == socket.AF_INET:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        client.close()
        site.until(lambda: not site.service.connections)


def test_addresses_of_both_sides_are_known(site: Site) -> None:
    site.start()
    client = site.client(REQUEST)
    site.answer(client)
    transport = site.only().transport
    assert transport.get_extra_info("peername") == client.getsockname()
    assert transport.get_extra_info("sockname") == client.getpeername()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "::1", "::ffff:0.0.0.0"])
def test_connection_has_the_address_that_it_arrived_at(host: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listening = socket.socket(family)
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0) if ":" in host else None
            listening.bind((host, 0))
            listening.listen()
        except OSError:
            pytest.skip("this system has no IPv6")
        site = Site(stack, tmp_path / "unused")
        site.listening.close()
        site.listening = stack.enter_context(listening)
        listening.setblocking(False)
        site.start()
        loopback = "127.0.0.1" if host.endswith("0.0.0.0") else "::1"
        client = stack.enter_context(socket.create_connection((loopback, listening.getsockname()[1]), 60))
        client.sendall(REQUEST)
        assert site.answer(client).endswith(b"Hello")
        connection = site.only()
        sockname = connection.transport.get_extra_info("sockname")
        assert (sockname[0].removeprefix("::ffff:"), sockname[1]) == client.getpeername()[:2]
        assert connection.connection.local == client.getpeername()[:2]
        assert connection.connection.peer == client.getsockname()[:2]


def test_socket_of_a_transport_is_made_once_and_closed_with_it(site: Site) -> None:
    site.start()
    client = site.client(REQUEST)
    site.answer(client)
    transport = site.only().transport
    sock = transport.get_extra_info("socket")
    assert sock is transport.get_extra_info("socket")
    assert sock.gettimeout() == 0
    client.close()
    site.until(lambda: not site.service.connections)
    assert sock.fileno() == -1


def test_socket_of_a_transport_that_is_closed_is_closed(site: Site) -> None:
    site.start()
    client = site.client(REQUEST)
    site.answer(client)
    transport = site.only().transport
    client.close()
    site.until(lambda: not site.service.connections)
    assert transport.get_extra_info("socket").fileno() == -1


TOOL = 3
"""An id that no tool of Python's own has."""
AROUND = ("net/opening.py", "net/connection.py", "net/body_connection.py", "net/direct_transport.py", "/acceptor.py")


@pytest.mark.parametrize("site", ["unix"], indirect=True)
def test_connection_costs_little_beside_its_request(site: Site) -> None:
    site.start()
    found = 0
    this_thread = threading.get_ident()

    def count(code: Any, offset: int) -> None:
        nonlocal found
        # Another thread may be that of a server that another test has left running.
        if threading.get_ident() == this_thread and code.co_filename.endswith(AROUND):
            found += 1

    sys.monitoring.use_tool_id(TOOL, "cost")
    sys.monitoring.register_callback(TOOL, sys.monitoring.events.INSTRUCTION, count)
    try:
        for _ in range(2):
            found = 0
            client = site.client(REQUEST)
            sys.monitoring.set_events(TOOL, sys.monitoring.events.INSTRUCTION)
            assert site.answer(client).endswith(b"Hello")
            client.close()
            site.until(lambda: not site.service.connections)
            sys.monitoring.set_events(TOOL, 0)
    finally:
        sys.monitoring.set_events(TOOL, 0)
        sys.monitoring.register_callback(TOOL, sys.monitoring.events.INSTRUCTION, None)
        sys.monitoring.free_tool_id(TOOL)
    # Bytecodes, which are the same on whatever machine.
    assert found <= 750


# What asyncio's transports can do


def test_transport_reads_pauses_and_ends_as_those_of_asyncio_do(site: Site) -> None:
    site.start()
    client = site.client(PREFACE)
    site.until(lambda: site.others)
    (other,) = site.others
    assert client.recv(100) == b"greeting"
    assert other.transport.is_reading()
    other.transport.pause_reading()
    client.sendall(b" and more")
    site.run(asyncio.sleep(0))
    assert other.received == PREFACE
    other.transport.resume_reading()
    site.until(lambda: other.received == PREFACE + b" and more")
    client.shutdown(socket.SHUT_WR)
    other.transport.writelines([b"a", b"b"])
    other.transport.write_eof()
    assert client.recv(100) + client.recv(100) == b"ab"
    other.transport.close()
    site.until(lambda: other.lost)
    assert other.lost == [None]
    assert "closed" in repr(other.transport)


def test_transport_writes_what_the_peer_does_not_take_at_once_before_it_closes(site: Site) -> None:
    site.start()
    client = site.client(PREFACE)
    site.until(lambda: site.others)
    (other,) = site.others
    size = 4_000_000
    other.transport.write(bytes(size))
    assert other.transport.get_write_buffer_size()
    other.transport.close_at_once()
    assert not other.lost
    got = 0
    client.setblocking(False)

    def read_some() -> bool:
        nonlocal got
        try:
            while piece := client.recv(65536):
                got += len(piece)
        except BlockingIOError:
            return False
        return True

    site.until(read_some)
    assert got == size + len(b"greeting")
    assert other.lost == [None]


def test_transport_takes_a_buffered_protocol_in_the_place_of_its_own_and_back(site: Site) -> None:
    site.start()
    client = site.client(PREFACE)
    site.until(lambda: site.others)
    transport = site.others[0].transport
    before, buffered = transport.get_protocol(), Buffered()
    transport.set_protocol(buffered)
    client.sendall(b"one")
    site.until(lambda: buffered.received == b"one")
    transport.set_protocol(before)
    client.sendall(b"two")
    site.until(lambda: site.others[0].received == PREFACE + b"two")


def test_transport_sends_files(site: Site, tmp_path: Path) -> None:
    site.start()
    client = site.client(PREFACE)
    site.until(lambda: site.others)
    transport = site.others[0].transport
    path = tmp_path / "file"
    path.write_bytes(b"of a file")
    for _ in range(2):
        with path.open("rb") as file:
            assert site.run(site.loop.sendfile(transport, file, fallback=False)) == 9
    assert client.recv(100, socket.MSG_WAITALL | socket.MSG_PEEK)
    got = b""
    while len(got) < 26:
        got += client.recv(100)
    assert got == b"greeting" + b"of a file" * 2


def test_descriptor_of_a_transport_is_nobody_elses(site: Site) -> None:
    site.start()
    client = site.client(REQUEST)
    site.answer(client)
    transport = site.only().transport
    fd = transport.get_extra_info("socket").fileno()
    with pytest.raises(RuntimeError, match="is used by transport"):
        site.loop.add_reader(fd, os.abort)
    client.close()
    site.until(lambda: not site.service.connections)
    with socket.socket() as sock:
        site.loop.add_reader(sock, os.abort)
        assert site.loop.remove_reader(sock)
