"""Every installed HTTP/1.1 parser, and the wire around it, against the kits that the server ships."""

import socket
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from pounce.config import ServerConfig
from pounce.contract.head import RequestHead
from pounce.errors import BadRequest
from pounce.h1.plugin import plugin as h1
from pounce.plugin import API_VERSION, EndOfBody, Parser, ParserLimits, Plugin
from pounce.registry import Registry
from pounce.testing import TestServer, check_parser, check_wire

PARSERS = Registry.discover(ServerConfig()).parsers

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(params=list(PARSERS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def create(name: str) -> Callable[[ParserLimits], Parser]:
    return PARSERS[name].create


def test_the_parser_keeps_the_rules_of_every_parser(create: Callable[[ParserLimits], Parser]) -> None:
    assert check_parser(create) > 10_000


def test_the_wire_keeps_the_rules_of_every_wire(name: str) -> None:
    choice = PARSERS[name]
    others = () if choice in h1.parsers else (Plugin(name="chosen", api=API_VERSION, parsers=(choice,)),)
    requests = [
        GET,
        b"GET /old HTTP/1.0\r\n\r\n",
        b"POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        CHUNKED + b"5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"1\r\nx\r\n0\r\nSum: 1\r\n\r\n",
        b"POST /wait HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok",
        b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    ]
    check_wire(h1.wires[0], requests, registry=Registry.of(h1, *others), http_parser=name)


def test_bytes_of_the_next_request_stay_inside_until_asked_for(create: Callable[[ParserLimits], Parser]) -> None:
    parser = create(ParserLimits())
    parser.receive_data(GET + GET)
    assert isinstance(parser.next_event(), RequestHead)
    assert parser.buffered == len(GET)
    assert isinstance(parser.next_event(), RequestHead)
    assert parser.buffered == 0
    assert parser.next_event() is None


def test_the_rest_can_be_taken_over(create: Callable[[ParserLimits], Parser]) -> None:
    parser = create(ParserLimits())
    parser.receive_data(GET + b"\0rest")
    assert isinstance(parser.next_event(), RequestHead)
    assert parser.take_rest() == b"\0rest"
    assert (parser.buffered, parser.take_rest()) == (0, b"")


def test_pieces_of_a_body_are_given_out_as_they_come(create: Callable[[ParserLimits], Parser]) -> None:
    parser = create(ParserLimits())
    parser.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nab")
    assert isinstance(parser.next_event(), RequestHead)
    assert parser.next_event() == b"ab"
    assert parser.next_event() is None
    parser.receive_data(b"cdef" + GET)
    assert parser.next_event() == b"cdef"
    assert isinstance(parser.next_event(), EndOfBody)
    assert isinstance(parser.next_event(), RequestHead)


def test_a_piece_of_a_chunk_is_given_out_before_the_chunk_is_whole(create: Callable[[ParserLimits], Parser]) -> None:
    parser = create(ParserLimits())
    parser.receive_data(CHUNKED + b"ffffff\r\nabc")
    assert isinstance(parser.next_event(), RequestHead)
    assert parser.next_event() == b"abc"
    assert (parser.next_event(), parser.buffered) == (None, 0)


def test_a_head_changes_nothing_of_the_one_before(create: Callable[[ParserLimits], Parser]) -> None:
    """Whatever a parser remembers of earlier heads, each request has fields of its own."""
    parser = create(ParserLimits())
    first_of = b"GET /%d HTTP/1.1\r\nHost: a\r\nX: %d\r\n\r\n"
    heads: list[RequestHead] = []
    for n in (1, 1, 2, 1):
        parser.receive_data(first_of % (n, n))
        head = parser.next_event()
        assert isinstance(head, RequestHead)
        head.headers.append((b"added", b"by the application"))
        heads.append(head)
    assert [head.target for head in heads] == [b"/1", b"/1", b"/2", b"/1"]
    assert [head.headers[:-1] for head in heads] == [[(b"host", b"a"), (b"x", b"%d" % n)] for n in (1, 1, 2, 1)]


@pytest.mark.parametrize(
    "between",
    [
        b"GET / HTTP/1.0\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
        CHUNKED + b"0\r\n\r\n",
    ],
)
def test_what_a_head_says_is_not_carried_over_to_the_next(
    create: Callable[[ParserLimits], Parser], between: bytes
) -> None:
    parser = create(ParserLimits())
    read: list[tuple[object, ...]] = []
    for data in (GET, between, GET, between, GET):
        parser.receive_data(data)
        while (event := parser.next_event()) is not None:
            if isinstance(event, RequestHead):
                read.append((event.method, event.version, event.upgrade, event.content_length, event.keep_alive))
    assert len(read) == 5
    assert read[0] == read[2] == read[4] == (b"GET", "1.1", None, 0, True)
    assert read[1] == read[3]


WITH_COOKIE = b"GET / HTTP/1.1\r\nHost: victim\r\nX: 1\r\nCookie: %d\r\n\r\n"
WITH_BODY = b"POST / HTTP/1.1\r\nHost: victim\r\nX-Id: %d\r\nContent-Length: 2\r\n\r\nab"


@pytest.mark.parametrize(
    "before",
    [
        GET * 3,
        WITH_COOKIE % 1 + WITH_COOKIE % 2,
        WITH_COOKIE % 1 + WITH_COOKIE % 2 + WITH_COOKIE % 2,
        WITH_BODY % 1 + WITH_BODY % 2,
    ],
)
@pytest.mark.parametrize(
    "bad",
    [
        b"GET /admin HTTP/1.1\r\n\r\n",
        b"GET /admin HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        b"GET /admin HTTP/1.1\r\nX: 1\r\n\r\n",
        b"GET /admin HTTP/1.1\r\nCookie: 2\r\n\r\n",
    ],
)
def test_a_head_is_judged_by_its_own_fields_whatever_came_before(
    create: Callable[[ParserLimits], Parser], before: bytes, bad: bytes
) -> None:
    parser = create(ParserLimits())
    parser.receive_data(before)
    while parser.next_event() is not None:
        pass
    parser.receive_data(bad)
    with pytest.raises(BadRequest):
        parser.next_event()


def test_a_request_without_fields_has_none_whatever_came_before(create: Callable[[ParserLimits], Parser]) -> None:
    parser = create(ParserLimits())
    parser.receive_data(WITH_BODY % 1 + WITH_BODY % 2 + b"GET /admin HTTP/1.0\r\n\r\n")
    heads = []
    while (event := parser.next_event()) is not None:
        if isinstance(event, RequestHead):
            heads.append(event)
    assert (heads[-1].target, heads[-1].headers, heads[-1].content_length) == (b"/admin", [], 0)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (GET[:-1], b""),
        (CHUNKED + b"5;" + b"x" * 500, b""),
        (CHUNKED + b"0\r\nA: " + b"b" * 5000, b""),
        (GET, b"\r\n"),
        (CHUNKED, b"1;aaaa\r\nx\r\n"),
    ],
)
def test_memory_is_bounded_whatever_arrives(
    create: Callable[[ParserLimits], Parser], first: bytes, then: bytes
) -> None:
    parser = create(ParserLimits())
    tracemalloc.start()
    try:
        parser.receive_data(first)
        while parser.next_event() is not None:
            pass
        for _ in range(200):
            parser.receive_data(then * 100)
            while parser.next_event() is not None:
                pass
        peak = tracemalloc.get_traced_memory()[1]
    except BadRequest:
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 400_000
    assert parser.buffered < 70_000


