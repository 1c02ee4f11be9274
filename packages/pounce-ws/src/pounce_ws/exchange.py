"""WebSocketExchange: one WebSocket, and its ASGI `receive` and `send`.

Theory of operation.

    CONNECTING ──accept──▶ OPEN ──Close sent──▶ CLOSING ──Close received, or its deadline──▶ CLOSED
        │                    └─────Close received and answered, stream lost, 1002──────────────▲
        └──close, denial, no answer──▶ DENIED: an HttpExchange has the stream, and answers the handshake

Here it is decided what happens; each of these knows how, and has the state for it:

    input.py     what the client has sent, until the application takes it
    output.py    frames on their way to the client, and those who wait to send
    closing.py   what has ended the WebSocket, and who is told what
    pings.py     whether the client is still there
    messages.py  what the application gives, checked

A Close is an event in the order of the messages, and so is a breach of the protocol. The client is answered when the
application asks for the message after the last one, so that it can still answer that one, or when it has taken too long
to ask. What the application is told at the end is given out once, after the messages before it.

It is one thing, the diagram above, though it is long. `data_received()`, `receive()` and `send()` do for most messages
what the rooms would do, on the state of those: a call would cost more than the work.
"""

import asyncio
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from pounce.errors import AppError, BadRequest, ClientGone, PounceError, comes_from_client_gone
from pounce.exchange.crossing import is_closed_with, running_loop
from pounce.exchange.error_pages import app_failed, app_gave_no_answer, shutting_down
from pounce.exchange.http import HttpExchange
from pounce.exchange.refusing import Refusing
from pounce.exchange.scope import websocket_scope
from pounce_ws.closing import ABNORMAL, Closing, answer_to
from pounce_ws.deflate import Deflater, Inflater
from pounce_ws.frames import BINARY, CLOSE, FIN, PING, RSV1, TEXT, Control, MessageReader, close_frame, frame
from pounce_ws.input import MESSAGE_COST, QUEUE_HIGH, QUEUE_LOW, USED_UP, Input, wake
from pounce_ws.messages import bad_message, check_fields, close_of, data_of, subprotocol_of, text_of
from pounce_ws.output import DEFLATE_PIECE, Output
from pounce_ws.pings import Pings
from pounce_ws.sockets import WebSockets
from pounce_ws.violation import Violation

if TYPE_CHECKING:
    from pounce.exchange.service import Service
    from pounce.plugin import ASGIApp, Headers, RequestHead, Stream
    from pounce_ws.handshake import Handshake

__all__ = ["WebSocketExchange"]

PORTION = 16
"""Messages that an application may take or send before it has to take as many steps from its connection's share."""

WHOLE_TEXT, WHOLE_BINARY = FIN | TEXT, FIN | BINARY

# See the diagram above. Numbers: `pounce.immortal` tells why not an Enum.
CONNECTING, OPEN, CLOSING, CLOSED, DENIED = range(5)
STATES = ("connecting", "open", "closing", "closed", "denied")


