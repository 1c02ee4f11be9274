"""Streams side by side: flow control, priorities, deadlines, the end of connections, tunnels."""

import asyncio
from typing import Any

import pytest
from h2_peer import GET, Peer, answer, echo, hang, in_loop, request, say

from pounce.contract.head import Headers, RequestHead
from pounce.contract.stream import Exchange, Stream
from pounce.exchange.service import Service
from pounce.plugin import API_VERSION, Plugin, Upgrade
from pounce_h2.frames import ACK, END_HEADERS, END_STREAM, PREFACE, ErrorCode, Kind, Setting, frame, settings_frame

POST = request(b"POST")
OPEN = END_HEADERS


def sized(size: int) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await say(send, b"x" * size)

    return app


def pass_seconds(peer: Peer, first: int, last: int) -> None:
    """Do what is due so many seconds from now, one second after the other."""
    for seconds in range(first, last):
        peer.after(seconds)


# Sending


@in_loop
async def test_answers_of_one_read_leave_in_one_write() -> None:
    peer = Peer(answer)
    writes: list[bytes] = []
    write = peer.transport.write
    peer.transport.write = lambda data: (writes.append(bytes(data)), write(data))[1]  # type: ignore[method-assign]
    blocks = b"".join(frame(Kind.HEADERS, 5, stream, peer.block(GET)) for stream in range(1, 33, 2))
    peer.feed(blocks)
    assert len(writes) == 1
    assert all(peer.body(stream) == b"/" for stream in range(1, 33, 2))


@in_loop
async def test_pieces_of_one_turn_leave_in_one_write() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 200})
        for _ in range(20):
            await send({"type": "http.response.body", "body": b"piece", "more_body": True})
        await send({"type": "http.response.body"})

    peer = Peer(app)
    writes: list[bytes] = []
    write = peer.transport.write
    peer.transport.write = lambda data: (writes.append(bytes(data)), write(data))[1]  # type: ignore[method-assign]
    peer.headers(1)
    await peer.settle()
    assert (len(writes), peer.body(1)) == (1, b"piece" * 20)


@pytest.mark.parametrize("window", [0, 1, 1000, 16_384, 65_535])
@in_loop
async def test_answer_keeps_within_the_window_of_its_stream(window: int) -> None:
    peer = Peer(sized(200_000), settings={Setting.INITIAL_WINDOW_SIZE: window})
    peer.headers(1)
    await peer.settle()
    assert len(peer.body(1)) == window
    peer.open_window(0, 2**20)
    peer.open_window(1, 10)
    await peer.settle()
    assert len(peer.body(1)) == window + 10
    peer.open_window(1, 2**20)
    await peer.settle()
    assert (len(peer.body(1)), peer.ended(1)) == (200_000, True)
    assert max(len(found.payload) for found in peer.of(Kind.DATA)) <= 16_384


@in_loop
async def test_window_may_become_negative() -> None:
    """RFC 9113 6.9.2"""
    peer = Peer(sized(100_000), settings={Setting.INITIAL_WINDOW_SIZE: 50_000})
    peer.open_window(0, 2**20)
    peer.headers(1)
    await peer.settle()
    peer.set(Setting.INITIAL_WINDOW_SIZE, 10_000)
    peer.open_window(1, 40_000)
    await peer.settle()
    assert len(peer.body(1)) == 50_000
    peer.open_window(1, 1)
    await peer.settle()
    assert len(peer.body(1)) == 50_001
    peer.set(Setting.INITIAL_WINDOW_SIZE, 2**20)
    await peer.settle()
    assert peer.ended(1)


@in_loop
async def test_windows_above_the_maximum_by_settings_are_a_connection_error() -> None:
    peer = Peer(hang)
    peer.headers(1)
    peer.open_window(1, 2**31 - 1 - 65_535)
    peer.set(Setting.INITIAL_WINDOW_SIZE, 65_536)
    assert peer.failed is ErrorCode.FLOW_CONTROL_ERROR


