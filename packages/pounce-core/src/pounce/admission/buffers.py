"""Buffers: how much a process holds for its peers, and what is done when that is too much.

Each connection has bounds of its own, and is far from rude when it uses them; but ten thousand that do so at once are
more than the machine has. What all of them hold together has one bound: bodies that applications have not taken, and
answers that peers have not read. Connections know how much that is (`Connection.buffered`), and nobody keeps accounts
of it: a worker looks at all of its connections every second, with each tick where more than half of the bound is held,
and sooner when much has come since: the look takes some microseconds for each of them. A turn of the loop may read
from all of them at once: when so much has come in it that the bound is passed by far, nothing more is read from anybody
until the worker has looked, in its next turn.

    within the bound ──▶ above it: from those that hold most nothing more is read, as many as make up what is too much
           ▲                 │ for PATIENCE, or a quarter above it
           └─────────────────┴──▶ those that hold most are closed, until the rest is within the bound

Whoever holds little is served on, read from, and not closed for what others do. What workers of one process hold is
added up; of what is too much each answers for the part that its own connections have.
"""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pounce.contract.wire import LiveConnection
    from pounce.exchange.service import Service

__all__ = ["BufferBudget", "Buffers", "budget_of"]

PATIENCE = 1.0
"""Seconds for which a connection is not read, before it is closed."""
INTERVAL = 1.0
"""Seconds between two looks while no more than half of the bound is held."""
SLACK = 16
"""What part of the bound may come before a worker looks again, without waiting for its next tick."""
EXCESS = 4
"""What part of the bound more than it is so much that nobody is waited for."""


class Buffers:
    """What the workers of one process hold. May be used from any thread."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.most = limit + limit // EXCESS
        self._lock = threading.Lock()
        """Protects the fields below."""
        self._held: dict[object, int] = {}
        self.total = 0
        """What all of them have said; may be read without the lock."""

    def report(self, worker: object, held: int) -> int:
        """A worker holds so much: what all of them do."""
        with self._lock:
            self.total += held - self._held.get(worker, 0)
            self._held[worker] = held
            return self.total


def budget_of(buffers: Buffers | None) -> Callable[[Service], BufferBudget] | None:
    """Makes the budget of a worker; None where there is no bound."""
    return None if buffers is None else lambda service: BufferBudget(service, buffers)


class BufferBudget:
    """Keeps one worker to its part of the bound."""

    def __init__(self, service: Service, buffers: Buffers) -> None:
        self._service = service
        self._buffers = buffers
        self._slack = max(buffers.limit // SLACK, 1)
        self._came = 0
        self._looks = False
        """It is about to look."""
        self._stopped = False
        """Nobody is read until it has."""
        self._choked: dict[LiveConnection, float] = {}
        """Connections that are not read, and since when."""
        self._closed: set[LiveConnection] = set()
        """Connections that were closed, and may not have noticed."""
        self.held = 0
        """What this worker held when it last looked."""
        self._due = 0.0
        service.on_tick.add(self._tick)

    def _tick(self, now: float) -> None:
        if now >= self._due:
            self.look(now)
            self._due = now if self._buffers.total * 2 > self._buffers.limit else now + INTERVAL

    def came(self, count: int) -> None:
        """A piece of a body, of so many bytes."""
        self._came += count
        came = self._came * self._service.workers
        if came < self._slack:
            return
        if not self._looks:
            self._looks = True
            # Not from inside of the connection that has got it.
            self._service.loop.call_soon(self._look_now)
        if not self._stopped and self._buffers.total + came > self._buffers.most:
            self._stopped = True
            self._choke_all(True)

    def _look_now(self) -> None:
        self._looks = False
        self.look(self._service.loop.time())

    def _choke_all(self, on: bool) -> None:
        for connection in self._service.connections:
            if connection not in self._choked:
                self._choke(connection, on)

    def look(self, now: float) -> None:
        """Add up what the connections hold, and act on it."""
        try:
            self._look(now)
        finally:
            if self._stopped:
                self._stopped = False
                self._choke_all(False)

    def _look(self, now: float) -> None:
        self._came = 0
        connections = self._service.connections
        self._closed &= connections
        # A connection of another's wire may not tell.
        sizes: list[tuple[int, Any]] = [
            (size, connection)
            for connection in connections
            if (size := getattr(connection, "buffered", 0)) and connection not in self._closed
        ]
        self.held = held = sum(size for size, _ in sizes)
        self._service.gauges["buffered_bytes"] = held
        limit = self._buffers.limit
        total = self._buffers.report(self, held)
        if total <= limit:
            self._let_go()
            return
        excess = held - held * limit // total
        patience = PATIENCE if total <= self._buffers.most else -1.0
        sizes.sort(key=lambda item: item[0], reverse=True)
        choked = self._choked
        for size, connection in sizes:
            if excess <= 0:
                break
            excess -= size
            since = choked.setdefault(connection, now)
            if now - since > patience:
                del choked[connection]
                self._close(connection, size)
                self.held -= size
            elif since == now:
                self._choke(connection, True)
        if self.held < held:
            # The others need not make room for it again.
            self._buffers.report(self, self.held)

    def _let_go(self) -> None:
        """Read from all again."""
        choked, self._choked = self._choked, {}
        for connection in choked:
            if connection in self._service.connections:
                self._choke(connection, False)

    def _choke(self, connection: Any, on: bool) -> None:
        choke = getattr(connection, "choke", None)
        if choke is not None:
            choke(on)

    def _close(self, connection: LiveConnection, size: int) -> None:
        service = self._service
        self._closed.add(connection)
        service.count("max_buffered", "%s: connection closed, which held %d bytes", connection.wire, size)
        try:
            connection.abort()
        except Exception:  # noqa: BLE001 - logged there
            service.connection_failed(connection)
