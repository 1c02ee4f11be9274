"""Peers that take little of what they asked for: `write_timeout` and `min_write_rate` on streams of QUIC.

The engine is the test's own, which says what leaves, and the clock stands still: `pass_time` does what is due.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.conformance.h3 import literal_section

from pounce.worker.ticker import Ticker
from pounce_h3.codes import H3_REQUEST_CANCELLED
from pounce_h3.output import AHEAD_MAX

from .scripted import ScriptedConnection

RATE, TIMEOUT = 240, 30.0
MUCH = 10_000_000
REQUEST = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", b"/")]


def in_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))  # type: ignore[arg-type]

    return run


class Peer(ScriptedConnection):
    """A connection whose peer grants nothing but what the test says."""

    def __init__(self, app: Any, **settings: Any) -> None:
        super().__init__(app, **settings)
        self.credit: dict[int, int] = {}
        self.quic.credit = self.credit
        self._ticker = Ticker(self.service)

    def get(self, stream_id: int, priority: bytes = b"u=3") -> None:
        assert self.ask(literal_section([*REQUEST, (b"priority", priority)])) == stream_id

    def grant(self, stream_id: int, count: int) -> None:
        """Credit for so many bytes of a stream more."""
        self.credit[stream_id] = self.credit.get(stream_id, 0) + count
        self.receive()

    def make_room(self, count: int) -> None:
        """The network has brought something to the peer, and takes so many bytes more."""
        self.quic.room = count
        self.receive()

    async def until(self, true: Callable[[], bool]) -> None:
        for _ in range(10_000):
            if true():
                return
            await asyncio.sleep(0)
        raise TimeoutError("it did not happen")

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    def after(self, seconds: float) -> None:
        self._ticker.sweep(self.service.loop.time() + seconds)

    async def end(self) -> None:
        self.h3.abort()
        await self.settle()


class Time:
    """The clock of a loop, which the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.now = 1000.0

    def hold(self) -> None:
        self._monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: self.now)

    async def go_by(self, peer: Peer, seconds: float, does: Callable[[], None] = lambda: None) -> None:
        """So many seconds, in each of which the peer does something."""
        for _ in range(int(seconds)):
            does()
            await peer.settle()
            self.now += 1.0
            peer.after(0.0)
            await peer.settle()


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


