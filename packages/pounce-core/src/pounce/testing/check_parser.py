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
    """Bytes that must be refused, with which status, and why."""

    data: bytes
    why: str
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
    Refused(_get(b"").replace(b"\r\n", b"\n"), "bare LF ends lines"),
    Refused(_get(b"A: b\nC: d\r\n"), "bare LF in a header"),
    Refused(_get(b"A: b\rC: d\r\n"), "bare CR in a header"),
    Refused(_get(b"A: b\r\r\n"), "CR CR LF"),
    Refused(b"GET / HTTP/1.1\r\n" + H + b"\r\rX", "CR LF CR CR"),
    Refused(b"GET / HTTP/1.1\r\n" + H + b"\r\n"[:1] + b"\rX\r\n\r\n", "CR CR within the head"),
    Refused(b"\n" + _get(b""), "LF before the request line"),
    Refused(_get(b"", b"GET  / HTTP/1.1"), "two blanks"),
    Refused(_get(b"", b"GET / HTTP/1.1 "), "blank at the end"),
    Refused(_get(b"", b" GET / HTTP/1.1"), "blank at the start"),
    Refused(_get(b"", b"GET\t/\tHTTP/1.1"), "tabs"),
    Refused(_get(b"", b"GET /"), "no version"),
    Refused(_get(b"", b"GET / a HTTP/1.1"), "blank in the target"),
    Refused(_get(b"", b"GET\n / HTTP/1.1"), "LF after the method"),
    Refused(_get(b"", b"G(T / HTTP/1.1"), "method is no token"),
    Refused(_get(b"", b"GET /\x7f HTTP/1.1"), "control in the target"),
    Refused(_get(b"", b"GET /\xff HTTP/1.1"), "high byte in the target"),
    Refused(_get(b"", b"GET / http/1.1"), "version in lower case"),
    Refused(_get(b"", b"GET / HTTP/1.10"), "two digits"),
    Refused(_get(b"", b"GET / HTTP/1.x"), "no digit"),
    Refused(_get(b"", b"GET / HTTP/2.0"), "another major version", 505),
    Refused(_get(b"", b"GET / HTTP/0.9"), "another major version", 505),
    Refused(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "TLS where none is spoken"),
    # Targets (RFC 9112 3.2)
    Refused(_get(b"", b"GET * HTTP/1.1"), "* with GET"),
    Refused(_get(b"", b"GET x HTTP/1.1"), "relative target"),
    Refused(_get(b"", b"GET example.org:80 HTTP/1.1"), "authority with GET"),
    Refused(_get(b"", b"CONNECT / HTTP/1.1"), "CONNECT with a path"),
    Refused(_get(b"", b"CONNECT example.org:80 HTTP/1.1"), "CONNECT", 501),
    Refused(_get(b"", b"GET http://other.org/ HTTP/1.1"), "authority differs from Host"),
    Refused(_get(b"", b"GET http://user@example.org/ HTTP/1.1"), "userinfo"),
    Refused(_get(b"", b"GET http:/// HTTP/1.1"), "no authority"),
    Refused(_get(b"", b"GET /a#b HTTP/1.1"), "fragment"),
    # Host (RFC 9112 3.2)
    Refused(b"GET / HTTP/1.1\r\n\r\n", "no Host"),
    Refused(_get(H), "two Hosts"),
    Refused(b"GET / HTTP/1.0\r\n" + H + H + b"\r\n", "two Hosts in HTTP/1.0"),
    Refused(b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", "list"),
    Refused(b"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", "list"),
    Refused(b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "path"),
    Refused(b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", "userinfo"),
    Refused(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "blank"),
    Refused(b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", "port is no number"),
    # Fields (RFC 9112 5)
    Refused(_get(b"no colon\r\n"), "no colon"),
    Refused(_get(b": x\r\n"), "no name"),
    Refused(_get(b"A : x\r\n"), "blank before the colon"),
    Refused(_get(b"A\t: x\r\n"), "tab before the colon"),
    Refused(_get(b"A(: x\r\n"), "name is no token"),
    Refused(_get(b"A: x\r\n y\r\n"), "obs-fold"),
    Refused(b"GET / HTTP/1.1\r\n" + b" A: x\r\n" + H + b"\r\n", "first field is folded"),
    Refused(_get(b"A: x\0y\r\n"), "NUL"),
    Refused(_get(b"A: x\x01y\r\n"), "control"),
    Refused(_get(b"A: x\x7fy\r\n"), "DEL"),
    Refused(_get(b"A: x\x0by\r\n"), "VT"),
    Refused(_get(b"Expect: a-miracle\r\n"), "expectation", 417),
    # Content-Length (RFC 9110 8.6)
    *(
        Refused(_get(b"Content-Length:" + value + b"\r\n", b"POST / HTTP/1.1") + b"0123456789", "no number")
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
    Refused(_get(b"Content-Length: 5\r\nContent-Length: 5\r\n", b"POST / HTTP/1.1") + b"hello", "given twice"),
    Refused(_get(b"Content-Length: 5\r\nContent-Length: 6\r\n", b"POST / HTTP/1.1") + b"hello!", "two values"),
    Refused(_get(b"Content-Length : 5\r\n", b"POST / HTTP/1.1") + b"hello", "blank before the colon"),
    Refused(_get(b"Content-Length\t: 5\r\n", b"POST / HTTP/1.1") + b"hello", "tab before the colon"),
    # Transfer-Encoding (RFC 9112 6.1)
    *(
        Refused(_get(b"Transfer-Encoding:" + value + b"\r\n", b"POST / HTTP/1.1") + b"0\r\n\r\n", "coding", status)
        for value, status in (
            (b" identity", 501),
            (b" gzip", 501),
            (b" xchunked", 501),
            (b" chunked, identity", 501),
            (b" gzip, chunked", 501),
            (b" chunked;x", 400),
            (b"chunked;x: y", 400),
            (b" chunked, chunked", 400),
            (b" chunked,", 400),
            (b"", 400),
            (b"\r\n\tchunked", 400),
        )
    ),
    Refused(
        _get(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"POST / HTTP/1.1") + b"0\r\n\r\n",
        "twice",
    ),
    Refused(
        _get(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"POST / HTTP/1.1") + b"0\r\n\r\n", "with length"
    ),
    Refused(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "in HTTP/1.0"),
    Refused(_get(b"X: a\nTransfer-Encoding: chunked\r\n", b"POST / HTTP/1.1") + b"0\r\n\r\n", "hidden by a bare LF"),
    # Chunks (RFC 9112 7.1)
    *(
        Refused(CHUNKED + body, "chunk")
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
    Refused(CHUNKED + (b"1;" + b"x" * 900 + b"\r\nx\r\n") * 40 + b"0\r\n\r\n", "extensions outweigh data"),
    # Trailers (RFC 9110 6.5.1)
    Refused(CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n", "framing in a trailer"),
    Refused(CHUNKED + b"0\r\nHost: x\r\n\r\n", "routing in a trailer"),
    Refused(CHUNKED + b"0\r\nAuthorization: x\r\n\r\n", "authentication in a trailer"),
    Refused(CHUNKED + b"0\r\nA: b\n\r\n\r\n", "bare LF in a trailer"),
    Refused(CHUNKED + b"0\r\n A: b\r\n\r\n", "folded trailer"),
    Refused(CHUNKED + b"0\r\nA : b\r\n\r\n", "blank before the colon"),
    # Limits
    Refused(_get(b"A: b\r\n" * 20), "too many fields", 431),
    Refused(_get(b"A: " + b"b" * 3000 + b"\r\n"), "fields too large", 431),
    Refused(_get(b"", b"GET /" + b"a" * 3000 + b" HTTP/1.1"), "target too long", 414),
    Refused(CHUNKED + b"0\r\n" + b"A: b\r\n" * 21 + b"\r\n", "too many trailers", 431),
    Refused(CHUNKED + b"0\r\nA: " + b"b" * 3000 + b"\r\n\r\n", "trailers too large", 431),
)

NEXT = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n"


class Read(NamedTuple):
    """What a parser made of some bytes: requests as (head, body, trailers), complete or not, and the error, if any."""

    requests: list[tuple[RequestHead, bytes, Headers | None]]
    complete: bool
    error: BadRequest | None


def read_all(parser: Parser, pieces: Iterator[bytes] | list[bytes]) -> Read:
    """Feed a parser and take every event it has."""
    requests: list[tuple[RequestHead, bytes, Headers | None]] = []
    complete = True
    for piece in pieces:
        parser.receive_data(piece)
        while True:
            try:
                event = parser.next_event()
            except BadRequest as error:
                return Read(requests, complete, error)
            if event is None:
                break
            if isinstance(event, RequestHead):
                requests.append((event, b"", None))
                complete = event.content_length == 0
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
            assert read.error.status == refused.status, (
                f"{refused.why}: {refused.data!r} {how}: status {read.error.status}, not {refused.status}"
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
