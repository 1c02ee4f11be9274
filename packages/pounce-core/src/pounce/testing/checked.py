"""What stands between a wire and the request core while `check_wire` looks on: a Service whose exchanges and streams
notice what is against the contract at the moment that it happens."""

import asyncio
from typing import Any, cast

from pounce.contract.head import Headers, RequestHead
from pounce.contract.stream import Exchange, RunsApp, Stream
from pounce.contract.wire import LiveConnection
from pounce.errors import BadRequest
from pounce.exchange.http import HttpExchange
from pounce.exchange.service import Service

__all__ = ["CheckFailed", "CheckedService", "Clock"]

METHODS = ("start", "write", "inform", "tunnel", "trailers", "consumed", "reset")
"""Those of `Stream`."""
VERSIONS = ("0.9", "1.0", "1.1", "2", "3")


class CheckFailed(AssertionError):
    """The wire broke the contract; the message says which rule, and how it was fed."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


class Clock(asyncio.SelectorEventLoop):
    """A loop whose time goes on when it is told to, so that hours take no time."""

    ahead = 0.0
    """Seconds that it is ahead of the machine."""

    def time(self) -> float:
        return super().time() + self.ahead


class CheckedStream:
    """Passes everything on to a stream, and knows which of its methods is running."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.inside = ""

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._stream, name)
        if name not in METHODS:
            return found

        def call(*args: Any) -> None:
            self.inside = name
            try:
                found(*args)
            finally:
                self.inside = ""

        return call


class Events:
    """What a wire has for an exchange: passes events on, when they are in order."""

    def __init__(self, service: CheckedService, exchange: HttpExchange) -> None:
        self._service = service
        self._exchange = exchange
        self._stream = cast(CheckedStream, exchange.stream)
        self._length = exchange.head.content_length
        self.received = 0
        self.complete = self._length == 0
        self._refused = False
        self._lost = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._exchange, name)

    def _check(self, event: str) -> None:
        if self._stream.inside:
            self._service.broken(f"rule 2: {event} was called from inside Stream.{self._stream.inside}")
        if self._lost:
            self._service.broken(f"{event} was called after stream_lost")

    def data_received(self, data: bytes) -> None:
        self._check("data_received")
        if not data:
            self._service.broken("data_received was called with an empty piece")
        if self.complete:
            self._service.broken("data_received was called after the end of the body")
        self.received += len(data)
        if self._length is not None and self.received > self._length:
            self._service.broken(f"the body is longer than its content_length of {self._length}")
        self._exchange.data_received(data)

    def eof_received(self, trailers: Headers | None = None) -> None:
        self._check("eof_received")
        if self.complete:
            none = self._length == 0 and not self.received
            self._service.broken("eof_received was called " + ("where there is no body" if none else "twice"))
        if self._length is not None and self.received < self._length:
            self._service.broken(f"the body ends after {self.received} bytes, its content_length is {self._length}")
        self.complete = True
        self._exchange.eof_received(trailers)

    def half_closed(self) -> None:
        self._check("half_closed")
        if not self.complete:
            self._service.broken("half_closed was called before the end of the body")
        self._exchange.half_closed()

    def resume_writing(self) -> None:
        self._check("resume_writing")
        self._exchange.resume_writing()

    def stream_lost(self, exc: Exception | None) -> None:
        if self._lost or (self._refused and isinstance(exc, BadRequest)):
            self._service.broken("stream_lost was called twice")
        self._check("stream_lost")
        if isinstance(exc, BadRequest):
            # It still takes an answer, and is lost in earnest afterwards.
            self._refused = True
        else:
            self._lost = True
        self._exchange.stream_lost(exc)


class CheckedService(Service):
    """Serves every request with an exchange whose wire is looked at, and keeps what is wrong until it is asked."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.opened: list[Events] = []
        self.faults: list[CheckFailed] = []
        self.raised: BaseException | None = None
        """What the wire raised, and the server has caught."""

    def broken(self, rule: str) -> None:
        """Note a broken rule, and have the wire's call fail, as the wire may catch what it causes."""
        self.faults.append(CheckFailed(rule))
        raise self.faults[-1]

    def open(self, head: RequestHead, stream: Stream, body: bytes = b"", ended: bool = False) -> Exchange:
        self._check_head(head)
        exchange = HttpExchange(self, head, stream)
        if stream.exchange is not exchange:
            self.broken("rule 6: the stream does not keep the exchange that bound itself")
        exchange.stream = cast(Stream, CheckedStream(stream))
        events = Events(self, exchange)
        stream.exchange = events
        self.opened.append(events)
        if body:
            events.data_received(body)
        if ended:
            events.eof_received()
        self.call_app(cast(RunsApp, exchange))
        return events

    def _check_head(self, head: RequestHead) -> None:
        for what, value in (("method", head.method), ("target", head.target)):
            if type(value) is not bytes or not value:
                self.broken(f"the {what} of a head is bytes, and not empty (got {value!r})")
        for field in head.headers:
            if type(field) is not tuple or [type(part) for part in field] != [bytes, bytes]:
                self.broken(f"a field is a tuple of two bytes (got {field!r})")
            if field[0] != field[0].lower():
                self.broken(f"names of fields are in lower case (got {field[0]!r})")
        if head.version not in VERSIONS:
            self.broken(f"version is one of {', '.join(VERSIONS)} (got {head.version!r})")
        if not isinstance(head.scheme, str) or not head.scheme:
            self.broken(f"scheme is text (got {head.scheme!r})")

    def stream_failed(self, stream: Stream, error: BaseException, whole_connection: bool = False) -> None:
        self.raised = self.raised or error
        super().stream_failed(stream, error, whole_connection)

    def connection_failed(self, connection: LiveConnection, error: BaseException | None = None) -> None:
        self.raised = self.raised or error
        super().connection_failed(connection, error)


