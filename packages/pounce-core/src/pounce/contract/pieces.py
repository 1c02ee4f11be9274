"""Pieces: what a distribution adds to the server beside wires, and the Plugin that names it all."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pounce.contract.head import Headers, RequestHead
from pounce.contract.parser import ParserChoice
from pounce.contract.stream import Completed
from pounce.contract.wire import ASGIApp, DatagramWire, Service, Switch, Upgrade, Wire

__all__ = [
    "API_VERSION",
    "POSITIONS",
    "Command",
    "MiddlewareChoice",
    "Observer",
    "ObserverFactory",
    "Plugin",
    "Position",
    "Responder",
    "Response",
]

API_VERSION = (1, 4)
"""Version of this contract: a plugin works when its major number is the same and its minor not higher."""


@dataclass(frozen=True, slots=True)
class Response:
    """A complete answer."""

    status: int
    """Of the answer, from 200 on."""
    headers: Headers = field(default_factory=list)
    """Names in lower case; what delimits it, Date and Server are added."""
    body: bytes = b""
    """All of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Responder:
    """Something the server answers itself, before the application.

    `create(service)` is called once for each worker and returns the function that answers a request or passes
    it on by returning None; it may return None itself, when the configuration does not ask for it. What needs the body,
    the client's address, or time is answered by an ASGI application, which takes the place of the user's for that
    request and is wrapped by no middleware.
    """

    name: str
    """For messages."""
    create: Callable[[Service], Callable[[RequestHead], Response | ASGIApp | None] | None]


type Position = Literal["outer", "encoding", "content", "inner"]

POSITIONS: tuple[Position, ...] = ("outer", "encoding", "content", "inner")
"""Where a middleware stands, outermost first. `outer` sees what the client sees: traces, reports of errors. `encoding`
codes bodies: compression. `content` answers in place of the application: static files. `inner` is next to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MiddlewareChoice:
    """Something that wraps the application: an ASGI application around an ASGI application.

    `create(service, app)` is called once for each worker, innermost first, and returns what is called in place of
    `app`, or None when the configuration does not ask for it. Of those with the same `where`, the server's own come
    first, then plugins in the order of their names, and within a plugin the order it gives. The user's own list
    (the setting `middleware`) is inside of all of them. Requests, WebSockets and the worker's lifespan come through.
    """

    name: str
    """For messages."""
    create: Callable[[Service, ASGIApp], ASGIApp | None]
    where: Position = "inner"


class Observer(Protocol):
    """Sees every request of a worker once it is over.

    One that also has `upgraded(exchange)` is called when an upgrade is accepted, long before its end. With
    `started(exchange)` it is called when the head of a request has been read, also of one that is refused; not for what
    an upgrade opens. `connection_opened(connection, wire)`, with a `ConnectionInfo` and the name of its wire, and
    `connection_closed(connection)` tell of connections; a wire that learns late who its peer is tells of the second
    alone. Where no observer has them, they cost nothing.
    """

    def completed(self, exchange: Completed) -> None:
        """The last byte of the answer has left, or the stream was lost or broken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserverFactory:
    """`create(service)` makes the observer of one worker; None when the configuration does not ask for it."""

    name: str
    """For messages."""
    create: Callable[[Service], Observer | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A subcommand `pounce NAME`; `load()` returns the function the command line runs, with annotated
    parameters, so that nothing is imported before it is used."""

    name: str
    """As it is typed."""
    load: Callable[[], Callable[..., Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """What a distribution adds to the server."""

    name: str
    """By which settings find it; that of its entry point too."""
    api: tuple[int, int]
    """The contract version it was written for, checked before anything is used."""
    wires: tuple[Wire, ...] = ()
    """Protocols over TCP and Unix sockets."""
    datagrams: tuple[DatagramWire, ...] = ()
    """Protocols over UDP."""
    upgrades: tuple[Upgrade, ...] = ()
    """Protocols that a request opens on its stream."""
    switches: tuple[Switch, ...] = ()
    """Wires to which a connection of HTTP/1.1 may change."""
    parsers: tuple[ParserChoice, ...] = ()
    """Readers of HTTP/1.1."""
    responders: tuple[Responder, ...] = ()
    """Asked before the application, in this order, those of other plugins in the order of the names of these."""
    observers: tuple[ObserverFactory, ...] = ()
    """Told of every request that is over."""
    middleware: tuple[MiddlewareChoice, ...] = ()
    """Around the application, outermost first."""
    commands: tuple[Command, ...] = ()
    """Subcommands of `pounce`."""
    settings: type | None = None
    """A frozen dataclass of settings; `service.settings[name]` holds the instance. Fields made by `option()` have
    bounds, a flag (`--NAME-field`), a variable and a key in files, as settings of the server."""
