"""Bytes of an HTTP/1.1 answer (RFC 9112 4, 5)."""

from http import HTTPStatus

from pounce.exchange.head import Headers

__all__ = ["LAST_CHUNK", "chunk_head", "encode_fields", "status_line"]

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
