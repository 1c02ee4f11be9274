"""H2Stream: one request on an HTTP/2 connection.

Theory of operation. Two states describe a stream, one for each direction:

    receiving   OPEN ─END_STREAM─▶ ENDED          OPEN, ENDED ─RST_STREAM, by either side─▶ LOST
    sending     WAITING ─start─▶ OPEN ─last piece given─▶ LAST ─END_STREAM sent─▶ ENDED
                WAITING ─start of an answer without a body─▶ MUTED ─last piece given─▶ ENDED

What the application sends leaves at once where nothing is in its way: the windows let it pass, the transport takes it,
and no other stream waits. Otherwise it is parked here, and leaves frame by frame when its turn comes (`output.py`).
While much is parked `writable` is False, and the application waits.

MUTED is over for the peer; the application goes on, and is still to hear when the peer is gone.

A stream is in its connection's table (`streams.py`) until both halves are over.
"""

from collections import deque
from math import inf
from typing import Protocol, cast

from pounce.contract.head import BODILESS, Headers
from pounce.contract.stream import Body, ConnectionInfo, Exchange
from pounce.exchange.priority import Priority, parse_priority
from pounce_h2.encode import content_length_field, encode_fields
from pounce_h2.frames import END_STREAM, ErrorCode, header_frames
from pounce_h2.output import Output, WindowWait
from pounce_h2.settings import FRAME_MAX
from pounce_h2.windows import Upload

__all__ = ["ENDED", "LOST", "NO_EXCHANGE", "RECEIVED", "RECEIVING", "H2Stream", "Table"]

DIRECT_MAX = 65_536
"""Bytes that may leave without having waited for their turn."""
PARKED_HIGH = 65_536
"""Parked bytes of a stream above which its application waits."""
PARKED_LOW = 16_384
CONNECTION_PARKED_HIGH = 262_144
"""Parked bytes of all streams above which every application that adds to them waits."""
TUNNEL_END = 2.0
UPLOAD_END = 0.25
"""Seconds the peer has to end its half of a tunnel, or of an upload that is answered, after we ended ours."""

# The request's half, and the answer's; see the diagram above. Numbers: `pounce.immortal` tells why not Enums.
RECEIVING, RECEIVED, LOST = range(3)
WAITING, OPEN, LAST, MUTED, ENDED = range(5)

NO_EXCHANGE = cast(Exchange, None)


class Table(Protocol):
    """What a stream needs of its connection's table."""

    info: ConnectionInfo
    output: Output
    answered: int
    """Answers that were sent to their end."""

    def forget(self, stream: H2Stream) -> None:
        """Both halves of a stream are over."""

    def reset(self, stream: H2Stream, code: ErrorCode) -> None:
        """Reset a stream for a reason of ours; its exchange knows."""


