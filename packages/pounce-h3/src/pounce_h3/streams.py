"""Streams: the table of a connection's requests, which of them are still to come, and which are given up.

Requests need not arrive in the order of their ids. Above the highest all are still to come; those below it that have
not been heard of are in `_missing`, as many as the peer has credit for.

What a client makes us do for nothing is taken from a budget (CVE-2023-44487, CVE-2025-8671), and what it lets us finish
earns it again.
"""

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

from pounce.exchange.budget import Budget
from pounce.exchange.priority import Priority
from pounce_h3.codes import H3_REQUEST_REJECTED
from pounce_h3.engine import QuicError, StopSending, StreamReset
from pounce_h3.failures import failed, isolated
from pounce_h3.frames import GOAWAY, WT_STREAM, frame, varint
from pounce_h3.heads import Heads, too_much
from pounce_h3.output import Output
from pounce_h3.stream import HEAD, NO_EXCHANGE, SENT, H3Stream
from pounce_h3.windows import Windows

if TYPE_CHECKING:
    from pounce.plugin import ConnectionInfo, Service
    from pounce_h3.sessions import Sessions

__all__ = ["Streams"]

PRIORITIES_MAX = 100
"""Priorities kept for requests that have not arrived."""
RESETS_MAX = 200
"""Requests that the peer may give up unanswered at once, beyond `RESETS_PER_SECOND`."""
RESETS_PER_SECOND = 20


