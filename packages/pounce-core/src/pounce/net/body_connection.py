"""BodyConnection: a connection that brings the bodies of requests one after the other, with what is due for them.

A body has two limits that no protocol brings along, and that every wire needs. Its sender must not dawdle: the next
piece is due within `request_timeout`, and the whole comes at no less than `min_body_rate`, but for the first seconds.
And it must not be ahead of the application, which says by `consumed()` what it has taken: while too much waits, nothing
is read from the socket, and no deadline passes, since it is not the peer then who is slow.

A connection that reads its socket itself stops only when more has come than may wait, and the application has not taken
any by then. One that waits for its body takes each piece in the same turn of the loop, and stopping and going on costs
two system calls each time. While it keeps up, pieces are larger.
"""

from math import inf

from pounce.contract.wire import Service
from pounce.net.connection import READING, RECV_MAX, Connection

__all__ = ["BUFFER_HIGH", "BUFFER_LOW", "RATE_GRACE", "BodyConnection"]

BUFFER_HIGH = 65536
"""Bytes that wait for the application, from which on nothing is read; at `BUFFER_LOW` it is read on."""
BUFFER_LOW = 16384
BODY_RECV_MAX = 131_072
"""Bytes read at once of a long body whose application has taken all that came before: no more wait for it then than
where it has not, and a piece of the usual size comes on top. Larger ones make little difference."""
RATE_GRACE = 5.0
"""Seconds before `min_body_rate` applies."""


class BodyConnection(Connection):
    """Sets its `deadline`, and pauses and resumes its reading, by what comes of a body and what is taken of it.

    A wire calls `body_begins()` when the head is read, `body_received()` for each piece before the exchange gets it,
    and `body_ended()` when it is complete or given up. `consumed()` is that of its stream.
    """

    __slots__ = ("_body_deadline_base", "_body_read", "_expects_body", "_paused_at", "_unconsumed")

    def __init__(self, service: Service, wire: str = "") -> None:
        Connection.__init__(self, service, wire)
        self._expects_body = False
        """More of a body is to come."""
        self._unconsumed = 0
        """Bytes that the application has not taken."""
        self._body_read = 0
        self._body_deadline_base = 0.0
        """The loop time since when `min_body_rate` applies."""
        self._paused_at = 0.0
        """Loop time since when reading rests because the application leaves its body alone, 0 when it does not."""

    def body_begins(self) -> None:
        """The head of a request is read, which has a body."""
        self._expects_body = True
        self._unconsumed = self._body_read = 0
        self._body_deadline_base = self.loop.time() + RATE_GRACE
        self._set_body_deadline()

    def body_received(self, count: int) -> None:
        """A piece of `count` bytes has come."""
        self._body_read += count
        self._hold(count)
        self._set_body_deadline()

    def body_ended(self) -> None:
        """It is complete, or given up: there is no deadline any more."""
        self._expects_body = False
        self.deadline = inf

    def consumed(self, count: int) -> None:
        """The application has taken `count` bytes."""
        self._unconsumed = left = self._unconsumed - count
        if left <= BUFFER_LOW:
            if not self._most:
                self._most = RECV_MAX
            if not left and self._body_read >= RECV_MAX and self.deadline != inf:
                self._most = BODY_RECV_MAX
            if self._paused_at:
                self._body_deadline_base += self.loop.time() - self._paused_at
                self._paused_at = 0.0
                self.resume_reading()
                self._body_goes_on()

    def postpone(self, seconds: float) -> None:
        super().postpone(seconds)
        self._body_deadline_base += seconds

    @property
    def buffered(self) -> int:
        return max(self._unconsumed, 0) + super().buffered

    def _hold(self, count: int) -> None:
        """Count bytes that the application has not taken, and read no more while they are too many."""
        self._unconsumed += count
        if self.service.body_came is not None:
            self.service.body_came(count)
        if self._unconsumed <= BUFFER_HIGH:
            self._most = RECV_MAX
        elif self._reads == READING:
            self._most = 0
        else:
            self._pause_body()

    def _may_not_read(self) -> None:
        if self._unconsumed > BUFFER_HIGH and not self.lingering:
            self._pause_body()
        else:
            self._most = RECV_MAX

    def _pause_body(self) -> None:
        if not self._paused_at:
            self._paused_at = self.loop.time()
            self.pause_reading()

    def _body_goes_on(self) -> None:
        if self._expects_body:
            self._set_body_deadline()

    def _set_body_deadline(self) -> None:
        """The next piece is due within request_timeout, and the whole at no less than min_body_rate.

        Time during which the application lets the body wait does not count.
        """
        if self._paused_at:
            self.deadline = inf
            return
        config = self.service.config
        deadline = self.loop.time() + config.request_timeout
        if config.min_body_rate:
            deadline = min(deadline, self._body_deadline_base + self._body_read / config.min_body_rate)
        self.deadline = deadline
