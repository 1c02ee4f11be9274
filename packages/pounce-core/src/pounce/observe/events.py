"""Events: tells collectors what happens to connections and requests; see `pounce.lifecycle`."""

from time import monotonic, monotonic_ns
from typing import TYPE_CHECKING, Any

from pounce.errors import ConfigError
from pounce.exchange.http import HttpExchange
from pounce.importer import import_object
from pounce.lifecycle import (
    ClientDisconnected,
    ConnectionCompleted,
    ConnectionOpened,
    LifecycleCollector,
    LifecycleEvent,
    LoggingCollector,
    RequestStarted,
    ResponseCompleted,
    StreamClosed,
    StreamOpened,
)

if TYPE_CHECKING:
    from pounce.config import ServerConfig
    from pounce.contract.head import RequestHead
    from pounce.contract.stream import Completed, ConnectionInfo
    from pounce.contract.wire import Service

__all__ = ["Events", "collectors_of"]


def collectors_of(config: ServerConfig) -> list[LifecycleCollector]:
    """Those that the settings ask for. Raises `ConfigError` for one that has no `record`."""
    found: list[LifecycleCollector] = []
    given = config.lifecycle_collector
    several = isinstance(given, list | tuple) and not hasattr(given, "record")
    for each in given if several else [given] if given is not None else []:
        collector = import_object(each, config, "lifecycle_collector") if isinstance(each, str) else each
        if isinstance(collector, type):
            collector = collector()
        if not callable(getattr(collector, "record", None)):
            raise ConfigError(f"lifecycle_collector {each!r} has no method record(event)")
        found.append(collector)
    if config.lifecycle_logging:
        found.append(LoggingCollector(config.log_slow_requests_threshold * 1000, config.health_check_path))
    return found


class Seen:
    """What is known of a connection that is open."""

    __slots__ = ("opened", "requests", "sent")

    def __init__(self) -> None:
        self.opened = monotonic()
        self.requests = 0
        self.sent = 0


class Events:
    """Observer of one worker."""

    def __init__(self, service: Service, collectors: list[LifecycleCollector]) -> None:
        self._service = service
        self._worker = service.worker_id
        self._collectors = collectors
        self._seen: dict[ConnectionInfo, Seen] = {}
        self._streams: set[object] = set()
        """What upgrades have opened."""

    def connection_opened(self, connection: ConnectionInfo, wire: str) -> None:
        self._open(connection, wire)

    def connection_closed(self, connection: ConnectionInfo) -> None:
        seen = self._seen.pop(connection, None)
        if seen is not None:
            self._tell(
                ConnectionCompleted(
                    **self._of(connection),
                    requests_served=seen.requests,
                    total_bytes_sent=seen.sent,
                    duration_ms=(monotonic() - seen.opened) * 1000,
                )
            )

    def started(self, exchange: Completed) -> None:
        connection, head = exchange.stream.connection, exchange.head
        seen = self._seen.get(connection)
        if seen is None:
            # A wire that adds itself before it knows whom it speaks to.
            seen = self._open(connection, {"2": "h2", "3": "h3"}.get(head.version, "h1"))
        seen.requests += 1
        self._tell(RequestStarted(**self._of(connection), **_line(head), http_version=head.version))

    def upgraded(self, exchange: Completed) -> None:
        self.started(exchange)
        self._streams.add(exchange)
        self._tell(StreamOpened(**self._of(exchange.stream.connection), **_line(exchange.head)))

    def completed(self, exchange: Completed) -> None:
        connection = exchange.stream.connection
        if not isinstance(exchange, HttpExchange) and exchange not in self._streams:
            # An upgrade that has neither been accepted nor answered: its client has left before.
            self.started(exchange)
        seen = self._seen.get(connection)
        if seen is not None:
            seen.sent += exchange.bytes_sent
        if exchange.broken:
            self._tell(ClientDisconnected(**self._of(connection), during_streaming=exchange.status > 0))
        duration = (monotonic() - exchange.started) * 1000
        if exchange in self._streams:
            self._streams.discard(exchange)
            reason: Any = "client_disconnect" if exchange.broken else "complete"
            if exchange.close_code == 1012 and self._service.draining:
                reason = "drain"
            self._tell(StreamClosed(**self._of(connection), duration_ms=duration, reason=reason))
            return
        self._tell(
            ResponseCompleted(
                **self._of(connection),
                status=exchange.status,
                bytes_sent=exchange.bytes_sent,
                duration_ms=duration,
                **_line(exchange.head),
                complete=not exchange.broken,
            )
        )

    def _open(self, connection: ConnectionInfo, wire: str) -> Seen:
        seen = self._seen[connection] = Seen()
        peer, local = connection.peer or ("", 0), connection.local or ("", 0)
        self._tell(
            ConnectionOpened(
                **self._of(connection),
                client_addr=peer[0],
                client_port=peer[1],
                server_addr=local[0],
                server_port=local[1] or 0,
                protocol=wire,
            )
        )
        return seen

    def _of(self, connection: ConnectionInfo) -> dict[str, Any]:
        return {"connection_id": connection.id, "worker_id": self._worker, "timestamp_ns": monotonic_ns()}

    def _tell(self, event: LifecycleEvent) -> None:
        for collector in self._collectors:
            try:
                collector.record(event)
            except Exception:
                self._service.count("observer_error")
                self._service.log.exception("Collector %s failed", type(collector).__name__)


def _line(head: RequestHead) -> dict[str, Any]:
    return {
        "method": head.method.decode("latin-1"),
        "path": head.target.partition(b"?")[0].decode("latin-1"),
    }
