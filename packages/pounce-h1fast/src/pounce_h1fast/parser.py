"""FastParser: HTTP/1.1 requests (RFC 9112), read with C-level primitives and checked in full.

Theory of operation. A head is found with one `find` and cut with one `split`; then each line is looked up in a table
of lines that were checked before. Clients repeat themselves: on a connection most lines are the same in every request,
and `Accept-Encoding: gzip, deflate, br` is the same for half the world. A line that is not in the table is checked
against the grammar, whole, so that no CR, LF or control inside it can pass. A connection whose next request has the
very same fields skips even the look-ups. When it differs in a few values, what the two have in common is kept as a
pattern: a request that fits is compared piece by piece, and only its values are checked, with no line taken apart.
A connection has patterns of several kinds of requests, such as some with a body and some without, and begins with those
that other connections of its thread have made last: so the first request of a client is read like a further one.

What is taken from an earlier request, and why that equals reading anew. Three things are, and no other:

1. The field that a line is (`LineTable`). It is a function of the bytes of the line, and all of them are the key.
2. The fields of a section that fits a `Pattern`. To fit it must be the pattern's texts, all of them, with a value
   between each two that has no CR, LF or other control: so its lines are those of the section that the pattern was made
   of, but for those values. A line that is the same is the same field; the others have a name that was checked, and
   their value is read from the request at hand.
3. What the fields say about the request (`content_length`, `keep_alive`, `upgrade`, and `relayed`, which their names
   decide). For HTTP/1.1 with a path as target, `request_head` concludes the others from the special fields alone, with
   Host among them. They are in the pattern's texts, name and value, so that a request that fits has the very same
   ones, in the same order. But for one: the value of the only Content-Length may be left to the request at hand. It is
   read there as `content_length()` reads it, and nothing else depends on it, because such a pattern has neither Upgrade
   nor Expect nor Transfer-Encoding, and its first request had a body, as each that fits it has.

Where a head ends is looked for only if it fits no pattern: the texts of a pattern have one empty line, which is the end
of the last one, and its values have none, so that a section that fits ends there and not before.

A pattern is made at once, of a section that was accepted, and never changed: no state of it stands for "nothing yet"
and could be taken for a section that is short or empty. One without values to read has that whole section as its only
text. The values that may differ are not kept, so that none can be given to another request.

Whose section a pattern was made of makes no difference to any of this. It does to whether that section was accepted,
which depends on the limit of fields as well: so connections have patterns in common only where that is the same. Nor
are sections with fields that are a client's own, such as cookies, in any pattern but those of its connection.

The table is bounded in entries and in the length of an entry, belongs to one thread, forgets in generations, and has
only so much room for the lines of one name: ids that never come again push out nothing that does.

It is long and one thing: the proof above is about all of it.
"""

import re
import threading
from typing import Any, cast

from pounce.contract.head import GET, Headers, RequestHead
from pounce.errors import BadRequest
from pounce.exchange.fields import is_forwarding
from pounce.exchange.scope import METHODS
from pounce.h1.framing import (
    CHUNK_LINE_MAX,
    METHOD_MAX,
    SPECIAL_FIELDS,
    bad,
    check_section,
    chunk_line,
    empty_lines,
    find_bad_line_end,
    read_trailers,
    refusal,
    request_head,
    too_many_fields,
)
from pounce.plugin import EndOfBody, ParserLimits

__all__ = ["FastParser", "LineTable"]

