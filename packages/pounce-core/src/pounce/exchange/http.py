"""HttpExchange: the incoming half of one HTTP request, and its ASGI `receive` and `send`.

Theory of operation. Two things run against each other: events of the wire (`data_received`, `eof_received`,
`stream_lost`) and messages of the application. Neither waits for the other except at two points: `receive()` when
there is nothing to give, and `send()` when the stream is not writable; each is one Future, made only when needed.

The answer goes through these states:

    WAITING ──start──▶ HELD ──first body──▶ STREAMING ──last body──▶ DONE
                         │                      └──(trailers promised)──▶ TRAILERS ──▶ DONE
                         └──body of an answer that has none (HEAD, 204, 205, 304)──▶ MUTED ──last body──▶ DONE

HELD keeps the head until the first piece of the body is there, so that a one-piece answer is one write and an
application that fails in between is still answered with 500; the worker's ticker sends a head that waits longer.
MUTED keeps the stream until the application ends its answer, so that one that never does still learns that the
client is gone.
Whatever state it is in, the stream may be lost; `_lost` then holds the reason for the application. A stream that raises
is lost too: how much of the answer has left nobody knows, so it is reset, visibly for the peer.

It is long, and one thing: every method below, whoever calls it, moves the same answer on, and has to see whether the
stream is lost meanwhile. What needs neither stands elsewhere: the scope, the fields of answers, error pages, what
crosses loops. Answers with fields of their own (`identified`, `timed`) and error applications are classes on top of it.
"""

import asyncio
import os
import stat
from time import monotonic
from typing import TYPE_CHECKING, Any

from pounce.contract.head import BODILESS, GET
from pounce.contract.stream import FileRange
from pounce.errors import AppError, BadRequest, ClientGone, PounceError, comes_from_client_gone, wrong_length
from pounce.exchange.crossing import is_closed_with, running_loop
from pounce.exchange.error_pages import SHUTTING_DOWN, app_failed, app_gave_no_answer, shutting_down
from pounce.exchange.scope import http_scope
from pounce.exchange.small_files import SMALL_FILE, SMALLER_FILE, read_at_once
from pounce.exchange.values import plain_bytes

if TYPE_CHECKING:
    from pounce.contract.head import Headers, RequestHead
    from pounce.contract.pieces import Response
    from pounce.contract.stream import Body, Stream
    from pounce.contract.wire import ASGIApp
    from pounce.exchange.host import Host

__all__ = ["HttpExchange"]

FILE_CHUNK = 262144
"""Bytes read at once where a wire cannot send files itself."""
PORTION = 16
"""Pieces of an answer that an application may send before it has to take as many steps from its connection's share."""


# Where the answer is; see the diagram above. Numbers: `immortal` tells why not Enums.
WAITING, HELD, STREAMING, MUTED, TRAILERS, DONE = range(6)
ANSWER_STATES = ("waiting", "held", "streaming", "muted", "trailers", "done")

# Where the request body is: still arriving, all here, or taken by the application to its end.
ARRIVING, COMPLETE, TAKEN = range(3)

CLIENT_GONE = "the client closed the connection"


class Returned(bytes):
    """A piece of the request body that was given out and put back: the wire has been told that it was consumed."""