@in_loop
async def test_only_the_last_window_of_a_settings_frame_counts() -> None:
    """What 2,730 of them would do to every stream is done once."""
    peer = Peer(sized(100), settings={Setting.INITIAL_WINDOW_SIZE: 0})
    peer.headers(1)
    peer.open_window(1, 10)
    windows = b"".join(b"\0\x04" + value.to_bytes(4) for value in (2**31 - 1, 50))
    peer.send(Kind.SETTINGS, 0, 0, windows)
    assert (peer.failed, len(peer.body(1))) == (None, 60)


@in_loop
async def test_streams_share_the_window_of_the_connection() -> None:
    peer = Peer(sized(50_000))
    peer.headers(1)
    peer.headers(3)
    await peer.settle()
    assert [len(peer.body(stream)) for stream in (1, 3)] == [50_000, 15_535]
    peer.open_window(0, 34_465)
    await peer.settle()
    assert peer.ended(3)
    assert not peer.service.tasks


@in_loop
async def test_answer_that_is_given_up_no_longer_waits_for_the_window_of_the_connection() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await (hang if scope["path"] == "/poll" else sized(100_000))(scope, receive, send)

    peer = Peer(app, settings={Setting.INITIAL_WINDOW_SIZE: 1_000_000})
    peer.headers(1, request(path=b"/poll"))
    peer.headers(3)
    await peer.settle()
    peer.send(Kind.RST_STREAM, 0, 3, bytes(4))
    for seconds in range(0, 60, 5):
        peer.after(seconds)
    assert (peer.goaways(), peer.service.counts.get("write_timeout")) == ([], None)
    peer.send(Kind.RST_STREAM, 0, 1, bytes(4))
    await peer.settle()


@in_loop
async def test_trailers_wait_for_the_body() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "trailers": True})
        await send({"type": "http.response.body", "body": b"x" * 100})
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]})

    peer = Peer(app, settings={Setting.INITIAL_WINDOW_SIZE: 50})
    peer.headers(1)
    await peer.settle()
    assert len(peer.of(Kind.HEADERS, 1)) == 1
    peer.open_window(1, 50)
    await peer.settle()
    peer.head(1)
    assert (peer.head(1, 1), peer.ended(1)) == ({b"x-sum": b"1"}, True)


@in_loop
async def test_connection_field_of_an_answer_is_left_out() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await say(send, headers=[(b"connection", b"close"), (b"keep-alive", b"1"), (b"upgrade", b"x"), (b"x-a", b"b")])

    peer = Peer(app)
    peer.headers(1)
    assert peer.head(1) == {b":status": b"200", b"x-a": b"b", b"content-length": b"0"}
    peer.headers(3)
    assert peer.ended(3)


@in_loop
async def test_failure_after_the_start_resets_the_stream() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        raise RuntimeError("on purpose")

    peer = Peer(app)
    peer.headers(1)
    await peer.settle()
    assert (peer.resets(1), peer.ended(1)) == ([ErrorCode.INTERNAL_ERROR], False)


# Receiving


@in_loop
async def test_window_opens_when_the_application_has_taken_the_body() -> None:
    go = asyncio.Event()
    taken = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal taken
        await go.wait()
        while taken < 80_000:
            taken += len((await receive())["body"])
        await say(send)

    peer = Peer(app, h2={"stream_window": 100_000, "connection_window": 100_000})
    peer.headers(1, POST, OPEN)
    for _ in range(5):
        peer.data(1, bytes(16_000))
    await peer.settle()
    assert [found for found in peer.of(Kind.WINDOW_UPDATE) if found.stream] == []
    before = len(peer.frames)
    go.set()
    await peer.settle()
    updates = [(found.stream, found.number) for found in peer.frames[before:] if found.kind == Kind.WINDOW_UPDATE]
    peer.take_frames()
    updates = [(found.stream, found.number) for found in peer.frames[before:] if found.kind == Kind.WINDOW_UPDATE]
    assert sorted(updates) == [(0, 80_000), (1, 80_000)]


