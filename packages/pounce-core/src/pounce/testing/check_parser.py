"""check_parser: proves an HTTP/1.1 parser against the rules every parser of this server keeps.

Each vector is fed in one piece, byte by byte, split at every position, cut off at every position and, where it is
valid, with another request behind it. The verdict must be the same every time.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from pounce.contract.head import Headers, RequestHead
from pounce.errors import BadRequest
from pounce.plugin import EndOfBody, Parser, ParserLimits

__all__ = ["ACCEPTED", "REFUSED", "Accepted", "Refused", "check_parser", "read_all"]

LIMITS = ParserLimits(max_header_size=2048, max_headers=20)


class Accepted(NamedTuple):
    """A request that must be understood, and what of it."""

    data: bytes
    method: bytes = b"GET"
    target: bytes = b"/"
    version: str = "1.1"
    body: bytes = b""
    trailers: Headers | None = None
    keep_alive: bool = True
    upgrade: bytes | None = None
    expect_continue: bool = False


class Refused(NamedTuple):
    """Bytes that must be refused, why, and with which code, after `POUNCE_PARSE_`, and status."""

    data: bytes
    why: str
    code: str
    status: int = 400


H = b"Host: example.org\r\n"
CHUNKED = b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n"


def _get(fields: bytes, line: bytes = b"GET / HTTP/1.1") -> bytes:
    return line + b"\r\n" + H + fields + b"\r\n"


ACCEPTED = (
    Accepted(_get(b"")),
    Accepted(b"\r\n\r\n" + _get(b"")),
    Accepted(_get(b"A:1\r\nB: \t 2\t \r\nC:\r\nD: a: b\r\nE: \xc3\xa9\tx\r\n")),
    Accepted(_get(b"", b"GET /a%20b?c=d&e=%00 HTTP/1.1"), target=b"/a%20b?c=d&e=%00"),
    Accepted(_get(b"", b"M-SEARCH! * HTTP/1.1").replace(b"*", b"/x"), method=b"M-SEARCH!", target=b"/x"),
    Accepted(_get(b"", b"OPTIONS * HTTP/1.1"), method=b"OPTIONS", target=b"*"),
    Accepted(_get(b"", b"GET http://example.org/x?y HTTP/1.1"), target=b"http://example.org/x?y"),
    Accepted(b"GET / HTTP/1.1\r\nHost: [2001:db8::1]:8080\r\n\r\n"),
    Accepted(b"GET / HTTP/1.1\r\nHost:\r\n\r\n"),
    Accepted(_get(b"", b"GET / HTTP/1.2")),
    Accepted(b"GET / HTTP/1.0\r\n\r\n", version="1.0", keep_alive=False),
    Accepted(b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", version="1.0"),
    Accepted(_get(b"Connection: close\r\n"), keep_alive=False),
    Accepted(_get(b"Connection: x, Close\r\n"), keep_alive=False),
    Accepted(_get(b"Connection: Upgrade\r\nUpgrade: WebSocket\r\n"), upgrade=b"websocket"),
    Accepted(_get(b"Upgrade: websocket\r\n")),
    Accepted(b"GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", version="1.0", keep_alive=False),
    Accepted(_get(b"Content-Length: 0\r\n")),
    Accepted(_get(b"Content-Length: 5\r\n", b"POST / HTTP/1.1") + b"hello", method=b"POST", body=b"hello"),
    Accepted(_get(b"Content-Length: 0005\r\n", b"PUT / HTTP/1.1") + b"a\r\nb\n", method=b"PUT", body=b"a\r\nb\n"),
    Accepted(
        _get(b"Content-Length: 2\r\nExpect: 100-Continue\r\n", b"POST / HTTP/1.1") + b"ok",
        method=b"POST",
        body=b"ok",
        expect_continue=True,
    ),
    Accepted(CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", method=b"POST", body=b"hello"),
    Accepted(CHUNKED + b"A\r\n0123456789\r\n1\r\nx\r\n000\r\n\r\n", method=b"POST", body=b"0123456789x"),
    Accepted(CHUNKED + b'3;a;b=c;d="e f\\"g"\r\nabc\r\n0;x=y\r\n\r\n', method=b"POST", body=b"abc"),
    Accepted(
        CHUNKED + b"3\r\nabc\r\n0\r\nChecksum: 9\r\nX: y\r\n\r\n",
        method=b"POST",
        body=b"abc",
        trailers=[(b"checksum", b"9"), (b"x", b"y")],
    ),
    Accepted(_get(b"Transfer-Encoding: CHUNKED\r\n", b"POST / HTTP/1.1") + b"0\r\n\r\n", method=b"POST"),
)

REFUSED = (
    # Lines (RFC 9112 2.2, 3)
    Refused(_get(b"").replace(b"\r\n", b"\n"), "bare LF ends lines", "BAD_LINE_END"),
    Refused(_get(b"A: b\nC: d\r\n"), "bare LF in a header", "BAD_LINE_END"),
    Refused(_get(b"A: b\rC: d\r\n"), "bare CR in a header", "BAD_LINE_END"),
    Refused(_get(b"A: b\r\r\n"), "CR CR LF", "BAD_LINE_END"),
    Refused(b"GET / HTTP/1.1\r\n" + H + b"\r\rX", "CR LF CR CR", "BAD_LINE_END"),
    Refused(b"GET / HTTP/1.1\r\n" + H + b"\r\n"[:1] + b"\rX\r\n\r\n", "CR CR within the head", "BAD_LINE_END"),
    Refused(b"\n" + _get(b""), "LF before the request line", "MALFORMED_REQUEST_LINE"),
    Refused(_get(b"", b"GET  / HTTP/1.1"), "two blanks", "MALFORMED_REQUEST_LINE"),
    Refused(_get(b"", b"GET / HTTP/1.1 "), "blank at the end", "MALFORMED_REQUEST_LINE"),
    Refused(_get(b"", b" GET / HTTP/1.1"), "blank at the start", "MALFORMED_REQUEST_LINE"),
    Refused(_get(b"", b"GET\t/\tHTTP/1.1"), "tabs", "MALFORMED_REQUEST_LINE"),
    Refused(_get(b"", b"GET /"), "no version", "MALFORMED_REQUEST_LINE"),
    Refused(_get(b"", b"GET / a HTTP/1.1"), "blank in the target", "MALFORMED_REQUEST_LINE"),
    Refused(_get(b"", b"GET\n / HTTP/1.1"), "LF after the method", "BAD_LINE_END"),
    Refused(_get(b"", b"G(T / HTTP/1.1"), "method is no token", "MALFORMED_REQUEST_LINE"),
    Refused(_get(b"", b"GET /\x7f HTTP/1.1"), "control in the target", "MALFORMED_REQUEST_LINE"),
    Refused(_get(b"", b"GET /\xff HTTP/1.1"), "high byte in the target", "MALFORMED_REQUEST_LINE"),
    Refused(_get(b"", b"GET / http/1.1"), "version in lower case", "MALFORMED_REQUEST_LINE"),
    Refused(_get(b"", b"GET / HTTP/1.10"), "two digits", "MALFORMED_REQUEST_LINE"),
    Refused(_get(b"", b"GET / HTTP/1.x"), "no digit", "MALFORMED_REQUEST_LINE"),
    Refused(_get(b"", b"GET / HTTP/2.0"), "another major version", "BAD_VERSION", 505),
    Refused(_get(b"", b"GET / HTTP/0.9"), "another major version", "BAD_VERSION", 505),
    Refused(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "TLS where none is spoken", "MALFORMED_REQUEST_LINE"),
    # Targets (RFC 9112 3.2)
    Refused(_get(b"", b"GET * HTTP/1.1"), "* with GET", "BAD_TARGET"),
    Refused(_get(b"", b"GET x HTTP/1.1"), "relative target", "BAD_TARGET"),
    Refused(_get(b"", b"GET example.org:80 HTTP/1.1"), "authority with GET", "BAD_TARGET"),
    Refused(_get(b"", b"CONNECT / HTTP/1.1"), "CONNECT with a path", "BAD_TARGET"),
    Refused(_get(b"", b"CONNECT example.org:80 HTTP/1.1"), "CONNECT", "CONNECT", 501),
    Refused(_get(b"", b"GET http://other.org/ HTTP/1.1"), "authority differs from Host", "BAD_HOST"),
    Refused(_get(b"", b"GET http://user@example.org/ HTTP/1.1"), "userinfo", "BAD_TARGET"),
    Refused(_get(b"", b"GET http:/// HTTP/1.1"), "no authority", "BAD_TARGET"),
    Refused(_get(b"", b"GET /a#b HTTP/1.1"), "fragment", "BAD_TARGET"),
    # Host (RFC 9112 3.2)
    Refused(b"GET / HTTP/1.1\r\n\r\n", "no Host", "NO_HOST"),
    Refused(_get(H), "two Hosts", "DUPLICATE_HOST"),
    Refused(b"GET / HTTP/1.0\r\n" + H + H + b"\r\n", "two Hosts in HTTP/1.0", "DUPLICATE_HOST"),
    Refused(b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", "list", "BAD_HOST"),
    Refused(b"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", "list", "BAD_HOST"),
    Refused(b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "path", "BAD_HOST"),
    Refused(b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", "userinfo", "BAD_HOST"),
    Refused(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "blank", "BAD_HOST"),
    Refused(b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", "port is no number", "BAD_HOST"),
    # Fields (RFC 9112 5)
    Refused(_get(b"no colon\r\n"), "no colon", "BAD_HEADER"),
    Refused(_get(b": x\r\n"), "no name", "BAD_HEADER"),
    Refused(_get(b"A : x\r\n"), "blank before the colon", "BAD_HEADER"),
    Refused(_get(b"A\t: x\r\n"), "tab before the colon", "BAD_HEADER"),
    Refused(_get(b"A(: x\r\n"), "name is no token", "BAD_HEADER"),
    Refused(_get(b"A: x\r\n y\r\n"), "obs-fold", "BAD_HEADER"),
    Refused(b"GET / HTTP/1.1\r\n" + b" A: x\r\n" + H + b"\r\n", "first field is folded", "BAD_HEADER"),
    Refused(_get(b"A: x\0y\r\n"), "NUL", "BAD_HEADER"),
    Refused(_get(b"A: x\x01y\r\n"), "control", "BAD_HEADER"),
    Refused(_get(b"A: x\x7fy\r\n"), "DEL", "BAD_HEADER"),
    Refused(_get(b"A: x\x0by\r\n"), "VT", "BAD_HEADER"),
    Refused(_get(b"Expect: a-miracle\r\n"), "expectation", "BAD_EXPECT", 417),
    # Content-Length (RFC 9110 8.6)
    *(
        Refused(
            _get(b"Content-Length:" + value + b"\r\n", b"POST / HTTP/1.1") + b"0123456789",
            "no number",
            "BAD_CONTENT_LENGTH",
        )
        for value in (
            b" +5",
            b" -5",
            b" 1_0",
            b" 0x5",
            b" 5 5",
            b" 5, 5",
            b"5: x",
            b"",
            b" 5.0",
            b" " + b"1" * 20,
            b" \xb2",
        )
    ),
    Refused(
        _get(b"Content-Length: 5\r\nContent-Length: 5\r\n", b"POST / HTTP/1.1") + b"hello",
        "given twice",
        "DUPLICATE_CONTENT_LENGTH",
    ),
    Refused(
        _get(b"Content-Length: 5\r\nContent-Length: 6\r\n", b"POST / HTTP/1.1") + b"hello!",
        "two values",
        "DUPLICATE_CONTENT_LENGTH",
    ),
    Refused(_get(b"Content-Length : 5\r\n", b"POST / HTTP/1.1") + b"hello", "blank before the colon", "BAD_HEADER"),
    Refused(_get(b"Content-Length\t: 5\r\n", b"POST / HTTP/1.1") + b"hello", "tab before the colon", "BAD_HEADER"),
    # Transfer-Encoding (RFC 9112 6.1)
    *(
        Refused(
            _get(b"Transfer-Encoding:" + value + b"\r\n", b"POST / HTTP/1.1") + b"0\r\n\r\n", "coding", code, status
        )
        for value, code, status in (
            *(
                (value, "BAD_TRANSFER_ENCODING", 400)
                for value in (
                    b" identity",
                    b" gzip",
                    b" xchunked",
                    b" chunked, identity",
                    b" gzip, identity",
                    b" chunked;x",
                    b" chunked;x=y",
                    b"chunked;x: y",
                    b" chunked, chunked",
                    b" chunked, gzip, chunked",
                    b" chunked,",
                    b" ,chunked",
                    b" gzip,, chunked",
                    b" gzip x, chunked",
                    b" gzip;x, chunked",
                    b"",
                    b"\r\nTransfer-Encoding: chunked",
                    b" chunked\r\nTransfer-Encoding: gzip",
                )
            ),
            (b" gzip, chunked", "UNKNOWN_TRANSFER_CODING", 501),
            (b" gzip,chunked", "UNKNOWN_TRANSFER_CODING", 501),
            (b" x, gzip, CHUNKED", "UNKNOWN_TRANSFER_CODING", 501),
            (b" identity, chunked", "UNKNOWN_TRANSFER_CODING", 501),
            (b' x;a=b ; c="d", chunked', "UNKNOWN_TRANSFER_CODING", 501),
            (b" gzip\r\nTransfer-Encoding: chunked", "UNKNOWN_TRANSFER_CODING", 501),
            (b"\r\n\tchunked", "BAD_HEADER", 400),
        )
    ),
    Refused(
        _get(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"POST / HTTP/1.1") + b"0\r\n\r\n",
        "twice",
        "BAD_TRANSFER_ENCODING",
    ),
    Refused(
        _get(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"POST / HTTP/1.1") + b"0\r\n\r\n",
        "with length",
        "SMUGGLING_CL_TE",
    ),
    Refused(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "in HTTP/1.0", "BAD_TRANSFER_ENCODING"),
    Refused(
        _get(b"X: a\nTransfer-Encoding: chunked\r\n", b"POST / HTTP/1.1") + b"0\r\n\r\n",
        "hidden by a bare LF",
        "BAD_LINE_END",
    ),
    # Chunks (RFC 9112 7.1)
    *(
        Refused(CHUNKED + body, "chunk", "BAD_CHUNK")
        for body in (
            b"5\nhello\r\n0\r\n\r\n",
            b"5 ;x\r\nhello\r\n0\r\n\r\n",
            b"5 \r\nhello\r\n0\r\n\r\n",
            b" 5\r\nhello\r\n0\r\n\r\n",
            b"5; x\r\nhello\r\n0\r\n\r\n",
            b"5;\r\nhello\r\n0\r\n\r\n",
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"5_0\r\nhello\r\n0\r\n\r\n",
            b"g\r\nhello\r\n0\r\n\r\n",
            b"\r\nhello\r\n0\r\n\r\n",
            b"-1\r\nhello\r\n0\r\n\r\n",
            b"00000000000000005\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhelloX\r\n0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhello0\r\n\r\n",
            b"5\r\nhello\rX0\r\n\r\n",
            b"5;a=\x00\r\nhello\r\n0\r\n\r\n",
            b"5;a=b\nc\r\nhello\r\n0\r\n\r\n",
            b"5;a=b\rc\r\nhello\r\n0\r\n\r\n",
            b"5;" + b"x" * 5000 + b"\r\nhello\r\n0\r\n\r\n",
        )
    ),
    Refused(
        CHUNKED + (b"1;" + b"x" * 900 + b"\r\nx\r\n") * 40 + b"0\r\n\r\n", "extensions outweigh data", "CHUNK_OVERHEAD"
    ),
    # Trailers (RFC 9110 6.5.1)
    Refused(CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n", "framing in a trailer", "BAD_TRAILER"),
    Refused(CHUNKED + b"0\r\nHost: x\r\n\r\n", "routing in a trailer", "BAD_TRAILER"),
    Refused(CHUNKED + b"0\r\nAuthorization: x\r\n\r\n", "authentication in a trailer", "BAD_TRAILER"),
    Refused(CHUNKED + b"0\r\nA: b\n\r\n\r\n", "bare LF in a trailer", "BAD_LINE_END"),
    Refused(CHUNKED + b"0\r\n A: b\r\n\r\n", "folded trailer", "BAD_HEADER"),
    Refused(CHUNKED + b"0\r\nA : b\r\n\r\n", "blank before the colon", "BAD_HEADER"),
    # Limits
    Refused(_get(b"A: b\r\n" * 20), "too many fields", "TOO_MANY_HEADERS", 431),
    Refused(_get(b"A: " + b"b" * 3000 + b"\r\n"), "fields too large", "HEADERS_TOO_LARGE", 431),
    Refused(_get(b"", b"GET /" + b"a" * 3000 + b" HTTP/1.1"), "target too long", "TARGET_TOO_LONG", 414),
    Refused(CHUNKED + b"0\r\n" + b"A: b\r\n" * 21 + b"\r\n", "too many trailers", "TOO_MANY_HEADERS", 431),
    Refused(CHUNKED + b"0\r\nA: " + b"b" * 3000 + b"\r\n\r\n", "trailers too large", "HEADERS_TOO_LARGE", 431),
    # Methods (RFC 9112 3)
    Refused(_get(b"", b"M" * 33 + b" / HTTP/1.1"), "method too long", "METHOD_TOO_LONG", 501),
    Refused(b"M" * 33, "method too long and not ended", "METHOD_TOO_LONG", 501),
    Refused(b"\r\n" + b"m" * 5000, "method longer than a head", "METHOD_TOO_LONG", 501),
    # Two faults: the one that shows first while bytes arrive, then request line, number of fields, fields, meaning.
    Refused(_get(b"", b"M" * 33 + b"(/ HTTP/9.9\n"), "method too long, bare LF", "METHOD_TOO_LONG", 501),
    Refused(b"\n" + b"M" * 33, "LF first, method too long", "MALFORMED_REQUEST_LINE"),
    Refused(_get(b"A : b\r\nC: d\n\r\n", b"GET  / HTTP/1.1"), "blanks, bare LF", "BAD_LINE_END"),
    Refused(_get(b"A: b\rc\r\nD: " + b"d" * 3000 + b"\r\n"), "bare CR, too large", "BAD_LINE_END"),
    Refused(_get(b"D: " + b"d" * 3000 + b"\r\nA: b\rc\r\n"), "too large, bare CR", "HEADERS_TOO_LARGE", 431),
    Refused(_get(b"", b"GET /" + b"a" * 3000 + b"\n HTTP/1.1"), "target too long, bare LF", "TARGET_TOO_LONG", 414),
    Refused(b"GET / HTTP/2.0\r\nHost : a\r\n\r\n", "another major version, blank before the colon", "BAD_VERSION", 505),
    Refused(b"GET  / HTTP/2.0\r\n\r\n", "two blanks, another major version", "MALFORMED_REQUEST_LINE"),
    Refused(_get(b"A : b\r\n" * 20), "too many fields, none valid", "TOO_MANY_HEADERS", 431),
    Refused(b"GET x HTTP/1.1\r\nA : b\r\n\r\n", "relative target, no Host, no name", "BAD_HEADER"),
    Refused(_get(b"Content-Length: x\r\nA(: b\r\n"), "no number, name is no token", "BAD_HEADER"),
    Refused(_get(b"Content-Length: 5\r\nContent-Length: 5\r\nA: \x01\r\n"), "given twice, control", "BAD_HEADER"),
    Refused(_get(b"Transfer-Encoding: gzip\r\n" + H), "coding, two Hosts", "DUPLICATE_HOST"),
    Refused(b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "coding, no Host", "NO_HOST"),
    Refused(b"GET / HTTP/1.1\r\nExpect: x\r\n\r\n", "expectation, no Host", "BAD_EXPECT", 417),
    Refused(_get(b"Transfer-Encoding: gzip\r\nContent-Length: 5\r\n"), "coding, length", "BAD_TRANSFER_ENCODING"),
    Refused(
        _get(b"Transfer-Encoding: chunked\r\nContent-Length: x\r\n"), "with length that is no number", "SMUGGLING_CL_TE"
    ),
    Refused(b"CONNECT a:80 HTTP/1.1\r\nHost: a,b\r\n\r\n", "CONNECT, list", "BAD_HOST"),
    Refused(CHUNKED + b"0\r\nHost: x\r\nA : b\r\n\r\n", "routing in a trailer, no name", "BAD_HEADER"),
    Refused(CHUNKED + b"0\r\nHost: x\r\nA: b\n\r\n", "routing in a trailer, bare LF", "BAD_LINE_END"),
    Refused(
        CHUNKED + b"0\r\n" + b"Host: x\r\n" * 21 + b"\r\n", "too many of routing in a trailer", "TOO_MANY_HEADERS", 431
    ),
)

NEXT = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n"


class Read(NamedTuple):
    """What a parser made of some bytes: requests as (head, body, trailers), complete or not, and the error, if any."""

    requests: list[tuple[RequestHead, bytes, Headers | None]]
    complete: bool
    error: BadRequest | None


def read_all(parser: Parser, pieces: Iterator[bytes] | list[bytes], by_events: bool = False) -> Read:
    """Feed a parser and take every event it has, and all at once what it has so, unless `by_events`."""
    take_body = None if by_events else getattr(parser, "take_body", None)
    first_event = None if by_events else getattr(parser, "first_event", None)
    requests: list[tuple[RequestHead, bytes, Headers | None]] = []
    complete = True
    for piece in pieces:
        first: Callable[[bytes], RequestHead | bytes | EndOfBody | None] | None = None
        if first_event is not None and piece and complete and not parser.buffered:
            first = first_event
        else:
            parser.receive_data(piece)
        while True:
            try:
                event = parser.next_event() if first is None else first(piece)
                first = None
            except BadRequest as error:
                return Read(requests, complete, error)
            if event is None:
                break
            if isinstance(event, RequestHead):
                requests.append((event, b"", None))
                complete = event.content_length == 0
                if not complete and take_body is not None and (body := take_body()) is not None:
                    requests[-1] = (event, body, None)
                    complete = True
            elif isinstance(event, EndOfBody):
                head, body, _ = requests[-1]
                requests[-1] = (head, body, event.trailers)
                complete = True
            else:
                assert event, "an empty piece of body"
                head, body, _ = requests[-1]
                requests[-1] = (head, body + event, None)
    return Read(requests, complete, None)


def check_parser(create: Callable[[ParserLimits], Parser]) -> int:
    """Prove the parser that `create` makes; returns how many feedings it took.

    Raises `AssertionError` naming the vector and the way it was fed.
    """
    count = 0
    for accepted in ACCEPTED:
        for how, pieces in _feedings(accepted.data):
            _check_accepted(accepted, read_all(create(LIMITS), pieces), 1, how)
            count += 1
        _check_accepted(accepted, read_all(create(LIMITS), [accepted.data], by_events=True), 1, "by events")
        count += 1
        _check_accepted(accepted, read_all(create(LIMITS), [accepted.data + NEXT]), 2, "with the next attached")
        for cut in range(len(accepted.data)):
            read = read_all(create(LIMITS), [accepted.data[:cut]])
            assert read.error is None, f"{accepted.data!r} cut at {cut}: refused, {read.error}"
            assert not (read.requests and read.complete), f"{accepted.data!r} cut at {cut}: taken for complete"
            count += 1
    for refused in REFUSED:
        for how, pieces in _feedings(refused.data):
            read = read_all(create(LIMITS), pieces)
            assert read.error is not None, f"{refused.why}: {refused.data!r} {how}: accepted as {read.requests}"
            verdict = (read.error.status, read.error.code.removeprefix("POUNCE_PARSE_"))
            assert verdict == (refused.status, refused.code), (
                f"{refused.why}: {refused.data!r} {how}: {verdict}, not {refused.status}, {refused.code}"
            )
            count += 1
    return count


def _feedings(data: bytes) -> Iterator[tuple[str, list[bytes]]]:
    yield "in one piece", [data]
    yield "byte by byte", [data[at : at + 1] for at in range(len(data))]
    step = 1 if len(data) <= 400 else len(data) // 200
    for at in range(1, len(data), step):
        yield f"split at {at}", [data[:at], data[at:]]


def _check_accepted(accepted: Accepted, read: Read, count: int, how: str) -> None:
    where = f"{accepted.data!r} {how}"
    assert read.error is None, f"{where}: refused, {read.error}"
    assert read.complete, f"{where}: not complete"
    assert len(read.requests) == count, f"{where}: {len(read.requests)} requests"
    head, body, trailers = read.requests[0]
    for name in ("method", "target", "version", "keep_alive", "upgrade", "expect_continue"):
        assert getattr(head, name) == getattr(accepted, name), f"{where}: {name} is {getattr(head, name)!r}"
    assert body == accepted.body, f"{where}: body is {body!r}"
    assert trailers == accepted.trailers, f"{where}: trailers are {trailers!r}"
    assert all(name == name.lower() for name, _ in head.headers), f"{where}: names are not in lower case"
    assert all(value == value.strip(b" \t") for _, value in head.headers), f"{where}: values keep their blanks"
