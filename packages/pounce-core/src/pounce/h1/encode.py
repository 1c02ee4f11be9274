"""Bytes of an HTTP/1.1 answer (RFC 9112 4, 5)."""

from http import HTTPStatus

from pounce.contract.head import AnswerFields, ExtendedFields, Headers

__all__ = ["LAST_CHUNK", "AnswerHead", "chunk_head", "encode_fields", "encode_head", "status_line"]

USUAL_MAX = 8192
"""Bytes of a head that is sent without a look at how much it is; fields of a request's own, such as an id, come on
top."""
LAST_CHUNK = b"0\r\n\r\n"

_STATUS_LINES = {int(status): f"HTTP/1.1 {int(status)} {status.phrase}\r\n".encode() for status in HTTPStatus}


def status_line(status: int) -> bytes:
    """The status line with its CRLF; a status without a registered phrase has an empty one (RFC 9112 4)."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


def encode_fields(headers: Headers) -> bytes:
    """Field lines, each with its CRLF."""
    return b"".join([b"%b: %b\r\n" % field for field in headers])


def chunk_head(count: int) -> bytes:
    """The line before a chunk of `count` bytes (RFC 9112 7.1)."""
    return b"%x\r\n" % count


class AnswerHead:
    """The encoded part of a head that does not depend on the connection: status line and the exchange's fields."""

    __slots__ = ("closes", "data", "has_length", "status", "usual_for", "whole")

    def __init__(self, status: int, data: bytes, has_length: bool, closes: bool, usual_for: int) -> None:
        self.status = status
        self.data = data
        self.whole = data + b"\r\n"
        """`data` with the empty line after it."""
        self.has_length = has_length
        """Content-Length is among the fields."""
        self.closes = closes
        """The application asked for the connection to be closed."""
        self.usual_for = usual_for
        """`status` if `whole` is all that there is to send where the connection goes on as usual, and little; or 0."""

    def with_fields(self, fields: Headers) -> bytes:
        """`data` with these fields behind its own."""
        if len(fields) == 1:
            name, value = fields[0]
            return b"".join((self.data, name, b": ", value, b"\r\n"))
        return self.data + encode_fields(fields)

    def extended(self, fields: Headers) -> AnswerHead:
        """The same with these fields behind its own."""
        return AnswerHead(self.status, self.with_fields(fields), self.has_length, self.closes, self.usual_for)


def encode_head(status: int, headers: Headers) -> AnswerHead:
    """The head of an answer without framing fields. What answers share is encoded once."""
    if type(headers) is not AnswerFields:
        if type(headers) is not ExtendedFields:
            return _encode(status, headers)
        return encode_head(status, headers.shared).extended(headers.own)
    found = headers.encoded
    if type(found) is not AnswerHead or found.status != status:
        found = headers.encoded = _encode(status, headers)
    return found


def _encode(status: int, headers: Headers) -> AnswerHead:
    # Connection is the wire's own field: all that an application can say with it is that it wants to close, and that
    # the Upgrade field is meant for the next hop (RFC 9110 7.8).
    options = [value.lower() for name, value in headers if name == b"connection"]
    closes = any(option.strip() == b"close" for value in options for option in value.split(b","))
    fields = [field for field in headers if field[0] != b"connection"]
    if any(name == b"upgrade" for name, _ in fields):
        fields.append((b"connection", b"upgrade"))
    has_length = any(name == b"content-length" for name, _ in fields)
    data = status_line(status) + encode_fields(fields)
    is_usual = has_length and not closes and len(data) < USUAL_MAX
    return AnswerHead(status, data, has_length, closes, status if is_usual else 0)
