"""Pings: whether a peer that says nothing is still there (RFC 9113 6.7), where `keep_alive_interval` asks for it.

A connection that brings nothing for so long is sent a PING, and broken off when nothing at all comes within
`keep_alive_timeout`. What counts is bytes, not which: whoever sends any is there. A PING is no activity either: idle
connections end as they do without.
"""

import asyncio
from math import inf
from typing import TYPE_CHECKING

from pounce_h2.connection import H2Connection
from pounce_h2.frames import Kind, frame

if TYPE_CHECKING:
    from pounce.contract.wire import Service

__all__ = ["PingedConnection"]

PING = frame(Kind.PING, 0, 0, b"alive?\0\0")


class PingedConnection(H2Connection):
    """A connection that is asked."""

    __slots__ = ("_ask_at", "_break_off_at", "heard")

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self.heard = True
        """Something has come since the last look."""
        self._ask_at = inf
        self._break_off_at = inf

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        _pinged(self.service).add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        _pinged(self.service).discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self.heard = True
        super().data_received(data)

    def look(self, now: float) -> None:
        """Called by each tick."""
        if self.output.closed:
            return
        if self.heard:
            self.heard = False
            self._ask_at, self._break_off_at = now + self._settings.keep_alive_interval, inf
        elif now >= self._break_off_at:
            self.service.count("h2_keep_alive", "h2: no answer to a PING, breaking off")
            self.abort()
        elif now >= self._ask_at:
            self._ask_at, self._break_off_at = inf, now + self._settings.keep_alive_timeout
            self.output.emit(PING)
            self.output.turn()


def _pinged(service: Service) -> set[PingedConnection]:
    """Those of a worker."""
    pinged: set[PingedConnection] | None = service.shared.get("h2.pinged")
    if pinged is None:
        pinged = service.shared["h2.pinged"] = set()

        def look(now: float) -> None:
            for connection in tuple(pinged):
                connection.look(now)

        service.on_tick.add(look)
    return pinged
