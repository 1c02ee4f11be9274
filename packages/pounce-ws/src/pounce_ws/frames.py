"""Frames (RFC 6455 5): messages and control frames out of bytes, and frames out of messages.

Theory of operation. Most messages are one frame that arrives in one piece; `next_event()` tries that first. Everything
else goes step by step: a header is read as soon as it is whole, the payload of a data frame as it arrives. Each piece
is unmasked, inflated, checked as UTF-8 and counted against the limit at once, so that what breaks a rule is noticed
while it arrives, and no payload is kept that will not be delivered.

Each such step takes from the connection's share of a turn of the loop, and reading stops when that is used up: between
two frames, between two parts of what a frame inflates to, or between two parts of a long text that is decoded.
"""

import codecs
from typing import NamedTuple

from pounce.contract.turns import Share, Turns
from pounce_ws.deflate import Inflater
from pounce_ws.mask import unmask
from pounce_ws.payload import Payload
from pounce_ws.violation import Violation

__all__ = [
    "BINARY",
    "CLOSE",
    "FIN",
    "PING",
    "PONG",
    "RSV1",
    "TEXT",
    "Control",
    "MessageReader",
    "close_frame",
    "frame",
    "may_be_sent",
    "parse_close",
]

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
NOTHING = -1
FIN, RSV1 = 0x80, 0x40
WHOLE_TEXT, WHOLE_BINARY = FIN | TEXT, FIN | BINARY
MASKED_126 = 0x80 | 126

CONTROL_MAX = 125
"""RFC 6455 5.5: "All control frames MUST have a payload length of 125 bytes or less"."""
NO_LIMIT = 1 << 62
NO_STATUS = 1005
STEP_SHIFT = 10
"""A step for 1024 bytes that were inflated, or decoded as a part of a long text."""
DECODED_AT_ONCE = 131072
"""Bytes of a text that needs no steps."""

_new_decoder = codecs.getincrementaldecoder("utf-8")


class Control(NamedTuple):
    """A control frame (RFC 6455 5.5): CLOSE, PING or PONG; or NOTHING, when reading only stops for this turn."""

    opcode: int
    payload: bytes


