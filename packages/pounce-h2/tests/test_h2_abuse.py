"""What a client may not make this server do: every attack on HTTP/2 that has a name, and its bound."""

import asyncio
import logging
import tracemalloc
from typing import Any

import pytest
from h2_peer import GET, Peer, answer, echo, hang, in_loop, say

from pounce_h2.frames import END_HEADERS, END_STREAM, ErrorCode, Kind, Setting, frame, window_update_frame

CALM = ErrorCode.ENHANCE_YOUR_CALM
BLOCK = b"\x82\x86\x84\x01\x0bexample.org"
POST = b"\x83\x86\x84\x01\x0bexample.org"
WHOLE = END_HEADERS | END_STREAM


def head(stream: int, block: bytes = BLOCK, flags: int = WHOLE) -> bytes:
    return frame(Kind.HEADERS, flags, stream, block)


def rst(stream: int) -> bytes:
    return frame(Kind.RST_STREAM, 0, stream, bytes(4))


# Rapid Reset (CVE-2023-44487)


@in_loop
async def test_request_that_is_reset_in_the_same_read_never_reaches_the_application() -> None:
    peer = Peer(answer)
    peer.feed(head(1) + rst(1) + head(3))
    assert (peer.service.requests, peer.of(Kind.HEADERS, 1), peer.body(3)) == (1, [], b"/")


