"""check_wire: proves that a wire keeps the contract, whatever the network and its peer do.

The author gives complete messages of the protocol, each of which opens one request. They are fed in every way a
network may deliver them, to an application that answers at once, one that streams, and one that waits for ever; the
peer reads slowly, ends its half, or disappears at every position.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from pounce.contract.head import RequestHead
from pounce.contract.stream import Exchange, Stream
from pounce.exchange.http import HttpExchange
from pounce.exchange.service import Service
from pounce.plugin import Wire
from pounce.registry import Registry
from pounce.testing.memory import MemoryConnection, memory_service

__all__ = ["CheckFailed", "check_wire"]

MARK = b"<pounce answers>"
PIECE = b"." * 16383 + b"!"
PIECES = 64
WAITING_MAX = 262_144
"""Bytes that may pile up for a peer that does not read."""
METHODS = ("start", "write", "inform", "tunnel", "trailers", "consumed", "reset")
"""Those of `Stream`."""
FOREVER = 100_000.0
"""Seconds after which every deadline has passed."""

type Seen = list[tuple[bytes, bytes, bytes]]


class CheckFailed(AssertionError):
    """The wire broke the contract; the message says which rule, and how it was fed."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


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


class CheckedExchange(HttpExchange):
    """Notices when a stream calls its exchange from inside one of its own methods (rule 2)."""

    __slots__ = ("_checked",)

    def __init__(self, service: Service, head: RequestHead, stream: Stream) -> None:
        super().__init__(service, head, stream)
        if stream.exchange is not self:
            raise CheckFailed("rule 6: the stream does not keep the exchange that bound itself")
        self._checked = CheckedStream(stream)
        self.stream = cast(Stream, self._checked)

    def _outside(self, event: str) -> None:
        if self._checked.inside:
            raise CheckFailed(f"rule 2: {event} was called from inside Stream.{self._checked.inside}")

    def data_received(self, data: bytes) -> None:
        self._outside("data_received")
        if not data:
            raise CheckFailed("data_received was called with an empty piece")
        super().data_received(data)

    def eof_received(self, trailers: Any = None) -> None:
        self._outside("eof_received")
        super().eof_received(trailers)

    def half_closed(self) -> None:
        self._outside("half_closed")
        super().half_closed()

    def resume_writing(self) -> None:
        self._outside("resume_writing")
        super().resume_writing()

    def stream_lost(self, exc: Exception | None) -> None:
        self._outside("stream_lost")
        super().stream_lost(exc)


class CheckedService(Service):
    """Serves every request with a `CheckedExchange`."""

    def open(self, head: RequestHead, stream: Stream, body: bytes = b"", ended: bool = False) -> Exchange:
        exchange = CheckedExchange(self, head, stream)
        if body:
            exchange.data_received(body)
        if ended:
            exchange.eof_received()
        self.call_app(exchange)
        return exchange


