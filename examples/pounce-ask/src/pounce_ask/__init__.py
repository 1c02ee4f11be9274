"""Ask: a question in a datagram, and the answer in another; the smallest wire over datagrams.

A question is a path, and what fills the datagram up behind a line feed. Where a datagram says it comes from is nothing
but a claim: so that nobody is flooded in another's name, an answer is at most three times as long as its question
(as RFC 9000 8.1 has it for QUIC), and a longer one is left out.
"""

import asyncio
import re
from math import inf
from typing import cast

from pounce.plugin import (
    API_VERSION,
    Address,
    BadRequest,
    Body,
    Connection,
    ConnectionInfo,
    DatagramTransport,
    DatagramWire,
    Exchange,
    Headers,
    Plugin,
    RequestHead,
    Service,
)

AMPLIFICATION = 3
OPEN_MAX = 1000
"""Questions of one worker that are being answered; further ones are lost, as the network may lose them."""


class Question(Connection):
    """A question, and the Stream of its answer: for the worker it is a connection, with a deadline, that drains."""

    sends_files = False
    has_trailers = False

    def __init__(
        self, service: Service, transport: DatagramTransport, local: Address, peer: Address, data: bytes
    ) -> None:
        super().__init__(service, "ask")
        # It has no transport of asyncio; the core uses `abort()` and `is_closing()` of this one.
        self.transport = cast(asyncio.Transport, self)
        self.connection = ConnectionInfo(service.next_connection_id(), peer[:2], local[:2])
        self.exchange: Exchange | None = None
        self._datagrams = transport
        self._peer = peer
        self._room = AMPLIFICATION * len(data)
        self._status = 0
        self._body = b""
        self._over = False
        service.connections.add(self)
        self.deadline = self.loop.time() + service.config.request_timeout
        target = data.partition(b"\n")[0].strip()
        if re.fullmatch(rb"/[!-~]*", target):
            service.open(RequestHead(b"GET", target, [], "1.0"), self)
        else:
            service.refuse(None, self, BadRequest("This is no path"))

    # Stream

    def start(self, status: int, headers: Headers, body: Body, more: bool) -> None:
        self._status = status
        self.write(body, more)

    def write(self, body: Body, more: bool) -> None:
        # What is longer than the answer may be is not kept.
        self._body = (self._body + cast(bytes, body))[: self._room + 1]
        if not more and not self._over:
            answer = b"%d %b" % (self._status, self._body)
            if len(answer) > self._room:
                answer = b"%d" % self._status
            self._datagrams.sendto(answer, self._peer)
            self._end()

    def inform(self, status: int, headers: Headers) -> None: ...

    def tunnel(self, headers: Headers) -> None:
        raise NotImplementedError("there are no upgrades")

    def trailers(self, headers: Headers) -> None:
        self.write(b"", False)

    def consumed(self, count: int) -> None: ...

    def reset(self) -> None:
        self._end()

    # Events of the worker

    def deadline_passed(self) -> None:
        self.abort()

    def drain(self) -> None:
        """The answer is on its way."""

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        exchange, self.exchange = self.exchange, None
        self._end()
        if exchange is not None:
            exchange.stream_lost(None)

    def is_closing(self) -> bool:
        return self._over

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self.deadline = inf
            self.service.connection_closed(self)


class Endpoint(asyncio.DatagramProtocol):
    """All questions of one address, in one worker."""

    def __init__(self, service: Service, address: Address) -> None:
        self._service = service
        self._address = address
        self._draining = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        service = self._service
        if self._draining or len(service.connections) >= OPEN_MAX:
            service.count("ask_dropped")
        else:
            Question(service, self._transport, self._address, addr, data)

    def drain(self) -> None:
        self._draining = True


plugin = Plugin(
    name="ask", api=API_VERSION, datagrams=(DatagramWire(name="ask", connect=Endpoint, advertise="ask"),)
)
