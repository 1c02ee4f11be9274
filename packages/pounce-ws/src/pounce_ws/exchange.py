"""WebSocketExchange: one WebSocket, and its ASGI `receive` and `send`.

Theory of operation.

    CONNECTING ──accept──▶ OPEN ──Close sent──▶ CLOSING ──Close received, or its deadline──▶ CLOSED
        │                    └─────Close received and answered, stream lost, 1002──────────────▲
        └──close, denial, no answer──▶ DENIED: an HttpExchange has the stream, and answers the handshake

Bytes of the stream wait in the reader; messages are read out of them only as far as the application keeps up: while
more than `QUEUE_HIGH` is queued nothing is read, and what was not read is not `consumed()`, so that the wire stops in
its turn. So one connection holds the queue, one message, and what the wire lets through.

A message is made a frame, and written, when the stream is writable; until then its sender waits, behind those that wait
already. So however many tasks send, nothing of theirs is copied but what the client is about to take.

Reading, inflating and deflating take from the connection's share of a turn of the loop, and go on in the next turn when
it is used up.

A Close is an event in that order too, and so is a breach of the protocol. The client is answered when the application
asks for the message after the last one, so that it can still answer that one, or when it has taken too long to ask.

What the application is told at the end stands in `_disconnect`; it is given out once, after the messages before it.
"""

import asyncio
from collections import deque
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from pounce.errors import AppError, BadRequest, ClientGone, PounceError, comes_from_client_gone
from pounce.exchange.crossing import running_loop
from pounce.exchange.error_pages import app_failed, app_gave_no_answer, shutting_down
from pounce.exchange.http import HttpExchange
from pounce.exchange.scope import websocket_scope
from pounce.exchange.values import plain_bytes, plain_int, plain_str
from pounce_ws.deflate import Deflater, Inflater
from pounce_ws.frames import (
    BINARY,
    CLOSE,
    FIN,
    PING,
    PONG,
    RSV1,
    TEXT,
    Control,
    MessageReader,
    close_frame,
    frame,
    may_be_sent,
    parse_close,
)
from pounce_ws.sockets import WebSockets
from pounce_ws.violation import Violation

if TYPE_CHECKING:
    from pounce.exchange.service import Service
    from pounce.plugin import ASGIApp, Headers, RequestHead, Stream
    from pounce_ws.handshake import Handshake

__all__ = ["WebSocketExchange"]

QUEUE_HIGH = 65536
"""Bytes of messages that wait for the application, above which no more are read."""
QUEUE_LOW = 16384
MESSAGE_COST = 128
"""Bytes that a message takes besides its own."""
CORK_LIMIT = 16384
"""Bytes of frames that are gathered into one write at the most."""
PORTION = 16
"""Messages that an application may take or send before it has to take as many steps from its connection's share."""
DEFLATE_PIECE = 8192
"""Bytes of a message that are deflated at once. Each takes up to 0.1 us."""
DEFLATE_SHIFT = 6
"""A step for 64 of these bytes."""
REASON_MAX = 123
"""RFC 6455 5.5: a Close frame has at most 125 bytes, two of them for the code."""

WHOLE_TEXT, WHOLE_BINARY = FIN | TEXT, FIN | BINARY
RESERVED_FIELDS = frozenset((b"connection", b"upgrade", b"content-length", b"transfer-encoding"))
RESERVED_PREFIX = b"sec-websocket-"

NO_STATUS, ABNORMAL = 1005, 1006
"""Codes for the application alone (RFC 6455 7.4.1): a Close without a code; no Close at all."""


# See the diagram above. Numbers: `pounce.immortal` tells why not an Enum.
CONNECTING, OPEN, CLOSING, CLOSED, DENIED = range(5)
STATES = ("connecting", "open", "closing", "closed", "denied")


