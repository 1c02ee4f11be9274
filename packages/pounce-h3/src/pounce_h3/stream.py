"""H3Stream: one request on a QUIC stream, and the `Stream` of its exchange.

Theory of operation. Two states, one for each direction:

    reading   HEAD ─HEADERS─▶ BODY ─HEADERS─▶ TRAILERS ─FIN─▶ DONE       BODY ─FIN─▶ DONE
              BODY ─tunnel()─▶ TUNNEL ─FIN─▶ DONE      any ─given up─▶ STOPPED (bytes are thrown away)
    writing   READY ─start, tunnel─▶ OPEN ─last piece─▶ SENT
              READY ─start of an answer without a body─▶ MUTED ─last piece─▶ SENT

MUTED is over for the peer; the application goes on, and is still to hear when the peer is gone.
Frames are cut here (RFC 9114 4.1): `_left` bytes of a DATA or unknown frame are still to come, or `_buffer` waits
until it holds `_need` bytes of a frame that must be complete, or `_unread` for the connection's next turn. `_blocked`
is a field section that waits for entries of the peer's table (RFC 9204 2.1.2), and what comes behind it waits in
`_buffer`. What is written goes to the connection, which decides which stream's bytes leave first.
"""

from math import inf
from time import monotonic
from typing import TYPE_CHECKING, cast

from pounce.contract.head import BODILESS, RequestHead, unreadable_head
from pounce.errors import BadRequest, ClientGone
from pounce.exchange.fields import checked_trailers, malformed
from pounce.exchange.priority import DEFAULT, Priority, parse_priority
from pounce_h3.codes import (
    H3_EXCESSIVE_LOAD,
    H3_FRAME_ERROR,
    H3_FRAME_UNEXPECTED,
    H3_INTERNAL_ERROR,
    H3_MESSAGE_ERROR,
    H3_NO_ERROR,
    H3_REQUEST_CANCELLED,
    H3_REQUEST_INCOMPLETE,
    H3_REQUEST_REJECTED,
)
from pounce_h3.engine import FieldSectionTooLarge, QuicError, StreamBlocked
from pounce_h3.frames import DATA, HEADERS, NOT_ON_REQUEST, frame, frame_head, pull

if TYPE_CHECKING:
    from pounce.plugin import Body, ConnectionInfo, Exchange
    from pounce.plugin import Headers as Fields
    from pounce_h3.connection import H3Connection