@in_loop
async def test_small_window_binds_the_peer_once_it_has_acknowledged_it() -> None:
    """RFC 9113 6.9.3: the sender "might send data that exceeds the lower limit prior to processing the SETTINGS"."""
    peer = Peer(hang, begin=False, h2={"stream_window": 1024})
    peer.feed(PREFACE + settings_frame({}))
    peer.headers(1, POST, OPEN)
    peer.data(1, bytes(10_000))
    peer.send(Kind.SETTINGS, ACK)
    peer.data(1, b"", end=True)
    assert (peer.failed, peer.resets()) == (None, [])
    peer.headers(3, POST, OPEN)
    peer.data(3, bytes(1024))
    assert peer.resets() == []
    peer.data(3, b"x")
    assert peer.resets() == [ErrorCode.FLOW_CONTROL_ERROR]


@in_loop
async def test_window_of_the_connection_survives_streams_that_are_reset() -> None:
    peer = Peer(hang, h2={"connection_window": 65_535, "stream_window": 65_535})
    for stream in range(1, 41, 2):
        peer.headers(stream, POST, OPEN)
        peer.data(stream, bytes(16_000))
        peer.send(Kind.RST_STREAM, 0, stream, bytes(4))
        peer.data(stream, bytes(10_000))
        await peer.settle(2)
    assert peer.failed is None


@in_loop
async def test_early_answer_stops_the_upload() -> None:
    peer = Peer(answer)
    peer.headers(1, POST, OPEN)
    peer.data(1, bytes(16_384))
    # Some clients lose the answer when the reset comes with it.
    assert (peer.ended(1), peer.resets(1)) == (True, [])
    peer.after(0.5)
    assert peer.resets(1) == [ErrorCode.NO_ERROR]
    for _ in range(500):
        peer.data(1, bytes(16_384))
    peer.headers(3)
    assert (peer.failed, peer.body(3)) == (None, b"/")


@in_loop
async def test_upload_that_ends_soon_after_its_answer_is_not_reset() -> None:
    peer = Peer(answer)
    peer.headers(1, POST, OPEN)
    peer.data(1, b"rest", end=True)
    peer.after(0.5)
    assert (peer.body(1), peer.resets(1)) == (b"/", [])


@in_loop
async def test_upload_that_comes_with_its_head_arrives_whole() -> None:
    peer = Peer(echo)
    block = peer.block([*POST, (b"content-length", b"6")])
    pieces = frame(Kind.DATA, 0, 1, b"abc") + frame(Kind.DATA, 1, 1, b"def")
    peer.feed(frame(Kind.HEADERS, OPEN, 1, block) + pieces)
    await peer.settle()
    assert peer.body(1) == b"abcdef"


@in_loop
async def test_upload_that_stops_is_answered_408() -> None:
    peer = Peer(echo, min_body_rate=0)
    peer.headers(1, POST, OPEN)
    peer.data(1, b"x")
    await peer.settle()
    peer.after(29.0)
    assert peer.of(Kind.HEADERS) == []
    peer.after(31.0)
    peer.after(32.0)
    assert peer.head(1)[b":status"] == b"408"
    peer.after(33.0)
    assert peer.resets(1) == [ErrorCode.NO_ERROR]


