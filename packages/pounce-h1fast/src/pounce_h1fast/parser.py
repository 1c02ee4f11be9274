"""FastParser: HTTP/1.1 requests (RFC 9112), read with C-level primitives and checked in full.

Theory of operation. A head is found with one `find` and cut with one `split`; then each line is looked up in a table
of lines that were checked before. Clients repeat themselves: on a connection most lines are the same in every request,
and `Accept-Encoding: gzip, deflate, br` is the same for half the world. A line that is not in the table is checked
against the grammar, whole, so that no CR, LF or control inside it can pass. A connection whose next request has the
very same fields skips even the look-ups. When it differs in a few values, what it has in common with the one before is
kept as a pattern: a request that fits is compared piece by piece, and only its values are checked, with no line taken
apart. The few fields that say where the body ends, and for whom the request is, must be the same for that, or are
looked at again, by the same rules that every parser of this server uses (`pounce.h1.framing`).

The tables are bounded in entries and in the length of an entry, belong to one thread, forget in generations, and have
only so much room for the lines of one name: ids that never come again push out nothing that does.
"""

import re
import threading
from typing import cast

from pounce.errors import BadRequest
from pounce.exchange.head import Headers, RequestHead
from pounce.h1.framing import (
    CHUNK_LINE_MAX,
    FORBIDDEN_TRAILERS,
    SPECIAL_FIELDS,
    bad,
    chunk_line,
    empty_lines,
    find_bad_line_end,
    request_head,
    starts_badly,
    unsupported_version,
)
from pounce.plugin import EndOfBody, ParserLimits

__all__ = ["FastParser", "LineTable"]

# RFC 9112 3: request-line = method SP request-target SP HTTP-version; RFC 9110 5.6.2: method = token
_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e]+) HTTP/([0-9]\.[0-9])")
# RFC 9112 5: field-line = field-name ":" OWS field-value OWS, and RFC 9110 5.1: field-name = token
_FIELD_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# RFC 9110 5.5: field-value has VCHAR, obs-text, SP and HTAB, and no other byte
_VALUE_BYTES = frozenset((9, *range(32, 127), *range(128, 256)))
# A table for `translate`: NUL for what a value must not have. Looking for NUL then takes a third of any other check.
_WRONG_TO_NUL = bytes(1 if byte in _VALUE_BYTES else 0 for byte in range(256))

PRIVATE = frozenset((b"cookie", b"authorization", b"proxy-authorization"))
"""Fields that are each client's own, and nobody else's business: not kept."""

TABLE_MAX = 512
"""Lines in one generation of a table; there are two."""
LINE_MAX = 192
"""Bytes of a line that is worth keeping."""
NAME_ROOM = 48
"""Lines of one name in a generation: what has had more values than these is an id of some kind."""
NAMES_MAX = 256
NAME_MAX = 48
"""Names that are kept, and the bytes of one."""
CHUNKS_AT_ONCE = 16
"""Chunks that are decoded between two looks at whether others should have their turn."""
GENERATION = 8192
"""Misses after which a new generation begins even if the young one is not full, so that habits may change."""
BLOCK_MAX = 4096
"""Bytes of the fields that a connection keeps for its next request: what an idle one may hold."""

PATTERN_MAX = 8
"""Values that may differ from request to request without each being read from scratch."""

END_OF_BODY = EndOfBody()


class Name:
    """A field name that was checked: `lower` is its meaning, `room` how many more of its lines may be kept."""

    __slots__ = ("lower", "room")

    def __init__(self, lower: bytes) -> None:
        self.lower = lower
        self.room = 0 if lower in PRIVATE else NAME_ROOM


