"""What is remembered of request heads, by their encoded field section (HTTP/2 and HTTP/3).

Clients repeat themselves: a section that is, octet for octet, one that was decoded before means the same for as long as
the dynamic table it was decoded with has not changed. So does one that differs in the string of its `:path` alone, but
for the path, which is checked as if it had been decoded. Nothing else is ever taken for something known, and whoever
keeps such heads forgets them when the table changes. They belong to one connection: they may hold secrets.
"""

from typing import NamedTuple

from pounce.contract.head import RequestHead
from pounce.exchange.fields import is_path
from pounce.exchange.priority import Priority

__all__ = ["KNOWN_SECTION_MAX", "KnownHead", "fits", "keep_head"]

KNOWN_HEADS_MAX = 64
KNOWN_SECTION_MAX = 1024
KNOWN_SIZE_MAX = 16_384
"""Request heads that are kept by their field section, octets of such a section, and of what it means: references to a
dynamic table may be short and mean much."""


class KnownHead(NamedTuple):
    """What a field section means."""

    head: RequestHead
    priority: Priority
    size: int
    """What is held against `max_header_size`, at the most."""


def keep_head(heads: dict[bytes, KnownHead], section: bytes, known: KnownHead) -> None:
    """Remember a head, unless it is large; when there are too many it begins anew."""
    if known.size <= KNOWN_SIZE_MAX:
        if len(heads) >= KNOWN_HEADS_MAX:
            heads.clear()
        heads[section] = known


def fits(path: bytes, known: KnownHead, max_size: int) -> bool:
    """A request like this one may have this path instead of its own."""
    return known.size + len(path) - len(known.head.target) <= max_size and is_path(path, known.head.method)
