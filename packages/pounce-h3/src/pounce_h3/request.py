"""From a field section to a `RequestHead` (RFC 9114 4.1 to 4.3), and which trailers a request may have.

What is malformed is refused as RFC 9114 4.1.2 asks for: the stream ends with H3_MESSAGE_ERROR and no application hears
of it. What is well-formed and not wanted is answered: too large, an unknown expectation, CONNECT.
"""

import re

from pounce.errors import BadRequest
from pounce.plugin import Headers, RequestHead

__all__ = ["FieldTable", "Malformed", "request_head", "request_trailers"]

# RFC 9110 5.6.2, in lower case: "characters in field names MUST be converted to lowercase" (RFC 9114 4.2).
_name = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
# RFC 9110 5.5: no control but HTAB inside, no blank at either end.
_value = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?").fullmatch
_method = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_path = re.compile(rb"/[\x21\x22\x24-\x7e\x80-\xff]*").fullmatch
# RFC 3986 3.2.2 and 3.2.3, without userinfo (RFC 9114 4.3.1).
_authority = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~%!$&'()*+;=]+)(?::[0-9]{0,5})?").fullmatch
_digits = re.compile(rb"[0-9]{1,19}").fullmatch

PSEUDO = {
    b":method": "method",
    b":scheme": "scheme",
    b":authority": "authority",
    b":path": "path",
    b":protocol": "protocol",
}
CONNECTION_SPECIFIC = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))
# RFC 9110 6.5.1: no trailer may be needed for framing, routing, authentication, or to understand the content.
FORBIDDEN_TRAILERS = frozenset(
    b"authorization cache-control content-encoding content-length content-range content-type cookie expect forwarded"
    b" host max-forwards proxy-authenticate proxy-authorization range set-cookie te trailer www-authenticate"
    b" x-forwarded-for x-forwarded-host x-forwarded-proto".split()
)
PLAIN, SPECIAL = 0, 1
_SPECIAL = frozenset((b"host", b"content-length", b"cookie", b"expect", b"te"))
_KNOWN_MAX = 2048
_KNOWN_VALUE_MAX = 128


class Malformed(Exception):
    """The message breaks a rule that RFC 9114 4.1.2 calls malformed: a stream error of type H3_MESSAGE_ERROR."""


class FieldTable:
    """Fields that were found valid before, so that they need not be looked at again. Belongs to one worker."""

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, bytes], int] = {}

    def kind(self, field: tuple[bytes, bytes]) -> int:
        """SPECIAL for a field that says something about the request itself. Raises `Malformed`."""
        found = self._known.get(field)
        if found is None:
            name, value = field
            if _name(name) is None:
                raise Malformed("a field name is not a token in lower case")
            if name in CONNECTION_SPECIFIC or (name == b"te" and value.lower() != b"trailers"):
                raise Malformed("a connection-specific field")
            if _value(value) is None:
                raise Malformed("a field value has a character that is not allowed")
            found = SPECIAL if name in _SPECIAL else PLAIN
            if len(value) <= _KNOWN_VALUE_MAX and name not in (b"cookie", b"authorization"):
                if len(self._known) >= _KNOWN_MAX:
                    self._known.clear()
                self._known[field] = found
        return found


def request_head(fields: Headers, table: FieldTable, ended: bool) -> RequestHead:
    """The head of a request; `ended` says that no body follows.

    Raises `Malformed`, and `BadRequest` for what is to be answered.
    """
    pseudo: dict[str, bytes] = {}
    headers: Headers = []
    cookies: list[bytes] = []
    host: bytes | None = None
    length: bytes | None = None
    expect = False
    for field in fields:
        name, value = field
        if name[:1] == b":":
            key = PSEUDO.get(name)
            if key is None or key in pseudo or headers or cookies or host is not None:
                raise Malformed("a pseudo-header field is unknown, repeated, or behind a regular one")
            if _value(value) is None:
                raise Malformed("a pseudo-header field has a character that is not allowed")
            pseudo[key] = value
            continue
        if table.kind(field) == SPECIAL:
            if name == b"host":
                if host is not None:
                    raise Malformed("host is given twice")
                host = value
                continue
            if name == b"cookie":
                cookies.append(value)
                continue
            if name == b"content-length":
                if length is not None or _digits(value) is None:
                    raise Malformed("content-length is not one number")
                length = value
            elif name == b"expect":
                if value.lower() != b"100-continue":
                    raise BadRequest("Unknown expectation", status=417, code="POUNCE_PARSE_BAD_EXPECT")
                expect = True
        headers.append(field)
    if cookies:
        # RFC 9114 4.2.1: "these MUST be concatenated into a single byte string using the two-byte delimiter".
        headers.append((b"cookie", b"; ".join(cookies)))
    target, authority = _target(pseudo, host)
    headers.insert(0, (b"host", authority))
    if ended and length is not None and int(length):
        raise Malformed("the body is shorter than content-length")
    body = 0 if ended else None if length is None else int(length)
    protocol = pseudo.get("protocol")
    return RequestHead(
        pseudo["method"],
        target,
        headers,
        "3",
        scheme="https",
        upgrade=protocol.lower() if protocol is not None else None,
        content_length=body,
        expect_continue=expect and body != 0,
    )


def _target(pseudo: dict[str, bytes], host: bytes | None) -> tuple[bytes, bytes]:
    """Target and authority of a request (RFC 9114 4.3.1)."""
    method, scheme, path, authority = (pseudo.get(key) for key in ("method", "scheme", "path", "authority"))
    if method is None or _method(method) is None:
        raise Malformed(":method is missing or not a token")
    if authority is None:
        authority = host
    elif host is not None and host.lower() != authority.lower():
        raise Malformed(":authority and host differ")
    if not authority or _authority(authority) is None:
        raise Malformed(":authority is missing or not valid")
    if "protocol" in pseudo:
        # RFC 8441 4, RFC 9220 3: only CONNECT has :protocol, and then :scheme and :path as well.
        if method != b"CONNECT" or _method(pseudo["protocol"]) is None:
            raise Malformed(":protocol without CONNECT, or not a token")
    elif method == b"CONNECT":
        if scheme is not None or path is not None:
            raise Malformed("CONNECT with :scheme or :path")
        raise BadRequest("CONNECT is not supported", status=501, code="POUNCE_PARSE_CONNECT")
    if scheme not in (b"https", b"http"):
        raise Malformed(":scheme is missing or unknown")
    if path is None or (_path(path) is None and not (path == b"*" and method == b"OPTIONS")):
        raise Malformed(":path is missing or not valid")
    return path, authority


def request_trailers(fields: Headers, table: FieldTable) -> Headers:
    """The trailer section of a request. Raises `Malformed`."""
    for field in fields:
        if field[0] in FORBIDDEN_TRAILERS:
            raise Malformed("a field that is no trailer")
        # Refuses pseudo-header fields as well: their names are no tokens.
        table.kind(field)
    return fields
