"""H3Stream: one request on a QUIC stream, and the `Stream` of its exchange.

Theory of operation. Two states, one for each direction:

    reading   HEAD ─HEADERS─▶ BODY ─HEADERS─▶ TRAILERS ─FIN─▶ DONE       BODY ─FIN─▶ DONE
              BODY ─tunnel()─▶ TUNNEL ─FIN─▶ DONE      any ─given up─▶ STOPPED (bytes are thrown away)
    writing   READY ─start, tunnel─▶ OPEN ─last piece─▶ SENT
              READY ─start of an answer without a body─▶ MUTED ─last piece─▶ SENT

MUTED is over for the peer; the application goes on, and is still to hear when the peer is gone.
Frames are cut here (RFC 9114 4.1): `_left` bytes of a DATA or unknown frame are still to come, or `_buffer` waits
until it holds `_need` bytes of a frame that must be complete, or `_unread` for the connection's next turn. What is
written goes to the connection, which decides which stream's bytes leave first.
"""

from math import inf
from typing import TYPE_CHECKING, cast

from pounce.errors import BadRequest, ClientGone
from pounce.exchange.fields import CONNECTION_FIELDS, checked_trailers, malformed, request_head
from pounce.exchange.head import BODILESS
from pounce.exchange.priority import DEFAULT, priority_of
from pounce_h3.codes import (
    H3_EXCESSIVE_LOAD,
    H3_FRAME_ERROR,
    H3_FRAME_UNEXPECTED,
    H3_INTERNAL_ERROR,
    H3_MESSAGE_ERROR,
    H3_NO_ERROR,
    H3_REQUEST_CANCELLED,
    H3_REQUEST_INCOMPLETE,
)
from pounce_h3.engine import FieldSectionTooLarge, FieldSectionUnreadable, QuicError, StreamBlocked
from pounce_h3.frames import DATA, HEADERS, NOT_ON_REQUEST, frame, frame_head, pull

if TYPE_CHECKING:
    from pounce.plugin import Body, ConnectionInfo, Exchange, RequestHead
    from pounce.plugin import Headers as Fields
    from pounce_h3.connection import H3Connection

__all__ = ["H3Stream"]

PENDING_HIGH = 65536
"""Bytes that wait to be sent at which the exchange has to wait."""
PENDING_LOW = 16384
BLOCKED_MAX = 262_144
"""Bytes kept behind a field section that waits for the peer's table."""
RATE_GRACE = 5.0
"""Seconds before min_body_rate applies."""
REQUEST_STEPS = 4
"""What a request takes from its connection's share of a turn."""
FRAME_HEAD_MAX = 16
"""Bytes of a frame's type and length."""
SAFE = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"QUERY"))
"""Methods that ask for no change (RFC 9110 9.2.1)."""


# What the next frame is, and how far the answer is; see the diagram above. Numbers: `pounce.immortal` tells why.
HEAD, BODY, TRAILERS, DONE, TUNNEL, STOPPED = range(6)
READY, OPEN, MUTED, SENT = range(4)


