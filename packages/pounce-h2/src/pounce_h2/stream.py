"""H2Stream: one request on an HTTP/2 connection.

Theory of operation. Two states describe a stream, one for each direction:

    receiving   OPEN ─END_STREAM─▶ ENDED          OPEN, ENDED ─RST_STREAM, by either side─▶ LOST
    sending     WAITING ─start─▶ OPEN ─last piece given─▶ LAST ─END_STREAM sent─▶ ENDED
                WAITING ─start of an answer without a body─▶ MUTED ─last piece given─▶ ENDED

What the application sends leaves at once where nothing is in its way: the windows let it pass, the transport takes it,
and no other stream waits. Otherwise it is parked here, and the connection sends it frame by frame when its turn comes.
While much is parked `writable` is False, and the application waits.

MUTED is over for the peer; the application goes on, and is still to hear when the peer is gone.

A stream is in its connection's table until both halves are over.
"""

from collections import deque
from math import inf
from typing import TYPE_CHECKING, cast

from pounce.contract.head import BODILESS, Headers
from pounce.contract.stream import Body, ConnectionInfo, Exchange
from pounce.exchange.priority import Priority, parse_priority
from pounce_h2.encode import content_length_field, encode_fields
from pounce_h2.frames import END_STREAM, ErrorCode, header_frames

if TYPE_CHECKING:
    from pounce_h2.connection import H2Connection

__all__ = ["ENDED", "LOST", "RECEIVED", "RECEIVING", "H2Stream", "Upload", "WindowWait"]

FRAME_MAX = 16_384
"""Bytes of DATA in one frame, so that streams can take turns."""
DIRECT_MAX = 65_536
"""Bytes that may leave without having waited for their turn."""
PARKED_HIGH = 65_536
"""Parked bytes of a stream above which its application waits."""
PARKED_LOW = 16_384
CONNECTION_PARKED_HIGH = 262_144
"""Parked bytes of all streams above which every application that adds to them waits."""
HELD_HIGH = 65_536
"""Bytes that wait for the application, above which the peer is not hurried; less where the window is small."""
RATE_GRACE = 5.0
"""Seconds before min_body_rate applies."""
TUNNEL_END = 2.0
UPLOAD_END = 0.25
"""Seconds the peer has to end its half of a tunnel, or of an upload that is answered, after we ended ours."""

# The request's half, and the answer's; see the diagram above. Numbers: `pounce.immortal` tells why not Enums.
RECEIVING, RECEIVED, LOST = range(3)
WAITING, OPEN, LAST, MUTED, ENDED = range(5)


class Upload:
    """The body of a request while it arrives."""

    __slots__ = (
        "base",
        "credit",
        "discarded",
        "early",
        "expected",
        "held",
        "last",
        "paused_at",
        "pieces",
        "received",
        "trailers",
        "window",
    )

    def __init__(self, window: int, expected: int | None, now: float) -> None:
        self.window = window
        """Bytes that the peer may still send."""
        self.expected = expected
        """Content-Length."""
        self.received = 0
        self.held = 0
        """Bytes that the application has not taken."""
        self.pieces = 0
        """In how many pieces they came."""
        self.discarded = False
        """The answer is complete, and nobody wants the rest."""
        self.credit = 0
        """Bytes that were taken, and not yet given back to the peer's window."""
        self.early: list[bytes] = []
        self.trailers: Headers | None = None
        """What came before the request was opened."""
        self.base = now + RATE_GRACE
        self.last = now
        self.paused_at = 0.0

    def due(self, timeout: float, min_rate: int) -> float:
        """When the next piece is due; time during which the peer has to wait for applications does not count."""
        if self.paused_at:
            return inf
        due = self.last + timeout
        return min(due, self.base + self.received / min_rate) if min_rate else due


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
        """`H2Connection.data_sent` when this began."""
        self.taken: int | None = None
        """`Connection.taken()`, once it was looked at."""


