"""Output: what a connection sends: gathered, parked, and written once in a turn of the loop.

Frames are gathered while a turn lasts, and leave together at its end. DATA that a window, the transport or another
stream keeps from leaving is parked by its stream; at the end of a turn the streams whose own windows are open send
frame by frame, in the scheduler's order, for as long as the window of the connection and the transport let them, and
until others on the loop shall have their turn.

While the window of the connection is shut a `WindowWait` runs, and one on each stream whose own is: a peer that lets
less than `min_write_rate` pass is given up.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

from pounce.exchange.answers import AnswerTable
from pounce.net.connection import Connection
from pounce_h2.abuse import ConnectionFailed
from pounce_h2.frames import ErrorCode, PackHead
from pounce_h2.priority import Prioritized, Scheduler
from pounce_h2.settings import WINDOW_DEFAULT, WINDOW_MAX, PeerSettings

__all__ = ["Output", "Sender", "WindowWait"]

WRITE_SIZE = 65_536
"""Bytes that are gathered into one write at the most."""
TURN_SIZE = 524_288
"""Bytes of parked DATA that are sent before others get a turn of the loop."""
UNSENT_MAX = 1_048_576
"""Bytes that may wait for a peer that makes us answer and reads nothing; parked DATA is not among them."""


class WindowWait:
    """Something is parked because the peer keeps a window shut; for how long, and how much it has let pass meanwhile.

    It goes on until nothing is parked, also when the window opens a little now and then.
    """

    __slots__ = ("sent", "since", "taken", "window")

    def __init__(self, now: float, window: int, sent: int) -> None:
        self.since = now
        self.window = window
        """Of the stream, together with what the peer has opened it by since."""
        self.sent = sent
        """`Output.data_sent` when this began."""
        self.taken: int | None = None
        """`Connection.taken()`, once it was looked at."""


class Sender(Prioritized, Protocol):
    """What this needs of a stream."""

    send_window: int
    """Bytes of DATA that the peer takes from it."""
    wait: WindowWait | None

    def send_frame(self) -> None:
        """Send a frame of what is parked, which the windows must let pass."""


class Output:
    """The sending half of one connection."""

    __slots__ = (
        "_cork",
        "_cork_size",
        "_wait",
        "_window_given",
        "at_end",
        "closed",
        "connection",
        "data_frames",
        "due",
        "encode",
        "loop",
        "pack_head",
        "parked_size",
        "peer",
        "scheduler",
        "send_window",
        "turn_due",
    )

    def __init__(
        self,
        connection: Connection,
        due: Callable[[float], None],
        peer: PeerSettings,
        blocks: AnswerTable,
        pack_head: PackHead,
    ) -> None:
        self.connection = connection
        self.due = due
        """Something may be due at that time; what it is comes out when the time has come."""
        self.loop: asyncio.AbstractEventLoop = connection.loop
        self.peer = peer
        self.encode = blocks.encode
        self.pack_head = pack_head
        self.closed = False
        """The last GOAWAY is sent, or the transport is gone: nothing is sent any more, and nothing is due."""
        self.turn_due = False
        """The end of a turn comes without being asked for."""
        self.at_end: Callable[[], None] | None = None
        """What is called at the end of each turn once the connection takes no more requests."""
        self.send_window = self._window_given = WINDOW_DEFAULT
        self.data_frames = 0
        """Frames of DATA since the last WINDOW_UPDATE."""
        self.parked_size = 0
        self.scheduler: Scheduler[Sender] = Scheduler()
        self._wait: WindowWait | None = None
        self._cork: list[bytes] = []
        self._cork_size = 0

    def emit(self, data: bytes) -> None:
        """Send frames, together with whatever else is sent in this turn of the loop."""
        if self.closed:
            return
        self._cork.append(data)
        self._cork_size += len(data)
        if self._cork_size >= WRITE_SIZE:
            self.flush()
        elif not self.turn_due:
            self.turn_due = True
            self.loop.call_soon(self._late_turn)

    def flush(self) -> None:
        """Hand what is gathered to the transport."""
        cork = self._cork
        if not cork:
            return
        connection = self.connection
        if not connection.writable:
            connection.added += self._cork_size
        size = self._cork_size
        self._cork = []
        self._cork_size = 0
        transport = connection.transport
        if transport.is_closing():
            return
        if len(cork) == 1:
            transport.write(cork[0])
        else:
            connection.write_pieces(cork, size)
        if not connection.writable and transport.get_write_buffer_size() > UNSENT_MAX:
            connection.service.count("h2_unread", "h2: the peer makes us answer and reads nothing, closing")
            connection.abort()

    def close(self) -> None:
        """Send what is gathered, and nothing after it."""
        self.closed = True
        self.at_end = None
        self.due = _never
        self.flush()

    def lost(self) -> None:
        """The transport is gone. The connection refers to this, so this lets go of the connection: the two would keep
        each other until the collector comes."""
        self.closed = self.turn_due = True
        self._cork.clear()
        self.at_end = None
        self.due = _never
        self.connection = cast(Connection, None)

    # The end of a turn

    def turn(self) -> None:
        """Streams that wait send what they can, and all of it leaves."""
        self.turn_due = False
        if self.scheduler.ready:
            self.turn_due = True
            self._send_parked()
            self.turn_due = False
        if self._cork:
            self.flush()
        if self.at_end is not None:
            self.at_end()

    def soon(self) -> None:
        """See to it that a turn ends."""
        if not self.turn_due:
            self.turn_due = True
            self.loop.call_soon(self._late_turn)

    def _late_turn(self) -> None:
        """The end of a turn that did not begin with `data_received`."""
        try:
            self.turn()
        except Exception:  # noqa: BLE001 - after `data_received` asyncio closes the connection for it, but not here
            connection = self.connection
            connection.service.connection_failed(connection)

    def _send_parked(self) -> None:
        connection = self.connection
        scheduler = self.scheduler
        ready = scheduler.ready
        limit = self.parked_size - TURN_SIZE
        while ready and connection.writable and self.send_window > 0:
            if self.parked_size < limit:
                self.loop.call_soon(self._late_turn)
                break
            scheduler.next().send_frame()
        if ready and self.send_window <= 0 and self._wait is None:
            self._wait = self._begin_wait(0)

    # What is parked

    def wants_to_send(self, stream: Sender) -> None:
        """`stream` has parked something: it gets its turn as soon as its own window lets it."""
        if stream.send_window > 0:
            self.scheduler.add(stream)
            if not self.turn_due:
                self.turn_due = True
                self.loop.call_soon(self._late_turn)
        else:
            self.has_nothing_to_send(stream)
            if stream.wait is None:
                stream.wait = self._begin_wait(stream.send_window)

    def has_nothing_to_send(self, stream: Sender) -> None:
        """Nothing of `stream` waits for the window of the connection."""
        self.scheduler.remove(stream)
        if not self.parked_size:
            self._wait = None

    # The window of the connection, and how long it is shut

    def open_window(self, increment: int) -> None:
        """WINDOW_UPDATE (RFC 9113 6.9). Raises `ConnectionFailed`."""
        if not increment:
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by nothing")
        self.send_window += increment
        if self.send_window > WINDOW_MAX:
            raise ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, "the window of the connection exceeds 2^31-1")
        self._window_given += increment

    @property
    def data_sent(self) -> int:
        """Bytes of DATA so far, of all streams."""
        return self._window_given - self.send_window

    def _begin_wait(self, window: int) -> WindowWait:
        """The peer keeps a window shut."""
        now = self.loop.time()
        self.due(now + self.connection.service.config.write_timeout)
        return WindowWait(now, window, self.data_sent)

    def is_held_up(self, now: float) -> bool:
        """Whether the peer has let too little pass through the window of the connection."""
        write_timeout = self.connection.service.config.write_timeout
        wait = self._wait
        if wait is not None and wait.since + write_timeout <= now:
            if self.send_window > 0 or not self.scheduler.ready:
                self._wait = None
            elif self._is_too_slow(wait, self.data_sent - wait.sent):
                return True
            else:
                wait.since, wait.sent = now, self.data_sent
        if self._wait is not None:
            self.due(self._wait.since + write_timeout)
        return False

    def is_held_up_by(self, stream: Sender, wait: WindowWait, now: float) -> bool:
        """Whether a stream that waits is kept from going on by its peer, and not by its turn among the others."""
        write_timeout = self.connection.service.config.write_timeout
        if wait.since + write_timeout <= now:
            if self._lets_nothing_pass(stream, wait):
                return True
            wait.since, wait.window, wait.sent = now, stream.send_window, self.data_sent
        self.due(wait.since + write_timeout)
        return False

    def _lets_nothing_pass(self, stream: Sender, wait: WindowWait) -> bool:
        if stream.send_window > 0:
            if not self.connection.writable:
                # The transport has a deadline of its own.
                return False
            # Its window is open now: what matters is what the one of the connection lets pass.
            progress = max(wait.window - stream.send_window, self.data_sent - wait.sent)
        else:
            progress = wait.window - stream.send_window
        return self._is_too_slow(wait, progress)

    def _is_too_slow(self, wait: WindowWait, progress: int) -> bool:
        """Whether a peer lets less than `min_write_rate` pass; it cannot do so while what was sent before is on its way
        to it, and it takes enough of that."""
        connection = self.connection
        least = connection.service.least_taken
        if progress >= least or connection.is_delivered():
            return progress < least
        before, wait.taken = wait.taken, connection.taken()
        return before is not None and wait.taken - before < least

    def postpone(self, seconds: float) -> None:
        """For so long the connection has not looked at what the peer sent."""
        if self._wait is not None:
            self._wait.since += seconds


def _never(at: float) -> None:
    """Nothing is due once it is over."""
