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
`_buffer`. What is written goes to the output, which decides which stream's bytes leave first.

A stream is in its connection's table (`streams.py`) until both halves are over. What only some requests have is an
object of its own, made when it is needed: a body (`windows.Upload`), a wait for the peer (`output.Wait`). The halves
are one object, and this file is one thing, because each ends the other, and most requests are over with a few calls of
both: another object for each of them would cost more than it would tell.
"""

from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Protocol, cast

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
from pounce_h3.frames import DATA, HEADERS, NOT_ON_REQUEST, WT_STREAM, frame, frame_head, pull
from pounce_h3.heads import SCHEME
from pounce_h3.windows import Upload

if TYPE_CHECKING:
    from collections.abc import Callable

    from pounce.plugin import Body, ConnectionInfo, Exchange, Service
    from pounce.plugin import Headers as Fields
    from pounce_h3.heads import Heads
    from pounce_h3.output import Output, Wait
    from pounce_h3.windows import Windows

__all__ = ["HEAD", "NO_EXCHANGE", "SENT", "H3Stream", "Table"]

PENDING_HIGH = 65536
"""Bytes that wait to be sent at which the exchange has to wait."""
PENDING_LOW = 16384
BLOCKED_MAX = 262_144
"""Bytes kept behind a field section that waits for the peer's table."""
NOTHING = frame(DATA, b"")
"""What an answer ends with whose end comes after its last byte: qh3 does not send an end again that was by itself, when
it is lost together with bytes before it."""
REQUEST_STEPS = 4
"""What a request takes from its connection's share of a turn."""


# What the next frame is, and how far the answer is; see the diagram above. Numbers: `pounce.immortal` tells why.
HEAD, BODY, TRAILERS, DONE, TUNNEL, STOPPED = range(6)
READY, OPEN, MUTED, SENT = range(4)

NO_EXCHANGE = cast("Exchange", None)


class Table(Protocol):
    """What a stream needs of its connection's table, and finds there."""

    service: Service
    info: ConnectionInfo
    output: Output
    heads: Heads
    windows: Windows
    priorities: dict[int, Priority]
    """Of requests that have not arrived yet."""
    requests: int
    answered: int
    """Requests so far, and those that were answered since one was given up."""
    is_early: bool
    """What arrives may be a replay."""
    unread: list[Callable[[], None]]
    """What goes on reading in the connection's next turn."""

    @property
    def sessions(self) -> object | None:
        """Of WebTransport, where that is on."""

    def ended(self, stream: H3Stream) -> None:
        """A direction of a stream is done with."""

    def count_reset(self) -> None:
        """A request was made malformed. Raises `QuicError`."""

    def give_to_session(self, stream: H3Stream, number: int, data: bytes, end: bool) -> None:
        """It is no request, but belongs to a session. Raises `QuicError`."""


