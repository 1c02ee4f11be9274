"""A QUIC connection has a share of a turn of the loop: so many datagrams, events, frames and requests in each."""

import asyncio
import functools
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection
from tests.conformance.h3 import literal_section
from tests.conformance.wires import answer

from pounce.contract.turns import STEPS
from pounce.h1.plugin import plugin as h1
from pounce.net.tls import ServerTLS
from pounce.plugin import API_VERSION, Plugin, Upgrade
from pounce.registry import Registry
from pounce.testing.memory import memory_service
from pounce.worker.ticker import Ticker
from pounce_h3.codes import H3_GENERAL_PROTOCOL_ERROR
from pounce_h3.connection import BATCH, DATAGRAM_STEPS, LATE_MAX
from pounce_h3.endpoint import OPEN_STEPS, STRANGERS_MAX, Endpoint
from pounce_h3.engine import Closed, QuicEvent, StreamData, StreamReset
from pounce_h3.frames import DATA, HEADERS, PRIORITY_UPDATE, frame, varint
from pounce_h3.peer_streams import PeerStreams
from pounce_h3.plugin import plugin

from .scripted import CONTROL, SERVER, ScriptedConnection, ScriptedQuic


def in_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))  # type: ignore[arg-type]

    return run


class Peer(ScriptedConnection):
    """A connection whose turns are counted."""

    async def work_of_turns(self, done: Callable[[], int]) -> list[int]:
        """How much more was done in each turn until nothing waits."""
        found = []
        while self.h3.held_since:
            before = done()
            await asyncio.sleep(0)
            found.append(done() - before)
        return found


class Counting:
    def __init__(self) -> None:
        self.paths: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])
        await answer(send, b"done")


def head(path: bytes = b"/", method: bytes = b"GET") -> bytes:
    fields = [(b":method", method), (b":scheme", b"https"), (b":authority", b"a"), (b":path", path)]
    return frame(HEADERS, literal_section(fields))


def requests(count: int) -> list[QuicEvent]:
    return [StreamData(4 * number, head(b"/%d" % number), True) for number in range(count)]


@in_loop
async def test_requests_of_one_datagram_are_opened_a_few_in_each_turn() -> None:
    app = Counting()
    peer = Peer(app)
    peer.feed(*requests(90))
    assert 0 < len(app.paths) <= STEPS // 4
    turns = await peer.work_of_turns(lambda: len(app.paths))
    assert max(turns) <= STEPS // 4
    assert app.paths == [f"/{number}" for number in range(90)]
    assert all(b"done" in peer.quic.written[4 * number] for number in range(90))


@in_loop
async def test_engine_gets_so_many_datagrams_in_each_turn_and_in_their_order() -> None:
    peer = Peer(Counting())
    peer.quic.received.clear()
    datagrams = [b"%d" % number for number in range(500)]
    for at in range(0, 500, 50):
        peer.receive(*datagrams[at : at + 50])
    turns = [len(peer.quic.received), *(await peer.work_of_turns(lambda: len(peer.quic.received)))]
    assert max(turns) <= STEPS // DATAGRAM_STEPS + BATCH
    assert peer.quic.received == datagrams


@in_loop
async def test_datagrams_beyond_what_may_wait_are_lost_and_counted() -> None:
    peer = Peer(Counting())
    peer.quic.received.clear()
    peer.receive(*(b"%d" % number for number in range(200)))
    taken = len(peer.quic.received)
    peer.receive(*(b"%d" % number for number in range(200, 2000)))
    await peer.work_of_turns(lambda: 0)
    assert peer.quic.received == [b"%d" % number for number in range(taken + LATE_MAX)]
    assert peer.service.counts["h3_overload"]


@in_loop
async def test_body_in_tiny_frames_is_taken_a_little_in_each_turn() -> None:
    taken = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal taken
        more = True
        while more:
            message = await receive()
            taken += len(message["body"])
            more = message["more_body"]
        await answer(send, b"done")

    peer = Peer(app)
    peer.feed(StreamData(0, head(method=b"POST") + frame(DATA, b"x") * 3000, False), StreamData(0, b"", True))
    turns = await peer.work_of_turns(lambda: taken)
    for _ in range(5):
        await asyncio.sleep(0)
    assert max(turns) <= STEPS
    assert taken == 3000
    assert b"done" in peer.quic.written[0]


