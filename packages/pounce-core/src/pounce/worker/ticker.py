"""Ticker: the one timer of a worker."""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pounce.exchange.service import Service

__all__ = ["INTERVAL", "Ticker"]

INTERVAL = 0.25
"""Seconds between two sweeps: how late a deadline may be noticed."""


class Ticker:
    """Sweeps the connections of a worker for deadlines that have passed, and keeps the date.

    Deadlines are numbers on the connections, so a request costs no timer.
    """

    def __init__(self, service: Service, also: Callable[[float], object] | None = None) -> None:
        """`also` is called at each tick with the monotonic time."""
        self._service = service
        self._also = also
        self.heartbeat = time.monotonic()
        """When the loop last came round to its ticker (`time.monotonic()`); may be read from any thread."""
        self._loop = service.loop
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Sweep every `INTERVAL` from now on."""
        self.heartbeat = time.monotonic()
        self._handle = self._loop.call_later(INTERVAL, self._tick)

    def stop(self) -> None:
        """Sweep no more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _tick(self) -> None:
        self._handle = self._loop.call_later(INTERVAL, self._tick)
        before, self.heartbeat = self.heartbeat, time.monotonic()
        if self.heartbeat - before < 2 * INTERVAL:
            self.sweep(self._loop.time())
        # Else the loop stood still. What has arrived meanwhile is in time: it is read before the next tick, also by
        # loops that look at their timers first.
        if self._also is not None:
            try:
                self._also(self.heartbeat)
            except Exception:
                self._service.log.exception("A periodic check of the worker failed")

    def sweep(self, now: float) -> None:
        """Tell every connection whose deadline lies before `now`; what one of them raises stays its own."""
        try:
            self._service.tick(now)
        except Exception:
            self._service.log.exception("A periodic check failed")
        for connection in tuple(self._service.connections):
            try:
                if connection.write_deadline <= now:
                    connection.write_deadline_passed()
                if connection.deadline <= now and not connection.held_since:
                    connection.deadline_passed()
            except Exception:  # noqa: BLE001 - logged there
                self._service.connection_failed(connection)
