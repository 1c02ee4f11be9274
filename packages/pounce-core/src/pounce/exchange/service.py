"""Service: the one pipeline that every request of a worker takes, whatever wire brought it."""

import asyncio
import contextvars
import itertools
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from math import inf
from types import MappingProxyType
from typing import Any, Protocol, cast

from pounce.config import ServerConfig, describe
from pounce.contract.head import UNREADABLE, RequestHead, unreadable_head
from pounce.contract.parser import Parser
from pounce.contract.pieces import MiddlewareChoice, Observer, ObserverFactory, Responder, Response
from pounce.contract.stream import Completed, ConnectionInfo, Exchange, RunsApp, Stream
from pounce.contract.totals import Totals
from pounce.contract.turns import Share, Turns
from pounce.contract.wire import ASGIApp, Certificates, Fleet, LiveConnection, Switch, Upgrade
from pounce.errors import BadRequest, PounceError
from pounce.exchange.crossing import Crossing
from pounce.exchange.draining import DrainNotice
from pounce.exchange.error_pages import ErrorPages, plugin_failed, shutting_down
from pounce.exchange.host import Compression, ErrorApps
from pounce.exchange.http import HELD, HttpExchange
from pounce.exchange.own_binds import own_binds
from pounce.exchange.response_headers import ResponseHeaders
from pounce.exchange.scope import METHODS, offered_extensions
from pounce.immortal import own_class

__all__ = ["ASGIApp", "Admit", "Service"]

DEFAULT_MAX_REQUEST_SIZE = next(item.default for item in describe() if item.name == "max_request_size")

LOST_WITHIN = 0.5
"""Seconds in which a connection that was broken off is lost, unless its wire fails over that too."""

EARLY_EVENTS = ("connection_opened", "connection_closed", "started")
"""Methods of observers that are called before the end of a request, where one has them."""

SAFE = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"QUERY"))
"""Methods that ask for no change (RFC 9110 9.2.1)."""

TOO_EARLY = BadRequest("The request may be a replay, and its method is not safe", status=425, code="POUNCE_TOO_EARLY")
UNKNOWN_PROTOCOL = BadRequest(
    "The protocol of an extended CONNECT is not known", status=501, code="POUNCE_UNKNOWN_PROTOCOL"
)
NO_WEBSOCKET = BadRequest(
    "this server does not speak WebSocket",
    code="POUNCE_WS_NOT_INSTALLED",
    hint="Install the WebSocket plugin: pip install pounce-ws",
)


type Admit = Callable[[RequestHead, Stream], Exchange | None]
"""Lets a request pass, by None, or answers it, or keeps it until more is known (`pounce.exchange.waiting`): then it is
the last of the steps."""


class Identity(Protocol):
    """Who asks and through whom; see `pounce.identity.identity`."""

    always: bool
    trusts: Callable[[ConnectionInfo], bool] | None

    def identify(self, head: RequestHead, connection: ConnectionInfo) -> None: ...

    def name(self, head: RequestHead) -> None: ...

    def keep_alive_timeout(self, connection: ConnectionInfo) -> float: ...


class Concurrency(Protocol):
    """How many requests run, and who waits; see `pounce.admission.concurrency`."""

    def serve(
        self,
        service: Service,
        exchange_class: type[HttpExchange],
        run: Callable[[Any, ASGIApp], asyncio.Task[None]],
        /,
    ) -> type[HttpExchange]: ...

    def start(self, exchange: Any, app: ASGIApp) -> None: ...

    def start_upgraded(self, exchange: Any, app: ASGIApp) -> None: ...

    def end(self) -> None: ...


class Peers(Protocol):
    """How many connections each address has; see `pounce.admission.peers`."""

    def enter(self, address: str | None) -> str | None: ...

    def leave(self, key: str) -> None: ...

    def keep(self, key: str, share: Share) -> None: ...

    def closed(self, share: Share | None) -> None: ...


class Budget(Protocol):
    """How much is held for the peers; see `pounce.admission.buffers`."""

    held: int

    def came(self, count: int) -> None: ...


