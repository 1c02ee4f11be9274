"""A connection's share of a turn of the loop, and what wires of every kind get of it from their base."""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pounce.contract.turns import STEPS, Share, Turns
from pounce.net.connection import LONG_READ, Connection
from pounce.plugin import READ_STEPS, Service, Wire, coroutine_wire
from pounce.testing import MemoryConnection


def in_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))  # type: ignore[arg-type]

    return run


async def app(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("nothing here calls the application")


# Shares


@in_loop
async def test_one_share_is_renewed_in_each_turn() -> None:
    turns = Turns()
    shares = [Share(turns) for _ in range(3)]
    happened: list[int] = []
    for number, share in enumerate(shares):
        share.left = 0
        share.later(functools.partial(happened.append, number))
    for expected in ([0], [0, 1], [0, 1, 2], [0, 1, 2]):
        await asyncio.sleep(0)
        assert happened == expected
    assert [share.left for share in shares] == [STEPS] * 3
    assert not any(share.waits for share in shares)


@in_loop
async def test_who_waits_again_waits_behind_the_others() -> None:
    turns = Turns()
    happened: list[str] = []

    def go_on(share: Share, name: str, times: int) -> None:
        happened.append(name)
        share.left = 0
        if times > 1:
            share.later(functools.partial(go_on, share, name, times - 1))

    for name in "ab":
        share = Share(turns)
        share.later(functools.partial(go_on, share, name, 3))
    for _ in range(6):
        await asyncio.sleep(0)
    assert happened == ["a", "b", "a", "b", "a", "b"]


@in_loop
async def test_those_who_wait_on_one_share_go_on_in_order_as_far_as_it_goes() -> None:
    share = Share(Turns())
    happened: list[int] = []

    def go_on(number: int) -> None:
        happened.append(number)
        share.left -= STEPS // 2

    for number in range(5):
        share.later(functools.partial(go_on, number))
    for expected in ([0, 1], [0, 1, 2, 3], [0, 1, 2, 3, 4]):
        await asyncio.sleep(0)
        assert happened == expected


@in_loop
async def test_what_one_raises_keeps_nobody_from_its_turn() -> None:
    failures: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["exception"]))
    turns = Turns()
    first, second = Share(turns), Share(turns)
    happened: list[str] = []
    first.later(lambda: 1 / 0)
    first.later(functools.partial(happened.append, "first"))
    second.later(functools.partial(happened.append, "second"))
    for _ in range(4):
        await asyncio.sleep(0)
    assert sorted(happened) == ["first", "second"]
    assert [type(failure) for failure in failures] == [ZeroDivisionError]


@in_loop
async def test_a_share_that_is_waited_for_is_not_renewed_by_what_arrives() -> None:
    share = Share(Turns())
    share.left = -5
    share.begin()
    assert share.left == STEPS
    share.left = -5
    share.later(lambda: None)
    share.begin()
    assert share.left == -5


@in_loop
async def test_spending_waits_only_when_nothing_is_left() -> None:
    share = Share(Turns())
    await share.spend(STEPS - 1)
    assert not share.waits
    waiting = asyncio.ensure_future(share.spend(10))
    cancelled = asyncio.ensure_future(share.spend(10))
    await asyncio.sleep(0)
    assert share.waits and not waiting.done()
    cancelled.cancel()
    await waiting
    assert share.left == STEPS - 20
    assert cancelled.cancelled()


# Wires of others


class Lines(Connection):
    """Answers each line; a wire as `docs/plugins.md` tells to write it."""

    def __init__(self, service: Service) -> None:
        super().__init__(service, "lines")
        self.buffer = b""
        self.ended = False

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self.next_turn()

    def next_turn(self) -> None:
        while self.share.left > 0:
            line, found, rest = self.buffer.partition(b"\n")
            if not found:
                return
            self.buffer = rest
            self.send(line.upper() + b"\n")
            self.share.left -= 1
        self.park()

    def eof_received(self) -> None:
        super().eof_received()
        self.ended = True
        self.close()


