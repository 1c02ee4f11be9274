"""max_buffered: what becomes of connections when all of them together hold too much."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pounce.admission.buffers import BufferBudget, Buffers
from pounce.exchange.service import Service
from pounce.testing import MemoryConnection
from pounce.testing.memory import memory_service

LIMIT = 100_000


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))  # type: ignore[arg-type]


async def leaves_bodies(scope: Any, receive: Any, send: Any) -> None:
    """Takes the bodies of those that ask for it, in the end."""
    await scope["state"]["go on"].wait()
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message["body"], message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % len(body)})


def serving(app: Any = leaves_bodies, limit: int = LIMIT) -> Service:
    service = memory_service(app, max_buffered=limit, max_request_size=0)
    service.state["go on"] = asyncio.Event()
    return service


def uploads(service: Service, size: int, whole: int | None = None) -> MemoryConnection:
    """A client that has sent `size` bytes of a body."""
    connection = MemoryConnection(service=service)
    connection.feed(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (whole or size))
    connection.feed(b"a" * size)
    return connection


def later(service: Service, seconds: float) -> None:
    service.tick(service.loop.time() + seconds)


def test_within_the_bound_nobody_notices() -> None:
    async def test() -> None:
        service = serving()
        clients = [uploads(service, 30_000) for _ in range(3)]
        later(service, 0)
        later(service, 5)
        assert [client.transport.is_reading() for client in clients] == [True] * 3
        assert isinstance(service.budget, BufferBudget)
        assert service.budget.held == service.gauges["buffered_bytes"] == 90_000
        service.state["go on"].set()
        await clients[0].settle()
        assert all(client.received.endswith(b"30000") for client in clients)

    run(test)


def test_those_that_hold_most_are_not_read_until_there_is_room() -> None:
    async def test() -> None:
        service = serving()
        small, large = uploads(service, 10_000), uploads(service, 60_000, 60_001)
        middle = uploads(service, 40_000)
        later(service, 0)
        assert [client.transport.is_reading() for client in (small, middle, large)] == [True, True, False]
        service.state["go on"].set()
        await small.settle()
        later(service, 0.25)
        assert large.transport.is_reading()
        large.feed(b"a")
        await large.settle()
        assert large.received.endswith(b"60001")

    run(test)


def test_those_that_hold_most_are_closed_when_there_is_no_room_for_long() -> None:
    async def test() -> None:
        service = serving()
        small, large = uploads(service, 10_000), uploads(service, 60_000, 60_001)
        middle = uploads(service, 40_000)
        later(service, 0)
        later(service, 0.9)
        assert not large.was_reset
        later(service, 1.1)
        assert [client.was_reset for client in (small, middle, large)] == [False, False, True]
        assert service.counts["max_buffered"] == 1
        await small.settle()
        service.state["go on"].set()
        await small.settle()
        assert small.received.endswith(b"10000")
        assert middle.received.endswith(b"40000")

    run(test)


def test_much_more_than_the_bound_is_not_waited_for() -> None:
    async def test() -> None:
        service = serving()
        clients = [uploads(service, 60_000) for _ in range(4)]
        small = uploads(service, 1_000)
        later(service, 0)
        assert [client.was_reset for client in clients].count(True) == 3
        assert not small.was_reset

    run(test)


def test_much_that_comes_at_once_is_seen_before_the_next_tick() -> None:
    async def test() -> None:
        service = serving()
        clients = [uploads(service, 60_000) for _ in range(4)]
        await clients[0].settle()
        assert [client.was_reset for client in clients].count(True) == 3

    run(test)


def test_what_comes_in_one_turn_of_the_loop_stops_above_the_bound() -> None:
    async def test() -> None:
        service = serving()
        clients = [uploads(service, 0, 30_000) for _ in range(10)]
        for client in clients:
            client.feed(b"a" * 30_000)
        unread = [bool(client.transport.unread) for client in clients]
        assert unread == [False] * 5 + [True] * 5
        while any(client.transport.unread for client in clients if not client.was_reset):
            await asyncio.sleep(0)
        await clients[0].settle()
        # One may have been given its second.
        later(service, 2)
        later(service, 3)
        left = [client for client in clients if not client.was_reset]
        assert 1 <= len(left) <= 3
        assert [client.transport.is_reading() for client in left] == [True] * len(left)

    run(test)


def test_answers_that_nobody_reads_count() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a" * int(scope["path"][1:])})

    async def test() -> None:
        service = serving(app)
        clients = []
        for size in (80_000, 90_000, 10_000):
            client = MemoryConnection(service=service)
            client.transport.stall()
            client.feed(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % size)
            clients.append(client)
        await clients[0].settle()
        later(service, 0)
        assert [client.was_reset for client in clients] == [False, True, False]

    run(test)


def test_client_that_has_gone_leaves_nothing_behind_while_its_application_runs() -> None:
    async def test() -> None:
        service = serving()
        client = uploads(service, 60_000, 70_000)
        exchange: Any = client.protocol.exchange  # type: ignore[attr-defined]
        assert sum(map(len, exchange._body)) == 60_000
        client.lose()
        await client.settle()
        assert not exchange._body
        service.state["go on"].set()
        await client.settle()

    run(test)


def test_each_worker_answers_for_its_part_of_what_is_too_much() -> None:
    async def test() -> None:
        buffers = Buffers(LIMIT)
        services = [serving() for _ in range(2)]
        clients = []
        for service in services:
            assert isinstance(service.budget, BufferBudget)
            service.budget._buffers = buffers
            clients.append([uploads(service, 50_000) for _ in range(3)])
        for service in services:
            later(service, 0)
        for service in services:
            later(service, 0.25)
        await clients[0][0].settle()
        left = [sum(not client.was_reset for client in each) for each in clients]
        assert sum(left) * 50_000 <= LIMIT
        assert min(left) >= 1

    run(test)


@pytest.mark.parametrize("first", ["choked", "paused"])
def test_connection_is_read_again_when_both_reasons_have_gone(first: str) -> None:
    async def test() -> None:
        client = uploads(serving(), 10)
        protocol = client.protocol
        for step in ("choked", "paused") if first == "choked" else ("paused", "choked"):
            if step == "choked":
                protocol.choke(True)
            else:
                protocol.pause_reading()
            assert not client.transport.is_reading()
        if first == "choked":
            protocol.choke(False)
            assert not client.transport.is_reading()
            protocol.resume_reading()
        else:
            protocol.resume_reading()
            assert not client.transport.is_reading()
            protocol.choke(False)
        assert client.transport.is_reading()

    run(test)


async def leaves_alone(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/wait":
        await scope["state"]["go on"].wait()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"Hello"})


@pytest.mark.parametrize("next_request", [b"", b"GET /wait HTTP/1.1\r\nHost: h\r\n\r\n"], ids=["idle", "next"])
def test_body_that_was_left_alone_counts_no_more_when_its_request_is_over(next_request: bytes) -> None:
    async def test() -> None:
        service = serving(leaves_alone)
        client = uploads(service, 60_000)
        await client.settle()
        if next_request:
            client.feed(next_request)
        later(service, 5)
        assert service.gauges["buffered_bytes"] == 0

    run(test)
