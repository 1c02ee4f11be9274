"""Identity: who asks and through whom; the first thing that is done with a request, on every wire."""

from collections.abc import Callable

from pounce.config import ServerConfig
from pounce.contract.head import RequestHead
from pounce.contract.stream import ConnectionInfo
from pounce.identity.forwarded import Forwarding
from pounce.identity.request_id import is_request_id, request_ids

__all__ = ["Identity", "idle_behind_proxy"]

USUAL_ID_FIELD = b"x-request-id"
BEHIND_PROXY = 75.0
"""Seconds that a connection of a trusted proxy may be idle: longer than load balancers keep theirs (60)."""


class Identity:
    """What one worker does about it, on all binds that have the same settings."""

    def __init__(self, config: ServerConfig) -> None:
        """Raises `ConfigError`."""
        self._forwarding = Forwarding(config) if config.proxy_headers else None
        self._trusts_any = bool(config.trusted_hosts)
        self._new_id = request_ids(config.request_id_generator) if config.request_id else None
        self._id_field = config.request_id_header.lower().encode()
        self._idle = config.keep_alive_timeout
        self._idle_behind_proxy = idle_behind_proxy(config)
        self.always = self._new_id is not None or self._trusts_any
        """Every request is looked at, not only those that have fields of proxies."""
        # Wires look out for the usual name alone.
        self._has_own_id_field = self._new_id is not None and self._id_field != USUAL_ID_FIELD
        self._looks_closer = self._trusts_any or self._has_own_id_field
        self.trusts: Callable[[ConnectionInfo], bool] | None = None
        """Whether the peer of a connection is a proxy that is believed; None where none is."""
        if self._trusts_any and self._forwarding is not None:
            self.trusts = self._forwarding.trusts
        if self._forwarding is not None and not self.always:
            # Comes to the same where nobody is believed, and nothing named.
            self.identify = self._forwarding.take_away  # type: ignore[method-assign]

    def keep_alive_timeout(self, connection: ConnectionInfo) -> float:
        """Seconds that a connection may be idle between two requests."""
        if self.trusts is not None and self.trusts(connection):
            return self._idle_behind_proxy
        return self._idle

    def identify(self, head: RequestHead, connection: ConnectionInfo) -> None:
        """Make the head what the application is to see. Raises `BadRequest`."""
        if head.relayed or self._looks_closer:
            self._look_closer(head, connection)
        elif head.extensions is None and (make := self._new_id) is not None:
            head.extensions = {"request_id": make()}
        else:
            self.name(head)

    def _look_closer(self, head: RequestHead, connection: ConnectionInfo) -> None:
        given = dict(head.headers).get(self._id_field) if self._new_id is not None else None
        trusted = True
        if self._forwarding is not None:
            trusted = self._forwarding.identify(head, connection)
        if self._new_id is not None:
            if given is not None and not trusted:
                if self._has_own_id_field:
                    head.headers = [field for field in head.headers if field[0] != self._id_field]
                given = None
            self.name(head, given)

    def name(self, head: RequestHead, given: bytes | None = None) -> None:
        """Give a request an id: the one that a proxy has `given`, if it is a sane token, else a new one."""
        if self._new_id is None:
            return
        number = given.decode("ascii") if given is not None and is_request_id(given) else self._new_id()
        extensions = head.extensions
        head.extensions = {"request_id": number} if extensions is None else {**extensions, "request_id": number}


def idle_behind_proxy(config: ServerConfig) -> float:
    """Seconds that a connection of a trusted proxy may be idle between two requests."""
    if config.trusted_keep_alive_timeout is not None:
        return config.trusted_keep_alive_timeout
    default = ServerConfig.__dataclass_fields__["keep_alive_timeout"].default
    return BEHIND_PROXY if config.keep_alive_timeout == default else config.keep_alive_timeout
