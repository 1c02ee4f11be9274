"""Header sections of HTTP/2 and HTTP/3: what makes a request of them (RFC 9113 8, RFC 9114 4).

Both protocols have the same rules, so they are here once. A section that breaks one is malformed: a `BadRequest` with
status 400 says so, and its stream is reset. Any other status is an answer that the request gets.
"""

import re

from pounce.contract.head import Headers, RequestHead
from pounce.errors import BadRequest

__all__ = [
    "CONNECTION_FIELDS",
    "FORBIDDEN_TRAILERS",
    "METHOD_MAX",
    "FieldTable",
    "checked_trailers",
    "is_forwarding",
    "is_path",
    "malformed",
    "method_too_long",
    "request_head",
]

# RFC 9110 6.5.1: no trailer may be needed for framing, routing, authentication, or to understand the content.
FORBIDDEN_TRAILERS = frozenset(
    b"authorization cache-control connection content-encoding content-length content-range content-type cookie expect"
    b" forwarded host keep-alive max-forwards proxy-authenticate proxy-authorization proxy-connection range"
    b" set-cookie te trailer transfer-encoding upgrade www-authenticate x-forwarded-for x-forwarded-host"
    b" x-forwarded-proto".split()
)

METHOD_MAX = 32
"""Octets of a method in any version; the longest registered one (RFC 9110 16.1.2) has 17."""

# RFC 9113 8.2.1, and RFC 9110 5.1: a token without upper-case letters.
_name = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
# RFC 9113 8.2.1: no NUL, CR or LF, no blank at either end; RFC 9110 5.5: no other control but HTAB.
_value = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?").fullmatch
_token = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
# RFC 3986 3.2.2 and 3.2.3, without userinfo (RFC 9113 8.3.1), and without the comma that would make a list of it.
_authority = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~%!$&'()*+;=]+)(?::[0-9]{0,5})?").fullmatch
# RFC 9113 8.3.1, without a fragment; as in a request line, no byte beyond ASCII (RFC 3986 2).
_path = re.compile(rb"/[\x21\x22\x24-\x7e]*").fullmatch
_digits = re.compile(rb"[0-9]{1,19}").fullmatch

