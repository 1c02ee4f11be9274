"""What happens to connections and requests, as events: for monitoring of your own.

    import pounce
    from pounce.lifecycle import BufferedCollector, ResponseCompleted

    class Slow:
        def record(self, event):
            if isinstance(event, ResponseCompleted) and event.duration_ms > 1000:
                print(event.path, event.duration_ms)

    pounce.run("main:app", lifecycle_collector=Slow())

Each is made on the loop of its worker and given to every collector at once: a collector must be quick, and one that
workers share must be safe on threads. What it raises is counted and logged.
"""

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from time import monotonic_ns
from typing import Literal, Protocol

__all__ = [
    "BufferedCollector",
    "ClientDisconnected",
    "ConnectionCompleted",
    "ConnectionOpened",
    "LifecycleCollector",
    "LifecycleEvent",
    "LoggingCollector",
    "NoopCollector",
    "RequestStarted",
    "ResponseCompleted",
    "StreamClosed",
    "StreamOpened",
    "monotonic_ns",
]

log = logging.getLogger("pounce.lifecycle")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What all have in common."""

    connection_id: int
    """Number of the connection within its worker, from 1."""
    worker_id: int
    timestamp_ns: int
    """`time.monotonic_ns()` of when it happened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionOpened(Event):
    """A wire has a connection; over TLS the handshake is done."""

    client_addr: str
    """Empty over Unix sockets."""
    client_port: int
    server_addr: str
    """The path of a Unix socket."""
    server_port: int
    protocol: str
    """Name of the wire: `h1`, `h2`, `h3`, or that of a plugin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestStarted(Event):
    """The head of a request was read, be it only to be refused."""

    method: str
    path: str
    """The target, without its query."""
    http_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseCompleted(Event):
    """The last byte of an answer has left, or never will."""

    status: int
    """0: none was begun."""
    bytes_sent: int
    duration_ms: float
    method: str
    path: str
    complete: bool
    """It reached its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOpened(Event):
    """An upgrade was accepted: a WebSocket, or what a plugin brings."""

    method: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamClosed(Event):
    """What an upgrade had opened has ended."""

    duration_ms: float
    reason: Literal["complete", "client_disconnect", "drain"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientDisconnected(Event):
    """The answer of a request, or what it had opened, did not reach its end; the event of that end follows."""

    during_streaming: bool
    """Some of it had left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionCompleted(Event):
    """A connection is gone."""

    requests_served: int
    total_bytes_sent: int
    """Of bodies and messages."""
    duration_ms: float


type LifecycleEvent = (
    ConnectionOpened
    | RequestStarted
    | ResponseCompleted
    | StreamOpened
    | StreamClosed
    | ClientDisconnected
    | ConnectionCompleted
)


class LifecycleCollector(Protocol):
    """Takes events."""

    def record(self, event: LifecycleEvent) -> None:
        """Something has happened. Called on the threads of all workers, each on its own."""


class NoopCollector:
    """Takes events, and does nothing."""

    def record(self, event: LifecycleEvent) -> None: ...


class BufferedCollector:
    """Keeps events until somebody takes them; safe on threads.

    With `max_buffer_size` above 0 it flushes by itself when there are so many: `on_flush` gets them, on the thread of
    the worker that brought the last one.
    """

    def __init__(
        self, max_buffer_size: int = 0, on_flush: Callable[[list[LifecycleEvent]], object] | None = None
    ) -> None:
        self._size = max_buffer_size
        self._on_flush = on_flush
        self._lock = threading.Lock()
        self._events: list[LifecycleEvent] = []

    def record(self, event: LifecycleEvent) -> None:
        with self._lock:
            self._events.append(event)
            if not self._size or len(self._events) < self._size:
                return
            taken, self._events = self._events, []
        if self._on_flush is not None:
            self._on_flush(taken)

    def flush(self) -> list[LifecycleEvent]:
        """Take what there is, which `on_flush` gets too."""
        with self._lock:
            taken, self._events = self._events, []
        if self._on_flush is not None and taken:
            self._on_flush(taken)
        return taken

    def __len__(self) -> int:
        return len(self._events)


class LoggingCollector:
    """Logs events to `pounce.lifecycle`, one JSON object each.

    An answer that took `slow_request_threshold_ms` or longer is a warning, who left early is info, all else is debug.
    Requests to `health_check_path` are left out.
    """

    def __init__(self, slow_request_threshold_ms: float = 5000.0, health_check_path: str | None = None) -> None:
        self._slow = slow_request_threshold_ms
        self._health = health_check_path

    def record(self, event: LifecycleEvent) -> None:
        level = logging.DEBUG
        if isinstance(event, ResponseCompleted | RequestStarted) and event.path == self._health:
            return
        if isinstance(event, ResponseCompleted) and event.duration_ms >= self._slow:
            level = logging.WARNING
        elif isinstance(event, ClientDisconnected):
            level = logging.INFO
        if log.isEnabledFor(level):
            log.log(level, "%s", json.dumps({"event": type(event).__name__} | asdict(event)))
