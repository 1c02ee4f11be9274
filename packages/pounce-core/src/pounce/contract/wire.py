"""Wires: protocols over byte streams and datagrams, what opens others from inside one, and the Service they talk to."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol

from pounce.config import ServerConfig
from pounce.contract.head import RequestHead
from pounce.contract.parser import Parser
from pounce.contract.stream import Completed, ConnectionInfo, Exchange, RunsApp, Stream
from pounce.contract.totals import Totals
from pounce.contract.turns import Share, Turns
from pounce.errors import BadRequest

__all__ = [
    "ASGIApp",
    "Address",
    "CertificateContext",
    "Certificates",
    "DatagramSocket",
    "DatagramTransport",
    "DatagramWire",
    "Fleet",
    "LiveConnection",
    "Preface",
    "Receive",
    "Scope",
    "Send",
    "Service",
    "Switch",
    "Upgrade",
    "Wire",
]

type ASGIApp = Callable[..., Any]
"""An ASGI 3 application: `await app(scope, receive, send)`."""

type Scope = MutableMapping[str, Any]
"""What an application is told of a request, a WebSocket or its lifespan."""

type Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
"""Waits for the next message to an application."""

type Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
"""Takes a message of an application."""

type Address = tuple[Any, ...]
"""Of a peer, as sockets give and take it."""


class LiveConnection(Protocol):
    """What a worker needs of a connection: to sweep its deadlines, to drain it and to end it."""

    wire: str
    """Name of the wire, for messages."""
    deadline: float
    """The loop time at which `deadline_passed()` is called; `inf` means never."""
    write_deadline: float
    """The same for `write_deadline_passed()`."""
    held_since: float
    """The loop time since when bytes wait here for their turn, in which no deadline passes; 0 while none do."""

    def deadline_passed(self) -> None:
        """`deadline` lies in the past; called on each tick until that changes."""

    def write_deadline_passed(self) -> None:
        """`write_deadline` lies in the past."""

    def drain(self) -> None:
        """The worker is shutting down: finish what runs, start nothing new, then close."""

    def close(self) -> None:
        """Close once everything written has left."""

    def end(self) -> None:
        """The time for shutting down is over: close now, and let the peer tell a cut answer from a whole one."""

    def abort(self) -> None:
        """Close at once; what has not left is lost."""


class CertificateContext(Protocol):
    """Stands for the certificates of a server at one time: another object, other certificates."""

    certificate: str | None
    """The first one in PEM, as the `tls` extension shows it."""


class Certificates(Protocol):
    """The TLS of a server, for wires that do TLS themselves; see `pounce.net.tls.ServerTLS`."""

    def context(self, now: float) -> CertificateContext:
        """What new connections get at `now`, in seconds of the loop's clock: another one when a file has changed."""

    def password(self) -> str | None:
        """Of the private keys. Raises `TLSError`."""

    def files(self) -> dict[str, tuple[str, str]]:
        """Files of certificate and key by the name that clients ask for; `""` for those that ask for none of them."""

    def choose[T](self, by_name: Mapping[str, T], name: str | None) -> T | None:
        """What belongs to the name that a client asks for, of what there is by name."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """The workers of a whole server, over all its processes."""

    wanted: int
    serving: int
    starting: int
    draining: int
    """They finish what they have: replaced in a reload, or at the end of the server."""
    ready: bool
    """Somebody takes new connections, be it another server that has taken over."""


class Service(Protocol):
    """What one worker does with requests, as wires and plugins see it. It belongs to one event loop.

    The methods are called on that loop; none waits.
    """

    config: ServerConfig
    """Settings of the server; for what is on a connection with those that its bind has in place of them."""
    app: ASGIApp
    """The application with the middleware around it."""
    loop: asyncio.AbstractEventLoop
    """The worker's own."""
    log: logging.Logger
    """The logger `pounce`."""
    settings: Mapping[str, Any]
    """Settings of plugins by the name of the plugin: instances of `Plugin.settings`. Those of a bind are in their place
    on its connections."""
    worker_id: int
    """Number of the worker within its server, from 0."""
    generation: int
    """How often the server was reloaded before this worker started."""
    workers: int
    """How many workers its process has, this one included, so that what a process may have can be shared out."""
    fleet: Fleet | None
    """All workers of the server, as its supervisor last said; None where there is none, or nobody asks for it."""
    draining: bool
    """The worker takes no further connections and lets requests finish."""
    ending: bool
    """The time for that is over: what runs is being cancelled, and a request that is opened is answered 503."""
    upgrades: Mapping[bytes, Upgrade]
    """By token."""
    switches: Mapping[bytes, Switch]
    """By token; for the one wire that has upgrades by a field: HTTP/1.1."""
    create_parser: Callable[[], Parser] | None
    """The HTTP/1.1 parser that was chosen."""
    trusts: Callable[[ConnectionInfo], bool] | None
    """Whether what the peer of a connection says of requests that it passes on is believed; None where no proxy is."""
    turns: Turns
    """Connections that have used up their share of a turn of the loop."""
    connections: set[LiveConnection]
    """Swept for deadlines, drained and counted. `Connection` adds itself."""
    on_drain: set[Callable[[], None]]
    """Called once each when the worker begins to drain, on its loop; for what would otherwise go on for ever, such
    as tunnels. Whoever adds itself removes itself when it ends, and looks at `draining` first."""
    on_tick: set[Callable[[float], None]]
    """Called a few times a second with the loop's time, for deadlines of what is not a connection."""
    on_end: set[Callable[[], Awaitable[None]]]
    """Called and awaited when the worker has ended, on its loop; for what goes on beside requests."""
    on_totals: set[Callable[[Totals], None]]
    """Called with what this worker has counted, when somebody adds up: for numbers that are kept in another form. They
    are put into it there. That is on any thread, so that what belongs to the loop may be read, and no more."""
    least_taken: int
    """Bytes that a peer must take in each `write_timeout` for which something waits for it."""
    body_came: Callable[[int], None] | None
    """What a wire calls with the size of each piece of a body; None where nobody adds that up."""
    place: int
    """Number of the worker among those of its process, from 0, who tells what is to be told once for each process."""
    counts: dict[str, float]
    """What has happened in this worker, by name, and how often: numbers that never fall; see `count`."""
    gauges: dict[str, float]
    """How it is in this worker, by name: numbers that rise and fall, such as of what is open, brought up to date in
    `on_tick`. Other threads read them at any time."""
    shared: dict[str, Any]
    """What the connections of this worker share, by a name that begins with the wire's."""

    @property
    def tls(self) -> Certificates | None:
        """Certificates of the server; None without TLS."""

    def open(self, head: RequestHead, stream: Stream, body: bytes = b"", ended: bool = False) -> Exchange:
        """Take a request: the exchange that this returns gets its body.

        `body` is what came of it together with the head, and `ended` says that this is all of it: an application
        that asks for its body then need not wait. Where the server answers by itself they are left alone.
        """

    def open_early(self, head: RequestHead, stream: Stream) -> Exchange:
        """Take a request that came in early data, which anybody may have sent again: 425 unless that is safe
        (RFC 8470 5.2)."""

    def refuse(self, head: RequestHead | None, stream: Stream, error: BadRequest) -> Exchange:
        """Answer a request with an error; `head` is None when it could not even be read."""

    def call_app(self, exchange: RunsApp, app: ASGIApp | None = None) -> None:
        """Start the application for one exchange, or another one: the only place where that happens."""

    def create_future(self) -> asyncio.Future[None]:
        """Something to wait for, as the loop makes it."""

    def upgraded(self, exchange: Completed) -> None:
        """An upgrade was accepted: observers that want to know are told; `completed()` follows at its end."""

    def completed(self, exchange: Completed) -> None:
        """The last byte of an answer has left, or its stream was lost; once for each exchange."""

    def connection_closed(self, connection: LiveConnection) -> None:
        """A connection is gone; called once for each that was added to `connections`."""

    def connection_failed(self, connection: LiveConnection, error: BaseException | None = None) -> None:
        """A wire raised, which must cost its connection and no more. `error` is what, by default the exception that is
        being handled."""

    def stream_failed(self, stream: Stream, error: BaseException, whole_connection: bool = False) -> None:
        """A method of `stream` has raised, which is logged as its wire's fault. Whoever called it resets the stream;
        where `reset` is what has failed, `whole_connection` ends the connection in its place."""

    def count_peer(self, share: Share, address: str) -> bool:
        """Count a connection, by its share, for its address until it is closed; for wires over datagrams, once they
        know that it is its own. False where it is one too many, which the wire has to close."""

    def keep_alive_timeout(self, connection: ConnectionInfo) -> float:
        """Seconds that this connection may be idle between two requests."""

    def next_connection_id(self) -> int:
        """A number for a new connection of this worker, from 1."""

    def count(self, name: str, message: str = "", *args: object) -> None:
        """Count an event by name, and log it at debug level where a message is given."""

    def own_totals(self) -> Totals:
        """What this worker has counted; from any thread."""

    async def totals(self) -> Totals:
        """What all workers of the server have counted: the sums of their `counts` and `gauges`, whatever process they
        are in, also those that a reload has replaced, and of `counts` those of workers that have ended.

        Whatever was counted before the call is in them, unless a process does not answer within a second, of which
        the last known is taken. Raises `TimeoutError` where the supervisor does not answer.
        """


