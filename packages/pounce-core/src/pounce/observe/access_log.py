"""The access log: a line for each request, once its last byte has left."""

import logging
from time import monotonic, time
from typing import TYPE_CHECKING

from pounce.config import ServerConfig
from pounce.exchange.scope import split_target
from pounce.observe.access_entry import AccessEntry
from pounce.plugin import API_VERSION, ObserverFactory, Plugin

if TYPE_CHECKING:
    from pounce.contract.wire import Service
    from pounce.plugin import Completed

__all__ = ["plugin"]

FIELD_MAX = 2048
"""Characters of method and target that are logged."""
CUT = "…"
"""Follows what was cut off; no client can send it."""


class AccessLog:
    """Observer that hands an `AccessEntry` to the logger `pounce.access`; formatting happens where it is written."""

    def __init__(self, service: Service) -> None:
        self._worker = service.worker_id
        self._filter = service.config.access_log_filter
        self._health = _health_paths(service.config)
        self._log = logging.getLogger("pounce.access")

    def upgraded(self, exchange: Completed) -> None:
        """A line for the handshake; that of `completed()` tells how and when it ended."""
        self.completed(exchange)

    def completed(self, exchange: Completed) -> None:
        head = exchange.head
        if self._health and split_target(head.target)[0] in self._health and head.method in (b"GET", b"HEAD"):
            return
        method, target = head.method.decode("latin-1"), head.target.decode("latin-1")
        if self._filter is not None and not self._filter(method, target.partition("?")[0], exchange.status):
            return
        # Thousands of lines may wait until they are written.
        if len(target) > FIELD_MAX:
            target = target[:FIELD_MAX] + CUT
        if len(method) > FIELD_MAX:
            method = method[:FIELD_MAX] + CUT
        level = logging.WARNING if exchange.status >= 500 else logging.INFO
        if not self._log.isEnabledFor(level):
            return
        peer = (head.origin or exchange.stream.connection).peer
        entry = AccessEntry(
            at=time(),
            client=f"{peer[0]}:{peer[1]}" if peer is not None else "unix",
            method=method,
            target=target,
            version=head.version,
            status=exchange.status,
            sent=exchange.bytes_sent,
            duration=monotonic() - exchange.started,
            worker=self._worker,
            scheme=head.scheme,
            complete=not exchange.broken,
            close_code=exchange.close_code,
            request_id=head.extensions.get("request_id") if head.extensions is not None else None,
        )
        self._log.log(level, entry)


def _health_paths(config: ServerConfig) -> tuple[bytes, ...]:
    """What is asked again and again by machines, and not logged."""
    if config.access_log_health:
        return ()
    own = (config.health_check_path.encode(),) if config.health_check_path is not None else ()
    return (*own, b"/livez", b"/readyz") if config.probes else own


def create(service: Service) -> AccessLog | None:
    return AccessLog(service) if service.config.access_log else None


plugin = Plugin(name="access_log", api=API_VERSION, observers=(ObserverFactory(name="access_log", create=create),))
