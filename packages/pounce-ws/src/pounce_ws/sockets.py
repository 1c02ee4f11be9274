"""WebSockets: those of one worker, what is counted of them, and what is done to all of them."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pounce.config import ServerConfig
    from pounce.plugin import Service
    from pounce_ws.exchange import WebSocketExchange

__all__ = ["WebSockets"]

RELIEF = 8
"""Once there is too much of incomplete messages, the largest are given up until one part of so many is free."""
COUNTED = ("messages_received", "messages_sent", "bytes_received", "bytes_sent")


class WebSockets:
    """The open WebSockets of one worker.

    `service.counts` holds, a tick behind, `websocket_connections` and `websocket_` with each of `COUNTED`, which are
    totals, and `websocket_open`, which is not.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._open: set[WebSocketExchange] = set()
        self._ended = dict.fromkeys(COUNTED, 0)
        self._incomplete = 0
        """Bytes of messages that have begun and not ended, of all that are open."""
        service.on_tick.add(self.tick)
        service.on_drain.add(self.drain)

    @classmethod
    def of(cls, service: Service) -> WebSockets:
        """Those of that worker."""
        found: WebSockets | None = service.shared.get("ws")
        if found is None:
            found = service.shared["ws"] = cls(service)
        return found

    def opened(self, exchange: WebSocketExchange) -> None:
        """A handshake was accepted."""
        self._open.add(exchange)
        self._service.count("websocket_connections")
        self._service.upgraded(exchange)

    def ended(self, exchange: WebSocketExchange) -> None:
        """Its last byte was written, or its stream was lost."""
        self._open.discard(exchange)
        self._incomplete -= exchange.incomplete
        exchange.incomplete = 0
        for name in COUNTED:
            self._ended[name] += getattr(exchange, name)
        self._service.completed(exchange)

    def grown(self, exchange: WebSocketExchange, size: int) -> None:
        """So much is kept of a message that has begun; 0 where none has.

        Where all are too much for this worker, its share of what the process may have, those that have most are closed
        (RFC 6455 7.4, code 1013): who sends small messages is not to suffer from who holds back large ones.
        """
        self._incomplete += size - exchange.incomplete
        exchange.incomplete = size
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
        return max(config.websocket_max_incomplete // self._service.workers, config.websocket_max_message_size)

    def tick(self, now: float) -> None:
        """Act on deadlines that lie before `now`, and count."""
        for exchange in tuple(self._open):
            if exchange.deadline <= now:
                self.call(exchange.deadline_passed, now)
        counts = self._service.counts
        counts["websocket_open"] = len(self._open)
        for name in COUNTED:
            counts[f"websocket_{name}"] = self._ended[name] + sum(getattr(each, name) for each in self._open)

    def drain(self) -> None:
        """The worker shuts down: say so to everybody (RFC 6455 7.4, code 1012)."""
        for exchange in tuple(self._open):
            self.call(exchange.drain)

    def call(self, method: Callable[..., None], *args: float) -> None:
        """What fails for one WebSocket must not keep the others from their turn."""
        try:
            method(*args)
        except Exception:
            self._service.count("plugin_error")
            self._service.log.exception("Plugin ws failed")
