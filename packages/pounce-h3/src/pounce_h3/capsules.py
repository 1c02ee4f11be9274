"""Capsules: what is said about a session on the stream that opened it (RFC 9297 3.2).

A capsule is cut from bytes as they come. Of one that is not known, and of one that is larger than its kind may be, no
byte is kept.
"""

from typing import NamedTuple

from pounce_h3.frames import pull, varint

__all__ = ["CLOSE_SESSION", "DATAGRAM", "DRAIN_SESSION", "REASON_MAX", "BadCapsule", "Capsule", "Capsules", "capsule"]

DATAGRAM = 0x0
CLOSE_SESSION = 0x2843
DRAIN_SESSION = 0x78AE

REASON_MAX = 1024
"""Bytes of the reason of a close (draft-ietf-webtrans-http3 6)."""
DATAGRAM_MAX = 65535
"""Bytes of a datagram that comes as a capsule; a longer one is dropped."""


class BadCapsule(Exception):
    """The session is malformed (RFC 9297 3.3)."""


class Capsule(NamedTuple):
    """One that is complete. Of one that is not known the payload is empty."""

    kind: int
    payload: bytes


class Capsules:
    """The capsules of one stream."""

    __slots__ = ("_buffer", "_skip", "is_within")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skip = 0
        """Bytes that are still to come of a capsule that nobody wants."""
        self.is_within = False
        """A capsule has begun and not ended."""

    def receive(self, data: bytes) -> None:
        """Bytes of the stream; take all that is `next()` before there are more."""
        if self._skip:
            count = min(self._skip, len(data))
            self._skip -= count
            data = data[count:]
        self._buffer += data

    def next(self) -> Capsule | None:
        """The next one; None when more bytes are needed. Raises `BadCapsule`."""
        buffer = self._buffer
        head = bytes(buffer[:16])
        kind = pull(head, 0)
        length = pull(head, kind[1]) if kind is not None else None
        if kind is None or length is None:
            self.is_within = bool(buffer or self._skip)
            return None
        size, at = length
        if kind[0] == CLOSE_SESSION:
            if not 4 <= size <= 4 + REASON_MAX:
                raise BadCapsule("a close of the session that is too long, or too short")
        elif kind[0] != DATAGRAM or size > DATAGRAM_MAX:
            count = min(size, len(buffer) - at)
            del buffer[: at + count]
            self._skip = size - count
            return Capsule(kind[0], b"")
        if len(buffer) < at + size:
            self.is_within = True
            return None
        payload = bytes(buffer[at : at + size])
        del buffer[: at + size]
        return Capsule(kind[0], payload)

    @property
    def held(self) -> int:
        """Bytes of a capsule that is not complete."""
        return len(self._buffer)


def capsule(kind: int, payload: bytes = b"") -> bytes:
    """A whole one."""
    return varint(kind) + varint(len(payload)) + payload
