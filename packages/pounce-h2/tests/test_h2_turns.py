"""An HTTP/2 connection has a share of a turn of the loop, and so many frames and requests are looked at in each."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from h2_peer import GET, Peer, answer, echo, in_loop, request

from pounce.contract.turns import STEPS
from pounce_h2.decode import FIELDS_MAX
from pounce_h2.frames import ACK, END_HEADERS, END_STREAM, ErrorCode, Kind, Setting, frame, rst_stream_frame

FREQUENT = STEPS // 4


async def work_of_turns(peer: Peer, done: Callable[[], int]) -> list[int]:
    """How much more was done in each turn until everything that was fed has been looked at."""
    found = []
    while peer.protocol.held_since or peer.transport.unread:
        before = done()
        await asyncio.sleep(0)
        found.append(done() - before)
    return found


def heads(peer: Peer, count: int, *more: tuple[bytes, bytes], first: int = 1) -> bytes:
    """Requests on as many streams."""
    return b"".join(
        frame(Kind.HEADERS, END_HEADERS | END_STREAM, first + 2 * number, peer.block([*GET, *more]))
        for number in range(count)
    )


class Counting:
    def __init__(self) -> None:
        self.paths: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])
        await answer(scope, receive, send)


@in_loop
async def test_requests_of_one_read_are_opened_a_few_in_each_turn() -> None:
    app = Counting()
    peer = Peer(app)
    peer.feed(heads(peer, 90))
    assert 0 < len(app.paths) <= FREQUENT
    assert not peer.transport.reading
    work = await work_of_turns(peer, lambda: len(app.paths))
    assert max(work) <= FREQUENT
    assert len(app.paths) == 90
    assert peer.transport.reading
    assert all(peer.head(stream)[b":status"] == b"200" for stream in range(1, 181, 2))


@in_loop
async def test_as_many_requests_as_browsers_ask_for_at_once_need_no_other_turn() -> None:
    app = Counting()
    peer = Peer(app)
    peer.feed(heads(peer, 16))
    assert len(app.paths) == 16
    assert peer.transport.reading


@in_loop
async def test_the_most_urgent_of_the_requests_that_wait_are_opened_first() -> None:
    app = Counting()
    peer = Peer(app)
    fields = [request(b"GET", b"/%d" % number, (b"priority", b"u=%d" % (number % 8))) for number in range(90)]
    peer.feed(
        b"".join(
            frame(Kind.HEADERS, END_HEADERS | END_STREAM, 1 + 2 * number, peer.block(each))
            for number, each in enumerate(fields)
        )
    )
    await peer.until_read()
    urgencies = [int(path[1:]) % 8 for path in app.paths]
    assert urgencies == sorted(urgencies)


@in_loop
async def test_request_that_was_reset_in_the_same_read_is_never_opened_however_many_frames_lie_between() -> None:
    app = Counting()
    peer = Peer(app)
    pings = frame(Kind.PING, 0, 0, bytes(8)) * 500
    peer.feed(heads(peer, 2) + pings + rst_stream_frame(3, ErrorCode.CANCEL))
    assert peer.protocol.held_since
    assert not app.paths
    await peer.until_read()
    assert len(app.paths) == 1
    assert peer.failed is None


@pytest.mark.parametrize(
    ("flood", "answers"),
    [
        (frame(Kind.PING, 0, 0, b"01234567"), (Kind.PING, ACK)),
        (frame(Kind.SETTINGS, 0, 0), (Kind.SETTINGS, ACK)),
        (frame(Kind.RST_STREAM, 0, 1, bytes(4)), None),
    ],
    ids=["PING", "SETTINGS", "RST_STREAM"],
)
@in_loop
async def test_frames_are_looked_at_in_order_and_so_many_in_each_turn(flood: bytes, answers: Any) -> None:
    peer = Peer(answer)
    peer.feed(heads(peer, 1))
    await peer.settle()
    before = len(peer.of(answers[0])) if answers else 0
    looked_at = 0
    look = peer.protocol._unpack_head

    def counting(*args: Any) -> Any:
        nonlocal looked_at
        looked_at += 1
        return look(*args)

    peer.protocol._unpack_head = counting
    count = 90 if flood[3] == Kind.SETTINGS else 900
    peer.feed(flood * count + heads(peer, 1, first=3))
    turns = [looked_at, *(await work_of_turns(peer, lambda: looked_at))]
    assert max(turns) <= STEPS
    assert looked_at == count + 1
    assert peer.head(3)[b":status"] == b"200"
    if answers:
        assert len(peer.of(answers[0])) - before == count


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
        await answer(scope, receive, send)

    peer = Peer(app)
    peer.headers(1, request(b"POST"), END_HEADERS)
    peer.feed(frame(Kind.DATA, 0, 1, b"x") * 2000 + frame(Kind.DATA, END_STREAM, 1, b""))
    turns = await work_of_turns(peer, lambda: taken)
    await peer.settle()
    assert max(turns) <= STEPS
    assert taken == 2000
    assert peer.head(1)[b":status"] == b"200"


@in_loop
async def test_large_field_blocks_are_decoded_one_in_each_turn() -> None:
    app = Counting()
    peer = Peer(app)
    decoded = 0

    class Decoder(type(peer.protocol.heads.decoder)):  # type: ignore[misc]
        __slots__ = ()

        def decode(self, block: bytes) -> Any:
            nonlocal decoded
            decoded += 1
            return super().decode(block)

    peer.protocol.heads.decoder.__class__ = Decoder
    block = peer.encoder.encode([*GET, *((b"x-%d" % number, b"%d" % number * 50) for number in range(80))])
    assert len(block) > 4000
    # Each is another: what was decoded before need not be decoded again.
    blocks = [block + peer.encoder.encode([(b"y", b"%d" % number)]) for number in range(10)]
    frames = [frame(Kind.HEADERS, END_HEADERS | END_STREAM, 1 + 2 * at, each) for at, each in enumerate(blocks)]
    peer.feed(b"".join(frames))
    turns = [decoded, *(await work_of_turns(peer, lambda: decoded))]
    assert max(turns) <= 2
    assert len(app.paths) == 10


@in_loop
async def test_block_of_one_octet_fields_is_not_read_to_its_end() -> None:
    peer = Peer(answer, max_header_size=65536)
    piece = b"\x82" * 16_000
    assert 2 * len(piece) > FIELDS_MAX
    peer.send(Kind.HEADERS, END_STREAM, 1, piece)
    peer.send(Kind.CONTINUATION, END_HEADERS, 1, piece)
    assert peer.failed is ErrorCode.ENHANCE_YOUR_CALM


@in_loop
async def test_upload_in_large_frames_is_read_in_portions_and_complete() -> None:
    peer = Peer(echo, max_request_size=0, settings={Setting.INITIAL_WINDOW_SIZE: 2**20})
    peer.open_window(0, 2**20)
    peer.headers(1, request(b"POST"), END_HEADERS)
    body = bytes(range(256)) * 64
    peer.feed(frame(Kind.DATA, 0, 1, body) * 15 + frame(Kind.DATA, END_STREAM, 1, body))
    assert peer.protocol.held_since
    await peer.wait_until(lambda: len(peer.body(1)) == 16 * len(body))
    assert peer.body(1) == body * 16


@in_loop
async def test_connection_that_is_lost_while_frames_wait_leaves_nothing_behind() -> None:
    app = Counting()
    peer = Peer(app)
    peer.feed(heads(peer, 90))
    opened = len(app.paths)
    peer.lose()
    await peer.settle()
    assert len(app.paths) == opened
    assert peer.closed and not peer.service.connections and not peer.service.tasks


@in_loop
async def test_error_among_the_frames_that_wait_ends_the_connection() -> None:
    peer = Peer(answer)
    peer.feed(frame(Kind.PING, 0, 0, bytes(8)) * 300 + frame(Kind.DATA, 0, 0, b"") + frame(Kind.PING, 0, 0, bytes(8)))
    assert peer.failed is None
    await peer.until_read()
    assert peer.failed is ErrorCode.PROTOCOL_ERROR
    assert len(peer.of(Kind.PING)) == 300


@in_loop
async def test_deadline_of_an_upload_stands_still_while_its_frames_wait() -> None:
    peer = Peer(echo, request_timeout=30, min_body_rate=0)
    peer.headers(1, request(b"POST"), END_HEADERS)
    peer.feed(frame(Kind.PING, 0, 0, bytes(8)) * 300 + frame(Kind.DATA, 0, 1, b"late"))
    assert peer.protocol.held_since
    peer.after(1000)
    await peer.until_read()
    peer.after(29)
    peer.data(1, b"", end=True)
    await peer.settle()
    assert peer.body(1) == b"late"


@in_loop
async def test_time_in_which_frames_waited_is_given_back_to_every_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = Peer(echo, request_timeout=30, min_body_rate=100)
    peer.headers(1, request(b"POST"), END_HEADERS)
    clock = peer.service.loop.time
    peer.feed(frame(Kind.PING, 0, 0, bytes(8)) * 300)
    assert peer.protocol.held_since
    # The worker was busy with others for a minute.
    monkeypatch.setattr(peer.service.loop, "time", lambda: clock() + 60)
    await peer.until_read()
    peer.after(4)
    await peer.settle()
    assert not peer.of(Kind.HEADERS, 1)
    peer.after(31)
    assert peer.head(1)[b":status"] == b"408"


@in_loop
async def test_drain_serves_the_requests_that_wait() -> None:
    app = Counting()
    peer = Peer(app)
    peer.feed(heads(peer, 90))
    peer.service.draining = True
    peer.protocol.drain()
    await peer.until_read()
    assert len(app.paths) == 90
    assert all(peer.head(stream)[b":status"] == b"200" for stream in range(1, 181, 2))


@in_loop
async def test_peer_that_keeps_the_server_busy_puts_no_drain_off(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = Peer(answer)
    peer.feed(frame(Kind.PING, 0, 0, bytes(8)) * 800)
    assert peer.protocol.held_since
    peer.service.draining = True
    peer.protocol.drain()
    clock = peer.service.loop.time
    monkeypatch.setattr(peer.service.loop, "time", lambda: clock() + 2)
    await asyncio.sleep(0)
    assert len(peer.of(Kind.GOAWAY)) == 2


@in_loop
async def test_many_streams_of_pieces_leave_others_their_turn() -> None:
    sent = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200})
        while True:
            await send({"type": "http.response.body", "body": b".", "more_body": True})
            sent += 1

    peer = Peer(app, settings={Setting.INITIAL_WINDOW_SIZE: 2**31 - 1})
    peer.open_window(0, 2**30)
    peer.feed(heads(peer, 90))
    await peer.until_read()
    turns = []
    for _ in range(200):
        before = sent
        await asyncio.sleep(0)
        turns.append(sent - before)
    assert max(turns) <= 2 * STEPS
    assert sum(turns) > 20 * STEPS
    peer.lose()
    await peer.wait_until(lambda: not peer.service.tasks)
