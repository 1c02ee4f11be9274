"""SessionStream: one stream of a WebTransport session, as the session sees it.

    reading   OPEN ─FIN─▶ ENDED ─taken to its end─▶ OVER        any ─given up by the peer─▶ OVER ◀─stop()─ any
    writing   OPEN ─FIN, reset(), the peer stops it─▶ OVER

A half that a unidirectional stream does not have is OVER from the beginning. What has arrived is held here until the
session takes it, and counted against what a connection may let wait (`windows.py`), with something for the stream
itself. What is written goes to the output like what requests write. The stream is in the table of `Sessions` until QUIC
has nothing more to say of it.
"""

from typing import TYPE_CHECKING, Protocol

from pounce.exchange.priority import DEFAULT, Priority
from pounce_h3.codes import H3_INTERNAL_ERROR, code_of_application

if TYPE_CHECKING:
    from pounce_h3.output import Output, Wait
    from pounce_h3.windows import Windows

__all__ = ["OVER", "STREAM_COST", "Session", "SessionStream", "StreamTable"]

PENDING_HIGH = 65536
"""Bytes that wait to be sent at which an application has to wait."""
PENDING_LOW = 16384
STREAM_COST = 1024
"""Bytes that a stream counts for, beside what has arrived on it, until it was read to its end."""

OPEN, ENDED, OVER = range(3)


class Session(Protocol):
    """What a session is told of its streams and datagrams. It may write at once."""

    def datagram_received(self, data: bytes) -> None:
        """One came."""

    def stream_opened(self, stream: SessionStream) -> None:
        """By the client; what has arrived on it, and whether it has ended, is there to be read."""

    def stream_readable(self, stream: SessionStream) -> None:
        """Bytes came, or the end."""

    def stream_reset(self, stream: SessionStream, code: int) -> None:
        """The client has given up its half, with a code of the wire. What was not taken is gone."""

    def stream_stopped(self, stream: SessionStream, code: int) -> None:
        """The client wants no more of our half, with a code of the wire; also where it takes too little."""

    def stream_writable(self, stream: SessionStream) -> None:
        """It is writable again."""


class StreamTable(Protocol):
    """What a stream needs of the table that it is in."""

    output: Output
    windows: Windows

    def ended(self, stream: SessionStream) -> None:
        """A half of it is over."""


