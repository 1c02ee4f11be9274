"""Connections and streams without sockets: what wires and exchanges are tested with."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from pounce.admission.buffers import budget_of
from pounce.admission.concurrency import Concurrency
from pounce.config import ServerConfig
from pounce.contract.head import Headers
from pounce.contract.stream import Body, ConnectionInfo, Exchange
from pounce.exchange.service import Admit, Service
from pounce.identity.identity import Identity
from pounce.net.connection import Connection, ForeignConnection
from pounce.plugin import ParserLimits, Wire
from pounce.registry import Registry
from pounce.worker.shared import buffers_of, gate_of
from pounce.worker.ticker import Ticker

__all__ = ["MemoryConnection", "MemoryTransport", "RecordingStream", "memory_service", "observe"]


class MemoryTransport(asyncio.Transport):
    """A transport whose peer is the test.

    `received` holds what the peer has taken. A peer that was told to `stall()` takes nothing, so that what is written
    piles up as in a socket transport, and the protocol is paused and resumed at the same marks.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, extra: dict[str, Any] | None = None) -> None:
        super().__init__(extra)
        self._loop = loop
        self._protocol: asyncio.Protocol = cast(asyncio.Protocol, None)
        self.received = bytearray()
        self.waiting = bytearray()
        self.largest_waiting = 0
        """Most bytes that ever waited for the peer."""
        self.writes = 0
        """How often something was written."""
        self.reading = True
        self.unread: list[bytes] = []
        """What the peer has sent while reading was paused."""
        self.ended = False
        """The server ended its sending half."""
        self.closed = False
        self.aborted = False
        """What waited was thrown away, and a peer of a socket would see a reset."""
        self._stalled = False
        self._closing = False
        self._paused = False
        self._high, self._low = 65536, 16384

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast(asyncio.Protocol, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return self.reading and not self._closing

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True
        if self.unread:
            self._loop.call_soon(self.deliver)

    def deliver(self) -> None:
        """Give the protocol what the peer has sent, as far as it reads."""
        while self.unread and self.is_reading():
            self._protocol.data_received(self.unread.pop(0))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = 65536 if high is None else high
        self._low = self._high // 4 if low is None else low
        self._maybe_pause()

    def get_write_buffer_size(self) -> int:
        return len(self.waiting)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes += 1
        if self._closing or self.closed:
            return
        if self.ended:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self._stalled:
            self.waiting += data
            self.largest_waiting = max(self.largest_waiting, len(self.waiting))
            self._maybe_pause()
        else:
            self.received += data

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            if not self.waiting:
                self._loop.call_soon(self._lost, None)

    def abort(self) -> None:
        self.aborted = True
        self.lose()

    def lose(self) -> None:
        """The peer is gone."""
        self._closing = True
        self.waiting.clear()
        self._loop.call_soon(self._lost, None)

    def _lost(self, exc: Exception | None) -> None:
        if not self.closed:
            self.closed = True
            self._protocol.connection_lost(exc)

    def _maybe_pause(self) -> None:
        if len(self.waiting) > self._high and not self._paused:
            self._paused = True
            self._protocol.pause_writing()

    # What the peer does

    def stall(self) -> None:
        """The peer stops reading."""
        self._stalled = True

    def unstall(self) -> None:
        """The peer takes what waits, and reads again."""
        self._stalled = False
        self.take(len(self.waiting))

    def take(self, count: int) -> None:
        """The peer takes `count` of the waiting bytes."""
        self.received += self.waiting[:count]
        del self.waiting[:count]
        if self._paused and len(self.waiting) <= self._low:
            self._paused = False
            self._protocol.resume_writing()
        if self._closing and not self.waiting:
            self._loop.call_soon(self._lost, None)


def memory_service(
    app: Any,
    registry: Registry | None = None,
    *,
    service_class: type[Service] = Service,
    admission: tuple[Callable[[Service], Admit], ...] = (),
    **settings: Any,
) -> Service:
    """A Service on the running loop, made as a worker makes it."""
    from pounce.h1.plugin import plugin as h1

    config = ServerConfig.of({"access_log": False} | settings)
    registry = registry or Registry.of(h1)
    limits = ParserLimits(max_header_size=config.max_header_size, max_headers=config.max_headers)
    create = registry.parser(config.http_parser).create if registry.parsers else None
    return service_class(
        config,
        app,
        asyncio.get_running_loop(),
        upgrades=registry.upgrades,
        switches=registry.switches,
        responders=registry.responders,
        observers=registry.observers,
        middleware=registry.middleware,
        settings=registry.settings(config.plugin_settings),
        create_parser=(lambda: create(limits)) if create is not None else None,
        identity=Identity(config) if config.proxy_headers or config.request_id else None,
        admission=admission,
        budget=budget_of(buffers_of(config)),
        concurrency=Concurrency(config, gate) if (gate := gate_of(config)) is not None else None,
    )


def observe(service: Service, *observers: Any) -> None:
    """Have these observers in place of those that the service has made."""
    service.observers = observers
    service.completers = tuple(observer.completed for observer in observers)


class MemoryConnection:
    """One connection to a wire, in memory: the test is the peer. Needs a running loop.

    `feed` gives bytes to the server, `received` is what came back, `ended` says that no more will. Time is an
    argument: `after(seconds)` does what the worker's ticker would do that much later.
    """

    def __init__(
        self,
        app: Any = None,
        *,
        wire: Wire | None = None,
        service: Service | None = None,
        registry: Registry | None = None,
        extra: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        from pounce.h1.plugin import plugin as h1

        self.service = service or memory_service(app, registry, **settings)
        wire = wire or h1.wires[0]
        protocol = wire.connect(self.service)
        if not isinstance(protocol, Connection):
            protocol = ForeignConnection(self.service, wire.name, protocol)
        self.protocol: Connection = protocol
        addresses: dict[str, Any] = {"peername": ("192.0.2.1", 50000), "sockname": ("192.0.2.2", 80)}
        self.transport = MemoryTransport(self.service.loop, addresses | (extra or {}))
        self.transport.set_protocol(self.protocol)
        self.protocol.connection_made(self.transport)
        self._ticker = Ticker(self.service)

    @property
    def received(self) -> bytes:
        return bytes(self.transport.received)

    @property
    def ended(self) -> bool:
        """The server sends no more: it has ended its half, or closed."""
        return self.transport.ended or self.transport.is_closing()

    @property
    def closed(self) -> bool:
        """The connection is gone; a server that has ended its half waits a moment for the peer to do the same."""
        return self.transport.closed

    @property
    def was_reset(self) -> bool:
        """The server has broken the connection off, so that the peer can tell."""
        return self.transport.aborted

    def feed(self, data: bytes) -> None:
        """Bytes arrive; they wait while reading is paused, and are lost when the server has closed."""
        if not self.transport.is_closing():
            self.transport.unread.append(data)
            self.transport.deliver()

    def feed_eof(self) -> None:
        """The peer ends its sending half."""
        if not self.transport.is_closing() and not self.protocol.eof_received():
            self.transport.close()

    def lose(self) -> None:
        """The peer is gone."""
        self.transport.lose()

    def after(self, seconds: float) -> None:
        """Do what is due `seconds` from now."""
        self._ticker.sweep(self.service.loop.time() + seconds)

    async def settle(self, turns: int = 20) -> None:
        """Let the loop turn `turns` times."""
        for _ in range(turns):
            await asyncio.sleep(0)

    async def until_read(self) -> None:
        """Let the loop turn until the server has looked at everything that was fed: a connection has only a share of
        each turn. Raises `TimeoutError` where it reads no further for another reason."""
        await self.wait_until(lambda: self.transport.is_closing() or not (self.transport.unread or self._holds()))

    def _holds(self) -> bool:
        protocol = self.transport.get_protocol()
        return isinstance(protocol, Connection) and bool(protocol.held_since)

    async def wait_until(self, true: Callable[[], bool], turns: int = 20_000) -> None:
        """Let the loop turn until `true()`. Raises `TimeoutError` after `turns`."""
        for _ in range(turns):
            if true():
                return
            await asyncio.sleep(0)
        raise TimeoutError("it did not happen")


class RecordingStream:
    """A Stream that keeps what it is told; for tests of exchanges."""

    def __init__(self, *, has_trailers: bool = True, sends_files: bool = False) -> None:
        self.connection = ConnectionInfo(1, ("192.0.2.1", 50000), ("192.0.2.2", 80))
        self.exchange: Exchange = cast(Exchange, None)
        self.writable = True
        self.sends_files = sends_files
        self.has_trailers = has_trailers
        self.status: int | None = None
        self.headers: Headers = []
        self.pieces: list[Body] = []
        self.informed: list[tuple[int, Headers]] = []
        self.sent_trailers: Headers | None = None
        self.ended = False
        self.was_reset = False
        self.consumed_bytes = 0

    @property
    def body(self) -> bytes:
        return b"".join(piece for piece in self.pieces if isinstance(piece, bytes))

    def start(self, status: int, headers: Headers, body: Body, more: bool) -> None:
        assert self.status is None, "started twice"
        self.status, self.headers = status, headers
        self.write(body, more)

    def write(self, body: Body, more: bool) -> None:
        assert not self.ended, "written to after its end"
        self.pieces.append(body)
        self.ended = not more

    def inform(self, status: int, headers: Headers) -> None:
        self.informed.append((status, headers))

    def tunnel(self, headers: Headers) -> None:
        self.status, self.headers = 101, headers

    def trailers(self, headers: Headers) -> None:
        self.sent_trailers, self.ended = headers, True

    def consumed(self, count: int) -> None:
        self.consumed_bytes += count

    def reset(self) -> None:
        self.was_reset = True