# RFC 9112 3: request-line = method SP request-target SP HTTP-version; RFC 9110 5.6.2: method = token
_REQUEST_LINE = re.compile(rb"([!#$%%&'*+\-.^_`|~0-9A-Za-z]{1,%d}) ([\x21-\x7e]+) HTTP/(1\.[0-9])" % METHOD_MAX)
# The request lines with which the fields alone tell what the request is: of HTTP/1.1, with a path that has no fragment,
# and no CONNECT.
_USUAL_LINE = re.compile(
    rb"(?!CONNECT )([!#$%%&'*+\-.^_`|~0-9A-Za-z]{1,%d}) (/[\x21\x22\x24-\x7e]*) HTTP/1\.1" % METHOD_MAX
)
VERSION = b" HTTP/1.1"
"""What a usual request line ends with, and so the texts of a pattern begin with."""
# RFC 9112 5: field-line = field-name ":" OWS field-value OWS, and RFC 9110 5.1: field-name = token
_FIELD_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# RFC 9112 7.1: chunk = chunk-size [ chunk-ext ] CRLF chunk-data CRLF
_SMALL_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,4})\r\n")
# RFC 9110 5.5: field-value has VCHAR, obs-text, SP and HTAB, and no other byte
_VALUE_BYTES = frozenset((9, *range(32, 127), *range(128, 256)))
# A table for `translate`: NUL for what a value must not have. Looking for NUL then takes a third of any other check.
_WRONG_TO_NUL = bytes(1 if byte in _VALUE_BYTES else 0 for byte in range(256))
# The same for a target: VCHAR, and no fragment.
_NO_TARGET_TO_NUL = bytes(1 if 33 <= byte < 127 and byte != 35 else 0 for byte in range(256))

USUAL_METHOD_MAX = max(map(len, METHODS)) + len(b" /")
"""Bytes of the longest method that is usual, and of what is behind it."""

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
"""Bytes of the fields that a connection makes a pattern of."""
KINDS_ROOM = 16_384
"""Bytes of all its patterns: what an idle connection may hold; and of those that connections begin with."""
FIELD_SIZE = 180
"""Bytes that a field takes in a pattern, beside its text: a tuple and what is in it."""

PATTERN_MAX = 8
"""Values that may differ from request to request without each being read from scratch."""
LENGTH_DIGITS = 18
"""Of a Content-Length that is taken as it is."""
KINDS_MAX = 4
"""Patterns of one connection."""

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

    __slots__ = (
        "field_name",
        "hits",
        "kinds",
        "methods",
        "misses",
        "names",
        "old",
        "request_line",
        "small_chunk",
        "usual_line",
        "young",
    )

    def __init__(self) -> None:
        # Of this thread alone; see `pounce.immortal`.
        self.field_name = _FIELD_NAME.fullmatch
        self.request_line = _REQUEST_LINE.fullmatch
        self.usual_line = _USUAL_LINE.fullmatch
        self.small_chunk = _SMALL_CHUNK.match
        self.methods = {method.encode(): method.encode() for method in METHODS}
        self.young: dict[bytes, tuple[bytes, bytes]] = {}
        self.old: dict[bytes, tuple[bytes, bytes]] = {}
        self.names: dict[bytes, Name] = {}
        self.hits = 0
        self.misses = 0
        self.kinds: dict[int, list[Pattern]] = {}
        """Patterns that new connections begin with, the last one first, by the limit of fields."""

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