class Service:
    """What one worker does with requests. It belongs to one event loop; nothing of it is shared, and what comes from
    another loop comes through `crossing`.

    What wires and plugins may use of it is `pounce.contract.wire.Service`.
    """

    # Each request asks for forty of them: in a dictionary of that many each takes several times as long.
    __slots__ = (
        "_admit",
        "_context",
        "_future_class",
        "_identifies_all",
        "_identity",
        "_limited",
        "_limited_upgrades",
        "_logged",
        "_on_app_error",
        "_responder_names",
        "_responders",
        "_task_class",
        "_timed",
        "app",
        "aside",
        "ask_totals",
        "body_came",
        "budget",
        "completers",
        "compressed",
        "compression",
        "concurrency",
        "config",
        "connections",
        "counts",
        "create_parser",
        "crossing",
        "described",
        "disconnects",
        "drain_begun",
        "drain_notice",
        "draining",
        "ending",
        "error_apps",
        "error_pages",
        "exchange_class",
        "fleet",
        "gauges",
        "generation",
        "least_taken",
        "log",
        "loop",
        "max_connections",
        "max_request_size",
        "methods",
        "next_connection_id",
        "observers",
        "offered",
        "offers_hints",
        "on_drain",
        "on_end",
        "on_tick",
        "on_totals",
        "peers",
        "place",
        "receivers",
        "request_id_field",
        "requests",
        "response_headers",
        "settings",
        "shared",
        "something_ended",
        "state",
        "switches",
        "tasks",
        "tls",
        "trusts",
        "turns",
        "upgrades",
        "worker_id",
        "workers",
    )

    def __init__(
        self,
        config: ServerConfig,
        app: ASGIApp,
        loop: asyncio.AbstractEventLoop,
        *,
        worker_id: int = 0,
        generation: int = 0,
        upgrades: Mapping[bytes, Upgrade] = MappingProxyType({}),
        switches: Mapping[bytes, Switch] = MappingProxyType({}),
        responders: tuple[Responder, ...] = (),
        observers: tuple[ObserverFactory, ...] = (),
        middleware: tuple[MiddlewareChoice, ...] = (),
        settings: Mapping[str, Any] = MappingProxyType({}),
        create_parser: Callable[[], Parser] | None = None,
        tls: Certificates | None = None,
        on_app_error: Callable[[BaseException], object] | None = None,
        identity: Identity | None = None,
        admission: tuple[Callable[[Service], Admit], ...] = (),
        concurrency: Concurrency | None = None,
        peers: Peers | None = None,
        budget: Callable[[Service], Budget] | None = None,
        error_apps: Mapping[str, ASGIApp] = MappingProxyType({}),
    ) -> None:
        self.app = app
        self.loop = loop
        self.log = logging.getLogger("pounce")
        self.worker_id = worker_id
        self.generation = generation
        """How often the server was reloaded before this worker started."""
        self.described = {"version": 1, "worker_id": worker_id, "generation": generation}
        """What scopes tell of the worker."""
        self.upgrades = upgrades
        self.switches = switches
        """Tokens of other wires, for the one that has upgrades: HTTP/1.1."""
        self.tls = tls
        """Certificates of the server, for wires that do TLS themselves; None without TLS."""
        self.state: dict[str, Any] = {}
        self.crossing = Crossing(loop)
        """How calls from other loops reach what belongs to this one: see there what an exchange has to do about it."""
        self.fleet: Fleet | None = None
        self.draining = False
        self.ending = False
        """No more requests begin: what runs is being cancelled."""
        self.drain_begun = asyncio.Event()
        """Set when the worker accepts no more connections."""
        self.drain_notice = DrainNotice(self.drain_begun, self.crossing)
        self.disconnects = False
        """A drain has lasted so long that applications are told `http.disconnect`, though their clients are there."""
        self.receivers: set[HttpExchange] = set()
        """Whose application waits in `receive()`."""
        self.on_drain: set[Callable[[], None]] = set()
        """Called once each when the worker begins to drain, on its loop; for what would otherwise go on for ever, such
        as tunnels. Whoever adds itself removes itself when it ends, and looks at `draining` first."""
        self.on_tick: set[Callable[[float], None]] = set()
        """Called a few times a second with the loop's time, for deadlines of what is not a connection."""
        self.on_totals: set[Callable[[Totals], None]] = set()
        self.on_end: set[Callable[[], Awaitable[None]]] = set()
        """Called and awaited when the worker has ended, on its loop; for what goes on beside requests."""
        self.something_ended = asyncio.Event()
        self.connections: set[LiveConnection] = set()
        self.turns = Turns()
        """Connections that have used up their share of a turn of the loop."""
        self.tasks: dict[asyncio.Task[None], RunsApp] = {}
        """Applications that run, each with its exchange."""
        self.budget = budget(self) if budget is not None else None
        """What bounds the bytes that are held; None where nothing does."""
        self.body_came: Callable[[int], None] | None = None if self.budget is None else self.budget.came
        self.requests = 0
        self.place = 0
        self.counts: dict[str, float] = {}
        self.gauges: dict[str, float] = {}
        self.ask_totals: Callable[[Callable[[Totals | None], None]], None] | None = None
        """Calls what it is given, once and on any thread, with what all workers have counted; None where this one is
        alone."""
        self.shared: dict[str, Any] = {}
        """What the connections of this worker share, by a name that begins with the wire's."""
        self.response_headers = ResponseHeaders(config)
        files = {key: page for key, page in config.error_pages.items() if key not in error_apps}
        self.error_pages = ErrorPages(files, debug=config.debug, debug_hosts=config.debug_hosts)
        # For this loop's thread alone; see `pounce.immortal`.
        exchange_class: type[HttpExchange] = HttpExchange
        self.request_id_field = config.request_id_header.lower().encode()
        if config.request_id:
            from pounce.exchange.identified import IdentifiedExchange

            exchange_class = IdentifiedExchange
        if config.server_timing:
            from pounce.exchange.timed import TimedExchange

            exchange_class = (
                type("TimedExchange", (TimedExchange, exchange_class), {"__slots__": ()})
                if config.request_id
                else TimedExchange
            )
        if config.rate_limit_enabled and config.rate_limit_fields == "all":
            from pounce.exchange.rated import RatedExchange

            exchange_class = type("RatedExchange", (RatedExchange, exchange_class), {"__slots__": ()})
        if config.otel_endpoint is not None:
            from pounce.exchange.traced import TracedExchange

            exchange_class = type("TracedExchange", (TracedExchange, exchange_class), {"__slots__": ()})
        self.peers = peers
        """What counts the connections of each address; None where nobody does."""
        self.concurrency = concurrency
        """What bounds the requests that run; None where nothing does."""
        # None and not `self.start_app`, which would tie the service to itself.
        self._timed: Callable[[Any, ASGIApp], asyncio.Task[None]] | None = None
        self._limited: Callable[[Any, ASGIApp], object] | None = None
        self._limited_upgrades: Callable[[Any, ASGIApp], object] | None = None
        if config.app_timeout:
            from pounce.exchange.app_timeout import AppTimeout

            self._limited = self._timed = AppTimeout(self, config.app_timeout).start
        if concurrency is not None:
            exchange_class = concurrency.serve(self, exchange_class, self._timed or self.start_app)
            self._limited, self._limited_upgrades = concurrency.start, concurrency.start_upgraded
        self.exchange_class = own_class(exchange_class, "receive", "send")
        """What answers requests over HTTP here, refused WebSockets among them."""
        self.error_apps: ErrorApps | None = None
        if error_apps:
            from pounce.exchange.error_apps import ErrorApps as Found

            self.error_apps = Found(error_apps, exchange_class, debug=config.debug)
        self._task_class: type[asyncio.Task[None]] = own_class(asyncio.Task)
        self._future_class: type[asyncio.Future[None]] = own_class(asyncio.Future)
        self.methods = {method.encode(): method for method in METHODS}
        """What scopes call the usual methods."""
        self.offered = offered_extensions(config.asgi_extensions)
        self.offers_hints = "early_hint" in config.asgi_extensions
        self._take_settings(config, settings, create_parser, identity)
        self.max_connections = config.max_connections
        """This worker's share; 0 sets no limit."""
        self.workers = 1
        """Workers of this process, which share what it may have."""
        self._on_app_error = on_app_error
        self.next_connection_id: Callable[[], int] = itertools.count(1).__next__
        """A number for a new connection of this worker, from 1."""
        self._context = contextvars.copy_context()
        self._logged: set[str] = set()
        made = [(item.name, respond) for item in responders if (respond := item.create(self)) is not None]
        apart = {name for names in own_binds(config).values() for name in names}
        self._responders = tuple(respond for name, respond in made if name not in apart)
        self._responder_names = tuple(name for name, _ in made if name not in apart)
        self.aside = tuple((name, respond) for name, respond in made if name in apart)
        """Responders of binds that are for them alone."""
        self._admit = _one_after_the_other([create(self) for create in admission])
        self.observers: tuple[Observer, ...] = tuple(
            observer for factory in observers if (observer := factory.create(self)) is not None
        )
        self.completers = tuple(observer.completed for observer in self.observers)
        """A method of each of them, at hand."""
        if any(hasattr(observer, event) for observer in self.observers for event in EARLY_EVENTS):
            from pounce.exchange.watched import WatchedConnections, watched

            self.connections = WatchedConnections(self)
            self.exchange_class = own_class(watched(exchange_class, self), "receive", "send")
        self.compression: Compression | None = None
        """What exchanges ask about answers of `compressed` that are not small."""
        self.compressed: ASGIApp | None = None
        if middleware:
            from pounce.exchange.pipeline import wrapped

            self.app, self.compression = wrapped(self, app, middleware)
            if self.compression is not None:
                self.compressed = self.app

    def _take_settings(
        self,
        config: ServerConfig,
        settings: Mapping[str, Any],
        create_parser: Callable[[], Parser] | None,
        identity: Identity | None,
    ) -> None:
        """What depends on settings of which a bind may have its own."""
        self.config = config
        self.settings = settings
        self.create_parser = create_parser
        if config.server_timing and create_parser is not None:
            from pounce.exchange.timed import timed

            self.create_parser = timed(create_parser)
        self._identity = identity
        self._identifies_all = identity is not None and identity.always
        self.trusts = identity.trusts if identity is not None else None
        self.max_request_size = config.max_request_size
        self.least_taken = max(int(config.min_write_rate * config.write_timeout), 1)
        """Bytes that a peer must take in each `write_timeout` for which something waits for it."""

    def open(self, head: RequestHead, stream: Stream, body: bytes = b"", ended: bool = False) -> Exchange:
        """Take a request: the exchange that this returns gets its body. Never waits.

        `body` is what came of it together with the head, and `ended` says that this is all of it: an application
        that asks for its body then need not wait. Where the server answers by itself they are left alone.
        """
        self.requests += 1
        if head.relayed or self._identifies_all:
            identity = self._identity
            if identity is not None:
                try:
                    identity.identify(head, stream.connection)
                except BadRequest as error:
                    return self.refuse(head, stream, error)
        length = head.content_length
        if length and length > self.max_request_size > 0:
            return self.refuse(head, stream, self.too_large())
        if head.upgrade is not None:
            upgrade = self.upgrade_for(head)
            if upgrade is not None:
                if self._admit is not None:
                    other = self._admit(head, stream)
                    if other is not None:
                        return self._leave_to(other, body, ended)
                opened = self.open_upgrade(upgrade, head, stream)
                if body:
                    opened.data_received(body)
                if ended:
                    opened.eof_received()
                return opened
            if head.upgrade == b"websocket":
                return self._refuse_websocket(head, stream)
            if head.method == b"CONNECT":
                # RFC 8441 leaves it open; RFC 9220 3: "SHOULD respond to the request with a 501"
                return self.refuse(head, stream, UNKNOWN_PROTOCOL)
        app, start = self.app, self._limited
        if self._responders:
            for respond in self._responders:
                try:
                    answer = respond(head)
                except Exception as exc:  # noqa: BLE001 - logged there
                    answer = self._responder_failed(respond, head, stream, exc)
                if answer is not None:
                    if isinstance(answer, Response):
                        exchange = self.exchange_class(self, head, stream)
                        exchange.respond(answer)
                        return exchange
                    app, start = answer, None
                    break
        if self._admit is not None and app is self.app:
            other = self._admit(head, stream)
            if other is not None:
                return self._leave_to(other, body, ended)
        exchange = self.exchange_class(self, head, stream)
        if body or ended:
            if ended:
                exchange.whole_received(body)
            else:
                exchange.data_received(body)
            if exchange.status:
                # It is too large, and answered.
                return exchange
        if start is None:
            self.start_app(exchange, app)
        else:
            start(exchange, app)
        return exchange

    def _leave_to(self, other: Exchange, body: bytes, ended: bool) -> Exchange:
        """A step of admission has answered the request, or keeps it: then it gets the body as well."""
        if getattr(other, "waits", False):
            # Of the bind, where that has settings of its own.
            cast(Any, other).service = self
            if body:
                other.data_received(body)
            if ended:
                other.eof_received()
        return other

    def upgrade_for(self, head: RequestHead) -> Upgrade | None:
        """The upgrade that a request asks for, if it is to be had."""
        upgrade = self.upgrades.get(head.upgrade) if head.upgrade is not None else None
        return upgrade if upgrade is not None and (upgrade.takes is None or upgrade.takes(self, head)) else None

    def open_upgrade(self, upgrade: Upgrade, head: RequestHead, stream: Stream) -> Exchange:
        """Give a request that may start to the upgrade that it asks for."""
        try:
            return upgrade.open(self, head, stream)
        except Exception as exc:  # noqa: BLE001 - logged there
            return self._upgrade_failed(head, stream, exc)

    def _responder_failed(
        self, respond: Callable[[RequestHead], object], head: RequestHead, stream: Stream, error: Exception
    ) -> Response:
        """The answer for what the server answers itself, and cannot. Nobody else answers it: what a responder guards is
        not to be had by making it fail."""
        self.count("plugin_error")
        name = self._responder_names[self._responders.index(respond)]
        self.log.error("Responder %s failed", name, exc_info=error)
        return self.error_pages.answer(plugin_failed(), head, stream, error)

    def open_early(self, head: RequestHead, stream: Stream) -> Exchange:
        """Take a request that came in early data, which anybody may have sent again (RFC 8470)."""
        if head.method not in SAFE:
            # RFC 8470 5.2: the client sends it again when it is connected.
            return self.refuse(head, stream, TOO_EARLY)
        return self.open(head, stream)

    def refuse(self, head: RequestHead | None, stream: Stream, error: PounceError) -> Exchange:
        """Answer a request with an error; `head` is None when it could not even be read.

        Wires of another version than HTTP/1.1 give an `unreadable_head()` then.
        """
        self.count(error.code, "%s", error.message)
        readable = head is not None and head.target != UNREADABLE
        if head is None:
            head = unreadable_head("1.1", stream.connection.scheme)
        if self._identity is not None and (head.extensions is None or "request_id" not in head.extensions):
            self._identity.name(head)
        exchange = self.exchange_class(self, head, stream)
        if readable:
            exchange.settle(error)
            return stream.exchange or exchange
        exchange.respond(self.error_pages.answer(error, head, stream))
        return exchange

    def _upgrade_failed(self, head: RequestHead, stream: Stream, error: Exception) -> Exchange:
        """It may have begun its answer, so that no other can be given."""
        self.count("plugin_error")
        token = head.upgrade.decode("ascii", "backslashreplace") if head.upgrade is not None else ""
        self.log.error("Upgrade %s failed", token, exc_info=error)
        exchange = self.exchange_class(self, head, stream)
        exchange.give_up()
        return exchange

    def too_large(self) -> BadRequest:
        """The error for a request body above `max_request_size`.

        Where that is what nobody has asked for, it is said once: who never saw the limit looks for the fault elsewhere.
        """
        limit = self.max_request_size
        if limit == DEFAULT_MAX_REQUEST_SIZE and "too_large" not in self._logged:
            self._logged.add("too_large")
            self.log.warning(
                "A request body is larger than max_request_size, by default %d bytes, and was answered 413;"
                " set max_request_size to accept larger ones",
                limit,
            )
        return BadRequest(
            "Request body exceeds max_request_size",
            status=413,
            code="POUNCE_LIMIT_REQUEST_TOO_LARGE",
            hint=f"The limit is {limit} bytes; raise max_request_size to accept more.",
        )

    def _refuse_websocket(self, head: RequestHead, stream: Stream) -> Exchange:
        if "websocket" not in self._logged:
            self._logged.add("websocket")
            self.log.warning("WebSocket handshake refused: %s", NO_WEBSOCKET.hint)
        return self.refuse(head, stream, NO_WEBSOCKET)

    def call_app(self, exchange: RunsApp, app: ASGIApp | None = None) -> None:
        """Start the application, or another one, for what an upgrade has opened; or have the stream refused, where no
        more may run."""
        (self._limited_upgrades or self.start_app)(exchange, self.app if app is None else app)

    def start(self, exchange: RunsApp, app: ASGIApp) -> None:
        """Start the application of a request, as soon as there is a place for it."""
        (self._limited or self.start_app)(exchange, app)

    def run_app(self, exchange: RunsApp, app: ASGIApp) -> asyncio.Task[None]:
        """Start an application of the user's for a request, which may take `app_timeout`."""
        return (self._timed or self.start_app)(exchange, app)

    def start_app(self, exchange: RunsApp, app: ASGIApp) -> asyncio.Task[None]:
        """Start an application for one exchange: the only place where that happens.

        Eagerly, in a task: an application that need not wait is done when this returns, and `asyncio.timeout()`
        and anyio find the current task that they need.
        """
        # Each has a context of its own: what calls this may itself run in the context of an earlier request. The loop
        # is the one that runs: to name it costs more than to have it found.
        task = self._task_class(exchange.run(app), context=self._context.copy(), eager_start=True)
        if not task.done():
            self.tasks[task] = exchange
            task.add_done_callback(self.tasks.pop)
        return task

    def app_failed(self, error: BaseException) -> None:
        """Count and log what the application raised."""
        self.count("app_error")
        self.log.error("Exception in ASGI application", exc_info=error)
        if self._on_app_error is not None:
            self._on_app_error(error)

    def create_future(self) -> asyncio.Future[None]:
        """Something to wait for, as the loop makes it."""
        return self._future_class(loop=self.loop)

    def upgraded(self, exchange: Completed) -> None:
        """An upgrade was accepted: observers that want to know are told; `completed()` follows at its end."""
        for observer in self.observers:
            upgraded = getattr(observer, "upgraded", None)
            if upgraded is not None:
                self.tell(observer, upgraded, exchange)

    def completed(self, exchange: Completed) -> None:
        """The last byte of an answer has left, or its stream was lost; once for each exchange."""
        for completed in self.completers:
            try:
                completed(exchange)
            except Exception:  # noqa: BLE001 - logged there
                # As `tell()` does, which would be a call more.
                self._observer_failed(self.observers[self.completers.index(completed)])

    def tell(self, observer: Observer, event: Callable[..., None], *args: object) -> None:
        """Call a method of an observer; what it raises is counted and logged."""
        try:
            event(*args)
        except Exception:  # noqa: BLE001 - logged there
            self._observer_failed(observer)

    def _observer_failed(self, observer: Observer) -> None:
        self.count("observer_error")
        self.log.exception("Observer %s failed", type(observer).__name__)

    def disconnect(self) -> None:
        """From here on `receive()` gives `http.disconnect` where there is nothing else to give; `send()` goes on."""
        self.disconnects = True
        for exchange in tuple(self.receivers):
            exchange.disconnect()

    def end(self) -> None:
        """From here on requests are answered 503, and no application is started for one. The service of each bind is
        told so, too."""
        self.ending = True
        self._admit = self._refuse_at_the_end

    def _refuse_at_the_end(self, head: RequestHead, stream: Stream) -> Exchange:
        return self.refuse(head, stream, shutting_down())

    def connection_closed(self, connection: LiveConnection) -> None:
        """A connection is gone; called once for each that was added to `connections`."""
        self.connections.discard(connection)
        if self.peers is not None:
            self.peers.closed(getattr(connection, "share", None))
        if self.draining:
            self.something_ended.set()

    def count_peer(self, share: Share, address: str) -> bool:
        """Count a connection, by its share, for its address until it is closed; for wires over datagrams, once
        they know that it is its own. False where it is one too many, which the wire has to close."""
        if self.peers is None:
            return True
        key = self.peers.enter(address)
        if key is None:
            self.count("max_connections_per_peer", "max_connections_per_peer reached, connection closed")
            return False
        self.peers.keep(key, share)
        return True

    def connection_failed(self, connection: LiveConnection, error: BaseException | None = None) -> None:
        """A wire raised, which must cost its connection and no more. `error` is what, by default the exception that is
        being handled."""
        self._log_failure(connection.wire, "a connection", error or sys.exception())
        connection.deadline = connection.write_deadline = inf
        try:
            connection.abort()
        except Exception as exc:  # noqa: BLE001 - logged there
            self._log_failure(connection.wire, "the end of a connection", exc)
            transport = getattr(connection, "transport", None)
            if transport is not None and transport is not connection:
                transport.abort()
        self.loop.call_later(LOST_WITHIN, self._forget, connection)

    def _log_failure(self, wire: str, what: str, error: BaseException | None, name: str = "plugin_error") -> None:
        self.count(name)
        self.log.error("Plugin %s failed on %s", wire, what, exc_info=error)

    def _forget(self, connection: LiveConnection) -> None:
        """The wire of a connection that has failed has had its time to say that it is lost: whoever has not been told
        by now is told here, so that nobody waits for it."""
        if connection in self.connections:
            self.connection_closed(connection)
        info = getattr(connection, "connection", None)
        for exchange in tuple(self.tasks.values()):
            stream = getattr(exchange, "stream", None)
            if stream is not None and info is not None and stream.connection is info:
                cast(Exchange, exchange).stream_lost(None)

    def stream_failed(self, stream: Stream, error: BaseException, whole_connection: bool = False) -> None:
        """A method of `stream` has raised: that is its wire's fault, which is named in the log.

        Whoever called it resets the stream; where that is what has failed, the connection pays for it.
        """
        info = stream.connection
        found = (each for each in self.connections if getattr(each, "connection", None) is info)
        connection = next(found, None)
        wire = connection.wire if connection is not None else "of a wire"
        if not whole_connection:
            self._log_failure(wire, "a request", error, "stream_error")
        elif connection is not None:
            self.connection_failed(connection, error)
        else:
            self._log_failure(wire, "the end of a request", error)

    def count(self, name: str, message: str = "", *args: object) -> None:
        """Count an event by name, and log it at debug level where a message is given."""
        self.counts[name] = self.counts.get(name, 0) + 1
        if message:
            self.log.debug(message, *args)

    def keep_alive_timeout(self, connection: ConnectionInfo) -> float:
        """Seconds that this connection may be idle between two requests."""
        if self._identity is None or not self._identifies_all:
            return self.config.keep_alive_timeout
        return self._identity.keep_alive_timeout(connection)

    def own_totals(self) -> Totals:
        """What this worker has counted; from any thread."""
        totals = Totals(
            self.counts.copy() | {"requests": self.requests},
            self.gauges.copy() | {"connections": len(self.connections), "running": len(self.tasks)},
        )
        for fill in self.on_totals.copy():
            fill(totals)
        return totals

    async def totals(self) -> Totals:
        """What all workers of the server have counted. Raises `TimeoutError` where it cannot be had."""
        if self.ask_totals is None:
            return self.own_totals()
        asked = self.shared.get("totals")
        if asked is None:
            from pounce.exchange.asked_totals import AskedTotals

            asked = self.shared["totals"] = AskedTotals(self.ask_totals, self.loop)
        totals: Totals = await asked.get()
        return totals

    def tick(self, now: float) -> None:
        """A few times a second: a new date, and heads that have waited for their body long enough."""
        self.response_headers.refresh()
        # Its application runs for as long as an answer is held.
        for exchange in tuple(self.tasks.values()):
            if getattr(exchange, "answer", None) == HELD:
                cast(HttpExchange, exchange).flush_head()
        for callback in tuple(self.on_tick):
            try:
                callback(now)
            except Exception:
                self.count("plugin_error")
                self.log.exception("A periodic check failed")


def _one_after_the_other(steps: list[Admit]) -> Admit | None:
    """One step of admission for all of them; None where there is none."""
    if len(steps) < 2:
        return steps[0] if steps else None

    def admit(head: RequestHead, stream: Stream) -> Exchange | None:
        for step in steps:
            other = step(head, stream)
            if other is not None:
                return other
        return None

    return admit
