"""The part of QUIC packets that every version shares (RFC 8999), and those that need no connection.

Version negotiation and Retry are answered before there is a connection, so that they cost no memory.
"""

from typing import NamedTuple

from qh3.quic.packet import encode_quic_retry

from pounce_h3.frames import pull
from pounce_h3.ids import ID_LENGTH

__all__ = [
    "INITIAL",
    "MIN_INITIAL",
    "MIN_RESET",
    "VERSION_1",
    "VERSION_2",
    "LongHeader",
    "destination",
    "is_initial",
    "is_long",
    "long_header",
    "retry",
    "version_negotiation",
]

VERSION_1, VERSION_2 = 1, 0x6B3343CF
KINDS = {VERSION_1: 0, VERSION_2: 1}
"""By how much the types of packets are higher than those of version 1, modulo 4 (RFC 9369 3.2)."""
INITIAL = 0
MIN_INITIAL = 1200
MIN_RESET = 21
RESERVED = (0x1A2A3A4A, 0x5A6A7A8A)
ID_MAX = 20


class LongHeader(NamedTuple):
    """RFC 8999 5.1; `kind` is as version 1 numbers them, -1 in a version that nobody here knows."""

    version: int
    kind: int
    destination: bytes
    source: bytes
    token: bytes


def is_long(data: bytes) -> bool:
    """RFC 8999 5.1: the first bit."""
    return data[0] >= 0x80


def is_initial(data: bytes) -> bool:
    """Whether it may open a connection: an Initial packet of version 1 or 2, or whatever another version has."""
    shift = KINDS.get(int.from_bytes(data[1:5]))
    return data[0] >= 0x80 and (shift is None or data[0] >> 4 & 3 == shift)


def destination(data: bytes) -> bytes:
    """The connection id that a datagram is for; empty when it has none."""
    if data and data[0] < 0x80:
        return data[1 : 1 + ID_LENGTH]
    return data[6 : 6 + data[5]] if len(data) > 6 else b""


def long_header(data: bytes) -> LongHeader | None:
    """The header of a datagram's first packet, None when there is none."""
    end = len(data)
    if end < 7 or data[0] < 0x80:
        return None
    version = int.from_bytes(data[1:5])
    at = 6 + data[5]
    if at >= end:
        return None
    target = data[6:at]
    stop = at + 1 + data[at]
    if stop > end:
        return None
    source = data[at + 1 : stop]
    shift = KINDS.get(version)
    if shift is None:
        return LongHeader(version, -1, target, source, b"")
    # RFC 9000 17.2: "endpoints that receive a version 1 long header with a value larger than 20 MUST drop the packet".
    if len(target) > ID_MAX or len(source) > ID_MAX or not data[0] & 0x40:
        return None
    kind = (data[0] >> 4) - shift & 3
    token = b""
    if kind == INITIAL:
        length = pull(data, stop)
        if length is None or length[1] + length[0] > end:
            return None
        token = data[length[1] : length[1] + length[0]]
    return LongHeader(version, kind, target, source, token)


def version_negotiation(destination: bytes, source: bytes, asked: int, versions: tuple[int, ...]) -> bytes:
    """The answer to a packet of the version `asked`, which is none of `versions` (RFC 9000 17.2.1).

    A reserved version keeps clients from relying on the list (RFC 9000 15). It is not the one that was asked for: a
    client throws away a list that has it (RFC 9000 6.2).
    """
    reserved = next(version for version in RESERVED if version != asked)
    return b"".join(
        (
            b"\xc0\0\0\0\0",
            bytes((len(destination),)),
            destination,
            bytes((len(source),)),
            source,
            *(version.to_bytes(4) for version in versions),
            reserved.to_bytes(4),
        )
    )


def retry(version: int, destination: bytes, source: bytes, original: bytes, token: bytes) -> bytes:
    """RFC 9000 17.2.5."""
    return encode_quic_retry(version, source, destination, original, token)
