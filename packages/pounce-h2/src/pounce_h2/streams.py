"""Streams: the table of a connection's streams, what is remembered of those that are over, and what may be wrong.

A stream is in the table from its request until both halves are over. Only those that were reset are remembered after
that, up to a bound, because frames that were under way may still arrive for them; and the gaps between stream ids,
because a frame for a stream that was passed over is another error than one for a stream that has ended.

What a client makes us do for nothing (resets, frames that change nothing) is taken from budgets, and what it lets us
finish earns them again. A request that was reset takes a place among the concurrent ones for as long as its application
runs: otherwise a client could have any number of them run, by giving up each at once.
"""

from math import inf
from typing import TYPE_CHECKING

from pounce.contract.head import RequestHead
from pounce.contract.stream import ConnectionInfo, Exchange
from pounce.errors import BadRequest, ClientGone
from pounce.exchange.priority import Priority, parse_priority
from pounce_h2.abuse import Budgets, ConnectionFailed, report
from pounce_h2.frames import ErrorCode, rst_stream_frame
from pounce_h2.output import Output
from pounce_h2.settings import WINDOW_MAX, H2Settings
from pounce_h2.stream import ENDED, LOST, NO_EXCHANGE, RECEIVING, H2Stream
from pounce_h2.windows import Windows

if TYPE_CHECKING:
    from pounce.contract.wire import Service

__all__ = ["Streams"]

HEAD_MEMORY = 16
"""How many heads of max_header_size the requests of a connection may hold together."""
RESETS_MAX = 2048
"""Streams that were reset and are remembered."""
SKIPPED_MAX = 64
"""Gaps between stream ids that are remembered."""
EARLY_PRIORITIES_MAX = 100
"""Priorities for requests that have not arrived."""

GONE = ClientGone("the client closed the connection")


class ResetBy:
    """Who reset a stream. Numbers: `pounce.immortal` tells why not an Enum."""

    US = 0
    PEER = 1