class WebSocketExchange(Refusing):
    """One WebSocket. Observers read it as a `plugin.Completed`; bytes are those of frames, heads included."""

    queued = 0.0

    __slots__ = (
        "_busy",
        "_closing",
        "_connect_due",
        "_handshake",
        "_http",
        "_input",
        "_output",
        "_pings",
        "_portion",
        "_share",
        "_sockets",
        "bytes_received",
        "deadline",
        "head",
        "incomplete",
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
        self.messages_sent = 0
        self.bytes_received = 0
        self.incomplete = 0
        """Bytes of a message that has begun, as they were counted last."""
        self.running = False
        """The application has not returned; wires read it."""
        self.state = CONNECTING
        self.deadline = inf
        """Loop time at which `deadline_passed()` is due."""
        self._handshake = handshake
        self._sockets = WebSockets.of(service)
        self._http: HttpExchange | None = None
        self._share = share = stream.connection.share
        self._pings = Pings(config)
        inflater = Inflater(deflate) if deflate is not None else None
        reader = MessageReader(config.websocket_max_message_size, inflater, share)
        self._input = Input(reader, share, self._pings, service.loop)
        self._output = Output(service, stream, self._input, Deflater(deflate) if deflate is not None else None)
        self._closing = Closing()
        self._connect_due = True
        self._busy = False
        """The application has a message, and has not asked for the next one."""
        self._portion = PORTION

    @property
    def messages_received(self) -> int:
        return self._input.messages_received

    @property
    def bytes_sent(self) -> int:
        return self._output.bytes_sent

    @property
    def close_code(self) -> int | None:
        return self._closing.code

    @property
    def broken(self) -> bool:
        return self._closing.broken

    # Events from the wire

    def data_received(self, data: bytes) -> None:
        if self.state == CLOSED:
            self._output.consumed(len(data))
            return
        size = len(data)
        self._pings.heard = True
        self.bytes_received += size
        input = self._input
        input.held += size
        input.reader.receive_data(data)
        if self.state != CONNECTING:
            self._read()

    def eof_received(self, trailers: Headers | None = None) -> None:
        if self.state == CONNECTING:
            self.half_closed()
        elif self.state != CLOSED:
            self._input.eof = True
            if not self._input.held and self._closing.final is None:
                self._end_stream(ABNORMAL)

    def half_closed(self) -> None:
        # What ends its half before the handshake is over wants no WebSocket.
        self._output.reset()
        self._end(ABNORMAL)

    def resume_writing(self) -> None:
        self._output.resume(self.state == OPEN)

    def stream_lost(self, exc: Exception | None) -> None:
        if self.state == CLOSED:
            return
        if self.state == CONNECTING and isinstance(exc, BadRequest):
            self.service.count(exc.code, "%s", exc.message)
            self._deny(exc)
            return
        self._output.lose()
        held, final = self._input.held, self._closing.final
        self._end(ABNORMAL)
        # What has arrived is still read, as the application asks for it.
        self._input.held = held
        if final is not None:
            self._answer(final)

    def _read(self) -> None:
        """Take messages and control frames from the reader, as far as the application keeps up."""
        input, closing = self._input, self._closing
        if input.waits:
            return
        while input.held and closing.final is None and (input.queued < QUEUE_HIGH or self.state == CLOSING):
            try:
                event = input.read()
            except Violation as violation:
                self._finally(violation)
                continue
            if event is None:
                held, input.held = input.held, 0
                if self.state != CLOSED:
                    self._output.consumed(held)
                    if input.reader.payload.size != self.incomplete:
                        self._count_incomplete()
                    if input.eof:
                        self._end_stream(ABNORMAL)
                return
            if isinstance(event, Control):
                self._control(event)
                self._share.left -= 1
                if self._share.left <= 0:
                    event = USED_UP
            if event == USED_UP:
                self._read_later()
                return

    def _count_incomplete(self) -> None:
        size = self._input.reader.payload.size
        if size != self.incomplete and self.state != CLOSED:
            self._sockets.grown(self, size)

    def _read_later(self) -> None:
        self._input.waits = True
        self._share.later(self._read_on)
        self._count_incomplete()

    def _read_on(self) -> None:
        self._input.waits = False
        self._sockets.call(self._read)
        if not self._input.waits:
            self._output.flush()
        if self.state == CLOSED:
            # Its stream was lost: whoever waits for what had arrived before may have nothing to wait for.
            wake(self._input.waiters)

    def _control(self, event: Control) -> None:
        if event.opcode == CLOSE:
            self._finally(event)
        elif event.opcode == PING and self.state == OPEN:
            self._output.pong(event.payload)

    def _finally(self, event: Control | Violation) -> None:
        """A Close, or a breach of the protocol: answer it now, or when the application is through with what it has."""
        if self.state == OPEN and (self._busy or self._input.queue):
            self._closing.final = event
            self.deadline = self.service.loop.time() + self.service.config.websocket_close_timeout / 2
        else:
            self._answer(event)

    def _answer(self, event: Control | Violation) -> None:
        """Answer what has ended the reading."""
        self._closing.final = None
        answer = answer_to(event)
        if answer.is_violation:
            self.service.count(f"websocket_closed_{answer.code}", "WebSocket closed: %s", answer.reason)
        if self.state == OPEN and not answer.is_last:
            self._begin_close(answer.code, answer.reason)
        elif self.state == OPEN:
            self._output.last(close_frame(answer.code, answer.reason), more=False)
            self._end(answer.code, answer.told)
        elif self.state == CLOSING:
            self._end_stream(answer.code)
        else:
            # The stream was lost, and only now the application has come to what the client sent last.
            self._input.held = 0
            self._closing.told = answer.code, answer.told

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
        except BaseException as exc:
            if is_closed_with(self.service.loop, exc):
                raise
            # Whatever else an application raises ends here.
            if self._closing.told is None or not comes_from_client_gone(exc):
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
        if self._closing.told is None:
            # Else the client was the first, which is what those who still send to it should hear.
            self._closing.by_app = True
        self._input.drop()
        if self.state == CONNECTING:
            self._deny(error)
        elif self._http is not None:
            self._http.settle(error)
        elif self.state == OPEN:
            if self._closing.final is not None:
                self._answer(self._closing.final)
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
        input = self._input
        queue = input.queue
        while not queue:
            if self._http is not None:
                return await self._denied()
            if input.held and self.state != CONNECTING:
                self._read()
                if queue:
                    break
            closing = self._closing
            if closing.final is not None:
                self._answer(closing.final)
            if closing.told is not None and not (input.waits and input.held and self.state == CLOSED):
                return closing.last_word()
            waiter = self.service.create_future()
            input.waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter in input.waiters:
                    input.waiters.remove(waiter)
                raise
        message = queue.popleft()
        input.queued -= len(message) + MESSAGE_COST
        self._busy = True
        if input.held and input.queued <= QUEUE_LOW:
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
            self._closing.put_back()
        elif not self._closing.by_app:
            self._input.put_back(message["text"] if "text" in message else message["bytes"])
        wake(self._input.waiters)

    async def _denied(self) -> dict[str, Any]:
        """Wait until the answer to the handshake has left."""
        assert self._http is not None
        while (await self._http.receive())["type"] != "http.disconnect":
            pass
        self._closing.told = ABNORMAL, ""
        return self._closing.last_word()

    async def send(self, message: dict[str, Any]) -> None:
        """Take an ASGI message; waits while the client is slow.

        Raises `ClientGone` when the WebSocket was closed, `AppError` for a message that is out of order or wrong.
        """
        if running_loop() is not self.service.loop:
            await self.service.crossing.call(self.send, message)
            return
        kind = message["type"]
        stream, output = self.stream, self._output
        if (not stream.writable or output.writers) and kind == "websocket.send" and self.state == OPEN:
            await output.wait_until_writable()
        if kind != "websocket.send" or self.state != OPEN:
            await self._send_other(kind, message)
            return
        text, payload = message.get("text"), message.get("bytes")
        if payload is None:
            if type(text) is not str:
                text = text_of(text)
            first = WHOLE_TEXT
            payload = text.encode()
        else:
            if text is not None:
                raise bad_message("websocket.send has both text and bytes")
            if type(payload) is not bytes:
                payload = data_of(payload)
            first = WHOLE_BINARY
        if output.deflater is not None and len(payload) >= output.deflate_min:
            first |= RSV1
            if len(payload) <= DEFLATE_PIECE:
                payload = output.deflater.deflate(payload)
            else:
                payload = await output.deflated(output.deflater, payload)
                if self.state != OPEN:
                    await self._send_other(kind, message)
                    return
        self.messages_sent += 1
        if self._pings.idle_timeout:
            self._pings.last_message = self.service.loop.time()
        data = frame(first, payload)
        if output.queue or output.cork:
            output.gather(data, wait=bool(output.queue))
            if output.lost:
                raise ClientGone("the message could not be sent")
        else:
            output.bytes_sent += len(data)
            try:
                stream.write(data, True)
            except BaseException as exc:
                raise output.fail(exc) from exc
        self._portion -= 1
        if not self._portion:
            await self._take_portion()

    async def _take_portion(self) -> None:
        # An application that never waits for anything else would keep the loop to itself, and nobody could even tell
        # it that its client is gone.
        self._portion = PORTION
        await self._share.spend(PORTION)

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
            code, reason = close_of(message)
            self._closing.by_app = True
            self._input.drop()
            self._begin_close(code, reason)
        elif self._closing.told is not None and not self._closing.by_app:
            raise ClientGone("the WebSocket is closed")
        else:
            raise self._out_of_order(kind)

    def _out_of_order(self, kind: str) -> AppError:
        return bad_message(f"{kind} is out of order: the WebSocket is {STATES[self.state]}")

    def _with_id(self, fields: Headers) -> Headers:
        """The answer to the handshake has the id of the request, as others have."""
        name = self.service.config.request_id_header.lower().encode()
        number = self.head.extensions.get("request_id") if self.head.extensions is not None else None
        if number is None or any(each == name for each, _ in fields):
            return fields
        return [*fields, (name, str(number).encode())]

    def _accept(self, message: dict[str, Any]) -> None:
        """Accept the handshake."""
        subprotocol = subprotocol_of(message, self._handshake.subprotocols)
        given, _ = self.service.response_headers.complete(message.get("headers") or (), self.stream.connection)
        check_fields(given)
        if self.service.draining:
            self._deny(shutting_down())
            return
        try:
            fields = self._handshake.answer(subprotocol) + given
            if self.service.config.request_id:
                fields = self._with_id(fields)
            self.stream.tunnel(fields)
        except BaseException as exc:
            raise self._output.fail(exc) from exc
        self.state = OPEN
        self.status = 101 if self._handshake.accept is not None else 200
        self._pings.begin(self.service.loop.time())
        self.deadline = self._pings.deadline()
        self._sockets.opened(self)
        if self._input.held:
            self._read()

    def _hand_over(self) -> HttpExchange:
        """Let an HttpExchange answer the handshake; observers see that one."""
        http: HttpExchange = self.service.exchange_class(self.service, self.head, self.stream)
        http.started = self.started
        self._http = http
        self.state = DENIED
        wake(self._input.waiters)
        return http

    # Ending

    def _begin_close(self, code: int, reason: str) -> None:
        """Send a Close and wait for the client's, for as long as websocket_close_timeout."""
        if self.state != OPEN:
            return
        self._closing.begin(code, reason)
        if self._closing.final is not None:
            self._output.last(close_frame(code, reason), more=False)
            self._end(code, reason)
            return
        self.state = CLOSING
        self.deadline = self.service.loop.time() + self.service.config.websocket_close_timeout
        self._output.last(close_frame(code, reason), more=True)
        if self._output.lost:
            return
        self._input.reader.discard()
        if self.incomplete:
            self._sockets.grown(self, 0)
        self._wake_all()
        if self._input.held:
            self._read()

    def _end_stream(self, code: int) -> None:
        self._output.last(b"", more=False)
        self._end(code)

    def _end(self, code: int, reason: str = "") -> None:
        """The stream has ended, or is lost; nothing where it was lost before, in the attempt to end it."""
        if self.state == CLOSED:
            return
        opened = self.state != CONNECTING
        self._closing.end(code, reason)
        self.state = CLOSED
        self.deadline = inf
        self._input.held = 0
        if opened:
            self._sockets.ended(self)
        else:
            self._closing.code = None
            self.service.completed(self)
        self._wake_all()

    def _wake_all(self) -> None:
        wake(self._input.waiters)
        wake(self._output.writers)

    def give_up_message(self) -> None:
        """Keep nothing of the message that has begun, nor take another."""
        self._begin_close(1013, "too much is waiting")

    def drain(self) -> None:
        """The worker shuts down."""
        self._begin_close(1012, "server is shutting down")

    def deadline_passed(self, now: float) -> None:
        """`deadline` lies in the past."""
        pings = self._pings
        if self.state == CLOSING:
            self.service.count("websocket_close_timeout", "WebSocket: no Close within websocket_close_timeout")
            self._output.reset()
            self._end(ABNORMAL)
        elif self._closing.final is not None:
            self._answer(self._closing.final)
        elif pings.is_idle(now) and not self._input.waits:
            self.service.count("websocket_idle_timeout", "WebSocket: no message within websocket_idle_timeout")
            self._begin_close(1001, "no message for too long")
        elif pings.pong_is_missing(now, self._input.held):
            self.service.count("websocket_ping_timeout", "WebSocket: no pong within websocket_ping_timeout")
            self._begin_close(1011, "ping was not answered")
            # Who does not answer a ping will not answer a Close.
            if self.state == CLOSING:
                self._end_stream(1011)
        else:
            # A client that takes nothing has write_timeout to begin again.
            asks = pings.is_due(now) and self.stream.writable
            if asks:
                pings.ask(now)
            self.deadline = pings.deadline()
            if asks:
                self._output.write(frame(FIN | PING, b""))


REJECTED = BadRequest("the application refused the WebSocket", status=403, code="POUNCE_WS_REJECTED")