class HttpExchange:
    """One request and its answer.

    Observers read it as a `plugin.Completed`; `bytes_sent` are those of the body. Wires read `running`: the application
    has not returned.

    So are `first_byte`, the `time.monotonic()` at which an answer has begun that was not over then, and
    `bytes_received`, those of the body of the request. Classes on top of this one may have a slot for `queued`, and one
    for `trace_id`: 32 hexadecimal digits.
    """

    close_code: int | None = None
    queued = 0.0
    trace_id: str | None = None

    __slots__ = (
        "_body",
        "_body_state",
        "_client_waits",
        "_completed",
        "_compressing",
        "_expected",
        "_file",
        "_half_closed",
        "_headers",
        "_lost",
        "_portion",
        "_readers",
        "_request_trailers",
        "_trailers",
        "_writers",
        "answer",
        "broken",
        "bytes_received",
        "bytes_sent",
        "first_byte",
        "head",
        "running",
        "service",
        "started",
        "status",
        "stream",
    )

    _headers: Headers
    """Of the answer, once it has a head."""

    def __init__(self, service: Host, head: RequestHead, stream: Stream) -> None:
        stream.exchange = self
        self.stream = stream
        self.service = service
        self.head = head
        self.started = monotonic()
        self.status = 0
        self.bytes_sent = 0
        self.bytes_received = 0
        self.first_byte: float | None = None
        self.broken = False
        self.running = False
        self.answer = WAITING
        self._body: list[bytes] | None = None
        self._body_state = COMPLETE if head.content_length == 0 else ARRIVING
        self._request_trailers: Headers | None = None
        self._client_waits = head.expect_continue
        self._expected: int | None = None
        self._file: int | None = None
        self._trailers: Headers | None = None
        self._lost: Exception | None = None
        self._half_closed = False
        self._completed = False
        # False where nothing is compressed, None until an answer has begun that may be; then its `send()`.
        self._compressing: Any = False
        self._portion = PORTION
        self._readers: list[asyncio.Future[None]] | None = None
        self._writers: list[asyncio.Future[None]] | None = None

    # Events from the wire

    def data_received(self, data: bytes) -> None:
        if self.answer == DONE or self._lost is not None:
            try:
                self.stream.consumed(len(data))
            except BaseException as exc:  # noqa: BLE001 - logged there
                self._stream_failed(exc)
            return
        self.bytes_received += len(data)
        if self.bytes_received > self.service.max_request_size > 0:
            self.stream_lost(self.service.too_large())
        else:
            if self._body is None:
                self._body = [data]
            else:
                self._body.append(data)
            if self._readers is not None:
                self._wake_readers()

    def eof_received(self, trailers: Headers | None = None) -> None:
        self._body_state = COMPLETE
        self._request_trailers = trailers
        if self._readers is not None:
            self._wake_readers()

    def whole_received(self, data: bytes) -> None:
        """All of the body, before the application has been started: as `data_received()` and `eof_received()` do."""
        self.bytes_received = count = len(data)
        self._body_state = COMPLETE
        if count > self.service.max_request_size > 0:
            self.stream_lost(self.service.too_large())
        elif data:
            self._body = [data]

    def half_closed(self) -> None:
        self._half_closed = True
        self._wake_readers()

    def resume_writing(self) -> None:
        self._close_left_file()
        self._wake_writers()
        if self.answer == DONE:
            self._complete()

    def disconnect(self) -> None:
        """The worker must end: have the application told, as far as it asks (see `Service.disconnect`)."""
        self._wake_readers()

    def stream_lost(self, exc: Exception | None) -> None:
        self._close_left_file()
        if self._lost is not None:
            return
        if isinstance(exc, BadRequest):
            self._answer_instead(exc)
        elif not self._completed:
            self.broken = True
            self._complete()
        self._lost = exc or ClientGone(CLIENT_GONE)
        if self._body_state == ARRIVING:
            # It is not given out any more, and its application may run for long.
            self._body = None
        self._wake_readers()
        self._wake_writers()

    def _answer_instead(self, error: BadRequest) -> None:
        """The peer is at fault: tell it so, or break off the answer that the application has begun."""
        if self.answer == WAITING or self.answer == HELD:
            self.service.count(error.code, "%s", error.message)
            response = self.service.error_pages.answer(error, self.head, self.stream)
            # How much more of it will come nobody knows, so the connection must not be promised to another request.
            response.headers.append((b"connection", b"close"))
            self.respond(response)
        elif self.answer != DONE:
            self._break_off()

    # The application

    async def run(self, app: ASGIApp) -> None:
        """Run an application to its end and settle what it leaves behind."""
        self.running = True
        if app is self.service.compressed:
            self._compressing = None
        try:
            await app(http_scope(self.service, self.head, self.stream), self.receive, self.send)
        except asyncio.CancelledError:
            self._app_ended("was cancelled before it completed its response")
            raise
        except BaseException as exc:
            if is_closed_with(self.service.loop, exc):
                raise
            # Whatever else an application raises ends here.
            self._app_failed(exc)
        else:
            if self.answer != DONE:
                self._app_ended("returned without completing its response", self.service.disconnects)
        finally:
            self.running = False

    def _app_failed(self, exc: BaseException) -> None:
        if self._lost is None or not comes_from_client_gone(exc):
            self.service.app_failed(exc)
        self.settle(app_failed(), exc)

    def _app_ended(self, how: str, told: bool = False) -> None:
        """`told` is true where the server has asked for it."""
        if self.answer == MUTED:
            self._end_muted()
        elif self.answer != DONE and self._lost is None:
            if not told:
                self.service.count("app_error")
                self.service.log.error("ASGI application %s%s", how, self._what_may_be_lost())
            self.settle(shutting_down() if self.service.draining else app_gave_no_answer())

    def _what_may_be_lost(self) -> str:
        """Why an answer that the application has given may not be here, as far as can be said."""
        names = [name for name in self.service.config.asgi_extensions if name != "early_hint"]
        if not names:
            return ""
        return (
            f" (POUNCE_APP_NO_RESPONSE). asgi_extensions offers {' and '.join(names)}: a middleware that does not know"
            " such a message drops it, and with it the answer"
        )

    def settle(self, error: PounceError, failure: BaseException | None = None) -> None:
        """End the answer that the application left open: with an error if nothing was sent, else visibly broken.

        `failure` is what the application raised.
        """
        if self._lost is not None:
            return
        if self.answer == WAITING or self.answer == HELD:
            if not self._answer_by_app(error, failure):
                self.respond(self.service.error_pages.answer(error, self.head, self.stream, failure))
        elif self.answer == MUTED:
            self._end_muted()
        elif self.answer != DONE:
            self._break_off()

    def _answer_by_app(self, error: PounceError, failure: BaseException | None) -> bool:
        """Leave the answer, and the stream with it, to the error application for it; False where there is none."""
        apps = self.service.error_apps
        if apps is None or error.code == SHUTTING_DOWN:
            return False
        found = apps.answer(self.service, error, self.head, self.stream, self.started, failure)
        if found:
            # This one is never completed: the other is.
            self.answer = DONE
            self._completed = True
            self._wake_readers()
        return found

    async def receive(self) -> dict[str, Any]:
        """The next `http.request` or `http.disconnect` message; waits until there is one."""
        if running_loop() is not self.service.loop:
            return await self.service.crossing.call(self.receive, undo=self._put_back)
        while self.answer != DONE:
            ended = self._body_state == COMPLETE
            if not ended and (not self._body or self._lost is not None):
                if await self._wait_for_message():
                    continue
                break
            pieces, self._body = self._body, None
            if not pieces:
                body, count = b"", 0
            elif len(pieces) == 1 and type(pieces[0]) is not Returned:
                body = pieces[0]
                count = len(body)
            else:
                count = sum([len(piece) for piece in pieces if type(piece) is not Returned])
                body = b"".join(pieces)
            message: dict[str, Any] = {"type": "http.request", "body": body, "more_body": not ended}
            if ended:
                self._body_state = TAKEN
                if self._request_trailers:
                    message["trailers"] = self._request_trailers
            if count and self._lost is None:
                try:
                    self.stream.consumed(count)
                except BaseException as exc:  # noqa: BLE001 - logged there
                    self._stream_failed(exc)
                    break
            return message
        return {"type": "http.disconnect"}

    async def _wait_for_message(self) -> bool:
        """Wait until more of the body may be here; false where there is none to come."""
        if self._half_closed and self._lost is None:
            # From here on the application believes the client to be gone, so the rest must agree.
            self.stream_lost(None)
            self._reset()
        # Half a body must never pass for a whole one: what is left of it is not given out.
        if self._lost is not None or self.service.disconnects:
            return False
        if self._client_waits:
            self._client_waits = False
            if self.answer == WAITING or self.answer == HELD:
                try:
                    self._inform(100, [])
                except ClientGone:
                    return False
        if self._readers is None:
            self._readers = []
        receivers = self.service.receivers
        receivers.add(self)
        try:
            await self._wait(self._readers)
        finally:
            if not self._readers:
                receivers.discard(self)
        return True

    def _put_back(self, message: dict[str, Any]) -> None:
        """A message was taken for somebody who does not want it any more: the next one gets it."""
        if message["type"] == "http.request":
            if message["body"]:
                self._body = [Returned(message["body"]), *(self._body or ())]
            if not message["more_body"]:
                self._body_state = COMPLETE
            self._wake_readers()

    async def send(self, message: dict[str, Any]) -> None:
        """Take an ASGI message; waits while the peer is slow.

        Raises `ClientGone` when the peer is gone, `AppError` for a message that is out of order or wrong.
        """
        if self._lost is not None:
            raise ClientGone(CLIENT_GONE) from self._lost
        if running_loop() is not self.service.loop:
            await self.service.crossing.call(self.send, message)
            return
        kind = message["type"]
        if self._compressing is not False:
            if self._compressing is not None:
                await self._compressing(message)
                return
            if kind == "http.response.start" and type(message.get("headers", ())) is not list:
                # More than one looks at them, and they may be had only once.
                message = {**message, "headers": list(message.get("headers", ()))}
        if kind == "http.response.start":
            self._send_start(message)
            if self._compressing:
                await self._compressing(message)
            return
        if kind == "http.response.body":
            # To ask whether it is there takes half as long as `get()`.
            if self._send_body(message.get("body", b""), "more_body" in message and message["more_body"]):
                await self._wait_for_turn()
        else:
            await self._pass_on(message)

    async def _pass_on(self, message: dict[str, Any]) -> None:
        """Take a message on the loop that this belongs to, after compression if there is any."""
        if self._lost is not None:
            raise ClientGone(CLIENT_GONE) from self._lost
        kind = message["type"]
        if kind == "http.response.start":
            self._send_start(message)
            return
        if kind == "http.response.body":
            self._send_body(message.get("body", b""), message.get("more_body", False))
        elif kind == "http.response.pathsend":
            await self._send_path(message["path"])
        elif kind == "http.response.zerocopysend":
            await self._send_open_file(message)
        elif kind == "http.response.trailers":
            self._send_trailers(message)
        elif kind == "http.response.early_hint":
            self._send_early_hint(message.get("links", ()))
            return
        elif kind == "pounce.response.sendfile":
            await self._send_part(message)
        else:
            raise AppError(f"unknown ASGI message {kind!r}", code="POUNCE_APP_BAD_MESSAGE")
        await self._wait_for_turn()

    async def _wait_for_turn(self) -> None:
        """Wait after a piece of the answer until another one may follow."""
        if not self.stream.writable:
            await self._wait_until_writable()
        elif self.answer != DONE:
            self._portion -= 1
            if not self._portion:
                # An application that never waits for anything else would keep the loop to itself, and nobody could
                # even tell it that its client is gone.
                self._portion = PORTION
                await self.stream.connection.share.spend(PORTION)

    def _send_start(self, message: dict[str, Any]) -> None:
        if self.answer != WAITING:
            raise self._out_of_order("http.response.start")
        status = message["status"]
        if type(status) is not int:
            status = int(status)
        if status < 200:
            if status < 102:
                raise AppError(f"status {status} cannot be sent by an application", code="POUNCE_APP_BAD_MESSAGE")
            self._inform(status, self.service.response_headers.checked(message.get("headers", ())))
            return
        if status > 999:
            raise AppError(f"{status} is not an HTTP status", code="POUNCE_APP_BAD_MESSAGE")
        service = self.service
        headers, expected = service.response_headers.complete(message.get("headers", ()), self.stream.connection)
        if self._compressing is None:
            compression: Any = service.compression
            if (expected is None or expected >= compression.min_size) and headers.left_for != status:
                if not compression.leaves(status, headers):
                    # It gives this, and what follows, to `_pass_on()`.
                    head = self.head
                    scope = {"type": "http", "method": head.method.decode("ascii"), "headers": head.headers}
                    self._compressing = compression.sender(scope, self._pass_on)
                    return
                headers.left_for = status
            self._compressing = False
        self._headers, self._expected = headers, expected
        if "trailers" in message and message["trailers"]:  # noqa: RUF019 - twice as fast
            self._trailers = []
        self.status = status
        self.answer = HELD

    def _send_body(self, body: Body, more: bool) -> bool:
        """Returns whether what follows may have to wait."""
        if (
            more
            or self.answer != HELD
            or type(body) is not bytes
            or self._trailers is not None
            or ((method := self.head.method) is not GET and method == b"HEAD")
            or (self.status != 200 and self.status in BODILESS)
        ):
            self._send_piece(body, more)
            return True
        # Nearly every answer: what `_send_piece()` does with a body that is all there when its head leaves.
        count = len(body)
        if self._expected is not None and self._expected != count:
            self._check_length(count, False)
        self.bytes_sent = count
        self.answer = DONE
        stream = self.stream
        try:
            stream.start(self.status, self._headers, body, False)
        except BaseException as exc:
            raise self._stream_failed(exc) from exc
        if stream.writable and not self._completed:
            # As `_complete()` does.
            self._completed = True
            service = self.service
            if self._readers is not None:
                self._wake_readers()
            if service.observers:
                service.completed(self)
            return False
        if not self._completed:
            self.first_byte = monotonic()
        return True

    def _send_piece(self, body: Body, more: bool) -> None:
        if type(body) is not bytes and not isinstance(body, FileRange):
            plain = plain_bytes(body)
            if plain is None:
                raise AppError(f"body must be bytes (got {type(body).__name__})", code="POUNCE_APP_BAD_MESSAGE")
            body = plain
        answer = self.answer
        if answer == HELD and (self.head.method == b"HEAD" or self.status in BODILESS):
            self._start_bodiless(len(body), more)
            return
        if answer == HELD or answer == STREAMING:
            if self._expected is not None:
                self._check_length(len(body), more)
            self.bytes_sent += len(body)
            ends = not more and self._trailers is None
            # The state first: an answer is over before the wire can react to its end.
            self.answer = DONE if ends else STREAMING if more else TRAILERS
            try:
                if answer == HELD:
                    if not ends:
                        self.first_byte = monotonic()
                    self.stream.start(self.status, self._headers, body, not ends)
                elif body or ends:
                    self.stream.write(body, not ends)
            except BaseException as exc:
                raise self._stream_failed(exc) from exc
            if ends and self.stream.writable:
                self._complete()
        elif answer == MUTED:
            if not more and self._trailers is None:
                self._end_muted()
            elif self._half_closed:
                # Nothing will be written that could tell whether the client, with its whole answer, is still there.
                # Others that it has asked for before it ended its half may follow.
                self._end_muted()
                self._lost = self._lost or ClientGone(CLIENT_GONE)
        else:
            raise self._out_of_order("http.response.body")

    def _is_bodiless(self) -> bool:
        return self.head.method == b"HEAD" or self.status in BODILESS

    def _start_bodiless(self, length: int, more: bool) -> None:
        """Send a head that no body follows; what the application sends further is not wanted."""
        headers = self._headers
        if self.status == 204 or self.status == 205:
            # RFC 9110 8.6: no Content-Length in any 204 answer; 15.3.6: a 205 one has no content.
            headers = [field for field in headers if field[0] != b"content-length"]
            if self.status == 205:
                headers.append((b"content-length", b"0"))
        elif self._expected is None and not more and length and self.status != 304:
            # Without a body it is not known how long that of GET would be (RFC 9110 8.6).
            headers = [*headers, (b"content-length", b"%d" % length)]
        ends = not more and self._trailers is None
        if not ends:
            self.first_byte = monotonic()
        self.answer = DONE if ends else MUTED
        try:
            self.stream.start(self.status, headers, b"", not ends)
        except BaseException as exc:
            raise self._stream_failed(exc) from exc
        if ends and self.stream.writable:
            self._complete()

    def _end_muted(self) -> None:
        self.answer = DONE
        if self._lost is None:
            try:
                self.stream.write(b"", False)
            except BaseException as exc:  # noqa: BLE001 - logged there
                self._stream_failed(exc)
            if self.stream.writable:
                self._complete()

    def _check_length(self, count: int, more: bool) -> None:
        """Hold the application to the Content-Length it gave."""
        expected = self._expected
        if expected is not None:
            sent = self.bytes_sent + count
            if sent > expected or (not more and sent != expected):
                raise wrong_length(sent, expected)

    def _send_trailers(self, message: dict[str, Any]) -> None:
        if self._trailers is None or (self.answer != TRAILERS and self.answer != MUTED):
            raise self._out_of_order("http.response.trailers")
        self._trailers += self.service.response_headers.checked(message.get("headers", ()))
        if message.get("more_trailers", False):
            return
        if self.answer == MUTED:
            self._end_muted()
        else:
            self.answer = DONE
            try:
                self.stream.trailers(self._trailers)
            except BaseException as exc:
                raise self._stream_failed(exc) from exc
            if self.stream.writable:
                self._complete()

    def _send_early_hint(self, links: list[bytes]) -> None:
        if self.answer != WAITING:
            raise self._out_of_order("http.response.early_hint")
        self._inform(103, self.service.response_headers.checked([(b"link", link) for link in links]))

    def _inform(self, status: int, headers: Headers) -> None:
        try:
            self.stream.inform(status, headers)
        except BaseException as exc:
            raise self._stream_failed(exc) from exc

    async def _send_path(self, path: str) -> None:
        # It takes the place of the whole body; the head may have left already.
        if self.answer != HELD and not (self.answer in (STREAMING, MUTED) and not self.bytes_sent):
            raise self._out_of_order("http.response.pathsend")
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        done_with = True
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise AppError(f"{path!r} is not a regular file", code="POUNCE_APP_BAD_MESSAGE")
            done_with = self._send_small_file(fd, 0, status.st_size, False)
            if not done_with:
                await self._send_large_file(fd, 0, status.st_size, False)
        finally:
            if done_with:
                os.close(fd)
            else:
                self._close_file(fd)

    async def _send_part(self, message: dict[str, Any]) -> None:
        """What this server had before there was `zerocopysend`: a part of the file at a path."""
        path = message["path"]
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise AppError(f"{path!r} is not a regular file", code="POUNCE_APP_BAD_MESSAGE")
            await self._send_open_file({"offset": 0, **message, "file": fd})
        finally:
            os.close(fd)

    async def _send_open_file(self, message: dict[str, Any]) -> None:
        file = message["file"]
        fd = file if isinstance(file, int) else file.fileno()
        offset, count = message.get("offset"), message.get("count")
        more = message.get("more_body", False)
        start = os.lseek(fd, 0, os.SEEK_CUR) if offset is None else offset
        rest = max(os.fstat(fd).st_size - start, 0)
        count = rest if count is None else min(count, rest)
        if offset is None:
            # As sendfile(2) does without an offset: the next piece begins where this one ends.
            os.lseek(fd, start + count, os.SEEK_SET)
        if not self._send_small_file(fd, start, count, more):
            # Of our own, so that the application may close its file whenever it is done with it.
            fd = os.dup(fd)
            try:
                await self._send_large_file(fd, start, count, more)
            finally:
                self._close_file(fd)

    def _send_small_file(self, fd: int, offset: int, count: int, more: bool) -> bool:
        """Send part of an open file at once where it is small, or nobody wants it; False where it is to be sent
        otherwise."""
        if self.answer == HELD and self._is_bodiless():
            self._start_bodiless(count, more)
            return True
        if count > (SMALLER_FILE if self.stream.sends_files else SMALL_FILE):
            return False
        data = read_at_once(fd, offset, count)
        if data is None:
            return False
        self._announce(count, more)
        self._send_body(data, more)
        return True

    async def _send_large_file(self, fd: int, offset: int, count: int, more: bool) -> None:
        """Send part of an open file, as a piece where the wire can, else chunk by chunk, and wait until it is sent."""
        if self.stream.sends_files:
            self._send_body(FileRange(fd, offset, count), more)
        else:
            await self._read_file(fd, offset, count, more)
        await self._wait_until_writable()

    def _close_file(self, fd: int) -> None:
        """Close a file; one that the stream still sends, because the application was cancelled, when it is sent."""
        if self.stream.writable or self._lost is not None or self._completed:
            os.close(fd)
        else:
            self._file = fd

    def _close_left_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _announce(self, count: int, more: bool) -> None:
        """Give the length of an answer that is this file, where the application has not."""
        # RFC 9112 6.3: over HTTP/1.1 an answer of known length has no trailer section.
        has_length = self._trailers is None or self.head.version[0] != "1"
        if not more and self._expected is None and self.answer == HELD and has_length:
            self._headers = [*self._headers, (b"content-length", b"%d" % count)]
            self._expected = count

    async def _read_file(self, fd: int, offset: int, count: int, more: bool) -> None:
        self._announce(count, more)
        self._check_length(count, more)
        while count:
            piece = await self.service.loop.run_in_executor(None, os.pread, fd, min(count, FILE_CHUNK), offset)
            if not piece:
                raise AppError("the file became shorter while it was sent", code="POUNCE_APP_BAD_LENGTH")
            offset += len(piece)
            count -= len(piece)
            await self._pass_on({"type": "http.response.body", "body": piece, "more_body": more or count > 0})

    def _out_of_order(self, kind: str) -> AppError:
        return AppError(
            f"{kind} is out of order: the response is {ANSWER_STATES[self.answer]}", code="POUNCE_APP_BAD_MESSAGE"
        )

    # Answers of the server's own

    def respond(self, response: Response) -> None:
        """Give a complete answer in place of the application's."""
        self._begin_own(response)
        try:
            self._send_body(response.body, False)
        except ClientGone:
            # Nobody can be told.
            pass

    def _begin_own(self, response: Response) -> None:
        self.status = response.status
        self.bytes_sent = 0
        self._trailers = None
        self._headers, self._expected = self.service.response_headers.complete(response.headers, self.stream.connection)
        self.answer = HELD

    def flush_head(self) -> None:
        """Send a head that waits for its body; the body follows."""
        if self.answer != HELD or self._lost is not None:
            return
        try:
            if self._is_bodiless():
                self._start_bodiless(0, True)
            else:
                self.answer = STREAMING
                self.first_byte = monotonic()
                self.stream.start(self.status, self._headers, b"", True)
        except ClientGone:
            # The application learns it when it goes on.
            pass
        except BaseException as exc:  # noqa: BLE001 - logged there
            self._stream_failed(exc)

    def give_up(self) -> None:
        """Nothing can be answered, for a reason that is known elsewhere: have the peer see that, and nobody wait."""
        self._lost = ClientGone("the request was given up")
        self._break_off()

    def _break_off(self) -> None:
        """End an answer so that the peer can see that it is not complete."""
        self.broken = True
        self.answer = DONE
        self._reset()
        self._complete()

    def _reset(self) -> None:
        """Give the stream up; where even that fails, its connection."""
        try:
            self.stream.reset()
        except BaseException as exc:  # noqa: BLE001 - logged there
            self.service.stream_failed(self.stream, exc, whole_connection=True)

    def _stream_failed(self, exc: BaseException) -> ClientGone:
        """A method of the stream has raised: give up this stream, and no other. What to raise for the application."""
        self.service.stream_failed(self.stream, exc)
        self._lost = ClientGone("the answer could not be sent")
        self._break_off()
        self._wake_readers()
        self._wake_writers()
        return self._lost

    def _complete(self) -> None:
        if not self._completed:
            self._completed = True
            if self._readers is not None:
                self._wake_readers()
            if self.service.observers:
                self.service.completed(self)

    @property
    def answer_fields(self) -> Headers:
        """Those of the answer, but for what its wire adds to frame it; empty before there is one."""
        return getattr(self, "_headers", [])

    # Waiting: each waiter has a future of its own, so that cancelling one leaves the others alone

    async def _wait(self, waiters: list[asyncio.Future[None]]) -> None:
        waiter = self.service.create_future()
        waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            # An application may ask again and again without ever waiting for the answer.
            waiters.remove(waiter)
            raise

    def _wake_readers(self) -> None:
        if self._readers is not None:
            waiters, self._readers = self._readers, None
            _wake(waiters)

    def _wake_writers(self) -> None:
        if self._writers is not None:
            waiters, self._writers = self._writers, None
            _wake(waiters)

    async def _wait_until_writable(self) -> None:
        # Once this answer has left, the stream may be busy with the next one.
        while not self.stream.writable and self._lost is None and not self._completed:
            if self._writers is None:
                self._writers = []
            await self._wait(self._writers)
        if self._lost is not None:
            raise ClientGone(CLIENT_GONE) from self._lost


def _wake(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