def reading_from(go: asyncio.Event) -> Any:
    """An application that lets bodies wait until `go`, but for one at /now."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/now":
            await go.wait()
        await echo(scope, receive, send)

    return app


@pytest.mark.parametrize("min_body_rate", [0, 1000])
@in_loop
async def test_upload_that_has_no_room_in_the_window_of_the_connection_is_not_hurried(min_body_rate: int) -> None:
    go = asyncio.Event()
    windows = {"connection_window": 65_535, "stream_window": 65_535}
    peer = Peer(reading_from(go), min_body_rate=min_body_rate, h2=windows)
    peer.headers(1, request(b"POST", b"/now"), OPEN)
    peer.headers(3, POST, OPEN)
    for size in (16_384, 16_384, 16_384, 16_383):
        peer.data(3, bytes(size))
    peer.headers(5, request(b"POST", b"/now"), OPEN)
    await peer.settle()
    pass_seconds(peer, 1, 60)
    assert peer.of(Kind.HEADERS) == []
    go.set()
    await peer.settle()
    pass_seconds(peer, 1, 4)
    assert peer.of(Kind.HEADERS) == []
    pass_seconds(peer, 5, 40)
    assert [peer.head(stream)[b":status"] for stream in (1, 3, 5)] == [b"408"] * 3


@pytest.mark.parametrize("window", [1024, 16_384, 65_536, 100_000])
@in_loop
async def test_upload_that_has_no_room_in_its_own_window_is_not_hurried(window: int) -> None:
    go = asyncio.Event()
    peer = Peer(reading_from(go), h2={"stream_window": window})
    peer.headers(1, POST, OPEN)
    for at in range(0, window, 16_384):
        peer.data(1, bytes(min(16_384, window - at)))
    await peer.settle()
    pass_seconds(peer, 1, 60)
    assert peer.of(Kind.HEADERS) == []
    go.set()
    await peer.settle()
    pass_seconds(peer, 1, 33)
    assert peer.head(1)[b":status"] == b"408"


@in_loop
async def test_complete_answer_stays_one_when_its_upload_stops() -> None:
    """To HEAD everything is said with the head: a reset with an error would have clients throw it away."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    peer = Peer(app, min_body_rate=0)
    peer.headers(1, request(b"HEAD"), OPEN)
    await peer.settle()
    assert peer.ended(1)
    for seconds in (31.0, 32.0, 33.0):
        peer.after(seconds)
        await peer.settle()
    assert (peer.resets(1), peer.service.tasks) == ([ErrorCode.NO_ERROR], {})


@in_loop
async def test_body_that_comes_with_its_head_and_is_too_large_never_reaches_the_application() -> None:
    started = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal started
        started += 1

    peer = Peer(app, max_request_size=10)
    peer.feed(frame(Kind.HEADERS, OPEN, 1, peer.block(POST)) + frame(Kind.DATA, END_STREAM, 1, bytes(11)))
    assert (peer.head(1)[b":status"], started, peer.service.tasks) == (b"413", 0, {})


@in_loop
async def test_trailers_that_come_with_their_head_arrive() -> None:
    messages: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while not messages or messages[-1]["more_body"]:
            messages.append(await receive())
        await say(send)

    peer = Peer(app)
    blocks = [peer.block(POST), peer.block([(b"sum", b"42")])]
    data = frame(Kind.DATA, 0, 1, b"body") + frame(Kind.HEADERS, END_HEADERS | END_STREAM, 1, blocks[1])
    peer.feed(frame(Kind.HEADERS, OPEN, 1, blocks[0]) + data)
    await peer.settle()
    assert (b"".join(message["body"] for message in messages), messages[-1]["trailers"]) == (b"body", [(b"sum", b"42")])
    assert peer.ended(1)


# Concurrency


@in_loop
async def test_request_above_the_limit_is_refused() -> None:
    peer = Peer(hang, h2={"max_concurrent_streams": 2})
    for stream in (1, 3, 5):
        peer.headers(stream)
    assert (peer.resets(5), len(peer.service.tasks)) == ([ErrorCode.REFUSED_STREAM], 2)
    peer.send(Kind.RST_STREAM, 0, 1, bytes(4))
    await peer.settle()
    peer.headers(7)
    assert (peer.resets(7), len(peer.service.tasks)) == ([], 2)


# Priorities (RFC 9218)


