"""H1Connection: one HTTP/1.1 connection, and the Stream of the request that is being served on it.

Theory of operation. Requests of a connection are served one after the other, so the connection is its own Stream.
Two states describe it, one for each direction:

    reading   IDLE ─first byte─▶ HEAD ─head─▶ BODY ─end of body─▶ DONE ─next request─▶ IDLE
              BODY ─answered before its end─▶ DISCARD ─end of body─▶ DONE
              any ─upgrade─▶ TUNNEL          any ─closing─▶ CLOSED (bytes are thrown away)
    writing   READY ─start─▶ OPEN ─last piece─▶ SENT ─everything has left─▶ READY

A request is over when reading == DONE and writing == SENT with nothing left to flush; only then is the next head
asked of the parser, in a loop, so that pipelining neither recurses nor reorders. Bytes that arrive earlier stay in
the parser, and above a bound in the socket.

The loop ends when the connection's share of the turn is used up: by requests that came together with the one before,
and by pieces of bodies. A client that sends one request after the other takes nothing from it.

It is long and one thing: what is read and what is written stop and start one another, and each request passes through
all of it, where one more call or object would cost as much as the work. What decides framing and fields is elsewhere
in `h1/`, and what every wire needs in `net/connection.py`.
"""

import asyncio
import sys
from collections.abc import Callable
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, cast

from pounce.contract.head import AnswerFields, ExtendedFields, Headers, RequestHead
from pounce.contract.parser import EndOfBody
from pounce.contract.stream import Body, Exchange, FileRange
from pounce.contract.turns import STEPS
from pounce.errors import BadRequest, ClientGone
from pounce.h1.encode import LAST_CHUNK, AnswerHead, chunk_head, encode_fields, encode_head, status_line
from pounce.h1.framing import ADD_LENGTH, CHUNKED, CLOSE, LENGTH, NONE, answer_framing
from pounce.net.body_connection import BUFFER_HIGH, BUFFER_LOW, RATE_GRACE, BodyConnection
from pounce.net.connection import ENDED, LONG_READ, RECV_MAX, Connection, WireFailed
from pounce.net.linger import LINGER_TIMEOUT

if TYPE_CHECKING:
    from pounce.contract.wire import Service
    from pounce.plugin import Parser

__all__ = ["H1Connection"]

DISCARD_MAX = 262144
"""Bytes of an unwanted body that are read so that the connection can be used again."""
IDLE_LINGER = 0.5
"""Seconds that bytes are read after an idle connection was ended. Nothing is owed to its peer but an end in good order,
should a request have crossed with it."""
DRAIN_GRACE = 1.0
"""Seconds a connection on which no request has begun may still bring one during a drain."""
COPY_MAX = 4096
"""Bytes of a body that are rather copied behind their head than written as a piece of their own."""
FILE_BLOCK = 1_048_576
"""Bytes of a file that are sent between two looks at the write deadline."""

# What is taken from the share of a turn.
REQUEST_STEPS = 16
"""For a request that was pipelined."""
PIECE_STEPS = 8
"""For what the parser makes of a body at a time."""


# What the next bytes are, and how far the answer is; see the diagram above. Numbers: `immortal` tells why not Enums.
IDLE, HEAD, BODY, DISCARD, DONE, TUNNEL, CLOSED = range(7)
READY, OPEN, SENT = range(3)


def first_event(parser: Parser, data: bytes) -> RequestHead | bytes | EndOfBody | None:
    """What a parser has where it need not have by itself."""
    parser.receive_data(data)
    return parser.next_event()


