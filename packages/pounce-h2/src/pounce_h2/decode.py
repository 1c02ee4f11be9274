"""FieldDecoder: reads the field blocks of one connection (HPACK, RFC 7541), within bounds.

Bounds are kept while a block is decoded: a field that would exceed them is not kept, but the block is read to its end,
because the dynamic table must not lose step with the peer's. The block itself is bounded before it comes here.

A block that does not change the dynamic table means the same for as long as the table stays what it is; `generation`
tells when it has changed. Most blocks of a client differ in their `:path` alone, which clients put into no table:
`without_path` takes such a block apart, so that the rest need not be decoded again.
"""

from hpack.table import HeaderTable

from pounce.contract.head import Headers
from pounce.exchange.huffman import SECRETS, HuffmanDecoder
from pounce.exchange.prefixed import continued
from pounce_h2.abuse import ConnectionFailed
from pounce_h2.frames import ErrorCode

__all__ = ["CompressionError", "FieldDecoder"]

STATIC: tuple[tuple[bytes, bytes], ...] = tuple((bytes(name), bytes(value)) for name, value in HeaderTable.STATIC_TABLE)
ENTRY_OVERHEAD = 32
"""RFC 7541 4.1: what an entry counts beside its octets."""

FIELDS_MAX = 4096
"""Fields of a block that are read to its end, however few are kept: each octet may be one."""

# RFC 7541 6.2.2, 6.2.3: a literal without indexing, or never indexed, whose name is that of entry 4 or 5.
PATH_LITERALS = frozenset((0x04, 0x05, 0x14, 0x15))


class CompressionError(Exception):
    """The block cannot be decoded, and with it nothing that follows on its connection (RFC 9113 4.3)."""


class FieldDecoder:
    """The receiving end of one connection's header compression."""

    __slots__ = ("_entries", "_huffman", "_max_fields", "_max_list", "_room", "_table_max", "_table_size", "generation")

    generation: int
    """Changes with the dynamic table."""

    def __init__(self, table_size: int, max_list: int, max_fields: int, huffman: HuffmanDecoder) -> None:
        """`table_size` is what SETTINGS_HEADER_TABLE_SIZE promised, `max_list` and `max_fields` bound one section."""
        self._entries: list[tuple[bytes, bytes]] = []
        """The dynamic table, oldest first."""
        self._table_size = 0
        self._table_max = self._room = table_size
        self._max_list = max_list
        self._max_fields = max_fields
        self._huffman = huffman
        self.generation = 0

    def decode(self, block: bytes) -> tuple[Headers, int] | None:
        """The fields of a section and its size (RFC 9113 6.5.2); None when it exceeds a bound.

        Raises `CompressionError`, and `ConnectionFailed` for far too many fields.
        """
        try:
            return self._decode(block)
        except IndexError:
            raise CompressionError("a field block ends too early, or an index is not in the table") from None
        except ValueError as exc:
            raise CompressionError(str(exc)) from None

    def without_path(self, block: bytes) -> tuple[bytes, int] | None:
        """The block without the string of its `:path`, and where that string stands, for `string()`.

        None unless nothing but indexed fields comes before it, and it is a literal that no table keeps. Blocks that are
        the same without it mean the same but for it.
        """
        try:
            at = 0
            while (octet := block[at]) > 0x80:
                if octet == 0xFF:
                    return None
                at += 1
            if octet not in PATH_LITERALS:
                return None
            at += 1
            length = block[at] & 0x7F
            start = at + 1
            if length == 0x7F:
                length, start = continued(block, start, 0x7F)
        except IndexError, ValueError:
            # It is decoded as a whole, and then there is an error to tell of.
            return None
        return block[:at] + block[start + length :], at

    def string(self, block: bytes, at: int) -> bytes | None:
        """The string that stands at `at`; None when it cannot be decoded."""
        try:
            return self._string(block, at, False)[0]
        except IndexError, ValueError, CompressionError:
            return None

    def _decode(self, block: bytes) -> tuple[Headers, int] | None:
        fields: Headers = []
        at, end = 0, len(block)
        size = 0
        left = self._max_fields
        most = self._max_list
        while at < end:
            octet = block[at]
            at += 1
            if octet >= 0x80:
                # 6.1 Indexed
                if 0x80 < octet <= 0xBD:
                    field = STATIC[octet - 0x81]
                elif octet == 0xFF:
                    index, at = continued(block, at, 0x7F)
                    field = self._entry(index)
                else:
                    field = self._entry(octet & 0x7F)
            else:
                if octet >= 0x40:
                    # 6.2.1 Literal with incremental indexing
                    index, full = octet & 0x3F, 0x3F
                elif octet >= 0x20:
                    if fields or left < self._max_fields:
                        # 4.2: an update "MUST occur at the beginning of the first header block"
                        raise CompressionError("a table size update after a field")
                    room = octet & 0x1F
                    if room == 0x1F:
                        room, at = continued(block, at, 0x1F)
                    self._resize(room)
                    continue
                else:
                    # 6.2.2, 6.2.3 Literal without indexing, never indexed
                    index, full = octet & 0x0F, 0x0F
                if index == full:
                    index, at = continued(block, at, full)
                if index:
                    name = self._entry(index)[0]
                else:
                    name, at = self._string(block, at, False)
                value, at = self._string(block, at, name in SECRETS)
                field = (name, value)
                if octet >= 0x40:
                    self._add(field)
            size += len(field[0]) + len(field[1]) + ENTRY_OVERHEAD
            left -= 1
            if size <= most and left >= 0:
                fields.append(field)
            else:
                fields.clear()
                if self._max_fields - left > FIELDS_MAX:
                    raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "a field block has too many fields")
        return (fields, size) if size <= most and left >= 0 else None

    def _entry(self, index: int) -> tuple[bytes, bytes]:
        if index <= 61:
            if not index:
                raise CompressionError("index 0")
            return STATIC[index - 1]
        at = index - 61
        if at > len(self._entries):
            raise CompressionError("an index is not in the table")
        return self._entries[-at]

    def _string(self, block: bytes, at: int, secret: bool) -> tuple[bytes, int]:
        octet = block[at]
        at += 1
        length = octet & 0x7F
        if length == 0x7F:
            length, at = continued(block, at, 0x7F)
        end = at + length
        if end > len(block):
            raise CompressionError("a string ends after its block")
        data = block[at:end]
        return (self._huffman.decode(data, secret) if octet & 0x80 else data), end

    def _add(self, field: tuple[bytes, bytes]) -> None:
        self.generation += 1
        size = len(field[0]) + len(field[1]) + ENTRY_OVERHEAD
        self._entries.append(field)
        self._table_size += size
        if self._table_size > self._room:
            self._evict()

    def _resize(self, room: int) -> None:
        if room > self._table_max:
            raise CompressionError("a table size update above the maximum")
        self.generation += 1
        self._room = room
        self._evict()

    def _evict(self) -> None:
        # 4.4: an entry larger than the table empties it, and is no error.
        gone = 0
        for name, value in self._entries:
            if self._table_size <= self._room:
                break
            self._table_size -= len(name) + len(value) + ENTRY_OVERHEAD
            gone += 1
        del self._entries[:gone]