async def order_of(*priorities: bytes, size: int = 40_000, update: bytes = b"") -> list[int]:
    """The streams in the order in which their DATA is sent, when all wait for the window of the connection."""
    peer = Peer(sized(size), settings={Setting.INITIAL_WINDOW_SIZE: 2**20})
    peer.headers(1, request(path=b"/fills-the-window"))
    peer.headers(3, request(path=b"/fills-the-window"))
    await peer.settle()
    peer.send(Kind.RST_STREAM, 0, 3, bytes(4))
    seen = len(peer.of(Kind.DATA))
    for number, value in enumerate(priorities):
        peer.headers(5 + 2 * number, [*GET, (b"priority", value)])
    await peer.settle()
    if update:
        peer.feed(update)
    for _ in range(40):
        peer.open_window(0, 16_384)
        await peer.settle(2)
    return [found.stream for found in peer.of(Kind.DATA)[seen:]]


@in_loop
async def test_the_most_urgent_answer_comes_first() -> None:
    order = await order_of(b"u=5", b"u=1", b"u=3")
    assert order == sorted(order, key=[7, 9, 5].index)


@in_loop
async def test_answers_of_the_same_urgency_come_in_the_order_of_requests() -> None:
    order = await order_of(b"", b"u=3", b"")
    assert order == sorted(order)


@in_loop
async def test_incremental_answers_share() -> None:
    assert (await order_of(b"i", b"i", size=40_000))[:4] == [5, 7, 5, 7]


@in_loop
async def test_priority_update_reorders() -> None:
    update = frame(Kind.PRIORITY_UPDATE, 0, 0, b"\0\0\0\x09u=0")
    assert (await order_of(b"", b"", b"", update=update))[0] == 9


@in_loop
async def test_priority_update_may_come_before_its_request() -> None:
    opened: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        opened.append(scope["path"])
        await say(send)

    peer = Peer(app)
    update = frame(Kind.PRIORITY_UPDATE, 0, 0, b"\0\0\0\x03u=0")
    first, second = (peer.block(request(path=path)) for path in (b"/1", b"/3"))
    peer.feed(update + frame(Kind.HEADERS, 5, 1, first) + frame(Kind.HEADERS, 5, 3, second))
    assert opened == ["/3", "/1"]


@in_loop
async def test_priority_update_takes_the_place_of_the_field() -> None:
    # RFC 9218 7: "Omitting a priority parameter is a signal to use its default value."
    opened: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        opened.append(scope["path"])
        await say(send)

    peer = Peer(app)
    update = frame(Kind.PRIORITY_UPDATE, 0, 0, b"\0\0\0\x01i")
    first = peer.block([*request(path=b"/1"), (b"priority", b"u=0")])
    second = peer.block([*request(path=b"/3"), (b"priority", b"u=2")])
    peer.feed(update + frame(Kind.HEADERS, 5, 1, first) + frame(Kind.HEADERS, 5, 3, second))
    assert opened == ["/3", "/1"]


@in_loop
async def test_application_may_correct_the_priority() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await say(send, b"x" * 40_000, headers=[(b"priority", b"u=0")] if scope["path"] == "/urgent" else [])

    peer = Peer(app, settings={Setting.INITIAL_WINDOW_SIZE: 2**20})
    for stream, path in ((1, b"/"), (3, b"/"), (5, b"/"), (7, b"/urgent")):
        peer.headers(stream, request(path=path))
    await peer.settle()
    seen = len(peer.of(Kind.DATA))
    peer.open_window(0, 2**20)
    await peer.settle()
    assert peer.of(Kind.DATA)[seen].stream == 7


# The end of connections