class WebSocketExchange:
    """One WebSocket. Observers read it as a `plugin.Completed`; bytes are those of frames, heads included."""

    __slots__ = (
        "_app_closed",
        "_busy",
        "_connect_due",
        "_cork",
        "_corked",
        "_deflate_min",
        "_deflater",
        "_disconnect",
        "_disconnected",
        "_eof",
        "_final",
        "_flush_due",
        "_handshake",
        "_heard",
        "_held",
        "_http",
        "_idle_timeout",
        "_last_message",
        "_ping_due",
        "_pinged",
        "_pong",
        "_portion",
        "_queue",
        "_queued",
        "_reader",
        "_readers",
        "_share",
        "_sockets",
        "_waits",
        "_writers",
        "broken",
        "bytes_received",
        "bytes_sent",
        "close_code",
        "deadline",
        "head",
        "incomplete",
        "messages_received",
        "messages_sent",
        "running",
        "service",
        "started",
        "state",
        "status",
        "stream",
    )

    def __init__(self, service: Service, head: RequestHead, stream: Stream, handshake: Handshake) -> None:
        stream.exchange = self
        config = service.config
        deflate = handshake.deflate
        self.stream = stream
        self.service = service
        self.head = head
        self.started = monotonic()
        self.status = 0
        self.close_code: int | None = None
        self.broken = False
        self.messages_received = self.messages_sent = 0
        self.incomplete = 0
        """Bytes of a message that has begun, as they were counted last."""
        self.bytes_received = self.bytes_sent = 0
        self.running = False
        """The application has not returned; wires read it."""
        self.state = CONNECTING
        self.deadline = inf
        """Loop time at which `deadline_passed()` is due."""
        self._handshake = handshake
        self._sockets = WebSockets.of(service)
        self._http: HttpExchange | None = None
        self._share = stream.connection.share
        self._reader = MessageReader(
            config.websocket_max_message_size, Inflater(deflate) if deflate is not None else None, self._share
        )
        self._deflater = Deflater(deflate) if deflate is not None else None
        self._deflate_min = config.websocket_compression_min_size

        self._connect_due = True
        self._queue: deque[str | bytes] = deque()
        self._queued = 0
        self._held = 0
        """Bytes that arrived and were not `consumed()`."""
        self._busy = False
        """The application has a message, and has not asked for the next one."""
        self._readers: list[asyncio.Future[None]] = []
        self._writers: list[asyncio.Future[None]] = []
        self._portion = PORTION
        self._waits = False
        """Reading goes on in the connection's next turn."""

        self._cork: list[bytes] = []
        self._corked = 0
        self._flush_due = False
        self._pong: bytes | None = None
        """Payload of the pong that is due when the stream is writable again."""

        self._eof = False
        self._app_closed = False
        self._final: Control | Violation | None = None
        """What ended the reading, and was not answered yet: a Close, or a breach of the protocol."""
        self._disconnect: tuple[int, str] | None = None
        self._disconnected = False

        self._idle_timeout = config.websocket_idle_timeout
        self._last_message = 0.0
        self._ping_due = inf
        self._pinged = 0.0
        """When the pong that is waited for was asked for; 0 while none is."""
        self._heard = False
        """Something arrived after that."""

    # Events from the wire

    def data_received(self, data: bytes) -> None:
        if self.state == CLOSED:
            self.stream.consumed(len(data))
            return
        size = len(data)
        self._heard = True
        self._held += size
        self.bytes_received += size
        self._reader.receive_data(data)
        if self.state != CONNECTING:
            self._read()

    def eof_received(self, trailers: Headers | None = None) -> None:
        if self.state == CONNECTING:
            self.half_closed()
        elif self.state != CLOSED:
            self._eof = True
            if not self._held and self._final is None:
                self._end_stream(ABNORMAL)

    def half_closed(self) -> None:
        # What ends its half before the handshake is over wants no WebSocket.
        self.stream.reset()
        self._end(ABNORMAL)

    def resume_writing(self) -> None:
        pong, self._pong = self._pong, None
        if pong is not None and self.state == OPEN:
            self._write(frame(FIN | PONG, pong))
        self._wake_writer()

    def stream_lost(self, exc: Exception | None) -> None:
        if self.state == CLOSED:
            return
        if self.state == CONNECTING and isinstance(exc, BadRequest):
            self.service.count(exc.code, "%s", exc.message)
            self._deny(exc)
            return
        self._cork.clear()
        held, final = self._held, self._final
        self._end(ABNORMAL)
        # What has arrived is still read, as the application asks for it.
        self._held = held
        if final is not None:
            self._answer(final)

    def _read(self) -> None:
        """Take messages and control frames from the reader, as far as the application keeps up."""
        if self._waits:
            return
        reader = self._reader
        while self._held and self._final is None and (self._queued < QUEUE_HIGH or self.state == CLOSING):
            try:
                event = reader.next_event()
            except Violation as violation:
                self._finally(violation)
                continue
            if event is None:
                held, self._held = self._held, 0
                if self.state != CLOSED:
                    self.stream.consumed(held)
                    self._count_incomplete()
                    if self._eof:
                        self._end_stream(ABNORMAL)
            elif isinstance(event, Control):
                self._control(event)
                self._share.left -= 1
                if self._share.left <= 0:
                    self._read_later()
                    return
            else:
                self.messages_received += 1
                self._queued += len(event) + MESSAGE_COST
                self._queue.append(event)
                if self._idle_timeout:
                    self._last_message = self.service.loop.time()
                _wake(self._readers)
                if len(self._queue) > 1:
                    # The first of a read is free: who sends one message after the other is in nobody's way.
                    self._share.left -= 1
                    if self._share.left <= 0:
                        self._read_later()
                        return

    def _count_incomplete(self) -> None:
        size = len(self._reader.payload)
        if size != self.incomplete and self.state != CLOSED:
            self._sockets.grown(self, size)

    def _read_later(self) -> None:
        self._waits = True
        self._share.later(self._read_on)
        self._count_incomplete()

    def _read_on(self) -> None:
        self._waits = False
        self._sockets.call(self._read)
        if not self._waits:
            self._flush()

    def _control(self, event: Control) -> None:
        if event.opcode == CLOSE:
            self._finally(event)
        elif event.opcode == PING and self.state == OPEN:
            if self.stream.writable:
                # A client can ask for thousands in one piece.
                self._gather(frame(FIN | PONG, event.payload), wait=True)
            else:
                # RFC 6455 5.5.3: a server "MAY elect to send a Pong frame for only the most recently processed Ping".
                self._pong = event.payload

    def _finally(self, event: Control | Violation) -> None:
        """A Close, or a breach of the protocol: answer it now, or when the application is through with what it has."""
        if self.state == OPEN and (self._busy or self._queue):
            self._final = event
            self.deadline = self.service.loop.time() + self.service.config.websocket_close_timeout / 2
        else:
            self._answer(event)

    def _answer(self, event: Control | Violation) -> None:
        """Answer a Close with one of the same code (RFC 6455 5.5.1), a breach with its own (7.1.7)."""
        self._final = None
        code, reason, told = 0, "", ""
        # After a Close nothing follows, after code 1002 nothing that can be understood.
        ends = True
        try:
            if isinstance(event, Violation):
                ends = event.code == 1002
                raise event
            code, told = parse_close(event.payload)
        except Violation as violation:
            code, reason = violation.code, violation.reason
            told = reason
            self.service.count(f"websocket_closed_{code}", "WebSocket closed: %s", reason)
        if self.state == OPEN and not ends:
            self._begin_close(code, reason)
        elif self.state == OPEN:
            self._flush()
            self._send(close_frame(code, reason), more=False)
            self._end(code, told)
        elif self.state == CLOSING:
            self._end_stream(code)
        else:
            # The stream was lost, and only now the application has come to what the client sent last.
            self._held = 0
            self._disconnect = code, told

    # The application

    async def run(self, app: ASGIApp) -> None:
        """Run the application to its end and settle what it leaves behind."""
        scope = websocket_scope(self.service, self.head, self.stream, self._handshake.subprotocols)
        self.running = True
        try:
            await app(scope, self.receive, self.send)
        except asyncio.CancelledError:
            self._settle(shutting_down(), 1012)
            raise
        except GeneratorExit:
            raise
        except BaseException as exc:  # noqa: BLE001 - whatever else an application raises ends here
            if self._disconnect is None or not comes_from_client_gone(exc):
                self.service.app_failed(exc)
            self._settle(app_failed(), 1011)
        else:
            if self.state == CONNECTING:
                self.service.count("app_error")
                self.service.log.error("ASGI application returned without accepting or closing the WebSocket")
            self._settle(app_gave_no_answer(), 1000)
        finally:
            self.running = False

    def _settle(self, error: PounceError, code: int) -> None:
        """The application is gone: end what it left open."""
        if self._disconnect is None:
            # Else the client was the first, which is what those who still send to it should hear.
            self._app_closed = True
        self._drop_queue()
        if self.state == CONNECTING:
            self._deny(error)
        elif self._http is not None:
            self._http.settle(error)
        elif self.state == OPEN:
            if self._final is not None:
                self._answer(self._final)
            else:
                self._begin_close(code, "")

    async def receive(self) -> dict[str, Any]:
        """The next `websocket.connect`, `.receive` or `.disconnect` message; waits until there is one.

        Raises `ClientGone` when `websocket.disconnect` was given out before.
        """
        if running_loop() is not self.service.loop:
            return await self.service.crossing.call(self.receive, undo=self._put_back)
        if self._connect_due:
            self._connect_due = False
            return {"type": "websocket.connect"}
        self._busy = False
        self._portion -= 1
        if not self._portion:
            # Before a message is taken: this may be cancelled.
            await self._take_portion()
        while not self._queue:
            if self._http is not None:
                return await self._denied()
            if self._held and self.state != CONNECTING:
                self._read()
                if self._queue:
                    break
            if self._final is not None:
                self._answer(self._final)
            if self._disconnect is not None:
                return self._last_word()
            waiter = self.service.create_future()
            self._readers.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter in self._readers:
                    self._readers.remove(waiter)
                raise
        message = self._queue.popleft()
        self._queued -= len(message) + MESSAGE_COST
        self._busy = True
        if self._held and self._queued <= QUEUE_LOW:
            self._read()
        if type(message) is str:
            return {"type": "websocket.receive", "text": message}
        return {"type": "websocket.receive", "bytes": message}

    def _put_back(self, message: dict[str, Any]) -> None:
        """A message was taken for somebody who does not want it any more: the next one gets it."""
        kind = message["type"]
        if kind == "websocket.connect":
            self._connect_due = True
        elif kind == "websocket.disconnect":
            self._disconnected = False
        elif not self._app_closed:
            data = message["text"] if "text" in message else message["bytes"]
            self._queue.appendleft(data)
            self._queued += len(data) + MESSAGE_COST
        _wake(self._readers)

    def _last_word(self) -> dict[str, Any]:
        assert self._disconnect is not None
        if self._disconnected:
            raise ClientGone("the WebSocket is closed, and the application was told")
        self._disconnected = True
        code, reason = self._disconnect
        return {"type": "websocket.disconnect", "code": code, "reason": reason}

    async def _denied(self) -> dict[str, Any]:
        """Wait until the answer to the handshake has left."""
        assert self._http is not None
        while (await self._http.receive())["type"] != "http.disconnect":
            pass
        self._disconnect = ABNORMAL, ""
        return self._last_word()

    async def send(self, message: dict[str, Any]) -> None:
        """Take an ASGI message; waits while the client is slow.

        Raises `ClientGone` when the WebSocket was closed, `AppError` for a message that is out of order or wrong.
        """
        if running_loop() is not self.service.loop:
            await self.service.crossing.call(self.send, message)
            return
        kind = message["type"]
        stream = self.stream
        if (not stream.writable or self._writers) and kind == "websocket.send" and self.state == OPEN:
            await self._wait_until_writable()
        if kind != "websocket.send" or self.state != OPEN:
            await self._send_other(kind, message)
            return
        text, payload = message.get("text"), message.get("bytes")
        if payload is None:
            if type(text) is not str:
                given = text
                text = plain_str(given)
                if text is None:
                    raise bad_message(f"websocket.send needs text or bytes (got {type(given).__name__})")
            first = WHOLE_TEXT
            payload = text.encode()
        else:
            if text is not None:
                raise bad_message("websocket.send has both text and bytes")
            if type(payload) is not bytes:
                given = payload
                payload = plain_bytes(given)
                if payload is None:
                    raise bad_message(f"bytes must be bytes (got {type(given).__name__})")
            first = WHOLE_BINARY
        if self._deflater is not None and len(payload) >= self._deflate_min:
            first |= RSV1
            if len(payload) <= DEFLATE_PIECE:
                payload = self._deflater.deflate(payload)
            else:
                payload = await self._deflated(self._deflater, payload)
                if self.state != OPEN:
                    await self._send_other(kind, message)
                    return
        self.messages_sent += 1
        if self._idle_timeout:
            self._last_message = self.service.loop.time()
        data = frame(first, payload)
        if self._queue or self._cork:
            self._gather(data, wait=bool(self._queue))
        else:
            self.bytes_sent += len(data)
            stream.write(data, True)
        self._portion -= 1
        if not self._portion:
            await self._take_portion()

    async def _send_other(self, kind: str, message: dict[str, Any]) -> None:
        state = self.state
        if state == CONNECTING:
            if kind == "websocket.accept":
                self._accept(message)
            elif kind == "websocket.close":
                self._deny(REJECTED)
            elif kind == "websocket.http.response.start":
                http = self._hand_over()
                await http.send({**message, "type": "http.response.start"})
            else:
                raise self._out_of_order(kind)
        elif self._http is not None and kind == "websocket.http.response.body":
            await self._http.send({**message, "type": "http.response.body"})
        elif state == OPEN and kind == "websocket.close":
            self._close(message)
        elif self._disconnect is not None and not self._app_closed:
            raise ClientGone("the WebSocket is closed")
        else:
            raise self._out_of_order(kind)

    def _out_of_order(self, kind: str) -> AppError:
        return bad_message(f"{kind} is out of order: the WebSocket is {STATES[self.state]}")

    def _accept(self, message: dict[str, Any]) -> None:
        """Accept the handshake (RFC 6455 4.2.2; RFC 8441 5)."""
        accept, subprotocols, deflate = self._handshake
        chosen = message.get("subprotocol")
        subprotocol = plain_str(chosen)
        if chosen is not None and subprotocol not in subprotocols:
            raise bad_message(f"subprotocol {chosen!r} was not offered (but {', '.join(subprotocols) or 'none'})")
        given, _ = self.service.response_headers.complete(message.get("headers") or (), self.stream.connection)
        for name, _ in given:
            if name in RESERVED_FIELDS or name.startswith(RESERVED_PREFIX):
                raise AppError(
                    f"{name.decode()} is the server's own in a handshake",
                    code="POUNCE_APP_BAD_HEADER",
                    hint="A subprotocol is chosen with the key subprotocol of websocket.accept.",
                )
        if self.service.draining:
            self._deny(shutting_down())
            return
        fields: Headers = []
        if accept is not None:
            fields.append((b"sec-websocket-accept", accept))
        if subprotocol is not None:
            fields.append((b"sec-websocket-protocol", subprotocol.encode()))
        if deflate is not None:
            fields.append((b"sec-websocket-extensions", deflate.header()))
        self.stream.tunnel(fields + given)
        self.state = OPEN
        self.status = 101 if accept is not None else 200
        now = self._last_message = self.service.loop.time()
        self._ping_due = now + (self.service.config.websocket_ping_interval or inf)
        self._set_deadline()
        self._sockets.opened(self)
        if self._held:
            self._read()

    def _close(self, message: dict[str, Any]) -> None:
        given = message.get("code")
        code, reason = plain_int(given), plain_str(message.get("reason") or "")
        if given is None:
            code = 1000
        if code is None or not may_be_sent(code):
            raise bad_message(f"{given!r} is not a code that a WebSocket can be closed with")
        if reason is None:
            raise bad_message(f"the reason of a close must be text (got {type(message['reason']).__name__})")
        if len(reason.encode()) > REASON_MAX:
            raise bad_message(f"the reason of a close is at most {REASON_MAX} bytes")
        self._app_closed = True
        self._drop_queue()
        self._begin_close(code, reason)

    def _hand_over(self) -> HttpExchange:
        """Let an HttpExchange answer the handshake; observers see that one."""
        http = HttpExchange(self.service, self.head, self.stream)
        http.started = self.started
        self._http = http
        self.state = DENIED
        _wake(self._readers)
        return http

    def _deny(self, error: PounceError) -> None:
        self._hand_over().respond(self.service.error_pages.answer(error, self.head, self.stream))

    # Ending

    def _begin_close(self, code: int, reason: str) -> None:
        """Send a Close and wait for the client's, for as long as websocket_close_timeout."""
        if self.state != OPEN:
            return
        self.close_code = code
        if not self._app_closed:
            self._disconnect = code, reason
        self._flush()
        if self._final is not None:
            self._send(close_frame(code, reason), more=False)
            self._end(code, reason)
            return
        self._send(close_frame(code, reason))
        self.state = CLOSING
        self.deadline = self.service.loop.time() + self.service.config.websocket_close_timeout
        self._reader.discard()
        if self.incomplete:
            self._sockets.grown(self, 0)
        _wake(self._readers)
        _wake(self._writers)
        if self._held:
            self._read()

    def _end_stream(self, code: int) -> None:
        self._flush()
        self.stream.write(b"", False)
        self._end(code)

    def _end(self, code: int, reason: str = "") -> None:
        """The stream has ended, or is lost."""
        opened = self.state != CONNECTING
        if self.close_code is None:
            self.close_code = code
            self.broken = code == ABNORMAL
        if self._disconnect is None:
            self._disconnect = self.close_code, reason
        self.state = CLOSED
        self.deadline = inf
        self._held = 0
        self._final = None
        if opened:
            self._sockets.ended(self)
        else:
            self.close_code = None
            self.service.completed(self)
        _wake(self._readers)
        _wake(self._writers)

    def _drop_queue(self) -> None:
        self._queue.clear()
        self._queued = 0

    def give_up_message(self) -> None:
        """Keep nothing of the message that has begun, nor take another."""
        self._begin_close(1013, "too much is waiting")

    def drain(self) -> None:
        """The worker shuts down."""
        self._begin_close(1012, "server is shutting down")

    # Deadlines

    def _set_deadline(self) -> None:
        """The next of: a ping, the end of waiting for its pong, the end of waiting for a message."""
        deadline = self._ping_due
        if self._pinged:
            deadline = min(deadline, self._pinged + self.service.config.websocket_ping_timeout)
        if self._idle_timeout:
            deadline = min(deadline, self._last_message + self._idle_timeout)
        self.deadline = deadline

    def deadline_passed(self, now: float) -> None:
        """`deadline` lies in the past."""
        if self.state == CLOSING:
            self.service.count("websocket_close_timeout", "WebSocket: no Close within websocket_close_timeout")
            self.stream.reset()
            self._end(ABNORMAL)
        elif self._final is not None:
            self._answer(self._final)
        elif self._idle_timeout and now - self._last_message >= self._idle_timeout and not self._waits:
            self.service.count("websocket_idle_timeout", "WebSocket: no message within websocket_idle_timeout")
            self._begin_close(1001, "no message for too long")
        elif self._pong_is_missing(now):
            self.service.count("websocket_ping_timeout", "WebSocket: no pong within websocket_ping_timeout")
            self._begin_close(1011, "ping was not answered")
            # Who does not answer a ping will not answer a Close.
            if self.state == CLOSING:
                self._end_stream(1011)
        else:
            if now >= self._ping_due:
                self._ping(now)
            self._set_deadline()

    def _ping(self, now: float) -> None:
        config = self.service.config
        self._ping_due = now + config.websocket_ping_interval
        # A client that takes nothing has write_timeout to begin again.
        if self.stream.writable:
            self._write(frame(FIN | PING, b""))
            if config.websocket_ping_timeout:
                self._pinged, self._heard = now, False

    def _pong_is_missing(self, now: float) -> bool:
        if not self._pinged:
            return False
        if self._heard:
            # Whatever it was: a client that is in the middle of a frame cannot send a pong.
            self._pinged = 0.0
            return False
        if self._held:
            # The pong may be there already, behind messages that the application has not taken.
            self._pinged = now
            return False
        return now - self._pinged >= self.service.config.websocket_ping_timeout

    # Writing

    def _write(self, data: bytes) -> None:
        """Write a frame; while messages wait for the application it is gathered with what will follow."""
        if self._queue or self._cork:
            self._gather(data, wait=bool(self._queue))
        else:
            self._send(data)

    def _gather(self, data: bytes, wait: bool) -> None:
        """Write a frame with those before it: now, or with `wait` at the loop's next turn at the latest."""
        self._cork.append(data)
        self._corked += len(data)
        if self._corked >= CORK_LIMIT or not wait:
            self._flush()
        elif not self._flush_due:
            self._flush_due = True
            self.service.loop.call_soon(self._flush_late)

    def _send(self, data: bytes, more: bool = True) -> None:
        self.bytes_sent += len(data)
        self.stream.write(data, more)

    def _flush_late(self) -> None:
        self._flush_due = False
        if not self._waits:
            # Else more is read in the next turn, and answered together with this.
            self._flush()

    def _flush(self) -> None:
        self._flush_due = False
        if self._cork:
            data = b"".join(self._cork)
            self._cork.clear()
            self._corked = 0
            self._send(data)

    # Waiting: each waiter has a future of its own, so that cancelling one leaves the others alone

    async def _wait_until_writable(self) -> None:
        """Wait for the client, and behind everybody who waits for it already; return when the WebSocket is closed."""
        waiter = self.service.create_future()
        self._writers.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._writers:
                self._writers.remove(waiter)
                # Once this one has written, or failed to.
                self.service.loop.call_soon(self._wake_writer)

    def _wake_writer(self) -> None:
        """Let the first one write. It stays in the list until it has its turn, so that nobody comes between."""
        if self._writers and self.stream.writable and not self._writers[0].done():
            self._writers[0].set_result(None)

    async def _take_portion(self) -> None:
        # An application that never waits for anything else would keep the loop to itself, and nobody could even tell
        # it that its client is gone.
        self._portion = PORTION
        await self._share.spend(PORTION)

    async def _deflated(self, deflater: Deflater, payload: bytes) -> bytes:
        """Deflate a long message piece by piece, while everybody else who sends waits; useless when the state has
        changed meanwhile."""
        place = self.service.create_future()
        self._writers.insert(0, place)
        pieces = []
        try:
            for at in range(0, len(payload), DEFLATE_PIECE):
                if self.state != OPEN:
                    break
                piece = payload[at : at + DEFLATE_PIECE]
                pieces.append(deflater.begin(piece))
                await self._share.spend(len(piece) >> DEFLATE_SHIFT)
            pieces.append(deflater.end())
        except BaseException:
            deflater.forget()
            raise
        finally:
            if place in self._writers:
                self._writers.remove(place)
                self.service.loop.call_soon(self._wake_writer)
        return b"".join(pieces)


REJECTED = BadRequest("the application refused the WebSocket", status=403, code="POUNCE_WS_REJECTED")


def bad_message(message: str) -> AppError:
    return AppError(message, code="POUNCE_APP_BAD_MESSAGE")


def _wake(waiters: list[asyncio.Future[None]]) -> None:
    if waiters:
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        waiters.clear()
