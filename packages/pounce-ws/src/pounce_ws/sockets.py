"""WebSockets: those of one worker, what is counted of them, and what is done to all of them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from pounce.contract.stream import Completed

if TYPE_CHECKING:
    from pounce.config import ServerConfig
    from pounce.plugin import Service

__all__ = ["WebSockets"]

RELIEF = 8
"""Once there is too much of incomplete messages, the largest are given up until one part of so many is free."""
COUNTED = ("messages_received", "messages_sent", "bytes_received", "bytes_sent")


class WebSocket(Completed, Protocol):
    """What is needed of one WebSocket, which has a counter for each of `COUNTED` too."""

    deadline: float
    """Loop time at which `deadline_passed()` is due."""
    incomplete: int
    """Bytes of a message that has begun, as they were counted last."""

    def deadline_passed(self, now: float) -> None: ...

    def drain(self) -> None:
        """The worker shuts down."""

    def give_up_message(self) -> None:
        """Keep nothing of the message that has begun, nor take another."""


class WebSockets:
    """The open WebSockets of one worker.

    `service.counts` holds, a tick behind, `websocket_connections` and `websocket_` with each of `COUNTED`, which are
    totals, and `service.gauges` `websocket_open`.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._open: set[WebSocket] = set()
        self._ended = dict.fromkeys(COUNTED, 0)
        self._incomplete = 0
        """Bytes of messages that have begun and not ended, of all that are open."""
        self._largest = 0
        """Size of a message that is welcome on some bind."""
        service.on_tick.add(self.tick)
        service.on_drain.add(self.drain)

    @classmethod
    def of(cls, service: Service) -> WebSockets:
        """Those of that worker."""
        found: WebSockets | None = service.shared.get("ws")
        if found is None:
            found = service.shared["ws"] = cls(service)
        found._largest = max(found._largest, service.config.websocket_max_message_size)
        return found

    def opened(self, socket: WebSocket) -> None:
        """A handshake was accepted."""
        self._open.add(socket)
        self._service.count("websocket_connections")
        self._service.upgraded(socket)

    def ended(self, socket: WebSocket) -> None:
        """Its last byte was written, or its stream was lost."""
        self._open.discard(socket)
        self._incomplete -= socket.incomplete
        socket.incomplete = 0
        for name in COUNTED:
            self._ended[name] += getattr(socket, name)
        self._service.completed(socket)

    def grown(self, socket: WebSocket, size: int) -> None:
        """So much is kept of a message that has begun; 0 where none has.

        Where all are too much for this worker, its share of what the process may have, those that have most are closed
        (RFC 6455 7.4, code 1013): who sends small messages is not to suffer from who holds back large ones.
        """
        self._incomplete += size - socket.incomplete
        socket.incomplete = size
        config = self._service.config
        if not config.websocket_max_incomplete or self._incomplete <= (limit := self._limit(config)):
            return
        enough = limit - limit // RELIEF
        for each in sorted(self._open, key=lambda each: each.incomplete, reverse=True):
            if self._incomplete <= enough or not each.incomplete:
                break
            self._service.count("websocket_max_incomplete", "WebSocket: too much of incomplete messages")
            self.call(each.give_up_message)

    def _limit(self, config: ServerConfig) -> int:
        # A message of the largest size is welcome, however many workers there are.
        return max(config.websocket_max_incomplete // self._service.workers, self._largest)

    def tick(self, now: float) -> None:
        """Act on deadlines that lie before `now`, and count."""
        for socket in tuple(self._open):
            if socket.deadline <= now:
                self.call(socket.deadline_passed, now)
        counts = self._service.counts
        self._service.gauges["websocket_open"] = len(self._open)
        for name in COUNTED:
            counts[f"websocket_{name}"] = self._ended[name] + sum(getattr(each, name) for each in self._open)

    def drain(self) -> None:
        """The worker shuts down: say so to everybody (RFC 6455 7.4, code 1012)."""
        for socket in tuple(self._open):
            self.call(socket.drain)

    def call(self, method: Callable[..., None], *args: float) -> None:
        """What fails for one WebSocket must not keep the others from their turn."""
        try:
            method(*args)
        except Exception:
            self._service.count("plugin_error")
            self._service.log.exception("Plugin ws failed")