class MessageReader:
    """Reads the frames of one client.

    `limit` is the largest message in bytes, 0 for none; `inflater` is there when permessage-deflate was agreed on;
    `share` is what reading takes from, without bound where there is none. What was not read begins in `buffer` at `at`.
    """

    __slots__ = (
        "_behind",
        "_decoder",
        "_decodes",
        "_discards",
        "_final",
        "_frame",
        "_inflater",
        "_inflates",
        "_left",
        "_limit",
        "_mask",
        "_message",
        "_share",
        "at",
        "buffer",
        "payload",
    )

    def __init__(self, limit: int, inflater: Inflater | None = None, share: Share | None = None) -> None:
        if share is None:
            share = Share(Turns())
            share.left = NO_LIMIT
        self._share = share
        self._limit = limit or NO_LIMIT
        self._inflater = inflater
        self.buffer = b""
        self.at = 0
        self._message = CONTINUATION
        """Opcode of the message that has begun; CONTINUATION between messages."""
        self._frame = CONTINUATION
        """Opcode of the frame whose header was read last."""
        self._final = False
        self._left = -1
        """Bytes of the frame's payload that were not read yet; -1 between frames."""
        self._behind = -1
        """The same, behind what is being inflated, for which `_left` is 0; -1 when nothing is."""
        self._mask = b""
        self.payload = Payload()
        """What is kept of a message that has begun."""
        self._decodes = False
        """It is a text, and whole."""
        self._decoder: codecs.IncrementalDecoder | None = None
        self._inflates = False
        self._discards = False

    def receive_data(self, data: bytes) -> None:
        """Keep `data` for `next_event()`; raises nothing."""
        at, buffer = self.at, self.buffer
        self.buffer = data if at == len(buffer) else buffer[at:] + data
        self.at = 0

    def discard(self) -> None:
        """Give out no more messages: their payload is thrown away as it arrives. Control frames are still read."""
        self._discards = True
        self.payload.clear()

    def next_event(self) -> str | bytes | Control | None:
        """The next message (a text is a str) or control frame, None when more bytes are needed.

        A `Control` with opcode NOTHING says that the share is used up, and that there may be more.
        Raises `Violation`. Unless its code is 1002 the frames can still be told apart: `discard()`, and go on.
        """
        buffer, at = self.buffer, self.at
        size = len(buffer)
        if at == size and self._left:
            return None
        if self._left < 0 and not self._message and not self._discards and size - at >= 6:
            first, second = buffer[at], buffer[at + 1]
            if WHOLE_TEXT <= first <= WHOLE_BINARY and 0x80 <= second <= MASKED_126:
                start, length = at + 6, second & 0x7F
                if length == 126:
                    start, length = at + 8, buffer[at + 2] << 8 | buffer[at + 3]
                end = start + length
                if end <= size and length <= self._limit and (second != MASKED_126 or length > 125):
                    self.at = end
                    payload = unmask(buffer[start:end], buffer[start - 4 : start])
                    return payload if first == WHOLE_BINARY else decoded(payload)
        while self._left >= 0 or self._read_header():
            event = self._read_payload()
            if event is not None or self._left > 0:
                return event
            self._share.left -= 1
            if self._share.left <= 0:
                return Control(NOTHING, b"")
        return None

    def _read_header(self) -> bool:
        """Read a frame's header if it is all here."""
        buffer, at = self.buffer, self.at
        size = len(buffer) - at
        if size < 2:
            return False
        first, second = buffer[at], buffer[at + 1]
        self._check(first, second)
        length = second & 0x7F
        start = at + (6 if length < 126 else 8 if length == 126 else 14)
        if start > len(buffer):
            return False
        if length >= 126:
            extended = int.from_bytes(buffer[at + 2 : start - 4])
            # RFC 6455 5.2: "the minimal number of bytes MUST be used to encode the length", "the most significant bit
            # MUST be 0".
            if extended < (126 if length == 126 else 65536) or extended >> 63:
                raise Violation(1002, "payload length is encoded wrongly")
            length = extended
        self.at = start
        self._mask = buffer[start - 4 : start]
        self._left = length
        opcode = self._frame = first & 0x0F
        if opcode < CLOSE:
            self._final = first >= FIN
            if opcode:
                self._message = opcode
                self._inflates = bool(first & RSV1)
                if self._decoder is not None:
                    self._decoder.reset()
            if not self._inflates and not self._discards and self.payload.size + length > self._limit:
                raise too_big(self._limit)
        return True

    def _check(self, first: int, second: int) -> None:
        """Raise `Violation` for a header that breaks a rule of RFC 6455 5.2, 5.4 or 5.5."""
        opcode = first & 0x0F
        if second < 0x80:
            raise Violation(1002, "frame is not masked")
        if first & 0x30 or (first & RSV1 and (self._inflater is None or opcode not in (TEXT, BINARY))):
            raise Violation(1002, "reserved bit is set")
        if opcode in (CLOSE, PING, PONG):
            if first < FIN:
                raise Violation(1002, "control frame is fragmented")
            if second & 0x7F > CONTROL_MAX:
                raise Violation(1002, "control frame is too long")
        elif opcode == CONTINUATION:
            if not self._message:
                raise Violation(1002, "nothing to continue")
        elif opcode > BINARY:
            raise Violation(1002, "reserved opcode")
        elif self._message:
            raise Violation(1002, "message within a message")

    def _read_payload(self) -> str | bytes | Control | None:
        """Read what is here of a frame's payload: the event that it completes, if it does."""
        if self._behind >= 0:
            return self._go_on_inflating()
        if self._decodes:
            return self._go_on_decoding()
        at, left = self.at, self._left
        piece = self.buffer[at : at + left]
        size = len(piece)
        if self._frame >= CLOSE:
            if size < left:
                return None
            self.at, self._left = at + left, -1
            return Control(self._frame, unmask(piece, self._mask))
        self.at = at + size
        left = self._left = left - size
        if size and not self._discards:
            self._take(unmask(piece, self._mask), not left and self._final)
            turn = size & 3
            if turn:
                self._mask = self._mask[turn:] + self._mask[:turn]
            if self._inflates and self._inflater is not None and self._inflater.more:
                self._behind, self._left = left, 0
                return None
        if left:
            return None
        self._left = -1
        return self._end_message() if self._final else None

    def _go_on_inflating(self) -> str | bytes | Control | None:
        """Read the next part of what a piece inflates to, and return as `_read_payload()` does."""
        inflater = self._inflater
        assert inflater is not None
        if inflater.more and not self._discards:
            data = inflater.go_on(self._limit - self.payload.size)
            self._share.left -= len(data) >> STEP_SHIFT
            self._keep(data, not inflater.more and not self._behind and self._final)
            if inflater.more:
                return None
        self._left, self._behind = self._behind, -1
        if self._left:
            # The rest of the frame, as far as it is here.
            return self._read_payload()
        self._left = -1
        return self._end_message() if self._final else None

    def _take(self, data: bytes, is_last: bool) -> None:
        """Keep a piece of the message, of which it may be the last."""
        inflater = self._inflater
        if self._inflates and inflater is not None:
            data = inflater.inflate(data, self._limit - self.payload.size)
            is_last = is_last and not inflater.more
            self._share.left -= len(data) >> STEP_SHIFT
        self._keep(data, is_last)

    def _keep(self, data: bytes, is_last: bool) -> None:
        self.payload.add(data)
        if self._message == TEXT and not is_last:
            # The whole is decoded at its end, which notices what a last piece has wrong.
            if self._decoder is None:
                self._decoder = _new_decoder()
            try:
                self._decoder.decode(data)
            except UnicodeDecodeError:
                raise not_utf8() from None

    def _end_message(self) -> str | bytes | None:
        is_text = self._message == TEXT
        self._message = CONTINUATION
        if self._discards:
            return None
        payload = self.payload
        if self._inflates and self._inflater is not None:
            payload.add(self._inflater.end(self._limit - payload.size))
        if not is_text:
            return payload.take()
        if payload.size <= DECODED_AT_ONCE:
            return decoded(payload.take())
        # As within a frame, so that nothing after it is read before.
        self._decodes, self._left = True, 0
        return None

    def _go_on_decoding(self) -> str | None:
        """Decode the next part of a long text; the text when that was the last one."""
        size = 0
        if not self._discards:
            try:
                size = self.payload.decode()
            except UnicodeDecodeError:
                self._decodes, self._left = False, -1
                raise not_utf8() from None
            self._share.left -= size >> STEP_SHIFT
        if size:
            return None
        self._decodes, self._left = False, -1
        return None if self._discards else self.payload.take_text()


