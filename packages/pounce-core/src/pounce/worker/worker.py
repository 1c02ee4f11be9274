"""Worker: serves an application on the running event loop until it is told to stop."""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from math import inf
from typing import TYPE_CHECKING, Any

from pounce.app_failure import in_words
from pounce.config import ServerConfig
from pounce.contract.parser import Parser, ParserLimits
from pounce.contract.pieces import MiddlewareChoice
from pounce.errors import LifespanError, concerning
from pounce.exchange.error_pages import is_application
from pounce.exchange.service import Admit, ASGIApp, Service
from pounce.net.bind import Bind, Listener
from pounce.net.connection import Connection
from pounce.observe.logs import keep_enabled
from pounce.registry import Registry
from pounce.worker.acceptor import Acceptor, Intake
from pounce.worker.datagrams import Datagrams
from pounce.worker.gil_watch import GilWatch
from pounce.worker.lifespan import Lifespan, ProcessLifespan, Quit, call_hook
from pounce.worker.loop import executor
from pounce.worker.recycling import Recycling
from pounce.worker.siblings import Siblings
from pounce.worker.state import WorkerState
from pounce.worker.ticker import Ticker

if TYPE_CHECKING:
    from pounce.admission.buffers import BufferBudget, Buffers
    from pounce.admission.concurrency import Concurrency, Gate
    from pounce.admission.peers import Peers
    from pounce.identity.identity import Identity
    from pounce.net.tls import ServerTLS

__all__ = ["SOON", "Worker"]

log = logging.getLogger("pounce")

SOON = "Shutting down in %g s: connections are still accepted, health says draining"
"""What is logged where a drain begins after `drain_delay`."""
HANDSHAKE_GRACE = 1.0
"""Seconds a connection that is being opened may still take during a drain."""
DRAINING_HOOK = 1.0
"""Seconds that pounce.worker.draining may take."""
HURRY = 1.0
"""Seconds after which applications that wait are told that the server ends, where somebody waits for that."""
FORCED_SHUTDOWN = 1.0
"""Seconds the lifespan shutdown gets when waiting was cut short."""


def _nothing() -> None:
    pass


async def _wait(tasks: list[asyncio.Task[None]], timeout: float) -> None:
    await asyncio.wait(tasks, timeout=timeout)


def _identity_of(config: ServerConfig) -> Identity | None:
    if not config.proxy_headers and not config.request_id:
        return None
    from pounce.identity.identity import Identity

    return Identity(config)


def _parsers_of(config: ServerConfig, registry: Registry) -> Callable[[], Parser]:
    parser = registry.parser(config.http_parser)
    largest = config.max_header_size
    if config.h11_max_incomplete_event_size is not None and parser.name == "h11":
        largest = min(largest, config.h11_max_incomplete_event_size)
    limits = ParserLimits(max_header_size=largest, max_headers=config.max_headers)
    return lambda: parser.create(limits)


def _services_of(
    service: Service, listeners: list[Listener], registry: Registry, bind_tls: Mapping[Bind, ServerTLS]
) -> dict[Bind, Service]:
    """What the connections of each bind see: the service itself, unless the bind has settings of its own."""
    services: dict[Bind, Service] = {}
    for bind in dict.fromkeys(listener.bind for listener in listeners):
        config = registry.config_of(bind, service.config)
        if bind.serves:
            from pounce.exchange.endpoint_service import EndpointService

            parsers, identity = _parsers_of(config, registry), _identity_of(config)
            services[bind] = EndpointService(service, config, service.settings, parsers, identity, bind.serves)
            continue
        if config is service.config:
            services[bind] = service
            continue
        from pounce.exchange.bind_service import BindService

        services[bind] = BindService(
            service,
            config,
            registry.settings(config.plugin_settings),
            _parsers_of(config, registry),
            _identity_of(config),
        )
        if bind in bind_tls:
            services[bind].tls = bind_tls[bind]
    return services


def _concurrency_of(config: ServerConfig, gate: Gate | None) -> Concurrency | None:
    if gate is None:
        return None
    from pounce.admission.concurrency import Concurrency

    return Concurrency(config, gate)