class H2Stream:
    """RFC 9113 5 for one stream; implements `Stream`."""

    __slots__ = (
        "connection",
        "exchange",
        "head_size",
        "id",
        "is_tunnel",
        "method",
        "output",
        "parked",
        "parked_size",
        "peer_ends_by",
        "priority",
        "receiving",
        "send_window",
        "sending",
        "table",
        "trailer_block",
        "upload",
        "wait",
        "writable",
    )

    connection: ConnectionInfo
    exchange: Exchange
    """Not there before the request is opened, nor when both halves are over."""
    sends_files = False
    has_trailers = True

    def __init__(self, table: Table, id: int, method: bytes, priority: Priority, head_size: int) -> None:
        self.table = table
        self.output = output = table.output
        self.id = id
        self.method = method
        self.priority = priority
        self.head_size = head_size
        self.connection = table.info
        self.exchange = NO_EXCHANGE
        self.writable = True
        self.receiving = RECEIVED
        self.sending = WAITING
        self.send_window = output.peer.initial_window
        self.upload: Upload | None = None
        self.parked: deque[bytes] | None = None
        self.parked_size = 0
        self.trailer_block: bytes | None = None
        self.wait: WindowWait | None = None
        self.peer_ends_by = inf
        self.is_tunnel = False

    # Stream: called by the exchange

    def start(self, status: int, headers: Headers, body: Body, more: bool) -> None:
        if self.sending != WAITING:
            return
        output = self.output
        block, has_length, priority = output.encode(status, headers)
        if priority is not None:
            self.priority = parse_priority(priority, self.priority)
        size = len(body)
        has_body = status not in BODILESS and self.method != b"HEAD"
        if not more and not has_length and has_body:
            block += content_length_field(size)
        if output.peer.table_must_shrink:
            block = output.peer.shrink_table(block)
        self.sending = OPEN
        ends = not (more and has_body) and not size
        frames = header_frames(output.pack_head, self.id, block, ends, output.peer.frame_max)
        if ends:
            output.emit(frames)
            if more:
                self.sending = MUTED
            else:
                self._end()
        elif 0 < size <= FRAME_MAX and self._may_leave(size):
            self.send_window -= size
            output.send_window -= size
            output.data_frames += 1
            head = output.pack_head(size << 8, 0 if more else END_STREAM, self.id)
            # Added, not joined: compilers may do that byte by byte.
            output.emit(frames + head + cast(bytes, body))
            if not more:
                self._end()
        else:
            output.emit(frames)
            if size:
                self._send(cast(bytes, body), more)

    def write(self, body: Body, more: bool) -> None:
        if self.sending == OPEN:
            if body or not more:
                self._send(cast(bytes, body), more)
        elif self.sending == MUTED:
            if not more:
                self._end()

    def inform(self, status: int, headers: Headers) -> None:
        upload = self.upload
        # RFC 9110 10.1.1: no need for 100 (Continue) once a part of the content is here, or after it.
        if status == 100 and (upload is None or upload.received or self.receiving != RECEIVING):
            return
        if self.sending == WAITING:
            self._send_fields([(b":status", b"%d" % status), *headers], False)

    def tunnel(self, headers: Headers) -> None:
        if self.sending == WAITING:
            self.sending = OPEN
            self.is_tunnel = True
            self._send_fields([(b":status", b"200"), *headers], False)

    def trailers(self, headers: Headers) -> None:
        if self.sending != OPEN:
            return
        if not headers:
            self._send(b"", False)
            return
        self.trailer_block = encode_fields(headers)
        self.sending = LAST
        if self.parked_size:
            self.writable = False
        else:
            self._send_trailers()

    def consumed(self, count: int) -> None:
        if self.upload is not None:
            self.upload.consumed(count, self.receiving == RECEIVING)

    def reset(self) -> None:
        if self.sending == MUTED:
            # The peer has the whole answer.
            self._end()
        elif self.sending != ENDED:
            self.table.reset(self, ErrorCode.INTERNAL_ERROR)

    # Sending

    def _may_leave(self, size: int) -> bool:
        """Nothing is in the way of `size` bytes, in windows, transport or queue."""
        output = self.output
        return (
            not self.parked_size
            and size <= self.send_window
            and size <= output.send_window
            and output.connection.writable
            and not output.scheduler.ready
        )

    def _send(self, body: bytes, more: bool) -> None:
        """DATA, now or later."""
        output = self.output
        size = len(body)
        if size > DIRECT_MAX or not ((not size and not self.parked_size) or self._may_leave(size)):
            self._park(body, more)
            return
        self.send_window -= size
        output.send_window -= size
        output.data_frames += 1
        limit = output.peer.data_frame_max
        if size <= limit:
            output.emit(output.pack_head(size << 8, 0 if more else END_STREAM, self.id) + body)
        else:
            for at in range(0, size, limit):
                piece = body[at : at + limit]
                last = not more and at + limit >= size
                output.emit(output.pack_head(len(piece) << 8, END_STREAM if last else 0, self.id) + piece)
        if not more:
            self._end()

    def _park(self, body: bytes, more: bool) -> None:
        output = self.output
        if body:
            if self.parked is None:
                self.parked = deque()
            self.parked.append(body)
            self.parked_size += len(body)
            output.parked_size += len(body)
        if not more:
            self.sending = LAST
            self.writable = False
        elif self.parked_size > PARKED_HIGH or output.parked_size > CONNECTION_PARKED_HIGH:
            self.writable = False
        output.wants_to_send(self)

    def send_frame(self) -> None:
        """Send a frame of what is parked, which the windows must let pass; called when it is this stream's turn."""
        output = self.output
        parked = self.parked
        assert parked is not None
        was_writable = self.writable
        exchange = self.exchange
        room = min(self.send_window, output.send_window, output.peer.data_frame_max)
        pieces: list[bytes] = []
        size = 0
        while parked and size < room:
            piece = parked.popleft()
            if size + len(piece) > room:
                view = memoryview(piece)
                rest = room - size
                parked.appendleft(view[rest:])  # type: ignore[arg-type]
                piece = view[:rest]  # type: ignore[assignment]
            pieces.append(piece)
            size += len(piece)
        self.parked_size -= size
        output.parked_size -= size
        self.send_window -= size
        output.send_window -= size
        output.data_frames += 1
        done = not self.parked_size
        ends = done and self.sending == LAST and self.trailer_block is None
        head = output.pack_head(size << 8, END_STREAM if ends else 0, self.id)
        output.emit(head + pieces[0] if len(pieces) == 1 else b"".join((head, *pieces)))
        if done:
            self.wait = None
            output.has_nothing_to_send(self)
            if self.sending == LAST:
                if ends:
                    self._end()
                else:
                    self._send_trailers()
        elif self.send_window <= 0:
            output.wants_to_send(self)
        if not was_writable and (done or (self.sending == OPEN and self.parked_size <= PARKED_LOW)):
            self.writable = True
            exchange.resume_writing()

    def _send_fields(self, headers: Headers, end_stream: bool) -> None:
        self._send_block(encode_fields(headers), end_stream)

    def _send_trailers(self) -> None:
        assert self.trailer_block is not None
        self._send_block(self.trailer_block, True)
        self._end()

    def _send_block(self, block: bytes, end_stream: bool) -> None:
        output = self.output
        peer = output.peer
        if peer.table_must_shrink:
            block = peer.shrink_table(block)
        output.emit(header_frames(output.pack_head, self.id, block, end_stream, peer.frame_max))

    def _end(self) -> None:
        """END_STREAM is sent."""
        self.sending = ENDED
        table = self.table
        table.answered += 1
        if self.receiving != RECEIVING:
            table.forget(self)
        else:
            # RFC 9113 8.1: "the server MAY request that the client abort transmission of a request without error by
            # sending a RST_STREAM with an error code of NO_ERROR after sending a complete response". Some clients
            # throw the response away when both come at once, so theirs is the first move.
            self.peer_ends_by = self.output.loop.time() + (TUNNEL_END if self.is_tunnel else UPLOAD_END)
            self.output.due(self.peer_ends_by)
            if self.upload is not None and not self.is_tunnel:
                self.upload.discard()

    # Called by the table

    def lose(self) -> Exchange:
        """Both halves are over before their end: the exchange, which is to be told, and is let go of."""
        self.receiving = LOST
        self.sending = ENDED
        self.writable = False
        exchange, self.exchange = self.exchange, NO_EXCHANGE
        return exchange

    def move_window(self, change: int) -> None:
        """The peer takes so many bytes more, or less if negative."""
        self.send_window += change
        if self.wait is not None:
            self.wait.window += change
        # It was shut and is open now, or the other way round.
        if self.parked_size and (self.send_window > 0) is not (self.send_window > change):
            self.output.wants_to_send(self)

    def postpone(self, seconds: float) -> None:
        """For so long the connection has not looked at what the peer sent."""
        if self.wait is not None:
            self.wait.since += seconds
        self.peer_ends_by += seconds
        if self.upload is not None:
            self.upload.postpone(seconds)
