"""A parser of HTTP/1.1 in few lines: it takes requests apart, and `pounce.h1.framing` judges them."""

import re
from collections.abc import Callable

from pounce.h1.framing import (
    CHUNK_LINE_MAX,
    bad,
    check_section,
    chunk_line,
    empty_lines,
    find_bad_line_end,
    read_trailers,
    refusal,
    request_head,
)
from pounce.plugin import (
    API_VERSION,
    BadRequest,
    EndOfBody,
    Headers,
    ParserChoice,
    ParserLimits,
    Plugin,
    RequestHead,
)

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
REQUEST_LINE = re.compile(rb"(%b) ([\x21-\x7e]+) HTTP/(\d\.\d)" % TOKEN)
FIELD = re.compile(rb"(%b):([\t\x20-\x7e\x80-\xff]*)" % TOKEN)

type Event = RequestHead | bytes | EndOfBody | None


class PlainParser:
    """The `Parser` of one connection."""

    def __init__(self, limits: ParserLimits) -> None:
        self._limits = limits
        self._buffer = bytearray()
        self._scanned = 0
        """Bytes of it that have been looked at, and were not enough."""
        self._read: Callable[[PlainParser], Event] = PlainParser._read_head
        """What comes next."""
        self._left = 0
        """Bytes of the body, or of the chunk, that are to come."""
        self._overhead = 0

    def receive_data(self, data: bytes) -> None:
        self._buffer += data

    def next_event(self) -> Event:
        return self._read(self)

    def take_rest(self) -> bytes:
        return self._take(len(self._buffer))

    @property
    def buffered(self) -> int:
        return len(self._buffer)

    def _take(self, count: int) -> bytes:
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        self._scanned = 0
        return data

    def _take_section(self, is_head: bool) -> bytes | None:
        """The bytes up to and with an empty line. What can never become a section is refused early."""
        buffer = self._buffer
        found = buffer.find(b"\r\n\r\n", max(0, self._scanned - 3))
        size = len(buffer) if found < 0 else found + 4
        check_section(buffer, 0, self._scanned, size, self._limits.max_header_size, is_head)
        if found < 0:
            self._scanned = size
            return None
        return self._take(size)

    def _read_head(self) -> RequestHead | None:
        if self._buffer.startswith(b"\r\n"):
            self._take(empty_lines(self._buffer))
        section = self._take_section(True)
        if section is None:
            return None
        try:
            head = self._head(section)
        except BadRequest as found:
            # It need not be the first fault.
            raise refusal(section, self._limits.max_headers, found) from found
        if head.content_length is None:
            self._overhead = 0
            self._read = PlainParser._read_chunk_line
        elif head.content_length:
            self._left = head.content_length
            self._read = PlainParser._read_body
        return head

    def _head(self, section: bytes) -> RequestHead:
        line, *lines = section[:-4].split(b"\r\n")
        match = REQUEST_LINE.fullmatch(line)
        fields = [FIELD.fullmatch(line) for line in lines]
        if match is None or len(fields) > self._limits.max_headers:
            raise bad("The request is not valid", "MALFORMED_REQUEST_LINE")
        headers: Headers = []
        for field in fields:
            if field is None:
                raise bad("A header field is not valid", "BAD_HEADER")
            headers.append((field[1].lower(), field[2].strip(b" \t")))
        return request_head(match[1], match[2], match[3], headers)

    def _read_body(self) -> bytes | EndOfBody | None:
        if not self._left:
            return self._end(None)
        return self._read_piece()

    def _read_piece(self) -> bytes | None:
        data = self._take(self._left)
        self._left -= len(data)
        return data or None

    def _read_chunk_line(self) -> Event:
        buffer = self._buffer
        end = buffer.find(b"\r\n", 0, CHUNK_LINE_MAX + 2)
        bound = end + 2 if end >= 0 else min(len(buffer), CHUNK_LINE_MAX + 2)
        if find_bad_line_end(buffer, 0, bound) or (end < 0 and bound == CHUNK_LINE_MAX + 2):
            raise bad("Chunk size is not valid", "BAD_CHUNK")
        if end < 0:
            return None
        self._left, self._overhead = chunk_line(self._take(end + 2)[:-2], self._overhead)
        self._read = PlainParser._read_chunk if self._left else PlainParser._read_trailers
        return self._read(self)

    def _read_chunk(self) -> Event:
        if self._left:
            return self._read_piece()
        end = self._buffer[:2]
        if not b"\r\n".startswith(end):
            raise bad("Chunk data does not end where it should", "BAD_CHUNK")
        if len(end) < 2:
            return None
        self._take(2)
        self._read = PlainParser._read_chunk_line
        return self._read(self)

    def _read_trailers(self) -> EndOfBody | None:
        section = self._take(2) if self._buffer.startswith(b"\r\n") else self._take_section(False)
        return None if section is None else self._end(read_trailers(section, self._limits.max_headers))

    def _end(self, trailers: Headers | None) -> EndOfBody:
        self._read = PlainParser._read_head
        return EndOfBody(trailers)


plugin = Plugin(name="plain", api=API_VERSION, parsers=(ParserChoice(name="plain", priority=-1, create=PlainParser),))
