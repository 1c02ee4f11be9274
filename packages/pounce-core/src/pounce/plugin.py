"""The plugin contract: everything the author of a plugin needs to import.

A distribution offers a `Plugin` through the entry-point group `pounce.plugins`:

    [project.entry-points."pounce.plugins"]
    gopher = "pounce_gopher:plugin"

The module should be light: it is imported in every process that starts the server. A wire turns bytes into a
`RequestHead` and a `Stream` and calls `service.open(head, stream)`; `Connection` is a base class with corked
writes, back-pressure and deadlines. `coroutine_wire` is the easy mode. `pounce.testing.check_wire` and
`check_parser` prove a plugin.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

from pounce.errors import BadRequest, ClientGone
from pounce.exchange.head import Headers, RequestHead
from pounce.exchange.stream import Body, ConnectionInfo, Exchange, FileRange, Stream
from pounce.exchange.turns import Share
from pounce.net.connection import Connection
from pounce.options import option

if TYPE_CHECKING:
    from pounce.exchange.service import Service

__all__ = [
    "API_VERSION",
    "Address",
    "BadRequest",
    "Body",
    "ClientGone",
    "Command",
    "Completed",
    "Connection",
    "ConnectionInfo",
    "DatagramSocket",
    "DatagramTransport",
    "DatagramWire",
    "EndOfBody",
    "Exchange",
    "FileRange",
    "Headers",
    "Observer",
    "ObserverFactory",
    "Parser",
    "ParserChoice",
    "ParserLimits",
    "Plugin",
    "RequestHead",
    "Responder",
    "Response",
    "RunsApp",
    "Service",
    "Share",
    "Stream",
    "Switch",
    "Upgrade",
    "Wire",
    "coroutine_wire",
    "option",
]

API_VERSION = (1, 0)
"""Version of this contract: a plugin works when its major number is the same and its minor not higher."""
READ_STEPS = 4
"""What a coroutine takes from its connection's share of a turn for each read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """A protocol over a byte stream.

    `connect(service)` makes the protocol object for one connection; any `asyncio.Protocol` will do. A connection
    gets the wire that its bind names (`name://host:port`), else that of its negotiated ALPN id, else the one
    whose preface its first bytes are, else HTTP/1.1.
    """

    name: str
    connect: Callable[[Service], asyncio.Protocol]
    alpn: tuple[str, ...] = ()
    preface: bytes | None = None


type Address = tuple[Any, ...]
"""Of a peer, as sockets give and take it."""


class DatagramSocket(Protocol):
    """Sends and receives several datagrams with one call."""

    def recv(self) -> list[tuple[bytes, Address]]:
        """What has arrived, as far as one call takes it; empty or `BlockingIOError` when nothing has."""

    def send(self, datagrams: list[bytes], address: Address) -> int:
        """Send in order; the number of those that the kernel took before it would have blocked."""


class DatagramTransport(Protocol):
    """What the protocol of a `DatagramWire` gets: all datagrams of one address, in one worker.

    A worker may read datagrams of connections that another one has: peers change their addresses, and sockets their
    readers. A wire whose connections survive this puts the number of its worker into their ids, and hands on what is
    not its own. What was handed on must not be handed on again. Nothing of this blocks, and what cannot be taken is
    lost, as the network may lose it.
    """

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Beside "sockname": "worker", the number of this worker, from 256 to 2**24 - 1, which no other of the server
        has, old and new ones in a reload included; and "secret", bytes which they share."""

    def sendto(self, data: bytes, addr: Address, /) -> None: ...

    def send_many(self, datagrams: list[bytes], address: Address, /) -> None:
        """Several to one address, in order."""

    def hand_on(self, data: bytes, address: Address, worker: int, /) -> bool:
        """To the worker that has its connection: `handed_on()` is called there. False when there is none."""

    def ask(self, data: bytes, address: Address, /) -> None:
        """To all other workers, for one of them may have its connection: `asked()` is called there."""

    def claim(self, connection_id: bytes, worker: int | None = None, /) -> None:
        """Tell one worker, or all, that this connection is here: `claimed()` is called there."""

    def is_closing(self) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DatagramWire:
    """A protocol over datagrams.

    `connect(service, address)` makes the protocol of one local address in one worker; it is called before the
    application starts, and raises `ConfigError` where the wire cannot be spoken. Its transport is a
    `DatagramTransport`. Beyond `asyncio.DatagramProtocol` it may have `datagrams_received(list of (data, address))`,
    called in place of `datagram_received`, and `drain()`. Connections that it adds to `service.connections` get
    deadlines and drain like those of other wires. `open_socket` may give a faster way to use its sockets. `advertise`
    is the Alt-Svc protocol id (RFC 7838) to announce.

    A protocol that has `handed_on(list of (data, address))` also has `asked(data, address, asker)` and
    `claimed(connection_id, worker)`: they come from other workers. `sockets_moved()` is called when others read from
    now on what this worker has read.
    """

    name: str
    connect: Callable[[Service, Address], asyncio.DatagramProtocol]
    alpn: tuple[str, ...] = ()
    open_socket: Callable[[socket.socket], DatagramSocket] | None = None
    advertise: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """A protocol opened by an upgrade token (RFC 9110 7.8, RFC 8441), in lower case: `b"websocket"`.

    `open` answers the request: `stream.tunnel()` accepts it, `stream.start()` refuses it.
    """

    token: bytes
    open: Callable[[Service, RequestHead, Stream], Exchange]


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """A wire to which a client of HTTP/1.1 may change by an upgrade token (RFC 9110 7.8), in lower case: `b"h2c"`.

    `connect` gets a request without a body that bears the token, and makes the protocol for the rest of its connection;
    None leaves the request to be answered as if it had no token. The protocol's `connection_made()` follows the 101,
    and it is for the protocol to answer that request.
    """

    token: bytes
    connect: Callable[[Service, RequestHead], asyncio.Protocol | None]


