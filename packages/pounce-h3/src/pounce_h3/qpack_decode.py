"""FieldDecoder: reads the field sections of one connection (RFC 9204), and the instructions that fill its table.

Theory of operation. Sections and instructions come on different streams, so a section may need entries that are still
on their way. It says how many insertions it needs, the Required Insert Count; until there have been so many it is
*blocked*: `decode()` raises, `unblocked()` tells later which streams can go on, and they call `decode()` once more. The
peer learns what became of its sections and insertions by instructions of ours, which are gathered until they are taken.

A section changes nothing in the table. So what is malformed in one ends the connection (RFC 9204 2.2.3), but what is
too large ends no more than its stream (7.4), and is not read to its end.

A section means the same for as long as the table stays what it is; `generation` tells when it has changed. Most
sections of a client differ in their `:path` alone, which clients put into no table: `without_path()` takes such a
section apart, so that the rest need not be decoded again. Lines are told apart from the first on, so whether a section
is of that kind, and where its path stands, is decided by the octets before the path alone; they are part of the rest.
"""

from pounce.contract.head import Headers
from pounce.exchange.budget import Budget
from pounce.exchange.huffman import HUFFMAN_MAX, SECRETS, HuffmanDecoder
from pounce.exchange.prefixed import continued, prefixed
from pounce_h3.codes import QPACK_DECOMPRESSION_FAILED, QPACK_ENCODER_STREAM_ERROR
from pounce_h3.engine import FieldSectionTooLarge, QuicError, StreamBlocked
from pounce_h3.qpack_table import ENTRY_OVERHEAD, STATIC, DynamicTable

__all__ = ["FieldDecoder"]

# RFC 9204 4.5.4: literals with the name of entry 0 or 1 of the static table; 0x20 says that they are never indexed.
AUTHORITY_LITERALS = frozenset((0x50, 0x70))
PATH_LITERALS = frozenset((0x51, 0x71))
STATIC_LINES: tuple[tuple[bytes, bytes] | None, ...] = (*[None] * 0xC0, *STATIC[:0x3F], None)
"""RFC 9204 4.5.2: the fields of the lines of the static table that are one octet, by the octet."""
EXACT_ABOVE = 8192
"""Octets of names and values above which they are counted exactly."""


