"""Who decides where a message ends: the body and connection rules of RFC 9112, in one place.

Requests: `request_head` turns what a parser has read into a `RequestHead`, and refuses what two readers could
understand differently, because a request that a proxy and this server delimit differently smuggles another one.
Answers: `answer_framing` is the table that says how the end of an answer is marked.

What is wrong with a request, if several things are, does not depend on who reads it, nor on the pieces in which it
came. First come faults that show while a section arrives, the one that shows first before the others: `check_section`.
Then those of a section that is all there: `refusal` and `read_trailers`, in the order of their lines. A parser may find
out in any order that something is wrong, and leaves it to these to say what.
"""

import re

from pounce.contract.head import Headers, RequestHead
from pounce.errors import BadRequest
from pounce.exchange.fields import FORBIDDEN_TRAILERS, METHOD_MAX, is_forwarding, method_too_long

__all__ = [
    "CHUNK_LINE_MAX",
    "CHUNK_OVERHEAD_MAX",
    "FORBIDDEN_TRAILERS",
    "METHOD_MAX",
    "SPECIAL_FIELDS",
    "answer_framing",
    "bad",
    "check_section",
    "chunk_line",
    "content_length",
    "empty_lines",
    "find_bad_line_end",
    "read_trailers",
    "refusal",
    "request_head",
    "too_many_fields",
    "transfer_encoding",
    "unsupported_version",
]

# RFC 9110 5.6.2
TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_token = re.compile(TOKEN).fullmatch
# RFC 9112 3: request-line = method SP request-target SP HTTP-version
_request_line = re.compile(rb"(" + TOKEN + rb") ([\x21-\x7e]+) HTTP/([0-9]\.[0-9])").fullmatch
# RFC 9110 5.5: field-value has VCHAR, obs-text, SP and HTAB, and no other byte.
_value = re.compile(rb"[\t\x20-\x7e\x80-\xff]*").fullmatch
# RFC 9112 7: transfer-coding = token *( OWS ";" OWS transfer-parameter )
_coding = re.compile(TOKEN + rb"(?:[ \t]*;[ \t]*" + TOKEN + rb"[ \t]*=[ \t]*(?:" + TOKEN + rb'|"[^",\\]*"))*').fullmatch
# RFC 3986 3.2.2 and 3.2.3, without userinfo, and without the comma that would make a list of it.
_host = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~%!$&'()*+;=]*)(?::[0-9]{0,5})?").fullmatch
_absolute = re.compile(rb"(https?)://([^/?#]*)([/?][^#]*)?", re.IGNORECASE).fullmatch
_authority = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~%!$&'()*+;=]+):[0-9]{1,5}").fullmatch
# RFC 9110 8.6: Content-Length = 1*DIGIT; 19 digits fit in 64 bits.
_digits = re.compile(rb"[0-9]{1,19}").fullmatch
# RFC 9112 7.1.1: chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] ); the "bad" blanks are
# refused, because readers are known to disagree about them.
_chunk_line = re.compile(
    rb"([0-9A-Fa-f]{1,16})((?:;"
    + TOKEN
    + rb"(?:=(?:"
    + TOKEN
    + rb'|"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"))?)*)'
).fullmatch

# RFC 9112 2.2: a bare CR or LF ends no line here. A CR at the very end may still get its LF.
_bad_line_end = re.compile(rb"(?<!\r)\n|\r(?=[^\n])").search
_empty_lines = re.compile(rb"(?:\r\n)*+").match
# A method is a token.
_starts_badly = re.compile(rb"[^!#$%&'*+\-.^_`|~0-9A-Za-z\r]|\r[^\n]").match

_long_method = re.compile(rb"[!#$%%&'*+\-.^_`|~0-9A-Za-z]{%d}" % (METHOD_MAX + 1)).match

CHUNK_LINE_MAX = 1024
"""Bytes of a chunk's first line, extensions included."""
CHUNK_OVERHEAD_MAX = 16384
"""Bytes of chunk lines beyond what fair chunking of the same data would take."""

