"""WebTransportExchange: one session, and its ASGI `receive` and `send`; `docs/webtransport.md` describes the scope.

Theory of operation.

    CONNECTING ──accept──▶ OPEN ──closed by either end, stream lost, the application ends──▶ CLOSED
        └──close, denial, no answer──▶ DENIED: an HttpExchange has the stream, and answers the request

The request's own stream carries capsules and nothing else; streams and datagrams come by `Sessions`. What the
application is to be told waits in one queue, in which a stream stands once when there is something to be read on it,
however much: so the streams of a session take turns, and none keeps the others waiting. What has arrived on a stream
counts against what the connection may let wait (`windows.py`) until the application asks for it. Datagrams for which
the application has no time are dropped.

An application that takes part in flow control gives `stream_window` when it accepts: then a stream is read no further
than that beyond what the application said it has `consumed`.

What the application was not told of a stream that its client has given up, it never hears of.
"""

import asyncio
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any

from pounce.errors import AppError, BadRequest, ClientGone, PounceError, comes_from_client_gone
from pounce.exchange.crossing import is_closed_with, running_loop
from pounce.exchange.error_pages import app_failed, app_gave_no_answer, shutting_down
from pounce.exchange.http import HttpExchange
from pounce.exchange.refusing import Refusing
from pounce.exchange.scope import http_scope
from pounce_h3.capsules import CLOSE_SESSION, DATAGRAM, DRAIN_SESSION, BadCapsule, Capsule, Capsules, capsule
from pounce_h3.codes import H3_MESSAGE_ERROR, application_code
from pounce_h3.session_stream import OVER, SessionStream
from pounce_h3.webtransport.messages import (
    bad_message,
    check_fields,
    close_of,
    code_of,
    data_of,
    number_of,
    subprotocol_of,
    window_of,
)

if TYPE_CHECKING:
    from pounce.exchange.service import Service
    from pounce.plugin import ASGIApp, Headers, RequestHead
    from pounce_h3.sessions import Sessions
    from pounce_h3.stream import H3Stream
    from pounce_h3.webtransport.handshake import Handshake

__all__ = ["WebTransportExchange"]

VERSION = "0.1"
"""Of the scope."""
PIECE = 65536
"""Bytes of a stream in one message."""
PORTION = 16
"""Messages that an application may take or send before it has to take as many steps from its connection's share."""

CONNECTING, OPEN, CLOSED, DENIED = range(4)
STATES = ("connecting", "open", "closed", "denied")

REJECTED = BadRequest("the application refused the session", status=403, code="POUNCE_WT_REJECTED")


