"""Service: the one pipeline that every request of a worker takes, whatever wire brought it."""

import asyncio
import contextvars
import logging
from collections.abc import Callable, Mapping
from math import inf
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pounce.config import ServerConfig
from pounce.errors import BadRequest
from pounce.exchange.draining import DrainNotice
from pounce.exchange.error_pages import error_response
from pounce.exchange.head import RequestHead
from pounce.exchange.http import HttpExchange, too_large
from pounce.exchange.response_headers import ResponseHeaders
from pounce.exchange.scope import METHODS
from pounce.exchange.stream import Exchange, Stream
from pounce.exchange.turns import Turns
from pounce.immortal import own_class

if TYPE_CHECKING:
    from pounce.net.connection import Connection
    from pounce.net.tls import ServerTLS
    from pounce.plugin import Completed, Observer, ObserverFactory, Parser, Responder, RunsApp, Switch, Upgrade

__all__ = ["ASGIApp", "Service"]

type ASGIApp = Callable[..., Any]

NO_WEBSOCKET = BadRequest(
    "this server does not speak WebSocket",
    code="POUNCE_WS_NOT_INSTALLED",
    hint="Install the WebSocket plugin: pip install pounce-ws",
)


class Service:
    """What one worker does with requests. It belongs to one event loop; nothing of it is shared.

    `config`, `loop`, `log`, `settings` and `draining` may be read by wires and plugins.
    """

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
        settings: Mapping[str, Any] = MappingProxyType({}),
        create_parser: Callable[[], Parser] | None = None,
        tls: ServerTLS | None = None,
    ) -> None:
        self.config = config
        self.app = app
        self.loop = loop
        self.log = logging.getLogger("pounce")
        self.worker_id = worker_id
        self.generation = generation
        """How often the server was reloaded before this worker started."""
        self.settings = settings
        self.upgrades = upgrades
        self.switches = switches
        """Tokens of other wires, for the one that has upgrades: HTTP/1.1."""
        self.create_parser = create_parser
        self.tls = tls
        """Certificates of the server, for wires that do TLS themselves; None without TLS."""
        self.state: dict[str, Any] = {}
        self.draining = False
        self.drain_notice = DrainNotice()
        self.disconnects = False
        """A drain has lasted so long that applications are told `http.disconnect`, though their clients are there."""
        self.receivers: set[HttpExchange] = set()
        """Whose application waits in `receive()`."""
        self.on_drain: set[Callable[[], None]] = set()
        """Called once each when the worker begins to drain, on its loop; for what would otherwise go on for ever, such
        as tunnels. Whoever adds itself removes itself when it ends, and looks at `draining` first."""
        self.on_tick: set[Callable[[float], None]] = set()
        """Called a few times a second with the loop's time, for deadlines of what is not a connection."""
        self.something_ended = asyncio.Event()
        self.connections: set[Connection] = set()
        self.turns = Turns()
        """Connections that have used up their share of a turn of the loop."""
        self.tasks: set[asyncio.Task[None]] = set()
        self.held: set[HttpExchange] = set()
        self.requests = 0
        self.counts: dict[str, int] = {}
        self.shared: dict[str, Any] = {}
        """What the connections of this worker share, by a name that begins with the wire's."""
        self.response_headers = ResponseHeaders(config)
        # For this loop's thread alone; see `pounce.immortal`.
        self._exchange_class = own_class(HttpExchange, "receive", "send")
        self._task_class: type[asyncio.Task[None]] = own_class(asyncio.Task)
        self._future_class: type[asyncio.Future[None]] = own_class(asyncio.Future)
        self.methods = {method.encode(): method for method in METHODS}
        """What scopes call the usual methods."""
        self.max_request_size = config.max_request_size
        self.max_connections = config.max_connections
        """This worker's share; 0 sets no limit."""
        self._connection_id = 0
        self._context = contextvars.copy_context()
        self._logged: set[str] = set()
        self._responders = tuple(respond for item in responders if (respond := item.create(self)) is not None)
        self.observers: tuple[Observer, ...] = tuple(
            observer for factory in observers if (observer := factory.create(self)) is not None
        )

    def open(self, head: RequestHead, stream: Stream, body: bytes = b"", ended: bool = False) -> Exchange:
        """Take a request: the exchange that this returns gets its body. Never waits.

        `body` is what came of it together with the head, and `ended` says that this is all of it: an application
        that asks for its body then need not wait. Where the server answers by itself they are left alone.
        """
        self.requests += 1
        length = head.content_length
        if length and length > self.max_request_size > 0:
            return self.refuse(head, stream, too_large(self.max_request_size))
        if head.upgrade is not None:
            upgrade = self.upgrades.get(head.upgrade)
            if upgrade is not None:
                opened = upgrade.open(self, head, stream)
                if body:
                    opened.data_received(body)
                if ended:
                    opened.eof_received()
                return opened
            if head.upgrade == b"websocket":
                return self._refuse_websocket(head, stream)
        for respond in self._responders:
            response = respond(head)
            if response is not None:
                exchange = self._exchange_class(self, head, stream)
                exchange.respond(response)
                return exchange
        exchange = self._exchange_class(self, head, stream)
        if body:
            exchange.data_received(body)
            if exchange.status:
                # It is too large, and answered.
                return exchange
        if ended:
            exchange.eof_received()
        self.call_app(exchange)
        return exchange

    def refuse(self, head: RequestHead | None, stream: Stream, error: BadRequest) -> Exchange:
        """Answer a request with an error; `head` is None when it could not even be read."""
        self.count(error.code, "%s", error.message)
        exchange = HttpExchange(self, head or UNREADABLE, stream)
        exchange.respond(error_response(error, debug=self.config.debug))
        return exchange

    def _refuse_websocket(self, head: RequestHead, stream: Stream) -> Exchange:
        if "websocket" not in self._logged:
            self._logged.add("websocket")
            self.log.warning("WebSocket handshake refused: %s", NO_WEBSOCKET.hint)
        return self.refuse(head, stream, NO_WEBSOCKET)

    def call_app(self, exchange: RunsApp) -> None:
        """Start the application for one exchange: the only place where that happens.

        Eagerly, in a task: an application that need not wait is done when this returns, and `asyncio.timeout()`
        and anyio find the current task that they need.
        """
        # Each has a context of its own: what calls this may itself run in the context of an earlier request.
        task = self._task_class(exchange.run(), loop=self.loop, context=self._context.copy(), eager_start=True)
        if not task.done():
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def create_future(self) -> asyncio.Future[None]:
        """Something to wait for, as the loop makes it."""
        return self._future_class(loop=self.loop)

    def upgraded(self, exchange: Completed) -> None:
        """An upgrade was accepted: observers that want to know are told; `completed()` follows at its end."""
        for observer in self.observers:
            upgraded = getattr(observer, "upgraded", None)
            if upgraded is not None:
                self._tell(observer, upgraded, exchange)

    def completed(self, exchange: Completed) -> None:
        """The last byte of an answer has left, or its stream was lost; once for each exchange."""
        for observer in self.observers:
            self._tell(observer, observer.completed, exchange)

    def _tell(self, observer: Observer, event: Callable[[Completed], None], exchange: Completed) -> None:
        try:
            event(exchange)
        except Exception:
            self.count("observer_error")
            self.log.exception("Observer %s failed", type(observer).__name__)

    def disconnect(self) -> None:
        """From here on `receive()` gives `http.disconnect` where there is nothing else to give; `send()` goes on."""
        self.disconnects = True
        for exchange in tuple(self.receivers):
            exchange.disconnect()

    def connection_closed(self, connection: Connection) -> None:
        """A connection is gone; called once for each that was added to `connections`."""
        self.connections.discard(connection)
        if self.draining:
            self.something_ended.set()

    def connection_failed(self, connection: Connection) -> None:
        """A wire raised, which must cost its connection and no more; call while the exception is handled."""
        self.count("plugin_error")
        self.log.exception("Plugin %s failed on a connection", connection.wire)
        connection.deadline = connection.write_deadline = inf
        connection.transport.abort()

    def count(self, name: str, message: str = "", *args: object) -> None:
        """Count an event by name, and log it at debug level where a message is given."""
        self.counts[name] = self.counts.get(name, 0) + 1
        if message:
            self.log.debug(message, *args)

    def next_connection_id(self) -> int:
        """A number for a new connection of this worker, from 1."""
        self._connection_id += 1
        return self._connection_id

    def tick(self, now: float) -> None:
        """A few times a second: a new date, and heads that have waited for their body long enough."""
        self.response_headers.refresh()
        if self.held:
            for exchange in tuple(self.held):
                exchange.flush_head()
        for callback in tuple(self.on_tick):
            callback(now)


UNREADABLE = RequestHead(b"-", b"-", [], "1.1", keep_alive=False)
"""Stands for a request whose head could not be read."""