class LineTable:
    """Lines that were checked, with the field each means.

    When the young generation is full it becomes the old one, whose lines are forgotten unless they are asked for.
    `hits` and `misses` count the fields of heads that were read line by line, by whether their line was in the table.
    """

    __slots__ = ("field_name", "hits", "misses", "names", "old", "request_line", "young")

    def __init__(self) -> None:
        # Of this thread alone; see `pounce.immortal`.
        self.field_name = _FIELD_NAME.fullmatch
        self.request_line = _REQUEST_LINE.fullmatch
        self.young: dict[bytes, tuple[bytes, bytes]] = {}
        self.old: dict[bytes, tuple[bytes, bytes]] = {}
        self.names: dict[bytes, Name] = {}
        self.hits = 0
        self.misses = 0

    def find(self, line: bytes) -> tuple[bytes, bytes]:
        """The field of a line that is not in the young generation. Raises `BadRequest`."""
        name, colon, value = line.partition(b":")
        known = self.names.get(name) or self._check_name(name)
        field = self.old.get(line) if known.room else None
        if field is None:
            self.misses += 1
            if not colon or 0 in value.translate(_WRONG_TO_NUL):
                raise bad("A header field is not valid", "BAD_HEADER")
            field = (known.lower, value.strip(b" \t"))
            if not known.room or len(line) > LINE_MAX:
                return field
            known.room -= 1
            if self.misses % GENERATION == 0:
                self._begin_generation()
        if len(self.young) >= TABLE_MAX:
            self._begin_generation()
        self.young[line] = field
        return field

    def _check_name(self, name: bytes) -> Name:
        if self.field_name(name) is None:
            raise bad("A header field is not valid", "BAD_HEADER")
        known = Name(name.lower())
        if len(name) <= NAME_MAX and len(self.names) < NAMES_MAX:
            self.names[name] = known
        return known

    def _begin_generation(self) -> None:
        self.old, self.young = self.young, {}
        self.names = {}


class _Tables(threading.local):
    """The table of each thread: a worker's loop runs in one, so that no two workers share any."""

    def __init__(self) -> None:
        self.lines = LineTable()


_tables = _Tables()


# What comes next in the buffer. Numbers: `pounce.immortal` tells why not an Enum.
HEAD, LENGTH_BODY, CHUNK_LINE, CHUNK_DATA, CHUNK_END, TRAILERS = range(6)