class H3Stream:
    """RFC 9114 on one request stream; implements `Stream`."""

    __slots__ = (
        "_blocked",
        "_body_deadline_base",
        "_buffer",
        "_client_waits",
        "_early",
        "_ended",
        "_left",
        "_need",
        "_received",
        "_skip",
        "_unread",
        "_unread_at",
        "_unsent",
        "_waits_since",
        "connection",
        "deadline",
        "exchange",
        "h3",
        "has_trailers",
        "head",
        "id",
        "pending",
        "pending_end",
        "pending_size",
        "priority",
        "reading",
        "sends_files",
        "unconsumed",
        "writable",
        "write_deadline",
        "writing",
    )

    def __init__(self, h3: H3Connection, stream_id: int, connection: ConnectionInfo) -> None:
        self.h3 = h3
        self.id = stream_id
        self.connection = connection
        self.exchange: Exchange = cast("Exchange", None)
        self.head: RequestHead | None = None
        self.writable = True
        self.sends_files = False
        self.has_trailers = True
        self.reading = HEAD
        self.writing = READY
        self.priority = DEFAULT
        self.deadline = h3.loop.time() + h3.service.config.header_timeout
        self.write_deadline = inf
        self.unconsumed = 0
        """Bytes that the exchange has and the application has not taken."""
        self.pending: list[bytes | memoryview] = []
        """What waits to be handed to the engine."""
        self.pending_size = 0
        self.pending_end = False
        self._buffer = bytearray()
        self._unread = b""
        self._unread_at = 0
        self._need = 0
        self._left = 0
        self._skip = False
        self._blocked = False
        self._ended = False
        self._early: list[bytes] = []
        self._received = 0
        self._client_waits = False
        self._body_deadline_base = 0.0
        self._unsent = 0
        self._waits_since = 0.0

    # Reading

    def data_received(self, data: bytes, end: bool) -> None:
        """Bytes of the stream. Raises `QuicError` for what ends the connection."""
        if end:
            self._ended = True
        if self.reading == STOPPED:
            if end:
                self.h3.stream_ended(self)
            return
        if self._buffer or self._blocked:
            self._buffer += data
            if self._blocked:
                if len(self._buffer) > BLOCKED_MAX:
                    raise QuicError(H3_EXCESSIVE_LOAD, "too much behind a blocked field section")
                return
            if len(self._buffer) < self._need and not end:
                return
            data = bytes(self._buffer)
            self._buffer.clear()
        self._go_on(data, 0)

    def _go_on(self, data: bytes, at: int) -> None:
        try:
            self._read(data, at)
        except BadRequest as error:
            self._malformed(error)

    def _next_turn(self) -> None:
        """Read what was left when the share of the turn was used up. Raises `QuicError`."""
        data, self._unread = self._unread, b""
        if self.reading != STOPPED:
            self._go_on(data, self._unread_at)
        elif self._ended:
            self.h3.stream_ended(self)

    def _read(self, data: bytes, at: int) -> None:
        size = len(data)
        share = self.connection.share
        while at < size and self.reading != STOPPED:
            if self._left:
                count = min(self._left, size - at)
                self._left -= count
                if not self._skip:
                    self._body_received(data if count == size else data[at : at + count])
                at += count
                continue
            if at:
                share.left -= 1
                if share.left <= 0:
                    self._unread, self._unread_at = data, at
                    self.h3.read_later(self._next_turn)
                    return
            kind = pull(data, at)
            length = pull(data, kind[1]) if kind is not None else None
            if kind is None or length is None:
                self._keep(data, at, len(data) - at + 1)
                break
            payload = length[1]
            if kind[0] == DATA:
                if self.reading != BODY and self.reading != TUNNEL:
                    raise QuicError(H3_FRAME_UNEXPECTED, "DATA out of place")
                self._left, self._skip = length[0], False
                at = payload
            elif kind[0] == HEADERS:
                # RFC 9114 4.4: with CONNECT "only DATA frames are permitted" once the head is there.
                is_tunnel = self.head is not None and self.head.upgrade is not None
                if (self.reading != HEAD and self.reading != BODY) or is_tunnel:
                    raise QuicError(H3_FRAME_UNEXPECTED, "HEADERS out of place")
                if length[0] > self.h3.max_section:
                    self._too_large()
                    return
                stop = payload + length[0]
                if stop > size:
                    self._keep(data, at, stop - at)
                    break
                self._blocked = not self._section_received(data[payload:stop], stop == size)
                at = stop
                if self._blocked:
                    self._buffer += data[at:]
                    return
            elif kind[0] in NOT_ON_REQUEST:
                raise QuicError(H3_FRAME_UNEXPECTED, f"frame type {kind[0]:#x} on a request stream")
            else:
                # RFC 9114 9: unknown types are ignored.
                self._left, self._skip = length[0], True
                at = payload
        if self._ended and self.reading != STOPPED:
            self._end_received()
        elif self.reading == BODY:
            self._set_body_deadline()

    def _keep(self, data: bytes, at: int, need: int) -> None:
        self._buffer += data[at:]
        self._need = need

    def _section_received(self, section: bytes, last: bool) -> bool:
        """A field section; False when it waits for the peer's table."""
        try:
            fields = self.h3.decode(self.id, section)
        except StreamBlocked:
            return False
        except FieldSectionTooLarge:
            self._too_large()
            return True
        except FieldSectionUnreadable:
            if len(section) > self.h3.service.config.max_header_size:
                self._too_large()
                return True
            self._refuse(BadRequest("Header fields cannot be read", code="POUNCE_PARSE_BAD_HEADER"))
            return True
        self._fields_received(fields, last)
        return True

    def unblock(self, fields: Fields | None) -> None:
        """The section that waited has been decoded; None for one that is too large. Raises `QuicError`."""
        self._blocked = False
        if self.reading == STOPPED:
            return
        if fields is None:
            self._too_large()
            return
        rest = bytes(self._buffer)
        self._buffer.clear()
        try:
            self._fields_received(fields, not rest)
            self._read(rest, 0)
        except BadRequest as error:
            self._malformed(error)

    def _fields_received(self, fields: Fields, last: bool) -> None:
        h3 = self.h3
        config = h3.service.config
        size = 0
        for name, value in fields:
            size += len(name) + len(value)
        many = len(fields) > config.max_headers
        if many or size > config.max_header_size:
            self._refuse(
                BadRequest(
                    "Too many header fields" if many else "Header fields too large",
                    status=431,
                    code="POUNCE_PARSE_TOO_MANY_HEADERS" if many else "POUNCE_PARSE_HEADERS_TOO_LARGE",
                )
            )
        elif self.reading == BODY:
            trailers = checked_trailers(fields)
            self.reading = TRAILERS
            self._end_body(trailers)
        else:
            try:
                head = request_head(fields, "3", self.connection.scheme, h3.fields)
            except BadRequest as error:
                if error.status == 400:
                    raise
                self._refuse(error)
                return
            if last and self._ended:
                if head.content_length:
                    raise malformed("The body is shorter than Content-Length")
                head.content_length = 0
            if head.content_length == 0:
                head.expect_continue = False
            self._open(head)

    def _open(self, head: RequestHead) -> None:
        h3 = self.h3
        self.head = head
        self.reading = BODY
        self.deadline = inf
        self.connection.share.left -= REQUEST_STEPS
        if head.content_length != 0:
            self._client_waits = head.expect_continue
            self._body_deadline_base = h3.loop.time() + RATE_GRACE
        updated = h3.priorities.pop(self.id, None)
        self.priority = updated if updated is not None else priority_of(head.headers)
        head.extensions = {"pounce.h3.stream_id": self.id, "pounce.h3.is_0rtt": h3.is_early}
        if h3.is_early and head.method not in SAFE:
            # RFC 8470 5.2: what is not safe may be done twice. The client sends it again when it is connected.
            h3.service.refuse(head, self, TOO_EARLY)
        elif head.upgrade is not None and head.upgrade not in h3.service.upgrades and head.upgrade != b"websocket":
            h3.service.refuse(head, self, UNKNOWN_PROTOCOL)
        else:
            h3.requests += 1
            h3.service.open(head, self)

    def _malformed(self, error: BadRequest) -> None:
        self.h3.service.count(error.code, "h3: %s", error.message)
        self.fail(H3_MESSAGE_ERROR)
        # A peer that makes us give up its requests gives them up itself (CVE-2025-8671).
        self.h3.count_reset()

    def _refuse(self, error: BadRequest) -> None:
        """Answer what is no request that could be served, or no longer one."""
        if self.head is None:
            self.h3.service.refuse(None, self, error)
        else:
            self.exchange.stream_lost(error)
        self._stop_reading(H3_NO_ERROR)

    def _too_large(self) -> None:
        if self._ended:
            self.h3.cancel_section(self.id)
        self._refuse(BadRequest("Header fields too large", status=431, code="POUNCE_PARSE_HEADERS_TOO_LARGE"))

    def _body_received(self, data: bytes) -> None:
        self._received += len(data)
        head = self.head
        assert head is not None
        self._client_waits = False
        if self.reading == TUNNEL:
            self._hold(data)
            return
        if head.upgrade is not None:
            # RFC 8441 5: bytes of the tunnel; they wait until there is one.
            self._early.append(data)
            self._hold(data)
            return
        if head.content_length is not None and self._received > head.content_length:
            raise malformed("The body is longer than Content-Length")
        self._hold(data)

    def _hold(self, data: bytes) -> None:
        if not self.unconsumed:
            self._waits_since = self.h3.loop.time()
        self.unconsumed += len(data)
        self.h3.hold(len(data))
        if self.reading == TUNNEL or self.head is None or self.head.upgrade is None:
            self.exchange.data_received(data)

    def _end_received(self) -> None:
        if self._buffer or self._left:
            raise QuicError(H3_FRAME_ERROR, "the stream ends inside a frame")
        reading = self.reading
        if reading == HEAD:
            self.fail(H3_REQUEST_INCOMPLETE)
        elif reading == BODY:
            self._end_body(None)
        elif reading == TUNNEL:
            self.reading = DONE
            self.exchange.eof_received()
        else:
            self.reading = DONE
        self.h3.stream_ended(self)

    def _end_body(self, trailers: Fields | None) -> None:
        head = self.head
        assert head is not None
        if head.content_length is not None and self._received != head.content_length:
            raise malformed("The body is shorter than Content-Length")
        self.deadline = inf
        if trailers is None:
            self.reading = DONE
        if head.content_length != 0 or head.upgrade is not None:
            self.exchange.eof_received(trailers)

    def reset_received(self) -> None:
        """The peer has given up its half, and with it the request (RFC 9114 4.1.1)."""
        self._ended = True
        if self.reading == DONE or self.reading == TRAILERS or self.reading == STOPPED:
            # The request is complete, or was refused: its answer may still be wanted.
            self.h3.stream_ended(self)
            return
        if not self._blocked:
            self.h3.cancel_section(self.id)
        self._stop_reading(H3_REQUEST_CANCELLED)
        self.lose()
        if self.writing != SENT:
            self._abandon(H3_REQUEST_CANCELLED)
        self.h3.stream_ended(self)

    def stop_received(self) -> None:
        """The peer wants no more of the answer."""
        self._drop_pending()
        self.writing = SENT
        self.writable = True
        self.lose()
        self._stop_reading(H3_REQUEST_CANCELLED)
        self.h3.stream_ended(self)

    def lose(self) -> None:
        """The request is over before its end."""
        exchange, self.exchange = self.exchange, cast("Exchange", None)
        self.deadline = self.write_deadline = inf
        self._release()
        if exchange is not None:
            exchange.stream_lost(ClientGone("the client gave up the request"))

    def fail(self, code: int) -> None:
        """End the stream in both directions because of an error."""
        self.lose()
        self._abandon(code)
        self._stop_reading(code)
        self.h3.stream_ended(self)

    def _abandon(self, code: int) -> None:
        self._drop_pending()
        self.writing = SENT
        self.writable = True
        self.h3.quic.reset(self.id, code)
        self.h3.transmit_soon()

    def _stop_reading(self, code: int) -> None:
        if self.reading == DONE or self.reading == STOPPED:
            return
        self.reading = STOPPED
        self.deadline = inf
        self._buffer.clear()
        self._early.clear()
        self._release()
        if not self._ended:
            # A section that is blocked will be decoded, and acknowledged, but nobody gets it.
            if not self._blocked:
                self.h3.cancel_section(self.id)
            self.h3.quic.stop(self.id, code)
            self.h3.transmit_soon()

    def _release(self) -> None:
        """Nobody will take what is here."""
        count, self.unconsumed = self.unconsumed, 0
        if count:
            self.h3.release(count)

    # Deadlines

    def _set_body_deadline(self) -> None:
        """The next piece is due within request_timeout, the whole at no less than min_body_rate."""
        if self._client_waits or self.unconsumed or (self.head is not None and self.head.upgrade is not None):
            self.deadline = inf
            return
        h3 = self.h3
        config = h3.service.config
        deadline = h3.loop.time() + config.request_timeout
        if config.min_body_rate:
            deadline = min(deadline, self._body_deadline_base + self._received / config.min_body_rate)
        self.deadline = deadline
        h3.watch(deadline)

    def postpone(self, seconds: float) -> None:
        """For so long the connection took nothing from its peer."""
        if self.deadline != inf:
            self.deadline += seconds
            self._body_deadline_base += seconds

    def deadline_passed(self) -> None:
        """The head or the next piece of the body did not come in time."""
        self.deadline = inf
        if self.reading == HEAD:
            where, code, setting = "head", "POUNCE_TIMEOUT_REQUEST_HEAD", "header_timeout"
        else:
            where, code, setting = "body", "POUNCE_TIMEOUT_REQUEST_BODY", "request_timeout and min_body_rate"
        self._refuse(
            BadRequest(f"The request {where} did not arrive in time", status=408, code=code, hint=f"See {setting}.")
        )

    def write_deadline_passed(self) -> None:
        """The peer had `write_timeout` to take a byte."""
        h3 = self.h3
        unsent = self.unsent()
        if unsent < self._unsent:
            self._wait_for_peer(unsent)
        else:
            h3.service.count("write_timeout", "h3: peer took nothing for write_timeout")
            self.fail(H3_REQUEST_CANCELLED)

    def unsent(self) -> int:
        """Bytes written that have not left."""
        return self.pending_size + self.h3.quic.unsent(self.id)

    def _wait_for_peer(self, unsent: int) -> None:
        self._unsent = unsent
        self.write_deadline = self.h3.loop.time() + self.h3.service.config.write_timeout
        self.h3.watch_write(self.write_deadline)

    # Stream: called by the exchange

    def start(self, status: int, headers: Fields, body: Body, more: bool) -> None:
        data = cast("bytes", body)
        fields = [(b":status", b"%d" % status)]
        has_length = False
        for field in headers:
            name = field[0]
            if name == b"content-length":
                has_length = True
            elif name in CONNECTION_FIELDS:
                continue
            fields.append(field)
        has_body = status not in BODILESS and not (self.head and self.head.method == b"HEAD")
        if not more and not has_length and has_body:
            fields.append((b"content-length", b"%d" % len(data)))
        encoded = frame(HEADERS, self.h3.encode(self.id, fields))
        if more and not has_body:
            self.writing = MUTED
            self._write([encoded], True)
        else:
            self.writing = OPEN
            self._write_body(encoded, data, more)

    def write(self, body: Body, more: bool) -> None:
        if self.writing == OPEN:
            self._write_body(b"", cast("bytes", body), more)
        elif self.writing == MUTED and not more:
            self._sent()

    def inform(self, status: int, headers: Fields) -> None:
        if status == 100 and not self._client_waits:
            return
        if self.writing == READY:
            fields = [(b":status", b"%d" % status), *(field for field in headers if field[0] not in CONNECTION_FIELDS)]
            self._write([frame(HEADERS, self.h3.encode(self.id, fields))], False)
        if status == 100:
            self._client_waits = False
            self._body_deadline_base = self.h3.loop.time() + RATE_GRACE
            self._set_body_deadline()

    def tunnel(self, headers: Fields) -> None:
        # RFC 8441 5: "a 2xx response (typically 200)" is what 101 is in HTTP/1.1.
        self.start(200, headers, b"", True)
        if self.reading == BODY:
            self.reading = TUNNEL
        self.deadline = inf
        if self._early:
            # Rule 2: not from inside a Stream method.
            self.h3.loop.call_soon(self._tunnel_begins)

    def _tunnel_begins(self) -> None:
        early, self._early = self._early, []
        for data in early:
            if self.exchange is not None:
                self.exchange.data_received(data)

    def trailers(self, headers: Fields) -> None:
        if self.writing == OPEN:
            fields = [field for field in headers if field[0] not in CONNECTION_FIELDS]
            self._write([frame(HEADERS, self.h3.encode(self.id, fields))] if fields else [], True)
            self._sent()

    def consumed(self, count: int) -> None:
        count = min(count, self.unconsumed)
        self.unconsumed -= count
        self.h3.release(count)
        if not self.unconsumed and self.reading == BODY:
            # Time during which the application lets the body wait does not count.
            self._body_deadline_base += self.h3.loop.time() - self._waits_since
            self._set_body_deadline()

    def reset(self) -> None:
        if self.writing == MUTED:
            # The peer has its whole answer.
            self._sent()
            return
        # What was written before leaves first, so that the peer sees how far the answer came.
        self._drop_pending()
        self.writing = SENT
        self.writable = True
        self.h3.reset_soon(self.id, H3_INTERNAL_ERROR)
        self._stop_reading(H3_NO_ERROR)
        self.h3.stream_ended(self)

    # Writing

    def _write_body(self, head: bytes, body: bytes, more: bool) -> None:
        if not body:
            pieces: list[bytes] = [head] if head else []
        elif len(body) < PENDING_LOW:
            pieces = [head + frame_head(DATA, len(body)) + body]
        else:
            pieces = [head + frame_head(DATA, len(body)), body]
        self._write(pieces, not more)
        if not more:
            self._sent()
        elif self.pending_size > PENDING_HIGH or (
            self.pending_size and self.h3.quic.unsent(self.id) + self.pending_size > PENDING_HIGH
        ):
            self._pause()

    def _write(self, pieces: list[bytes], end: bool) -> None:
        self.h3.send(self, pieces, end)

    def _pause(self) -> None:
        self.writable = False
        self.h3.waiting.add(self)
        self._wait_for_peer(self.unsent())

    def _sent(self) -> None:
        """The answer is complete, as far as the wire is concerned."""
        self.writing = SENT
        if self.pending_size:
            self._pause()
        if self.reading != DONE:
            # RFC 9114 4.1: a server that needs no more of the request asks for its end with H3_NO_ERROR.
            if self.reading == TRAILERS:
                self.reading = DONE
            else:
                self._stop_reading(H3_NO_ERROR)
        self.h3.stream_ended(self)

    def bytes_left(self) -> None:
        """Some of what was waiting has left: go on, if it was enough."""
        unsent = self.unsent()
        if self.writing == SENT:
            if unsent:
                self._wait_for_progress(unsent)
                return
        elif unsent > PENDING_LOW:
            self._wait_for_progress(unsent)
            return
        self.h3.waiting.discard(self)
        self.writable = True
        self.write_deadline = inf
        exchange = self.exchange
        self.h3.stream_ended(self)
        if exchange is not None:
            exchange.resume_writing()

    def _wait_for_progress(self, unsent: int) -> None:
        if unsent < self._unsent:
            self._wait_for_peer(unsent)

    def _drop_pending(self) -> None:
        self.pending.clear()
        self.pending_size = 0
        self.pending_end = False
        self.h3.forget_pending(self)
        self.write_deadline = inf

    @property
    def blocked(self) -> bool:
        """A field section waits for the peer's table."""
        return self._blocked

    @property
    def is_answered(self) -> bool:
        """The answer has been handed over to its last byte, and nothing more is read."""
        return (
            self.writing == SENT
            and not self.pending_size
            and self.writable
            and (self.reading == DONE or self.reading == STOPPED)
        )

    @property
    def is_over(self) -> bool:
        """Answered, and the peer has ended its half: nothing more will come of this stream."""
        return self._ended and self.is_answered


TOO_EARLY = BadRequest(
    "The request may be a replay, and its method is not safe", status=425, code="POUNCE_H3_TOO_EARLY"
)
UNKNOWN_PROTOCOL = BadRequest(
    "The protocol of an extended CONNECT is not known", status=501, code="POUNCE_H3_UNKNOWN_PROTOCOL"
)