KEEP_ALIVE = [b"keep-alive"]
_FIRST_OF_FORWARDING = b"fx"

SPECIAL_FIELDS = frozenset((b"host", b"connection", b"content-length", b"transfer-encoding", b"upgrade", b"expect"))
"""Fields that say where a request ends, and for whom it is: all that `request_head` looks at."""


def bad(message: str, specific: str, status: int = 400, hint: str | None = None) -> BadRequest:
    """A `BadRequest` with code `POUNCE_PARSE_<specific>`."""
    return BadRequest(message, status=status, code=f"POUNCE_PARSE_{specific}", hint=hint)


def unsupported_version() -> BadRequest:
    """The error for a major version other than 1 (RFC 9110 15.6.6)."""
    return bad("HTTP version is not supported", "BAD_VERSION", 505, "This server speaks HTTP/1.0 and HTTP/1.1 here.")


def find_bad_line_end(data: bytes | bytearray, start: int, end: int) -> re.Match[bytes] | None:
    """Where in `data[start:end]` a CR or LF stands alone, if anywhere (RFC 9112 2.2)."""
    pairs = data.count(b"\r\n", start, end)
    if data.count(b"\n", start, end) == pairs == data.count(b"\r", start, end):
        return None
    return _bad_line_end(data, start, end)


def empty_lines(data: bytes | bytearray, start: int = 0) -> int:
    """Where the empty lines end that begin at `start`, which are ignored before a request line (RFC 9112 2.2)."""
    match = _empty_lines(data, start)
    return match.end() if match is not None else start


def check_section(data: bytes | bytearray, start: int, scanned: int, end: int, limit: int, is_head: bool) -> None:
    """Refuse a head or trailer section for what can be told of it before it is complete.

    It begins at `start`; of what is there, up to `end`, the bytes before `scanned` have been checked before. `limit` is
    the size that it may have, empty line included. Raises `BadRequest`.
    """
    bound = min(end, start + limit)
    if is_head:
        if _starts_badly(data, start, bound):
            raise bad("The request line is not valid", "MALFORMED_REQUEST_LINE")
        if _long_method(data, start, bound):
            raise method_too_long()
    wrong = find_bad_line_end(data, max(start, scanned - 1), bound)
    if wrong is not None:
        raise BadRequest(
            "A line does not end in CRLF", code="POUNCE_PARSE_BAD_LINE_END", position=wrong.start() - start
        )
    if end > bound:
        if is_head and data.find(b"\r\n", start, bound) < 0:
            raise bad("The request line is too long", "TARGET_TOO_LONG", 414, f"The limit is {limit} bytes.")
        raise bad("The header section is too large", "HEADERS_TOO_LARGE", 431, f"The limit is {limit} bytes.")


def too_many_fields(limit: int) -> BadRequest:
    """The error for a section that has more than `limit` of them."""
    return bad("Too many header fields", "TOO_MANY_HEADERS", 431, f"The limit is {limit}.")


def refusal(section: bytes, max_headers: int, found: BadRequest) -> BadRequest:
    """Why a head, empty line included, is refused in which a parser has `found` a fault, be it the first or not."""
    try:
        _read_head(section, max_headers)
    except BadRequest as first:
        return first
    return found


def _read_head(section: bytes, max_headers: int) -> RequestHead:
    size = len(section)
    check_section(section, 0, 0, size, size, True)
    line, *lines = section[:-4].split(b"\r\n")
    match = _request_line(line)
    if match is None:
        raise bad("The request line is not valid", "MALFORMED_REQUEST_LINE")
    method, target, version = match.groups()
    if version[:1] != b"1":
        # Before anything that only HTTP/1 knows the meaning of.
        raise unsupported_version()
    return request_head(method, target, version, _read_fields(lines, max_headers))


