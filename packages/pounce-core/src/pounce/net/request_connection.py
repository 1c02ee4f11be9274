"""RequestConnection: a wire whose connections carry one request each, with everything but the protocol.

SCGI, Gopher and their like differ in how a head is read and written, and in nothing else: heads have a bound and a
deadline, bodies deadlines and back-pressure, an answer ends with its connection and must not look whole when it is cut,
and a drain lets finish what has begun. A wire with several requests on a connection has to do this by itself, from the
same parts (`Connection.linger()`, `BodyConnection`).
"""

import asyncio
from math import inf
from typing import cast

from pounce.contract.head import Headers, RequestHead
from pounce.contract.stream import Body, Exchange
from pounce.contract.wire import Service
from pounce.errors import BadRequest, ClientGone
from pounce.net.body_connection import BodyConnection

__all__ = ["RequestConnection"]


class RequestConnection(BodyConnection):
    """One connection with one request, and the Stream of it. A wire overrides `read_head()` and `encode_head()`.

    The body of the request is as long as its `content_length`; that of the answer ends with the connection, which is
    reset when it ends before that.
    """

    sends_files = False
    """As of every Stream, whose methods are below too."""
    has_trailers = False
    """The same."""

    def __init__(self, service: Service, wire: str = "") -> None:
        super().__init__(service, wire)
        self.exchange: Exchange | None = None
        """Of the request, until the connection is lost."""
        self.head: RequestHead | None = None
        """The request, once it was read."""
        self._buffer = b""
        self._left = 0
        self._answered = False
        self._refused = False
        """The head could not be read, or was late."""

    # What a wire overrides

    def read_head(self, data: bytes) -> tuple[RequestHead, bytes] | None:
        """The request that `data`, everything that has come so far, begins with, and what follows its head; None when
        more is needed. Called again with each piece, until `max_header_size` bytes are there. Raises `BadRequest`."""
        raise NotImplementedError

    def encode_head(self, status: int, headers: Headers) -> bytes:
        """The head of an answer, as it is sent in front of the body."""
        raise NotImplementedError

    # Events of the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.deadline = self.loop.time() + self.service.config.header_timeout

    def data_received(self, data: bytes) -> None:
        self.corked = True
        try:
            if self._refused:
                return
            if self.head is None:
                data = self._open(self._buffer + data)
            if self._left and data:
                self._body_received(data[: self._left])
        except BadRequest as error:
            self._refused = True
            self.service.refuse(None, self, error)
        finally:
            self.uncork()

    def _open(self, data: bytes) -> bytes:
        """Open the request when its head is complete; what follows that."""
        found = self.read_head(data)
        if found is None:
            if len(data) > self.service.config.max_header_size:
                raise BadRequest("The head exceeds max_header_size", status=431, code="POUNCE_PARSE_HEADERS_TOO_LARGE")
            self._buffer = data
            return b""
        self._buffer = b""
        self.head, rest = found
        self._left = self.head.content_length or 0
        self.deadline = inf
        if self._left:
            self.body_begins()
        self.service.open(self.head, self)
        return rest

    def _body_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None or not self._expects_body:
            return
        self._left -= len(data)
        self.body_received(len(data))
        if not self._left:
            self.body_ended()
        exchange.data_received(data)
        if not self._left:
            exchange.eof_received()

    def eof_received(self) -> bool:
        super().eof_received()
        if self.exchange is None or self._left:
            # What has begun is no whole request; `connection_lost()` says so.
            return False
        self.exchange.half_closed()
        return self.connection.tls is None

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.exchange is not None:
            self.exchange.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        exchange, self.exchange = self.exchange, None
        try:
            if exchange is not None:
                exchange.stream_lost(ClientGone("the client closed the connection"))
        finally:
            super().connection_lost(exc)

    # Events of the worker

    def deadline_passed(self) -> None:
        if self.lingering or self._answered:
            super().deadline_passed()
            return
        self.deadline = inf
        error = BadRequest("The request did not arrive in time", status=408, code="POUNCE_TIMEOUT_REQUEST_BODY")
        if self.exchange is not None:
            self.exchange.stream_lost(error)
        elif self._buffer:
            error.code = "POUNCE_TIMEOUT_REQUEST_HEAD"
            self._refused = True
            self.service.refuse(None, self, error)
        else:
            self.close()

    def drain(self) -> None:
        if self.exchange is None:
            self.close()

    # Stream

    def start(self, status: int, headers: Headers, body: Body, more: bool) -> None:
        # Whatever ends the connection before the answer is whole does it by a reset.
        self.reset_when_closed()
        self._answer(self.encode_head(status, headers), body, more)

    def write(self, body: Body, more: bool) -> None:
        self._answer(b"", body, more)

    def _answer(self, head: bytes, body: Body, more: bool) -> None:
        data = head + cast(bytes, body) if head else cast(bytes, body)
        if data:
            self.send(data)
        if not more:
            self._answered = True
            self.reset_when_closed(False)
            self.body_ended()
            self.flush()
            self.watch_flush()
            self.linger()

    def inform(self, status: int, headers: Headers) -> None:
        """There is nothing to say before the answer, unless a wire has something."""

    def tunnel(self, headers: Headers) -> None:
        raise NotImplementedError(f"{self.wire} has no upgrades")

    def trailers(self, headers: Headers) -> None:
        self.write(b"", False)

    def reset(self) -> None:
        self.abort()