@in_loop
async def test_drain_lets_requests_that_are_under_way_arrive_and_running_ones_finish() -> None:
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        await say(send, b"late")

    peer = Peer(app)
    peer.headers(1)
    peer.service.draining = True
    peer.protocol.drain()
    await peer.settle()
    assert peer.goaways() == [(2**31 - 1, ErrorCode.NO_ERROR)]
    ping = peer.of(Kind.PING)[0]
    peer.headers(3)
    peer.send(Kind.PING, 1, 0, ping.payload)
    assert peer.goaways()[1:] == [(3, ErrorCode.NO_ERROR)]
    peer.headers(5)
    await peer.settle()
    assert not peer.closed
    go.set()
    await peer.settle()
    assert (peer.body(1), peer.body(3), peer.of(Kind.HEADERS, 5)) == (b"late", b"late", [])
    assert peer.transport.ended


@in_loop
async def test_drain_does_not_wait_for_ever_for_its_round_trip() -> None:
    peer = Peer(answer)
    peer.headers(1)
    peer.protocol.drain()
    await peer.settle()
    peer.after(1.1)
    assert peer.goaways()[1:] == [(1, ErrorCode.NO_ERROR)]
    assert peer.transport.ended


@in_loop
async def test_goaway_of_the_client_lets_running_requests_finish() -> None:
    peer = Peer(echo)
    peer.headers(1, POST, OPEN)
    peer.send(Kind.GOAWAY, 0, 0, bytes(8))
    assert not peer.transport.ended
    peer.data(1, b"body", end=True)
    await peer.settle()
    assert (peer.body(1), peer.transport.ended) == (b"body", True)


@in_loop
async def test_idle_connection_is_closed_with_goaway() -> None:
    peer = Peer(answer)
    peer.headers(1)
    peer.after(4.0)
    assert peer.goaways() == []
    peer.after(6.0)
    assert (peer.goaways(), peer.transport.ended) == ([(1, ErrorCode.NO_ERROR)], True)


@in_loop
async def test_running_request_keeps_its_connection() -> None:
    peer = Peer(hang)
    peer.headers(1)
    for _ in range(5):
        peer.after(100_000.0)
    assert (peer.goaways(), len(peer.service.tasks)) == ([], 1)


@in_loop
async def test_connection_that_says_nothing_is_closed() -> None:
    peer = Peer(answer, begin=False)
    peer.after(11.0)
    assert peer.transport.ended


@in_loop
async def test_connection_ends_after_max_requests_per_connection() -> None:
    peer = Peer(answer, max_requests_per_connection=2)
    for stream in (1, 3, 5):
        peer.headers(stream)
    assert [peer.body(stream) for stream in (1, 3, 5)] == [b"/", b"/", b""]
    assert (peer.goaways(), peer.transport.ended) == ([(3, ErrorCode.NO_ERROR)], True)


# Extended CONNECT (RFC 8441)


class Tunnel:
    """Accepts, and keeps what it is told."""

    def __init__(self, service: Service, head: RequestHead, stream: Stream) -> None:
        stream.exchange = self
        self.head, self.stream = head, stream
        self.received = bytearray()
        self.ended = self.lost = False
        self.resumed = 0
        self.take = True
        stream.tunnel([(b"x-tunnel", b"raw")])

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self.take:
            self.stream.consumed(len(data))

    def eof_received(self, trailers: Headers | None = None) -> None:
        self.ended = True

    def half_closed(self) -> None:
        raise AssertionError("HTTP/2 can tell the two apart")

    def resume_writing(self) -> None:
        self.resumed += 1

    def stream_lost(self, exc: Exception | None) -> None:
        self.lost = True


CONNECT = request(b"CONNECT", b"/tunnel?x=1", (b":protocol", b"Raw"))


def tunnelling(*, settings: dict[Setting, int] | None = None) -> tuple[Peer, Tunnel]:
    opened: list[Tunnel] = []

    def open_(service: Service, head: RequestHead, stream: Stream) -> Exchange:
        opened.append(Tunnel(service, head, stream))
        return opened[-1]

    raw = Plugin(name="raw", api=API_VERSION, upgrades=(Upgrade(token=b"raw", open=open_),))
    peer = Peer(answer, raw, settings=settings)
    peer.headers(1, CONNECT, OPEN)
    return peer, opened[0]