class SessionStream:
    """See `pounce_h3.output.Sender` for what the output needs of it."""

    __slots__ = (
        "_cost",
        "_unread",
        "ended",
        "id",
        "is_queued",
        "is_stopped",
        "output",
        "pending",
        "pending_end",
        "pending_size",
        "priority",
        "reading",
        "seen",
        "session",
        "table",
        "taken_at",
        "unconsumed",
        "wait",
        "writable",
        "writing",
    )

    def __init__(self, table: StreamTable, stream_id: int) -> None:
        self.table = table
        self.output = table.output
        self.id = stream_id
        self.session: Session | None = None
        """None before there is one, and once it is gone."""
        self.priority: Priority = DEFAULT
        # RFC 9000 2.1
        is_ours, is_unidirectional = bool(stream_id & 1), bool(stream_id & 2)
        self.reading = OVER if is_ours and is_unidirectional else OPEN
        self.writing = OVER if is_unidirectional and not is_ours else OPEN
        self.ended = self.reading == OVER
        """The client's half is over, for QUIC."""
        self.seen = is_ours
        """The application knows of it."""
        self.is_queued = False
        """The application is to be told that something can be read."""
        self.taken_at = 0.0
        """When something of it was last taken."""
        self.unconsumed = 0
        """Bytes that the application has, and has not said to have consumed."""
        self.is_stopped = False
        """The client wants no more of our half."""
        self.writable = True
        self.wait: Wait | None = None
        self.pending: list[bytes | memoryview] = []
        self.pending_size = 0
        self.pending_end = False
        self._unread = bytearray()
        self._cost = 0
        if not is_ours:
            self._hold(STREAM_COST)

    @property
    def is_bidirectional(self) -> bool:
        return not self.id & 2

    # Reading

    @property
    def readable(self) -> int:
        """Bytes that wait to be taken."""
        return len(self._unread)

    @property
    def is_unread(self) -> bool:
        """The session has yet to take something of it, or to hear that it is open."""
        return self.session is not None and self.reading != OVER and (bool(self._unread) or not self.seen)

    def data_received(self, data: bytes, end: bool) -> None:
        """Bytes of the client's half."""
        if end:
            self.ended = True
        if self.reading == OPEN:
            if data:
                self._unread += data
                self._hold(len(data))
            if end:
                self.reading = ENDED
            if self.session is not None:
                self.session.stream_readable(self)
        if end:
            self.table.ended(self)

    def take(self, count: int) -> tuple[bytes, bool]:
        """Up to so many bytes, and whether the client's half ends with them."""
        data = bytes(self._unread[:count])
        del self._unread[:count]
        self.taken_at = self.table.windows.time()
        is_last = self.reading == ENDED and not self._unread
        if is_last:
            self.reading = OVER
            self._release(self._cost)
        elif data:
            self._release(len(data))
        return data, is_last

    def reset_received(self, code: int) -> None:
        """The client has given up its half."""
        self.ended = True
        if self.reading != OVER:
            self._forget_unread()
            if self.session is not None:
                self.session.stream_reset(self, code)
        self.table.ended(self)

    def give_up_reading(self, code: int) -> None:
        """Nobody reads what has arrived, and there is no room for it any more."""
        if self.reading != OVER:
            self.stop_with(code)
            if self.session is not None:
                self.session.stream_reset(self, code)
            self.table.ended(self)

    def stop(self, code: int) -> None:
        """Want no more of the client's half; `code` is an application's."""
        self.stop_with(code_of_application(code))

    def stop_with(self, code: int) -> None:
        """The same with a code of the wire."""
        if self.reading != OVER:
            self._forget_unread()
            if not self.ended:
                self.output.stop(self.id, code)
                self.output.soon()

    def _forget_unread(self) -> None:
        self.reading = OVER
        self._unread.clear()
        self._release(self._cost)

    def _hold(self, count: int) -> None:
        self._cost += count
        self.table.windows.hold(count)

    def _release(self, count: int) -> None:
        self._cost -= count
        if count:
            self.table.windows.release(count)

    # Writing

    def write(self, data: bytes, end: bool) -> None:
        """Bytes of our half; when it is not writable afterwards, wait for `stream_writable`."""
        if self.writing != OPEN:
            return
        self.output.send(self, [data] if data else [], end)
        if end:
            self.writing = OVER
        # One that has ended waits until its last byte has left, to be forgotten then.
        if self.pending_size and (end or self.pending_size + self.output.unsent(self) > PENDING_HIGH):
            self.writable = False
            self.output.wait(self, self.pending_size + self.output.unsent(self))
        if end:
            self.table.ended(self)

    def reset(self, code: int) -> None:
        """Give up our half; `code` is an application's."""
        self.reset_with(code_of_application(code))

    def reset_with(self, code: int) -> None:
        """The same with a code of the wire."""
        if self.writing == OPEN or self.pending_size:
            self._drop_pending()
            self.output.reset(self.id, code)
            self.output.soon()
            self.table.ended(self)

    def stop_received(self, code: int) -> None:
        """The client wants no more of our half."""
        was_open = self.writing == OPEN
        self.is_stopped = True
        self._drop_pending()
        if was_open and self.session is not None:
            self.session.stream_stopped(self, code)
        self.table.ended(self)

    def _drop_pending(self) -> None:
        self.pending.clear()
        self.pending_size = 0
        self.pending_end = False
        self.output.forget(self)
        self.wait = None
        self.writing = OVER
        self.writable = True

    # For the output

    def bytes_left(self) -> None:
        """Some of what was waiting has left: go on, if it was enough."""
        if self.pending_size + self.output.unsent(self) > (0 if self.writing == OVER else PENDING_LOW):
            return
        self.output.waiting.discard(self)
        self.writable = True
        self.wait = None
        if self.session is not None:
            self.session.stream_writable(self)
        self.table.ended(self)

    def fail(self, code: int) -> None:
        """End it in both directions."""
        session = self.session
        if self.writing == OPEN or self.pending_size:
            self.is_stopped = True
            self.reset_with(code)
            if session is not None:
                session.stream_stopped(self, code)
        self.give_up_reading(code)
        self.table.ended(self)

    def break_off(self) -> None:
        """End it because of an error of ours."""
        self.fail(H3_INTERNAL_ERROR)

    def discard(self) -> None:
        """Nobody will take what has arrived."""
        self.session = None
        if self.reading != OVER:
            self._forget_unread()

    def lose(self) -> None:
        """The connection is over."""
        self.session = None
        self._drop_pending()

    @property
    def is_over(self) -> bool:
        """Nothing more will be heard of it, and nothing of it is left to be sent."""
        return self.ended and self.writing == OVER and not self.pending_size and self.writable
