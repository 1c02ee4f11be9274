"""Pieces: what a distribution adds to the server beside wires, and the Plugin that names it all."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from pounce.contract.head import Headers, RequestHead
from pounce.contract.parser import ParserChoice
from pounce.contract.stream import Completed
from pounce.contract.wire import DatagramWire, Service, Switch, Upgrade, Wire

__all__ = ["API_VERSION", "Command", "Observer", "ObserverFactory", "Plugin", "Responder", "Response"]

API_VERSION = (1, 0)
"""Version of this contract: a plugin works when its major number is the same and its minor not higher."""


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


class Observer(Protocol):
    """Sees every request of a worker once it is over.

    One that also has `upgraded(exchange)` is called when an upgrade is accepted, long before its end.
    """

    def completed(self, exchange: Completed) -> None:
        """The last byte of the answer has left, or the stream was lost or broken."""


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