def read_trailers(section: bytes, max_headers: int) -> Headers | None:
    """The fields of a trailer section, empty line included; None when there are none. Raises `BadRequest`."""
    if section == b"\r\n":
        return None
    trailers = _read_fields(section[:-4].split(b"\r\n"), max_headers)
    if any(name in FORBIDDEN_TRAILERS for name, _ in trailers):
        raise bad("A trailer field that is not allowed there", "BAD_TRAILER")
    return trailers


def _read_fields(lines: list[bytes], max_headers: int) -> Headers:
    if len(lines) > max_headers:
        raise too_many_fields(max_headers)
    fields: Headers = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or _token(name) is None or _value(value) is None:
            raise bad("A header field is not valid", "BAD_HEADER")
        fields.append((name.lower(), value.strip(b" \t")))
    return fields


def request_head(method: bytes, target: bytes, version: bytes, headers: Headers) -> RequestHead:
    """The head of a request whose syntax a parser has checked, with its derived fields.

    `version` is `b"1.1"`; `headers` has lower-case names. Raises `BadRequest`.
    """
    if version[:1] != b"1":
        raise unsupported_version()
    # RFC 9110 2.5: a higher minor version is served as the highest one known.
    is_1_0 = version == b"1.0"
    host: bytes | None = None
    lengths: list[bytes] = []
    codings: list[bytes] = []
    connection = b""
    upgrade: bytes | None = None
    expect = relayed = False
    for name, value in headers:
        if name not in SPECIAL_FIELDS:
            if name[0] in _FIRST_OF_FORWARDING and is_forwarding(name):
                relayed = True
            continue
        if name == b"host":
            if host is not None:
                # RFC 9112 3.2: "more than one Host header field line" → 400
                raise bad("More than one Host field", "DUPLICATE_HOST")
            host = value
        elif name == b"connection":
            connection = connection + b"," + value.lower() if connection else value.lower()
        elif name == b"content-length":
            lengths.append(value)
        elif name == b"transfer-encoding":
            codings.append(value)
        elif name == b"upgrade":
            upgrade = value.partition(b",")[0].strip().lower()
        elif name == b"expect" and not is_1_0:
            if value.lower() != b"100-continue":
                # RFC 9110 10.1.1
                raise bad("Unknown expectation", "BAD_EXPECT", 417)
            expect = True
    _check_target(method, target, host, is_1_0)
    chunked = bool(codings) and transfer_encoding(codings, is_1_0)
    if chunked and lengths:
        # RFC 9112 6.1: such a message "ought to be handled as an error"
        raise bad("Content-Length together with Transfer-Encoding", "SMUGGLING_CL_TE")
    length = None if chunked else content_length(lengths) if lengths else 0
    # The one option that nearly every client sends needs no taking apart.
    options = KEEP_ALIVE if connection == b"keep-alive" else [option.strip() for option in connection.split(b",")]
    if upgrade is not None and (is_1_0 or length != 0 or b"upgrade" not in options):
        # RFC 9110 7.8: ignored in HTTP/1.0, and without its connection option. It may always be ignored, and is with
        # a body, whose bytes must not be taken for those of the new protocol.
        upgrade = None
    return RequestHead(
        method,
        target,
        headers,
        "1.0" if is_1_0 else "1.1",
        upgrade=upgrade,
        content_length=length,
        expect_continue=expect and length != 0,
        # RFC 9112 9.3
        keep_alive=b"close" not in options and (not is_1_0 or b"keep-alive" in options),
        relayed=relayed,
    )


