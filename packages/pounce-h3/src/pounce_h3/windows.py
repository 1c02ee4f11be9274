"""Windows: what the peer may send.

The engine grants credit for what it has given out. What applications have not taken yet is held by the connection;
above `HOLD_MAX` the engine gives out nothing more, so that the peer runs out of credit, and goes on below half of that.
What the peer sends meanwhile is not looked at, so no time passes for it.

The engine gives out everything in the order in which it came, and grants credit for stream and connection in one: it
cannot leave one stream and go on with others. So streams of sessions that nobody reads are given up once they have held
up their connection for `patience` (`Sessions.make_room`); the bodies of requests are not, which end with their answer.

An `Upload` is the body of one request: how much has come of it, how much waits, and when the next piece is due.
"""

from math import inf
from typing import TYPE_CHECKING

from pounce.exchange.fields import malformed

if TYPE_CHECKING:
    from pounce.config import ServerConfig
    from pounce.contract.head import RequestHead
    from pounce_h3.output import Output

__all__ = ["Upload", "Windows"]

HOLD_MAX = 1_048_576
"""Bytes of request bodies, of all streams of a connection, that applications may let wait."""
RATE_GRACE = 5.0
"""Seconds before min_body_rate applies."""


class Windows:
    """What applications let wait of the bodies of one connection."""

    __slots__ = ("_output", "_since", "body_came", "config", "due", "held", "is_shut", "looked_at", "patience", "time")

    def __init__(self, config: ServerConfig, output: Output) -> None:
        self.body_came = output.service.body_came
        self.config = config
        self.time = output.loop.time
        self._output = output
        self.held = 0
        """Bytes that have arrived, and that no application has taken."""
        self.is_shut = False
        """The engine gives out nothing."""
        self.patience = inf
        """Seconds for which streams that nobody reads may keep it so."""
        self.looked_at = 0.0
        """When that began, or when it was last looked who does."""
        self.due = inf
        """When to look."""
        self._since = inf
        """Since when time stands still for the peer."""

    @property
    def time_stands_still(self) -> bool:
        """For deadlines of what the peer sends: it was held up, and not heard of since."""
        return self._since != inf

    def shut(self) -> None:
        """Applications let more wait than they may."""
        if not self.is_shut:
            self.is_shut = True
            self._since = min(self._since, self.time())
            self._output.quic.hold(True)
            if self.patience != inf:
                self.look_again()

    def look_again(self) -> None:
        """See to it after `patience`."""
        self.looked_at = self.time()
        self.due = self.looked_at + self.patience
        self._output.watch(self.due)

    def hold(self, count: int) -> None:
        """So many bytes have arrived that nobody has taken."""
        self.held += count
        if self.body_came is not None:
            self.body_came(count)
        if self.held > HOLD_MAX:
            self.shut()

    def release(self, count: int) -> None:
        """An application has taken `count` bytes, or nobody will."""
        self.held -= count
        output = self._output
        if self.is_shut and self.held <= HOLD_MAX // 2:
            self.is_shut = False
            self.due = inf
            # Rule 2: not from inside a Stream method.
            output.loop.call_soon(self._go_on)
        elif not output.corked:
            output.soon()

    def _go_on(self) -> None:
        owner = self._output.owner
        if not self.is_shut and owner is not None and not self._output.quic.is_over:
            owner.guarded(owner.go_on)

    def open(self) -> float:
        """Let the engine go on; for how many seconds time stood still."""
        stood = self.time() - self._since
        self._since = inf
        self._output.quic.hold(False)
        return stood


class Upload:
    """The body of one request, or what comes through a tunnel."""

    __slots__ = (
        "_due_base",
        "_length",
        "_waits_since",
        "_windows",
        "client_waits",
        "early",
        "is_tunnel",
        "received",
        "unconsumed",
    )

    def __init__(self, windows: Windows, head: RequestHead) -> None:
        self._windows = windows
        self._length = head.content_length
        self.is_tunnel = head.upgrade is not None
        self.client_waits = head.expect_continue
        """For a 100."""
        self.early: list[bytes] = []
        """RFC 8441 5: bytes of a tunnel, until there is one."""
        self.received = self.unconsumed = 0
        """Bytes that have come, and those that the exchange has and the application has not taken."""
        self._due_base = windows.time() + RATE_GRACE
        self._waits_since = 0.0

    def add(self, data: bytes) -> None:
        """A piece came. Raises `BadRequest`."""
        size = len(data)
        self.received += size
        self.client_waits = False
        if not self.is_tunnel and self._length is not None and self.received > self._length:
            raise malformed("The body is longer than Content-Length")
        windows = self._windows
        if not self.unconsumed:
            self._waits_since = windows.time()
        self.unconsumed += size
        windows.hold(size)

    def consumed(self, count: int) -> bool:
        """The application has taken some of it; whether that was all there is."""
        count = min(count, self.unconsumed)
        self.unconsumed -= count
        self._windows.release(count)
        return not self.unconsumed

    def discard(self) -> None:
        """Nobody will take what is here."""
        count, self.unconsumed = self.unconsumed, 0
        if count:
            self._windows.release(count)

    def go_on(self) -> None:
        """Time during which the application let the body wait does not count."""
        self._due_base += self._windows.time() - self._waits_since

    def asked_for(self) -> None:
        """The client has its 100."""
        self.client_waits = False
        self._due_base = self._windows.time() + RATE_GRACE

    def postpone(self, seconds: float) -> None:
        """For so long the connection took nothing from its peer."""
        self._due_base += seconds

    def due(self) -> float:
        """When the next piece is: within `request_timeout`, the whole at no less than `min_body_rate`."""
        if self.unconsumed or self.client_waits or self.is_tunnel:
            return inf
        config = self._windows.config
        due = self._windows.time() + config.request_timeout
        if config.min_body_rate:
            due = min(due, self._due_base + self.received / config.min_body_rate)
        return due
