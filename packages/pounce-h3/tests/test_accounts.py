"""What is counted against a client: requests that it gives up, and the memory that its heads take."""

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.conformance.h3 import literal_section
from tests.conformance.wires import answer, read_body

from pounce.exchange.budget import Budget
from pounce.exchange.huffman import HuffmanDecoder
from pounce.worker.ticker import Ticker
from pounce_h3.codes import H3_EXCESSIVE_LOAD, H3_REQUEST_CANCELLED, H3_REQUEST_REJECTED
from pounce_h3.engine import QuicError, QuicEvent, StopSending, StreamData, StreamReset
from pounce_h3.frames import HEADERS, frame, frame_head
from pounce_h3.heads import HEAD_MEMORY
from pounce_h3.qpack_decode import FieldDecoder
from pounce_h3.streams import RESETS_MAX

from .scripted import ScriptedConnection

REQUEST = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", b"/")]
GET = literal_section(REQUEST)
CANCEL = H3_REQUEST_CANCELLED
ANSWERS = FieldDecoder(0, 0, 65536, 100, HuffmanDecoder(), Budget("", 1, 1, lambda: 0.0, QuicError))
"""Reads answers, which use no table."""


def in_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test in a loop whose clock stands still: no budget grows by itself."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def with_a_clock() -> None:
            loop = asyncio.get_running_loop()
            now = loop.time()
            loop.time = lambda: now  # type: ignore[method-assign]
            await test(*args, **kwargs)

        asyncio.run(with_a_clock())

    return run


async def settle() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


class Client(ScriptedConnection):
    """A client that asks and gives up; it grants nothing, so that streams are there until it says more."""

    def __init__(self, app: Any, **settings: Any) -> None:
        super().__init__(app, **settings)
        self.quic.credit = {}

    async def ask_and_give_up(self, *events: type[StreamReset], body: bool = False) -> None:
        """One request, and after it was taken up each of these, with a datagram of its own."""
        stream_id = self.ask(GET, not body)
        await settle()
        for event in events:
            self.feed(event(stream_id, CANCEL))
        await settle()

    @property
    def code(self) -> int | None:
        """What the connection was closed with."""
        return None if self.quic.closed is None else self.quic.closed[0]


async def streaming(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"x", "more_body": True})
    await silent(scope, receive, send)


async def silent(scope: Any, receive: Any, send: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"hello")


# Requests that are given up


BOTH_HALVES = pytest.mark.parametrize(
    "events", [(StreamReset, StopSending), (StopSending, StreamReset)], ids=["reset first", "stop first"]
)


@BOTH_HALVES
@pytest.mark.parametrize("body", [False, True], ids=["complete", "in mid-body"])
@pytest.mark.parametrize("app", [silent, streaming])
@in_loop
async def test_request_whose_both_halves_are_given_up_counts_once(app: Any, body: bool, events: Any) -> None:
    client = Client(app)
    for _ in range(RESETS_MAX):
        await client.ask_and_give_up(*events, body=body)
    assert client.code is None
    await client.ask_and_give_up(*events, body=body)
    assert client.code == H3_EXCESSIVE_LOAD


@BOTH_HALVES
@in_loop
async def test_request_that_was_answered_does_not_count(events: Any) -> None:
    """Though its answer has not left."""
    client = Client(hello)
    for _ in range(2 * RESETS_MAX):
        await client.ask_and_give_up(*events)
    assert client.code is None
    served = client.ask(GET)
    await settle()
    assert client.answer(served)[1] == b"hello"


@in_loop
async def test_request_that_is_given_up_as_it_arrives_counts_once() -> None:
    client = Client(hello)
    for number in range(RESETS_MAX + 1):
        assert client.code is None
        stream = 4 * number
        client.feed(StreamData(stream, frame(HEADERS, GET), True), StopSending(stream, CANCEL))
        client.feed(StreamReset(stream, CANCEL))
        await settle()
    assert client.code == H3_EXCESSIVE_LOAD


@in_loop
async def test_two_requests_that_are_answered_make_up_for_one_that_is_given_up() -> None:
    client = Client(lambda scope, *rest: (silent if scope["path"] == "/silent" else hello)(scope, *rest))
    silently = literal_section([*REQUEST[:3], (b":path", b"/silent")])
    for _ in range(RESETS_MAX + 20):
        for section in (GET, GET, silently):
            stream = client.ask(section)
        await settle()
        client.feed(StreamReset(stream, CANCEL))
        client.feed(StopSending(stream, CANCEL))
    assert client.code is None


# Memory of heads


def check(client: Client) -> None:
    """What is held is what its streams hold, and no more than there may be."""
    streams = client.h3.streams.open.values()
    assert client.h3.heads.memory == sum(stream.held_head for stream in streams)
    assert client.h3.heads.memory <= client.h3.heads.memory_max


