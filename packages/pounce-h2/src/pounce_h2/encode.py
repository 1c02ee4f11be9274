"""Field blocks of answers (HPACK, RFC 7541).

Nothing is ever put into the peer's dynamic table, so encoding has no state: a block is the same on every connection,
and those that an application repeats are encoded once. It also means that no secret can be guessed from the size of
what follows it (RFC 7541 7.1).
"""

from typing import NamedTuple

from hpack.table import HeaderTable

from pounce.contract.head import Headers
from pounce.exchange.fields import CONNECTION_FIELDS

__all__ = ["AnswerHead", "BlockTable", "content_length_field", "encode_fields"]

KNOWN_MAX = 256
"""Heads that a table keeps."""
FIELDS_MAX = 1024
FIELD_VALUE_MAX = 96
"""Fields that a table keeps, and octets of their values."""

_EXACT: dict[tuple[bytes, bytes], bytes] = {}
_NAMES: dict[bytes, int] = {}
for _index, (_name, _value) in enumerate(HeaderTable.STATIC_TABLE, 1):
    _EXACT[bytes(_name), bytes(_value)] = bytes((0x80 | _index,))
    _NAMES.setdefault(bytes(_name), _index)

# RFC 7541 7.1.3: what must not be put into a table by anybody on the way either.
NEVER_INDEXED = frozenset((b"set-cookie", b"authorization", b"proxy-authorization", b"authentication-info"))


class AnswerHead(NamedTuple):
    """The field block of an answer, without Content-Length where the exchange gave none."""

    block: bytes
    has_length: bool
    """Content-Length is among the fields."""
    priority: bytes | None
    """The Priority field (RFC 9218 8), by which an application corrects what the client wished for."""


class BlockTable:
    """Encodes answer heads, and keeps those it has encoded. Belongs to one worker; when full it begins anew."""

    __slots__ = ("_fields", "_known")

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], AnswerHead] = {}
        self._fields: dict[tuple[bytes, bytes], bytes] = {}

    def encode(self, status: int, headers: Headers) -> AnswerHead:
        """The head of an answer."""
        key = (status, *headers)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            found = self._known[key] = self._encode(status, headers)
        return found

    def _encode(self, status: int, headers: Headers) -> AnswerHead:
        block = [_field(b":status", b"%d" % status)]
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
                encoded = _field(name, value)
                if len(value) <= FIELD_VALUE_MAX and name not in NEVER_INDEXED:
                    if len(known) >= FIELDS_MAX:
                        known.clear()
                    known[field] = encoded
            block.append(encoded)
        return AnswerHead(b"".join(block), has_length, priority)


def encode_fields(headers: Headers) -> bytes:
    """A field block, for interim answers and trailers."""
    return b"".join([_field(name, value) for name, value in headers if name not in CONNECTION_FIELDS])


def content_length_field(length: int) -> bytes:
    """Content-Length, encoded."""
    value = b"%d" % length
    return b"\x0f\x0d%c%b" % (len(value), value)


def _field(name: bytes, value: bytes) -> bytes:
    exact = _EXACT.get((name, value))
    if exact is not None:
        return exact
    first = 0x10 if name in NEVER_INDEXED else 0x00
    index = _NAMES.get(name, 0)
    head = _integer(first, 0x0F, index) if index else bytes((first,)) + _integer(0, 0x7F, len(name)) + name
    return head + _integer(0, 0x7F, len(value)) + value


def _integer(first: int, full: int, value: int) -> bytes:
    """An integer with a prefix of `full` in an octet whose other bits are `first` (RFC 7541 5.1)."""
    if value < full:
        return bytes((first | value,))
    octets = [first | full]
    value -= full
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)