__all__ = ["SENT", "H3Stream"]

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
        "_head_size",
        "_left",
        "_need",
        "_received",
        "_skip",
        "_taken",
        "_unread",
        "_unread_at",
        "_unsent",
        "_waits_since",
        "connection",
        "deadline",
        "exchange",
        "given_up",
        "h3",
        "has_trailers",
        "head",
        "held_head",
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
        self.given_up = False
        """The peer has given up the request before it was answered."""
        self.held_head = 0
        """Bytes of the connection's `head_memory` that are this stream's."""
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
        self._blocked = b""
        self._head_size = 0
        self._ended = False
        self._early: list[bytes] = []
        self._received = 0
        self._client_waits = False
        self._body_deadline_base = 0.0
        self._unsent = 0
        """What `unsent()` was when the wait began that `write_deadline` ends."""
        self._taken: int | None = None
        """`H3Connection.taken()`, once it was looked at."""
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
            if self._blocked or (len(self._buffer) < self._need and not end):
                self._hold_head()
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
                self._section_received(data[payload:stop], stop == size)
                at = stop
                if self._blocked:
                    self._buffer += data[at:]
                    self._hold_head()
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
        self._hold_head()

    def _hold_head(self) -> bool:
        """Have what there is of field sections held against the connection; False when it is too much."""
        h3 = self.h3
        self._account()
        # What comes behind a blocked field section is not held back by the credit of its stream.
        if h3.head_memory <= h3.head_memory_max and not (self._blocked and len(self._buffer) > BLOCKED_MAX):
            return True
        h3.service.count("h3_head_memory", "h3: too much that belongs to heads of requests, resetting a stream")
        # RFC 9114 8.1: a request that was rejected may be sent again.
        self.fail(H3_REQUEST_REJECTED if self.head is None else H3_EXCESSIVE_LOAD)
        h3.count_reset()
        return False

    def _account(self) -> None:
        held = self._head_size + len(self._buffer) + len(self._blocked)
        self.h3.head_memory += held - self.held_head
        self.held_head = held

    def _section_received(self, section: bytes, last: bool) -> None:
        """A field section, behind which there is nothing more so far if it is the last; it may have to wait."""
        try:
            if self.reading == HEAD:
                self._head_received(section, last)
            else:
                self._trailers_received(section)
        except StreamBlocked:
            self._blocked = section
        except FieldSectionTooLarge as error:
            self._too_large(error.many)

    def unblock(self) -> None:
        """What the section that waits needs has arrived. Raises `QuicError`."""
        section, self._blocked = self._blocked, b""
        if not section:
            # Nothing is read any more.
            return
        rest = bytes(self._buffer)
        self._buffer.clear()
        try:
            self._section_received(section, not rest)
            if self.reading != STOPPED:
                self._read(rest, 0)
        except BadRequest as error:
            self._malformed(error)

    def _head_received(self, section: bytes, last: bool) -> None:
        started = monotonic() if self.h3.times_heads else 0.0
        try:
            (found, priority, size), path = self.h3.understand(self.id, section)
        except BadRequest as error:
            if error.status == 400:
                raise
            self._refuse(error)
            return
        ended = last and self._ended
        length = found.content_length
        if ended:
            if length:
                raise malformed("The body is shorter than Content-Length")
            length = 0
        head = RequestHead(
            found.method,
            found.target if path is None else path,
            found.headers.copy(),
            "3",
            found.scheme,
            found.upgrade,
            length,
            found.expect_continue and length != 0,
            relayed=found.relayed,
        )
        head.extensions = {"pounce.h3.stream_id": self.id, "pounce.h3.is_0rtt": self.h3.is_early}
        if started:
            head.extensions["pounce.parsed_in"] = monotonic() - started
        self._head_size = size if path is None else size + len(path) - len(found.target)
        if self._hold_head():
            self._open(head, priority)

    def _trailers_received(self, section: bytes) -> None:
        trailers = checked_trailers(self.h3.codec.decode(self.id, section)[0])
        self.reading = TRAILERS
        self._end_body(trailers)

    def _open(self, head: RequestHead, priority: Priority) -> None:
        h3 = self.h3
        self.head = head
        self.reading = BODY
        self.deadline = inf
        self.connection.share.left -= REQUEST_STEPS
        if head.content_length != 0:
            self._client_waits = head.expect_continue
            self._body_deadline_base = h3.loop.time() + RATE_GRACE
        # RFC 9218 7: the frame says all; what it leaves out is default, whatever the field said.
        self.priority = h3.priorities.pop(self.id, priority)
        h3.requests += 1
        if h3.is_early:
            h3.service.open_early(head, self)
        else:
            h3.service.open(head, self)

    def _malformed(self, error: BadRequest) -> None:
        self.h3.service.count(error.code, "h3: %s", error.message)
        self.fail(H3_MESSAGE_ERROR)
        # A peer that makes us give up its requests gives them up itself (CVE-2025-8671).
        self.h3.count_reset()

    def _refuse(self, error: BadRequest) -> None:
        """Answer what is no request that could be served, or no longer one."""
        if self.head is None:
            self.h3.service.refuse(unreadable_head("3", self.connection.scheme), self, error)
        else:
            self.exchange.stream_lost(error)
        self._stop_reading(H3_NO_ERROR)

    def _too_large(self, many: bool = False) -> None:
        if self._ended:
            # Nobody is asked to stop, but it is not read, or not to its end (RFC 9204 2.2.2.2).
            self.h3.codec.cancel(self.id)
        self._refuse(
            BadRequest(
                "Too many header fields" if many else "Header fields too large",
                status=431,
                code="POUNCE_PARSE_TOO_MANY_HEADERS" if many else "POUNCE_PARSE_HEADERS_TOO_LARGE",
            )
        )

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
        self.h3.codec.cancel(self.id)
        self._blocked = b""
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

    def break_off(self) -> None:
        """End the stream because of an error of ours, which it had while it was written."""
        self.fail(H3_INTERNAL_ERROR)

    def _abandon(self, code: int) -> None:
        self._drop_pending()
        self.writing = SENT
        self.writable = True
        self.h3.reset(self.id, code)
        self.h3.transmit_soon()

    def _stop_reading(self, code: int) -> None:
        if self.reading == DONE or self.reading == STOPPED:
            return
        self.reading = STOPPED
        self.deadline = inf
        if self._blocked or not self._ended:
            self.h3.codec.cancel(self.id)
            self.h3.transmit_soon()
        self._blocked = b""
        self._buffer.clear()
        self._early.clear()
        self._account()
        self._release()
        if not self._ended:
            self.h3.stop(self.id, code)

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
        """The peer had `write_timeout` to take what it has to."""
        service = self.h3.service
        unsent = self.unsent()
        if self._unsent - unsent >= service.least_taken or not self._is_held_up():
            self._wait_for_peer(unsent)
        else:
            service.count("write_timeout", "h3: peer takes too little, giving a request up")
            self.fail(H3_REQUEST_CANCELLED)

    def _is_held_up(self) -> bool:
        """Whether it is because of the peer that so little has left."""
        h3 = self.h3
        if not h3.quic.unsent(self.id):
            # Others have their turn.
            return False
        if not h3.quic.is_congested:
            # The peer gives no credit.
            return True
        before, self._taken = self._taken, h3.taken()
        return before is not None and self._taken - before < h3.service.least_taken

    def unsent(self) -> int:
        """Bytes written that have not left."""
        return self.pending_size + self.h3.unsent(self)

    def _wait_for_peer(self, unsent: int) -> None:
        self._unsent = unsent
        self.write_deadline = self.h3.loop.time() + self.h3.service.config.write_timeout
        self.h3.watch_write(self.write_deadline)

    # Stream: called by the exchange

    def start(self, status: int, headers: Fields, body: Body, more: bool) -> None:
        data = cast("bytes", body)
        has_body = status not in BODILESS and not (self.head and self.head.method == b"HEAD")
        section, priority = self.h3.codec.answer(status, headers, len(data) if has_body and not more else None)
        if priority is not None:
            # RFC 9218 8: the application knows better than the client.
            self.priority = parse_priority(priority, self.priority)
        encoded = frame_head(HEADERS, len(section)) + section
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
            fields = [(b":status", b"%d" % status), *headers]
            self._write([frame(HEADERS, self.h3.codec.encode(fields))], False)
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
            self._write([frame(HEADERS, self.h3.codec.encode(headers))] if headers else [], True)
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
            self.pending_size and self.h3.unsent(self) + self.pending_size > PENDING_HIGH
        ):
            self._pause()

    def _write(self, pieces: list[bytes], end: bool) -> None:
        self.h3.send(self, pieces, end)

    def _pause(self) -> None:
        self.writable = False
        self.h3.waiting.add(self)
        self._taken = None
        self._wait_for_peer(self.unsent())

    def _sent(self) -> None:
        """The answer is complete, as far as the wire is concerned."""
        self.writing = SENT
        self.h3.answered += 1
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
        if unsent > (0 if self.writing == SENT else PENDING_LOW):
            return
        self.h3.waiting.discard(self)
        self.writable = True
        self.write_deadline = inf
        exchange = self.exchange
        self.h3.stream_ended(self)
        if exchange is not None:
            exchange.resume_writing()

    def _drop_pending(self) -> None:
        self.pending.clear()
        self.pending_size = 0
        self.pending_end = False
        self.h3.forget_pending(self)
        self.write_deadline = inf

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
