"""Field blocks of answers (HPACK, RFC 7541), with literals and the static table; see `pounce.exchange.answers`."""

from hpack.table import HeaderTable

from pounce.contract.head import Headers
from pounce.exchange.answers import NEVER_INDEXED
from pounce.exchange.fields import CONNECTION_FIELDS
from pounce.exchange.prefixed import prefixed

__all__ = ["content_length_field", "encode_field", "encode_fields"]

_EXACT: dict[tuple[bytes, bytes], bytes] = {}
_NAMES: dict[bytes, int] = {}
for _index, (_name, _value) in enumerate(HeaderTable.STATIC_TABLE, 1):
    _EXACT[bytes(_name), bytes(_value)] = bytes((0x80 | _index,))
    _NAMES.setdefault(bytes(_name), _index)


def encode_fields(headers: Headers) -> bytes:
    """A field block, for interim answers and trailers."""
    return b"".join([encode_field(name, value) for name, value in headers if name not in CONNECTION_FIELDS])


def content_length_field(length: int) -> bytes:
    """Content-Length, encoded."""
    value = b"%d" % length
    return b"\x0f\x0d%c%b" % (len(value), value)


def encode_field(name: bytes, value: bytes) -> bytes:
    """One field, encoded."""
    exact = _EXACT.get((name, value))
    if exact is not None:
        return exact
    first = 0x10 if name in NEVER_INDEXED else 0x00
    index = _NAMES.get(name, 0)
    head = prefixed(first, 0x0F, index) if index else bytes((first,)) + prefixed(0, 0x7F, len(name)) + name
    return head + prefixed(0, 0x7F, len(value)) + value
