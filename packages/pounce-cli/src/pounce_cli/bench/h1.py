"""An HTTP/1.1 client as a load needs it: one request, many times, and where each answer ends."""

from pounce_cli.bench.client import Answers, Request

__all__ = ["H1"]

KNOWN_MAX = 64


class H1:
    """One connection. `depth` requests may be on their way at once (pipelining, RFC 9112 9.3.2)."""

    begin = b""

    def __init__(self, request: Request) -> None:
        lines = [f"{request.method} {request.path} HTTP/1.1", f"host: {request.authority}"]
        lines += [f"{name}: {value}" for name, value in request.headers]
        if request.body or request.method in ("POST", "PUT", "PATCH"):
            lines.append(f"content-length: {len(request.body)}")
        self._request = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + request.body
        self._has_no_body = request.method == "HEAD"
        self._buffer = b""
        self._status = 0
        self._left = 0
        """Bytes of the body, or of the chunk with its line end, that are still to come; -1 to the end."""
        self._in_body = False
        self._is_chunked = False
        self._ends = False
        self._known: dict[bytes, tuple[int, int, bool, bool]] = {}

    def requests(self, count: int) -> bytes:
        """What to send for so many requests."""
        return self._request * count

    def received(self, data: bytes) -> Answers:
        """The statuses of the answers that are complete with this, in their order. Raises `ValueError` for what is no
        answer."""
        data = self._buffer + data if self._buffer else data
        at, found = 0, []
        while True:
            if not self._in_body:
                end = data.find(b"\r\n\r\n", at)
                if end < 0:
                    break
                self._begin(data[at:end])
                at = end + 4
            at = self._skip(data, at)
            if self._in_body:
                break
            found.append(self._status)
        self._buffer = data[at:]
        return Answers(found, closes=self._ends and not self._in_body and bool(found))

    def closed(self) -> list[int]:
        """The answer that ends with the connection, if one does."""
        return [self._status] if self._in_body and self._left < 0 else []

    def _begin(self, head: bytes) -> None:
        known = self._known.get(head)
        if known is None:
            known = _understood(head)
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[head] = known
        self._status, self._left, self._is_chunked, self._ends = known
        if self._has_no_body or self._status in (204, 304):
            self._left, self._is_chunked = 0, False
        self._in_body = True

    def _skip(self, data: bytes, at: int) -> int:
        """Where the body ends, or what there is of it."""
        while True:
            there = len(data) - at
            if self._left < 0:
                return len(data)
            if there < self._left:
                self._left -= there
                return len(data)
            at += self._left
            self._left = 0
            if not self._is_chunked:
                self._in_body = False
                return at
            end = data.find(b"\r\n", at)
            if end < 0:
                return at
            size = int(data[at:end].partition(b";")[0], 16)
            at = end + 2
            # A chunk with the end of its line; behind the last one there are no trailers, which nobody has asked for.
            self._left = size + 2
            self._is_chunked = size > 0


def _understood(head: bytes) -> tuple[int, int, bool, bool]:
    """Status, length of the body, whether it is in chunks, and whether the connection ends behind it."""
    first, *fields = head.split(b"\r\n")
    if not first.startswith(b"HTTP/1."):
        raise ValueError(f"this is no answer: {first[:40]!r}")
    length, is_chunked, ends = -1, False, first.startswith(b"HTTP/1.0")
    for line in fields:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip().lower()
        if name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding" and b"chunked" in value:
            is_chunked = True
        elif name == b"connection":
            ends = value == b"close"
    return int(first[9:12]), 0 if is_chunked else length, is_chunked, ends or (length < 0 and not is_chunked)
