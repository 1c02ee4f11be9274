"""What is special to FastParser: the table of lines, the fields that repeat, and bodies that are not copied."""

import random
import sys
import threading
from collections.abc import Iterator
from typing import Any

import judges
import pytest
from judges import FastParser, LineTable, h1fast

from pounce.contract.head import RequestHead
from pounce.errors import BadRequest
from pounce.plugin import EndOfBody, ParserLimits
from pounce.testing.check_parser import check_parser

HOST = b"Host: example.org\r\n"
POST = b"POST / HTTP/1.1\r\n" + HOST


@pytest.fixture(autouse=True)
def table() -> Iterator[LineTable]:
    """The table of this thread, empty."""
    with judges.empty_table():
        yield h1fast._tables.lines


def parser(limits: ParserLimits | None = None) -> FastParser:
    return FastParser(limits or ParserLimits())


def alone() -> FastParser:
    """A parser that takes no pattern from connections before it."""
    h1fast._tables.lines.kinds.clear()
    return parser()


def request(fields: bytes = b"", line: bytes = b"GET / HTTP/1.1") -> bytes:
    return line + b"\r\n" + HOST + fields + b"\r\n"


def heads(*requests: bytes) -> list[RequestHead]:
    """The heads of requests without bodies that come one after the other on a connection."""
    reader = alone()
    read = []
    for data in requests:
        reader.receive_data(data)
        head = reader.next_event()
        assert isinstance(head, RequestHead)
        read.append(head)
    return read


def error_of(*requests: bytes) -> BadRequest:
    """Why the last of some requests is refused."""
    reader = alone()
    for data in requests[:-1]:
        reader.receive_data(data)
        assert isinstance(reader.next_event(), RequestHead)
    reader.receive_data(requests[-1])
    with pytest.raises(BadRequest) as caught:
        reader.next_event()
    return caught.value


def all_lines(table: LineTable) -> set[bytes]:
    return {*table.young, *table.old}


def test_follows_the_rules_of_every_parser() -> None:
    assert check_parser(FastParser) > 10_000


# Requests whose fields are those of the request before


@pytest.mark.parametrize(
    ("line", "method", "target", "version"),
    [
        (b"GET /other HTTP/1.1", b"GET", b"/other", "1.1"),
        (b"DELETE / HTTP/1.1", b"DELETE", b"/", "1.1"),
        (b"GET / HTTP/1.0", b"GET", b"/", "1.0"),
        (b"GET / HTTP/1.2", b"GET", b"/", "1.1"),
        (b"OPTIONS * HTTP/1.1", b"OPTIONS", b"*", "1.1"),
        (b"GET http://example.org/x HTTP/1.1", b"GET", b"http://example.org/x", "1.1"),
    ],
)
def test_same_fields_under_another_request_line_make_another_request(
    line: bytes, method: bytes, target: bytes, version: str
) -> None:
    first, second, third = heads(request(b"A: b\r\n"), request(b"A: b\r\n", line), request(b"A: b\r\n"))
    assert (second.method, second.target, second.version) == (method, target, version)
    assert second.headers == first.headers == third.headers == [(b"host", b"example.org"), (b"a", b"b")]
    assert (third.method, third.target, third.version) == (b"GET", b"/", "1.1")
    assert second.keep_alive is (version == "1.1")


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET * HTTP/1.1", 400),
        (b"GET /a#b HTTP/1.1", 400),
        (b"GET example.org HTTP/1.1", 400),
        (b"GET http://other.org/ HTTP/1.1", 400),
        (b"CONNECT / HTTP/1.1", 400),
        (b"CONNECT example.org:80 HTTP/1.1", 501),
        (b"GET / HTTP/2.0", 505),
        (b"GET  / HTTP/1.1", 400),
    ],
)
def test_same_fields_do_not_excuse_a_bad_request_line(line: bytes, status: int) -> None:
    assert error_of(request(), request(), request(b"", line)).status == status


def read_line(line: bytes, before: bytes, behind: bytes) -> tuple[bytes, bytes, str] | int:
    """What the first line of a request is taken for, with these bytes around it that belong to others: method, target
    and version, or the status of the refusal."""
    reader = alone()
    try:
        reader.receive_data(before + line + b"\r\n" + HOST + b"\r\n" + behind)
        if before:
            assert reader.next_event() is not None
        head = reader.next_event()
    except BadRequest as error:
        return error.status
    assert isinstance(head, RequestHead)
    return head.method, head.target, head.version


