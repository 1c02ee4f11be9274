"""Qpack: the header compression of one connection (RFC 9204); see `pounce_h3.engine.FieldCodec`.

What is received may use a dynamic table. What is sent uses none: it has no state, so that answers which repeat are
encoded once for all connections of a worker.
"""

from typing import TYPE_CHECKING

from pounce.exchange.answers import AnswerTable
from pounce.exchange.budget import Budget
from pounce.exchange.huffman import HuffmanDecoder
from pounce.exchange.prefixed import continued
from pounce_h3.codes import QPACK_DECODER_STREAM_ERROR
from pounce_h3.engine import QuicError
from pounce_h3.qpack_decode import FieldDecoder
from pounce_h3.qpack_encode import PREFIX, content_length_field, encode_field, encode_fields
from pounce_h3.settings import BLOCKED_STREAMS

if TYPE_CHECKING:
    from pounce.plugin import Headers, Service

__all__ = ["Qpack"]


class Qpack(FieldDecoder):
    """RFC 9204 with a dynamic table for what is received."""

    __slots__ = ("_answers", "_rest")

    def __init__(self, service: Service, budget: Budget) -> None:
        shared, config = service.shared, service.config
        huffman: HuffmanDecoder = shared.get("huffman") or shared.setdefault("huffman", HuffmanDecoder())
        self._answers: AnswerTable = shared.get("h3.answers") or shared.setdefault(
            "h3.answers", AnswerTable(encode_field, PREFIX)
        )
        self._rest = b""
        """The beginning of an instruction of the peer's decoder."""
        capacity = config.http3_qpack_max_table_capacity
        super().__init__(
            capacity,
            BLOCKED_STREAMS if capacity else 0,
            config.max_header_size,
            config.max_headers,
            huffman,
            budget,
        )

    def answer(self, status: int, headers: Headers, length: int | None) -> tuple[bytes, bytes | None]:
        block, has_length, priority = self._answers.encode(status, headers)
        if length is not None and not has_length:
            block += content_length_field(length)
        return block, priority

    def encode(self, fields: Headers) -> bytes:
        return encode_fields(fields)

    def decoder_instructions(self, data: bytes) -> None:
        data = self._rest + data
        at, end = 0, len(data)
        try:
            while at < end:
                octet = data[at]
                if octet & 0xC0 != 0x40:
                    # RFC 9204 4.4.1, 4.4.3: nothing was ever inserted, and so no section has anything to acknowledge.
                    raise QuicError(QPACK_DECODER_STREAM_ERROR, "an acknowledgment of what was not sent")
                # Stream Cancellation: there is nothing to forget.
                _, at = continued(data, at + 1, 0x3F) if octet == 0x7F else (0, at + 1)
                self._budget.spend()
        except IndexError:
            pass
        except ValueError as exc:
            raise QuicError(QPACK_DECODER_STREAM_ERROR, str(exc)) from None
        self._rest = data[at:]