LINES = Wire(name="lines", connect=Lines)


@in_loop
async def test_wire_that_parks_goes_on_in_the_next_turn() -> None:
    connection = MemoryConnection(app, wire=LINES)
    connection.feed(b"x\n" * 1000)
    done = [0]
    while connection.protocol.held_since:
        done.append(connection.received.count(b"\n"))
        assert done[-1] - done[-2] <= STEPS
        assert not connection.transport.reading
        await asyncio.sleep(0)
    assert connection.received == b"X\n" * 1000
    assert connection.transport.reading


@in_loop
async def test_end_of_tls_gives_a_wire_that_holds_bytes_one_more_share() -> None:
    connection = MemoryConnection(app, wire=LINES)
    connection.feed(b"x\n" * 500)
    assert connection.received.count(b"\n") == STEPS
    connection.feed_eof()
    assert connection.received.count(b"\n") == 500
    await connection.settle()
    assert connection.closed


@in_loop
async def test_wire_that_fails_in_a_later_turn_is_closed_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Lines):
        turns = 0

        def next_turn(self) -> None:
            self.turns += 1
            if self.turns == 2:
                raise RuntimeError("a bug")
            super().next_turn()

    connection = MemoryConnection(app, wire=Wire(name="failing", connect=Failing))
    connection.feed(b"x\n" * 1000)
    await connection.settle()
    assert connection.closed
    assert "Plugin lines failed on a connection" in caplog.text


@in_loop
async def test_wire_that_knows_nothing_of_turns_rests_after_a_long_read() -> None:
    class Counting(Connection):
        def data_received(self, data: bytes) -> None:
            self.send(b"%d\n" % len(data))

    connection = MemoryConnection(app, wire=Wire(name="counting", connect=Counting))
    connection.feed(bytes(LONG_READ))
    assert connection.transport.reading
    connection.feed(bytes(LONG_READ + 1))
    assert not connection.transport.reading
    # Nothing of what has come waits here, so deadlines go on.
    assert not connection.protocol.held_since
    connection.feed(b"more")
    await connection.settle()
    assert connection.received == b"131072\n131073\n4\n"


@in_loop
async def test_protocol_that_has_paused_its_transport_is_not_resumed() -> None:
    class Pausing(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport: Any = transport

        def data_received(self, data: bytes) -> None:
            self.transport.pause_reading()

    connection = MemoryConnection(app, wire=Wire(name="pausing", connect=lambda service: Pausing()))
    connection.feed(bytes(LONG_READ + 1))
    await connection.settle()
    assert not connection.transport.reading


@in_loop
async def test_coroutine_that_reads_line_by_line_leaves_others_their_turn() -> None:
    seen = 0

    async def handle(service: Service, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        while await reader.readline():
            seen += 1
        writer.write(b"%d" % seen)

    connection = MemoryConnection(app, wire=Wire(name="reading", connect=coroutine_wire(handle)))
    connection.feed(b"\n" * 1000)
    turns = []
    while seen < 1000:
        before = seen
        await asyncio.sleep(0)
        turns.append(seen - before)
    assert max(turns) <= STEPS // READ_STEPS + 1
    connection.feed_eof()
    await connection.settle()
    assert connection.received == b"1000"


@in_loop
async def test_reading_is_the_successors_business_after_a_hand_over() -> None:
    class Handing(Connection):
        def data_received(self, data: bytes) -> None:
            self.pause_reading()
            self.park()
            successor = self.hand_over(Lines(self.service), "lines")
            assert isinstance(successor, Lines)
            successor.data_received(data)

    connection = MemoryConnection(app, wire=Wire(name="handing", connect=Handing))
    connection.feed(b"x\n" * 500)
    await connection.wait_until(lambda: connection.received.count(b"\n") == 500)
    connection.feed(b"y\n")
    await connection.settle()
    assert connection.received == b"X\n" * 500 + b"Y\n"