class Streams:
    """The streams of one connection."""

    __slots__ = (
        "_requests_paid",
        "_resets",
        "_service",
        "_skipped",
        "abandoned",
        "answered",
        "budgets",
        "early_priorities",
        "head_memory",
        "head_memory_max",
        "idle_since",
        "info",
        "last_opened",
        "last_seen",
        "limit",
        "open",
        "opening",
        "output",
        "requests",
        "windows",
    )

    def __init__(self, service: Service, info: ConnectionInfo, output: Output, settings: H2Settings) -> None:
        self._service = service
        self.info = info
        self.output = output
        self.open: dict[int, H2Stream] = {}
        self.windows = Windows(settings, service.config, output, self.open)
        self.budgets = Budgets(settings.reset_burst, settings.reset_rate, output.loop.time)
        self.limit = settings.max_concurrent_streams
        self.opening: list[tuple[H2Stream, RequestHead | BadRequest]] = []
        """Requests that the service has not seen."""
        self.abandoned: list[Exchange] = []
        """Exchanges of streams that were reset, whose applications may run."""
        self.early_priorities: dict[int, Priority] = {}
        """Of requests that have not arrived."""
        self.last_seen = 0
        """The highest stream id of the peer, and of those that the service has seen or that were answered."""
        self.last_opened = 0
        self.requests = self._requests_paid = 0
        """Requests so far, and those that have earned something."""
        self.answered = 0
        """Answers that were sent to their end and have not earned anything."""
        self.head_memory = 0
        """What the heads of open streams take, and the most that they may."""
        self.head_memory_max = HEAD_MEMORY * service.config.max_header_size
        self.idle_since = output.loop.time()
        """Since when there is no stream."""
        self._resets: dict[int, int] = {}
        self._skipped: list[range] = []

    # The table

    def pass_over(self, id: int) -> None:
        """A request with this id came, and none with those since the last one: they are closed (RFC 9113 5.1.1)."""
        self._skipped.append(range(self.last_seen + 1 | 1, id, 2))
        if len(self._skipped) > SKIPPED_MAX:
            del self._skipped[0]

    def is_full(self) -> bool:
        """No room for another request; one that was reset counts for as long as its application runs."""
        self.abandoned = [exchange for exchange in self.abandoned if getattr(exchange, "running", False)]
        return len(self.open) + len(self.abandoned) >= self.limit

    def forget(self, stream: H2Stream) -> None:
        """Both halves of a stream are over."""
        if self.open.pop(stream.id, None) is None:
            return
        # The two would keep each other until the collector comes.
        stream.exchange = NO_EXCHANGE
        self.head_memory -= stream.head_size
        output = self.output
        if stream.parked_size:
            output.parked_size -= stream.parked_size
            stream.parked_size = 0
            stream.parked = stream.wait = None
            output.has_nothing_to_send(stream)
        upload = stream.upload
        if upload is not None and upload.pieces:
            upload.discard()
        if not self.open:
            self.idle_since = now = output.loop.time()
            output.due(now + self._service.keep_alive_timeout(self.info))
            if output.at_end is not None:
                output.soon()

    def lose(self, stream: H2Stream) -> None:
        """A stream is gone before its end: tell its exchange."""
        exchange = stream.lose()
        self.forget(stream)
        if exchange is not None:
            exchange.stream_lost(GONE)
            if getattr(exchange, "running", False):
                self.abandoned.append(exchange)

    def lose_all(self) -> None:
        """The connection is over."""
        self.opening.clear()
        streams = tuple(self.open.values())
        self.open.clear()
        for stream in streams:
            self.output.scheduler.remove(stream)
            exchange = stream.lose()
            if exchange is not None:
                exchange.stream_lost(GONE)

    # Errors of the peer

    def check_not_idle(self, id: int) -> None:
        """RFC 9113 5.1: an idle stream takes nothing but HEADERS and PRIORITY. Raises `ConnectionFailed`."""
        if not id or id > self.last_seen or not id & 1:
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "a frame for a stream that is not open")

    def frame_for_closed(self, id: int) -> None:
        """HEADERS or DATA for a stream that is over. Raises `ConnectionFailed` unless it may have been under way."""
        reset_by = self._resets.get(id)
        if reset_by == ResetBy.US:
            # It was under way when we reset the stream.
            self.spend_pointless()
            return
        if reset_by == ResetBy.PEER:
            self.refuse(id, ErrorCode.STREAM_CLOSED)
        elif any(id in passed for passed in self._skipped):
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "a stream id that is lower than one before")
        else:
            raise ConnectionFailed(ErrorCode.STREAM_CLOSED, "a frame for a stream that has ended")

    def error(self, stream: H2Stream, code: ErrorCode) -> None:
        """RFC 9113 5.4.2: reset a stream because of what the peer did."""
        self.refuse(stream.id, code)
        self.lose(stream)

    def error_for(self, id: int, code: ErrorCode, message: str) -> None:
        """A stream error; for a stream that is not open it has to be one of the connection, and is raised."""
        stream = self.open.get(id)
        if stream is None:
            raise ConnectionFailed(code, message)
        self.error(stream, code)

    def malformed(self, id: int, error: BadRequest) -> None:
        """RFC 9113 8.1.1: a request, or the rest of one, is malformed."""
        self._service.count(error.code, "h2: %s", error.message)
        report(self._service, self.info, error.message)
        self.refuse(id, ErrorCode.PROTOCOL_ERROR)

    def refuse(self, id: int, code: ErrorCode) -> None:
        """Send a RST_STREAM that the peer has provoked."""
        self._spend_reset()
        if code is not ErrorCode.REFUSED_STREAM and id > self.last_opened:
            self.last_opened = id
        self._send_reset(id, code)

    # Resets

    def reset(self, stream: H2Stream, code: ErrorCode) -> None:
        """Reset a stream for a reason of ours; its exchange knows."""
        self._send_reset(stream.id, code)
        stream.receiving = LOST
        stream.sending = ENDED
        stream.writable = True
        self.forget(stream)

    def reset_by_peer(self, id: int) -> None:
        """RST_STREAM came."""
        stream = self.open.get(id)
        if stream is None:
            self.check_not_idle(id)
            self.spend_pointless()
            return
        if stream.sending != ENDED:
            self._spend_reset()
        self._remember_reset(id, ResetBy.PEER)
        self.lose(stream)

    def ignore(self, id: int) -> None:
        """A request that came after our GOAWAY: the peer knows by now that nobody looks at it."""
        self.spend_pointless()
        self._remember_reset(id, ResetBy.US)

    def _send_reset(self, id: int, code: ErrorCode) -> None:
        self._remember_reset(id, ResetBy.US)
        self.output.emit(rst_stream_frame(id, code))

    def _remember_reset(self, id: int, by: int) -> None:
        self._resets[id] = by
        if len(self._resets) > RESETS_MAX:
            del self._resets[next(iter(self._resets))]

    # Budgets

    def _spend_reset(self) -> None:
        # What a client gives up, or gets wrong, in proportion to what it lets us finish is no attack.
        self.budgets.reset.earn(self.answered // 2)
        self.answered = 0
        self.budgets.reset.spend()

    def spend_pointless(self) -> None:
        """A frame that changes nothing."""
        self._earn_by_requests()
        self.budgets.pointless.spend()

    def spend_priority(self) -> None:
        """PRIORITY, or PRIORITY_UPDATE."""
        self._earn_by_requests()
        self.budgets.priority.spend()

    def _earn_by_requests(self) -> None:
        requests = self.requests - self._requests_paid
        self._requests_paid = self.requests
        # Some clients send one or two with each request.
        self.budgets.priority.earn(2 * requests)
        # Some give up each when its answer is complete.
        self.budgets.pointless.earn(requests)

    # Windows and priorities

    def move_windows(self, change: int) -> None:
        """RFC 9113 6.9.2: the windows of all streams move with the setting, and may become negative."""
        for stream in self.open.values():
            if stream.send_window + change > WINDOW_MAX:
                raise ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, "a window exceeds 2^31-1")
            stream.move_window(change)

    def open_window(self, id: int, increment: int) -> None:
        """WINDOW_UPDATE for a stream."""
        stream = self.open.get(id)
        if stream is None:
            self.check_not_idle(id)
        elif not increment:
            self.error(stream, ErrorCode.PROTOCOL_ERROR)
        elif stream.send_window + increment > WINDOW_MAX:
            self.error(stream, ErrorCode.FLOW_CONTROL_ERROR)
        else:
            stream.move_window(increment)

    def reprioritize(self, id: int, field: bytes) -> None:
        """PRIORITY_UPDATE for a stream that is open, is over, or is still to come (RFC 9218 7.1)."""
        priority = parse_priority(field)
        stream = self.open.get(id)
        if stream is not None:
            stream.priority = priority
        elif id > self.last_seen:
            if len(self.early_priorities) >= EARLY_PRIORITIES_MAX:
                del self.early_priorities[next(iter(self.early_priorities))]
            self.early_priorities[id] = priority

    # Deadlines

    def postpone(self, seconds: float) -> None:
        """For so long the connection has not looked at what the peer sent."""
        self.idle_since += seconds
        for stream in self.open.values():
            stream.postpone(seconds)

    def look(self, now: float) -> None:
        """Do what is due, and see to what will be."""
        for stream in tuple(self.open.values()):
            self._look_at(stream, now)

    def _look_at(self, stream: H2Stream, now: float) -> None:
        output = self.output
        if stream.wait is not None and output.is_held_up_by(stream, stream.wait, now):
            self._service.count("write_timeout", "h2: peer lets too little pass, resetting a stream")
            self._send_reset(stream.id, ErrorCode.CANCEL)
            self.lose(stream)
        elif stream.peer_ends_by != inf:
            if stream.peer_ends_by <= now:
                self.reset(stream, ErrorCode.NO_ERROR)
            else:
                output.due(stream.peer_ends_by)
        elif stream.upload is not None and stream.receiving == RECEIVING and not stream.is_tunnel:
            self._look_at_upload(stream, self.windows.due(stream.upload), now)

    def _look_at_upload(self, stream: H2Stream, due: float, now: float) -> None:
        if due <= now:
            stream.exchange.stream_lost(
                BadRequest(
                    "The request body did not arrive in time",
                    status=408,
                    code="POUNCE_TIMEOUT_REQUEST_BODY",
                    hint="See request_timeout and min_body_rate.",
                )
            )
        self.output.due(due if due > now else now + self._service.config.request_timeout)