@in_loop
async def test_heads_that_are_not_complete_take_no_more_memory_than_they_may() -> None:
    client = Client(hello)
    size = client.service.config.max_header_size
    begun = frame_head(HEADERS, size + 1) + bytes(size - 100)
    for number in range(100):
        client.feed(StreamData(4 * number, begun, False))
        await settle()
        check(client)
    assert set(client.quic.resets.values()) == {H3_REQUEST_REJECTED}
    assert list(client.quic.resets) == [4 * number for number in range(HEAD_MEMORY, 100)]
    assert client.service.counts["h3_head_memory"] == 100 - HEAD_MEMORY


@in_loop
async def test_heads_of_requests_that_run_take_no_more_memory_than_they_may() -> None:
    client = Client(silent)
    size = client.service.config.max_header_size
    section = literal_section([*REQUEST, (b"x-a", b"a" * (size - 100))])
    for _ in range(100):
        client.ask(section)
        await settle()
        check(client)
    assert len(client.service.tasks) == HEAD_MEMORY
    for stream in range(0, 4 * HEAD_MEMORY, 4):
        client.feed(StreamReset(stream, CANCEL), StopSending(stream, CANCEL))
    await settle()
    for stream in range(4 * HEAD_MEMORY, 400, 4):
        client.feed(StopSending(stream, CANCEL))
    assert client.code is None
    check(client)
    assert client.h3.heads.memory == 0


@in_loop
async def test_short_references_to_a_large_entry_count_for_what_they_mean() -> None:
    client = Client(silent)
    size = client.service.config.max_header_size
    client.instruct(b"\x3f\xe1\x1f" + b"\x41a\x7f\x81\x0f" + b"v" * 2048)
    section = b"\x02\0" + GET[2:] + b"\x80" * (size // 2049 - 1)
    for _ in range(100):
        client.ask(section)
        await settle()
        check(client)
    assert len(client.service.tasks) == HEAD_MEMORY * size // (2049 * (size // 2049 - 1) + 100)


@in_loop
async def test_memory_of_heads_is_right_after_any_conversation() -> None:
    rng = random.Random(8)
    for _ in range(20):
        client = Client(rng.choice([silent, hello, streaming]), max_header_size=2048)
        client.instruct(b"\x3f\xe1\x1f")
        entries = 0
        for number in range(60):
            stream, events = 4 * number, list[QuicEvent]()
            section = literal_section([*REQUEST, (b"x-a", bytes(rng.choices(b"ab", k=rng.choice([1, 500, 1800]))))])
            if not rng.randrange(3):
                # It needs an entry that may not be there yet.
                section = bytes((entries + 2, 0)) + section[2:] + b"\x80"
            data = frame(HEADERS, section)
            at = rng.randrange(len(data))
            events.append(StreamData(stream, data[:at], False))
            if rng.randrange(4):
                events.append(StreamData(stream, data[at:], True))
            if not rng.randrange(3):
                client.instruct(b"\x41a\x01b")
                entries += 1
            if not rng.randrange(4):
                given_up = 4 * rng.randrange(number + 1)
                events += [StreamReset(given_up, CANCEL), StopSending(given_up, CANCEL)]
            client.feed(*events)
            await asyncio.sleep(0)
            if client.code is not None:
                break
            check(client)
        client.h3.abort()
        await settle()
        assert not client.service.tasks


# Octets


@in_loop
async def test_octets_above_ascii_pass_in_both_directions() -> None:
    value = bytes(range(0x80, 0x100))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive)
        await answer(send, b"", 200, [field for field in scope["headers"] if field[0] == b"x-lat"])

    client = ScriptedConnection(app)
    stream = client.ask(literal_section([*REQUEST, (b"x-lat", value)]))
    await settle()
    [section], _ = client.answer(stream)
    assert (b"x-lat", value) in ANSWERS.decode(0, section)[0]


@in_loop
async def test_answer_with_a_large_field_ends_nothing_else() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"done", 200, [(b"set-cookie", b"s=" + b"y" * 60_000)] if scope["path"] == "/" else [])

    client = ScriptedConnection(app)
    streams = [client.ask(section) for section in (GET, literal_section([*REQUEST[:3], (b":path", b"/b")]), GET)]
    await settle()
    assert [client.answer(stream)[1] for stream in streams] == [b"done"] * 3


# Time


@in_loop
async def test_body_of_no_bytes_whose_end_comes_later_has_the_time_of_any_body() -> None:
    told: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive)
        told.append((await receive())["type"])

    client = ScriptedConnection(app)
    client.ask(literal_section([*REQUEST, (b"content-length", b"0")]), end=False)
    await settle()
    Ticker(client.service).sweep(client.service.loop.time() + 1)
    await settle()
    assert told == []
    assert client.quic.written.keys().isdisjoint({0})
    client.h3.abort()
    await settle()
    assert told == ["http.disconnect"]


@in_loop
async def test_packets_that_were_lost_are_counted_when_their_connection_is_forgotten() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    client = ScriptedConnection(app)
    client.quic.lost_packets = 3
    client.h3.forgotten()
    await settle()
    assert (client.service.counts["h3_packets_lost"], client.service.counts["tls_handshakes"]) == (3, 1)