class Pattern:
    """What requests of a connection share: the bytes from their version on, but for some values. Never changed.

    Its texts are `first`, which begins with the version of the request line, and, behind each of `values`, another one.
    Each but the last ends where a value begins; they have the CRLF before their lines, and the last one that at the end
    of the section and the empty line. Without values there is one text, that of an accepted request.
    """

    __slots__ = (
        "content_length", "first", "headers", "keep_alive", "length_at", "relayed", "size", "upgrade", "values",
    )  # fmt: skip

    def __init__(
        self,
        like: RequestHead | Pattern,
        headers: list[Any],
        first: bytes,
        values: list[tuple[int, bytes, bytes]],
        length_at: int = -1,
    ) -> None:
        self.first = first
        self.values = [(index, name, text, len(text)) for index, name, text in values]
        """Index and name of the field that a value belongs to, and the text behind it with its size."""
        self.size = len(first) + sum([size for _, _, _, size in self.values]) + FIELD_SIZE * len(headers)
        self.length_at = length_at
        """Index of the Content-Length that is to be read; -1 where `content_length` is that of all that fit."""
        self.headers = headers
        """The fields; None in the place of one whose value is to be read."""
        self.content_length: int | None = like.content_length
        self.keep_alive: bool = like.keep_alive
        self.upgrade: bytes | None = like.upgrade
        self.relayed: bool | tuple[int, ...] = like.relayed
        """False, or the places of the fields in question."""
        if self.relayed is True:
            last = len(headers) - 1
            self.relayed = tuple([last - at for at, (name, _) in enumerate(reversed(headers)) if is_forwarding(name)])

    def read(self, buffer: bytes, at: int, headers: list[Any]) -> int:
        """Where a section ends whose first value begins at `at`, if it fits: its values go into a copy of `headers`; -1
        when it does not."""
        values = b""
        for index, name, text, size in self.values:
            # Where no line ends, -1: no text fits there, nor where what ends it is not a CRLF. One byte is found in a
            # tenth of the time of two.
            end = buffer.find(b"\r", at)
            if not buffer.startswith(text, end):
                return -1
            value = buffer[at:end]
            # Of the other bytes that this takes off none may be there: below.
            headers[index] = (name, value.strip())
            values += value
            at = end + size
        return -1 if 0 in values.translate(_WRONG_TO_NUL) else at

    def with_values_of(self, block: bytes) -> Pattern | None:
        """What this one has in common with another request, from its version on; None when that is not enough."""
        # A value that is read already is what no line has.
        known = self.first + b"".join([b"\0" + text for _, _, text, _ in self.values])
        if block.count(b"\r\n") != known.count(b"\r\n"):
            return None
        lines, before = block.split(b"\r\n"), known.split(b"\r\n")
        headers = self.headers.copy()
        for index, lower, _, _ in self.values:
            headers[index] = (lower, b"")
        names = [lower for lower, _ in headers]
        texts: list[bytes] = []
        fields: list[tuple[int, bytes]] = []
        start = read = 0
        length_at = -1
        for index, line in enumerate(lines):
            if line != before[index]:
                name, colon, _ = line.partition(b":")
                lower = names[index - 1]
                # A name in other letters means the same, but is not the one that was checked.
                if not colon or not before[index].startswith(name + colon):
                    return None
                if lower in SPECIAL_FIELDS:
                    # There is one of them, and no Transfer-Encoding, since the section was accepted; and no Expect, of
                    # which no pattern is made. So nothing but the length of a body depends on its value.
                    if lower != b"content-length" or not self.content_length or b"upgrade" in names:
                        return None
                    length_at = index - 1
                if len(fields) == PATTERN_MAX:
                    return None
                headers[index - 1] = None
                texts.append(block[read : start + len(name) + 1])
                fields.append((index - 1, lower))
                read = start + len(line)
            start += len(line) + 2
        first, *others = *texts, block[read:]
        values = [(*field, text) for field, text in zip(fields, others, strict=True)]
        return Pattern(self, headers, first, values, length_at)


def _insert(kinds: list[Pattern], pattern: Pattern) -> None:
    """Put a pattern in front of others, of which only some are kept."""
    kinds.insert(0, pattern)
    while len(kinds) > KINDS_MAX or sum(kind.size for kind in kinds) > KINDS_ROOM:
        kinds.pop()


def _length(value: bytes) -> int:
    """The length of a body by the value of its Content-Length; 0 for none, and for what is left to others to read."""
    return int(value) if value.isdigit() and len(value) <= LENGTH_DIGITS else 0


# What comes next in the buffer. Numbers: `pounce.immortal` tells why not an Enum.
HEAD, LENGTH_BODY, CHUNK_LINE, CHUNK_DATA, CHUNK_END, TRAILERS = range(6)


