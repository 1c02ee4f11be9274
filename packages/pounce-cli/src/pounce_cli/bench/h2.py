"""An HTTP/2 client as a load needs it: the same request on many streams, and the status of each answer.

The server is told to keep no table of fields (SETTINGS_HEADER_TABLE_SIZE 0), so each section can be read by itself, and
the request has no entry of a table either: its bytes are made once. Of an answer only the status is read.
"""

import struct
from collections import deque

from pounce.exchange.huffman import HuffmanDecoder
from pounce_cli.bench.client import Answers, Request

__all__ = ["H2"]

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
WINDOW = 1 << 24
FRAME_MAX = 16384
STATUSES = {8: 200, 9: 204, 10: 206, 11: 304, 12: 400, 13: 404, 14: 500}
"""Of the static table (RFC 7541 appendix A)."""
_head = struct.Struct(">HBBBI")


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame (RFC 9113 4.1)."""
    return _head.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload


class H2:
    """One connection, with prior knowledge or behind ALPN."""

    begin = (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + frame(SETTINGS, 0, 0, struct.pack(">HIHIHI", 1, 0, 2, 0, 4, WINDOW))
        + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", WINDOW))
    )

    def __init__(self, request: Request) -> None:
        self._section = _section(request)
        self._body = request.body
        self._next = 1
        self._buffer = b""
        self._status: dict[int, int] = {}
        self._taken = 0
        self._window = 65535
        self._stream_window = 65535
        self._unsent: deque[list[int]] = deque()
        """Streams whose body has not left, each with how much has, and how much more may."""

    def requests(self, count: int) -> bytes:
        """What to send for so many requests; their bodies as far as the server takes them now."""
        pieces = []
        end = 0 if self._body else END_STREAM
        for _ in range(count):
            pieces.append(frame(HEADERS, END_HEADERS | end, self._next, self._section))
            if self._body:
                self._unsent.append([self._next, 0, self._stream_window])
            self._status[self._next] = 0
            self._next += 2
        return b"".join(pieces) + self._bodies()

    def _bodies(self) -> bytes:
        pieces = []
        for _ in range(len(self._unsent)):
            stream, sent, window = self._unsent[0]
            size = min(len(self._body) - sent, window, self._window, FRAME_MAX)
            if size <= 0 and self._window <= 0:
                break
            self._unsent.popleft()
            while size > 0:
                last = sent + size == len(self._body)
                pieces.append(frame(DATA, END_STREAM if last else 0, stream, self._body[sent : sent + size]))
                sent, window, self._window = sent + size, window - size, self._window - size
                size = min(len(self._body) - sent, window, self._window, FRAME_MAX)
            if sent < len(self._body):
                self._unsent.append([stream, sent, window])
        return b"".join(pieces)

    def received(self, data: bytes) -> Answers:
        """The statuses of the answers that are complete with this. Raises `ValueError` for what is not HTTP/2."""
        data = self._buffer + data if self._buffer else data
        if data.startswith(b"HTTP/"):
            raise ValueError(f"it answers {data[:20]!r}")
        at, found, reply, closes = 0, [], b"", False
        while len(data) - at >= 9:
            high, low, kind, flags, stream = _head.unpack_from(data, at)
            length = (high << 8) + low
            if len(data) - at < 9 + length:
                break
            payload = data[at + 9 : at + 9 + length]
            at += 9 + length
            if kind == HEADERS and stream in self._status:
                if not self._status[stream] or self._status[stream] < 200:
                    self._status[stream] = _status_in(payload, flags)
            elif kind == DATA:
                self._taken += length
            elif kind == RST_STREAM:
                if self._status.pop(stream, None) is not None:
                    found.append(0)
                continue
            else:
                answer, ends = self._of_connection(kind, flags, stream, payload)
                reply, closes = reply + answer, closes or ends
                continue
            if flags & END_STREAM:
                status = self._status.pop(stream, None)
                if status is not None:
                    found.append(status)
        if self._taken > WINDOW // 4:
            reply += frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self._taken))
            self._taken = 0
        self._buffer = data[at:]
        return Answers(found, reply, closes)

    def _of_connection(self, kind: int, flags: int, stream: int, payload: bytes) -> tuple[bytes, bool]:
        if kind == SETTINGS and not flags & ACK:
            for place in range(0, len(payload) - 5, 6):
                name, value = struct.unpack_from(">HI", payload, place)
                if name == 4:
                    for each in self._unsent:
                        each[2] += value - self._stream_window
                    self._stream_window = value
            return frame(SETTINGS, ACK, 0) + self._bodies(), False
        if kind == PING and not flags & ACK:
            return frame(PING, ACK, 0, payload), False
        if kind == WINDOW_UPDATE:
            more = struct.unpack(">I", payload)[0]
            if not stream:
                self._window += more
            for each in self._unsent:
                each[2] += more if each[0] == stream else 0
            return self._bodies(), False
        if kind == GOAWAY:
            code = struct.unpack_from(">I", payload, 4)[0]
            if code:
                raise ValueError(f"the server ended the connection with error {code}")
            return b"", True
        if kind > CONTINUATION + 7:
            raise ValueError(f"this is no HTTP/2: a frame of type {kind}")
        return b"", False

    def closed(self) -> list[int]:
        """None: an answer ends by itself."""
        return []


def _section(request: Request) -> bytes:
    """The fields of the request, none of them in a table that grows (RFC 7541 6.2.2)."""
    method = {"GET": b"\x82", "POST": b"\x83"}.get(request.method)
    fields = [method or b"\x02" + _text(request.method), b"\x87" if request.scheme == "https" else b"\x86"]
    fields += [b"\x04" + _text(request.path), b"\x01" + _text(request.authority)]
    headers = [*request.headers, *([("content-length", str(len(request.body)))] if request.body else [])]
    fields += [b"\x00" + _text(name.lower()) + _text(value) for name, value in headers]
    return b"".join(fields)


def _text(text: str) -> bytes:
    data = text.encode("latin-1")
    if len(data) < 127:
        return bytes([len(data)]) + data
    left, more = len(data) - 127, [0x7F]
    while left >= 128:
        more.append(left % 128 + 128)
        left //= 128
    return bytes([*more, left]) + data


def _status_in(payload: bytes, flags: int) -> int:
    """The status, which is the first field of an answer."""
    at = 1 if flags & PADDED else 0
    at += 5 if flags & PRIORITY else 0
    # A change of the size of the table comes first.
    while payload[at] & 0xE0 == 0x20:
        at += 1
    first = payload[at]
    if first & 0x80:
        return STATUSES[first & 0x7F]
    length = payload[at + 1]
    value = payload[at + 2 : at + 2 + (length & 0x7F)]
    return int(HuffmanDecoder().decode(value, False) if length & 0x80 else value)