class H1Connection(BodyConnection, guarded=("eof_received",)):
    """RFC 9112 on one connection; implements `Stream` for the request being served."""

    __slots__ = (
        "_client_waits",
        "_file",
        "_first_event",
        "_follows_file",
        "_framing",
        "_held_back",
        "_idle_timeout",
        "_keep_alive",
        "_most_requests",
        "_scheme",
        "_take_body",
        "exchange",
        "has_trailers",
        "head",
        "parser",
        "reading",
        "requests",
        "sends_files",
        "writing",
    )

    def __init__(self, service: Service) -> None:
        # `super()` would look for each of them anew.
        BodyConnection.__init__(self, service, "h1")
        self.parser: Parser = service.create_parser()  # type: ignore[misc] # whoever has connections has one
        self._take_body: Callable[[], bytes | None] | None = getattr(self.parser, "take_body", None)
        self._first_event: Callable[[bytes], RequestHead | bytes | EndOfBody | None] = getattr(
            self.parser, "first_event", None
        ) or partial(first_event, self.parser)
        self.exchange: Exchange = None  # type: ignore[assignment]
        self.head: RequestHead | None = None
        self.reading = HEAD
        self.writing = READY
        self.requests = 0
        self.sends_files = False
        self.has_trailers = True
        self._framing = NONE
        self._idle_timeout = 0.0
        self._scheme: str | None = None
        """That of requests, where it is not the one that parsers give them."""
        self._most_requests = service.config.max_requests_per_connection or sys.maxsize
        self._keep_alive = True
        self._client_waits = False
        self._held_back = False
        """Reading rests because too much follows the request that is being served."""
        self._file: asyncio.Task[None] | None = None
        self._follows_file: bytes | None = None
        """The end of an answer that was given before the file in front of it has left."""

    # Events from the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        Connection.connection_made(self, transport)
        service, connection, loop = self.service, self.connection, self.loop
        self.pass_transport()
        if self._fd >= 0:
            self.sends_files = True
        else:
            self.sends_files = (
                connection.tls is None
                and isinstance(loop, asyncio.BaseEventLoop)
                and transport.get_extra_info("socket") is not None
            )
        self._idle_timeout = service.keep_alive_timeout(connection)
        if connection.scheme != "http":
            self._scheme = connection.scheme
        # The first head is due even if no byte of it ever comes.
        self.deadline = loop.time() + service.config.header_timeout

    def data_received(self, data: bytes) -> None:
        self.share.left = STEPS
        if len(data) > LONG_READ:
            self.rest()
        reading = self.reading
        first = None
        if reading == IDLE:
            # The parser is empty.
            first = data
        elif reading < DONE:
            self.parser.receive_data(data)
        else:
            if reading == CLOSED:
                self.linger_over(len(data))
                return
            if reading == TUNNEL:
                self._tunnel_received(data)
                return
            self.parser.receive_data(data)
            if self.writing != SENT or not self.writable:
                # A request is being served: what follows it waits.
                if self.parser.buffered > BUFFER_HIGH:
                    self._held_back = True
                    self.pause_reading()
                return
        self.corked = True
        try:
            self._read(first)
        except OSError as exc:
            raise WireFailed(str(exc)) from exc
        finally:
            self.corked = False
            if self._cork:
                self.flush()

    def _may_not_read(self) -> None:
        self._forget_body()
        super()._may_not_read()

    def _forget_body(self) -> None:
        """Nobody takes any more what a request has left of its body when it is over, which may have been the one before
        this."""
        head = self.head
        if self.exchange is None or (self.reading == DONE and head is not None and head.content_length == 0):
            self._unconsumed = 0

    def _end_received(self) -> None:
        if self.reading == IDLE and self._direct:
            transport: Any = self.transport
            try:
                fd = transport.direct_fd
            except AttributeError:
                # It is one of asyncio's.
                fd = -1
            if fd >= 0:
                # Nothing is owed to the peer, and nothing waits to leave: what follows comes to the same.
                self.reading = CLOSED
                self._reads = ENDED
                transport.close_at_once()
                return
        super()._end_received()

    def eof_received(self) -> bool:
        self._ended_by_peer = True
        self.take_last_turn()
        reading = self.reading
        if reading == DONE and (self.writing != SENT or self.parser.buffered):
            # A complete request may be followed by the end of the client's half; it still wants its answer.
            if self.writing != SENT:
                self.exchange.half_closed()
            return self.connection.tls is None
        if reading == TUNNEL:
            self._tunnel_begins(ended=True)
            return self.connection.tls is None
        self._give_up_request()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._framing == CLOSE and self.writing == SENT and not self._rest_is_lost:
            self.reset_when_closed(False)
        self.reading = CLOSED
        if self._file is not None:
            self._file.cancel()
            if isinstance(self.loop, asyncio.SelectorEventLoop) and (sock := self._socket) is not None:
                # asyncio does so by the descriptor of the socket, but only when the transport has closed that already.
                # What stayed behind would keep the next connection with the same number from being read.
                self.loop.remove_writer(sock)
        try:
            if self.exchange is not None:
                # A request ends before its connection, also for observers.
                self._lose(ClientGone("the client closed the connection"))
        finally:
            Connection.connection_lost(self, exc)

    def _give_up_request(self) -> None:
        """The client has ended its half, and what it sent is not a whole request: nothing can come of it."""
        if self.reading == BODY:
            self._lose(ClientGone("the client ended the request before its end"))
        self._end()

    def _lose(self, exc: Exception) -> None:
        exchange, self.exchange = self.exchange, None  # type: ignore[assignment]
        if exchange is not None:
            exchange.stream_lost(exc)

    def resume_writing(self) -> None:
        if self._file is not None:
            return
        super().resume_writing()
        exchange = self.exchange
        if exchange is not None:
            exchange.resume_writing()
        if self.writing == SENT:
            self.unwatch_flush()
            # Not at once: a transport that is closed from inside resume_writing() reports its end twice.
            self.loop.call_soon(self._continue)

    # Reading

    def _read(self, first: bytes | None = None) -> None:
        """Take events from the parser for as long as there are any and someone to take them; between requests `first`
        is what has come."""
        try:
            while True:
                reading = self.reading
                if reading >= DONE:
                    if reading != DONE or self.writing != SENT or not self.writable:
                        return
                    buffered = self.parser.buffered
                    if self._keep_alive and not (
                        buffered or self._paused or self._ended_by_peer or self.service.draining
                    ):
                        # What `_next_request()` does comes to the same.
                        self.exchange = self.head = None  # type: ignore[assignment]
                        self.reading = IDLE
                        self.writing = READY
                        self.deadline = self.loop.time() + self._idle_timeout
                        return
                    if not self._next_request(buffered):
                        return
                    reading = IDLE
                if first is None:
                    event = self.parser.next_event()
                else:
                    event = self._first_event(first)
                    first = None
                if event is None:
                    self._await_bytes()
                    return
                if reading < BODY:
                    # A parser gives a head here, or raises.
                    head: RequestHead = event  # type: ignore[assignment]
                    self.requests += 1
                    self.head = head
                    if self._scheme is not None:
                        head.scheme = self._scheme
                    self.has_trailers = head.version != "1.0"
                    self._keep_alive = head.keep_alive and self.requests < self._most_requests
                    if head.content_length != 0:
                        self._open_with_body(head)
                        continue
                    self.reading = DONE
                    self.deadline = inf
                    if head.upgrade is None or not self._switched(head):
                        self.service.open(head, self)
                elif type(event) is bytes:
                    self._body_received(event)
                    self.share.left -= PIECE_STEPS
                    if self.share.left <= 0 and self.parser.buffered and self.reading != CLOSED:
                        self.park()
                        return
                else:
                    self._body_ended(event)
        except BadRequest as error:
            self._refuse(error)

    def _open_with_body(self, head: RequestHead) -> None:
        if self._take_body is not None:
            body = self._take_body()
            if body is not None:
                if head.content_length is None:
                    self.share.left -= PIECE_STEPS
                self._body_read = count = len(body)
                if count <= BUFFER_HIGH and self.service.body_came is None:
                    # As `_hold()` does.
                    self._unconsumed = count
                    self._most = RECV_MAX
                else:
                    self._unconsumed = 0
                    self._hold(count)
                self._client_waits = False
                self.reading = DONE
                self.deadline = inf
                self.service.open(head, self, body, True)
                return
        self._unconsumed = self._body_read = 0
        self.reading = BODY
        # RFC 9110 10.1.1: no need for 100 (Continue) once a part of the content is here.
        self._client_waits = head.expect_continue and not self.parser.buffered
        self._body_deadline_base = self.loop.time() + RATE_GRACE
        body = b""
        if head.content_length is None:
            if self.parser.buffered:
                self._open_with_chunks(head)
                return
        elif self.parser.buffered:
            # A body without chunks cannot be wrong, so that the application may be told of it before it starts.
            body = self.parser.next_event()  # type: ignore[assignment]
            self._body_read = len(body)
            self._hold(len(body))
            if len(body) == head.content_length:
                self.parser.next_event()
                self.reading = DONE
                self.deadline = inf
        self.service.open(head, self, body, self.reading == DONE)

    def _open_with_chunks(self, head: RequestHead) -> None:
        """Open a request that came with chunks. Where they are all of its body and right to their end, and no trailers
        follow, the application may be told of it before it starts; else it learns the one thing after the other."""
        parser = self.parser
        first = second = None
        error: BadRequest | None = None
        try:
            first = parser.next_event()
            if type(first) is bytes:
                second = parser.next_event()
        except BadRequest as exc:
            error = exc
        if type(second) is EndOfBody and type(first) is bytes and second.trailers is None:
            self.share.left -= PIECE_STEPS
            self._client_waits = False
            self._body_read = len(first)
            self._hold(len(first))
            self.reading = DONE
            self.deadline = inf
            self.service.open(head, self, first, True)
            return
        self.service.open(head, self)
        for event in (first, second):
            if event is not None and self.reading != CLOSED:
                if type(event) is bytes:
                    self._body_received(event)
                    self.share.left -= PIECE_STEPS
                else:
                    self._body_ended(event)
        if error is not None and self.reading != CLOSED:
            raise error

    def _switched(self, head: RequestHead) -> bool:
        """Hand the connection over to the wire that the token names, if there is one and it takes the request."""
        switch = self.service.switches.get(cast(bytes, head.upgrade))
        # What takes over would wait for an end of the peer's half that has been read already.
        may_follow = self._keep_alive and not self._ended_by_peer
        protocol = switch.connect(self.service, head) if switch is not None and may_follow else None
        if switch is None or protocol is None:
            return False
        self._send_101(switch.token, [])
        self.flush()
        self.reading = CLOSED
        rest = self.parser.take_rest()
        successor = self.hand_over(protocol, switch.token.decode("ascii"))
        if rest:
            successor.data_received(rest)
        return True

    def _body_received(self, data: bytes) -> None:
        self._body_read += len(data)
        self._client_waits = False
        if self.reading == DISCARD:
            self._unconsumed += len(data)
            if self._unconsumed > DISCARD_MAX:
                self._linger()
            return
        self._hold(len(data))
        self.exchange.data_received(data)

    def _body_ended(self, event: object) -> None:
        discarded = self.reading == DISCARD
        self.reading = DONE
        self.deadline = inf
        if not discarded:
            self.exchange.eof_received(getattr(event, "trailers", None))

    def _await_bytes(self) -> None:
        """The parser needs more: read on, and set the deadline that goes with what is read."""
        if self._ended_by_peer:
            self._give_up_request()
            return
        if self._paused and not self._paused_at:
            self.resume_reading()
        if self.reading == IDLE:
            if self.parser.buffered:
                self.reading = HEAD
                self.deadline = self.loop.time() + self.service.config.header_timeout
        elif self.reading == BODY or self.reading == DISCARD:
            self._set_body_deadline()

    def _body_goes_on(self) -> None:
        if self.reading == BODY:
            self._set_body_deadline()

    def _set_body_deadline(self) -> None:
        """Time during which a client waits for leave to send does not count, nor that of a file, while which nothing
        is read."""
        if self._client_waits or self._file is not None:
            self.deadline = inf
        else:
            super()._set_body_deadline()

    def _next_request(self, buffered: int) -> bool:
        """Make ready for the next request, of which so many bytes are here; False when none are, or this was the last
        one."""
        self.exchange = cast(Exchange, None)
        head, self.head = self.head, None
        if not self._keep_alive or (not buffered and (self.service.draining or self._ended_by_peer)):
            if head is not None and not head.keep_alive and not buffered:
                # RFC 9112 9.6: the client that asked for it sends no further requests.
                self._end()
            else:
                self._linger()
            return False
        if buffered:
            self.share.left -= REQUEST_STEPS
            if self.share.left <= 0:
                self.park()
                return False
        self.reading = IDLE
        self.writing = READY
        self.deadline = self.loop.time() + self._idle_timeout
        if self._paused_at or self._held_back:
            self._paused_at = 0.0
            self._held_back = buffered > BUFFER_LOW
            if not self._held_back and self._paused:
                self.resume_reading()
        return buffered > 0

    def _continue(self) -> None:
        """Go on after an answer that ended outside `data_received`."""
        if self.reading == DONE and self.writing == SENT and self.writable and not self.held_since:
            try:
                self.next_turn()
            except Exception:  # noqa: BLE001 - after `data_received` asyncio closes the connection for it, but not here
                self.service.connection_failed(self)

    def next_turn(self) -> None:
        """Go on with what is in the parser."""
        if self.reading != DONE or (self.writing == SENT and self.writable):
            self.corked = True
            try:
                self._read()
            finally:
                self.uncork()

    def _refuse(self, error: BadRequest) -> None:
        """Answer bytes that are no request, or no longer one; nothing after them is ever parsed."""
        self._keep_alive = False
        if self._file is not None:
            # Another answer can be given no more, nor can this one be ended.
            self.abort()
            return
        if self.reading == BODY:
            self.reading = CLOSED
            self.exchange.stream_lost(error)
        elif self.reading == IDLE or self.reading == HEAD:
            self.reading = CLOSED
            self.writing = READY
            self.head = None
            self.service.refuse(None, self, error)
        self._linger()

    # Stream: called by the exchange

    def start(self, status: int, headers: Headers, body: Body, more: bool) -> None:
        if not more and self.reading == DONE and type(body) is bytes:
            encoded = own = None
            if type(headers) is AnswerFields:
                encoded = headers.encoded
            elif type(headers) is ExtendedFields:
                encoded, own = headers.shared.encoded, headers.own
            if (
                type(encoded) is AnswerHead
                and encoded.usual_for == status
                and self._keep_alive
                and self.has_trailers
                and len(body) < COPY_MAX
                and not self._ended_by_peer
                and not self.service.draining
            ):
                # What follows comes to the same, but for `_framing`, which other answers need. To HEAD, or with 204
                # or 304, there is no body here.
                self.writing = SENT
                data = encoded.whole + body if own is None else encoded.with_fields(own) + b"\r\n" + body
                if self._cork or self.parser.buffered:
                    self.send(data)
                    if not (self.corked and self._cork):
                        self._sent()
                else:
                    # Nothing follows in this turn that it could be gathered with.
                    self._write(data)
                    if not self.corked:
                        self._sent()
                return
        self._start(status, headers, body, more)

    def _start(self, status: int, headers: Headers, body: Body, more: bool) -> None:
        request = self.head
        method, version = (request.method, request.version) if request is not None else (b"", "1.1")
        encoded = encode_head(status, headers)
        head, has_length, closes = encoded.data, encoded.has_length, encoded.closes
        if has_length and method != b"HEAD" and status != 204 and status != 304:
            # As the table of `answer_framing()` has it, without the call.
            framing = LENGTH
        else:
            framing = answer_framing(method, version, status, has_length, more)
        self._framing = framing
        self.writing = OPEN
        if framing == ADD_LENGTH:
            head += b"content-length: %d\r\n" % len(body)
        elif framing == CHUNKED:
            head += b"transfer-encoding: chunked\r\n"
        if closes or framing == CLOSE or not self._reusable():
            self._keep_alive = False
            head += b"connection: close\r\n\r\n"
            if framing == CLOSE:
                # Whatever closes the connection before the end of the answer, be it the end of the process, does it by
                # a reset: an orderly close would look like that end.
                self.reset_when_closed()
        elif version == "1.0":
            head += b"connection: keep-alive\r\n\r\n"
        else:
            head = encoded.whole if has_length else head + b"\r\n"
        self._write_piece(head, body, more)

    def write(self, body: Body, more: bool) -> None:
        if self.transport.is_closing():
            # The peer is gone, and `connection_lost()` is on its way to say so.
            self.writable = False
        elif self.reading == TUNNEL:
            if not more or self.corked:
                self._tunnel_write(cast(bytes, body), more)
            else:
                self._write(cast(bytes, body))
        elif self._file is not None:
            # It would come to stand in the midst of the file.
            raise RuntimeError("a file is being sent, and this piece did not wait for its end")
        elif self.writing == OPEN:
            self._write_piece(b"", body, more)

    def inform(self, status: int, headers: Headers) -> None:
        if status == 100 and not self._client_waits:
            return
        # RFC 9110 15.2: a server must not send a 1xx answer to an HTTP/1.0 client.
        if self.head is not None and self.head.version != "1.0":
            self.send(status_line(status) + encode_fields(headers) + b"\r\n")
        if status == 100:
            self._client_waits = False
            self._body_deadline_base = self.loop.time() + RATE_GRACE
            self._set_body_deadline()

    def tunnel(self, headers: Headers) -> None:
        assert self.head is not None and self.head.upgrade is not None
        self._send_101(self.head.upgrade, headers)
        self.reading = TUNNEL
        self.writing = OPEN
        self.deadline = inf
        self._unconsumed = 0
        if self._paused:
            self.resume_reading()
        if self.parser.buffered or self._ended_by_peer:
            # Rule 2: not from inside a Stream method.
            self.loop.call_soon(self._tunnel_begins, self._ended_by_peer)

    def _send_101(self, token: bytes, headers: Headers) -> None:
        fields = [(b"upgrade", token), (b"connection", b"Upgrade"), *headers]
        self.send(status_line(101) + encode_fields(fields) + b"\r\n")

    def trailers(self, headers: Headers) -> None:
        end = b"0\r\n" + encode_fields(headers) + b"\r\n" if self._framing == CHUNKED else b""
        if self._file is not None:
            self._follows_file = end
            return
        if end:
            self.send(end)
        self._sent()

    def reset(self) -> None:
        # An answer without its end: closing is what tells the peer (RFC 9112 8).
        self.reading = CLOSED
        self.writing = SENT
        self._keep_alive = False
        if self._file is not None:
            self._file.cancel()
            self._file = None
        self.flush()
        if self._framing == CLOSE:
            # Here an orderly close would look like the end of the answer.
            self.abort()
        else:
            self.close()

    # Writing

    def _reusable(self) -> bool:
        """Whether another request can follow, as far as is known when the answer begins."""
        service = self.service
        if not self._keep_alive or service.ending:
            return False
        if (service.draining or self._ended_by_peer) and not self.parser.buffered:
            return False
        if self.reading == BODY and self.head is not None:
            # RFC 9112 9.3: the rest of the body has to be read first. A client that waits for 100 (Continue) may
            # or may not send it; a long one is not worth reading.
            length = self.head.content_length
            if self._client_waits:
                return False
            return length is None or length - self._body_read <= DISCARD_MAX
        return self.reading != CLOSED

    def _write_piece(self, head: bytes, body: Body, more: bool) -> None:
        framing = self._framing
        if framing == LENGTH and type(body) is bytes and len(body) < COPY_MAX:
            self.send(head + body)
        elif framing == NONE:
            self.send(head)
        elif isinstance(body, FileRange):
            if not self._send_file(head, body, more):
                return
        elif framing == CHUNKED:
            tail = b"" if more else LAST_CHUNK
            if not body:
                self.send(head + tail)
            elif len(body) < COPY_MAX:
                self.send(b"%b%x\r\n%b\r\n%b" % (head, len(body), body, tail))
            else:
                self.send_pieces(head + chunk_head(len(body)), body, b"\r\n" + tail)
        elif len(body) < COPY_MAX:
            self.send(head + body)
        elif head:
            self.send_pieces(head, body)
        else:
            self.send(body)
        if not more:
            self._sent()

    def _sent(self) -> None:
        """The answer is complete, as far as the wire is concerned."""
        self.writing = SENT
        if not self._cork:
            self.watch_flush()
        if self.reading == BODY:
            self._stop_body()
        elif self.reading == DONE and not self.corked and self.writable:
            if self.parser.buffered:
                # Rule 2: not from inside a Stream method.
                self.loop.call_soon(self._continue)
            else:
                self._next_request(0)

    def _stop_body(self) -> None:
        """The answer came before the body's end: read on in order to use the connection again, or give it up."""
        if self._keep_alive:
            self.reading = DISCARD
            self._unconsumed = 0
            if self._paused_at:
                self._paused_at = 0.0
                self.resume_reading()
            self._set_body_deadline()
        else:
            self._linger()

    def _send_file(self, head: bytes, file: FileRange, more: bool) -> bool:
        """False where the peer does not take all of it at once: it goes on by itself then."""
        if self._framing == CHUNKED:
            head += chunk_head(file.count)
        if head:
            self.send(head)
        self.flush()
        sent = self.send_file_at_once(file.fd, file.offset, min(file.count, FILE_BLOCK))
        if sent == file.count:
            if self._framing == CHUNKED:
                self.send(b"\r\n" if more else b"\r\n" + LAST_CHUNK)
            return True
        self.writable = False
        # It reads nothing while it sends a file.
        self.read_by_transport()
        self.deadline = inf
        rest = FileRange(file.fd, file.offset + sent, file.count - sent)
        self._file = self.loop.create_task(self._copy_file(rest, more))
        return False

    async def _copy_file(self, file: FileRange, more: bool) -> None:
        """Hand a file to the kernel block by block, so that the write deadline sees progress."""
        started = self.loop.time()
        offset, end = file.offset, file.offset + file.count
        # Of TCP connections the kernel tells what the peer takes meanwhile.
        block = FILE_BLOCK if self.connection.peer is not None and sys.platform == "linux" else FILE_BLOCK // 8
        try:
            with open(file.fd, "rb", buffering=0, closefd=False) as reader:
                while offset < end:
                    self.wait_for_peer()
                    sent = await self.loop.sendfile(self.transport, reader, offset, min(block, end - offset))
                    if not sent:
                        raise ConnectionError("the file became shorter while it was sent")
                    offset += sent
        except (OSError, RuntimeError) as exc:
            # What was promised cannot be sent any more: only closing tells the peer.
            self.service.count("file_broken", "h1: sending a file failed: %s", exc)
            self._file = None
            self.abort()
            return
        self._file = None
        if not self._ended_by_peer:
            self.read_past_transport()
        self.write_deadline = inf
        self.writable = True
        if self._framing == CHUNKED:
            self.send(b"\r\n" if more else b"\r\n" + LAST_CHUNK)
        if self._follows_file is not None:
            if self._follows_file:
                self.send(self._follows_file)
            more = False
        self._body_deadline_base += self.loop.time() - started
        if not more:
            self.writing = SENT
            self.watch_flush()
            if self.reading == BODY:
                self._stop_body()
        elif self.reading == BODY:
            self._set_body_deadline()
        if self.writable:
            self.resume_writing()

    @property
    def buffered(self) -> int:
        self._forget_body()
        return self.parser.buffered + super().buffered

    # Tunnel

    def _tunnel_begins(self, ended: bool) -> None:
        """Pass on what came with the handshake, unless more has come and has taken it along, and the end behind it."""
        try:
            if self.reading == TUNNEL and self.parser.buffered:
                self._tunnel_received(b"")
            if ended and self.reading == TUNNEL and self.exchange is not None:
                self.exchange.eof_received()
        except Exception:  # noqa: BLE001 - as in `_continue`
            self.service.connection_failed(self)

    def _tunnel_received(self, data: bytes) -> None:
        if self.parser.buffered:
            data = self.parser.take_rest() + data
        self._unconsumed += len(data)
        if self._unconsumed > BUFFER_HIGH:
            self._hold(0)
        if self.exchange is not None:
            self.exchange.data_received(data)

    def _tunnel_write(self, data: bytes, more: bool) -> None:
        if data:
            self.send(data)
        if not more:
            self._linger()

    # Ending

    def _end(self) -> None:
        """Close; a client that is still to end its half of TLS has a moment for it."""
        self.reading = CLOSED
        self.deadline = self.loop.time() + LINGER_TIMEOUT
        self.close()

    def _linger(self, timeout: float = LINGER_TIMEOUT) -> None:
        if not self.transport.is_closing():
            self.reading = CLOSED
            self.linger(timeout)

    # Events from the worker

    def deadline_passed(self) -> None:
        reading = self.reading
        self.deadline = inf
        if reading == HEAD and (self.requests or self.parser.buffered):
            self._time_out("The request head did not arrive in time", "POUNCE_TIMEOUT_REQUEST_HEAD", "header_timeout")
        elif reading == BODY:
            self._time_out(
                "The request body did not arrive in time",
                "POUNCE_TIMEOUT_REQUEST_BODY",
                "request_timeout and min_body_rate",
            )
        elif reading == CLOSED:
            self.deadline = self.loop.time() + LINGER_TIMEOUT
            self.let_go()
        elif reading == DISCARD:
            self._linger()
        else:
            self.service.count("idle_timeout")
            self._linger(IDLE_LINGER)

    def _time_out(self, message: str, code: str, setting: str) -> None:
        self._refuse(BadRequest(message, status=408, code=code, hint=f"See {setting}."))

    def drain(self) -> None:
        """Serve what has begun, then close; an idle connection gets a moment to bring the request that may already be
        on its way: no answer has told its client yet that it would end."""
        if self.reading == IDLE or (self.reading == HEAD and not self.parser.buffered):
            self.deadline = min(self.deadline, self.loop.time() + DRAIN_GRACE)