class Work:
    """Bytes that were copied, or looked through for something."""

    done = 0


def measured[T: (bytes, bytearray)](base: type[T]) -> type[T]:
    """A type like `base` that adds up what it takes to search it, to cut it and to add to it."""

    class Measured(base):  # type: ignore[valid-type, misc]
        def find(self, what: bytes, start: int = 0, end: int | None = None) -> int:
            end = len(self) if end is None else min(end, len(self))
            found = super().find(what, start, end)
            Work.done += max(0, (end if found < 0 else found) - start)
            return found

        def count(self, what: bytes, start: int = 0, end: int | None = None) -> int:
            end = len(self) if end is None else min(end, len(self))
            Work.done += max(0, end - start)
            return super().count(what, start, end)

        def __getitem__(self, key: Any) -> Any:
            got = super().__getitem__(key)
            if isinstance(key, slice):
                Work.done += len(got)
                return type(self)(got)
            return got

        def __bytes__(self) -> bytes:
            Work.done += len(self)
            return base.__getitem__(self, slice(None)) if base is bytes else b"".join([self])

        def __add__(self, other: Any) -> Any:
            Work.done += len(self) + len(other)
            return type(self)(super().__add__(other))

        def __radd__(self, other: Any) -> Any:
            Work.done += len(self) + len(other)
            return type(self)(b"".join([other, self]))

        if base is bytearray:

            def __iadd__(self, other: Any) -> Any:
                # Bytes that are deleted at the start, and room at the end, cost nothing worth mentioning.
                Work.done += len(other)
                return super().__iadd__(other)

    return Measured


