"""Answers whose body is all there with their head go a way of their own: nobody can tell."""

import asyncio
import random
from collections.abc import Iterator
from typing import Any

import pytest

from pounce.config import ServerConfig
from pounce.exchange.http import HttpExchange
from pounce.exchange.response_headers import ResponseHeaders
from pounce.h1.connection import H1Connection
from pounce.testing import MemoryConnection
from pounce.testing.memory import memory_service, observe

TRIALS = 250


def requests(rng: random.Random) -> list[bytes]:
    found = []
    for _ in range(rng.randint(1, 4)):
        method = rng.choice([b"GET", b"GET", b"HEAD", b"POST"])
        fields = [b"Host: a"]
        if rng.random() < 0.15:
            fields.append(rng.choice([b"Connection: close", b"Connection: keep-alive"]))
        body = b"x" * rng.choice([0, 3, 5000]) if method == b"POST" else b""
        if method == b"POST":
            if rng.random() < 0.15:
                fields.append(b"Expect: 100-continue")
            fields.append(b"Content-Length: %d" % len(body))
        version = rng.choice([b"1.1", b"1.1", b"1.1", b"1.0"])
        found.append(b"%b / HTTP/%b\r\n%b\r\n\r\n%b" % (method, version, b"\r\n".join(fields), body))
    return found


class App:
    """Answers in a random way, the same for the same seed, and notes how its calls ended."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self.noted: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        rng = self._rng
        if rng.random() < 0.4:
            await receive()
        if rng.random() < 0.5:
            await asyncio.sleep(0)
        size = rng.choice([0, 1, 13, 4095, 4096, 20_000])
        status = rng.choice([200, 200, 200, 204, 205, 304, 404])
        fields: list[Any] = [(b"x-field", b"v" * rng.choice([5, 5, 5, 5, 9000, 20_000]))]
        if rng.random() < 0.6:
            fields.append((b"content-length", b"%d" % (size if rng.random() < 0.9 else size + 1)))
        if rng.random() < 0.1:
            fields.append((b"connection", b"close"))
        start = {"type": "http.response.start", "status": status, "headers": fields}
        if rng.random() < 0.1:
            start["trailers"] = True
        pieces: list[Any] = [b"b" * size]
        if rng.random() < 0.2:
            pieces = [b"b" * (size // 2), bytearray(b"b" * (size - size // 2))]
        messages: list[dict[str, Any]] = [
            {"type": "http.response.body", "body": piece, "more_body": number + 1 < len(pieces)}
            for number, piece in enumerate(pieces)
        ]
        try:
            await send(start)
            for message in messages:
                await send(message)
            if "trailers" in start:
                await send({"type": "http.response.trailers", "headers": [(b"x-end", b"1")]})
        except Exception as exc:
            self.noted.append(repr(exc))
            raise
        self.noted.append("sent")


class Observer:
    def __init__(self) -> None:
        self.noted: list[Any] = []

    def completed(self, exchange: Any) -> None:
        self.noted.append((exchange.status, exchange.bytes_sent, exchange.broken))


async def outcome(seed: int, known: ResponseHeaders) -> tuple[Any, ...]:
    """All that can be told of some requests and their answers. `known` has the fields of answers before: what was sent
    once is sent faster the next time."""
    rng = random.Random(seed)
    app, observer = App(seed), Observer()
    service = memory_service(app, date_header=False)
    observe(service, observer)
    service.response_headers = known
    connection = MemoryConnection(service=service)
    stalled = rng.random() < 0.3
    if stalled:
        connection.transport.stall()
    for data in requests(rng):
        if rng.random() < 0.1:
            service.draining = True
        connection.feed(data)
        if rng.random() < 0.5:
            await connection.settle()
    if rng.random() < 0.5:
        connection.feed_eof()
    await connection.settle()
    if stalled:
        connection.transport.unstall()
        await connection.settle()
    protocol = connection.protocol
    assert isinstance(protocol, H1Connection)
    state = (protocol.reading, protocol.writing, protocol.writable, connection.transport.is_closing())
    found = (connection.received, state, app.noted, observer.noted, len(service.tasks))
    connection.lose()
    await connection.settle()
    return found


def known() -> ResponseHeaders:
    return ResponseHeaders(ServerConfig(date_header=False))


@pytest.fixture
def the_long_way() -> Iterator[pytest.MonkeyPatch]:
    """With it answers take the way of those that come in pieces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(H1Connection, "start", H1Connection._start)
        patch.setattr(HttpExchange, "_send_body", HttpExchange._send_piece)
        yield patch


def test_whole_answer_is_the_same_as_one_that_is_sent_like_pieces(the_long_way: pytest.MonkeyPatch) -> None:
    long = [asyncio.run(outcome(seed, known())) for seed in range(TRIALS)]
    the_long_way.undo()
    shared = known()
    for _ in range(2):
        assert [asyncio.run(outcome(seed, shared)) for seed in range(TRIALS)] == long


def test_every_answer_after_the_end_of_the_clients_half_says_that_it_is_the_last() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
        await send({"type": "http.response.body", "body": b"x"})

    async def answers() -> list[bytes]:
        service = memory_service(app)
        found = []
        for _ in range(3):
            connection = MemoryConnection(service=service)
            connection.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            connection.feed_eof()
            await connection.settle()
            found.append(connection.received)
        return found

    assert [b"connection: close" in answer for answer in asyncio.run(answers())] == [True] * 3