class Streams:
    """The requests of one connection."""

    __slots__ = (
        "_limit",
        "_missing",
        "_resets",
        "answered",
        "goaway",
        "heads",
        "highest",
        "info",
        "is_early",
        "open",
        "output",
        "priorities",
        "requests",
        "service",
        "sessions",
        "unread",
        "unwanted",
        "windows",
    )

    info: ConnectionInfo
    """There once requests may come."""

    def __init__(self, service: Service, heads: Heads, output: Output) -> None:
        self.service = service
        self.heads = heads
        self.output = output
        self.windows = Windows(service.config, output)
        self.open: dict[int, H3Stream] = {}
        output.streams = (self.open,)
        self.sessions: Sessions | None = None
        """Of WebTransport; None where that is off."""
        if service.config.http3_webtransport_enabled:
            from pounce_h3.sessions import Sessions as Found

            self.sessions = Found(self)
        self.unread: list[Callable[[], None]] = []
        """What goes on reading in the connection's next turn."""
        self.unwanted: set[int] = set()
        """Requests that were given up before anything was seen of them, and whose end has not come yet."""
        self.priorities: dict[int, Priority] = {}
        """Of requests that have not arrived yet, by the id of their stream."""
        self.highest = -4
        self.requests = 0
        self.answered = 0
        """Requests that were answered since one was given up."""
        self.is_early = False
        """What arrives may be a replay."""
        self.goaway: int | None = None
        """RFC 9114 5.2: requests with this id or a higher one were not and will not be processed."""
        self._limit = service.config.max_requests_per_connection
        self._missing: set[int] = set()
        self._resets = Budget(
            "requests that were given up", RESETS_MAX, RESETS_PER_SECOND, service.loop.time, too_much
        )

    # Requests

    def received(self, stream_id: int, data: bytes, end: bool) -> None:
        """Bytes of a request. Raises `QuicError`."""
        stream = self.open.get(stream_id)
        if stream is None:
            if self.sessions is not None and self.sessions.received(stream_id, data, end):
                return
            if stream_id in self.unwanted:
                if end:
                    self.unwanted.discard(stream_id)
                return
            if not self._is_new(stream_id):
                # Its request is over.
                return
            if self.goaway is not None and stream_id >= self.goaway and not self._is_of_session(data):
                self._reject(stream_id)
                self.output.stop(stream_id, H3_REQUEST_REJECTED)
                return
            stream = self.open[stream_id] = H3Stream(self, stream_id)
        try:
            stream.data_received(data, end)
        except QuicError, KeyboardInterrupt, SystemExit:
            raise
        except BaseException:  # noqa: BLE001
            failed(self.service, stream)
        # For most requests that was all of it, and no deadline needs watching.
        if stream.reading == HEAD:
            self.output.watch(stream.deadline)

    def _is_of_session(self, data: bytes) -> bool:
        """It is no request: sessions that are open go on after GOAWAY (draft-ietf-webtrans-http3 4.6)."""
        return self.sessions is not None and self.sessions.count > 0 and data.startswith(varint(WT_STREAM))

    def _is_new(self, stream_id: int) -> bool:
        """Whether this is the first that is heard of a request stream; they need not come in their order."""
        if stream_id > self.highest:
            self._missing.update(range(self.highest + 4, stream_id, 4))
            self.highest = stream_id
            return True
        if stream_id in self._missing:
            self._missing.discard(stream_id)
            return True
        return False

    def _reject(self, stream_id: int) -> None:
        self.output.reset(stream_id, H3_REQUEST_REJECTED)
        self.priorities.pop(stream_id, None)
        self.heads.codec.cancel(stream_id)

    def ended(self, stream: H3Stream) -> None:
        """A direction of a stream is done with: forget the stream when both are."""
        if stream.is_over and self.open.get(stream.id) is stream:
            del self.open[stream.id]
            self.heads.memory -= stream.held_head
            # Stream and exchange must not keep each other alive.
            stream.exchange = NO_EXCHANGE
            self.priorities.pop(stream.id, None)
            if self._limit and self.requests >= self._limit and self.goaway is None:
                self.leave()
        if self.goaway is not None:
            self.output.soon()

    @property
    def are_busy(self) -> bool:
        """A request is still to be answered, or on its way, as a later one has arrived."""
        return bool(self._missing) or any(not stream.is_answered for stream in self.open.values())

    def give_to_session(self, stream: H3Stream, number: int, data: bytes, end: bool) -> None:
        """It is no request, but belongs to a session. Raises `QuicError`."""
        assert self.sessions is not None
        del self.open[stream.id]
        self.heads.memory -= stream.held_head
        self.priorities.pop(stream.id, None)
        self.sessions.adopt(stream.id, number, data, end)

    def may_open_session(self, stream_id: int) -> bool:
        """The request of this stream is still to come, or to be answered."""
        stream = self.open.get(stream_id)
        if stream is None:
            return stream_id > self.highest or stream_id in self._missing
        return stream.may_be_accepted

    def unblock(self, ids: list[int]) -> None:
        """What the field sections of these streams have waited for is there."""
        for stream_id in ids:
            stream = self.open.get(stream_id)
            if stream is not None:
                isolated(self.service, stream, stream.unblock)

    def prioritize(self, stream_id: int, priority: Priority) -> None:
        """PRIORITY_UPDATE for a request that is open, is over, or is still to come (RFC 9218 7.2)."""
        stream = self.open.get(stream_id)
        if stream is not None:
            stream.priority = priority
        elif (stream_id > self.highest or stream_id in self._missing) and len(self.priorities) < PRIORITIES_MAX:
            self.priorities[stream_id] = priority

    # What is given up

    def refuse_unseen(self, stream_id: int) -> None:
        """A request is given up: where nothing has been seen of it, it never reaches an application.

        Raises `QuicError`.
        """
        if not stream_id & 3 and self._is_new(stream_id):
            self.count_reset()
            self._reject(stream_id)
            self.unwanted.add(stream_id)

    def given_up(self, event: StreamReset) -> None:
        """The peer has given up one half of a request. Raises `QuicError`."""
        stream = self.open.get(event.stream_id)
        if stream is None:
            if self.sessions is not None and self.sessions.given_up(event):
                return
            if not isinstance(event, StopSending):
                self.unwanted.discard(event.stream_id)
            return
        # RFC 9114 4.1.1: whoever cancels a request gives up both halves of its stream, and counts once.
        if stream.writing != SENT and not stream.given_up:
            stream.given_up = True
            self.count_reset()
        call = stream.stop_received if isinstance(event, StopSending) else stream.reset_received
        isolated(self.service, stream, call)

    def count_reset(self) -> None:
        """A request was given up, or made malformed, before it was answered. Raises `QuicError`."""
        # What a client gives up in proportion to what it lets us finish is no attack.
        self._resets.earn(self.answered // 2)
        self.answered = 0
        self._resets.spend()

    # The end

    def go_away(self, stream_id: int) -> None:
        """RFC 9114 5.2: no request with this id or a higher one is taken any more."""
        self.goaway = stream_id
        self.output.control(frame(GOAWAY, varint(stream_id)))

    def leave(self) -> None:
        """Take no more requests than have arrived."""
        self.go_away(self.highest + 4)

    def lose_all(self) -> None:
        """The connection is over."""
        self.unread.clear()
        if self.sessions is not None:
            self.sessions.lose_all()
        streams = tuple(self.open.values())
        self.open.clear()
        for stream in streams:
            stream.lose()

    # Deadlines

    def postpone(self, seconds: float) -> None:
        """For so long the connection took nothing from its peer."""
        for stream in self.open.values():
            stream.postpone(seconds)

    def look(self, now: float) -> None:
        """See to the streams that have waited long enough for their peer. Raises `QuicError`."""
        for stream in tuple(self.open.values()):
            if stream.deadline <= now:
                isolated(self.service, stream, stream.deadline_passed)

    def due(self) -> float:
        """When `look()` is."""
        return min((stream.deadline for stream in self.open.values()), default=inf)

