"""Field sections that are sent (RFC 9204 4.5): literals and the static table, so that encoding has no state.

See `pounce.exchange.answers`, which keeps them.
"""

from pounce.contract.head import Headers
from pounce.exchange.answers import NEVER_INDEXED
from pounce.exchange.fields import CONNECTION_FIELDS
from pounce.exchange.prefixed import prefixed
from pounce_h3.qpack_table import STATIC

__all__ = ["PREFIX", "content_length_field", "encode_field", "encode_fields"]

PREFIX = b"\0\0"
"""RFC 9204 4.5.1: no entries of the dynamic table are required."""

_EXACT: dict[tuple[bytes, bytes], bytes] = {}
_NAMES: dict[bytes, int] = {}
for _index, _field in enumerate(STATIC):
    # Name and value of an indexed field line (RFC 9204 4.5.2).
    _EXACT[_field] = prefixed(0xC0, 0x3F, _index)
    _NAMES.setdefault(_field[0], _index)


def encode_fields(headers: Headers) -> bytes:
    """A field section, for interim answers and trailers."""
    return PREFIX + b"".join([encode_field(name, value) for name, value in headers if name not in CONNECTION_FIELDS])


def content_length_field(length: int) -> bytes:
    """Content-Length, encoded."""
    value = b"%d" % length
    return b"\x54%c%b" % (len(value), value)


def encode_field(name: bytes, value: bytes) -> bytes:
    """One field line."""
    exact = _EXACT.get((name, value))
    if exact is not None:
        return exact
    index = _NAMES.get(name)
    if index is not None:
        # RFC 9204 4.5.4
        head = prefixed(0x70 if name in NEVER_INDEXED else 0x50, 0x0F, index)
    else:
        # RFC 9204 4.5.6
        head = prefixed(0x30 if name in NEVER_INDEXED else 0x20, 0x07, len(name)) + name
    return head + prefixed(0x00, 0x7F, len(value)) + value
