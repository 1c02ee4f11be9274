"""Gopher (RFC 1436) as a wire: one line in, one document out, and the connection ends."""

import asyncio
from math import inf
from urllib.parse import quote_from_bytes

from pounce.plugin import (
    API_VERSION,
    Body,
    ClientGone,
    Connection,
    Exchange,
    Headers,
    Plugin,
    RequestHead,
    Service,
    Wire,
)


class GopherConnection(Connection):
    """A connection, which carries one request, so that it is its Stream too."""

    sends_files = False
    has_trailers = False

    def __init__(self, service: Service) -> None:
        super().__init__(service, "gopher")
        self.exchange: Exchange | None = None
        self._line = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.deadline = self.loop.time() + self.service.config.header_timeout

    def data_received(self, data: bytes) -> None:
        if self.exchange is not None:
            return
        self._line += data
        line, end, _ = self._line.partition(b"\r\n")
        if end:
            self.deadline = inf
            selector, _, search = line.partition(b"\t")
            target = "/" + quote_from_bytes(selector.lstrip(b"/"), "/?=&%") + ("?" if search else "")
            head = RequestHead(b"GET", target.encode() + quote_from_bytes(search).encode(), [], "1.0", "gopher")
            self.service.open(head, self)
        elif len(line) > 1024:
            self.close()

    def eof_received(self) -> bool:
        if self.exchange is None:
            return False
        self.exchange.half_closed()
        return True

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.exchange is not None:
            self.exchange.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.exchange is not None:
            self.exchange.stream_lost(ClientGone("the client closed the connection"))

    def drain(self) -> None:
        if self.exchange is None:
            self.close()

    # Stream

    def start(self, status: int, headers: Headers, body: Body, more: bool) -> None:
        if status >= 400:
            self.send(b"3Error %d\terror.host\t1\r\n" % status)
        self.write(body, more)

    def write(self, body: Body, more: bool) -> None:
        assert isinstance(body, bytes)
        self.send(body)
        self.reset_when_closed(more)  # An orderly end says that this was all of the document.
        if not more:
            self.watch_flush()
            self.close()

    def inform(self, status: int, headers: Headers) -> None:
        """Gopher has nothing to say before the document."""

    def tunnel(self, headers: Headers) -> None:
        raise NotImplementedError("Gopher has no upgrade")

    def trailers(self, headers: Headers) -> None:
        self.write(b"", False)

    def consumed(self, count: int) -> None:
        """A selector has no body."""

    def reset(self) -> None:
        self.abort()


plugin = Plugin(name="gopher", api=API_VERSION, wires=(Wire(name="gopher", connect=GopherConnection),))
