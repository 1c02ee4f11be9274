"""AnswerTable: the encoded field sections of answers (HPACK and QPACK), kept for the next answer that is the same.

Nothing is ever put into the peer's dynamic table, so encoding has no state: a section is the same on every connection,
and those that an application repeats are encoded once. It also means that no secret can be guessed from the size of
what follows it (RFC 7541 7.1, RFC 9204 7.1).
"""

from collections.abc import Callable
from typing import NamedTuple

from pounce.contract.head import ExtendedFields, Headers
from pounce.exchange.fields import CONNECTION_FIELDS

__all__ = ["NEVER_INDEXED", "AnswerHead", "AnswerTable"]

KNOWN_MAX = 256
"""Heads that a table keeps."""
FIELDS_MAX = 1024
FIELD_VALUE_MAX = 96
"""Fields that a table keeps, and octets of their values."""

# RFC 7541 7.1.3, RFC 9204 7.1.3: what must not be put into a table by anybody on the way either.
NEVER_INDEXED = frozenset((b"set-cookie", b"authorization", b"proxy-authorization", b"authentication-info"))


class AnswerHead(NamedTuple):
    """The field section of an answer, without Content-Length where the exchange gave none."""

    block: bytes
    has_length: bool
    """Content-Length is among the fields."""
    priority: bytes | None
    """The Priority field (RFC 9218 8), by which an application corrects what the client wished for."""


class AnswerTable:
    """Encodes answer heads, and keeps those it has encoded. Belongs to one worker; when full it begins anew."""

    __slots__ = ("_encode_field", "_fields", "_known", "_prefix")

    def __init__(self, encode_field: Callable[[bytes, bytes], bytes], prefix: bytes = b"") -> None:
        """`encode_field` encodes a name and a value, and has no state; every section begins with `prefix`."""
        self._encode_field = encode_field
        self._prefix = prefix
        self._known: dict[tuple[object, ...], AnswerHead] = {}
        self._fields: dict[tuple[bytes, bytes], bytes] = {}

    def encode(self, status: int, headers: Headers) -> AnswerHead:
        """The head of an answer."""
        key = (status, *headers)
        found = self._known.get(key)
        if found is None:
            if type(headers) is ExtendedFields:
                block, has_length, priority = self.encode(status, headers.shared)
                own = [self._encode_field(name, value) for name, value in headers.own]
                return AnswerHead(block + b"".join(own), has_length, priority)
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            found = self._known[key] = self._encode(status, headers)
        return found

    def _encode(self, status: int, headers: Headers) -> AnswerHead:
        encode_field = self._encode_field
        block = [self._prefix, encode_field(b":status", b"%d" % status)]
        has_length = False
        priority = None
        known = self._fields
        for field in headers:
            name, value = field
            if name in CONNECTION_FIELDS:
                continue
            if name == b"content-length":
                has_length = True
            elif name == b"priority":
                priority = value
            encoded = known.get(field)
            if encoded is None:
                encoded = encode_field(name, value)
                if len(value) <= FIELD_VALUE_MAX and name not in NEVER_INDEXED:
                    if len(known) >= FIELDS_MAX:
                        known.clear()
                    known[field] = encoded
            block.append(encoded)
        return AnswerHead(b"".join(block), has_length, priority)