def _check_target(method: bytes, target: bytes, host: bytes | None, is_1_0: bool) -> None:
    """RFC 9112 3.2: each form of target belongs to its methods, and agrees with Host."""
    if host is None:
        if not is_1_0:
            raise bad("No Host field", "NO_HOST")
    elif _host(host) is None:
        raise bad("Host is not valid", "BAD_HOST")
    if b"#" in target:
        raise bad("The target has a fragment", "BAD_TARGET")
    if method == b"CONNECT":
        if _authority(target) is None:
            raise bad("CONNECT needs an authority as target", "BAD_TARGET")
        raise bad("CONNECT is not supported", "CONNECT", 501)
    if target.startswith(b"/"):
        return
    if target == b"*":
        if method != b"OPTIONS":
            raise bad("* is a target for OPTIONS only", "BAD_TARGET")
        return
    absolute = _absolute(target)
    if absolute is None or not absolute[2] or _host(absolute[2]) is None:
        raise bad("The target is not valid", "BAD_TARGET")
    # RFC 9112 3.2.2: the authority of the target takes the place of Host; one that differs is an attack.
    if host is not None and absolute[2].lower() != host.lower():
        raise bad("Host and the authority of the target differ", "BAD_HOST")


def content_length(values: list[bytes]) -> int:
    """The value of Content-Length, which must be given once and be a number (RFC 9110 8.6). Raises `BadRequest`."""
    if len(values) > 1:
        raise bad("More than one Content-Length", "DUPLICATE_CONTENT_LENGTH")
    if _digits(values[0]) is None:
        raise bad("Content-Length is not a number", "BAD_CONTENT_LENGTH")
    return int(values[0])


def transfer_encoding(values: list[bytes], is_1_0: bool) -> bool:
    """True for a chunked body (RFC 9112 6.1), the only coding that is served. Raises `BadRequest`."""
    if is_1_0:
        raise bad("Transfer-Encoding in HTTP/1.0", "BAD_TRANSFER_ENCODING")
    *before, last = [coding.strip(b" \t").lower() for value in values for coding in value.split(b",")]
    # RFC 9112 6.3: "If a Transfer-Encoding header field is present in a request and the chunked transfer coding is not
    # the final encoding, the message body length cannot be determined reliably; the server MUST respond with the 400
    # (Bad Request) status code". 6.1: no sender may apply chunked twice.
    if last != b"chunked" or b"chunked" in before or not all(_coding(coding) for coding in before):
        raise bad("Transfer-Encoding is not valid", "BAD_TRANSFER_ENCODING")
    if before:
        # 6.1: "SHOULD respond with 501 (Not Implemented)" to a coding that is not understood.
        raise bad("Transfer coding is not implemented", "UNKNOWN_TRANSFER_CODING", 501)
    return True


def chunk_line(line: bytes, overhead: int) -> tuple[int, int]:
    """The size in a chunk's first line, without its CRLF (RFC 9112 7.1), and the overhead of the body so far.

    `overhead` is what this returned for the chunk before, 0 at first. Raises `BadRequest`.
    """
    match = _chunk_line(line)
    if match is None:
        raise bad("Chunk size is not valid", "BAD_CHUNK")
    size = int(match[1], 16)
    overhead = max(0, overhead + len(line) - 14 - 2 * size)
    if overhead > CHUNK_OVERHEAD_MAX:
        raise bad("Too much of the chunked body is not data", "CHUNK_OVERHEAD")
    return size, overhead


# How the end of an answer is marked (RFC 9112 6.3): it has no body; by the Content-Length that the exchange gives; by
# one that the wire adds, because the body is all there; by chunks; by the end of the connection, as in HTTP/1.0.
NONE, LENGTH, ADD_LENGTH, CHUNKED, CLOSE = range(5)


def answer_framing(method: bytes, version: str, status: int, has_length: bool, more: bool) -> int:
    """The row of the table that applies; the first that fits, from the top.

    answer to HEAD, 204, 304              NONE         RFC 9112 6.3, 1.
    Content-Length given                  LENGTH       6.3, 6.
    whole body at hand                    ADD_LENGTH   6.2
    HTTP/1.1                              CHUNKED      7.1
    HTTP/1.0                              CLOSE        6.3, 8.
    """
    if method == b"HEAD" or status == 204 or status == 304:
        return NONE
    if has_length:
        return LENGTH
    if not more:
        return ADD_LENGTH
    return CLOSE if version == "1.0" else CHUNKED