FIELDS = b"X: yyyyyyyy\r\n" * 1500 + b"\r\n"
UPLOAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
STREAMS = {
    "a head": b"GET / HTTP/1.1\r\nHost: a\r\n" + FIELDS,
    "trailers": CHUNKED + b"1\r\nx\r\n0\r\n" + FIELDS,
    "a body": UPLOAD % 20_000 + bytes(20_000),
    "a chunk": CHUNKED + b"4e20\r\n" + bytes(20_000) + b"\r\n0\r\n\r\n",
    "small chunks": CHUNKED + b"2\r\nab\r\n" * 3000 + b"0\r\n\r\n",
    "chunk extensions": CHUNKED + (b"64;" + b"x" * 900 + b"\r\n" + bytes(100) + b"\r\n") * 20 + b"0\r\n\r\n",
    "empty lines": b"\r\n" * 10_000 + GET,
    "many requests": GET * 800,
    "many requests with bodies": (CHUNKED + b"1\r\nx\r\n0\r\nA: b\r\n\r\n" + UPLOAD % 10 + bytes(10)) * 200,
}


@pytest.mark.parametrize("what", STREAMS)
@pytest.mark.parametrize("size", [1, 7, 1000, 1_000_000])
@pytest.mark.parametrize("waits", [False, True])
def test_each_byte_costs_a_bounded_amount_of_work_however_it_comes(
    create: Callable[[ParserLimits], Parser], what: str, size: int, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether events are taken as bytes come, or those of later requests wait as they do for a slow application."""
    module = sys.modules[create(ParserLimits()).__module__]
    monkeypatch.setattr(module, "bytearray", measured(bytearray), raising=False)
    piece_of = measured(bytes)
    data = STREAMS[what]
    parser = create(ParserLimits(max_headers=10_000))
    Work.done = events = 0
    for at in range(0, len(data), size):
        parser.receive_data(piece_of(data[at : at + size]))
        # One event for a piece leaves more and more behind.
        while (event := parser.next_event()) is not None:
            events += 1
            if waits:
                break
    while (event := parser.next_event()) is not None:
        events += 1
    assert event is None and events and parser.buffered == 0
    assert Work.done < 30 * len(data)


@pytest.mark.parametrize(("parser", "status"), [("h11", b"431"), ("h1fast", b"200")])
def test_the_size_of_a_head_can_be_less_for_h11_alone(parser: str, status: bytes) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    settings: dict[str, Any] = {"http_parser": parser, "h11_max_incomplete_event_size": 256, "lifespan": "off"}
    with TestServer(app, **settings) as server, socket.create_connection((server.host, server.port), 60) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nX: " + b"x" * 300 + b"\r\n\r\n")
        assert client.recv(65536).split()[1] == status