@in_loop
async def test_rapid_reset_ends_the_connection() -> None:
    peer = Peer(hang, h2={"reset_rate": 0})
    stream = 1
    while peer.failed is None and stream < 4000:
        peer.feed(head(stream))
        await peer.settle(2)
        peer.feed(rst(stream))
        stream += 2
    assert (peer.failed, stream // 2) == (CALM, 501)


@in_loop
async def test_budget_of_resets_is_a_setting_and_refills() -> None:
    peer = Peer(hang, h2={"reset_burst": 3, "reset_rate": 0})
    peer.feed(b"".join(head(stream) + rst(stream) for stream in (1, 3, 5)))
    assert peer.failed is None
    peer.feed(head(7) + rst(7))
    assert peer.failed is CALM


@in_loop
async def test_requests_that_are_given_up_among_many_that_are_not_are_no_attack() -> None:
    peer = Peer(echo, h2={"reset_burst": 10, "reset_rate": 0})
    for stream in range(1, 801, 8):
        peer.feed(head(stream) + head(stream + 2) + head(stream + 4, POST, END_HEADERS))
        await peer.settle()
        peer.feed(rst(stream + 4))
        await peer.settle()
    assert (peer.failed, peer.service.requests) == (None, 300)


@in_loop
async def test_reset_request_counts_until_its_application_has_ended() -> None:
    release = asyncio.Event()
    running = 0

    async def stubborn(scope: Any, receive: Any, send: Any) -> None:
        nonlocal running
        running += 1
        await release.wait()
        running -= 1

    peer = Peer(stubborn, h2={"max_concurrent_streams": 10})
    for stream in range(1, 81, 2):
        peer.feed(head(stream))
        peer.feed(rst(stream))
    assert running == 10
    assert peer.resets() == [ErrorCode.REFUSED_STREAM] * 30
    release.set()
    await peer.settle()
    release.clear()
    peer.feed(head(81))
    assert running == 1


# MadeYouReset (CVE-2025-8671)


@pytest.mark.parametrize(
    "provoke",
    [
        lambda stream: window_update_frame(stream, 0),
        lambda stream: window_update_frame(stream, 2**31 - 1),
        lambda stream: frame(Kind.DATA, 0, stream, b"x"),
        lambda stream: head(stream),
        lambda stream: frame(Kind.PRIORITY, 0, stream, stream.to_bytes(4) + b"\0"),
        lambda stream: frame(Kind.PRIORITY, 0, stream, b"\0"),
    ],
    ids=["WINDOW_UPDATE by 0", "window overflow", "DATA after the end", "HEADERS after the end", "self", "short"],
)
@in_loop
async def test_resets_that_the_client_provokes_count_the_same(provoke: Any) -> None:
    peer = Peer(hang, h2={"reset_rate": 0})
    stream = 1
    while peer.failed is None and stream < 4000:
        peer.feed(head(stream))
        peer.feed(provoke(stream))
        await peer.settle(2)
        stream += 2
    assert (peer.failed, stream // 2) == (CALM, 501)


@in_loop
async def test_malformed_and_refused_requests_count_the_same() -> None:
    peer = Peer(hang, h2={"max_concurrent_streams": 1})
    peer.feed(b"".join(head(stream, b"\x82") if stream % 4 == 1 else head(stream) for stream in range(1, 1201, 2)))
    await peer.until_read()
    assert peer.failed is CALM


# Floods of one kind of frame

FLOODS = {
    "PING (CVE-2019-9512)": frame(Kind.PING, 0, 0, bytes(8)),
    "PING acknowledgements": frame(Kind.PING, 1, 0, bytes(8)),
    "SETTINGS (CVE-2019-9515)": frame(Kind.SETTINGS, 0, 0),
    "empty DATA (CVE-2019-9518)": frame(Kind.DATA, 0, 1),
    "padding alone": frame(Kind.DATA, 8, 1, b"\x03\0\0\0"),
    "PRIORITY (CVE-2019-9513)": frame(Kind.PRIORITY, 0, 1, bytes(5)),
    "PRIORITY_UPDATE": frame(Kind.PRIORITY_UPDATE, 0, 0, b"\0\0\0\x01u=1"),
    "PRIORITY_UPDATE of idle streams": frame(Kind.PRIORITY_UPDATE, 0, 0, b"\0\x01\0\x01u=1"),
    "WINDOW_UPDATE of the connection": window_update_frame(0, 1),
    "WINDOW_UPDATE of a stream": window_update_frame(1, 1),
    "unknown frames": frame(0x42, 0, 0),
    "GOAWAY": frame(Kind.GOAWAY, 0, 0, bytes(8)),
    "SETTINGS acknowledgements": frame(Kind.SETTINGS, 1, 0),
    "RST_STREAM of a stream that is over": rst(3),
    "DATA of a stream that was reset": frame(Kind.DATA, 0, 3, b"x"),
    "HEADERS of a stream that was reset": head(3),
}


@pytest.mark.parametrize("what", FLOODS)
@in_loop
async def test_flood_ends_the_connection(what: str) -> None:
    peer = Peer(hang)
    peer.feed(head(1, POST, END_HEADERS) + head(3, b"\x82"))
    for _ in range(60):
        peer.feed(FLOODS[what] * 100)
    assert peer.failed is CALM
    await peer.settle()
    assert not peer.service.tasks


@pytest.mark.parametrize("what", FLOODS)
@in_loop
async def test_a_few_of_them_are_no_flood(what: str) -> None:
    peer = Peer(hang)
    peer.feed(head(1, POST, END_HEADERS) + head(3, b"\x82") + FLOODS[what] * 50)
    assert peer.failed is None


@in_loop
async def test_requests_after_goaway_are_a_flood_in_the_end() -> None:
    peer = Peer(hang)
    peer.feed(head(1) + frame(Kind.GOAWAY, 0, 0, bytes(8)))
    for stream in range(3, 12_003, 2):
        peer.feed(head(stream))
    assert peer.failed is CALM


@in_loop
async def test_giving_up_each_request_after_its_answer_is_no_flood() -> None:
    peer = Peer(answer)
    for stream in range(1, 12_001, 2):
        peer.feed(head(stream))
        peer.feed(rst(stream))
    assert (peer.failed, peer.service.requests) == (None, 6000)


@in_loop
async def test_window_updates_that_follow_data_are_no_flood() -> None:
    peer = Peer(answer)
    for stream in range(1, 12_001, 2):
        peer.feed(head(stream) + window_update_frame(0, 1))
    assert peer.failed is None


@in_loop
async def test_client_that_makes_us_answer_and_reads_nothing_is_given_up() -> None:
    """Whatever the budgets allow, what waits for such a client is bounded."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await say(send, headers=[(b"x-long", b"x" * 16_000)])

    peer = Peer(app)
    peer.transport.stall()
    for stream in range(1, 2001, 2):
        peer.feed(head(stream))
    await peer.settle()
    assert peer.closed
    assert peer.transport.largest_waiting < 1_500_000


# Header sections


@in_loop
async def test_continuation_flood_ends_before_it_is_decoded() -> None:
    """CVE-2024-27316: the bound is on frames as well as on octets."""
    peer = Peer(hang)
    peer.feed(head(1, BLOCK, END_STREAM))
    peer.feed(frame(Kind.CONTINUATION, 0, 1) * 100)
    assert peer.failed is CALM


@pytest.mark.parametrize("size", [100, 16_384])
@in_loop
async def test_field_block_is_bounded(size: int) -> None:
    peer = Peer(hang, max_header_size=20_000)
    peer.feed(head(1, BLOCK, END_STREAM))
    fed = 0
    while peer.failed is None and fed < 100_000:
        peer.feed(frame(Kind.CONTINUATION, 0, 1, bytes(size)))
        fed += size
    assert peer.failed is CALM
    assert fed <= 20_000 + size


@in_loop
async def test_field_block_must_arrive_in_time() -> None:
    peer = Peer(hang)
    peer.feed(head(1))
    peer.feed(head(3, BLOCK, END_STREAM))
    later(peer, 9.0)
    assert peer.failed is None
    later(peer, 11.0)
    assert peer.failed is CALM


@pytest.mark.parametrize(
    ("fields", "limits"),
    [
        ([(b"a", b"b")] * 97, {}),
        ([(b"cookie", b"a")] * 97, {}),
        ([(b"a", b"b" * 2000)], {"max_header_size": 1000}),
        ([(b"a", b"")] * 30, {"max_header_size": 1000}),
    ],
    ids=["fields", "cookie crumbs", "octets", "overhead of fields"],
)
@in_loop
async def test_header_section_above_a_bound_is_answered_431(fields: Any, limits: Any) -> None:
    peer = Peer(answer, **limits)
    peer.headers(1, GET + fields)
    peer.headers(3)
    assert peer.head(1)[b":status"] == b"431"
    # The dynamic table has kept step.
    assert (peer.body(3), peer.failed) == (b"/", None)


@in_loop
async def test_hpack_bomb_costs_little_memory() -> None:
    """CVE-2026-49975, CVE-2026-47774: a large entry, referred to thousands of times by one octet each, on every stream,
    with a window of 0."""
    peer = Peer(answer, settings={Setting.INITIAL_WINDOW_SIZE: 0})
    entry = b"\x40\x01a\x7f\xa1\x1e" + b"x" * 4000
    peer.feed(head(1, BLOCK + entry))
    bomb = BLOCK + b"\xbe" * 2000
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for stream in range(3, 203, 2):
        peer.feed(head(stream, bomb))
    await peer.settle()
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert peer.failed is None
    assert peak < 4_000_000, peak


@in_loop
async def test_heads_of_all_requests_of_a_connection_are_bounded() -> None:
    peer = Peer(hang, max_headers=3000, h2={"max_concurrent_streams": 1000})
    peer.feed(head(1, BLOCK + b"\x40\x01a\x00"))
    for stream in range(3, 101, 2):
        peer.feed(head(stream, BLOCK + b"\xbe" * 1500))
    assert len(peer.service.tasks) == 22
    assert set(peer.resets()) == {CALM}


# Slow readers and small pieces


@in_loop
async def test_slow_readers_hold_applications_and_not_memory() -> None:
    """100 streams whose windows stay shut, each with 64 MiB to send."""
    sent = 0

    async def large(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200})
        for _ in range(1024):
            await send({"type": "http.response.body", "body": bytes(65_536), "more_body": True})
            sent += 1
        await send({"type": "http.response.body"})

    peer = Peer(large, settings={Setting.INITIAL_WINDOW_SIZE: 0})
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    peer.feed(b"".join(head(stream) for stream in range(1, 201, 2)))
    await peer.settle(200)
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(peer.service.tasks) == 100
    assert held < 10_000_000, held
    later(peer, 31.0)
    await peer.settle()
    assert (len(peer.resets()), peer.service.tasks) == (100, {})


@in_loop
async def test_window_that_opens_by_one_octet_gets_no_more_than_its_budget() -> None:
    peer = Peer(answer_of(b"x" * 100_000), settings={Setting.INITIAL_WINDOW_SIZE: 0})
    peer.feed(head(1))
    for _ in range(5):
        peer.feed(window_update_frame(1, 1))
    assert peer.body(1) == b"xxxxx"


@in_loop
async def test_peer_that_opens_no_window_of_the_connection_is_given_up() -> None:
    peer = Peer(answer_of(b"x" * 100_000), settings={Setting.INITIAL_WINDOW_SIZE: 2**20})
    peer.feed(head(1))
    await peer.settle()
    assert len(peer.body(1)) == 65_535
    later(peer, 29.0)
    assert peer.goaways() == []
    later(peer, 31.0)
    await peer.settle()
    assert peer.goaways() == [(1, ErrorCode.NO_ERROR)]
    assert not peer.service.tasks


@in_loop
async def test_body_in_tiny_pieces_that_nobody_takes_is_bounded() -> None:
    async def deaf(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    peer = Peer(deaf)
    peer.feed(head(1, POST, END_HEADERS))
    for _ in range(70):
        peer.feed(frame(Kind.DATA, 0, 1, b"xy") * 1000)
    await peer.wait_until(lambda: peer.failed is not None)
    assert peer.failed is CALM
    peer.lose()
    await peer.settle()
    for task in peer.service.tasks:
        task.cancel()


@in_loop
async def test_tiny_pieces_that_are_taken_are_welcome() -> None:
    peer = Peer(echo)
    peer.feed(head(1, POST, END_HEADERS))
    for _ in range(70):
        peer.feed(frame(Kind.DATA, 0, 1, b"xy") * 1000)
        await peer.until_read()
    peer.data(1, b"", end=True)
    peer.open_window(0, 2**20)
    peer.open_window(1, 2**20)
    await peer.settle()
    assert (peer.failed, len(peer.body(1))) == (None, 140_000)


@pytest.mark.parametrize("connection", [True, False], ids=["connection", "stream"])
@in_loop
async def test_body_beyond_the_window_is_an_error(connection: bool) -> None:
    windows = {"connection_window": 65_535} if connection else {"stream_window": 20_000}

    async def deaf(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            await asyncio.Event().wait()

    peer = Peer(deaf, h2=windows)
    peer.feed(head(1, POST, END_HEADERS))
    for _ in range(5):
        peer.data(1, bytes(16_384))
    if connection:
        assert peer.failed is ErrorCode.FLOW_CONTROL_ERROR
    else:
        assert peer.resets() == [ErrorCode.FLOW_CONTROL_ERROR]
    for task in peer.service.tasks:
        task.cancel()


# Logs


@in_loop
async def test_errors_of_peers_are_logged_once_a_second_and_without_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = Peer(answer).service
    with caplog.at_level(logging.INFO):
        for _ in range(50):
            peer = Peer(answer)
            peer.service.shared = service.shared
            peer.feed(frame(Kind.PING, 0, 1, bytes(8)))
            assert peer.failed is ErrorCode.PROTOCOL_ERROR
    records = [record for record in caplog.records if "HTTP/2" in record.getMessage()]
    assert [(record.levelname, record.exc_info) for record in records] == [("INFO", None)]
    assert "PROTOCOL_ERROR: PING on a stream" in records[0].getMessage()
    assert "192.0.2.1" in records[0].getMessage()


def later(peer: Peer, seconds: float) -> None:
    """What the ticks of so many seconds do: one looks at the next deadline, and finds out which is the one after it."""
    for _ in range(200):
        peer.after(seconds)


def answer_of(body: bytes) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await say(send, body)

    return app