class WebTransportExchange(Refusing):
    """One session. Observers read it as a `plugin.Completed`; bytes are those of streams and datagrams."""

    queued = 0.0
    close_code = None

    __slots__ = (
        "_capsules",
        "_closed_by_app",
        "_connect_due",
        "_datagrams",
        "_datagrams_max",
        "_drain_over",
        "_draining",
        "_eof",
        "_given_out",
        "_handshake",
        "_held",
        "_highest",
        "_http",
        "_portion",
        "_queue",
        "_readers",
        "_sessions",
        "_share",
        "_streams",
        "_told",
        "_waits",
        "_window",
        "_writers",
        "broken",
        "bytes_received",
        "bytes_sent",
        "head",
        "running",
        "service",
        "started",
        "state",
        "status",
        "stream",
    )

    stream: H3Stream

    def __init__(
        self, service: Service, head: RequestHead, stream: H3Stream, sessions: Sessions, handshake: Handshake
    ) -> None:
        stream.exchange = self
        self.stream = stream
        self.service = service
        self.head = head
        self.started = monotonic()
        self.status = 0
        self.bytes_sent = self.bytes_received = 0
        self.broken = False
        self.running = False
        self.state = CONNECTING
        self._handshake = handshake
        self._sessions = sessions
        self._share = stream.connection.share
        self._http: HttpExchange | None = None
        self._connect_due = True
        self._portion = PORTION
        self._capsules = Capsules()
        self._held = 0
        """Bytes of capsules that were not `consumed()`."""
        self._waits = False
        """Reading of capsules goes on in the connection's next turn."""
        self._eof = False
        self._streams: dict[int, SessionStream] = {}
        """Those of which the application may still hear or say something."""
        self._highest = [-1, -1, -1, -1]
        """The highest stream of each kind that there was."""
        self._queue: deque[dict[str, Any] | SessionStream] = deque()
        self._datagrams = 0
        """Those in the queue."""
        self._datagrams_max = service.config.http3_webtransport_datagram_queue
        self._readers: list[asyncio.Future[None]] = []
        self._writers: dict[int, list[asyncio.Future[None]]] = {}
        self._window = 0
        self._draining = False
        self._drain_over: asyncio.TimerHandle | None = None
        self._told: tuple[int | None, str] | None = None
        """What the application is told at the end."""
        self._closed_by_app = self._given_out = False
        sessions.add(stream.id, self)

    # Events from the wire: the stream of the request

    def data_received(self, data: bytes) -> None:
        if self.state != OPEN:
            self.stream.consumed(len(data))
            return
        self._held += len(data)
        self._capsules.receive(data)
        if not self._waits:
            self._read_capsules()

    def eof_received(self, trailers: Headers | None = None) -> None:
        if self.state == CONNECTING:
            self.half_closed()
        elif self.state == OPEN:
            self._eof = True
            if not self._waits:
                self._read_capsules()

    def half_closed(self) -> None:
        # What ends its half before there is an answer wants no session.
        self.stream.reset()
        self._end(None, "")

    def resume_writing(self) -> None:
        """Of capsules there are never so many that anybody waits."""

    def stream_lost(self, exc: Exception | None) -> None:
        if self.state == CONNECTING and isinstance(exc, BadRequest):
            self.service.count(exc.code, "%s", exc.message)
            self._deny(exc)
        elif self.state == CONNECTING or self.state == OPEN:
            self.broken = True
            self._end(None, "")

    def _read_capsules(self) -> None:
        try:
            while self.state == OPEN:
                found = self._capsules.next()
                if found is None:
                    self._all_read()
                    return
                self._take(found)
                self._share.left -= 1
                if self._share.left <= 0:
                    self._waits = True
                    self._share.later(self._read_on)
                    return
        except BadCapsule as exc:
            self.service.count("webtransport_malformed", "WebTransport: %s", exc)
            self._break_off()

    def _read_on(self) -> None:
        self._waits = False
        self._read_capsules()

    def _all_read(self) -> None:
        held, self._held = self._held, 0
        self.stream.consumed(held)
        if self._eof:
            if self._capsules.is_within:
                raise BadCapsule("the stream of the session ends inside a capsule")
            # draft-ietf-webtrans-http3 6: as if it had been closed with code 0 and no reason.
            self._end_stream(b"")
            self._end(0, "")

    def _take(self, found: Capsule) -> None:
        if found.kind == CLOSE_SESSION:
            self._end_stream(b"")
            self._end(int.from_bytes(found.payload[:4]), found.payload[4:].decode("utf-8", "replace"))
        elif found.kind == DRAIN_SESSION:
            self._tell_drain()
        elif found.kind == DATAGRAM:
            self.datagram_received(found.payload)

    def _break_off(self) -> None:
        """The client broke the protocol of the session (RFC 9297 3.3)."""
        self.broken = True
        self._end(None, "")
        self.stream.fail(H3_MESSAGE_ERROR)

    # Events from the wire: streams and datagrams

    def datagram_received(self, data: bytes) -> None:
        self.bytes_received += len(data)
        if self._datagrams >= self._datagrams_max:
            self.service.count("webtransport_datagrams_dropped")
            return
        self._datagrams += 1
        self._tell({"type": "webtransport.datagram.receive", "data": data})

    def stream_opened(self, stream: SessionStream) -> None:
        self._keep(stream)
        self._make_ready(stream)

    def stream_readable(self, stream: SessionStream) -> None:
        if not stream.is_queued:
            self._make_ready(stream)

    def stream_reset(self, stream: SessionStream, code: int) -> None:
        if stream.is_queued:
            stream.is_queued = False
            self._queue.remove(stream)
        if stream.seen:
            self._tell({"type": "webtransport.stream.reset", "stream": stream.id, "code": application_code(code)})
        else:
            stream.reset(0)
        self._look_whether_over(stream)

    def stream_stopped(self, stream: SessionStream, code: int) -> None:
        if stream.seen:
            self._tell({"type": "webtransport.stream.stop", "stream": stream.id, "code": application_code(code)})
        self._wake_writers(stream.id)
        self._look_whether_over(stream)

    def stream_writable(self, stream: SessionStream) -> None:
        self._wake_writers(stream.id)

    def _keep(self, stream: SessionStream) -> None:
        self._streams[stream.id] = stream
        kind = stream.id & 3
        self._highest[kind] = max(self._highest[kind], stream.id)

    def _make_ready(self, stream: SessionStream) -> None:
        if self._room(stream) or not stream.readable:
            stream.is_queued = True
            self._queue.append(stream)
            self._wake_readers()

    def _room(self, stream: SessionStream) -> int:
        """Bytes that the application may be given of it."""
        return min(self._window - stream.unconsumed, PIECE) if self._window else PIECE

    def _tell(self, message: dict[str, Any]) -> None:
        self._queue.append(message)
        self._wake_readers()

    def _look_whether_over(self, stream: SessionStream) -> None:
        if stream.reading == OVER and stream.writing == OVER:
            self._streams.pop(stream.id, None)

    def _wake_readers(self) -> None:
        if self._readers:
            wake(self._readers)

    def _wake_writers(self, stream_id: int) -> None:
        waiters = self._writers.pop(stream_id, None)
        if waiters is not None:
            wake(waiters)

    # The application

    async def run(self, app: ASGIApp) -> None:
        """Run the application to its end and settle what it leaves behind."""
        self.running = True
        try:
            await app(self._scope(), self.receive, self.send)
        except asyncio.CancelledError:
            self._settle(shutting_down(), failed=False)
            raise
        except BaseException as exc:
            if is_closed_with(self.service.loop, exc):
                raise
            # Whatever else an application raises ends here.
            is_ours = self._told is None or not comes_from_client_gone(exc)
            if is_ours:
                self.service.app_failed(exc)
            self._settle(app_failed(), failed=is_ours)
        else:
            if self.state == CONNECTING:
                self.service.count("app_error")
                self.service.log.error("ASGI application returned without accepting or closing the session")
            self._settle(app_gave_no_answer(), failed=False)
        finally:
            self.running = False

    def _scope(self) -> dict[str, Any]:
        scope = http_scope(self.service, self.head, self.stream)
        scope["type"] = "webtransport"
        scope["asgi"]["spec_version"] = VERSION
        scope["subprotocols"] = self._handshake.subprotocols
        del scope["method"]
        extensions = scope["extensions"]
        for name in [name for name in extensions if name.startswith("http.")]:
            del extensions[name]
        extensions["webtransport.http.response"] = {}
        extensions["webtransport.stream.window"] = {}
        return scope

    def _settle(self, error: PounceError, failed: bool) -> None:
        """The application is gone: end what it left open."""
        if self.state == CONNECTING:
            self._deny(error)
        elif self._http is not None:
            self._http.settle(error)
        elif self.state == OPEN:
            self._closed_by_app = True
            if failed:
                # Its client sees that this is no end in good order.
                self.broken = True
                self.stream.reset()
                self._end(None, "")
            else:
                self._close(0, "")
        self._forget_queue()

    async def receive(self) -> dict[str, Any]:
        """The next message; waits until there is one.

        Raises `ClientGone` when `webtransport.disconnect` was given out before.
        """
        if running_loop() is not self.service.loop:
            return await self.service.crossing.call(self.receive, undo=self._put_back)
        if self._connect_due:
            self._connect_due = False
            return {"type": "webtransport.connect"}
        self._portion -= 1
        if not self._portion:
            # Before a message is taken: this may be cancelled.
            await self._take_portion()
        while not self._queue or self.state == CONNECTING:
            if self._http is not None:
                return await self._denied()
            if self._told is not None:
                return self._last_word()
            await self._wait(self._readers)
        item = self._queue.popleft()
        if not isinstance(item, SessionStream):
            if item["type"] == "webtransport.datagram.receive":
                self._datagrams -= 1
            return item
        return self._from(item)

    def _from(self, stream: SessionStream) -> dict[str, Any]:
        stream.is_queued = False
        stream.seen = True
        data, is_last = stream.take(self._room(stream))
        self.bytes_received += len(data)
        if self._window:
            stream.unconsumed += len(data)
        if stream.readable:
            self._make_ready(stream)
        if is_last:
            self._look_whether_over(stream)
        return {
            "type": "webtransport.stream.receive",
            "stream": stream.id,
            "bidirectional": stream.is_bidirectional,
            "data": data,
            "end_stream": is_last,
        }

    def _last_word(self) -> dict[str, Any]:
        assert self._told is not None
        if self._given_out:
            raise ClientGone("the session is closed, and the application was told")
        self._given_out = True
        code, reason = self._told
        return {"type": "webtransport.disconnect", "code": code, "reason": reason}

    def _put_back(self, message: dict[str, Any]) -> None:
        """A message was taken for somebody who does not want it any more: the next one gets it."""
        kind = message["type"]
        if kind == "webtransport.connect":
            self._connect_due = True
        elif kind == "webtransport.disconnect":
            self._given_out = False
        else:
            if kind == "webtransport.datagram.receive":
                self._datagrams += 1
            self._queue.appendleft(message)
        self._wake_readers()

    async def _denied(self) -> dict[str, Any]:
        """Wait until the answer to the request has left."""
        assert self._http is not None
        while (await self._http.receive())["type"] != "http.disconnect":
            pass
        self._told = None, ""
        return self._last_word()

    async def _wait(self, waiters: list[asyncio.Future[None]]) -> None:
        waiter = self.service.create_future()
        waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in waiters:
                waiters.remove(waiter)
            raise

    async def _take_portion(self) -> None:
        # An application that never waits for anything else would keep the loop to itself.
        self._portion = PORTION
        await self._share.spend(PORTION)

    async def send(self, message: dict[str, Any]) -> None:
        """Take an ASGI message; waits while the client is slow to take what was sent on the same stream.

        Raises `ClientGone` when the session, or the stream, is gone; `AppError` for a message that is out of order or
        wrong.
        """
        if running_loop() is not self.service.loop:
            await self.service.crossing.call(self.send, message)
            return
        kind = message["type"]
        if self.state != OPEN:
            await self._send_unopened(kind, message)
        elif kind == "webtransport.stream.send":
            await self._send_on_stream(message)
        elif kind == "webtransport.datagram.send":
            data = data_of(message)
            if self._sessions.send_datagram(self.stream.id, data):
                self.bytes_sent += len(data)
        elif kind == "webtransport.stream.open":
            await self._open_stream(message)
        else:
            self._send_other(kind, message)
        self._portion -= 1
        if self._portion <= 0:
            await self._take_portion()

    async def _send_unopened(self, kind: str, message: dict[str, Any]) -> None:
        if self.state == CONNECTING:
            if kind == "webtransport.accept":
                self._accept(message)
            elif kind == "webtransport.close":
                self._deny(REJECTED)
            elif kind == "webtransport.http.response.start":
                http = self._hand_over()
                await http.send({**message, "type": "http.response.start"})
            else:
                raise self._out_of_order(kind)
        elif self._http is not None and kind == "webtransport.http.response.body":
            await self._http.send({**message, "type": "http.response.body"})
        elif self.state == CLOSED:
            raise ClientGone("the session is closed")
        else:
            raise self._out_of_order(kind)

    async def _send_on_stream(self, message: dict[str, Any]) -> None:
        stream = self._stream_of(message)
        data, is_last = data_of(message, b""), bool(message.get("end_stream"))
        if stream.writing == OVER and not stream.is_stopped:
            raise bad_message(f"webtransport.stream.send is out of order: stream {stream.id} was ended, or is not ours")
        while not stream.writable and stream.writing != OVER and self.state == OPEN:
            await self._wait(self._writers.setdefault(stream.id, []))
        if stream.writing == OVER or self.state != OPEN:
            raise ClientGone(f"stream {stream.id} is gone")
        self.bytes_sent += len(data)
        stream.write(data, is_last)
        self._look_whether_over(stream)

    async def _open_stream(self, message: dict[str, Any]) -> None:
        given = message.get("urgency")
        own = self.stream.priority
        urgency = own[0] if given is None else number_of(message, "urgency")
        if urgency > 7:
            raise bad_message(f"urgency is a number from 0, the most urgent, to 7 (got {given!r})")
        unidirectional = not message.get("bidirectional", False)
        while not self._sessions.may_open(unidirectional):
            await self._sessions.wait_to_open()
            if self.state != OPEN:
                raise ClientGone("the session is closed")
        # Streams of a session with one urgency take turns.
        stream = self._sessions.open_stream(self.stream.id, self, unidirectional, (urgency, True))
        self._keep(stream)
        self._tell(
            {
                "type": "webtransport.stream.opened",
                "stream": stream.id,
                "bidirectional": stream.is_bidirectional,
                "token": message.get("token"),
            }
        )

    def _send_other(self, kind: str, message: dict[str, Any]) -> None:
        if kind == "webtransport.stream.reset":
            stream = self._stream_of(message)
            stream.reset(code_of(message))
            self._wake_writers(stream.id)
            self._look_whether_over(stream)
        elif kind == "webtransport.stream.stop":
            stream = self._stream_of(message)
            code = code_of(message)
            if stream.is_queued:
                stream.is_queued = False
                self._queue.remove(stream)
            stream.stop(code)
            self._look_whether_over(stream)
        elif kind == "webtransport.stream.consumed":
            self._consumed(message)
        elif kind == "webtransport.drain":
            self.drain_client()
        elif kind == "webtransport.close":
            self._closed_by_app = True
            self._close(*close_of(message))
        else:
            raise self._out_of_order(kind)

    def _consumed(self, message: dict[str, Any]) -> None:
        if not self._window:
            raise bad_message("webtransport.stream.consumed without the stream_window of webtransport.accept")
        size = number_of(message, "size")
        stream = self._streams.get(number_of(message, "stream"))
        if stream is None:
            # It has been read to its end.
            return
        if size > stream.unconsumed:
            raise bad_message(f"{size} bytes consumed, of {stream.unconsumed} that were received")
        stream.unconsumed -= size
        if stream.readable and not stream.is_queued:
            self._make_ready(stream)

    def _stream_of(self, message: dict[str, Any]) -> SessionStream:
        number = number_of(message, "stream")
        stream = self._streams.get(number)
        if stream is None:
            if number <= self._highest[number & 3]:
                raise ClientGone(f"stream {number} is over")
            raise bad_message(f"there is no stream {number}")
        return stream

    def _out_of_order(self, kind: str) -> AppError:
        return bad_message(f"{kind} is out of order: the session is {STATES[self.state]}")

    def _accept(self, message: dict[str, Any]) -> None:
        subprotocol = subprotocol_of(message, self._handshake.subprotocols)
        window = window_of(message)
        given, _ = self.service.response_headers.complete(message.get("headers") or (), self.stream.connection)
        check_fields(given)
        if self.service.draining:
            self._deny(shutting_down())
            return
        self._window = window
        self.stream.tunnel(self._handshake.answer(subprotocol) + given)
        self.state = OPEN
        self.status = 200
        service = self.service
        service.on_drain.add(self.drain)
        service.count("webtransport_sessions")
        service.gauges["webtransport_open"] = service.gauges.get("webtransport_open", 0) + 1
        service.upgraded(self)
        self._wake_readers()

    def _hand_over(self) -> HttpExchange:
        """Let an HttpExchange answer the request; observers see that one."""
        self._sessions.remove(self.stream.id, self)
        http: HttpExchange = self.service.exchange_class(self.service, self.head, self.stream)
        http.started = self.started
        self._http = http
        self.state = DENIED
        self._forget_queue()
        self._wake_readers()
        return http

    # Ending

    def _close(self, code: int, reason: str) -> None:
        """Close the session."""
        self._end_stream(capsule(CLOSE_SESSION, code.to_bytes(4) + reason.encode()))
        self._end(code, reason)

    def _end_stream(self, last: bytes) -> None:
        """End our half of the stream of the request."""
        self.stream.write(last, False)

    def _end(self, code: int | None, reason: str) -> None:
        """The session is over, for whatever reason."""
        if self.state == CLOSED:
            return
        opened = self.state == OPEN
        self.state = CLOSED
        self._told = code, reason
        service = self.service
        self._sessions.remove(self.stream.id, self)
        if self._closed_by_app:
            self._forget_queue()
        else:
            self._keep_what_is_whole()
        if self._held:
            held, self._held = self._held, 0
            self.stream.consumed(held)
        if self._drain_over is not None:
            self._drain_over.cancel()
            self._drain_over = None
        if opened:
            service.on_drain.discard(self.drain)
            service.gauges["webtransport_open"] -= 1
        service.completed(self)
        self._wake_readers()
        for stream_id in tuple(self._writers):
            self._wake_writers(stream_id)

    def _forget_queue(self) -> None:
        """Nobody will take what is in there."""
        self._queue.clear()
        for stream in tuple(self._streams.values()):
            stream.discard()
        self._streams.clear()

    def _keep_what_is_whole(self) -> None:
        """Nothing more will come of streams that have not ended."""
        for stream in tuple(self._streams.values()):
            if not stream.ended:
                stream.discard()
                del self._streams[stream.id]
        self._queue = deque(item for item in self._queue if not isinstance(item, SessionStream) or item.ended)

    def drain_client(self) -> None:
        """Ask the client to come to an end (draft-ietf-webtrans-http3 4.6)."""
        if not self._draining:
            self._draining = True
            self.stream.write(capsule(DRAIN_SESSION), True)

    def _tell_drain(self) -> None:
        if not any(isinstance(item, dict) and item["type"] == "webtransport.drain" for item in self._queue):
            self._tell({"type": "webtransport.drain"})

    def drain(self) -> None:
        """The worker shuts down: both ends are asked to come to an end, and have some time for it."""
        self.drain_client()
        self._tell_drain()
        timeout = self.service.config.http3_webtransport_drain_timeout
        self._drain_over = self.service.loop.call_later(timeout, self._drain_ends)

    def _drain_ends(self) -> None:
        self._drain_over = None
        if self.state == OPEN:
            self._close(0, "server is shutting down")


def wake(waiters: list[asyncio.Future[None]]) -> None:
    """Let all of them go on."""
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
    waiters.clear()
