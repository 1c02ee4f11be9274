"""Session tickets that clients may come back with: each is good for one connection.

A client that comes back with a ticket is not shown the certificate again. Where early data is taken it may send
requests before its handshake is complete (0-RTT), and whoever has recorded them could send them again. A ticket that
was used is forgotten, so that early data is taken once at most (RFC 8446 8.1). A process that was restarted, and every
other process, knows none of them, and its clients make a whole handshake.
"""

import threading

__all__ = ["Tickets"]

TICKETS_MAX = 4096


class Tickets[T]:
    """What was agreed with clients, by the ticket that names it; the oldest go first. For all threads of a process."""

    def __init__(self, size: int = TICKETS_MAX) -> None:
        self._size = size
        self._lock = threading.Lock()
        """Protects the order of "is there room?" and "then put it there"."""
        self._sessions: dict[bytes, T] = {}

    def add(self, ticket: bytes, session: T) -> None:
        """Remember what a ticket stands for."""
        with self._lock:
            if len(self._sessions) >= self._size:
                del self._sessions[next(iter(self._sessions))]
            self._sessions[ticket] = session

    def take(self, ticket: bytes) -> T | None:
        """What the ticket stands for, to the first that asks."""
        with self._lock:
            return self._sessions.pop(ticket, None)