class FastParser:
    """Implements `pounce.plugin.Parser`."""

    __slots__ = (
        "_at",
        "_buffer",
        "_kinds",
        "_limits",
        "_lines",
        "_max_head",
        "_overhead",
        "_remaining",
        "_scanned",
        "_state",
        "_turned",
        "buffered",
    )

    def __init__(self, limits: ParserLimits) -> None:
        self._limits = limits
        self._max_head = limits.max_header_size
        self._lines = _tables.lines
        self._buffer: bytes | bytearray = b""
        """What came and is not all read: the bytes that came, or an array once they trickle in. Empty at the end."""
        self._at = 0
        """How far it is read."""
        self.buffered = 0
        """Bytes behind that."""
        self._scanned = 0
        """How far it was looked through for the end of what comes next."""
        self._state = HEAD
        self._remaining = 0
        self._overhead = 0
        kinds = self._lines.kinds.get(limits.max_headers)
        self._kinds: list[Pattern] = [] if kinds is None else kinds.copy()
        """What the next request on this connection probably has in common with one before; the last one first."""
        self._turned: dict[Pattern, list[Pattern]] = {}
        """The same ones in their order from each on, as far as it was asked for."""

    def receive_data(self, data: bytes) -> None:
        buffer = self._buffer
        if not buffer:
            self._buffer = data
            self.buffered = len(data)
            return
        self.buffered += len(data)
        at = self._at
        if len(buffer) - at <= len(data):
            # No more is copied than has come.
            self._buffer = bytes(buffer[at:]) + data
        elif isinstance(buffer, bytearray):
            # This moves no bytes either.
            del buffer[:at]
            buffer += data
        else:
            self._buffer = bytearray(buffer[at:])
            self._buffer += data
        self._at = 0
        self._scanned -= at

    def take_rest(self) -> bytes:
        rest = bytes(self._buffer[self._at :])
        self._consume(len(self._buffer))
        return rest

    def _consume(self, at: int) -> None:
        """What stands before `at` is read. Nothing is copied for it: much more may follow, of many requests."""
        self.buffered = len(self._buffer) - at
        if not self.buffered:
            self._buffer = b""
            at = 0
        self._at = self._scanned = at

    def _wait(self, unsure: int) -> None:
        """Until more comes: keep what is not read. It was looked through in vain, but for its last bytes, which may be
        the first ones of what was looked for."""
        at = self._at
        if at:
            buffer = self._buffer
            if isinstance(buffer, bytearray):
                del buffer[:at]
            else:
                self._buffer = buffer[at:]
            self._at = 0
        self._scanned = max(0, len(self._buffer) - unsure)

    def next_event(self, data: bytes | None = None) -> RequestHead | bytes | EndOfBody | None:
        """As the contract has it; with `data` it is `first_event()`."""
        method: bytes | None
        if data is not None:
            # There is nothing to keep where the head takes all of it.
            buffer = data
            at = 0
        else:
            state = self._state
            if state != HEAD:
                return self._read_length_body() if state == LENGTH_BODY else self._read_chunked()
            buffer = self._buffer  # type: ignore[assignment] # or an array, which is asked below
            if not buffer:
                return None
            at = self._at
        if data is None and (self._scanned != at or type(buffer) is not bytes):
            line_end, method, target = -1, None, b""
        else:
            # The first line ends here or, in a request without fields, where the head does. Where it has no end, -1: no
            # text of a pattern is as short as what ends there.
            line_end = buffer.find(b"\r\n", at)
            # What `usual_line` matches, of the methods that nearly all requests have: it takes twice as long.
            if buffer.startswith(b"GET /", at):
                method = GET
                target = buffer[at + 4 : line_end - 9]
            else:
                start = buffer.find(b" /", at, at + USUAL_METHOD_MAX) + 1
                target = buffer[start : line_end - 9]
                method = self._lines.methods.get(buffer[at : start - 1]) if start else None
            # A line that is too short for this and the version, which the text of a pattern begins with, has not both:
            # none is a part of the other, nor overlaps it.
            if method is None or 0 in target.translate(_NO_TARGET_TO_NUL):
                match = self._lines.usual_line(buffer, at, line_end)
                method, target = match.groups() if match is not None else (None, b"")
            if method is not None:
                version_at = line_end - 9
                kinds = self._kinds
                for pattern in kinds:
                    first = pattern.first
                    if not buffer.startswith(first, version_at):
                        continue
                    headers = pattern.headers.copy()
                    end = version_at + len(first)
                    if pattern.values:
                        end = pattern.read(buffer, end, headers)
                        if end < 0:
                            continue
                    length = pattern.content_length
                    if pattern.length_at >= 0:
                        length = _length(headers[pattern.length_at][1])
                        if not length:
                            continue
                    if end - at > self._max_head:
                        break
                    if pattern is not kinds[0]:
                        self._kinds = self._turned.get(pattern) or self._turn(pattern)
                    if length:
                        self._state = LENGTH_BODY
                        self._remaining = length
                    elif length is None:
                        self._state = CHUNK_LINE
                        self._overhead = 0
                    # As `_consume()` does.
                    left = len(buffer) - end
                    if left:
                        self._buffer = buffer
                        self.buffered = left
                        self._at = self._scanned = end
                    elif data is None:
                        self._buffer = b""
                        self.buffered = self._at = self._scanned = 0
                    head = RequestHead(
                        method, target, headers, "1.1", "http", pattern.upgrade, length, False, pattern.keep_alive
                    )
                    if pattern.relayed:
                        head.relayed = pattern.relayed
                    return head
                if not buffer.startswith(VERSION, version_at):
                    # The patterns would have seen it.
                    method = None
        if data is not None:
            self._buffer = data
            self.buffered = len(data)
        return self._new_head(line_end, method, target)

    first_event = next_event

    def _turn(self, pattern: Pattern) -> list[Pattern]:
        """The patterns in their order from this one on: of those that take turns the next one is second then."""
        kinds = self._kinds
        place = kinds.index(pattern)
        turned = self._turned[pattern] = kinds[place:] + kinds[:place]
        return turned

    def _new_head(self, line_end: int, method: bytes | None, target: bytes) -> RequestHead | bytes | EndOfBody | None:
        """A head that fits no pattern, or was not held against any; None until all of it is here. Where it has a
        `method`, the line that ends there is a usual one."""
        buffer = self._buffer
        at = self._at
        end = buffer.find(b"\r\n\r\n", self._scanned) + 4
        if end < 4 or end - at > self._max_head:
            if self._skip_empty_lines():
                return self.next_event()
            check_section(buffer, at, self._scanned, len(buffer) if end < 4 else end, self._max_head, True)
            self._wait(3)
            return None
        if self._kinds and (self._scanned != at or type(buffer) is not bytes):
            # It came in several pieces, and may still fit one.
            self._buffer = bytes(buffer)
            self._scanned = at
            return self.next_event()
        version = b"1.1"
        if method is None:
            line_end = buffer.find(b"\r\n", at)
            match = self._lines.usual_line(buffer, at, line_end)
            if match is not None:
                method, target = match.groups()
            elif self._skip_empty_lines():
                return self.next_event()
            else:
                match = self._lines.request_line(buffer, at, line_end)
                if match is None:
                    found = bad("The request line is not valid", "MALFORMED_REQUEST_LINE")
                    raise refusal(bytes(buffer[at:end]), self._limits.max_headers, found)
                method, target, version = match.groups()
        try:
            head = self._checked_head(method, target, version, bytes(buffer[line_end:end]))
        except BadRequest as found:
            raise refusal(bytes(buffer[at:end]), self._limits.max_headers, found) from None
        self._consume(end)
        return head

    def _skip_empty_lines(self) -> bool:
        """Whether there were any in front of a request line (RFC 9112 2.2)."""
        if self._buffer[self._at] != 13:  # CR
            return False
        at = empty_lines(self._buffer, self._at)
        found = at > self._at
        if found:
            self._consume(at)
        return found

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

    def _checked_head(self, method: bytes, target: bytes, version: bytes, block: bytes) -> RequestHead:
        lines = block.split(b"\r\n")
        # What stands around the CRLFs at both ends.
        del lines[0], lines[-2:]
        limit = self._limits.max_headers
        if len(lines) > limit:
            raise too_many_fields(limit)
        headers = self._fields(lines)
        head = request_head(method, target, version, headers)
        length = head.content_length
        if length is None:
            self._state = CHUNK_LINE
            self._overhead = 0
        elif length:
            self._state = LENGTH_BODY
            self._remaining = length
        if version == b"1.1" and target[0] == 47 and len(block) <= BLOCK_MAX and not head.expect_continue:
            # The head's own list goes to the application.
            pattern = Pattern(head, headers.copy(), VERSION + block, [])
            self._learn(pattern, PRIVATE.isdisjoint([name for name, _ in headers]))
        return head

    def _learn(self, pattern: Pattern, is_for_all: bool) -> None:
        """Keep the pattern of a section that fitted none, or what it has in common with that of an earlier one; where
        it `is_for_all`, for connections to come as well."""
        self._turned = {}
        kinds = self._kinds
        before: Pattern | None = None
        for index, earlier in enumerate(kinds):
            common = earlier.with_values_of(pattern.first)
            if common is not None:
                pattern, before = common, earlier
                del kinds[index]
                break
        _insert(kinds, pattern)
        # What many clients have in common would be next to nothing in the end, with all else to be read.
        if is_for_all and (before is None or not before.values):
            shared = self._lines.kinds.setdefault(self._limits.max_headers, [])
            if before in shared:
                shared.remove(before)
            _insert(shared, pattern)

    # Bodies

    def take_body(self) -> bytes | None:
        """The body of the head that was read last, and its end with it; None where it is to be read by events."""
        buffer = self._buffer
        start = self._at
        if self._state == LENGTH_BODY:
            end = after = start + self._remaining
            if end > len(buffer):
                return None
        else:
            # In one chunk without extensions, and without trailers.
            match = self._lines.small_chunk(buffer, start)
            if match is None:
                return None
            start = match.end()
            end = start + int(match[1], 16)
            after = end + 7
            if end == start or buffer[end:after] != b"\r\n0\r\n\r\n":
                return None
        data = buffer[start:end]
        self._state = HEAD
        # As `_consume()` does.
        self.buffered = left = len(buffer) - after
        if not left:
            self._buffer = b""
            after = 0
        self._at = self._scanned = after
        return data if type(data) is bytes else bytes(data)

    def _read_length_body(self) -> bytes | EndOfBody | None:
        remaining = self._remaining
        if not remaining:
            self._state = HEAD
            return END_OF_BODY
        buffer = self._buffer
        if not buffer:
            return None
        at = self._at
        # A whole buffer of bytes is not copied for either.
        data = bytes(buffer[at : at + remaining])
        self._remaining = remaining - len(data)
        self._consume(at + len(data))
        return data

    def _read_chunked(self) -> bytes | EndOfBody | None:
        """Decode chunks (RFC 9112 7.1), up to `CHUNKS_AT_ONCE`, and give their data as one piece."""
        pieces: list[bytes | bytearray] = []
        buffer = self._buffer
        at = self._at
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
                    size, self._overhead = chunk_line(bytes(buffer[at:end]), self._overhead)
                    at = end + 2
                    self._remaining = size
                    self._state = CHUNK_DATA if size else TRAILERS
                else:
                    break
        except BadRequest:
            if not pieces:
                raise
            # What came before the error is delivered first; the error is met again.
        if at != self._at:
            self._consume(at)
        if pieces:
            return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)
        if self._state == TRAILERS:
            return self._read_trailers()
        self._wait(1)
        return None

    def _chunk_line_end(self, buffer: bytes | bytearray, at: int) -> int:
        """Where the line at `at` ends, -1 when it has not ended yet. Raises `BadRequest`."""
        bound = at + CHUNK_LINE_MAX + 2
        start = max(at, self._scanned)
        end = buffer.find(b"\r\n", start, bound)
        if end < 0 and (len(buffer) >= bound or find_bad_line_end(buffer, start, len(buffer)) is not None):
            raise bad("Chunk size is not valid", "BAD_CHUNK")
        return end

    def _read_trailers(self) -> EndOfBody | None:
        buffer = self._buffer
        at = self._at
        if buffer.startswith(b"\r\n", at):
            self._consume(at + 2)
            self._state = HEAD
            return END_OF_BODY
        end = buffer.find(b"\r\n\r\n", self._scanned)
        check_section(buffer, at, self._scanned, len(buffer) if end < 0 else end + 4, self._max_head, False)
        if end < 0:
            self._wait(3)
            return None
        trailers = read_trailers(bytes(buffer[at : end + 4]), self._limits.max_headers)
        self._consume(end + 4)
        self._state = HEAD
        return EndOfBody(trailers)
