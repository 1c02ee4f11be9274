"""Ending: how a connection comes to its end (RFC 9113 6.8).

    BEGINNING ─SETTINGS of the peer─▶ OPEN ─drain─▶ DRAINING ─a round trip, or a second─▶ LEAVING
    BEGINNING, OPEN ─GOAWAY of the peer, idle too long, last request─▶ LEAVING
    LEAVING ─last stream ends─▶ closed                any ─connection error─▶ closed

LEAVING begins with the last GOAWAY but that of an error: no request is taken after it. DRAINING begins with one that
names no stream, and ends when the answer to a PING tells that the peer has read it. Once it is closed (`Output.closed`)
nothing is sent; what arrives is read and thrown away for a moment, so that the peer can read what came last (RFC 9112
9.6 has the reason).
"""

from math import inf
from typing import TYPE_CHECKING

from pounce.net.linger import LINGER_TIMEOUT
from pounce_h2.abuse import ConnectionFailed, report
from pounce_h2.frames import ErrorCode, Kind, frame, goaway_frame
from pounce_h2.output import Output
from pounce_h2.settings import WINDOW_MAX
from pounce_h2.streams import Streams

if TYPE_CHECKING:
    from pounce.contract.wire import Service

__all__ = ["Ending"]

DRAIN_GRACE = 1.0
"""Seconds in which requests that are on their way may arrive when a drain begins."""
DRAIN_PING = b"drain\0\0\0"


class Phase:
    """See the diagram above. Numbers: `pounce.immortal` tells why not an Enum."""

    BEGINNING = 0
    OPEN = 1
    DRAINING = 2
    LEAVING = 3


class Ending:
    """How far a connection is."""

    __slots__ = ("_drain_due", "_output", "_phase", "_service", "_streams", "last")

    def __init__(self, service: Service, output: Output, streams: Streams) -> None:
        self._service = service
        self._output = output
        self._streams = streams
        self._phase = Phase.BEGINNING
        self._drain_due = inf
        self.last: int | None = None
        """The last stream that is looked at, once there is one."""

    def begin(self) -> None:
        """The first SETTINGS of the peer came."""
        if self._phase == Phase.BEGINNING:
            self._phase = Phase.OPEN
            if self._service.draining:
                self.drain()

    # In good order

    def drain(self) -> None:
        """Say that the end is near, wait a round trip for requests that are under way, then take no more."""
        output = self._output
        if self._phase == Phase.BEGINNING:
            if self._streams.open:
                self.leave()
            output.due(output.loop.time() + DRAIN_GRACE)
        elif self._phase == Phase.OPEN and not output.closed:
            self._phase = Phase.DRAINING
            output.emit(goaway_frame(WINDOW_MAX, ErrorCode.NO_ERROR))
            output.emit(frame(Kind.PING, 0, 0, DRAIN_PING))
            self._drain_due = output.loop.time() + DRAIN_GRACE
            output.due(self._drain_due)

    def pong(self, payload: bytes) -> None:
        """The peer has answered a PING."""
        if payload == DRAIN_PING and self._phase == Phase.DRAINING:
            # A round trip is over: what the peer sent before it knew of the drain is here.
            self.leave()

    def leave(self) -> None:
        """Take no more requests, and close when those that run are over."""
        output = self._output
        if self._phase != Phase.LEAVING and not output.closed:
            self._phase = Phase.LEAVING
            self.last = self._streams.last_seen
            output.emit(goaway_frame(self.last, ErrorCode.NO_ERROR))
            output.at_end = self._end_of_turn

    def _end_of_turn(self) -> None:
        if not self._streams.open:
            # Everything is answered.
            self._linger()

    def leave_if_due(self, now: float) -> None:
        """Leave when a drain has lasted long enough: a peer that keeps us busy would put it off for ever."""
        if self._phase == Phase.DRAINING and self._drain_due <= now:
            self.leave()

    def look(self, now: float) -> None:
        """Do what is due, and see to what will be."""
        output, streams, service = self._output, self._streams, self._service
        if self._phase == Phase.DRAINING:
            self.leave_if_due(now)
            if self._drain_due > now:
                output.due(self._drain_due)
        elif not streams.open:
            timeout = service.keep_alive_timeout(streams.info) if streams.requests else service.config.header_timeout
            if streams.idle_since + timeout <= now or (service.draining and self._phase != Phase.OPEN):
                service.count("idle_timeout")
                self.leave()
            else:
                output.due(streams.idle_since + timeout)

    # Errors

    def fail(self, error: ConnectionFailed) -> None:
        """RFC 9113 5.4.1: a connection error: GOAWAY, and the end of every stream."""
        report(self._service, self._streams.info, f"{error.code.name}: {error.message}")
        self._service.count(f"h2_{error.code.name.lower()}", "h2: connection error: %s", error.message)
        self.close(error.code, error.message)

    def close(self, code: ErrorCode, message: str = "") -> None:
        """The last GOAWAY, and the end of every stream."""
        self._output.emit(goaway_frame(self._streams.last_opened, code, message.encode()))
        self._streams.lose_all()
        self._linger()

    # Closed

    def _linger(self) -> None:
        self._output.close()
        connection = self._output.connection
        # Also where the transport is closing already.
        connection.deadline = self._output.loop.time() + LINGER_TIMEOUT
        connection.linger()