class Check:
    """One run of the kit over one wire."""

    def __init__(self, wire: Wire, registry: Registry | None, settings: dict[str, Any]) -> None:
        self.wire = wire
        self.registry = registry
        self.settings = {"date_header": False, "max_request_size": 0} | settings
        self.seen: Seen = []

    def connect(self, app: Callable[..., Awaitable[None]]) -> MemoryConnection:
        self.seen.clear()
        service = memory_service(app, self.registry, service_class=CheckedService, **self.settings)
        return MemoryConnection(wire=self.wire, service=service)

    async def _note(self, scope: Any, receive: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            more = message["more_body"]
        self.seen.append((scope["method"].encode(), scope["raw_path"], body))

    async def answer(self, scope: Any, receive: Any, send: Any) -> None:
        await self._note(scope, receive)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": MARK})

    async def stream(self, scope: Any, receive: Any, send: Any) -> None:
        await self._note(scope, receive)
        await send({"type": "http.response.start", "status": 200})
        for _ in range(PIECES):
            await send({"type": "http.response.body", "body": PIECE, "more_body": True})
        await send({"type": "http.response.body", "body": MARK})

    async def wait_for_disconnect(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.seen.append((b"disconnected", b"", b""))

    # Checks

    async def feeding(self, data: bytes) -> None:
        """Every way of cutting the bytes gives the same request and an answer."""
        expected = await self._answered([data], "in one piece")
        if len(expected) != 1:
            raise CheckFailed(f"{data!r} opened {len(expected)} requests instead of one")
        pieces = [data[at : at + 1] for at in range(len(data))]
        for how, fed in [
            ("byte by byte", pieces),
            *((f"split at {n}", [data[:n], data[n:]]) for n in range(1, len(data))),
        ]:
            seen = await self._answered(fed, how)
            if seen != expected:
                raise CheckFailed(f"{data!r} {how} was understood as {seen}, in one piece as {expected}")

    async def _answered(self, pieces: Sequence[bytes], how: str) -> Seen:
        connection = self.connect(self.answer)
        for piece in pieces:
            connection.feed(piece)
            await connection.settle(1)
        await self._until(connection, lambda: MARK in connection.received, f"{how}: no answer came")
        await self._end(connection, how)
        return list(self.seen)

    async def slow_reader(self, data: bytes) -> None:
        """A peer that does not read holds the application, not memory; when it reads on it gets everything."""
        connection = self.connect(self.stream)
        connection.transport.stall()
        connection.feed(data)
        await connection.settle(500)
        waiting = connection.transport.largest_waiting
        if waiting > WAITING_MAX:
            raise CheckFailed(f"{waiting} bytes piled up for a peer that does not read")
        connection.transport.unstall()
        await self._until(
            connection,
            lambda: MARK in connection.received,
            "a peer that reads again does not get the rest of the answer",
        )
        if connection.received.count(b"!") < PIECES:
            raise CheckFailed("a slow peer lost a part of the answer")
        await self._end(connection, "after a slow reader")

    async def half_close(self, data: bytes) -> None:
        """A peer that ends its half after its request leaves nothing behind."""
        connection = self.connect(self.answer)
        connection.feed(data)
        connection.feed_eof()
        await connection.settle(200)
        await self._end(connection, "after the peer ended its half")

    async def abort(self, data: bytes) -> None:
        """A peer that disappears at any position leaves nothing behind, and the application is told."""
        for at in range(1, len(data) + 1):
            connection = self.connect(self.wait_for_disconnect)
            connection.feed(data[:at])
            await connection.settle(2)
            running = bool(connection.service.tasks)
            connection.lose()
            await self._until(
                connection,
                lambda: not connection.service.tasks and not connection.service.connections,  # noqa: B023
                f"peer gone at {at}: the application was not told, or the connection was kept",
            )
            if running and not self.seen:
                raise CheckFailed(f"peer gone at {at}: the application got no http.disconnect")

    async def drain(self, data: bytes) -> None:
        """A drain answers what has begun and closes what has not."""
        idle = self.connect(self.answer)
        idle.service.draining = True
        idle.protocol.drain()
        await self._end(idle, "draining while idle")
        busy = self.connect(self.stream)
        busy.transport.stall()
        busy.feed(data)
        await busy.settle(50)
        busy.service.draining = True
        busy.protocol.drain()
        busy.transport.unstall()
        await self._until(busy, lambda: MARK in busy.received, "a drain cut off an answer that had begun")
        await self._end(busy, "draining while busy")

    async def _end(self, connection: MemoryConnection, how: str) -> None:
        """Every deadline passes: the connection must be gone, and with it all that belonged to it."""
        for _ in range(4):
            connection.after(FOREVER)
            await connection.settle(5)
        await self._until(
            connection,
            lambda: not connection.service.connections and not connection.service.tasks and connection.closed,
            f"{how}: the connection outlived every deadline",
        )

    async def _until(self, connection: MemoryConnection, true: Callable[[], bool], what: str) -> None:
        try:
            await connection.wait_until(true, turns=5000)
        except TimeoutError:
            raise CheckFailed(what) from None


def check_wire(wire: Wire, requests: Sequence[bytes], *, registry: Registry | None = None, **settings: Any) -> None:
    """Prove a wire with complete messages of its protocol, each of which opens exactly one request.

    `registry` gives the plugins around it (for a wire with settings of its own), `settings` are those of
    `ServerConfig`. Raises `CheckFailed` for a broken rule; whatever the wire itself raises is passed on.
    """
    check = Check(wire, registry, settings)

    async def run() -> None:
        for data in requests:
            for part in (check.feeding, check.slow_reader, check.half_close, check.abort, check.drain):
                try:
                    await part(data)
                except CheckFailed as exc:
                    raise CheckFailed(f"{wire.name}, {part.__name__} of {data[:60]!r}: {exc}") from exc

    asyncio.run(run())
