"""Frames and variable-length integers (RFC 9114 7, RFC 9000 16)."""

__all__ = [
    "CANCEL_PUSH",
    "DATA",
    "GOAWAY",
    "HEADERS",
    "MAX_PUSH_ID",
    "NOT_ON_CONTROL",
    "NOT_ON_REQUEST",
    "PRIORITY_UPDATE",
    "PRIORITY_UPDATE_PUSH",
    "PUSH_PROMISE",
    "SETTINGS",
    "WT_STREAM",
    "WT_UNIDIRECTIONAL",
    "frame",
    "frame_head",
    "integers",
    "pull",
    "varint",
]

DATA = 0x0
HEADERS = 0x1
CANCEL_PUSH = 0x3
SETTINGS = 0x4
PUSH_PROMISE = 0x5
GOAWAY = 0x7
MAX_PUSH_ID = 0xD
PRIORITY_UPDATE = 0xF0700
PRIORITY_UPDATE_PUSH = 0xF0701
WT_STREAM, WT_UNIDIRECTIONAL = 0x41, 0x54
"""What streams of a WebTransport session begin with, before its number: the bidirectional ones with a type of a frame
that has no length and ends with its stream, the unidirectional ones with a type of a stream (draft-ietf-webtrans-http3
4.2, 4.3)."""

# RFC 9114 7.2.8: frame types of HTTP/2 that have no meaning here are errors.
_HTTP2 = frozenset((0x2, 0x6, 0x8, 0x9))
NOT_ON_REQUEST = _HTTP2 | {
    CANCEL_PUSH,
    SETTINGS,
    PUSH_PROMISE,
    GOAWAY,
    MAX_PUSH_ID,
    PRIORITY_UPDATE,
    PRIORITY_UPDATE_PUSH,
}
NOT_ON_CONTROL = _HTTP2 | {DATA, HEADERS, PUSH_PROMISE}


def varint(value: int) -> bytes:
    """A variable-length integer (RFC 9000 16)."""
    if value < 0x40:
        return bytes((value,))
    if value < 0x4000:
        return (value | 0x4000).to_bytes(2)
    if value < 0x40000000:
        return (value | 0x80000000).to_bytes(4)
    return (value | 0xC000000000000000).to_bytes(8)


def pull(data: bytes, at: int) -> tuple[int, int] | None:
    """The integer at `at` and where it ends; None when it is not all there."""
    if at >= len(data):
        return None
    first = data[at]
    if first < 0x40:
        return first, at + 1
    end = at + (1 << (first >> 6))
    if end > len(data):
        return None
    size = end - at
    return int.from_bytes(data[at:end]) & ((1 << (size * 8 - 2)) - 1), end


def frame_head(kind: int, length: int) -> bytes:
    """Type and length of a frame."""
    if kind < 0x40 and length < 0x40:
        return bytes((kind, length))
    return varint(kind) + varint(length)


def frame(kind: int, payload: bytes) -> bytes:
    """A whole frame."""
    return frame_head(kind, len(payload)) + payload


def integers(data: bytes) -> list[int] | None:
    """All the integers that a payload consists of; None when it is not made of integers."""
    found: list[int] = []
    at = 0
    while at < len(data):
        pulled = pull(data, at)
        if pulled is None:
            return None
        value, at = pulled
        found.append(value)
    return found
