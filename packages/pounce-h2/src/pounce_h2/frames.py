"""Frames of HTTP/2: their types, flags, settings and error codes (RFC 9113 6, 7), and their bytes."""

from collections.abc import Callable
from enum import IntEnum
from struct import Struct
from typing import Final

__all__ = [
    "ACK",
    "END_HEADERS",
    "END_STREAM",
    "FRAME_HEAD",
    "PADDED",
    "PREFACE",
    "PRIORITY_FLAG",
    "SETTING",
    "ErrorCode",
    "Kind",
    "Setting",
    "frame",
    "goaway_frame",
    "header_frames",
    "rst_stream_frame",
    "settings_frame",
    "window_update_frame",
]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client begins with (RFC 9113 3.4)."""

FRAME_HEAD = Struct(">LBL")
"""The nine octets before a payload: its length and the type in one number (length << 8 | type), flags, stream."""

type PackHead = Callable[[int, int, int], bytes]
"""`FRAME_HEAD.pack`, as each worker has it."""

SETTING = Struct(">HL")
"""A setting: its parameter and value."""

_number = Struct(">L").pack


class Kind:
    """Types of frames; numbers, for `pounce.immortal` tells why not an Enum."""

    DATA = 0x0
    HEADERS = 0x1
    PRIORITY = 0x2
    RST_STREAM = 0x3
    SETTINGS = 0x4
    PUSH_PROMISE = 0x5
    PING = 0x6
    GOAWAY = 0x7
    WINDOW_UPDATE = 0x8
    CONTINUATION = 0x9
    PRIORITY_UPDATE = 0x10


END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY_FLAG: Final = 0x20


class Setting(IntEnum):
    """Parameters of SETTINGS."""

    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6
    ENABLE_CONNECT_PROTOCOL = 0x8
    NO_RFC7540_PRIORITIES = 0x9


class ErrorCode(IntEnum):
    """Codes of RST_STREAM and GOAWAY."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    return FRAME_HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload


def settings_frame(settings: dict[Setting, int]) -> bytes:
    """SETTINGS with these values."""
    return frame(Kind.SETTINGS, 0, 0, b"".join([SETTING.pack(*item) for item in settings.items()]))


def window_update_frame(stream: int, increment: int) -> bytes:
    """WINDOW_UPDATE; stream 0 is the connection."""
    return frame(Kind.WINDOW_UPDATE, 0, stream, _number(increment))


def rst_stream_frame(stream: int, code: ErrorCode) -> bytes:
    """RST_STREAM."""
    return frame(Kind.RST_STREAM, 0, stream, _number(code))


def goaway_frame(last: int, code: ErrorCode, debug: bytes = b"") -> bytes:
    """GOAWAY; streams above `last` were not looked at."""
    return frame(Kind.GOAWAY, 0, 0, _number(last) + _number(code) + debug)


def header_frames(pack_head: PackHead, stream: int, block: bytes, end_stream: bool, max_size: int) -> bytes:
    """HEADERS with this field block, and as many CONTINUATION as `max_size` asks for."""
    flags = END_STREAM if end_stream else 0
    if len(block) <= max_size:
        return pack_head(len(block) << 8 | Kind.HEADERS, flags | END_HEADERS, stream) + block
    pieces = [block[at : at + max_size] for at in range(0, len(block), max_size)]
    frames = [frame(Kind.HEADERS, flags, stream, pieces[0])]
    frames += [frame(Kind.CONTINUATION, 0, stream, piece) for piece in pieces[1:-1]]
    frames.append(frame(Kind.CONTINUATION, END_HEADERS, stream, pieces[-1]))
    return b"".join(frames)
