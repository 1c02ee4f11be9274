"""The h11 parser: h11 reads every byte, and a guard before it refuses what h11 would let pass.

h11 is the reference for the grammar but follows RFC 9112 where it allows leniency: it takes a bare LF for a line
end, unfolds obs-fold, merges equal Content-Lengths, allows blanks after a chunk size and controls in values. The
guard looks at the raw bytes first, so that this server reads a request in one way only. What is wrong with a section
that either of them refuses, `framing` says.
"""

import re

import h11

from pounce.contract.head import RequestHead
from pounce.errors import BadRequest
from pounce.h1.framing import (
    CHUNK_LINE_MAX,
    bad,
    check_section,
    chunk_line,
    content_length,
    empty_lines,
    find_bad_line_end,
    read_trailers,
    refusal,
    request_head,
    too_many_fields,
    transfer_encoding,
)
from pounce.plugin import EndOfBody, ParserLimits

__all__ = ["H11Parser"]

# RFC 9112 5.2 (obs-fold) and RFC 9110 5.5 (no controls but HTAB)
_bad_field = re.compile(rb"\r\n[ \t]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]").search
_WRONG_TO_NUL = bytes(0 if byte == 127 or (byte < 32 and byte not in b"\r\n\t") else 1 for byte in range(256))
_framing_fields = re.compile(
    rb"\r\n(transfer-encoding|content-length):[ \t]*([^\r]*?)[ \t]*(?=\r\n)", re.IGNORECASE
).findall
_request_line = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+ [\x21-\x7e]+ HTTP/1\.[0-9]").fullmatch


# What comes next in the buffer. Numbers: `immortal` tells why not an Enum.
HEAD, LENGTH_BODY, CHUNK_LINE, CHUNK_DATA, TRAILERS = range(5)


