"""What must never happen, row by row: memory and time that a client can take, and what it can make others believe."""

import asyncio
import tracemalloc
import zlib
from dataclasses import replace
from typing import Any

import pytest
from peer import BINARY, CONTINUATION, DEFLATE, PING, REGISTRY, TEXT, App, Echo, Peer, in_loop, masked, opened

from pounce.exchange.bind_service import BindService
from pounce.testing import MemoryConnection
from pounce.testing.memory import memory_service
from pounce_ws.frames import MessageReader
from pounce_ws.input import QUEUE_HIGH
from pounce_ws.payload import Payload
from pounce_ws.violation import Violation

MIB = 2**20


def deflated(data: bytes) -> bytes:
    """A payload as permessage-deflate has it."""
    deflater = zlib.compressobj(wbits=-15)
    return (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


@pytest.mark.parametrize("size", [1001, 70_000, 1 << 40])
@in_loop
async def test_message_above_the_limit_is_refused_by_its_header_alone(size: int) -> None:
    app = App()
    peer = await opened(app, websocket_max_message_size=1000)
    if size < 65536:
        peer.send(b"\x82\xfe" + size.to_bytes(2) + bytes(4))
    else:
        peer.send(b"\x82\xff" + size.to_bytes(8) + bytes(4))
    assert (await peer.one()).close[0] == 1009
    await peer.settle()
    assert app.disconnect is not None
    assert app.disconnect[0] == 1009


@in_loop
async def test_message_of_exactly_the_limit_passes() -> None:
    peer = await opened(Echo(), websocket_max_message_size=1000)
    peer.send(masked(BINARY, bytes(1000)))
    assert len((await peer.one()).payload) == 1000


@in_loop
async def test_fragments_are_added_up_before_the_one_that_exceeds_the_limit_is_kept() -> None:
    app = App()
    peer = await opened(app, websocket_max_message_size=1000)
    peer.send(*[masked(BINARY, bytes(500), fin=False)], masked(CONTINUATION, bytes(500), fin=False))
    await peer.settle()
    assert peer.frames() == []
    peer.send(b"\x80\x81" + bytes(4))
    assert (await peer.one()).close[0] == 1009


@in_loop
async def test_no_limit_with_0() -> None:
    peer = await opened(Echo(), websocket_max_message_size=0)
    peer.send(masked(BINARY, bytes(70_000)))
    assert len((await peer.one()).payload) == 70_000


@in_loop
async def test_limits_are_those_of_the_bind() -> None:
    service = memory_service(Echo(), REGISTRY, websocket_max_message_size=10)
    config = replace(service.config, websocket_max_message_size=1000)
    own = BindService(service, config, service.settings, service.create_parser, identity=None)
    peer = await opened(Echo(), service=own)
    peer.send(masked(BINARY, bytes(1000)))
    assert len((await peer.one()).payload) == 1000
    peer.send(masked(BINARY, bytes(1001)))
    assert (await peer.one()).close[0] == 1009


@in_loop
async def test_client_that_was_refused_is_heard_until_it_answers_and_no_message_is_kept() -> None:
    app = App()
    peer = await opened(app, websocket_max_message_size=1000)
    big = masked(BINARY, bytes(100_000))
    peer.send(big[:50_000])
    assert (await peer.one()).close[0] == 1009
    peer.send(big[50_000:], masked(TEXT, b"small"), masked(8, b"\x03\xf1"))
    await peer.settle()
    assert peer.ended
    assert app.messages == []


class Peers:
    """Clients of one worker, over HTTP/1.1."""

    def __init__(self, **settings: Any) -> None:
        self.service = memory_service(None, REGISTRY, **settings)
        self.apps: list[App] = []

    async def open(self, *fields: tuple[bytes, bytes]) -> Peer:
        app, peer = App(), Peer.__new__(Peer)
        self.apps.append(app)
        self.service.app = app
        peer.connection = MemoryConnection(service=self.service)
        peer.service, peer._taken = self.service, 0
        await peer.open(*fields)
        return peer

    @property
    def incomplete(self) -> int:
        return self.service.shared["ws"]._incomplete  # type: ignore[no-any-return]


@in_loop
async def test_messages_that_do_not_end_share_one_bound() -> None:
    limit = 8 * MIB
    peers = Peers(websocket_max_incomplete=limit, websocket_max_message_size=MIB)
    hostile = [await peers.open() for _ in range(20)]
    for peer in hostile:
        peer.send(masked(BINARY, bytes(MIB - 1), fin=False))
        assert peers.incomplete <= limit
    await peers.open()
    codes = [frame.close for peer in hostile for frame in peer.frames()]
    assert codes == [(1013, "too much is waiting")] * len(codes)
    assert 12 <= len(codes) < 20
    assert peers.service.counts["websocket_max_incomplete"] == len(codes)
    await hostile[0].settle()
    assert sum(app.disconnect == (1013, "too much is waiting") for app in peers.apps) == len(codes)


@in_loop
async def test_client_with_a_small_message_does_not_suffer_from_those_with_large_ones() -> None:
    peers = Peers(websocket_max_incomplete=4 * MIB, websocket_max_message_size=MIB)
    modest = await peers.open()
    modest.send(masked(TEXT, b"be", fin=False))
    for _ in range(10):
        peer = await peers.open()
        peer.send(masked(BINARY, bytes(MIB - 1), fin=False))
    modest.send(masked(CONTINUATION, b"gun"))
    await modest.settle()
    assert modest.frames() == []
    assert peers.apps[0].messages == ["begun"]


@in_loop
async def test_message_that_ends_or_is_given_up_counts_no_more() -> None:
    peers = Peers(websocket_max_incomplete=4 * MIB)
    ended, lost, closed = [await peers.open() for _ in range(3)]
    for peer in (ended, lost, closed):
        peer.send(masked(BINARY, bytes(1000), fin=False))
    assert peers.incomplete == 3000
    ended.send(masked(CONTINUATION, b"x"))
    assert peers.incomplete == 2000
    lost.connection.lose()
    await lost.settle()
    assert peers.incomplete == 1000
    await peers.apps[2].close()
    assert peers.incomplete == 0
    closed.send(masked(CONTINUATION, bytes(1000), fin=False))
    assert peers.incomplete == 0


@in_loop
async def test_what_a_message_inflates_to_is_what_counts() -> None:
    peers = Peers(websocket_max_incomplete=2 * MIB, websocket_max_message_size=MIB)
    for _ in range(4):
        peer = await peers.open(DEFLATE)
        peer.send(masked(BINARY, deflated(bytes(MIB - 10)), rsv=4, fin=False))
        # In parts, a turn of the loop for each.
        for _ in range(20):
            await peer.settle()
            assert 0 < peers.incomplete <= 2 * MIB


@in_loop
async def test_largest_message_is_welcome_however_many_workers_share_the_bound() -> None:
    peers = Peers(websocket_max_incomplete=2 * MIB, websocket_max_message_size=MIB)
    peers.service.workers = 64
    peer = await peers.open()
    peer.send(masked(BINARY, bytes(MIB - 10), fin=False))
    assert peer.frames() == []
    other = await peers.open()
    other.send(masked(BINARY, bytes(MIB - 9), fin=False))
    assert peers.incomplete <= MIB


@in_loop
async def test_messages_that_do_not_end_have_no_bound_with_0() -> None:
    peers = Peers(websocket_max_incomplete=0, websocket_max_message_size=MIB)
    for _ in range(3):
        peer = await peers.open()
        peer.send(masked(BINARY, bytes(MIB - 10), fin=False))
        assert peer.frames() == []


@in_loop
async def test_message_that_does_not_end_counts_on_every_wire(wire: str) -> None:
    app = App()
    peer = await opened(app, websocket_max_incomplete=1000, websocket_max_message_size=1000)
    peer.send(masked(BINARY, bytes(900), fin=False))
    await peer.settle()
    assert peer.service.shared["ws"]._incomplete == 900
    peer.service.config = replace(peer.service.config, websocket_max_incomplete=900)
    peer.service.shared["ws"]._largest = 10
    peer.send(masked(CONTINUATION, bytes(50), fin=False))
    assert (await peer.one()).close == (1013, "too much is waiting")
    await peer.settle()
    assert app.disconnect == (1013, "too much is waiting")


def test_a_bomb_is_not_inflated_beyond_the_limit() -> None:
    from pounce_ws.deflate import Agreement, Inflater

    bomb = masked(BINARY, deflated(bytes(64 * MIB)), rsv=4)
    reader = MessageReader(MIB, Inflater(Agreement(False, False, 12, False, 15, False)))
    reader.receive_data(bomb)
    tracemalloc.start()
    try:
        with pytest.raises(Violation, match="too large"):
            reader.next_event()
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    finally:
        tracemalloc.stop()


def test_many_small_pieces_take_little_more_than_their_bytes() -> None:
    payload = Payload()
    tracemalloc.start()
    try:
        for number in range(200_000):
            payload.add(b"%02d" % (number % 100))
        assert tracemalloc.get_traced_memory()[0] < 2 * payload.size
    finally:
        tracemalloc.stop()
    assert payload.take() == b"".join(b"%02d" % (number % 100) for number in range(200_000))
    assert payload.size == 0


@in_loop
async def test_inflated_fragments_are_added_up() -> None:
    peer = await opened(App(), DEFLATE, websocket_max_message_size=1000)
    data = deflated(bytes(1001))
    peer.send(masked(BINARY, data[:3], rsv=4, fin=False), masked(CONTINUATION, data[3:]))
    assert (await peer.one()).close[0] == 1009


@in_loop
async def test_messages_that_inflate_much_are_not_inflated_before_the_application_takes_them() -> None:
    app = App(eager=False)
    peer = await opened(app, DEFLATE)
    frames = b"".join(masked(BINARY, deflated(bytes(MIB)), rsv=4) for _ in range(40))
    assert len(frames) < 65536
    peer.send(frames)
    await peer.settle()
    exchange: Any = peer.exchange
    assert exchange._input.queued < 2 * MIB + QUEUE_HIGH
    assert [len((await app.take())["bytes"]) for _ in range(40)] == [MIB] * 40


@pytest.mark.parametrize("payload", [b"\xff\xff\xff", b"\x07\x00\x00"])
@in_loop
async def test_what_cannot_be_inflated_is_1007(payload: bytes) -> None:
    peer = await opened(App(), DEFLATE)
    peer.send(masked(BINARY, payload, rsv=4))
    assert (await peer.one()).close[0] == 1007


def test_final_blocks_without_end_do_not_cost_an_inflater_each() -> None:
    from pounce_ws.deflate import Agreement, Inflater

    reader = MessageReader(MIB, Inflater(Agreement(False, False, 12, False, 15, False)))
    reader.receive_data(masked(BINARY, b"\x03\x00" * 1000, rsv=4))
    with pytest.raises(Violation):
        reader.next_event()


@in_loop
async def test_a_deflater_that_ends_its_stream_with_each_message_is_understood() -> None:
    """RFC 7692 7.2.3.4: a block with BFINAL set to 1."""
    app = App()
    peer = await opened(app, DEFLATE)
    for _ in range(3):
        deflater = zlib.compressobj(wbits=-15)
        peer.send(masked(TEXT, deflater.compress(b"hello") + deflater.flush() + b"\x00", rsv=4))
    await peer.settle()
    assert app.messages == ["hello"] * 3


# Back-pressure


@pytest.mark.parametrize("size", [0, 10, 30_000])
@in_loop
async def test_what_the_application_does_not_take_is_not_read_and_nothing_is_lost(size: int) -> None:
    app = App(eager=False)
    peer = await opened(app)
    transport = peer.connection.transport
    sent = 0
    frame = masked(BINARY, bytes(size)) * max(1, 1000 // (size + 1))
    count = max(1, 1000 // (size + 1))
    while transport.is_reading():
        peer.send(frame)
        sent += count
        assert sent * (size + 6) < 10 * QUEUE_HIGH
        await peer.connection.settle(3)
    exchange: Any = peer.exchange
    assert exchange._input.queued <= QUEUE_HIGH + size + 128
    assert exchange._input.held < 2 * QUEUE_HIGH
    for _ in range(sent):
        assert len((await app.take())["bytes"]) == size
    assert transport.is_reading()


@in_loop
async def test_a_large_message_is_read_to_its_end_though_nobody_has_asked_for_it() -> None:
    app = App(eager=False)
    peer = await opened(app)
    data = masked(BINARY, bytes(MIB))
    for at in range(0, len(data), 100_000):
        peer.send(data[at : at + 100_000])
        await peer.connection.settle(3)
    assert len((await app.take())["bytes"]) == MIB


def test_a_message_in_pieces_of_one_byte_takes_no_more_than_its_size() -> None:
    reader = MessageReader(0)
    reader.receive_data(masked(TEXT, b"", fin=False))
    assert reader.next_event() is None
    piece = masked(CONTINUATION, b"x", fin=False) * 1000
    tracemalloc.start()
    try:
        for _ in range(200):
            reader.receive_data(piece)
            assert reader.next_event() is None
        assert tracemalloc.get_traced_memory()[0] < 2 * 200_000
    finally:
        tracemalloc.stop()


@in_loop
async def test_send_waits_for_a_client_that_does_not_read() -> None:
    app = App(eager=False)
    peer = await opened(app)
    peer.connection.transport.stall()
    sending = asyncio.ensure_future(_send_many(app, 100))
    await peer.settle()
    assert not sending.done()
    assert peer.connection.transport.largest_waiting < 100_000
    peer.connection.transport.unstall()
    await asyncio.wait_for(sending, 60)
    assert len(await peer.next(100)) == 100


@pytest.mark.usefixtures("wire")
@in_loop
async def test_many_tasks_that_send_to_a_client_that_does_not_read_write_in_turn_when_it_does() -> None:
    app = App(eager=False)
    peer = await opened(app)
    transport = peer.connection.transport
    transport.stall()
    sending = [asyncio.ensure_future(app.send(b"%03d" % number + bytes(30_000))) for number in range(100)]
    await peer.settle()
    assert transport.largest_waiting < 65536 + 2 * 30_100
    sending[50].cancel()
    transport.unstall()
    late = asyncio.ensure_future(app.send(b"100"))
    done, _ = await asyncio.wait([*sending, late], timeout=60)
    assert len(done) == 101
    numbers = [int(frame.payload[:3]) for frame in await peer.next(100)]
    assert numbers == [number for number in range(101) if number != 50]


@pytest.mark.usefixtures("wire")
@in_loop
async def test_a_message_that_cannot_be_sent_does_not_keep_those_behind_it_waiting() -> None:
    app = App(eager=False)
    peer = await opened(app)
    peer.connection.transport.stall()
    first = asyncio.ensure_future(_send_many(app, 10))
    await peer.settle()
    wrong = asyncio.ensure_future(app.send("\ud800"))
    last = asyncio.ensure_future(app.send("last"))
    await peer.settle()
    peer.connection.transport.unstall()
    await asyncio.wait([first, wrong, last], timeout=60)
    assert isinstance(wrong.exception(), UnicodeEncodeError)
    assert [len(frame.payload) for frame in await peer.next(11)].count(4) == 1


@in_loop
async def test_thousands_of_pings_in_one_piece_are_answered_in_a_few_writes() -> None:
    peer = await opened(App())
    transport = peer.connection.transport
    writes = 0
    write = transport.write

    def counting(data: bytes) -> None:
        nonlocal writes
        writes += 1
        write(data)

    transport.write = counting
    peer.send(*(masked(PING, b"%04d" % number) for number in range(5000)))
    assert [frame.payload for frame in await peer.next(5000)] == [b"%04d" % number for number in range(5000)]
    assert writes < 10


async def _send_many(app: App, count: int) -> None:
    for _ in range(count):
        await app.send(bytes(10_000))


@in_loop
async def test_pings_of_a_client_that_does_not_read_pile_up_nothing() -> None:
    app = App(eager=False)
    peer = await opened(app)
    transport = peer.connection.transport
    transport.stall()
    sending = asyncio.ensure_future(_send_many(app, 100))
    await peer.settle()
    before = len(transport.waiting)
    for number in range(1000):
        peer.send(masked(PING, b"%d" % number))
    assert len(transport.waiting) == before
    transport.unstall()
    await asyncio.wait_for(sending, 60)
    pongs = [frame.payload for frame in await peer.next(101) if frame.opcode == 10]
    assert pongs == [b"999"]


@in_loop
async def test_client_that_takes_nothing_is_given_up_and_the_application_told() -> None:
    app = App(eager=False)
    peer = await opened(app, write_timeout=30)
    peer.connection.transport.stall()
    sending = asyncio.ensure_future(_send_many(app, 100))
    await peer.settle()
    peer.connection.after(31)
    await peer.settle()
    with pytest.raises(OSError, match="closed"):
        await sending
    assert (await app.take())["code"] == 1006


@pytest.mark.parametrize(("takes", "goes_on"), [(1, False), (7199, False), (7200, True)])
@in_loop
async def test_client_that_takes_a_little_now_and_then_is_given_up(takes: int, goes_on: bool) -> None:
    app = App(eager=False)
    peer = await opened(app, write_timeout=30)
    peer.connection.transport.stall()
    sending = asyncio.ensure_future(_send_many(app, 100))
    await peer.settle()
    for number in range(3):
        peer.connection.transport.take(takes)
        peer.connection.after(30.5 * (number + 1))
        await peer.settle()
    assert peer.connection.closed is not goes_on
    assert peer.connection.was_reset is not goes_on
    if goes_on:
        peer.connection.lose()
    with pytest.raises(OSError, match="closed"):
        await sending
    assert (await app.take())["code"] == 1006


@in_loop
async def test_application_that_only_sends_leaves_others_their_turn() -> None:
    turns = 0

    class Floods(App):
        async def serve(self) -> None:
            for _ in range(1000):
                await self.send("x")

    peer = Peer(Floods())
    asyncio.get_running_loop().call_soon(lambda: None)
    waiting = asyncio.ensure_future(peer.open())
    while not waiting.done() or len(peer.connection.received) < 1000 * 3:
        turns += 1
        await asyncio.sleep(0)
    assert turns > 10


@in_loop
async def test_one_handshake_cannot_break_the_worker_for_others() -> None:
    """CVE-2026-42544: a subprotocol that is not ASCII."""
    peer = Peer(App(subprotocol="chät"))
    assert (await peer.handshake((b"sec-websocket-protocol", "chät".encode()))).status == 400
    peer.service.app = App()
    peer.connection.transport.received.clear()
    assert (await peer.handshake()).status == 101


@in_loop
async def test_fields_of_the_handshake_reach_the_application_as_they_were_sent() -> None:
    """CVE-2026-44546: nothing is written out and read again."""
    app = App()
    peer = Peer(app)
    await peer.open((b"x-a", b'"quoted\\"; b=\xff'), (b"cookie", b"a=1; b=2"))
    assert [pair for pair in app.scope["headers"] if pair[0] in (b"x-a", b"cookie")] == [
        (b"x-a", b'"quoted\\"; b=\xff'),
        (b"cookie", b"a=1; b=2"),
    ]