def sized(size: int = MUCH) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        for _ in range(size // 10_000):
            await send({"type": "http.response.body", "body": b"x" * 10_000, "more_body": True})
        await send({"type": "http.response.body"})

    return app


@pytest.mark.parametrize(
    ("rate", "each", "goes_on"),
    [(RATE, 1, False), (RATE, RATE - 1, False), (RATE, RATE + 1, True), (1000, 999, False), (1000, 1100, True),
     (0, 1, True)],
    ids=["a byte", "too little", "enough", "too little, set", "enough, set", "no rate"],
)  # fmt: skip
@in_loop
async def test_stream_that_is_granted_a_little_at_a_time(rate: int, each: int, goes_on: bool, time: Time) -> None:
    time.hold()
    peer = Peer(sized(), **({"min_write_rate": rate} if rate != RATE else {}))
    peer.get(0)
    await peer.settle()
    await time.go_by(peer, 4 * TIMEOUT, lambda: peer.grant(0, each))
    assert peer.quic.resets == ({} if goes_on else {0: H3_REQUEST_CANCELLED})
    assert len(peer.service.tasks) == int(goes_on)
    assert peer.service.counts.get("write_timeout", 0) == int(not goes_on)
    await peer.end()


@in_loop
async def test_stream_that_is_granted_nothing_is_given_up_after_write_timeout(time: Time) -> None:
    time.hold()
    peer = Peer(sized())
    peer.get(0)
    await time.go_by(peer, TIMEOUT - 1)
    assert not peer.quic.resets
    await time.go_by(peer, 2)
    assert peer.quic.resets == {0: H3_REQUEST_CANCELLED}
    assert not peer.service.tasks
    await peer.end()


@pytest.mark.parametrize("each", [0, 1, RATE + 1])
@pytest.mark.parametrize("size", [300, 16_000, 16_385, 60_000, 200_000])
@in_loop
async def test_answer_that_was_given_in_one_piece_has_the_same_time(size: int, each: int, time: Time) -> None:
    """Whatever of it the engine has; and it counts among what waits."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": bytes(size)})

    time.hold()
    peer = Peer(app)
    peer.get(0)
    await peer.settle()
    peer.grant(0, 50)
    assert peer.h3.buffered >= size - 50
    await time.go_by(peer, 2 * TIMEOUT, lambda: peer.grant(0, each))
    goes_on = each > RATE
    assert peer.quic.resets == ({} if goes_on else {0: H3_REQUEST_CANCELLED})
    assert peer.service.counts.get("write_timeout", 0) == int(not goes_on)
    if goes_on:
        peer.grant(0, MUCH)
        await time.go_by(peer, 2 * TIMEOUT)
    assert not peer.quic.resets or not goes_on
    assert not peer.service.tasks
    await peer.end()


@in_loop
async def test_answer_over_which_the_engine_fails_is_forgotten_and_costs_no_other(
    time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": bytes(1000)})

    time.hold()
    peer = Peer(app)
    peer.get(0)
    await peer.settle()
    assert peer.h3.buffered >= 1000
    peer.quic.fails["unsent"] = RuntimeError("on purpose")
    assert peer.h3.buffered == 0
    assert "on purpose" in caplog.text
    await time.go_by(peer, 2 * TIMEOUT)
    del peer.quic.fails["unsent"]
    assert peer.quic.closed is None
    peer.get(4)
    await peer.settle()
    peer.grant(4, MUCH)
    assert len(peer.quic.written[4]) == peer.quic.left[4] >= 1000
    await peer.end()


@in_loop
async def test_last_bytes_of_an_answer_have_the_same_time(time: Time) -> None:
    time.hold()
    peer = Peer(sized(100_000))
    peer.get(0)
    await peer.settle()
    peer.grant(0, 50_000)
    await peer.settle()
    await time.go_by(peer, 3 * TIMEOUT, lambda: peer.grant(0, 1))
    assert peer.quic.resets == {0: H3_REQUEST_CANCELLED}
    await peer.end()


@in_loop
async def test_streams_that_share_a_slow_network_are_not_given_up(time: Time) -> None:
    """Each of them gets less than the rate, and the peer takes enough."""
    time.hold()
    peer = Peer(sized())
    peer.credit |= {0: MUCH, 4: MUCH, 8: MUCH}
    peer.quic.room = 0
    for stream_id in (0, 4, 8):
        peer.get(stream_id, b"i")
    await peer.settle()
    await time.go_by(peer, 6 * TIMEOUT, lambda: peer.make_room(RATE + 10))
    assert (peer.quic.resets, len(peer.service.tasks)) == ({}, 3)
    await peer.end()


@in_loop
async def test_peer_of_a_network_that_takes_nothing_any_more_is_given_up(time: Time) -> None:
    time.hold()
    peer = Peer(sized())
    peer.credit[0] = MUCH
    peer.quic.room = 100_000
    peer.get(0)
    await peer.settle()
    assert peer.quic.left[0] == 100_000
    await time.go_by(peer, 3 * TIMEOUT)
    assert peer.quic.resets == {0: H3_REQUEST_CANCELLED}
    await peer.end()


@in_loop
async def test_stream_that_waits_for_its_turn_is_not_given_up(time: Time) -> None:
    """What is more urgent takes all that leaves."""
    time.hold()
    peer = Peer(sized())
    peer.credit |= {0: MUCH, 4: MUCH}
    peer.quic.room = 0
    peer.get(0, b"u=0")
    peer.get(4, b"u=7")
    await peer.settle()
    await time.go_by(peer, 4 * TIMEOUT, lambda: peer.make_room(2 * RATE))
    assert (peer.quic.resets, len(peer.service.tasks), peer.quic.left.get(4, 0)) == ({}, 2, 0)
    await peer.end()


@in_loop
async def test_stream_that_nobody_reads_keeps_no_other_waiting(time: Time) -> None:
    """A paused film, with more in the engine than may be there of all that wait; then the rest of the page."""
    time.hold()
    peer = Peer(sized(400_000))
    peer.get(0)
    await peer.settle()
    assert peer.quic.unsent(0) >= AHEAD_MAX
    peer.credit[4] = MUCH
    peer.get(4)
    await peer.until(lambda: peer.quic.left[4] > 400_000 and len(peer.service.tasks) == 1)
    peer.grant(0, MUCH)
    await peer.until(lambda: peer.quic.left[0] > 400_000 and not peer.service.tasks)
    await peer.end()


@in_loop
async def test_stream_of_a_slow_application_is_not_given_up(time: Time) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    time.hold()
    peer = Peer(app)
    peer.get(0)
    await time.go_by(peer, 10 * TIMEOUT)
    assert (peer.quic.resets, len(peer.service.tasks)) == ({}, 1)
    await peer.end()


# Requests that take long


@pytest.mark.parametrize(("interval", "pings"), [(10.0, 3), (0.0, 0)])
@in_loop
async def test_connection_on_which_a_request_runs_is_kept_open(time: Time, interval: float, pings: int) -> None:
    time.hold()
    done = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await done.wait()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    peer = Peer(app, http3_ping_interval=interval)
    peer.get(0)
    await time.go_by(peer, 35)
    assert peer.quic.pings == pings
    peer.grant(0, 1000)
    done.set()
    await time.go_by(peer, 35)
    assert peer.quic.pings == pings
    await peer.end()