class H11Parser:
    """The `Parser` that the core brings; see `pounce.plugin.Parser` for the contract."""

    __slots__ = ("_before", "_buffer", "_h11", "_limits", "_overhead", "_remaining", "_scanned", "_state")

    def __init__(self, limits: ParserLimits) -> None:
        self._limits = limits
        self._buffer = bytearray()
        self._state = HEAD
        self._scanned = 0
        self._remaining = 0
        self._overhead = 0
        self._h11: h11.Connection

    def receive_data(self, data: bytes) -> None:
        self._buffer += data

    @property
    def buffered(self) -> int:
        return len(self._buffer)

    def take_rest(self) -> bytes:
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def next_event(self) -> RequestHead | bytes | EndOfBody | None:
        state = self._state
        if state == HEAD:
            return self._read_head()
        if state == LENGTH_BODY:
            return self._read_length_body()
        return self._read_chunked()

    # Heads

    def _read_head(self) -> RequestHead | None:
        buffer = self._buffer
        if buffer.startswith(b"\r\n"):
            del buffer[: empty_lines(buffer)]
            self._scanned = 0
        head = self._take_section(b"\r\n\r\n")
        if head is None:
            return None
        try:
            return self._read_section(head)
        except BadRequest as found:
            raise refusal(head, self._limits.max_headers, found) from found

    def _read_section(self, head: bytes) -> RequestHead:
        line, _, _ = head.partition(b"\r\n")
        if _request_line(line) is None:
            raise bad("The request line is not valid", "MALFORMED_REQUEST_LINE")
        self._check_fields(head)
        coding = _check_framing_fields(head, line.endswith(b"1.0"))
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=len(head))
        connection.receive_data(head)
        request = _from_h11(connection)
        assert isinstance(request, h11.Request)
        headers = [(name.lower(), value) for name, value in request.headers.raw_items()]
        if coding is not None:
            # h11 puts it in lower case, but a field belongs to the application as it was sent.
            headers = [(name, coding if name == b"transfer-encoding" else value) for name, value in headers]
        result = request_head(request.method, request.target, request.http_version, headers)
        if result.content_length is None:
            # Only a chunked body is h11's to read; kept for nothing, it would cost every request a colder cache.
            self._h11 = connection
            self._state = CHUNK_LINE
            self._overhead = 0
        elif result.content_length:
            self._state = LENGTH_BODY
            self._remaining = result.content_length
        return result

    def _take_section(self, end: bytes) -> bytes | None:
        """Take the bytes up to and with `end`, refusing early what can never become a valid section."""
        buffer = self._buffer
        found = buffer.find(end, max(0, self._scanned - 3))
        size = len(buffer) if found < 0 else found + len(end)
        check_section(buffer, 0, self._scanned, size, self._limits.max_header_size, self._state == HEAD)
        if found < 0:
            self._scanned = len(buffer)
            return None
        if size == len(buffer):
            section = bytes(buffer)
            buffer.clear()
        else:
            section = bytes(buffer[:size])
            del buffer[:size]
        self._scanned = 0
        return section

    def _check_fields(self, section: bytes) -> None:
        # The quick look first: it takes a tenth of the regular expression's time, and nearly always suffices.
        suspicious = 0 in section.translate(_WRONG_TO_NUL) or b"\n " in section or b"\n\t" in section
        if suspicious and _bad_field(section) is not None:
            raise bad("A header field has a control character or a folded line", "BAD_HEADER")
        limit = self._limits.max_headers
        if section.count(b"\r\n") - 2 > limit:
            raise too_many_fields(limit)

    # Bodies

    def _read_length_body(self) -> bytes | EndOfBody | None:
        if not self._remaining:
            self._state = HEAD
            return EndOfBody()
        if not self._buffer:
            return None
        data = self._take(self._remaining)
        self._remaining -= len(data)
        return data

    def _take(self, count: int) -> bytes:
        buffer = self._buffer
        data = bytes(buffer[:count]) if len(buffer) > count else bytes(buffer)
        del buffer[: len(data)]
        self._scanned = 0
        return data

    def _read_chunked(self) -> bytes | EndOfBody | None:
        while True:
            if self._state == CHUNK_LINE:
                if not self._read_chunk_line():
                    return None
            elif self._state == CHUNK_DATA:
                if not self._buffer:
                    # h11 may hold a first byte after the chunk's data: let it look at that too.
                    _from_h11(self._h11, in_body=True)
                    return None
                data = self._take(self._remaining)
                self._remaining -= len(data)
                if not self._remaining:
                    self._state = CHUNK_LINE
                event = self._decode(data)
                if isinstance(event, h11.Data):
                    return bytes(event.data)
            else:
                return self._read_trailers()

    def _read_chunk_line(self) -> bool:
        # h11 still holds the CRLF of the chunk before: let it look at that now, not when more has come.
        _from_h11(self._h11, in_body=True)
        buffer = self._buffer
        end = buffer.find(b"\r\n", self._scanned, CHUNK_LINE_MAX + 2)
        bound = end + 2 if end >= 0 else min(len(buffer), CHUNK_LINE_MAX + 2)
        wrong = find_bad_line_end(buffer, self._scanned, bound)
        if wrong is not None or (end < 0 and len(buffer) >= CHUNK_LINE_MAX + 2):
            raise bad("Chunk size is not valid", "BAD_CHUNK")
        if end < 0:
            self._scanned = max(0, len(buffer) - 1)
            return False
        line = self._take(end + 2)
        size, self._overhead = chunk_line(line[:-2], self._overhead)
        self._decode(line)
        if size:
            self._state = CHUNK_DATA
            self._remaining = size + 2
        else:
            self._state = TRAILERS
        return True

    def _read_trailers(self) -> EndOfBody | None:
        buffer = self._buffer
        if buffer.startswith(b"\r\n"):
            section = self._take(2)
        elif not buffer:
            return None
        else:
            taken = self._take_section(b"\r\n\r\n")
            if taken is None:
                return None
            section = taken
        read_trailers(section, self._limits.max_headers)
        end = self._decode(section)
        assert isinstance(end, h11.EndOfMessage)
        trailers = list(end.headers)
        self._state = HEAD
        return EndOfBody(trailers or None)

    def _decode(self, data: bytes) -> object:
        self._h11.receive_data(data)
        return _from_h11(self._h11, in_body=True)


def _from_h11(connection: h11.Connection, *, in_body: bool = False) -> object:
    """The next event of h11; its errors become ours here and nowhere else."""
    try:
        return connection.next_event()
    except h11.RemoteProtocolError as exc:
        if in_body:
            raise bad("Chunk data does not end where it should", "BAD_CHUNK") from exc
        raise bad("The request is not valid", "H11_REJECTED") from exc


def _check_framing_fields(head: bytes, is_1_0: bool) -> bytes | None:
    """Judge the fields that say where the body ends as they were sent: h11 merges and rewrites some of them.

    Returns the value of Transfer-Encoding, if there is one. Raises `BadRequest`.
    """
    fields = _framing_fields(head)
    if fields:
        lengths = [value for name, value in fields if len(name) == len(b"content-length")]
        codings: list[bytes] = [value for name, value in fields if len(name) != len(b"content-length")]
        if codings:
            transfer_encoding(codings, is_1_0)
            if lengths:
                raise bad("Content-Length together with Transfer-Encoding", "SMUGGLING_CL_TE")
            return codings[0]
        content_length(lengths)
    return None
