"""Heads: the field blocks of a connection, and what they were found to mean.

A field block that is, octet for octet, one that was decoded before means the same, as long as the dynamic table did not
change in between; so the heads of such requests are copied instead of decoded and checked again. So are those of blocks
that differ in their path alone, but for the path.
"""

from math import inf
from typing import NamedTuple

from pounce.config import ServerConfig
from pounce.contract.head import Headers
from pounce.contract.stream import ConnectionInfo
from pounce.errors import BadRequest
from pounce.exchange.fields import FieldTable, request_head
from pounce.exchange.huffman import HuffmanDecoder
from pounce.exchange.known_heads import KnownHead, KnownHeads
from pounce.exchange.priority import priority_of
from pounce_h2.abuse import ConnectionFailed
from pounce_h2.decode import CompressionError, FieldDecoder
from pounce_h2.frames import ErrorCode
from pounce_h2.settings import TABLE_SIZE

__all__ = ["Block", "Heads"]

CONTINUATIONS_MAX = 64
"""Frames of one field block."""
BLOCK_MIN = 16_384
"""Octets of a field block that are decoded, however low max_header_size is: the connection depends on it."""
BLOCK_SHIFT = 5
"""A step of a turn's share for 32 octets of a field block that is decoded."""


class Block(NamedTuple):
    """A field block that goes on in CONTINUATION frames."""

    stream: int
    flags: int
    depends_on_itself: bool
    pieces: list[bytes]
    due: float


class Heads:
    """What the requests of one connection say."""

    __slots__ = ("_config", "_fields", "_info", "_known", "block", "decoder", "known", "size_max")

    def __init__(self, config: ServerConfig, info: ConnectionInfo, fields: FieldTable, huffman: HuffmanDecoder) -> None:
        self._config = config
        self._info = info
        self._fields = fields
        self._known = KnownHeads()
        self.known = self._known.get
        """What the very same block means, if that is known."""
        self.decoder = FieldDecoder(TABLE_SIZE, config.max_header_size, config.max_headers, huffman)
        self.size_max = max(BLOCK_MIN, config.max_header_size)
        """Octets that a field block may have."""
        self.block: Block | None = None
        """The one of which nothing but its rest may come now."""

    def begin(self, stream: int, flags: int, depends_on_itself: bool, piece: bytes, due: float) -> None:
        """HEADERS without END_HEADERS: the rest is to come by `due`."""
        self.block = Block(stream, flags, depends_on_itself, [piece], due)

    def go_on(self, piece: bytes, ends: bool) -> tuple[Block, bytes] | None:
        """CONTINUATION: what began the block and all of it, once it is complete. Raises `ConnectionFailed`."""
        block = self.block
        if block is None:
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        pieces = block.pieces
        pieces.append(piece)
        # CVE-2024-27316 and its kin: the bounds come before any decoding.
        if len(pieces) > CONTINUATIONS_MAX or sum(map(len, pieces)) > self.size_max:
            raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "a field block is too long")
        if not ends:
            return None
        self.block = None
        return block, b"".join(pieces)

    def understand(self, block: bytes) -> tuple[KnownHead | BadRequest, bytes | None]:
        """What a request's field block means, and the path that takes the place of the one in there, if one does."""
        decoder = self.decoder
        config = self._config
        split = decoder.without_path(block)
        if split is not None:
            found = self._known.but_for_path(split, block, decoder.string, config.max_header_size)
            if found is not None:
                return found
        generation = decoder.generation
        fields = self.decode(block)
        if fields is None:
            return too_large(config.max_header_size, config.max_headers), None
        headers, size = fields
        try:
            head = request_head(headers, "2", self._info.scheme, self._fields)
        except BadRequest as error:
            return error, None
        known = KnownHead(head, priority_of(head.headers), size)
        if decoder.generation == generation:
            self._known.keep(block, split, known)
        return known, None

    def decode(self, block: bytes) -> tuple[Headers, int] | None:
        """The fields of a block and their size; None when they exceed a bound. Raises `ConnectionFailed`."""
        decoder = self.decoder
        generation = decoder.generation
        self._info.share.left -= len(block) >> BLOCK_SHIFT
        try:
            fields = decoder.decode(block)
        except CompressionError as exc:
            raise ConnectionFailed(ErrorCode.COMPRESSION_ERROR, str(exc)) from None
        if decoder.generation != generation:
            self._known.clear()
        return fields

    def postpone(self, seconds: float) -> None:
        """For so long the connection has not looked at what the peer sent."""
        if self.block is not None:
            self.block = self.block._replace(due=self.block.due + seconds)

    def due(self, now: float) -> float:
        """When the rest of a block is due. Raises `ConnectionFailed` when that has passed."""
        if self.block is None:
            return inf
        if self.block.due <= now:
            raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "a field block did not arrive in time")
        return self.block.due


def too_large(size: int, count: int) -> BadRequest:
    return BadRequest(
        "The header section is too large",
        status=431,
        code="POUNCE_PARSE_HEADERS_TOO_LARGE",
        hint=f"The limits are {size} bytes and {count} fields.",
    )