class H2Stream:
    """RFC 9113 5 for one stream; implements `Stream`."""

    __slots__ = (
        "connection",
        "exchange",
        "h2",
        "head_size",
        "id",
        "is_tunnel",
        "method",
        "parked",
        "parked_size",
        "peer_ends_by",
        "priority",
        "receiving",
        "send_window",
        "sending",
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

    def __init__(self, h2: H2Connection, id: int, method: bytes, priority: Priority, head_size: int) -> None:
        self.h2 = h2
        self.id = id
        self.method = method
        self.priority = priority
        self.head_size = head_size
        self.connection = h2.connection
        self.exchange = cast(Exchange, None)
        self.writable = True
        self.receiving = RECEIVED
        self.sending = WAITING
        self.send_window = h2.initial_window
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
        h2 = self.h2
        block, has_length, priority = h2.blocks.encode(status, headers)
        if priority is not None:
            self.priority = parse_priority(priority, self.priority)
        size = len(body)
        has_body = status not in BODILESS and self.method != b"HEAD"
        if not more and not has_length and has_body:
            block += content_length_field(size)
        if h2.table_must_shrink:
            block = h2.shrink_table(block)
        self.sending = OPEN
        ends = not (more and has_body) and not size
        frames = header_frames(h2.pack_head, self.id, block, ends, h2.peer_frame_max)
        if ends:
            h2.emit(frames)
            if more:
                self.sending = MUTED
            else:
                self._end()
        elif 0 < size <= FRAME_MAX and self._may_leave(size):
            self.send_window -= size
            h2.send_window -= size
            h2.data_frames += 1
            head = h2.pack_head(size << 8, 0 if more else END_STREAM, self.id)
            h2.emit(b"".join((frames, head, cast(bytes, body))))
            if not more:
                self._end()
        else:
            h2.emit(frames)
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
        upload = self.upload
        if upload is None:
            return
        count = min(count, upload.held)
        upload.held -= count
        h2 = self.h2
        if not upload.held:
            h2.held_pieces -= upload.pieces
            upload.pieces = 0
        h2.give_back(count)
        self.unpause_upload(upload)
        if self.receiving == RECEIVING:
            self.extend_window(count)

    def reset(self) -> None:
        if self.sending == MUTED:
            # The peer has the whole answer.
            self._end()
        elif self.sending != ENDED:
            self.h2.reset(self, ErrorCode.INTERNAL_ERROR)

    # Sending

    def _may_leave(self, size: int) -> bool:
        """Nothing is in the way of `size` bytes, in windows, transport or queue."""
        h2 = self.h2
        return (
            not self.parked_size
            and size <= self.send_window
            and size <= h2.send_window
            and h2.writable
            and not h2.scheduler.ready
        )

    def _send(self, body: bytes, more: bool) -> None:
        """DATA, now or later."""
        h2 = self.h2
        size = len(body)
        if size > DIRECT_MAX or not ((not size and not self.parked_size) or self._may_leave(size)):
            self._park(body, more)
            return
        self.send_window -= size
        h2.send_window -= size
        h2.data_frames += 1
        limit = h2.data_frame_max
        if size <= limit:
            h2.emit(h2.pack_head(size << 8, 0 if more else END_STREAM, self.id) + body)
        else:
            for at in range(0, size, limit):
                piece = body[at : at + limit]
                last = not more and at + limit >= size
                h2.emit(h2.pack_head(len(piece) << 8, END_STREAM if last else 0, self.id) + piece)
        if not more:
            self._end()

    def _park(self, body: bytes, more: bool) -> None:
        h2 = self.h2
        if body:
            if self.parked is None:
                self.parked = deque()
            self.parked.append(body)
            self.parked_size += len(body)
            h2.parked_size += len(body)
        if not more:
            self.sending = LAST
            self.writable = False
        elif self.parked_size > PARKED_HIGH or h2.parked_size > CONNECTION_PARKED_HIGH:
            self.writable = False
        h2.wants_to_send(self)

    def send_frame(self) -> None:
        """Send a frame of what is parked, which the windows must let pass; called when it is this stream's turn."""
        h2 = self.h2
        parked = self.parked
        assert parked is not None
        was_writable = self.writable
        exchange = self.exchange
        room = min(self.send_window, h2.send_window, h2.data_frame_max)
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
        h2.parked_size -= size
        self.send_window -= size
        h2.send_window -= size
        h2.data_frames += 1
        done = not self.parked_size
        ends = done and self.sending == LAST and self.trailer_block is None
        h2.emit(b"".join((h2.pack_head(size << 8, END_STREAM if ends else 0, self.id), *pieces)))
        if done:
            self.wait = None
            h2.has_nothing_to_send(self)
            if self.sending == LAST:
                if ends:
                    self._end()
                else:
                    self._send_trailers()
        elif self.send_window <= 0:
            h2.wants_to_send(self)
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
        h2 = self.h2
        if h2.table_must_shrink:
            block = h2.shrink_table(block)
        h2.emit(header_frames(h2.pack_head, self.id, block, end_stream, h2.peer_frame_max))

    def _end(self) -> None:
        """END_STREAM is sent."""
        self.sending = ENDED
        self.h2.answered += 1
        if self.receiving != RECEIVING:
            self.h2.forget(self)
        else:
            # RFC 9113 8.1: "the server MAY request that the client abort transmission of a request without error by
            # sending a RST_STREAM with an error code of NO_ERROR after sending a complete response". Some clients
            # throw the response away when both come at once, so theirs is the first move.
            self.peer_ends_by = self.h2.loop.time() + (TUNNEL_END if self.is_tunnel else UPLOAD_END)
            self.h2.due(self.peer_ends_by)
            self._discard_upload()

    def _discard_upload(self) -> None:
        upload = self.upload
        if upload is not None and not self.is_tunnel:
            upload.discarded = True
            upload.early.clear()
            self.h2.held_pieces -= upload.pieces
            self.h2.give_back(upload.held)
            upload.held = upload.pieces = 0

    # Receiving: called by the connection

    def open_upload(self, expected: int | None, now: float) -> Upload:
        """A body follows the head."""
        self.receiving = RECEIVING
        self.upload = Upload(self.h2.upload_window, expected, now)
        return self.upload

    def extend_window(self, count: int) -> None:
        """The peer may send `count` bytes more; it is told when that is worth a frame."""
        upload = self.upload
        assert upload is not None
        upload.credit += count
        if upload.credit * 2 >= self.h2.settings.stream_window:
            self.h2.update_window(self.id, upload.credit)
            upload.window += upload.credit
            upload.credit = 0

    def postpone(self, seconds: float) -> None:
        """For so long the connection has not looked at what the peer sent."""
        if self.wait is not None:
            self.wait.since += seconds
        self.peer_ends_by += seconds
        upload = self.upload
        if upload is not None:
            upload.base += seconds
            upload.last += seconds

    def pause_upload(self, upload: Upload) -> None:
        """Applications let bodies wait, this one or others of the connection: the peer is not hurried for a while."""
        if not upload.paused_at:
            upload.paused_at = self.h2.loop.time()

    def unpause_upload(self, upload: Upload) -> None:
        """The peer has time to go on from now on, where the windows of stream and connection let it."""
        if not upload.paused_at or upload.held > self.h2.held_high or not self.h2.has_room:
            return
        now = self.h2.loop.time()
        upload.base += now - upload.paused_at
        upload.last = now
        upload.paused_at = 0.0
        config = self.h2.service.config
        self.h2.due(upload.due(config.request_timeout, config.min_body_rate))