class H3Stream:
    """RFC 9114 on one request stream; implements `Stream`."""

    __slots__ = (
        "_blocked",
        "_buffer",
        "_ended",
        "_head_size",
        "_left",
        "_need",
        "_skip",
        "_unread",
        "_unread_at",
        "connection",
        "deadline",
        "exchange",
        "given_up",
        "head",
        "heads",
        "held_head",
        "id",
        "output",
        "pending",
        "pending_end",
        "pending_size",
        "priority",
        "reading",
        "table",
        "upload",
        "wait",
        "writable",
        "writing",
    )

    sends_files = False
    has_trailers = True

    def __init__(self, table: Table, stream_id: int) -> None:
        self.table = table
        self.output = table.output
        self.heads = table.heads
        self.id = stream_id
        self.connection = table.info
        self.exchange = NO_EXCHANGE
        self.head: RequestHead | None = None
        self.writable = True
        self.reading = HEAD
        self.writing = READY
        self.priority = DEFAULT
        windows = table.windows
        self.deadline = windows.time() + windows.config.header_timeout
        self.upload: Upload | None = None
        """Its body, where it has one."""
        self.wait: Wait | None = None
        """While the peer has to take something."""
        self.given_up = False
        """The peer has given up the request before it was answered."""
        self.held_head = 0
        """Bytes of the connection's `Heads.memory` that are this stream's."""
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

    # Reading

    def data_received(self, data: bytes, end: bool) -> None:
        """Bytes of the stream. Raises `QuicError` for what ends the connection."""
        if end:
            self._ended = True
        if self.reading == STOPPED:
            if end:
                self.table.ended(self)
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
            self.table.ended(self)

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
                    self.table.unread.append(self._next_turn)
                    return
            kind, start = data[at], at + 1
            if kind >= 0x40 and (long := pull(data, at)) is not None:
                kind, start = long
            # The type of a frame that is not all there has no length behind it either.
            length = pull(data, start) if kind < 0x40 or start > at + 1 else None
            if length is None:
                self._keep(data, at, len(data) - at + 1)
                break
            payload = length[1]
            if kind == DATA:
                if self.reading != BODY and self.reading != TUNNEL:
                    raise QuicError(H3_FRAME_UNEXPECTED, "DATA out of place")
                self._left, self._skip = length[0], False
                at = payload
            elif kind == HEADERS:
                # RFC 9114 4.4: with CONNECT "only DATA frames are permitted" once the head is there.
                is_tunnel = self.head is not None and self.head.upgrade is not None
                if (self.reading != HEAD and self.reading != BODY) or is_tunnel:
                    raise QuicError(H3_FRAME_UNEXPECTED, "HEADERS out of place")
                if length[0] > self.heads.section_max:
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
            elif kind in NOT_ON_REQUEST:
                raise QuicError(H3_FRAME_UNEXPECTED, f"frame type {kind:#x} on a request stream")
            elif kind == WT_STREAM and self.table.sessions is not None:
                # draft-ietf-webtrans-http3 4.3: anywhere else "MUST be treated as a connection error".
                if self.reading != HEAD or self._skip:
                    raise QuicError(H3_FRAME_ERROR, "a session's stream that has begun as something else")
                self.reading = STOPPED
                self.deadline = inf
                self.table.give_to_session(self, length[0], data[payload:], self._ended)
                return
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
        heads = self.heads
        self._account()
        # What comes behind a blocked field section is not held back by the credit of its stream.
        if heads.memory <= heads.memory_max and not (self._blocked and len(self._buffer) > BLOCKED_MAX):
            return True
        table = self.table
        table.service.count("h3_head_memory", "h3: too much that belongs to heads of requests, resetting a stream")
        # RFC 9114 8.1: a request that was rejected may be sent again.
        self.fail(H3_REQUEST_REJECTED if self.head is None else H3_EXCESSIVE_LOAD)
        table.count_reset()
        return False

    def _account(self) -> None:
        held = self._head_size + len(self._buffer) + len(self._blocked)
        self.heads.memory += held - self.held_head
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
        started = monotonic() if self.heads.are_timed else 0.0
        try:
            (found, priority, size), path = self.heads.understand(self.id, section)
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
        head.extensions = {"pounce.h3.stream_id": self.id, "pounce.h3.is_0rtt": self.table.is_early}
        if started:
            head.extensions["pounce.parsed_in"] = monotonic() - started
        self._head_size = size if path is None else size + len(path) - len(found.target)
        if self._hold_head():
            self._open(head, priority, ended)

    def _trailers_received(self, section: bytes) -> None:
        trailers = checked_trailers(self.heads.codec.decode(self.id, section)[0])
        self.reading = TRAILERS
        self._end_body(trailers)

    def _open(self, head: RequestHead, priority: Priority, ended: bool) -> None:
        table = self.table
        self.head = head
        self.deadline = inf
        self.connection.share.left -= REQUEST_STEPS
        if not ended:
            self.reading = BODY
            self.upload = Upload(table.windows, head)
        else:
            # A tunnel has yet to begin.
            self.reading = DONE if head.upgrade is None else BODY
        # RFC 9218 7: the frame says all; what it leaves out is default, whatever the field said.
        self.priority = table.priorities.pop(self.id, priority)
        table.requests += 1
        if table.is_early:
            table.service.open_early(head, self)
        else:
            table.service.open(head, self)

    def _malformed(self, error: BadRequest) -> None:
        self.table.service.count(error.code, "h3: %s", error.message)
        self.fail(H3_MESSAGE_ERROR)
        # A peer that makes us give up its requests gives them up itself (CVE-2025-8671).
        self.table.count_reset()

    def _refuse(self, error: BadRequest) -> None:
        """Answer what is no request that could be served, or no longer one."""
        if self.head is None:
            self.table.service.refuse(unreadable_head("3", SCHEME), self, error)
        else:
            self.exchange.stream_lost(error)
        self._stop_reading(H3_NO_ERROR)

    def _too_large(self, many: bool = False) -> None:
        if self._ended:
            # Nobody is asked to stop, but it is not read, or not to its end (RFC 9204 2.2.2.2).
            self.heads.codec.cancel(self.id)
        self._refuse(
            BadRequest(
                "Too many header fields" if many else "Header fields too large",
                status=431,
                code="POUNCE_PARSE_TOO_MANY_HEADERS" if many else "POUNCE_PARSE_HEADERS_TOO_LARGE",
            )
        )

    def _body_received(self, data: bytes) -> None:
        upload = self.upload
        # Nothing follows a head that was the end of its stream.
        assert upload is not None
        upload.add(data)
        if upload.is_tunnel and (self.reading != TUNNEL or upload.early):
            upload.early.append(data)
        else:
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
            if self.upload is not None and self.upload.early:
                self._tunnel_begins(self.upload)
            if self.exchange is not None:
                self.exchange.eof_received()
        else:
            self.reading = DONE
        self.table.ended(self)

    def _end_body(self, trailers: Fields | None) -> None:
        head = self.head
        assert head is not None
        upload = self.upload
        if upload is not None and head.content_length is not None and upload.received != head.content_length:
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
            self.table.ended(self)
            return
        self.heads.codec.cancel(self.id)
        self._blocked = b""
        self._stop_reading(H3_REQUEST_CANCELLED)
        self.lose()
        if self.writing != SENT:
            self._abandon(H3_REQUEST_CANCELLED)
        self.table.ended(self)

    def stop_received(self) -> None:
        """The peer wants no more of the answer."""
        self._drop_pending()
        self.writing = SENT
        self.writable = True
        self.lose()
        self._stop_reading(H3_REQUEST_CANCELLED)
        self.table.ended(self)

    def lose(self) -> None:
        """The request is over before its end."""
        exchange, self.exchange = self.exchange, NO_EXCHANGE
        self.deadline = inf
        self.wait = None
        if self.upload is not None:
            self.upload.discard()
        if exchange is not None:
            exchange.stream_lost(ClientGone("the client gave up the request"))

    def fail(self, code: int) -> None:
        """End the stream in both directions because of an error."""
        self.lose()
        self._abandon(code)
        self._stop_reading(code)
        self.table.ended(self)

    def break_off(self) -> None:
        """End the stream because of an error of ours, which it had while it was written."""
        self.fail(H3_INTERNAL_ERROR)

    def _abandon(self, code: int) -> None:
        self._drop_pending()
        self.writing = SENT
        self.writable = True
        self.output.reset(self.id, code)
        self.output.soon()

    def _stop_reading(self, code: int) -> None:
        if self.reading == DONE or self.reading == STOPPED:
            return
        self.reading = STOPPED
        self.deadline = inf
        if self._blocked or not self._ended:
            self.heads.codec.cancel(self.id)
            self.output.soon()
        if self._blocked or self._buffer:
            self._blocked = b""
            self._buffer.clear()
            self._account()
        if self.upload is not None:
            self.upload.early.clear()
            self.upload.discard()
        if not self._ended:
            self.output.stop(self.id, code)

    # Deadlines

    def _set_body_deadline(self) -> None:
        if self.upload is not None:
            self.deadline = due = self.upload.due()
            if due != inf:
                self.output.watch(due)

    def postpone(self, seconds: float) -> None:
        """For so long the connection took nothing from its peer."""
        if self.deadline != inf:
            self.deadline += seconds
            if self.upload is not None:
                self.upload.postpone(seconds)

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

    def unsent(self) -> int:
        """Bytes written that have not left."""
        return self.pending_size + self.output.unsent(self)

    # Stream: called by the exchange

    def start(self, status: int, headers: Fields, body: Body, more: bool) -> None:
        data = cast("bytes", body)
        has_body = status not in BODILESS and not (self.head and self.head.method == b"HEAD")
        section, priority = self.heads.codec.answer(status, headers, len(data) if has_body and not more else None)
        if priority is not None:
            # RFC 9218 8: the application knows better than the client.
            self.priority = parse_priority(priority, self.priority)
        encoded = frame_head(HEADERS, len(section)) + section
        if more and not has_body:
            self.writing = MUTED
            self.output.send(self, [encoded], True)
        else:
            self.writing = OPEN
            self._write_body(encoded, data, more)

    def write(self, body: Body, more: bool) -> None:
        if self.writing == OPEN:
            self._write_body(b"", cast("bytes", body), more)
        elif self.writing == MUTED and not more:
            self._sent()

    def inform(self, status: int, headers: Fields) -> None:
        upload = self.upload
        if status == 100 and not (upload is not None and upload.client_waits):
            return
        if self.writing == READY:
            fields = [(b":status", b"%d" % status), *headers]
            self.output.send(self, [frame(HEADERS, self.heads.codec.encode(fields))], False)
        if status == 100 and upload is not None:
            upload.asked_for()
            self._set_body_deadline()

    def tunnel(self, headers: Fields) -> None:
        # RFC 8441 5: "a 2xx response (typically 200)" is what 101 is in HTTP/1.1.
        self.start(200, headers, b"", True)
        if self.reading == BODY:
            self.reading = TUNNEL
        self.deadline = inf
        if self.upload is not None and self.upload.early:
            # Rule 2: not from inside a Stream method.
            self.output.loop.call_soon(self._tunnel_begins, self.upload)

    def _tunnel_begins(self, upload: Upload) -> None:
        early, upload.early = upload.early, []
        for data in early:
            if self.exchange is not None:
                self.exchange.data_received(data)

    def trailers(self, headers: Fields) -> None:
        if self.writing == OPEN:
            last = frame(HEADERS, self.heads.codec.encode(headers)) if headers else NOTHING
            self.output.send(self, [last], True)
            self._sent()

    def consumed(self, count: int) -> None:
        upload = self.upload
        if upload is not None and upload.consumed(count) and self.reading == BODY:
            upload.go_on()
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
        self.output.reset_soon(self.id, H3_INTERNAL_ERROR)
        self._stop_reading(H3_NO_ERROR)
        self.table.ended(self)

    # Writing

    def _write_body(self, head: bytes, body: bytes, more: bool) -> None:
        if not body:
            pieces: list[bytes] = [head] if head else [] if more else [NOTHING]
        elif len(body) < PENDING_LOW:
            pieces = [head + frame_head(DATA, len(body)) + body]
        else:
            pieces = [head + frame_head(DATA, len(body)), body]
        self.output.send(self, pieces, not more)
        if not more:
            self._sent()
        elif self.pending_size > PENDING_HIGH or (
            self.pending_size and self.output.unsent(self) + self.pending_size > PENDING_HIGH
        ):
            self._pause()

    def _pause(self) -> None:
        self.writable = False
        self.output.wait(self, self.unsent())

    def _sent(self) -> None:
        """The answer is complete, as far as the wire is concerned."""
        self.writing = SENT
        self.table.answered += 1
        if self.pending_size:
            self._pause()
        if self.reading != DONE:
            # RFC 9114 4.1: a server that needs no more of the request asks for its end with H3_NO_ERROR.
            if self.reading == TRAILERS:
                self.reading = DONE
            else:
                self._stop_reading(H3_NO_ERROR)
        self.table.ended(self)

    def bytes_left(self) -> None:
        """Some of what was waiting has left: go on, if it was enough."""
        unsent = self.unsent()
        if unsent > (0 if self.writing == SENT else PENDING_LOW):
            return
        self.output.waiting.discard(self)
        self.writable = True
        self.wait = None
        exchange = self.exchange
        self.table.ended(self)
        if exchange is not None:
            exchange.resume_writing()

    def _drop_pending(self) -> None:
        self.pending.clear()
        self.pending_size = 0
        self.pending_end = False
        self.output.forget(self)
        self.wait = None

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
    def may_be_accepted(self) -> bool:
        """It may still turn out to open something."""
        return self.reading == HEAD or (
            self.head is not None and self.head.upgrade is not None and self.writing == READY
        )

    @property
    def is_over(self) -> bool:
        """Answered, and the peer has ended its half: nothing more will come of this stream."""
        return self._ended and self.is_answered