@dataclass(frozen=True, slots=True)
class ParserLimits:
    """Bounds for an HTTP/1.1 parser: bytes of a head or trailer section, and the number of fields in one."""

    max_header_size: int = 65536
    max_headers: int = 100


class EndOfBody:
    """The body is complete; `trailers` holds the fields after a chunked one (RFC 9112 7.1.2), else None."""

    __slots__ = ("trailers",)

    def __init__(self, trailers: Headers | None = None) -> None:
        self.trailers = trailers


class Parser(Protocol):
    """Reads the requests of one HTTP/1.1 connection: bytes go in, events are taken out.

    The events of one request are its head, the pieces of its body, and `EndOfBody` unless the head's
    `content_length` is 0. Then follows the next head: bytes of later requests stay inside until asked for.
    """

    def receive_data(self, data: bytes) -> None:
        """Keep `data` for `next_event`; raises nothing."""

    def next_event(self) -> RequestHead | bytes | EndOfBody | None:
        """The next event, None when more bytes are needed.

        Raises `BadRequest` with status, code and position when the bytes are not a request or exceed a limit,
        as early as that is certain; the parser must not be used after that.
        """

    def take_rest(self) -> bytes:
        """The bytes after the last event, which an upgraded protocol takes over; the parser is empty then."""

    @property
    def buffered(self) -> int:
        """Number of bytes that no event has covered yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParserChoice:
    """An HTTP/1.1 parser; among the installed ones the highest `priority` is used unless one is named."""

    name: str
    priority: int
    create: Callable[[ParserLimits], Parser]


@dataclass(frozen=True, slots=True)
class Response:
    """A complete answer."""

    status: int
    headers: Headers = field(default_factory=list)
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Responder:
    """Something the server answers itself, before the application.

    `create(service)` is called once for each worker and returns the function that answers a request or passes
    it on by returning None; it may return None itself, when the configuration does not ask for it.
    """

    name: str
    create: Callable[[Service], Callable[[RequestHead], Response | None] | None]


class Completed(Protocol):
    """What an observer sees of a request, or of what an upgrade opened."""

    @property
    def head(self) -> RequestHead: ...

    @property
    def stream(self) -> Stream: ...

    @property
    def status(self) -> int:
        """0: no answer was begun."""

    @property
    def bytes_sent(self) -> int:
        """Bytes of the body; after an upgrade, of everything."""

    @property
    def started(self) -> float:
        """Its `time.monotonic()`."""

    @property
    def broken(self) -> bool:
        """It did not reach its end."""

    @property
    def close_code(self) -> int | None:
        """How a WebSocket was closed (RFC 6455 7.4); None while it is open, and for everything else."""


class Observer(Protocol):
    """Sees every request of a worker once it is over.

    One that also has `upgraded(exchange)` is called when an upgrade is accepted, long before its end.
    """

    def completed(self, exchange: Completed) -> None:
        """The last byte of the answer has left, or the stream was lost or broken."""


class RunsApp(Protocol):
    """An exchange with an application of its own, which `Service.call_app` starts."""

    def run(self) -> Coroutine[Any, Any, None]:
        """Run the application to its end and settle what it leaves behind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserverFactory:
    """`create(service)` makes the observer of one worker; None when the configuration does not ask for it."""

    name: str
    create: Callable[[Service], Observer | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A subcommand `pounce NAME`; `load()` returns the function the command line runs, with annotated
    parameters, so that nothing is imported before it is used."""

    name: str
    load: Callable[[], Callable[..., Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """What a distribution adds to the server."""

    name: str
    api: tuple[int, int]
    """The contract version it was written for, checked before anything is used."""
    wires: tuple[Wire, ...] = ()
    datagrams: tuple[DatagramWire, ...] = ()
    upgrades: tuple[Upgrade, ...] = ()
    switches: tuple[Switch, ...] = ()
    parsers: tuple[ParserChoice, ...] = ()
    responders: tuple[Responder, ...] = ()
    observers: tuple[ObserverFactory, ...] = ()
    commands: tuple[Command, ...] = ()
    settings: type | None = None
    """A frozen dataclass of settings; `service.settings[name]` holds the instance. Fields made by `option()` have
    bounds, a flag (`--NAME-field`), a variable and a key in files, as settings of the server."""


class FairReader(asyncio.StreamReader):
    """A reader that leaves others their turn, also where there is always something to read."""

    share: Share

    async def read(self, n: int = -1) -> bytes:
        await self.share.spend(READ_STEPS)
        return await super().read(n)

    async def readuntil(self, separator: Any = b"\n") -> bytes:
        await self.share.spend(READ_STEPS)
        return await super().readuntil(separator)

    async def readexactly(self, n: int) -> bytes:
        await self.share.spend(READ_STEPS)
        return await super().readexactly(n)


def coroutine_wire(
    handle: Callable[[Service, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> Callable[[Service], asyncio.Protocol]:
    """The easy mode: a `connect` for `Wire` from a coroutine function, which is run once for each connection.

    The connection is closed when it returns; an exception closes it too and is logged. Slower than a protocol.
    What it reads takes from its connection's share of a turn of the loop.
    """

    def connect(service: Service) -> asyncio.Protocol:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = cast(Connection, writer.transport.get_protocol())
            cast(FairReader, reader).share = connection.share
            try:
                await handle(service, reader, writer)
            except ConnectionError, asyncio.IncompleteReadError:
                service.count("client_gone", "%s: the peer left", connection.wire)
            except Exception:  # noqa: BLE001 - logged there
                service.connection_failed(connection)
            finally:
                writer.close()

        reader = FairReader(limit=65536, loop=service.loop)
        return asyncio.StreamReaderProtocol(reader, serve, loop=service.loop)

    return connect


def __getattr__(name: str) -> Any:
    if name == "Service":
        from pounce.exchange.service import Service

        return Service
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
