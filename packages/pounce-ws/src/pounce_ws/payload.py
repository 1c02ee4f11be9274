"""Payload: what has arrived of a message, piece by piece, and how it becomes one.

Theory of operation. Pieces stay as they came, so that nothing is copied before the end: a buffer that grows to 16 MiB
copies all of it again and again, for up to 20 ms at a time. Small ones are put together, because an object for each
would take more than its bytes. The end joins them, which is one copy.

A long text is decoded part by part before that, with turns for others in between; what is joined then is text.
"""

import codecs

__all__ = ["Payload"]

SMALL = 4096
"""Pieces below this are put together."""
PART = 65536
"""Bytes of these from which another one begins."""

_new_decoder = codecs.getincrementaldecoder("utf-8")


class Payload:
    """Of one message after the other. `size` is what is kept, in bytes."""

    __slots__ = ("_at", "_decoder", "_parts", "_texts", "size")

    def __init__(self) -> None:
        self._parts: list[bytes | bytearray] = []
        self.size = 0
        self._texts: list[str] = []
        """Parts that were decoded, of which `_at` tells the number."""
        self._at = 0
        self._decoder: codecs.IncrementalDecoder | None = None

    def add(self, data: bytes) -> None:
        """Keep the next piece."""
        if not data:
            return
        self.size += len(data)
        parts = self._parts
        if len(data) >= SMALL:
            parts.append(data)
        elif parts and isinstance(last := parts[-1], bytearray) and len(last) < PART:
            last += data
        else:
            parts.append(bytearray(data))

    def clear(self) -> None:
        """Keep nothing."""
        self._parts = []
        self._texts = []
        self._at = 0
        self.size = 0

    def take(self) -> bytes:
        """All of it; nothing is kept."""
        whole = b"".join(self._parts)
        self.clear()
        return whole

    def decode(self) -> int:
        """Decode the next part of a text; how many bytes that was, 0 at the end. Raises `UnicodeDecodeError`."""
        if self._at == len(self._parts):
            return 0
        if not self._at:
            self._decoder = _new_decoder()
        assert self._decoder is not None
        part, self._parts[self._at] = self._parts[self._at], b""
        self._at += 1
        self._texts.append(self._decoder.decode(part, self._at == len(self._parts)))
        return len(part)

    def take_text(self) -> str:
        """All of it, when it was decoded; nothing is kept."""
        whole = "".join(self._texts)
        self.clear()
        return whole
