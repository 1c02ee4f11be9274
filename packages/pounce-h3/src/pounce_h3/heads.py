"""Heads: the field sections of a connection, what they were found to mean, and the memory that they take.

A field section that is, octet for octet, one that was decoded before means the same, as long as the dynamic table did
not change in between, and so does one that differs in its path alone, but for the path: the heads of such requests are
copied instead of decoded and checked again (`pounce.exchange.known_heads`).
"""

from typing import TYPE_CHECKING

from pounce.exchange.budget import Budget
from pounce.exchange.fields import FieldTable, request_head
from pounce.exchange.known_heads import KnownHead, KnownHeads
from pounce.exchange.priority import priority_of
from pounce_h3.codes import H3_EXCESSIVE_LOAD
from pounce_h3.engine import QuicError

if TYPE_CHECKING:
    from pounce.plugin import Service
    from pounce_h3.engine import Engine, FieldCodec

__all__ = ["SCHEME", "Heads", "too_much"]

SCHEME = "https"
"""There is no HTTP/3 without TLS."""
INSTRUCTIONS_MAX = 1024
"""QPACK instructions that the peer may send at once, beyond `INSTRUCTIONS_PER_SECOND` and those of its requests."""
INSTRUCTIONS_PER_SECOND = 100
INSTRUCTIONS_PER_REQUEST = 32
HEAD_MEMORY = 16
"""How many heads of `max_header_size` the requests of a connection may hold together."""


class Heads:
    """What the requests of one connection say."""

    __slots__ = (
        "_fields",
        "_instructions",
        "_known",
        "_requests_paid",
        "_size_max",
        "are_timed",
        "codec",
        "memory",
        "memory_max",
        "section_max",
    )

    codec: FieldCodec

    def __init__(self, service: Service, engine: Engine) -> None:
        config, shared = service.config, service.shared
        time = service.loop.time
        self._fields: FieldTable = shared.get("fields") or shared.setdefault("fields", FieldTable())
        self._known = KnownHeads()
        self.are_timed = config.server_timing
        """Heads tell how long it took to read them."""
        self._size_max = config.max_header_size
        self._instructions = Budget("QPACK instructions", INSTRUCTIONS_MAX, INSTRUCTIONS_PER_SECOND, time, too_much)
        self._requests_paid = 0
        self.codec = engine.codec(service, self._instructions)
        # The longest code of Huffman has 30 bits for an octet.
        self.section_max = 4 * config.max_header_size + 16 * config.max_headers
        """Bytes of an encoded field section: more than any that is within the limits."""
        self.memory = 0
        """Bytes of field sections that are not complete, or blocked, and of heads of requests."""
        self.memory_max = HEAD_MEMORY * config.max_header_size

    def understand(self, stream_id: int, section: bytes) -> tuple[KnownHead, bytes | None]:
        """What a request's field section means, and the path that takes the place of the one in there, if one does.

        Raises `StreamBlocked`, `FieldSectionTooLarge`, `BadRequest`, and `QuicError`.
        """
        codec = self.codec
        split: tuple[bytes, int] | None = None
        found: tuple[KnownHead, bytes | None] | None = None
        known = self._known.get(section)
        if known is not None:
            found = known, None
        else:
            split = codec.without_path(section)
            if split is not None:
                found = self._known.but_for_path(split, section, codec.string, self._size_max)
        if found is not None:
            # RFC 9204 4.5.1.1: without the dynamic table the first octet is 0.
            if section[0]:
                codec.acknowledge(stream_id)
            return found
        fields, size = codec.decode(stream_id, section)
        head = request_head(fields, "3", SCHEME, self._fields)
        known = KnownHead(head, priority_of(head.headers), size)
        self._known.keep(section, split, known)
        return known, None

    def instruct(self, data: bytes, requests: int) -> list[int]:
        """Instructions of the encoder of a peer that has sent so many requests: what was known is known no longer.

        The streams whose sections were blocked, and can be read now. Raises `QuicError`.
        """
        codec = self.codec
        generation = codec.generation
        self._instructions.earn((requests - self._requests_paid) * INSTRUCTIONS_PER_REQUEST)
        self._requests_paid = requests
        codec.encoder_instructions(data)
        if codec.generation == generation:
            return []
        self._known.clear()
        return codec.unblocked()


def too_much(message: str) -> QuicError:
    """What ends a connection whose peer asks for too much."""
    return QuicError(H3_EXCESSIVE_LOAD, message)