class FastParser:
    """Implements `pounce.plugin.Parser`."""

    __slots__ = (
        "_before",
        "_block",
        "_buffer",
        "_limits",
        "_lines",
        "_max_head",
        "_overhead",
        "_pattern",
        "_pattern_end",
        "_remaining",
        "_scanned",
        "_state",
    )

    def __init__(self, limits: ParserLimits) -> None:
        self._limits = limits
        self._max_head = limits.max_header_size
        self._lines = _tables.lines
        self._buffer = b""
        self._scanned = 0
        self._state = HEAD
        self._remaining = 0
        self._overhead = 0
        self._before: RequestHead | None = None
        """A request that came before on this connection: the next one is probably like it."""
        self._block = b""
        """Its header fields as they came, until there is a pattern."""
        self._pattern: list[tuple[bytes, int, bytes]] = []
        """What two requests had in common: bytes up to a value in which they differ, index and name of its field."""
        self._pattern_end = b""
        """And the bytes after the last such value."""

    def receive_data(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data

    @property
    def buffered(self) -> int:
        return len(self._buffer)

    def take_rest(self) -> bytes:
        rest, self._buffer = self._buffer, b""
        return rest

    def next_event(self) -> RequestHead | bytes | EndOfBody | None:
        state = self._state
        if state != HEAD:
            return self._read_length_body() if state == LENGTH_BODY else self._read_chunked()
        buffer = self._buffer
        if not buffer:
            return None
        if buffer[0] == 13:  # CR
            start = empty_lines(buffer)
            if start:
                self._buffer = buffer = buffer[start:]
                self._scanned = 0
        end = buffer.find(b"\r\n\r\n", self._scanned)
        if end < 0 or end + 4 > self._max_head:
            self._check_unfinished(buffer, end)
            return None
        self._buffer = buffer[end + 4 :]
        self._scanned = 0
        # The first line ends here or, in a request without fields, where the head does.
        line_end = buffer.find(b"\r\n")
        match = self._lines.request_line(buffer, 0, line_end)
        if match is None:
            raise bad("The request line is not valid", "MALFORMED_REQUEST_LINE")
        method, target, version = match.groups()
        block = buffer[line_end:end]
        before = self._before
        if before is None:
            return self._new_head(method, target, version, block)
        headers = before.headers.copy()
        if block != self._block and not self._read_like(block, headers):
            return self._new_head(method, target, version, block)
        # Fields that say the same about this mean the same with every plain request line.
        if version != b"1.1" or target[0] != 47 or b"#" in target or method == b"CONNECT":
            return self._new_head(method, target, version, block)
        length = before.content_length
        if length:
            self._state = LENGTH_BODY
            self._remaining = length
        return RequestHead(method, target, headers, "1.1", "http", before.upgrade, length, False, before.keep_alive)

    def _read_like(self, block: bytes, headers: Headers) -> bool:
        """Read a field section that differs from the one before in no more than some values of no consequence.

        `headers` are the fields of the one before, and become those of this one. False when it differs in more.
        """
        if not self._pattern:
            return self._learn_pattern(block, headers)
        at = 0
        values = []
        for text, index, name in self._pattern:
            if not block.startswith(text, at):
                return False
            at += len(text)
            end = block.find(b"\r\n", at)
            value = block[at:end] if end >= 0 else block[at:]
            at += len(value)
            headers[index] = (name, value.strip(b" \t"))
            values.append(value)
        return block[at:] == self._pattern_end and 0 not in b"".join(values).translate(_WRONG_TO_NUL)

    def _learn_pattern(self, block: bytes, headers: Headers) -> bool:
        """As `_read_like()`, with the block before at hand, and keep what the two have in common for the next."""
        lines, before = block.split(b"\r\n"), self._block.split(b"\r\n")
        if len(lines) != len(before):
            return False
        pattern: list[tuple[bytes, int, bytes]] = []
        start = read = 0
        for index, line in enumerate(lines):
            if line != before[index]:
                name, colon, value = line.partition(b":")
                lower = headers[index - 1][0]
                if not colon or not before[index].startswith(name + colon) or lower in SPECIAL_FIELDS:
                    return False
                if len(pattern) == PATTERN_MAX or 0 in value.translate(_WRONG_TO_NUL):
                    return False
                headers[index - 1] = (lower, value.strip(b" \t"))
                pattern.append((block[read : start + len(name) + 1], index - 1, lower))
                read = start + len(line)
            start += len(line) + 2
        self._pattern = pattern
        self._pattern_end = block[read:]
        self._block = b""
        return True

    def _fields(self, lines: list[bytes]) -> Headers:
        """The fields of some lines. Raises `BadRequest`."""
        table = self._lines
        misses = table.misses
        fields = cast(Headers, list(map(table.young.get, lines)))
        for index, field in enumerate(fields):
            if field is None:
                fields[index] = table.find(lines[index])
        table.hits += len(lines) - (table.misses - misses)
        return fields

    def _new_head(self, method: bytes, target: bytes, version: bytes, block: bytes) -> RequestHead:
        if version[0] != 49:  # 1
            raise unsupported_version()
        lines = block.split(b"\r\n")
        del lines[0]
        if len(lines) > self._limits.max_headers:
            raise self._too_many()
        headers = self._fields(lines)
        head = request_head(method, target, version, headers)
        length = head.content_length
        if length is None:
            self._state = CHUNK_LINE
            self._overhead = 0
            return head
        if length:
            self._state = LENGTH_BODY
            self._remaining = length
        if version == b"1.1" and target[0] == 47 and len(block) <= BLOCK_MAX and not head.expect_continue:
            # The head's own list goes to the application, so what is kept here needs another.
            self._before = RequestHead(
                method, target, headers.copy(), "1.1", "http", head.upgrade, length, False, head.keep_alive
            )
            self._block = block
            self._pattern = []
        return head

    def _check_unfinished(self, buffer: bytes, end: int) -> None:
        """Refuse what can never become a valid head as soon as that is certain. Raises `BadRequest`."""
        size = len(buffer) if end < 0 else end + 4
        if size > self._max_head:
            if buffer.find(b"\r\n", 0, self._max_head) < 0:
                raise bad(
                    "The request line is too long", "TARGET_TOO_LONG", 414, f"The limit is {self._max_head} bytes."
                )
            raise self._too_large()
        if starts_badly(buffer):
            raise bad("The request line is not valid", "MALFORMED_REQUEST_LINE")
        self._check_line_ends(buffer)
        self._scanned = max(0, len(buffer) - 3)

    def _check_line_ends(self, buffer: bytes) -> None:
        wrong = find_bad_line_end(buffer, max(0, self._scanned - 1), len(buffer))
        if wrong is not None:
            raise BadRequest("A line does not end in CRLF", code="POUNCE_PARSE_BAD_LINE_END", position=wrong.start())

    def _too_large(self) -> BadRequest:
        return bad("The header section is too large", "HEADERS_TOO_LARGE", 431, f"The limit is {self._max_head} bytes.")

    def _too_many(self) -> BadRequest:
        return bad("Too many header fields", "TOO_MANY_HEADERS", 431, f"The limit is {self._limits.max_headers}.")

    # Bodies

    def _read_length_body(self) -> bytes | EndOfBody | None:
        remaining = self._remaining
        if not remaining:
            self._state = HEAD
            return END_OF_BODY
        data = self._buffer
        if not data:
            return None
        if len(data) > remaining:
            self._buffer = data[remaining:]
            data = data[:remaining]
        else:
            self._buffer = b""
        self._remaining = remaining - len(data)
        return data

    def _read_chunked(self) -> bytes | EndOfBody | None:
        """Decode chunks (RFC 9112 7.1), up to `CHUNKS_AT_ONCE`, and give their data as one piece."""
        pieces: list[bytes] = []
        buffer = self._buffer
        at = 0
        try:
            while True:
                state = self._state
                if state == CHUNK_DATA:
                    piece = buffer[at : at + self._remaining]
                    if piece:
                        pieces.append(piece)
                        at += len(piece)
                        self._remaining -= len(piece)
                    if self._remaining:
                        break
                    self._state = CHUNK_END
                elif state == CHUNK_END:
                    # RFC 9112 7.1: chunk = chunk-size [ chunk-ext ] CRLF chunk-data CRLF
                    if buffer[at : at + 2] != b"\r\n":
                        if not b"\r\n".startswith(buffer[at : at + 2]):
                            raise bad("Chunk data does not end where it should", "BAD_CHUNK")
                        break
                    at += 2
                    self._state = CHUNK_LINE
                elif state == CHUNK_LINE:
                    if len(pieces) == CHUNKS_AT_ONCE:
                        break
                    end = self._chunk_line_end(buffer, at)
                    if end < 0:
                        break
                    size, self._overhead = chunk_line(buffer[at:end], self._overhead)
                    at = end + 2
                    self._remaining = size
                    self._state = CHUNK_DATA if size else TRAILERS
                else:
                    break
        except BadRequest:
            if not pieces:
                raise
            # What came before the error is delivered first; the error is met again.
            self._buffer = buffer[at:]
            return b"".join(pieces)
        self._buffer = buffer[at:]
        if pieces:
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return self._read_trailers() if self._state == TRAILERS else None

    def _chunk_line_end(self, buffer: bytes, at: int) -> int:
        """Where the line at `at` ends, -1 when it has not ended yet. Raises `BadRequest`."""
        bound = at + CHUNK_LINE_MAX + 2
        end = buffer.find(b"\r\n", at, bound)
        if end < 0 and (len(buffer) >= bound or find_bad_line_end(buffer, at, len(buffer)) is not None):
            raise bad("Chunk size is not valid", "BAD_CHUNK")
        return end

    def _read_trailers(self) -> EndOfBody | None:
        buffer = self._buffer
        if buffer.startswith(b"\r\n"):
            self._buffer = buffer[2:]
            self._state = HEAD
            return END_OF_BODY
        end = buffer.find(b"\r\n\r\n")
        if len(buffer) > self._max_head and (end < 0 or end + 4 > self._max_head):
            raise self._too_large()
        if end < 0:
            self._check_line_ends(buffer)
            return None
        lines = buffer[:end].split(b"\r\n")
        if len(lines) > self._limits.max_headers:
            raise self._too_many()
        table = self._lines
        trailers = [table.young.get(line) or table.find(line) for line in lines]
        if any(name in FORBIDDEN_TRAILERS for name, _ in trailers):
            raise bad("A trailer field that is not allowed there", "BAD_TRAILER")
        self._buffer = buffer[end + 4 :]
        self._state = HEAD
        return EndOfBody(trailers)