@dataclass(frozen=True, slots=True)
class Preface:
    """A rule by which a wire is known, where no constant will do.

    `matches` gets the first bytes of a connection, as many as have come and no more than `size`: True says that the
    connection is the wire's, False that it is not, None that more of them will tell. It is asked anew with each piece
    that comes, and no longer than until `size` bytes are there, after which None counts as False.
    """

    matches: Callable[[bytes], bool | None]
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """A protocol over a byte stream.

    `connect(service)` makes the protocol object for one connection; any `asyncio.Protocol` will do. A connection
    gets the wire that its bind names (`name://host:port`), else that of its negotiated ALPN id, else the one
    whose preface its first bytes are, else HTTP/1.1. Constant prefaces come before rules, and rules in the order of the
    names of their plugins.
    """

    name: str
    connect: Callable[[Service], asyncio.Protocol]
    alpn: tuple[str, ...] = ()
    """Protocol ids to offer in TLS (RFC 7301), the preferred one first."""
    preface: bytes | Preface | None = None
    """What its connections begin with."""


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

    def sendto(self, data: bytes, addr: Address, /) -> None:
        """One to an address."""

    def send_many(self, datagrams: list[bytes], address: Address, /) -> None:
        """Several to one address, in order."""

    def hand_on(self, data: bytes, address: Address, worker: int, /) -> bool:
        """To the worker that has its connection: `handed_on()` is called there. False when there is none."""

    def ask(self, data: bytes, address: Address, /) -> None:
        """To all other workers, for one of them may have its connection: `asked()` is called there."""

    def claim(self, connection_id: bytes, worker: int | None = None, /) -> None:
        """Tell one worker, or all, that this connection is here: `claimed()` is called there."""

    def is_closing(self) -> bool:
        """Nothing more can be sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatagramWire:
    """A protocol over datagrams, on the ports of UDP that name it (`udp+name://host:port`). One that has `advertise` is
    spoken beside TCP as well, with `http3_enabled`.

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
    """For messages, and for binds that name their wires."""
    connect: Callable[[Service, Address], asyncio.DatagramProtocol]
    alpn: tuple[str, ...] = ()
    """Protocol ids that it negotiates itself (RFC 7301)."""
    open_socket: Callable[[socket.socket], DatagramSocket] | None = None
    advertise: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """A protocol opened by an upgrade token (RFC 9110 7.8, RFC 8441), in lower case: `b"websocket"`.

    `open` answers the request: `stream.tunnel()` accepts it, `stream.start()` refuses it.
    """

    token: bytes
    """As in the field Upgrade, or `:protocol` of an extended CONNECT."""
    open: Callable[[Service, RequestHead, Stream], Exchange]
    takes: Callable[[Service, RequestHead], bool] | None = None
    """Whether it is to be had for this request, where that depends on settings or on its wire; False leaves the request
    to be answered as if nobody knew the token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """A wire to which a client of HTTP/1.1 may change by an upgrade token (RFC 9110 7.8), in lower case: `b"h2c"`.

    `connect` gets a request without a body that bears the token, and makes the protocol for the rest of its connection;
    None leaves the request to be answered as if it had no token. The protocol's `connection_made()` follows the 101,
    and it is for the protocol to answer that request.
    """

    token: bytes
    """As in the field Upgrade."""
    connect: Callable[[Service, RequestHead], asyncio.Protocol | None]
