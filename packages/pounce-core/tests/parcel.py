"""Parcel: a small protocol with everything that the contract has rules for, and its wire, which keeps them.

A request is a line `METHOD target length`, then as many bytes. An answer is the line `status`, then pieces, each behind
a line with its length in hexadecimal; one of length 0 is its end. Requests follow one another.
"""

import asyncio
from math import inf

from pounce.plugin import (
    BadRequest,
    Body,
    ClientGone,
    Connection,
    Exchange,
    Headers,
    RequestHead,
    Service,
)

HIGH = 65536
"""Bytes of a body that wait for the application, from which on nothing is read."""
LINE_MAX = 1024

IDLE, BODY, SERVING, CLOSED = range(4)


class Parcel(Connection):
    """One connection, and the stream of the request on it."""

    sends_files = False
    has_trailers = False

    def __init__(self, service: Service) -> None:
        super().__init__(service, "parcel")
        self.exchange: Exchange | None = None  # type: ignore[assignment]
        self.buffer = b""
        self.state = IDLE
        self.left = 0
        self.held = 0
        self.read = 0
        self.body_since = 0.0
        self.answered = True
        self.peer_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.await_head()

    def await_head(self) -> None:
        self.state = IDLE
        self.deadline = self.loop.time() + self.service.config.header_timeout

    def data_received(self, data: bytes) -> None:
        if self.state == CLOSED:
            return
        self.buffer += data
        self.corked = True
        try:
            self.go_on()
        finally:
            self.uncork()

    def go_on(self) -> None:
        while self.buffer and self.state in (IDLE, BODY):
            if self.state == BODY:
                self.take_body()
            else:
                line, end, rest = self.buffer.partition(b"\n")
                if not end and len(line) <= LINE_MAX:
                    return
                self.buffer = rest
                self.take_line(line)
        if self.state == SERVING and len(self.buffer) > HIGH:
            self.pause_reading()

    def take_line(self, line: bytes) -> None:
        words = line.split(b" ")
        if len(line) > LINE_MAX or len(words) != 3 or not words[2].isdigit():
            self.refuse(BadRequest("Not a parcel", code="PARCEL"))
            return
        self.open(words[0], words[1], int(words[2]))

    def open(self, method: bytes, target: bytes, length: int) -> None:
        self.answered = False
        self.left, self.held, self.read = length, 0, 0
        self.state = BODY if length else SERVING
        self.body_since = self.loop.time()
        self.await_body() if length else self.rest_deadline()
        self.service.open(RequestHead(method, target, [], "1.1", content_length=length), self)

    def rest_deadline(self) -> None:
        self.deadline = inf

    def await_body(self) -> None:
        config = self.service.config
        self.deadline = min(
            self.loop.time() + config.request_timeout, self.body_since + 5.0 + self.read / config.min_body_rate
        )

    def take_body(self) -> None:
        piece, self.buffer = self.buffer[: self.left], self.buffer[self.left :]
        self.left -= len(piece)
        self.read += len(piece)
        self.hold(len(piece))
        self.exchange.data_received(piece)
        if self.left:
            self.rest_deadline() if self._paused else self.await_body()
            return
        if self.state != BODY:
            return
        self.state = SERVING
        self.rest_deadline()
        self.body_ended()
        self.next_request()

    def body_ended(self) -> None:
        self.exchange.eof_received()

    def hold(self, count: int) -> None:
        self.held += count
        if self.held > HIGH:
            self.pause_reading()

    def refuse(self, error: BadRequest) -> None:
        self.state = CLOSED
        if self.exchange is None:
            self.service.refuse(None, self, error)
        else:
            self.exchange.stream_lost(error)
        self.close()

    def next_request(self) -> None:
        """Go on once a request is read and answered, and its answer has left."""
        if self.state != SERVING or not self.answered or not self.writable:
            return
        self.exchange = None
        self.unwatch_flush()
        if self.service.draining or self.peer_ended:
            self.state = CLOSED
            self.close()
            return
        self.await_head()
        self.resume_reading()
        if self.buffer:
            self.loop.call_soon(self.data_received, b"")

    def eof_received(self) -> bool:
        self.peer_ended = True
        if self.state == SERVING:
            self.exchange.half_closed()
            return True
        if self.state == BODY:
            self.lose()
        return False

    def lose(self) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.stream_lost(ClientGone("gone"))

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.exchange is not None:
            self.exchange.resume_writing()
        self.loop.call_soon(self.next_request)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.lose()

    def deadline_passed(self) -> None:
        if self.state == BODY:
            self.refuse(BadRequest("The body is late", status=408, code="PARCEL"))
        else:
            self.deadline = inf
            self.state = CLOSED
            self.close()

    def drain(self) -> None:
        if self.state == IDLE:
            self.close()

    # Stream

    def start(self, status: int, headers: Headers, body: Body, more: bool) -> None:
        self.put(b"%d\n" % status, body, more)

    def write(self, body: Body, more: bool) -> None:
        self.put(b"", body, more)

    def put(self, head: bytes, body: Body, more: bool) -> None:
        assert isinstance(body, bytes)
        data = b"%x\n%b" % (len(body), body) if body else b""
        self.send(head + data + (b"" if more else b"0\n"))
        if not more:
            self.sent()

    def sent(self) -> None:
        self.answered = True
        self.watch()
        if self.state == BODY:
            # The rest of the body is not wanted.
            self.state = CLOSED
            self.close()
        elif self.writable:
            self.loop.call_soon(self.next_request)

    def watch(self) -> None:
        if not self._cork:
            self.watch_flush()

    def inform(self, status: int, headers: Headers) -> None:
        """There is nothing to say before the answer."""

    def tunnel(self, headers: Headers) -> None:
        raise NotImplementedError

    def trailers(self, headers: Headers) -> None:
        self.write(b"", False)

    def consumed(self, count: int) -> None:
        self.held -= count
        if self.held <= HIGH // 4 and self._paused and self.state == BODY:
            self.resume_reading()
            self.body_since = self.loop.time()
            self.await_body()

    def reset(self) -> None:
        self.state = CLOSED
        self.abort()
