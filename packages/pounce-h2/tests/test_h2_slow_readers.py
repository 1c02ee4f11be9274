"""Peers that let answers pass a little at a time: `min_write_rate` by the windows of streams and connection.

`pass_time` does what is due while time goes by; the clock itself stands still, so a wait begins where the one before
it ended.
"""

from collections.abc import Callable
from typing import Any

import pytest
from h2_peer import Peer, in_loop, request, say

from pounce_h2.frames import ErrorCode, Kind, Setting

RATE, TIMEOUT = 240, 30.0
LEAST = int(RATE * TIMEOUT)
"""Bytes that a peer must let pass in each `TIMEOUT`."""
SHUT = {Setting.INITIAL_WINDOW_SIZE: 0}
WIDE = {Setting.INITIAL_WINDOW_SIZE: 2**30}
MUCH = 10_000_000
LONG = 100_000.0


def sized(size: int = MUCH) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        for _ in range(size // 10_000):
            await send({"type": "http.response.body", "body": b"x" * 10_000, "more_body": True})
        await send({"type": "http.response.body"})

    return app


async def pass_time(peer: Peer, seconds: float, lets: Callable[[int], None], *, step: float = 1.0) -> None:
    """So many seconds go by, in each of which the peer does what `lets` does with its number."""
    for number in range(int(seconds / step)):
        lets(number)
        await peer.settle(5)
        peer.after((number + 1) * step)
        await peer.settle(5)


@pytest.mark.parametrize(
    ("rate", "each", "goes_on"),
    [
        (RATE, 1, False), (RATE, RATE - 1, False), (RATE, RATE + 1, True), (1000, 999, False), (1000, 1001, True),
        (0, 1, True),
    ],
    ids=["an octet", "too little", "enough", "too little, set", "enough, set", "no rate"],
)  # fmt: skip
@in_loop
async def test_stream_whose_window_is_opened_a_little_at_a_time(rate: int, each: int, goes_on: bool) -> None:
    peer = Peer(sized(), settings=SHUT, keep_alive_timeout=LONG, **({"min_write_rate": rate} if rate != RATE else {}))
    peer.open_window(0, 2**20)
    peer.headers(1)
    await peer.settle()

    def let(_: int) -> None:
        if not peer.resets(1):
            peer.open_window(1, each)

    await pass_time(peer, 4 * TIMEOUT, let)
    assert peer.resets(1) == ([] if goes_on else [ErrorCode.CANCEL])
    assert (peer.goaways(), len(peer.service.tasks)) == ([], int(goes_on))
    assert peer.service.counts.get("write_timeout", 0) == int(not goes_on)
    peer.lose()
    await peer.settle()


@pytest.mark.parametrize(("each", "goes_on"), [(1, False), (RATE - 1, False), (RATE + 1, True)])
@in_loop
async def test_connection_whose_window_is_opened_a_little_at_a_time(each: int, goes_on: bool) -> None:
    peer = Peer(sized(), settings=WIDE)
    peer.headers(1)
    peer.headers(3)
    await peer.settle()

    def let(_: int) -> None:
        if not peer.goaways():
            peer.open_window(0, each)

    await pass_time(peer, 4 * TIMEOUT, let)
    assert peer.goaways() == ([] if goes_on else [(3, ErrorCode.NO_ERROR)])
    assert len(peer.service.tasks) == (2 if goes_on else 0)
    peer.lose()
    await peer.settle()


@in_loop
async def test_stream_that_waits_for_one_window_and_then_for_the_other() -> None:
    """Whichever is looked at is the open one: what counts is how little of the answer passes."""
    peer = Peer(sized(), settings={Setting.INITIAL_WINDOW_SIZE: 65_535})
    peer.headers(1)
    await peer.settle()

    def let(number: int) -> None:
        # One octet passes with every second; after it the window of the stream is shut, or that of the connection.
        if not peer.resets(1):
            peer.open_window(number % 2, 1)

    for start in range(4):
        await pass_time(peer, TIMEOUT - 1, let)
        peer.after((start + 1) * TIMEOUT + 1)
        await peer.settle()
    assert peer.resets(1) == [ErrorCode.CANCEL] or peer.goaways()
    assert not peer.service.tasks


@in_loop
async def test_window_that_was_open_for_a_while_saves_no_time() -> None:
    peer = Peer(sized(), settings=SHUT)
    peer.headers(1)
    await peer.settle()
    peer.open_window(0, 2**20)
    peer.open_window(1, 2**20)
    await peer.settle()
    peer.after(TIMEOUT + 1)
    assert not peer.resets(1)
    peer.open_window(1, 10)
    await peer.settle()
    peer.after(2 * TIMEOUT + 1)
    await peer.settle()
    assert peer.resets(1) == [ErrorCode.CANCEL]


@in_loop
async def test_stream_that_waits_for_its_turn_is_not_given_up() -> None:
    """All that the peer takes goes to a more urgent one."""
    peer = Peer(sized(), settings=WIDE)
    peer.headers(1, request(b"GET", b"/", (b"priority", b"u=0")))
    peer.headers(3, request(b"GET", b"/", (b"priority", b"u=7")))
    await peer.settle()
    taken = len(peer.body(3))
    await pass_time(peer, 4 * TIMEOUT, lambda _: peer.open_window(0, 2 * RATE))
    assert (peer.resets(), peer.goaways(), len(peer.service.tasks)) == ([], [], 2)
    assert len(peer.body(3)) == taken
    peer.lose()
    await peer.settle()


@in_loop
async def test_stream_of_a_slow_application_is_not_given_up() -> None:
    """It has nothing to send for hours, and what it had has passed."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    peer = Peer(app, settings=SHUT)
    peer.headers(1)
    await peer.settle()
    peer.open_window(1, 1000)
    await peer.settle()
    for seconds in range(30, 4000, 30):
        peer.after(seconds)
    assert (peer.resets(), len(peer.body(1)), len(peer.service.tasks)) == ([], 1000, 1)
    peer.lose()
    await peer.settle()


@in_loop
async def test_others_go_on_when_a_stream_is_given_up() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/large":
            await sized()(scope, receive, send)
        else:
            await say(send, b"small")

    peer = Peer(app, settings={Setting.INITIAL_WINDOW_SIZE: 1000}, keep_alive_timeout=LONG)
    peer.headers(1, request(path=b"/large"))
    await peer.settle()
    await pass_time(peer, 2 * TIMEOUT, lambda _: None)
    assert peer.resets(1) == [ErrorCode.CANCEL]
    peer.headers(3, request(path=b"/small"))
    await peer.settle()
    assert (peer.body(3), peer.ended(3)) == (b"small", True)


@in_loop
async def test_peer_that_takes_little_from_the_transport_is_given_up() -> None:
    """Its windows are open; the bytes wait below HTTP/2."""
    peer = Peer(sized(), settings=WIDE)
    peer.open_window(0, 2**30)
    peer.transport.stall()
    peer.headers(1)
    await peer.settle()
    peer.transport.take(LEAST)
    peer.after(TIMEOUT + 1)
    assert not peer.closed
    peer.transport.take(LEAST - 1)
    peer.after(2 * TIMEOUT + 1)
    await peer.settle()
    assert (peer.closed, peer.was_reset, peer.service.tasks) == (True, True, {})
    assert not peer.of(Kind.GOAWAY)
