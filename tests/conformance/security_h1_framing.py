"""Request smuggling: bytes that two readers could delimit differently are refused, and nothing behind them is read.

The vectors by name are those that published parsers accepted; the others are those of `pounce.testing.check_parser`,
here through the whole server.
"""

from typing import NamedTuple

import pytest
from tests.conformance.rfc9112_support import Noting, connect, get, in_loop, parser, post_chunked

from pounce.testing.check_parser import ACCEPTED, REFUSED, Accepted, Refused

__all__ = ["parser"]

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: example.org\r\n\r\n"


def raw(*fields: bytes, line: bytes = b"POST / HTTP/1.1", host: bytes = b"Host: example.org\r\n") -> bytes:
    return line + b"\r\n" + host + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


CHUNKED = raw(b"Transfer-Encoding: chunked")


class Vector(NamedTuple):
    data: bytes
    status: int = 400


VECTORS = {
    "Content-Length +5": Vector(raw(b"Content-Length: +5") + b"hello"),
    "Content-Length -5": Vector(raw(b"Content-Length: -5") + b"hello"),
    "Content-Length 1_0": Vector(raw(b"Content-Length: 1_0") + b"0123456789"),
    "Content-Length 0x5": Vector(raw(b"Content-Length: 0x5") + b"hello"),
    "Content-Length 5 5": Vector(raw(b"Content-Length: 5 5") + b"hello"),
    "Content-Length 5, 5": Vector(raw(b"Content-Length: 5, 5") + b"hello"),
    "Content-Length 5,": Vector(raw(b"Content-Length: 5,") + b"hello"),
    "Content-Length in other digits": Vector(raw("Content-Length: ٥".encode()) + b"hello"),
    "Content-Length of 20 digits": Vector(raw(b"Content-Length: 18446744073709551621") + b"hello"),
    "empty Content-Length": Vector(raw(b"Content-Length:") + b"hello"),
    "Content-Length twice": Vector(raw(b"Content-Length: 5", b"Content-Length: 5") + b"hello"),
    "Content-Length twice, one in capitals": Vector(raw(b"Content-Length: 5", b"CONTENT-LENGTH: 6") + b"hello!"),
    "Transfer-Encoding identity": Vector(raw(b"Transfer-Encoding: identity")),
    "Transfer-Encoding gzip without length": Vector(raw(b"Transfer-Encoding: gzip")),
    "Transfer-Encoding xchunked": Vector(raw(b"Transfer-Encoding: xchunked")),
    "Transfer-Encoding chunked, identity": Vector(raw(b"Transfer-Encoding: chunked, identity")),
    "Transfer-Encoding gzip, chunked": Vector(raw(b"Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n", 501),
    "Transfer-Encoding chunked;x": Vector(raw(b"Transfer-Encoding: chunked;x") + b"0\r\n\r\n"),
    "Transfer-Encoding:chunked;x: y": Vector(raw(b"Transfer-Encoding:chunked;x: y") + b"0\r\n\r\n"),
    "Transfer-Encoding chunked twice": Vector(raw(b"Transfer-Encoding: chunked, chunked") + b"0\r\n\r\n"),
    "Transfer-Encoding on two lines": Vector(
        raw(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity") + b"0\r\n\r\n"
    ),
    "Transfer-Encoding quoted": Vector(raw(b'Transfer-Encoding: "chunked"') + b"0\r\n\r\n"),
    "Transfer-Encoding with VT": Vector(raw(b"Transfer-Encoding: \x0bchunked") + b"0\r\n\r\n"),
    "Transfer-Encoding in HTTP/1.0": Vector(raw(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0") + b"0\r\n\r\n"),
    "Content-Length and Transfer-Encoding": Vector(
        raw(b"Content-Length: 5", b"Transfer-Encoding: chunked") + b"0\r\n\r\n"
    ),
    "Transfer-Encoding and Content-Length": Vector(
        raw(b"Transfer-Encoding: chunked", b"Content-Length: 5") + b"0\r\n\r\n"
    ),
    "Content-Length, tab, colon": Vector(raw(b"Content-Length\t: 5") + b"hello"),
    "Content-Length, blank, colon": Vector(raw(b"Content-Length : 5") + b"hello"),
    "Transfer-Encoding, blank, colon": Vector(raw(b"Transfer-Encoding : chunked") + b"0\r\n\r\n"),
    "blank before a field": Vector(raw(b"A: b", b" Content-Length: 5") + b"hello"),
    "Transfer-Encoding folded": Vector(raw(b"Transfer-Encoding:\r\n\tchunked") + b"0\r\n\r\n"),
    "Transfer-Encoding folded with a blank": Vector(raw(b"Transfer-Encoding:\r\n chunked") + b"0\r\n\r\n"),
    "fold right after the request line": Vector(raw(b"A: b", host=b" X: y\r\nHost: example.org\r\n")),
    "a line without a colon": Vector(raw(b"Transfer-Encoding chunked") + b"0\r\n\r\n"),
    "an empty field name": Vector(raw(b": chunked")),
    "LF hides a field": Vector(raw(b"X: a\nTransfer-Encoding: chunked") + b"0\r\n\r\n"),
    "CR hides a field": Vector(raw(b"X: a\rTransfer-Encoding: chunked") + b"0\r\n\r\n"),
    "NUL in a value": Vector(raw(b"X: a\0b")),
    "NUL in a name": Vector(raw(b"X\0: a")),
    "high byte in a name": Vector(raw(b"Content-Length\xa0: 5") + b"hello"),
    "underscore is no dash": Vector(raw(b"Content_Length: 5") + b"", 200),
    "LF after the method": Vector(raw(line=b"GET\n / HTTP/1.1")),
    "LF ends the request line": Vector(b"GET / HTTP/1.1\nHost: example.org\r\n\r\n"),
    "LF LF ends the head": Vector(b"GET / HTTP/1.1\r\nHost: example.org\n\n"),
    "CR CR ends the head": Vector(b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\rX"),
    "two blanks in the request line": Vector(raw(line=b"GET  / HTTP/1.1")),
    "VT in the request line": Vector(raw(line=b"GET\x0b/ HTTP/1.1")),
    "a blank in the target": Vector(raw(line=b"GET / HTTP/1.1 HTTP/1.1")),
    "no Host": Vector(raw(host=b"")),
    "two Hosts": Vector(raw(b"Host: example.org")),
    "two different Hosts": Vector(raw(b"Host: other.org")),
    "Host is a list": Vector(raw(host=b"Host: a, b\r\n")),
    "Host has a path": Vector(raw(host=b"Host: a/b\r\n")),
    "Host has userinfo": Vector(raw(host=b"Host: u@a\r\n")),
    "Host has a blank": Vector(raw(host=b"Host: a b\r\n")),
    "Host has a bad port": Vector(raw(host=b"Host: a:80x\r\n")),
    "Host, blank, colon": Vector(raw(host=b"Host : example.org\r\n")),
    "target and Host differ": Vector(raw(line=b"GET http://other.org/ HTTP/1.1")),
    "CONNECT": Vector(raw(line=b"CONNECT example.org:443 HTTP/1.1"), 501),
    "CONNECT with a path": Vector(raw(line=b"CONNECT / HTTP/1.1")),
    "* with GET": Vector(raw(line=b"GET * HTTP/1.1")),
    "HTTP/2.0": Vector(raw(line=b"GET / HTTP/2.0"), 505),
    "the preface of HTTP/2": Vector(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/0.9": Vector(b"GET /\r\n\r\n"),
    "HTTP/1.10": Vector(raw(line=b"GET / HTTP/1.10")),
    "HTTP/1.1 in lower case": Vector(raw(line=b"GET / http/1.1")),
    "chunk size ends in LF": Vector(CHUNKED + b"5\nhello\r\n0\r\n\r\n"),
    "chunk size, blank, extension": Vector(CHUNKED + b"5 ;x\r\nhello\r\n0\r\n\r\n"),
    "chunk size with a sign": Vector(CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n"),
    "chunk size 0x5": Vector(CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n"),
    "chunk size 5_0": Vector(CHUNKED + b"5_0\r\nhello\r\n0\r\n\r\n"),
    "chunk size of 17 digits": Vector(CHUNKED + b"00000000000000005\r\nhello\r\n0\r\n\r\n"),
    "chunk size that overflows": Vector(CHUNKED + b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
    "no chunk size": Vector(CHUNKED + b"\r\nhello\r\n0\r\n\r\n"),
    "LF in a chunk extension": Vector(CHUNKED + b"5;a\nGET / HTTP/1.1\r\nhello\r\n0\r\n\r\n"),
    "CR in a chunk extension": Vector(CHUNKED + b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
    "LF in a quoted chunk extension": Vector(CHUNKED + b'5;a="\n"\r\nhello\r\n0\r\n\r\n'),
    "bytes between chunk and CRLF": Vector(CHUNKED + b"5\r\nhello!\r\n0\r\n\r\n"),
    "no CRLF after a chunk": Vector(CHUNKED + b"5\r\nhello0\r\n\r\n"),
    "LF after a chunk": Vector(CHUNKED + b"5\r\nhello\n0\r\n\r\n"),
    "LF ends the last chunk": Vector(CHUNKED + b"5\r\nhello\r\n0\n\r\n"),
    "LF ends the trailers": Vector(CHUNKED + b"0\r\nA: b\n\n"),
    "a bomb of semicolons": Vector(CHUNKED + b"5" + b";" * 20_000 + b"\r\nhello\r\n0\r\n\r\n"),
    "a long chunk extension": Vector(CHUNKED + b"5;a=" + b"b" * 20_000 + b"\r\nhello\r\n0\r\n\r\n"),
    "many chunk extensions": Vector(CHUNKED + (b"1;" + b"a" * 900 + b"\r\nx\r\n") * 100 + b"0\r\n\r\n"),
    "Content-Length in the trailers": Vector(CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n"),
    "Transfer-Encoding in the trailers": Vector(CHUNKED + b"0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "Host in the trailers": Vector(CHUNKED + b"0\r\nHost: other.org\r\n\r\n"),
    "Authorization in the trailers": Vector(CHUNKED + b"0\r\nAuthorization: Basic eA==\r\n\r\n"),
    "a folded trailer": Vector(CHUNKED + b"0\r\nA: b\r\n c\r\n\r\n"),
    "a trailer without a colon": Vector(CHUNKED + b"0\r\nA b\r\n\r\n"),
    "TLS": Vector(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 100),
    "an LF first": Vector(b"\n" + raw(line=b"GET / HTTP/1.1")),
    "a blank first": Vector(b" " + raw(line=b"GET / HTTP/1.1")),
    "a NUL first": Vector(b"\0" + raw(line=b"GET / HTTP/1.1")),
}


@pytest.mark.parametrize("name", [name for name in VECTORS if VECTORS[name].status != 200])
@in_loop
async def test_refused(name: str, parser: str) -> None:
    data, status = VECTORS[name]
    for split in (len(data), len(data) // 2, 1):
        app = Noting()
        peer = connect(app, parser)
        peer.feed(data[:split])
        peer.feed(data[split:] + SMUGGLED)
        peer.feed(SMUGGLED)
        await peer.settle()
        peer.feed_eof()
        answer = await peer.answer()
        assert (answer.status, answer.closes) == (status, True)
        assert [body for _, _, body in app.seen] in ([], [None])
        assert peer.transport.ended
        assert peer.closed


@in_loop
async def test_a_field_name_with_an_underscore_says_nothing_about_the_body(parser: str) -> None:
    app = Noting()
    peer = connect(app, parser)
    peer.feed(VECTORS["underscore is no dash"].data + get("/next"))
    await peer.settle()
    assert app.seen == [("POST", "/", b""), ("GET", "/next", b"")]


@pytest.mark.parametrize("more", [(), (b"Content-Length: 2",)], ids=["GET", "POST"])
@in_loop
async def test_a_request_without_fields_is_refused_whatever_came_before(more: tuple[bytes, ...], parser: str) -> None:
    app = Noting()
    peer = connect(app, parser)
    for number in range(3):
        peer.feed(raw(b"X: 1", b"Cookie: %d" % number, *more) + b"ab" * len(more))
    await peer.settle()
    assert len(app.seen) == 3
    peer.feed(b"GET /admin HTTP/1.1\r\n\r\n")
    answers = await peer.answers("POST", "POST", "POST", "GET")
    assert [answer.status for answer in answers] == [200, 200, 200, 400]
    assert len(app.seen) == 3


KIT = {"max_header_size": 2048, "max_headers": 20}


@pytest.mark.parametrize("vector", REFUSED, ids=[f"{n}-{vector.why}" for n, vector in enumerate(REFUSED)])
@in_loop
async def test_every_vector_of_the_kit_is_refused_by_the_server(vector: Refused, parser: str) -> None:
    app = Noting()
    peer = connect(app, parser, **KIT)
    peer.feed(vector.data + SMUGGLED)
    answer = await peer.answer()
    assert (answer.status, answer.closes) == (vector.status, True)
    assert answer.headers["x-pounce-error-code"] == "POUNCE_PARSE_" + vector.code
    assert [body for _, _, body in app.seen] in ([], [None])
    assert peer.transport.ended


@pytest.mark.parametrize("vector", ACCEPTED, ids=[str(n) for n in range(len(ACCEPTED))])
@in_loop
async def test_every_request_of_the_kit_is_served(vector: Accepted, parser: str) -> None:
    app = Noting()
    peer = connect(app, parser, **KIT)
    peer.feed(vector.data + (get("/next") if vector.keep_alive and vector.upgrade != b"websocket" else b""))
    answers = await peer.answers(vector.method.decode())
    if vector.upgrade == b"websocket":
        assert [answer.status for answer in answers] == [400]
        return
    expected = [(vector.method.decode(), vector.body)] + [("GET", b"")] * vector.keep_alive
    assert [(method, body) for method, _, body in app.seen] == expected
    assert [answer.status for answer in answers] == [200] * len(expected)


# What the answer to an error says


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize(
    "data",
    [
        raw(line=b"GET /<script>MARK HTTP/1.1 x"),
        raw(line=b"MARK(<script> / HTTP/1.1"),
        raw(b"MARK<script>"),
        raw(b"X: MARK<script>\x01"),
        raw(host=b"Host: MARK<script>\r\n"),
        raw(b"Expect: MARK<script>"),
        raw(b"Content-Length: MARK<script>"),
        raw(b"Transfer-Encoding: MARK"),
        CHUNKED + b"MARK<script>\r\n",
        CHUNKED + b"0\r\nMARK<script>\r\n\r\n",
        b"GET /" + b"MARK" * 30_000 + b" HTTP/1.1\r\n\r\n",
        raw(b"Content-Length: 99999999", b"X: MARK"),
    ],
)
@in_loop
async def test_answers_to_errors_do_not_repeat_what_was_sent(data: bytes, debug: bool, parser: str) -> None:
    peer = connect(Noting(), parser, debug=debug)
    peer.feed(data)
    answer = await peer.answer()
    assert answer.status >= 400
    assert b"MARK" not in peer.received.upper()
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-pounce-error-code"].startswith("POUNCE_")


@in_loop
async def test_an_error_names_its_code_and_only_with_debug_its_reason(parser: str) -> None:
    for debug, expected in ((False, b"Bad Request"), (True, b"POUNCE_PARSE_BAD_HOST")):
        peer = connect(Noting(), parser, debug=debug)
        peer.feed(raw(host=b"Host: a/b\r\n"))
        answer = await peer.answer()
        assert answer.headers["x-pounce-error-code"] == "POUNCE_PARSE_BAD_HOST"
        assert expected in answer.body


@in_loop
async def test_each_kind_of_error_has_a_code_of_its_own_and_is_counted(parser: str) -> None:
    codes = set()
    for data in (
        raw(b"Expect: x"),
        raw(line=b"GET / HTTP/3.0"),
        raw(host=b"Host: a/b\r\n"),
        post_chunked(fields=("Content-Length: 1",)),
    ):
        peer = connect(Noting(), parser)
        peer.feed(data)
        code = (await peer.answer()).headers["x-pounce-error-code"]
        assert peer.service.counts[code] == 1
        codes.add(code)
    assert len(codes) == 4