class FieldDecoder:
    """The receiving end of one connection's header compression."""

    __slots__ = (
        "_blocked",
        "_blocked_max",
        "_budget",
        "_buffer",
        "_capacity_max",
        "_exact_above",
        "_huffman",
        "_instructions",
        "_known",
        "_lines_are_for",
        "_lines_by_octet",
        "_max_entries",
        "_max_fields",
        "_max_size",
        "_needed",
        "_table",
        "pending",
    )

    pending: bool
    """There are instructions for the peer."""

    def __init__(
        self, capacity: int, blocked: int, max_size: int, max_fields: int, huffman: HuffmanDecoder, budget: Budget
    ) -> None:
        """`capacity` and `blocked` are what was promised in SETTINGS; `max_size` and `max_fields` bound a section.

        `budget` is that of the peer's instructions.
        """
        self._table = DynamicTable(capacity)
        self._capacity_max = capacity
        self._max_entries = capacity // ENTRY_OVERHEAD
        self._blocked_max = blocked
        self._blocked: dict[int, int] = {}
        """The Required Insert Counts of sections that wait, by their stream."""
        self._max_size = max_size
        self._exact_above = min(EXACT_ABOVE, max_size)
        self._max_fields = max_fields
        self._huffman = huffman
        self._budget = budget
        self._buffer = bytearray()
        """The beginning of an instruction."""
        self._needed = 0
        """Octets of it that there must be before it is looked at again."""
        self._lines_by_octet: list[tuple[bytes, bytes] | None] = []
        self._lines_are_for = (-1, 0, 0)
        """Generation, Required Insert Count and Base for which those lines are good."""
        self._known = 0
        """Insertions of which the peer knows that they have arrived."""
        self._instructions = bytearray()
        self.pending = False

    @property
    def generation(self) -> int:
        """Changes with what sections may mean."""
        return self._table.generation

    # Field sections

    def decode(self, stream_id: int, section: bytes) -> tuple[Headers, int]:
        """The fields of a section, and how many octets their names and values have at the most.

        Raises `StreamBlocked`, `FieldSectionTooLarge`, and `QuicError` for what ends the connection.
        """
        try:
            if section[:2] == b"\0\0":
                return self._lines(section, 2, 0, 0)
            required, base, at = self._prefix(section)
            if required > self._table.inserted:
                self._block(stream_id, required)
            found = self._lines(section, at, required, base)
        except IndexError:
            raise failed("a field section is cut off, or an index is not in the static table") from None
        except ValueError as exc:
            raise failed(str(exc)) from None
        if required:
            if required > self._known:
                self._known = required
            self.acknowledge(stream_id)
        return found

    def acknowledge(self, stream_id: int) -> None:
        """RFC 9204 4.4.1: a section of this stream that needed entries was read.

        `decode()` sees to it; this is for sections that are known already.
        """
        self._instructions += prefixed(0x80, 0x7F, stream_id)
        self.pending = True

    def cancel(self, stream_id: int) -> None:
        """RFC 9204 4.4.2: nothing more is read of this stream."""
        self._blocked.pop(stream_id, None)
        if self._capacity_max:
            self._instructions += prefixed(0x40, 0x3F, stream_id)
            self.pending = True

    def unblocked(self) -> list[int]:
        """Streams whose sections were blocked, and can be read now."""
        inserted = self._table.inserted
        ready = [stream_id for stream_id, required in self._blocked.items() if required <= inserted]
        for stream_id in ready:
            del self._blocked[stream_id]
        return ready

    def instructions(self) -> bytes:
        """What the peer's encoder has to know since the last call."""
        count = self._table.inserted - self._known
        if count:
            # RFC 9204 4.4.3
            self._instructions += prefixed(0x00, 0x3F, count)
            self._known += count
        taken = bytes(self._instructions)
        self._instructions.clear()
        self.pending = False
        return taken

    def without_path(self, section: bytes) -> tuple[bytes, int] | None:
        """The section without the string of its `:path`, and where that string stands, for `string()`.

        None unless nothing but indexed lines and a literal `:authority` comes before it, and it is a literal itself.
        """
        try:
            if section[0] == 0xFF or section[1] & 0x7F == 0x7F:
                return None
            at = 2
            while (octet := section[at]) not in PATH_LITERALS:
                at += 1
                if octet in AUTHORITY_LITERALS:
                    at = self._end_of_string(section, at)
                elif octet < 0x80 or octet & 0x3F == 0x3F:
                    return None
            at += 1
            return section[:at] + section[self._end_of_string(section, at) :], at
        except IndexError, ValueError:
            # It is decoded as a whole, and then there is an error to tell of.
            return None

    def string(self, section: bytes, at: int) -> bytes | None:
        """The string that stands at `at`; None when it cannot be decoded."""
        try:
            return self._string(section, at, False)[0]
        except IndexError, ValueError:
            return None

    def _prefix(self, section: bytes) -> tuple[int, int, int]:
        """Required Insert Count, Base, and where the first line begins (RFC 9204 4.5.1)."""
        encoded, at = section[0], 1
        if encoded == 0xFF:
            encoded, at = continued(section, at, encoded)
        octet = section[at]
        at += 1
        delta = octet & 0x7F
        if delta == 0x7F:
            delta, at = continued(section, at, delta)
        required = self._required(encoded)
        if octet < 0x80:
            return required, required + delta, at
        if delta >= required:
            raise failed("the Base of a field section is negative")
        return required, required - delta - 1, at

    def _required(self, encoded: int) -> int:
        """RFC 9204 4.5.1.1: what came modulo twice the entries there may be, with the insertions seen so far."""
        if not encoded:
            return 0
        full = 2 * self._max_entries
        if encoded > full:
            raise failed("a Required Insert Count cannot be")
        most = self._table.inserted + self._max_entries
        required = most // full * full + encoded - 1
        if required > most:
            required -= full
        if required <= 0:
            raise failed("a Required Insert Count cannot be")
        return required

    def _block(self, stream_id: int, required: int) -> None:
        # RFC 9204 2.1.2: "If a decoder encounters more blocked streams than it promised to support, it MUST treat this
        # as a connection error of type QPACK_DECOMPRESSION_FAILED."
        if len(self._blocked) >= self._blocked_max:
            raise failed("more streams wait for the table than may")
        self._blocked[stream_id] = required
        raise StreamBlocked

    def _lines(self, section: bytes, at: int, required: int, base: int) -> tuple[Headers, int]:
        fields: Headers = []
        whole = self._whole_lines(required, base) if required else STATIC_LINES
        end = len(section)
        left = self._max_fields
        largest = 0
        while at < end:
            octet = section[at]
            at += 1
            field = whole[octet]
            if field is None:
                if octet & 0xD0 == 0x50:
                    # 4.5.4 Literal with a name of the static table
                    index = octet & 0x0F
                    if index == 0x0F:
                        index, at = continued(section, at, index)
                    name = STATIC[index][0]
                elif octet & 0xE0 == 0x20:
                    # 4.5.6 Literal with a name of its own
                    name, at = self._name(section, octet, at)
                elif octet >= 0xC0:
                    # 4.5.2 Indexed, in the static table
                    index, at = continued(section, at, 0x3F)
                    field = STATIC[index]
                else:
                    index, at = index_of(section, octet, at, base)
                    field = self._entry(index, required)
                    if index >= largest:
                        largest = index + 1
                    name = field[0]
                    if not octet & 0x80 and octet & 0xF0 != 0x10:
                        # 4.5.4, 4.5.5: it is the name alone
                        field = None
                if field is None:
                    value, at = self._string(section, at, name in SECRETS)
                    field = (name, value)
            fields.append(field)
            left -= 1
            if left < 0:
                raise FieldSectionTooLarge(many=True)
        # 2.2.1: that it is larger than "the lowest possible value" MAY be treated as an error.
        if required != largest and self._entry(required - 1, required) not in fields:
            raise failed("a field section does not need the entries that it requires")
        # Nearly all are far below the bound, which can be seen without adding up.
        size = len(section) * 2 + len(fields) * self._table.longest
        if size > self._exact_above:
            size = sum([len(name) + len(value) for name, value in fields])
            if size > self._max_size:
                raise FieldSectionTooLarge(many=False)
        return fields, size

    def _whole_lines(self, required: int, base: int) -> list[tuple[bytes, bytes] | None]:
        """The fields of lines of one octet, by the octet: those of the tables with a small index."""
        table = self._table
        what = (table.generation, required, base)
        if what != self._lines_are_for:
            self._lines_are_for = what
            self._lines_by_octet = lines = [*STATIC_LINES]
            # The newest that may be referred to comes first, and may not have index 0.
            newest = min(base, required)
            index = base - newest
            entries = table.entries[max(newest - table.oldest - 0x3F, 0) : max(newest - table.oldest, 0)]
            count = min(len(entries), 0x3F - index)
            if count > 0:
                entries.reverse()
                lines[0x80 + index : 0x80 + index + count] = entries[:count]
        return self._lines_by_octet

    def _entry(self, index: int, required: int) -> tuple[bytes, bytes]:
        # 2.2.3: from the oldest that is left to the last that is required.
        table = self._table
        if not table.oldest <= index < required:
            raise failed("an entry is not in the table, or was not required")
        return table.entries[index - table.oldest]

    def _name(self, section: bytes, octet: int, at: int) -> tuple[bytes, int]:
        length = octet & 0x07
        if length == 0x07:
            length, at = continued(section, at, length)
        end = at + length
        if end > len(section):
            raise IndexError
        name = section[at:end]
        return (self._huffman.decode(name, False) if octet & 0x08 else name), end

    def _string(self, section: bytes, at: int, secret: bool) -> tuple[bytes, int]:
        octet = section[at]
        at += 1
        length = octet & 0x7F
        if length == 0x7F:
            length, at = continued(section, at, length)
        end = at + length
        if end > len(section):
            raise IndexError
        data = section[at:end]
        return (self._huffman.decode(data, secret) if octet & 0x80 else data), end

    def _end_of_string(self, section: bytes, at: int) -> int:
        length = section[at] & 0x7F
        at += 1
        if length == 0x7F:
            length, at = continued(section, at, length)
        if at + length > len(section):
            raise IndexError
        return at + length

    # Instructions of the peer's encoder

    def encoder_instructions(self, data: bytes) -> None:
        """Bytes of the peer's encoder stream, however they are cut (RFC 9204 4.3). Raises `QuicError`."""
        buffer = self._buffer
        if buffer:
            buffer += data
            if len(buffer) < self._needed:
                return
            data = bytes(buffer)
            buffer.clear()
        at, end = 0, len(data)
        try:
            while at < end:
                self._needed = end - at + 1
                at = self._instruction(data, at)
                self._budget.spend()
        except IndexError:
            # It is not all there.
            buffer += data[at:]
        except ValueError as exc:
            raise QuicError(QPACK_ENCODER_STREAM_ERROR, str(exc)) from None
        if self._table.inserted > self._known:
            self.pending = True

    def _instruction(self, data: bytes, start: int) -> int:
        """Do what the instruction at `start` says; where it ends. Raises `IndexError` when it is not all there."""
        table = self._table
        octet = data[start]
        at = start + 1
        if octet >= 0x80:
            # 4.3.2 Insert with the name of an entry
            index = octet & 0x3F
            if index == 0x3F:
                index, at = continued(data, at, index)
            value, at = self._table_string(data, start, at, 0x7F)
            if octet < 0xC0:
                name = table.newest(index)[0]
            elif index < len(STATIC):
                name = STATIC[index][0]
            else:
                raise QuicError(QPACK_ENCODER_STREAM_ERROR, "an index is not in the static table")
            table.insert(name, value)
        elif octet >= 0x40:
            # 4.3.3 Insert with a name of its own
            name, at = self._table_string(data, start, start, 0x1F)
            value, at = self._table_string(data, start, at, 0x7F)
            table.insert(name, value)
        else:
            number = octet & 0x1F
            if number == 0x1F:
                number, at = continued(data, at, number)
            if octet >= 0x20:
                # 4.3.1 Set Dynamic Table Capacity
                table.resize(number)
            else:
                # 4.3.4 Duplicate
                table.insert(*table.newest(number))
        return at

    def _table_string(self, data: bytes, start: int, at: int, full: int) -> tuple[bytes, int]:
        """A string of the instruction at `start`, whose length has a prefix of `full`, behind the mark of Huffman."""
        octet = data[at]
        at += 1
        length = octet & full
        if length == full:
            length, at = continued(data, at, full)
        is_huffman = octet & (full + 1)
        if length > (self._capacity_max * HUFFMAN_MAX // 8 + 1 if is_huffman else self._capacity_max):
            # There is no need to wait for it.
            raise QuicError(QPACK_ENCODER_STREAM_ERROR, "an entry is larger than the table")
        end = at + length
        if end > len(data):
            self._needed = end - start
            raise IndexError
        found = data[at:end]
        # What is in the table is kept there, for its connection alone.
        return (self._huffman.decode(found, True) if is_huffman else found), end


def failed(reason: str) -> QuicError:
    return QuicError(QPACK_DECOMPRESSION_FAILED, reason)


def index_of(section: bytes, octet: int, at: int, base: int) -> tuple[int, int]:
    """The absolute index in the dynamic table that a line begins with, and where that ends (RFC 9204 3.2.5, 3.2.6)."""
    full = 0x3F if octet >= 0x80 else 0x0F if octet >= 0x10 else 0x07
    index = octet & full
    if index == full:
        index, at = continued(section, at, full)
    return (base + index if octet < 0x20 else base - 1 - index), at
