"""Identity: who asks and through whom; the first thing that is done with a request, on every wire."""

from collections.abc import Iterable, Mapping

from pounce.config import ServerConfig
from pounce.contract.head import RequestHead
from pounce.contract.stream import ConnectionInfo
from pounce.identity.forwarded import Forwarding
from pounce.identity.request_id import is_request_id, request_ids
from pounce.net.networks import Networks

__all__ = ["Identity"]

BEHIND_PROXY = 75.0
"""Seconds that a connection of a trusted proxy may be idle: longer than load balancers keep theirs (60)."""


class Identity:
    """What one worker does about it."""

    def __init__(self, config: ServerConfig, trusted_by_bind: Mapping[int | str, Iterable[str]] | None = None) -> None:
        """`trusted_by_bind` has the proxies that binds name themselves, by port or path. Raises `ConfigError`."""
        self._forwarding = Forwarding(config) if config.proxy_headers else None
        self._by_bind = {place: Networks(hosts, "trusted_hosts") for place, hosts in (trusted_by_bind or {}).items()}
        self._trusts_any = bool(self._by_bind) or bool(config.trusted_hosts)
        self._new_id = request_ids(config.request_id_generator) if config.request_id else None
        self._id_field = config.request_id_header.lower().encode()
        self._idle = config.keep_alive_timeout
        self._idle_behind_proxy = config.trusted_keep_alive_timeout
        if self._idle_behind_proxy is None:
            default = ServerConfig.__dataclass_fields__["keep_alive_timeout"].default
            self._idle_behind_proxy = BEHIND_PROXY if self._idle == default else self._idle
        self.always = self._new_id is not None or self._trusts_any
        """Every request is looked at, not only those that have fields of proxies."""

    def networks_of(self, connection: ConnectionInfo) -> Networks | None:
        """The proxies that the bind of a connection names itself."""
        return self._by_bind.get(connection.bound) if self._by_bind and connection.bound is not None else None

    def keep_alive_timeout(self, connection: ConnectionInfo) -> float:
        """Seconds that a connection may be idle between two requests."""
        if self._trusts_any and self._forwarding is not None and self._idle_behind_proxy is not None:
            if self._forwarding.trusts(connection, self.networks_of(connection)):
                return self._idle_behind_proxy
        return self._idle

    def identify(self, head: RequestHead, connection: ConnectionInfo) -> RequestHead:
        """The head as the application is to see it. Raises `BadRequest`."""
        given = None
        if self._new_id is not None and head.relayed:
            given = next((value for name, value in head.headers if name == self._id_field), None)
        trusted = True
        if self._forwarding is not None:
            networks = self.networks_of(connection)
            trusted = self._forwarding.trusts(connection, networks)
            head = self._forwarding.identify(head, connection, networks)
        if self._new_id is not None:
            number = given.decode("ascii") if given is not None and trusted and is_request_id(given) else self._new_id()
            extensions = dict(head.extensions) if head.extensions is not None else {}
            extensions["request_id"] = number
            head.extensions = extensions
        return head
