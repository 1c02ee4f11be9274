"""Peers that take little of what they asked for: `write_timeout` and `min_write_rate` on streams of QUIC.

The engine is the test's own, which says what leaves, and the clock stands still: `pass_time` does what is due.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pounce.testing.memory import memory_service
from pounce.worker.ticker import Ticker
from pounce_h3.codes import H3_REQUEST_CANCELLED
from pounce_h3.connection import AHEAD_MAX, H3Connection
from pounce_h3.engine import Connected, QuicEvent, StreamData
from pounce_h3.frames import HEADERS, frame

RATE, TIMEOUT = 240, 30.0
MUCH = 10_000_000


def in_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))  # type: ignore[arg-type]

    return run


class Fields:
    """A codec for fields that come as `name=value` lines."""

    pending = False
    generation = 0

    def answer(self, status: int, headers: Any, length: int | None) -> tuple[bytes, bytes | None]:
        more = [] if length is None else [(b"content-length", b"%d" % length)]
        return self.encode([(b":status", b"%d" % status), *headers, *more]), None

    def encode(self, fields: Any) -> bytes:
        return b"\n".join(name + b"=" + value for name, value in fields)

    def decode(self, stream_id: int, section: bytes) -> tuple[Any, int]:
        return [tuple(line.split(b"=", 1)) for line in section.split(b"\n")], len(section)

    def without_path(self, section: bytes) -> None: ...

    def acknowledge(self, stream_id: int) -> None: ...

    def cancel(self, stream_id: int) -> None: ...

    def settings(self, *args: int) -> bytes:
        return b""


class Quic:
    """An engine of which the test says what leaves: `credit` is what the peer still grants each stream, and `room` what
    the network takes before it is congested."""

    timer = None
    peer = ("192.0.2.1", 50000)
    is_over = False

    def __init__(self) -> None:
        self.room = 1 << 40
        self.happened: list[QuicEvent] = []
        self.waiting: dict[int, bytearray] = {}
        self.left: dict[int, int] = {}
        self.credit: dict[int, int] = {}
        self.resets: dict[int, int] = {}
        self._unidirectional = iter(range(3, 100, 4))

    def events(self) -> list[QuicEvent]:
        happened, self.happened = self.happened, []
        return happened

    def receive(self, *args: Any) -> None: ...

    def write(self, stream_id: int, data: bytes, end: bool) -> None:
        self.waiting.setdefault(stream_id, bytearray()).extend(data)

    @property
    def is_congested(self) -> bool:
        return self.room <= 0

    def unsent(self, stream_id: int) -> int:
        return len(self.waiting.get(stream_id, b""))

    @property
    def unacknowledged(self) -> int:
        return sum(map(len, self.waiting.values()))

    def datagrams_to_send(self, now: float) -> list[Any]:
        sent = 0
        for stream_id, waiting in self.waiting.items():
            count = len(waiting)
            if stream_id & 3 == 0:
                count = min(count, self.credit.get(stream_id, 0), self.room)
                self.credit[stream_id] = self.credit.get(stream_id, 0) - count
                self.room -= count
            del waiting[:count]
            self.left[stream_id] = self.left.get(stream_id, 0) + count
            sent += count
        return [(b"", self.peer)] if sent else []

    def open_stream(self) -> int:
        return next(self._unidirectional)

    def reset(self, stream_id: int, code: int) -> None:
        self.resets[stream_id] = code
        self.waiting.pop(stream_id, None)

    def stop(self, stream_id: int, code: int) -> None: ...

    def close(self, code: int, reason: str) -> None:
        self.is_over = True

    def hold(self, on: bool) -> None: ...

    def release(self) -> None: ...


class Endpoint:
    local = ("192.0.2.2", 443)

    class engine:
        @staticmethod
        def codec(*args: int) -> Fields:
            return Fields()

    def send(self, datagrams: Any) -> None: ...

    def forget(self, connection: Any) -> None: ...

    def validated(self, connection: Any) -> None: ...


class Peer:
    """A connection whose peer is the test."""

    def __init__(self, app: Any, **settings: Any) -> None:
        self.service = memory_service(app, **settings)
        self.quic = Quic()
        self.h3 = H3Connection(self.service, Endpoint(), self.quic, set())  # type: ignore[arg-type]
        self._ticker = Ticker(self.service)
        self.receive(Connected("h3", None, None))

    def receive(self, *events: QuicEvent) -> None:
        self.quic.happened += events
        self.h3.receive([], self.quic.peer)

    def get(self, stream_id: int, priority: bytes = b"u=3") -> None:
        section = b":method=GET\n:scheme=https\n:authority=a\n:path=/\npriority=" + priority
        self.receive(StreamData(stream_id, frame(HEADERS, section), True))

    def grant(self, stream_id: int, count: int) -> None:
        """Credit for so many bytes of a stream more."""
        self.quic.credit[stream_id] = self.quic.credit.get(stream_id, 0) + count
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
    peer.quic.credit |= {0: MUCH, 4: MUCH, 8: MUCH}
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
    peer.quic.credit[0] = MUCH
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
    peer.quic.credit |= {0: MUCH, 4: MUCH}
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
    peer.quic.credit[4] = MUCH
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