def decoded(payload: bytes) -> str:
    """The text of a message; raises `Violation` (RFC 6455 8.1)."""
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise not_utf8() from None


def not_utf8() -> Violation:
    return Violation(1007, "text is not UTF-8")


def too_big(limit: int) -> Violation:
    """The error for a message above `limit` bytes."""
    return Violation(1009, f"message is larger than {limit} bytes")


# Writing

_FIRST = {FIN | opcode | bit for opcode in (TEXT, BINARY, CLOSE, PING, PONG) for bit in (0, RSV1)}
# By the first byte and the size; empty where no frame begins so. A tuple, which threads need not count.
_SHORT = tuple(tuple(bytes((first, size)) for size in range(126)) if first in _FIRST else () for first in range(256))


def frame(first: int, payload: bytes) -> bytes:
    """A whole frame, unmasked as a server's are; `first` is its first byte: FIN, RSV1 and opcode."""
    size = len(payload)
    if size < 126:
        return _SHORT[first][size] + payload
    # Added, not formatted: compilers may have that copy byte by byte, which takes eight times as long.
    if size < 65536:
        return b"%c\x7e%c%c" % (first, size >> 8, size & 0xFF) + payload
    return b"%c\x7f%b" % (first, size.to_bytes(8)) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """A Close frame (RFC 6455 5.5.1); 1005 stands for one without a code."""
    if code == NO_STATUS:
        return frame(FIN | CLOSE, b"")
    return frame(FIN | CLOSE, code.to_bytes(2) + reason.encode())


def parse_close(payload: bytes) -> tuple[int, str]:
    """Code and reason of a Close frame; 1005 where it has none (RFC 6455 7.1.5). Raises `Violation`."""
    if not payload:
        return NO_STATUS, ""
    code = int.from_bytes(payload[:2])
    if len(payload) == 1 or not may_be_sent(code):
        raise Violation(1002, "close code is not valid")
    return code, decoded(payload[2:])


def may_be_sent(code: int) -> bool:
    """Whether a Close frame may have that code (RFC 6455 7.4, and the IANA registry of close codes)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999