def _budget_of(buffers: Buffers | None) -> Callable[[Service], BufferBudget] | None:
    if buffers is None:
        return None
    from pounce.admission.buffers import budget_of

    return budget_of(buffers)


def _middleware_of(config: ServerConfig) -> tuple[MiddlewareChoice, ...]:
    """The user's own."""
    if not config.middleware and config.sync_app is None:
        return ()
    from pounce.middleware.factories import middleware_of

    return middleware_of(config)


def _error_apps_of(config: ServerConfig) -> dict[str, ASGIApp]:
    """The error pages that are applications, by status. Raises `AppImportError`."""
    names = {key: page for key, page in config.error_pages.items() if is_application(key, page)}
    if not names:
        return {}
    from pounce.importer import import_app

    with concerning("error_pages"):
        return {key: import_app(name, config)[0] for key, name in names.items()}


class Worker:
    """One event loop's share of the server. Everything it owns is made on, and used from, that loop."""

    def __init__(
        self,
        config: ServerConfig,
        app: ASGIApp,
        registry: Registry,
        listeners: list[Listener],
        tls: ServerTLS | None = None,
        *,
        bind_tls: Mapping[Bind, ServerTLS] | None = None,
        siblings: Siblings | None = None,
        worker_id: int = 0,
        generation: int = 0,
        accepts: bool = True,
        lifespan: ProcessLifespan | None = None,
        gil_watch: GilWatch | None = None,
        gate: Gate | None = None,
        peers: Peers | None = None,
        buffers: Buffers | None = None,
        on_recycle: Callable[[str], object] | None = None,
        on_app_error: Callable[[BaseException], object] | None = None,
        admission: tuple[Callable[[Service], Admit], ...] = (),
    ) -> None:
        """With `accepts` False connections come by `take()` alone. `siblings` are the other workers of the server,
        `bind_tls` is that of binds with their own.

        `lifespan` is that of the process, where it has one for all its workers, and so are `gil_watch`, `gate`, `peers`
        and `buffers`. `on_recycle` is called once, on the loop, with the reason why the worker should be replaced; it
        serves on. Without it the worker ends itself. `on_app_error` is called with what the application raises, when
        that is logged. `admission` makes the steps by which requests are admitted.
        """
        loop = asyncio.get_running_loop()
        # Before anything that may import something.
        self._gil = gil_watch or GilWatch()
        self._config = config
        self._loop = loop
        self.service = Service(
            config,
            app,
            loop,
            worker_id=worker_id,
            generation=generation,
            upgrades=registry.upgrades,
            switches=registry.switches,
            responders=registry.responders,
            observers=registry.observers,
            middleware=registry.middleware + _middleware_of(config),
            settings=registry.settings(config.plugin_settings),
            create_parser=_parsers_of(config, registry),
            tls=tls,
            on_app_error=on_app_error,
            identity=_identity_of(config),
            concurrency=_concurrency_of(config, gate),
            peers=peers,
            budget=_budget_of(buffers),
            error_apps=_error_apps_of(config),
            admission=admission,
        )
        services = _services_of(self.service, listeners, registry, bind_tls or {})
        kind = Acceptor if accepts else Intake
        self._acceptors = []
        for listener in listeners:
            bind = listener.bind
            if bind.datagrams:
                continue
            table = registry.wire_table(bind.wires)
            named = table.default if len(bind.wires) == 1 else None
            its_tls = (bind_tls or {}).get(bind, tls) if bind.tls is not False else None
            self._acceptors.append(kind(services[bind], listener, table, named, its_tls))
        self._datagrams = Datagrams(self.service, registry, listeners, siblings, services)
        self._app = app
        self._on_app_error = on_app_error
        self._lifespan = Lifespan(config, self.service.app, lifespan, on_app_error)
        self._recycling: Recycling | None = Recycling(config, time.monotonic())
        self._on_recycle = on_recycle
        self._ticker = Ticker(self.service, self._look_after)
        self._stop = asyncio.Event()
        self._timeout = config.shutdown_timeout
        """Seconds that running requests have to finish."""
        self._drain_until = inf
        """By the loop's clock, when they have had it."""
        self._delay = config.drain_delay if accepts else 0.0
        self._force = asyncio.Event()
        # Who writes an application waits for each of its ends.
        self._hurry = config.reload
        self._previous_handler: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None = None

    async def serve(self, ready: Callable[[], None] = _nothing, released: Callable[[], None] = _nothing) -> None:
        """Start up, call `ready` once connections are accepted, serve until `stop()`, drain, shut down.

        `released` is called when the drain begins and the listening sockets are not needed any more.

        Raises `LifespanError` when the application cannot start. Cancelling drains without waiting.
        """
        if threads := self._config.executor_threads_per_worker:
            self._loop.set_default_executor(executor(threads))
        # Or in its lifespan, by when there are more loggers.
        keep_enabled()
        await self._lifespan.startup()
        self.service.state = self._lifespan.state
        await self._start_hook()
        self._previous_handler = self._loop.get_exception_handler()
        self._loop.set_exception_handler(self._on_loop_error)
        try:
            self._ticker.start()
            for acceptor in self._acceptors:
                acceptor.start()
            self._datagrams.start()
            ready()
            await self._stop.wait()
            if self._delay and not self._force.is_set():
                log.info(SOON, self._delay)
                await self._unless_forced(asyncio.sleep(self._delay))
        except asyncio.CancelledError:
            self._force.set()
            raise
        finally:
            try:
                await self._drain(released)
            finally:
                self._datagrams.close()
                self._ticker.stop()
                self._loop.set_exception_handler(self._previous_handler)
                timeout = FORCED_SHUTDOWN if self._force.is_set() else self._config.shutdown_timeout
                try:
                    await self._hook("shutdown", timeout)
                    await self._lifespan.shutdown(timeout)
                finally:
                    await self._end_helpers()
                    self.service.crossing.close()

    async def _end_helpers(self) -> None:
        """Let them send what they have kept, all at the same time: each of them may have to wait for somebody."""
        ends = [end() for end in tuple(self.service.on_end)]
        for found in await asyncio.gather(*ends, return_exceptions=True):
            if isinstance(found, Exception):
                log.error("What was to be done at the end of the worker failed", exc_info=found)

    def take(self, listener: int, sock: socket.socket) -> None:
        """Serve a connection that was accepted from `listeners[listener]`; call on the worker's loop."""
        self._acceptors[listener].take(sock)

    def receive(self, sockets: list[socket.socket]) -> None:
        """Read datagrams from these sockets from now on, and from no others; they are closed here. Call on the worker's
        loop, once it is ready."""
        self._datagrams.receive(sockets)

    @property
    def load(self) -> tuple[int, int]:
        """Connections and running requests; may be read from any thread."""
        service = self.service
        opening = sum(len(acceptor.handshakes) for acceptor in self._acceptors)
        return len(service.connections) + opening, len(service.tasks)

    @property
    def heartbeat(self) -> float:
        """When the loop last showed a sign of life (`time.monotonic()`); may be read from any thread."""
        return self._ticker.heartbeat

    def state(self) -> WorkerState:
        """How it is doing, where it accepts for itself; call on its loop."""
        connections, requests = self.load
        return WorkerState(
            number=self.service.worker_id,
            ident=threading.get_ident(),
            silence=round(max(0.0, time.monotonic() - self.heartbeat), 3),
            connections=connections,
            requests=requests,
            served=self.service.requests,
            draining=self.service.draining,
        )

    def _look_after(self, now: float) -> None:
        """What is looked at with each tick beside the connections."""
        self._gil.look(now)
        if self._recycling is None or self.service.draining:
            return
        reason = self._recycling.reason(self.service.requests, now)
        if reason is not None:
            self._recycling = None
            if self._on_recycle is not None:
                self._on_recycle(reason)
            else:
                log.warning("Worker %d ends after %s, to be started again", self.service.worker_id, reason)
                self.retire()

    def stop(self, *, delay: float | None = None, hurry: bool = False, timeout: float | None = None) -> None:
        """Begin to drain after `delay` seconds, by default `drain_delay` for a worker that accepts and none for one
        that is given its connections; call on the worker's loop.

        Until then connections are taken and served. Health and every answer say that this will end soon. With `hurry`
        applications that wait are told so after `HURRY`. What runs has `timeout` seconds to finish, by default
        `shutdown_timeout`; called again while it drains, no more than that from then on.
        """
        self._hurry |= hurry
        self._timeout = self._config.shutdown_timeout if timeout is None else timeout
        if self._drain_until < inf:
            self._drain_until = min(self._drain_until, self._loop.time() + self._timeout)
            self.service.something_ended.set()
        # At once, so that answers of this very turn say that the connection closes.
        self.service.draining = True
        if delay is not None and not self._stop.is_set():
            self._delay = delay
        self._stop.set()

    def retire(self) -> None:
        """Begin to drain at once, for another one has taken its place; call on the worker's loop."""
        self.stop(delay=0.0)

    def force(self) -> None:
        """Stop, and wait no longer for what still runs; call on the worker's loop."""
        self._force.set()
        self.stop()

    # Hooks

    async def _start_hook(self) -> None:
        try:
            await self._hook("startup", self._config.startup_timeout, raises=True)
        except Exception as exc:  # noqa: BLE001 - raised from its cause below
            await self._lifespan.shutdown(self._config.shutdown_timeout)
            error = exc.__cause__ or exc if isinstance(exc, Quit) else exc
            raise LifespanError(
                f"pounce.worker.startup failed: {in_words(error)}",
                code="POUNCE_WORKER_STARTUP_FAILED",
                hint="With worker_startup_failure ignore the worker serves nevertheless.",
            ) from error

    async def _hook(self, kind: str, within: float, /, *, raises: bool = False, **more: Any) -> None:
        """Tell the application of this event in the worker's life, where it wants to be told."""
        if not self._config.worker_hooks:
            return
        service = self.service
        scope = {
            "type": f"pounce.worker.{kind}",
            "worker_id": service.worker_id,
            "generation": service.generation,
            "state": service.state,
        }
        try:
            await call_hook(self._app, scope | more, within)
        except Exception as exc:
            if raises and self._config.worker_startup_failure == "shutdown":
                raise
            log.exception("pounce.worker.%s failed", kind)
            if self._on_app_error is not None:
                self._on_app_error(exc)

    # Drain

    async def _drain(self, released: Callable[[], None]) -> None:
        """Accept no more, let what was accepted finish in its time, then cancel, then close.

        Applications are told at the beginning by their drain notice, and when `drain_disconnect` per cent of the time
        are over, or `HURRY`, by `http.disconnect`. A client whose request was accepted before this begins gets its
        answer, also when the request still lies in the kernel: the sockets are emptied before they are left, and idle
        connections are read once more.
        """
        service = self.service
        service.draining = True
        log.info("Shutting down: %d connections, %d requests running", len(service.connections), len(service.tasks))
        begun, timeout = self._loop.time(), self._timeout
        self._drain_until = begun + timeout
        for acceptor in self._acceptors:
            acceptor.stop()
        self._datagrams.drain()
        released()
        service.drain_begun.set()
        hook = self._loop.create_task(self._hook("draining", min(timeout, DRAINING_HOOK), timeout=timeout))
        # One turn of the loop reads what has already arrived; only then are connections taken for idle.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for connection in tuple(service.connections):
            try:
                connection.drain()
            except Exception:  # noqa: BLE001 - logged there
                service.connection_failed(connection)
        for callback in tuple(service.on_drain):
            try:
                callback()
            except Exception:
                log.exception("A callback for the begin of the drain failed")
        handshakes = [task for acceptor in self._acceptors for task in acceptor.handshakes]
        if handshakes:
            # A connection that is being opened may carry a request before long, or never.
            await self._unless_forced(_wait(handshakes, min(HANDSHAKE_GRACE, timeout)))
        percent = self._config.drain_disconnect
        if percent < 100:
            await self._wait_for_the_end(begun, percent / 100, HURRY if self._hurry else inf)
            service.disconnect()
        await self._wait_for_the_end(begun)
        await self._unless_forced(_wait([hook], DRAINING_HOOK))
        hook.cancel()
        await self._end_what_runs()

    async def _wait_for_the_end(self, begun: float, share: float = 1.0, longest: float = inf) -> None:
        """Wait until nothing runs any more, or this share of the time from `begun` is over, or `force()`."""
        service = self.service
        while (service.connections or service.tasks) and not self._force.is_set():
            left = begun + min(longest, (self._drain_until - begun) * share) - self._loop.time()
            if left <= 0:
                break
            service.something_ended.clear()
            await self._unless_forced(self._wait_for_an_end(tuple(service.tasks), left))

    async def _wait_for_an_end(self, tasks: tuple[asyncio.Task[None], ...], timeout: float) -> None:
        """Wait for the end of a connection or of one of `tasks`, which may have come before this begins."""
        ended = asyncio.ensure_future(self.service.something_ended.wait())
        try:
            await asyncio.wait([ended, *tasks], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()

    async def _unless_forced(self, wait: Coroutine[Any, Any, None]) -> None:
        """Wait, but not longer than until `_force` is set."""
        task = asyncio.ensure_future(wait)
        force = asyncio.ensure_future(self._force.wait())
        try:
            await asyncio.wait([task, force], return_when=asyncio.FIRST_COMPLETED)
        finally:
            force.cancel()
            task.cancel()

    async def _end_what_runs(self) -> None:
        service = self.service
        for acceptor in self._acceptors:
            acceptor.abort()
        # A bind may have one of its own.
        for each in {service, *(getattr(connection, "service", service) for connection in service.connections)}:
            each.end()
        if service.concurrency is not None:
            service.concurrency.end()
        if service.tasks:
            log.warning("%d requests did not finish in time and are cancelled", len(service.tasks))
            for task in tuple(service.tasks):
                task.cancel()
            await asyncio.wait(tuple(service.tasks), timeout=2.0)
        for connection in tuple(service.connections):
            try:
                connection.close()
            except Exception:  # noqa: BLE001 - logged there
                service.connection_failed(connection)
        for _ in range(3):
            await asyncio.sleep(0)
        for connection in tuple(service.connections):
            try:
                connection.end()
            except Exception:  # noqa: BLE001 - logged there
                service.connection_failed(connection)
        await asyncio.sleep(0)

    # Errors that reach the loop

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What a wire lets escape has closed its connection by now: name the wire, and go on."""
        protocol = context.get("protocol")
        error = context.get("exception")
        connection = protocol if isinstance(protocol, Connection) else _failed_connection(error)
        if connection is not None:
            # The loop closes it at the most, and in good order, so that what was sent of an answer would pass for all.
            self.service.connection_failed(connection, error)
        elif _ends_twice(error):
            self.service.count("ended_twice")
        elif self._previous_handler is not None:
            self._previous_handler(loop, context)
        else:
            loop.default_exception_handler(context)
        if error is not None and self._on_app_error is not None:
            self._on_app_error(error)


def _failed_connection(error: BaseException | None) -> Connection | None:
    """The connection that an exception came through, for what asyncio reports without its protocol (all of TLS)."""
    traceback = error.__traceback__ if error is not None else None
    while traceback is not None:
        owner = traceback.tb_frame.f_locals.get("self")
        if isinstance(owner, Connection):
            return owner
        traceback = traceback.tb_next
    return None


def _ends_twice(error: BaseException | None) -> bool:
    """Whether asyncio has ended a transport for the second time, when there is nothing left to be ended.

    It does where the last bytes of a transport that is closing leave, its protocol writes more in resume_writing(), as
    that of TLS may, and the peer is gone.
    """
    traceback = error.__traceback__ if error is not None else None
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None or traceback.tb_frame.f_code.co_name != "_call_connection_lost":
        return False
    return getattr(traceback.tb_frame.f_locals.get("self"), "_sock", traceback) is None