def test_request_lines_mean_what_the_grammar_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual ones are read by their ends, the others by a regular expression."""
    chosen = random.Random(7)
    parts = (
        *(b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT", b"PROPFIND", b"HTTP/1.1", b"/1.1", b"P/1.1", b"T"),
        *(b" ", b" ", b"/", b" /", b" / HTTP/1.1", b" HTTP/1.1", b" HTTP/1.0", b"#", b"?x", b"\x00", b"\x7f", b"\xff"),
    )
    lines = {b"".join(chosen.choices(parts, k=chosen.randrange(1, 6))) for _ in range(3000)}
    lines |= {b"GET /HTTP/1.1", b"GET HTTP/1.1", b"GET / HTTP/1.1 HTTP/1.1", b"GET /", b"POST / ", b"PUT /P/1.1"}
    around = [(b"", b""), (request(), b""), (b"", request()), (request(), b"GET / HTTP/1.1")]
    found = {(line, where): read_line(line, *where) for line in lines for where in around}
    monkeypatch.setattr(h1fast, "USUAL_METHOD_MAX", 0)
    monkeypatch.setattr(h1fast, "_NO_TARGET_TO_NUL", bytes(256))
    assert found == {(line, where): read_line(line, *where) for line in lines for where in around}
    assert sum(type(each) is tuple for each in found.values()) > 50


@pytest.mark.parametrize(
    ("fields", "differs"),
    [
        (b"Connection: close\r\n", {"keep_alive": False}),
        (b"Connection: upgrade\r\nUpgrade: websocket\r\n", {"upgrade": b"websocket"}),
        (b"Expect: 100-continue\r\nContent-Length: 1\r\n", {"expect_continue": True, "content_length": 1}),
        (b"Content-Length: 7\r\n", {"content_length": 7}),
        (b"Transfer-Encoding: chunked\r\n", {"content_length": None}),
    ],
)
def test_fields_that_tell_how_to_serve_are_read_anew(fields: bytes, differs: dict[str, object]) -> None:
    plain = {"keep_alive": True, "upgrade": None, "expect_continue": False, "content_length": 0}
    for data, wanted in (
        ((request(), request(fields)), plain | differs),
        ((request(b"A: b\r\n"), request(b"A: b\r\n" + fields)), plain | differs),
        ((request(b"Connection: close\r\n"), request()), plain),
        ((request(b"Connection: upgrade\r\nUpgrade: x\r\n"), request()), plain),
    ):
        head = heads(*data)[-1]
        assert {name: getattr(head, name) for name in plain} == wanted


def test_another_host_is_another_host() -> None:
    first, second, third = heads(request(), request().replace(b"example", b"other"), request())
    assert [head.headers for head in (first, second, third)] == [
        [(b"host", b"example.org")],
        [(b"host", b"other.org")],
        [(b"host", b"example.org")],
    ]


@pytest.mark.parametrize(
    "fields",
    [HOST, b"Content-Length: 0\r\nContent-Length: 0\r\n", b"Expect: x\r\n", b"A : b\r\n", b"A: b\n\r\n", b"A\r\n"],
)
def test_same_request_line_does_not_excuse_a_bad_field(fields: bytes) -> None:
    assert error_of(request(), request(), request(fields)).status in (400, 417)


# Requests that fit the pattern of two before


def like(first: bytes, second: bytes, end: bytes = b"Accept: */*\r\n") -> bytes:
    return request(b"X-Id: " + first + b"\r\nVia: proxy\r\nX-Time:" + second + b"\r\n" + end)


LIKE = (like(b"1", b"a"), like(b"22", b"bb"))


def fields_of(*requests: bytes) -> list[tuple[bytes, bytes]]:
    return heads(*requests)[-1].headers


@pytest.mark.parametrize(("first", "second"), [(b"333", b"ccc"), (b"", b""), (b" \t4 ", b" d\t"), (b"\xff:", b":,")])
def test_values_that_differ_again_are_read(first: bytes, second: bytes) -> None:
    last = like(first, second)
    assert fields_of(*LIKE, last) == fields_of(last)
    assert fields_of(*LIKE, last, LIKE[0], last) == fields_of(last)
    assert fields_of(*LIKE, last)[1] == (b"x-id", first.strip())


@pytest.mark.parametrize(
    "last",
    [
        like(b"3", b"c", b""),
        like(b"3", b"c", b"Accept: */*\r\nX: y\r\n"),
        like(b"3", b"c", b"Accept: text/html\r\n"),
        like(b"3\r\nX: y", b"c"),
        like(b"3\r\nVia: proxy\r\nX-Time: c", b"d"),
        like(b"3", b"c").replace(b"X-Id", b"x-iD"),
        like(b"3", b"c").replace(b"X-Id: ", b"X-Id:"),
        like(b"3", b"c").replace(b"Via: proxy\r\n", b""),
        like(b"3", b"c").replace(b"example", b"another"),
        like(b"3", b"c", b"Connection: close\r\n"),
    ],
)
def test_a_request_that_does_not_fit_is_read_from_the_start(last: bytes) -> None:
    warm, cold = heads(*LIKE, last, LIKE[0])[-2], heads(last)[0]
    assert (warm.headers, warm.keep_alive) == (cold.headers, cold.keep_alive)


@pytest.mark.parametrize("byte", [b"\r", b"\n", b"\0", b"\x7f", b"\x1b"])
@pytest.mark.parametrize("where", [0, 1])
def test_a_pattern_excuses_no_bad_value(byte: bytes, where: int) -> None:
    values = [b"3", b"4"]
    values[where] = b"x" + byte + b"y"
    assert error_of(*LIKE, like(*values)).code == error_of(like(*values)).code


def test_a_pattern_keeps_no_value_that_may_differ() -> None:
    reader = parser()
    for number in range(3):
        reader.receive_data(like(b"secret-%d" % number, b"%d" % number))
        assert isinstance(reader.next_event(), RequestHead)
        kept = repr([getattr(kind, name) for kind in reader._kinds for name in h1fast.Pattern.__slots__])
        assert ("secret" in kept) is (number == 0)


@pytest.mark.parametrize(
    "name", [b"Host", b"Connection", b"Content-Length", b"Transfer-Encoding", b"Upgrade", b"Expect"]
)
def test_a_field_that_tells_how_to_serve_is_never_part_of_a_pattern(name: bytes) -> None:
    def with_value(value: bytes) -> bytes:
        return b"GET / HTTP/1.1\r\n" + (b"" if name == b"Host" else HOST) + name + b": " + value + b"\r\n\r\n"

    good = {b"Host": b"a", b"Connection": b"close", b"Content-Length": b"0", b"Upgrade": b"x"}.get(name, b"")
    if good:
        assert fields_of(with_value(good), with_value(good + good), with_value(good))[-1] == (name.lower(), good)
    bad = {b"Host": b"a b", b"Content-Length": b"-1", b"Transfer-Encoding": b"x", b"Expect": b"x"}.get(name, b"\0")
    before = [with_value(good), with_value(good)] if good else [request(), request()]
    assert error_of(*before, with_value(bad)).code == error_of(with_value(bad)).code


def long_request(number: int) -> bytes:
    return request(b"X-Long: %b\r\nX-Id: %d\r\n" % (b"a" * 400, number))


@pytest.mark.parametrize(
    "data",
    [
        long_request(8),
        long_request(8) + long_request(9),
        long_request(8) + long_request(9) * 3,
        long_request(8) + b"\r\n\r\n",
        b"\r\n" + long_request(8),
        b"\r\n\r\n" + long_request(8),
        long_request(8).replace(b"X-Long: ", b"\r\nX-Long: "),
        long_request(8).replace(b"X-Id: ", b"X-Id:\r\n\r\n"),
        long_request(8).replace(b"a" * 400, b"a" * 396 + b"\r\n\r\n"),
        long_request(8) + b"GET / HTTP/1.1\r\n\r\n",
        b"GET /\r\n\r\n" + long_request(8),
        long_request(8) + b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n\r\n\r\n",
        long_request(8)[:-4],
        long_request(8) + long_request(9)[:-2],
        request(b"X-Long: %b\r\nX-Id: 1\r\n" % (b"a" * 900)) + b"\r\n\r\n",
    ],
)
def test_where_a_long_head_ends_is_the_same_after_others(data: bytes) -> None:
    limits = ParserLimits(max_header_size=len(long_request(8)) + 4)

    def outcome(reader: FastParser) -> list[Any]:
        found: list[Any] = []
        reader.receive_data(data)
        try:
            while (event := reader.next_event()) is not None:
                read = isinstance(event, RequestHead)
                found.append((event.method, event.target, event.headers) if read else event if event else b"")  # type: ignore[union-attr]
        except BadRequest as error:
            found.append((error.status, error.code))
        return [*found, reader.buffered]

    h1fast._tables.lines.kinds.clear()
    expected = outcome(parser(limits))
    h1fast._tables.lines.kinds.clear()
    reader = parser(limits)
    for number in (1, 2):
        reader.receive_data(long_request(number))
        assert isinstance(reader.next_event(), RequestHead)
    assert outcome(reader) == expected


def test_a_body_of_the_same_length_follows_the_same_fields() -> None:
    reader = parser()
    for number in range(4):
        reader.receive_data(POST + b"X-Id: %d\r\nContent-Length: 3\r\n\r\nab%d" % (number, number))
        head = reader.next_event()
        assert isinstance(head, RequestHead)
        assert (head.method, head.content_length) == (b"POST", 3)
        assert reader.next_event() == b"ab%d" % number
        assert isinstance(reader.next_event(), EndOfBody)


def post(length: bytes, more: bytes = b"") -> bytes:
    return POST + b"Content-Length: " + length + b"\r\n" + more + b"\r\n"


@pytest.mark.parametrize("more", [b"", b"Connection: close\r\n", b"Upgrade: x\r\nConnection: upgrade\r\n"])
@pytest.mark.parametrize("length", [b"4", b"04", b"0", b"00", b" 12\t", b"123456789012345678", b"1234567890123456789"])
def test_a_length_that_differs_is_read_as_if_it_came_first(length: bytes, more: bytes) -> None:
    cold = heads(post(length, more))[0]
    reader = parser()
    for number in range(1, 4):
        reader.receive_data(post(b"%d" % number, more) + bytes(number))
        assert isinstance(reader.next_event(), RequestHead)
        assert (reader.next_event(), type(reader.next_event())) == (bytes(number), EndOfBody)
    reader.receive_data(post(length, more))
    warm = reader.next_event()
    assert isinstance(warm, RequestHead)
    for name in RequestHead.__slots__:
        assert getattr(warm, name) == getattr(cold, name), name


@pytest.mark.parametrize("length", [b"", b"-1", b"+1", b"1_0", b"0x1", b"1 1", b"1,1", b"1" * 20, b"\xb2"])
def test_a_length_that_is_none_is_refused_after_others(length: bytes) -> None:
    before = [post(b"1") + b"a", post(b"22") + bytes(22)]
    reader = parser()
    reader.receive_data(b"".join(before))
    while reader.next_event() is not None:
        pass
    reader.receive_data(post(length))
    with pytest.raises(BadRequest) as warm:
        reader.next_event()
    assert warm.value.code == error_of(post(length)).code


def first_head(data: bytes, limits: ParserLimits | None = None) -> RequestHead:
    """The head of the first request of a connection that comes after those of others."""
    reader = parser(limits)
    reader.receive_data(data)
    head = reader.next_event()
    assert isinstance(head, RequestHead)
    return head


def looked_up(table: LineTable) -> int:
    return table.hits + table.misses


def test_first_request_of_a_connection_is_read_by_the_patterns_of_others(table: LineTable) -> None:
    warm = first_head(like(b"1", b"2"))
    before = looked_up(table)
    # The same fields, and then what the two have in common with others.
    assert first_head(like(b"1", b"2")).headers == warm.headers
    assert looked_up(table) == before
    first_head(like(b"3", b"4"))
    before = looked_up(table)
    last = first_head(like(b"5", b"6"))
    assert looked_up(table) == before
    cold = heads(like(b"5", b"6"))[0]
    for name in RequestHead.__slots__:
        assert getattr(last, name) == getattr(cold, name), name


@pytest.mark.parametrize("name", sorted(h1fast.PRIVATE))
def test_sections_with_what_is_a_clients_own_are_in_no_pattern_of_another(name: bytes, table: LineTable) -> None:
    for number in range(3):
        first_head(request(name + b": secret\r\nX-Id: %d\r\n" % number))
        assert not table.kinds.get(ParserLimits().max_headers)


def test_what_is_not_accepted_by_one_limit_is_not_by_the_patterns_of_another() -> None:
    data = request(b"A: 1\r\nB: 2\r\nC: 3\r\n")
    first_head(data, ParserLimits(max_headers=10))
    with pytest.raises(BadRequest) as refused:
        first_head(data, ParserLimits(max_headers=3))
    assert refused.value.status == 431
    assert len(first_head(data, ParserLimits(max_headers=10)).headers) == 4


def test_a_new_connection_begins_with_no_more_than_a_few_patterns(table: LineTable) -> None:
    for number in range(50):
        first_head(request(b"X-%d: 1\r\n" % number + b"Y: " + b"y" * 2000 + b"\r\n"))
        (kinds,) = table.kinds.values()
        assert sum(kind.size for kind in kinds) <= h1fast.KINDS_ROOM
        assert len(kinds) <= h1fast.KINDS_MAX


def test_connections_change_nothing_of_what_others_begin_with(table: LineTable) -> None:
    first_head(request(b"A: 1\r\n"))
    (kinds,) = table.kinds.values()
    reader = parser()
    reader._kinds.clear()
    assert len(kinds) == 1


def test_kinds_of_requests_that_take_turns_are_all_known() -> None:
    reader = parser()
    kinds = [
        lambda number: request(b"X-Id: %d\r\n" % number),
        lambda number: post(b"%d" % (number + 10), b"X-Id: %d\r\n" % number) + bytes(number + 10),
        lambda number: POST + b"X-Id: %d\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n" % number,
    ]
    missed = -1
    for number in range(30):
        if number == 9:
            missed = reader._lines.hits + reader._lines.misses
        reader.receive_data(kinds[number % 3](number))
        while reader.next_event() is not None:
            pass
    assert reader._lines.hits + reader._lines.misses == missed


def test_a_pattern_learns_of_further_values_that_differ() -> None:
    reader = parser()
    table = reader._lines
    for number in range(30):
        length = 1 if number < 3 else number
        data = post(b"%d" % length, b"X-Id: %d\r\n" % number) + bytes(length)
        wanted = heads(data)[0].headers
        before = table.hits + table.misses
        reader.receive_data(data)
        head = reader.next_event()
        assert isinstance(head, RequestHead)
        assert (head.headers, head.content_length) == (wanted, length)
        assert reader.take_body() == bytes(length)
        assert len(reader._kinds) == 1
        # Of the first ones each line was looked up.
        assert (table.hits + table.misses == before) is (number > 3 or number == 2)


def test_new_connections_begin_with_no_more_values_to_read_than_two_requests_differ_in(table: LineTable) -> None:
    values = [0] * 6
    for number in range(40):
        reader = parser()
        for _ in range(4):
            values[number % 6] += 1
            fields = b"".join([b"X-%d: %d\r\n" % each for each in enumerate(values)])
            reader.receive_data(request(fields))
            assert isinstance(reader.next_event(), RequestHead)
    (kinds,) = table.kinds.values()
    assert max(len(kind.values) for kind in kinds) == 1


def test_a_pattern_that_has_learnt_excuses_nothing() -> None:
    ends = (b"Accept: a\r\n", b"Accept: b\r\n", b"Accept: c\r\n")
    before = [like(b"%d" % number, b"%d" % number, end) for number, end in enumerate(ends)]
    for last in (
        like(b"5", b"6", b"Accept: d\r\n"),
        like(b"5", b"6", b"accept: d\r\n"),
        like(b"5", b"6", b"Accept: d\r\nX: y\r\n"),
        like(b"5", b"6", b"Accept: d\r\nConnection: close\r\n"),
        like(b"5\r\nX: y", b"6", b"Accept: d\r\n"),
        like(b"5", b"6", b""),
    ):
        warm, cold = heads(*before, last)[-1], heads(last)[0]
        assert (warm.headers, warm.keep_alive) == (cold.headers, cold.keep_alive)
    for bad in (b"Accept: d\0\r\n", b"Accept : d\r\n", b"Accept: d\r\nHost: x\r\n", b"Accept: d\n\r\n"):
        assert error_of(*before, like(b"5", b"6", bad)).code == error_of(like(b"5", b"6", bad)).code


def test_a_connection_keeps_no_more_than_a_few_kinds() -> None:
    reader = parser()
    for number in range(50):
        reader.receive_data(request(b"X-%d: 1\r\n" % number + b"Y: " + b"y" * 2000 + b"\r\n"))
        assert isinstance(reader.next_event(), RequestHead)
        assert sum(kind.size for kind in reader._kinds) <= h1fast.KINDS_ROOM
        assert len(reader._kinds) <= h1fast.KINDS_MAX


@pytest.mark.parametrize(
    "chunks",
    [
        b"2\r\nab\r\n0\r\n\r\n", b"0002\r\nab\r\n0\r\n\r\n", b"A\r\n0123456789\r\n0\r\n\r\n",
        b"2\r\nab\r\n00\r\n\r\n", b"2\r\nab\r\n0\r\nX: y\r\n\r\n", b"2;a=b\r\nab\r\n0\r\n\r\n",
        b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n", b"0\r\n\r\n", b"2\r\nab\r\n0;a\r\n\r\n", b"00002\r\nab\r\n0\r\n\r\n",
    ],
)  # fmt: skip
def test_small_chunked_body_is_the_same_whole_and_in_pieces(chunks: bytes) -> None:
    data = POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + request()

    def read(size: int) -> tuple[bytes, list[Any]]:
        reader = parser()
        body, ends = b"", []
        for at in range(0, len(data), size):
            reader.receive_data(data[at : at + size])
            while (event := reader.next_event()) is not None:
                if isinstance(event, bytes):
                    body += event
                else:
                    ends.append(event.trailers if isinstance(event, EndOfBody) else event.method)
        return body, ends

    assert read(len(data)) == read(1)


def test_a_request_with_a_body_does_not_pass_its_length_on() -> None:
    reader = parser()
    fields = b"Content-Length: 2\r\n"
    reader.receive_data(request() + request(fields) + b"ab" + request() + request(fields) + b"cd")
    events = []
    while (event := reader.next_event()) is not None:
        events.append(event.content_length if isinstance(event, RequestHead) else event)
    events = ["end" if isinstance(event, EndOfBody) else event for event in events]
    assert events == [0, 2, b"ab", "end", 0, 2, b"cd", "end"]


@pytest.mark.parametrize(
    "lines",
    [
        [b"GET / HTTP/1.1"] * 4,
        [b"GET / HTTP/1.1", b"OPTIONS * HTTP/1.1", b"GET / HTTP/1.1", b"GET http://example.org/ HTTP/1.1"],
        [b"GET / HTTP/1.1", b"GET / HTTP/1.0", b"GET / HTTP/1.2", b"GET / HTTP/1.1"],
    ],
)
@pytest.mark.parametrize("fields", [[b"A: b\r\n"] * 4, [b"A: %d\r\n" % number for number in range(4)]])
def test_what_an_application_does_to_its_headers_touches_no_other_request(
    lines: list[bytes], fields: list[bytes]
) -> None:
    reader = parser()
    for line, field in zip(lines, fields, strict=True):
        reader.receive_data(request(field, line))
        head = reader.next_event()
        assert isinstance(head, RequestHead)
        assert head.headers == [(b"host", b"example.org"), (b"a", field[3:-2])]
        head.headers.clear()
        head.headers.append((b"x", b"y"))


@pytest.mark.parametrize("fields", [[b"A: b\r\n"] * 3, [b"A: %d\r\n" % number for number in range(3)]])
@pytest.mark.parametrize(
    "line", [b"GET / HTTP/1.0", b"GET / HTTP/1.2", b"GET / http/1.1", b"GET /  HTTP/1.1", b"GET /\tHTTP/1.1", b"GET /"]
)
def test_fields_seen_before_say_nothing_of_a_version(line: bytes, fields: list[bytes]) -> None:
    known = parser()
    for field in fields[:2]:
        known.receive_data(request(field))
        assert isinstance(known.next_event(), RequestHead)
    found = []
    for reader in (known, parser()):
        reader.receive_data(request(fields[2], line))
        try:
            head = reader.next_event()
        except BadRequest as error:
            found.append((error.code, error.status))
        else:
            assert isinstance(head, RequestHead)
            found.append((head.version, head.keep_alive, head.target, head.headers))
    assert found[0] == found[1]


def test_an_idle_connection_keeps_no_large_fields() -> None:
    reader = parser()
    for size in (10, 60_000, 10, 60_000):
        reader.receive_data(request(b"X: " + b"x" * size + b"\r\n"))
        head = reader.next_event()
        assert isinstance(head, RequestHead)
        assert len(head.headers[1][1]) == size
        assert sum(kind.size for kind in reader._kinds) <= h1fast.BLOCK_MAX


@pytest.mark.parametrize("count", [3, 20, 40, 98])
def test_an_idle_connection_keeps_no_many_fields(count: int) -> None:
    reader = parser()
    for number in range(12):
        fields = [b"%x-%x: %x\r\n" % (number % 4, index, index) for index in range(count)]
        reader.receive_data(request(b"".join(fields)))
        assert isinstance(reader.next_event(), RequestHead)
    kept = sum(
        sys.getsizeof(kind.first) + sum(sys.getsizeof(each) for field in kind.headers for each in (field, *field))
        for kind in reader._kinds
    )
    assert kept <= h1fast.KINDS_ROOM * 1.1
    assert (len(reader._kinds) == h1fast.KINDS_MAX) is (count <= 20)


@pytest.mark.parametrize("size", [1, 1000, 70_000])
def test_what_was_read_is_not_kept_beside_what_waits_for_more(size: int) -> None:
    for rest in (b"\r", b"GET", POST + b"Transfer-Encoding: chunked\r\n\r\n1", request()[:-1]):
        reader = parser()
        data = POST + b"Content-Length: 60000\r\n\r\n" + bytes(60_000) + rest
        for at in range(0, len(data), size):
            reader.receive_data(data[at : at + size])
            while reader.next_event() is not None:
                pass
        assert len(reader._buffer) == reader.buffered <= len(rest)


# The table


def test_lines_of_a_head_are_checked_once(table: LineTable) -> None:
    heads(request(b"A: b\r\nC: d\r\n"))
    assert (table.hits, table.misses) == (0, 3)
    heads(request(b"C: d\r\nA: b\r\nE: f\r\n"))
    assert (table.hits, table.misses) == (3, 4)


def test_the_table_is_bounded_in_entries_and_keeps_what_is_asked_for(table: LineTable) -> None:
    for number in range(3 * h1fast.TABLE_MAX):
        heads(request(b"X-%d: 1\r\n" % number))
        assert len(table.young) <= h1fast.TABLE_MAX
        assert len(table.old) <= h1fast.TABLE_MAX
    assert table.misses == 1 + 3 * h1fast.TABLE_MAX
    assert b"Host: example.org" in table.young
    assert b"X-0: 1" not in all_lines(table)


def test_ids_have_only_so_much_room(table: LineTable) -> None:
    for number in range(3 * h1fast.TABLE_MAX):
        heads(request(b"X-Id: %d\r\n" % number))
    assert len(all_lines(table)) == 1 + h1fast.NAME_ROOM


def test_names_are_bounded_too(table: LineTable) -> None:
    for number in range(3 * h1fast.NAMES_MAX):
        heads(request(b"X-%d: 1\r\n" % number))
        assert len(table.names) <= h1fast.NAMES_MAX


def test_a_field_gets_room_again_in_a_later_generation(table: LineTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h1fast, "GENERATION", 100)
    for number in range(h1fast.NAME_ROOM):
        heads(request(b"X-Id: %d\r\nX-Unused-%d: 1\r\n" % (number, number)))
    for number in range(100):
        heads(request(b"X-Other-%d: 1\r\n" % number))
    heads(request(b"X-Id: later\r\n"))
    assert b"X-Id: later" in table.young


def test_the_table_is_bounded_in_the_length_of_a_line(table: LineTable) -> None:
    longest = b"A: " + b"x" * (h1fast.LINE_MAX - 3)
    heads(request(longest + b"\r\n" + longest + b"y\r\n"))
    assert longest in all_lines(table)
    assert longest + b"y" not in all_lines(table)


def test_cookies_do_not_enter_the_table(table: LineTable) -> None:
    heads(request(b"Cookie: a=1\r\nCOOKIE: b=2\r\n"))
    assert all_lines(table) == {b"Host: example.org"}


def test_a_refused_line_does_not_enter_the_table(table: LineTable) -> None:
    for line in (b"A : b", b"A: b\0", b"no colon", b"A: b\nC: d"):
        error_of(request(line + b"\r\n"))
        error_of(request(line + b"\r\n"))
        assert line not in all_lines(table)


def test_a_line_of_a_trailer_means_the_same_in_a_head_and_is_looked_up_there(table: LineTable) -> None:
    body = b"0\r\nA: b\r\n\r\n"
    reader = parser()
    reader.receive_data(request(b"A: b\r\n") + POST + b"Transfer-Encoding: chunked\r\n\r\n" + body)
    assert isinstance(reader.next_event(), RequestHead)
    assert isinstance(reader.next_event(), RequestHead)
    end = reader.next_event()
    assert isinstance(end, EndOfBody)
    assert end.trailers == [(b"a", b"b")]
    assert table.misses == 3


def test_a_field_that_was_fine_in_a_head_is_still_refused_in_a_trailer() -> None:
    reader = parser()
    reader.receive_data(request() + POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + HOST + b"\r\n")
    reader.next_event()
    reader.next_event()
    with pytest.raises(BadRequest) as caught:
        reader.next_event()
    assert caught.value.code == "POUNCE_PARSE_BAD_TRAILER"


def test_each_thread_has_its_own_table(table: LineTable) -> None:
    found: list[LineTable] = []

    def read() -> None:
        heads(request(b"X-Thread: other\r\n"))
        found.append(h1fast._tables.lines)

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    heads(request(b"X-Thread: this\r\n"))
    assert found[0] is not table
    assert b"X-Thread: other" in found[0].young and b"X-Thread: other" not in table.young
    assert b"X-Thread: this" in table.young and b"X-Thread: this" not in found[0].young


# Bodies


def test_a_buffer_that_is_all_body_is_passed_on_without_a_copy() -> None:
    reader = parser()
    reader.receive_data(POST + b"Content-Length: 3000\r\n\r\n")
    reader.next_event()
    for size in (1000, 2000):
        data = bytes(size)
        reader.receive_data(data)
        assert reader.next_event() is data
    assert isinstance(reader.next_event(), EndOfBody)


def test_chunks_that_came_together_are_delivered_together() -> None:
    reader = parser()
    reader.receive_data(POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n4\r\nf")
    reader.next_event()
    assert reader.next_event() == b"abcdef"
    assert reader.next_event() is None
    reader.receive_data(b"ghi\r\n0\r\n\r\n")
    assert reader.next_event() == b"ghi"
    assert isinstance(reader.next_event(), EndOfBody)
    assert reader.buffered == 0


def test_data_before_a_bad_chunk_is_delivered_before_the_refusal() -> None:
    reader = parser()
    reader.receive_data(POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\nx\r\n")
    reader.next_event()
    assert reader.next_event() == b"abcde"
    with pytest.raises(BadRequest):
        reader.next_event()


def test_the_rest_goes_to_the_upgraded_protocol() -> None:
    reader = parser()
    reader.receive_data(request(b"Connection: upgrade\r\nUpgrade: x\r\n") + b"\r\n\x00rest")
    reader.next_event()
    assert reader.buffered == 7
    assert reader.take_rest() == b"\r\n\x00rest"
    assert reader.buffered == 0


# Limits


@pytest.mark.parametrize(
    ("start", "filler", "limit", "status", "code"),
    [
        (b"GET /", b"a", 1000, 414, "POUNCE_PARSE_TARGET_TOO_LONG"),
        (request()[:-2] + b"X: ", b"a", 1000, 431, "POUNCE_PARSE_HEADERS_TOO_LARGE"),
        (request()[:-2], b"X: y\r\n", 1000, 431, "POUNCE_PARSE_HEADERS_TOO_LARGE"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1;", b"a", 1026, 400, "POUNCE_PARSE_BAD_CHUNK"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"a", 1000, 431, "POUNCE_PARSE_HEADERS_TOO_LARGE"),
    ],
)
def test_what_has_no_end_is_refused_before_more_than_the_limit_is_buffered(
    start: bytes, filler: bytes, limit: int, status: int, code: str
) -> None:
    reader = parser(ParserLimits(max_header_size=1000, max_headers=10_000))
    reader.receive_data(start)
    with pytest.raises(BadRequest) as caught:
        for _ in range(2000):
            while reader.next_event() is not None:
                pass
            assert reader.buffered <= limit
            reader.receive_data(filler)
    assert (caught.value.status, caught.value.code) == (status, code)
    assert reader.buffered <= limit + len(filler)


def test_a_head_of_exactly_the_limit_is_accepted() -> None:
    data = request(b"X: " + b"x" * 50 + b"\r\n")
    for limit, accepted in ((len(data), True), (len(data) - 1, False)):
        reader = parser(ParserLimits(max_header_size=limit))
        reader.receive_data(data)
        if accepted:
            assert isinstance(reader.next_event(), RequestHead)
        else:
            with pytest.raises(BadRequest):
                reader.next_event()


def test_as_many_fields_as_the_limit_are_accepted_in_heads_and_trailers() -> None:
    for number, accepted in ((3, True), (4, False)):
        chunked = b"Transfer-Encoding: chunked\r\n\r\n"
        for data in (request(b"A: b\r\n" * (number - 1)), POST + chunked + b"0\r\n" + b"A: b\r\n" * number + b"\r\n"):
            reader = parser(ParserLimits(max_headers=3))
            reader.receive_data(data)
            if accepted:
                while reader.next_event() is not None:
                    pass
                assert reader.buffered == 0
            else:
                with pytest.raises(BadRequest) as caught:
                    while reader.next_event() is not None:
                        pass
                assert (caught.value.status, caught.value.code) == (431, "POUNCE_PARSE_TOO_MANY_HEADERS")


def test_many_empty_lines_before_a_request_cost_no_more_than_their_bytes() -> None:
    """Cutting them off one by one would copy what follows each of them: 250 GB here."""
    reader = parser()
    reader.receive_data(b"\r\n" * 500_000 + request())
    assert isinstance(reader.next_event(), RequestHead)
    assert reader.buffered == 0


@pytest.mark.parametrize(
    ("data", "status", "code", "hint"),
    [
        (b"GET / HTTP/1.1 \r\n\r\n", 400, "POUNCE_PARSE_MALFORMED_REQUEST_LINE", None),
        (request(b"", b"GET / HTTP/3.0"), 505, "POUNCE_PARSE_BAD_VERSION", "This server speaks HTTP/1.0 and HTTP/1.1"),
        (request(b"A b\r\n"), 400, "POUNCE_PARSE_BAD_HEADER", None),
        (request(b"A: b\r\n" * 100), 431, "POUNCE_PARSE_TOO_MANY_HEADERS", "The limit is 100."),
        (b"GET /" + b"a" * 70_000, 414, "POUNCE_PARSE_TARGET_TOO_LONG", "The limit is 65536 bytes."),
        (request(b"Content-Length: x\r\n"), 400, "POUNCE_PARSE_BAD_CONTENT_LENGTH", None),
    ],
)
def test_a_refusal_says_what_to_answer_and_what_to_do(data: bytes, status: int, code: str, hint: str | None) -> None:
    error = error_of(data)
    assert (error.status, error.code) == (status, code)
    assert error.hint is None if hint is None else (error.hint or "").startswith(hint)


def test_a_bare_line_end_is_refused_with_its_position() -> None:
    error = error_of(b"GET / HTTP/1.1\r\nHost: a\n")
    assert error.code == "POUNCE_PARSE_BAD_LINE_END"
    assert isinstance(error, BadRequest) and error.position == 23
