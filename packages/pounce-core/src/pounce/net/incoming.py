"""Incoming: the body of a request on its way in, for connections that carry one request at a time.

A body has two limits that no protocol brings along, and that every wire needs. Its sender must not dawdle: the next
piece is due within `request_timeout`, and the whole comes at no less than `min_body_rate`, but for the first seconds.
And it must not be ahead of the application, which says by `consumed()` what it has taken: while too much waits, nothing
is read from the socket, and no deadline passes, since it is not the peer then who is slow.
"""

from math import inf

from pounce.net.connection import Connection

__all__ = ["HIGH", "LOW", "RATE_GRACE", "Incoming"]

HIGH = 65536
"""Bytes that wait for the application, from which on nothing is read; at `LOW` it is read on."""
LOW = 16384
RATE_GRACE = 5.0
"""Seconds before `min_body_rate` applies."""


class Incoming:
    """The body of one request: sets its connection's `deadline`, and pauses and resumes its reading.

    Make it when the head is read; call `received()` for each piece before the exchange gets it, `consumed()` from the
    stream's method of that name, `ended()` at the end of the body, and `postpone()` from the connection's.
    """

    __slots__ = ("_connection", "_count", "_held", "_paused_at", "_since", "is_open")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._since = connection.loop.time() + RATE_GRACE
        self._count = 0
        self._held = 0
        self._paused_at = 0.0
        self.is_open = True
        """More of it is to come."""
        self._set_deadline()

    def received(self, count: int) -> None:
        """A piece of `count` bytes has come."""
        self._count += count
        self._held += count
        if self._held > HIGH and not self._paused_at:
            self._paused_at = self._connection.loop.time()
            self._connection.pause_reading()
        self._set_deadline()

    def consumed(self, count: int) -> None:
        """The application has taken `count` bytes."""
        self._held -= count
        if self._paused_at and self._held <= LOW:
            self._since += self._connection.loop.time() - self._paused_at
            self._paused_at = 0.0
            self._connection.resume_reading()
            if self.is_open:
                self._set_deadline()

    def ended(self) -> None:
        """It is complete, or given up: there is no deadline any more."""
        self.is_open = False
        self._connection.deadline = inf

    def postpone(self, seconds: float) -> None:
        """For so long what the peer has sent was held here."""
        self._since += seconds

    def _set_deadline(self) -> None:
        connection = self._connection
        if self._paused_at:
            connection.deadline = inf
            return
        config = connection.service.config
        deadline = connection.loop.time() + config.request_timeout
        if config.min_body_rate:
            deadline = min(deadline, self._since + self._count / config.min_body_rate)
        connection.deadline = deadline
