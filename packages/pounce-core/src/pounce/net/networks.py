"""Networks: which peers a setting names, by address, by network, or as those of Unix sockets."""

import ipaddress
from collections.abc import Iterable

from pounce.errors import ConfigError

__all__ = ["Networks", "address_of"]

type Address = ipaddress.IPv4Address | ipaddress.IPv6Address
type Network = ipaddress.IPv4Network | ipaddress.IPv6Network

WORDS = ("localhost", "unix", "*")
"""What a setting may hold beside addresses and networks."""
KNOWN_MAX = 1024
"""Addresses of which is remembered whether they are named."""


class Networks:
    """Peers by address or network, `localhost`, `unix` for those of Unix sockets, and `*` for everybody."""

    __slots__ = ("_known", "_networks", "everybody", "unix")

    def __init__(self, items: Iterable[str], setting: str, words: tuple[str, ...] = WORDS) -> None:
        """`words` are those of `WORDS` that the setting knows. Raises `ConfigError`, which names it."""
        items = tuple(items)
        said = {word for word in words if word in items}
        self.everybody = "*" in said
        self.unix = self.everybody or "unix" in said
        named = [item for item in items if item not in said]
        if "localhost" in said:
            named += ["127.0.0.0/8", "::1"]
        self._networks = [_network(item, setting, words) for item in named]
        self._known: dict[str, bool] = {}

    def __bool__(self) -> bool:
        return self.unix or bool(self._networks)

    def has(self, peer: tuple[str, int] | None) -> bool:
        """Whether a peer is among them; None stands for the peer of a Unix socket."""
        if peer is None:
            return self.unix
        found = self._known.get(peer[0])
        return self.everybody or (self.names(peer[0]) if found is None else found)

    def names(self, address: str) -> bool:
        """Whether an address is one of them by itself, and not because everybody is."""
        found = self._known.get(address)
        if found is None:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            parsed = address_of(address)
            found = parsed is not None and any(parsed in network for network in self._networks)
            self._known[address] = found
        return found


def address_of(text: str) -> Address | None:
    """An address; one of IPv4 also where it is written as IPv6 (RFC 4291 2.5.5.2). None for what is none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def _network(text: str, setting: str, words: tuple[str, ...]) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as exc:
        raise ConfigError(
            f"{setting} must be addresses, networks or {' or '.join(words)} (got {text!r})",
            hint="For example 127.0.0.1, 10.0.0.0/8 or fd00::/8; a network has no bits set behind its length.",
        ) from exc