@in_loop
async def test_tunnel_is_offered_and_opened() -> None:
    peer, tunnel = tunnelling()
    assert Setting.ENABLE_CONNECT_PROTOCOL.to_bytes(2) + b"\0\0\0\1" in peer.of(Kind.SETTINGS)[0].payload
    assert peer.head(1) == {b":status": b"200", b"x-tunnel": b"raw"}
    head = tunnel.head
    assert (head.method, head.target, head.upgrade, head.version) == (b"CONNECT", b"/tunnel?x=1", b"raw", "2")


@in_loop
async def test_bytes_pass_both_ways_through_a_tunnel() -> None:
    peer, tunnel = tunnelling()
    peer.open_window(0, 2**20)
    peer.open_window(1, 2**20)
    for number in range(100):
        peer.data(1, b"ping %d" % number)
        tunnel.stream.write(b"pong %d" % number, True)
    await peer.settle()
    assert bytes(tunnel.received) == b"".join(b"ping %d" % number for number in range(100))
    assert peer.body(1) == b"".join(b"pong %d" % number for number in range(100))


@in_loop
async def test_either_side_may_end_its_half_of_a_tunnel() -> None:
    peer, tunnel = tunnelling()
    peer.data(1, b"bye", end=True)
    assert tunnel.ended
    tunnel.stream.write(b"still here", True)
    tunnel.stream.write(b"", False)
    await peer.settle()
    assert (peer.body(1), peer.ended(1), peer.resets()) == (b"still here", True, [])


@in_loop
async def test_peer_has_a_moment_to_end_its_half_of_a_tunnel() -> None:
    peer, tunnel = tunnelling()
    tunnel.stream.write(b"bye", False)
    await peer.settle()
    assert (peer.ended(1), peer.resets()) == (True, [])
    peer.data(1, b"more")
    assert bytes(tunnel.received) == b"more"
    peer.after(3.0)
    assert peer.resets(1) == [ErrorCode.NO_ERROR]


@pytest.mark.parametrize("how", ["reset", "gone"])
@in_loop
async def test_tunnel_is_told_that_its_peer_is_gone(how: str) -> None:
    peer, tunnel = tunnelling()
    if how == "reset":
        peer.send(Kind.RST_STREAM, 0, 1, bytes(4))
    else:
        peer.lose()
    await peer.settle()
    assert tunnel.lost


@in_loop
async def test_tunnel_outlives_the_deadlines_of_requests() -> None:
    peer, tunnel = tunnelling()
    for _ in range(10):
        peer.after(100_000.0)
    peer.data(1, b"still here")
    assert bytes(tunnel.received) == b"still here"


@in_loop
async def test_tunnel_is_told_when_its_peer_reads_slowly() -> None:
    peer, tunnel = tunnelling()
    tunnel.stream.write(b"x" * 150_000, True)
    assert not tunnel.stream.writable
    await peer.settle()
    assert tunnel.resumed == 0
    peer.open_window(0, 2**20)
    peer.open_window(1, 2**20)
    await peer.settle()
    assert (tunnel.stream.writable, tunnel.resumed, len(peer.body(1))) == (True, 1, 150_000)


@in_loop
async def test_unknown_protocol_of_an_extended_connect_is_501() -> None:
    peer, _ = tunnelling()
    peer.headers(3, request(b"CONNECT", b"/", (b":protocol", b"other")), OPEN)
    peer.head(1)
    head = peer.head(3)
    assert (head[b":status"], head[b"x-pounce-error-code"]) == (b"501", b"POUNCE_UNKNOWN_PROTOCOL")


@in_loop
async def test_plain_connect_is_501() -> None:
    peer = Peer(answer)
    peer.headers(1, [(b":method", b"CONNECT"), (b":authority", b"example.org:443")], OPEN | END_STREAM)
    assert peer.head(1)[b":status"] == b"501"