@pytest.mark.parametrize(
    "flood",
    [frame(PRIORITY_UPDATE, varint(0) + b"u=1"), frame(0x21, b"x")],
    ids=["PRIORITY_UPDATE", "unknown type"],
)
@in_loop
async def test_control_frames_are_read_so_many_in_each_turn(flood: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    app = Counting()
    peer = Peer(app)
    read = 0
    check = PeerStreams._check_control_frame

    def counting(self: PeerStreams, kind: int, length: int) -> None:
        nonlocal read
        read += 1
        check(self, kind, length)

    monkeypatch.setattr(PeerStreams, "_check_control_frame", counting)
    peer.feed(StreamData(CONTROL, flood * 1000, False), *requests(1))
    turns = [read, *(await peer.work_of_turns(lambda: read))]
    assert max(turns) <= STEPS
    assert read == 1000
    assert app.paths == ["/0"]


@in_loop
async def test_request_that_was_given_up_in_the_same_datagram_is_never_opened() -> None:
    app = Counting()
    peer = Peer(app)
    peer.feed(*requests(90)[:-1], StreamReset(4 * 89, 0x10C))
    peer.quic.todo += StreamReset(4 * 90, 0x10C), StreamData(4 * 90, head(b"/never"), True)
    await peer.work_of_turns(lambda: 0)
    peer.receive()
    await peer.work_of_turns(lambda: 0)
    assert "/never" not in app.paths
    assert len(app.paths) == 89


@in_loop
async def test_end_of_the_connection_is_met_behind_what_came_before_it() -> None:
    app = Counting()
    peer = Peer(app)
    peer.quic.is_over = True
    large = StreamData(8, head(b"/large", b"POST") + frame(DATA, b"x") * 1000, False)
    peer.feed(*requests(1), large, *requests(90)[3:], Closed(0x100, ""))
    await peer.work_of_turns(lambda: 0)
    assert peer.endpoint.forgotten == [peer.h3]
    assert not peer.service.connections
    for task in peer.service.tasks:
        task.cancel()


@in_loop
async def test_connection_that_is_given_up_while_events_wait_leaves_nothing_behind() -> None:
    app = Counting()
    peer = Peer(app)
    peer.feed(*requests(90))
    opened = len(app.paths)
    peer.h3.abort()
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(app.paths) == opened
    assert not peer.service.connections and not peer.service.tasks


@in_loop
async def test_breach_of_the_protocol_among_the_events_that_wait_ends_the_connection() -> None:
    app = Counting()
    peer = Peer(app)
    peer.feed(*requests(60), StreamData(4 * 60, frame(DATA, b"x"), False), *requests(90)[61:])
    assert not peer.quic.is_over
    await peer.work_of_turns(lambda: 0)
    assert peer.quic.is_over
    assert len(app.paths) == 60


@in_loop
async def test_deadline_stands_still_while_events_wait() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass
        await answer(send, b"done")

    peer = Peer(app, request_timeout=30, min_body_rate=0)
    peer.feed(StreamData(0, head(method=b"POST"), False))
    peer.feed(*requests(90)[1:], StreamData(0, frame(DATA, b"late"), False))
    ticker = Ticker(peer.service)
    assert peer.h3.held_since
    ticker.sweep(peer.service.loop.time() + 1000)
    await peer.work_of_turns(lambda: 0)
    assert b"done" not in peer.quic.written.get(0, b"")
    peer.feed(StreamData(0, b"", True))
    await peer.work_of_turns(lambda: 0)
    for _ in range(5):
        await asyncio.sleep(0)
    assert b"done" in peer.quic.written[0]


# Tunnels


class Told:
    """What an upgrade opens: it accepts when it is told to, and keeps what it gets."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.got: list[bytes] = []
        stream.exchange = self

    def data_received(self, data: bytes) -> None:
        self.got.append(data)

    def eof_received(self, trailers: Any = None) -> None:
        self.got.append(b"the end")

    def resume_writing(self) -> None: ...

    def stream_lost(self, exc: Exception | None) -> None: ...


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("waits", [False, True])
@in_loop
async def test_what_a_tunnel_gets_stays_in_order_when_it_is_accepted(ends: bool, waits: bool) -> None:
    """What has come before is given to it a turn later."""
    opened: list[Told] = []

    def open_it(service: Any, head: Any, stream: Any) -> Any:
        opened.append(Told(stream))
        return opened[0]

    upgrade = Upgrade(token=b"echo", open=open_it)
    registry = Registry.of(h1, plugin, Plugin(name="echo", api=API_VERSION, upgrades=(upgrade,)))
    peer = Peer(service=memory_service(Counting(), registry))
    fields = [
        (b":method", b"CONNECT"), (b":protocol", b"echo"), (b":scheme", b"https"), (b":authority", b"a"),
        (b":path", b"/"),
    ]  # fmt: skip
    peer.feed(StreamData(0, frame(HEADERS, literal_section(fields)) + frame(DATA, b"first"), False))
    [told] = opened
    assert told.got == []
    told.stream.tunnel([])
    if waits:
        await asyncio.sleep(0)
    peer.feed(StreamData(0, b"" if ends else frame(DATA, b"second"), ends))
    await asyncio.sleep(0)
    assert told.got == [b"first", b"the end" if ends else b"second"]
    peer.h3.abort()


# Strangers


class Sent:
    """The transport of an endpoint whose siblings do not answer; it keeps what they were asked and strangers got."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.answers: list[bytes] = []

    def get_extra_info(self, name: str) -> Any:
        return {"worker": 256, "secret": bytes(32)}[name]

    def hand_on(self, data: bytes, address: Any, worker: int) -> bool:
        return False

    def ask(self, data: bytes, address: Any) -> None:
        self.asked.append(data)

    def sendto(self, data: bytes, address: Any) -> None:
        self.answers.append(data)

    def send_many(self, datagrams: list[bytes], address: Any) -> None: ...


def first_packet() -> bytes:
    """Of a client."""
    client = QuicConnection(
        configuration=QuicConfiguration(alpn_protocols=["h3"], server_name="a", verify_mode=ssl.CERT_NONE)
    )
    client.connect(SERVER, 0.0)
    return client.datagrams_to_send(0.0)[0][0]


def an_endpoint(tls_files: tuple[str, str], sent: Sent) -> Endpoint:
    service = memory_service(
        Counting(), Registry.of(h1, plugin), http3_enabled=True, ssl_certfile=tls_files[0], ssl_keyfile=tls_files[1]
    )
    service.tls = ServerTLS(service.config, [])
    endpoint = Endpoint(service, SERVER)
    endpoint.connection_made(cast("asyncio.BaseTransport", sent))
    return endpoint


@in_loop
async def test_id_that_names_a_worker_which_is_not_there_may_be_anybodys(tls_files: tuple[str, str]) -> None:
    """The engine's and the clients' own ids look like ones that name a worker by chance, the worker's that has gone
    name one that no longer is: siblings are asked for the one, and the client of the other is told."""
    sent = Sent()
    endpoint = an_endpoint(tls_files, sent)
    name = endpoint._keys.new_id(3)
    packet = b"\x40" + name + bytes(91)
    endpoint.datagrams_received([(packet, ("192.0.2.1", 50000))])
    assert sent.asked == [packet]
    [answer] = sent.answers
    assert answer[-16:] == endpoint._keys.reset_token(name)
    # A claim of one that has gone holds nobody up either.
    other = b"\x40" + bytes(len(name)) + bytes(91)
    endpoint.claimed(bytes(len(name)), 4)
    endpoint.datagrams_received([(other, ("192.0.2.1", 50000))])
    assert sent.asked == [packet, other]


@in_loop
async def test_handshakes_are_begun_a_few_in_each_turn(tls_files: tuple[str, str]) -> None:
    endpoint = an_endpoint(tls_files, Sent())
    # Each says so twice, as a client does that gets no answer.
    packets = [(first_packet(), ("192.0.2.1", 50000 + number)) for number in range(20)] * 2
    endpoint.datagrams_received(packets)
    opened = [len(endpoint._open)]
    while endpoint._strangers:
        await asyncio.sleep(0)
        opened.append(len(endpoint._open))
    assert max(after - before for before, after in zip([0, *opened], opened, strict=False)) <= STEPS // OPEN_STEPS
    assert opened[-1] == 20
    # What waits is bounded.
    endpoint.datagrams_received([(first_packet(), ("192.0.2.1", 50000))] * 3)
    endpoint.datagrams_received([packets[0]] * 3)
    assert len(endpoint._strangers) <= STRANGERS_MAX
    for connection in tuple(endpoint._open):
        connection.abort()
    await asyncio.sleep(0)


@in_loop
async def test_client_that_allows_too_few_streams_of_ours_has_broken_the_protocol(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """RFC 9114 6.2: it MUST allow three."""
    service = memory_service(Counting(), Registry.of(h1, plugin))
    monkeypatch.setattr(ScriptedQuic, "may_open", lambda quic, unidirectional: False)
    peer = Peer(service=service)
    assert peer.quic.closed is not None
    assert peer.quic.closed[0] == H3_GENERAL_PROTOCOL_ERROR
    assert service.counts["h3_protocol_error"] == 1
    assert "plugin_error" not in service.counts
