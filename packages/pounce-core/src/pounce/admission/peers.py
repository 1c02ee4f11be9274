"""Peers: how many connections each address has, over all workers of a process.

A connection counts from the moment in which it is accepted, or behind a proxy from that in which the PROXY protocol
has said whose it is, until it is closed; one of QUIC from the end of its handshake, for before that anybody may write
any address on it. What it is known by is its `Share`, which it keeps whatever wire it gets.
"""

import threading
from socket import AF_INET6, inet_pton
from typing import TYPE_CHECKING

from pounce.contract.stream import unmapped
from pounce.errors import BadRequest
from pounce.net.networks import Networks

if TYPE_CHECKING:
    from pounce.config import ServerConfig
    from pounce.contract.turns import Share

__all__ = ["TOO_MANY", "Peers"]

TOO_MANY = BadRequest(
    "There are too many connections of this address",
    status=503,
    code="POUNCE_LIMIT_PEER",
    hint="The limit is max_connections_per_peer.",
)


class Peers:
    """The connections of one process by address. May be used from any thread."""

    def __init__(self, config: ServerConfig) -> None:
        """Raises `ConfigError` for a network that is none."""
        self._limit = config.max_connections_per_peer
        self._exempt = Networks(
            config.max_connections_per_peer_exempt, "max_connections_per_peer_exempt", words=("localhost",)
        )
        self._lock = threading.Lock()
        """Protects the fields below."""
        self._counts: dict[str, int] = {}
        self._keys: dict[Share, str] = {}

    def enter(self, address: str | None) -> str | None:
        """Count one more of an address: what to `leave()` by, empty where that is not counted. None: there is no room.

        Peers of Unix sockets have no address.
        """
        if address is None or self._exempt.has((address, 0)):
            return ""
        key = key_of(address)
        with self._lock:
            count = self._counts.get(key, 0)
            if count >= self._limit:
                return None
            self._counts[key] = count + 1
        return key

    def leave(self, key: str) -> None:
        """Count one less."""
        if not key:
            return
        with self._lock:
            count = self._counts[key] - 1
            if count:
                self._counts[key] = count
            else:
                del self._counts[key]

    def keep(self, key: str, share: Share) -> None:
        """This is the connection that was counted."""
        if key:
            with self._lock:
                self._keys[share] = key

    def closed(self, share: Share | None) -> None:
        """The connection is gone, if it was counted."""
        with self._lock:
            key = self._keys.pop(share, "") if share is not None else ""
        self.leave(key)


def key_of(address: str) -> str:
    """What is counted as one: an IPv4 address, or the /64 of an IPv6 one, which is what a customer has."""
    address = unmapped(address)
    if ":" not in address:
        return address
    try:
        return inet_pton(AF_INET6, address.partition("%")[0])[:8].hex()
    except OSError:
        return address