PSEUDO = frozenset((b":method", b":scheme", b":authority", b":path", b":protocol"))
# RFC 9113 8.2.2, RFC 9114 4.2: no part of HTTP/2 and HTTP/3. An application may still give them; they are not sent.
CONNECTION_FIELDS = frozenset((b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"))
SPECIAL_FIELDS = CONNECTION_FIELDS | {b"host", b"content-length", b"cookie", b"te", b"expect"}
SCHEMES = (b"https", b"http")
SECRETS = frozenset((b"authorization", b"proxy-authorization"))
KNOWN_MAX = 1024
KNOWN_SIZE_MAX = 256
"""Fields that are kept, and octets of one of them."""


class FieldTable:
    """Regular fields that were valid before, so that they need not be looked at again. Belongs to one worker.

    When full it begins anew.
    """

    __slots__ = ("known",)

    def __init__(self) -> None:
        self.known: set[tuple[bytes, bytes]] = set()

    def add(self, field: tuple[bytes, bytes]) -> None:
        """Keep a field that is valid, and says nothing about the request itself."""
        name, value = field
        if len(name) + len(value) <= KNOWN_SIZE_MAX and name not in SECRETS:
            if len(self.known) >= KNOWN_MAX:
                self.known.clear()
            self.known.add(field)


def request_head(fields: Headers, version: str, scheme: str, table: FieldTable) -> RequestHead:
    """The head of the request whose header section this is; `version` is `"2"` or `"3"`.

    `content_length` is what the field of this name says, None without it. An extended CONNECT (RFC 8441) has its
    `:protocol` as `upgrade`. Raises `BadRequest`.
    """
    pseudo: dict[bytes, bytes] = {}
    headers: Headers = []
    host: bytes | None = None
    length: int | None = None
    cookies: list[bytes] = []
    cookie_at = 0
    expect = relayed = False
    known = table.known
    for field in fields:
        if field in known:
            headers.append(field)
            continue
        name, value = field
        if name[:1] == b":":
            if headers or host is not None or cookies:
                raise malformed("A pseudo-header field after a regular one")
            if name in pseudo or name not in PSEUDO:
                raise malformed("A pseudo-header field is repeated or unknown")
            pseudo[name] = value
            continue
        _check(name, value)
        if name in SPECIAL_FIELDS:
            if name in CONNECTION_FIELDS:
                raise malformed("A connection-specific field")
            if name == b"host":
                if host is not None:
                    raise malformed("More than one Host field")
                host = value
                continue
            if name == b"cookie":
                # RFC 9113 8.2.3: crumbs are put together again.
                if not cookies:
                    cookie_at = len(headers)
                cookies.append(value)
                continue
            if name == b"content-length":
                if length is not None or _digits(value) is None:
                    raise malformed("Content-Length is repeated or not a number")
                length = int(value)
            elif name == b"te":
                if value.lower() != b"trailers":
                    raise malformed("TE with anything but trailers")
            elif value.lower() != b"100-continue":
                # RFC 9110 10.1.1
                raise BadRequest("Unknown expectation", status=417, code="POUNCE_PARSE_BAD_EXPECT")
            else:
                expect = True
        elif is_forwarding(name):
            relayed = True
        else:
            table.add(field)
        headers.append(field)
    if cookies:
        headers.insert(cookie_at, (b"cookie", cookies[0] if len(cookies) == 1 else b"; ".join(cookies)))
    head = _of_pseudo(pseudo, host, headers, version, scheme)
    head.content_length = length
    head.expect_continue = expect
    head.relayed = relayed
    return head


def _of_pseudo(
    pseudo: dict[bytes, bytes], host: bytes | None, headers: Headers, version: str, scheme: str
) -> RequestHead:
    method = pseudo.get(b":method", b"")
    authority = pseudo.get(b":authority")
    path = pseudo.get(b":path", b"")
    protocol = pseudo.get(b":protocol")
    if _token(method) is None:
        raise malformed("No valid :method")
    if len(method) > METHOD_MAX:
        raise method_too_long()
    for value in (authority, host):
        if value is not None and _authority(value) is None:
            raise malformed("The authority is not valid")
    if authority is None:
        authority = host
    elif host is not None and host.lower() != authority.lower():
        # RFC 9113 8.3.1: "SHOULD treat a request as malformed" that names two entities.
        raise malformed("Host and :authority differ")
    if authority is None:
        raise malformed("Neither :authority nor Host")
    if method == b"CONNECT" and protocol is None:
        if b":path" in pseudo or b":scheme" in pseudo:
            raise malformed("CONNECT with :scheme or :path")
        raise BadRequest("CONNECT is not supported", status=501, code="POUNCE_PARSE_CONNECT")
    if pseudo.get(b":scheme", b"").lower() not in SCHEMES:
        raise malformed("No :scheme, or another one than http and https")
    if not is_path(path, method):
        raise malformed("No valid :path")
    if protocol is not None and (method != b"CONNECT" or _token(protocol) is None):
        raise malformed(":protocol without CONNECT, or not a token")
    headers.insert(0, (b"host", authority))
    return RequestHead(method, path, headers, version, scheme, None if protocol is None else protocol.lower())


def is_forwarding(name: bytes) -> bool:
    """Whether a proxy says by this field, in lower case, whom it speaks for, or what reads names like CGI (RFC 3875
    4.1.18) takes it for such a field."""
    if name.find(b"_") >= 0:
        name = name.replace(b"_", b"-")
    return name.startswith(b"x-forwarded-") or name in _FORWARDING


_FORWARDING = frozenset((b"forwarded", b"x-real-ip", b"x-request-id"))


def is_path(value: bytes, method: bytes) -> bool:
    """Whether a request with this method may have this `:path` (RFC 9113 8.3.1)."""
    return _path(value) is not None or (value == b"*" and method == b"OPTIONS")


def checked_trailers(fields: Headers) -> Headers:
    """The fields of a request's trailer section; raises `BadRequest`."""
    for name, value in fields:
        _check(name, value)
        if name in FORBIDDEN_TRAILERS:
            raise malformed("A field that must not be in a trailer section")
    return fields


def _check(name: bytes, value: bytes) -> None:
    if _name(name) is None:
        raise malformed("A field name is not valid")
    if _value(value) is None:
        raise malformed("A field value is not valid")


def method_too_long() -> BadRequest:
    """The error for a method "longer than any that it implements" (RFC 9112 3, RFC 9110 15.6.2)."""
    return BadRequest(
        "The method is too long",
        status=501,
        code="POUNCE_PARSE_METHOD_TOO_LONG",
        hint=f"The limit is {METHOD_MAX} bytes.",
    )


def malformed(message: str) -> BadRequest:
    """The error for a message that ends its stream (RFC 9113 8.1.1, RFC 9114 4.1.2)."""
    return BadRequest(message, code="POUNCE_PARSE_MALFORMED")
