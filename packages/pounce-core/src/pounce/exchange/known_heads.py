"""What is remembered of request heads, by their encoded field section (HTTP/2 and HTTP/3).

Clients repeat themselves: a section that is, octet for octet, one that was decoded before means the same for as long as
the dynamic table it was decoded with has not changed. So does one that differs in the string of its `:path` alone, but
for the path, which is checked as if it had been decoded. Nothing else is ever taken for something known, and whoever
keeps such heads forgets them when the table changes. They belong to one connection: they may hold secrets.
"""

from collections.abc import Callable
from typing import NamedTuple

from pounce.contract.head import RequestHead
from pounce.exchange.fields import is_path
from pounce.exchange.priority import Priority

__all__ = ["KnownHead", "KnownHeads"]

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


class KnownHeads:
    """The heads of one connection, by their section, and by what is left of it without the string of its path."""

    __slots__ = ("_but_for_path", "_by_section", "get")

    get: Callable[[bytes], KnownHead | None]
    """What the very same section means, if that is known."""

    def __init__(self) -> None:
        self._by_section: dict[bytes, KnownHead] = {}
        self._but_for_path: dict[bytes, KnownHead] = {}
        self.get = self._by_section.get

    def but_for_path(
        self, split: tuple[bytes, int], section: bytes, string: Callable[[bytes, int], bytes | None], max_size: int
    ) -> tuple[KnownHead, bytes] | None:
        """The head of a section that differs in its path alone, and the path that takes the place of the one there.

        `split` is the rest of the section and where its path stands, which `string` decodes.
        """
        known = self._but_for_path.get(split[0])
        if known is None:
            return None
        path = string(section, split[1])
        if path is None or known.size + len(path) - len(known.head.target) > max_size:
            return None
        return (known, path) if is_path(path, known.head.method) else None

    def keep(self, section: bytes, split: tuple[bytes, int] | None, known: KnownHead) -> None:
        """Remember what a section means, unless that or the section is large."""
        if len(section) <= KNOWN_SECTION_MAX:
            _keep(self._by_section, section, known)
            if split is not None:
                _keep(self._but_for_path, split[0], known)

    def clear(self) -> None:
        """The table has changed: nothing is known any more."""
        self._by_section.clear()
        self._but_for_path.clear()


def _keep(heads: dict[bytes, KnownHead], section: bytes, known: KnownHead) -> None:
    """When there are too many it begins anew."""
    if known.size <= KNOWN_SIZE_MAX:
        if len(heads) >= KNOWN_HEADS_MAX:
            heads.clear()
        heads[section] = known
