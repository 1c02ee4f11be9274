"""Server: an application, its sockets and its worker, from start to end."""

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

from pounce.config import ServerConfig
from pounce.errors import BindError, ConfigError
from pounce.exchange.service import ASGIApp
from pounce.importer import adapted, called, import_app
from pounce.net.bind import Listener, open_listeners
from pounce.plugin import DatagramWire
from pounce.registry import Registry, gil_enabled
from pounce.supervisor.systemd import Notifier
from pounce.worker.datagrams import open_datagram_sockets
from pounce.worker.loop import busy_threads, loop_factory, run_on_new_loop
from pounce.worker.worker import Worker

__all__ = ["Server", "StartInfo", "run"]

log = logging.getLogger("pounce")


@dataclass(frozen=True, slots=True)
class StartInfo:
    """What a server tells when it has started."""

    version: str
    python: str
    gil: bool
    """The GIL is on."""
    urls: tuple[str, ...]
    """Where clients find it, with the real ports."""
    pid: int
    app: str | None
    """As it was named, None for an object."""
    workers: int
    tls: bool
    wires: tuple[str, ...]
    http_parser: str


class Server:
    """One server: `run()` it, or await `serve()` on a loop that is already there.

    `app` is an ASGI 3 application or the name of one (`module:attribute`). Several servers can live in one process.
    `on_ready` is called on the loop once connections are accepted.
    """

    def __init__(
        self,
        config: ServerConfig,
        app: ASGIApp | str,
        *,
        registry: Registry | None = None,
        on_ready: Callable[[StartInfo], None] | None = None,
    ) -> None:
        self._config = config
        self._app = app
        self._registry = registry
        self._on_ready = on_ready
        self._lock = threading.RLock()
        """Protects the four fields below, which `shutdown()` reads and writes from any thread, also from a signal
        handler that interrupts the thread holding it: hence reentrant."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._worker: Worker | None = None
        self._shutdown = False
        self._main: asyncio.Task[Any] | None = None
        self._signals = 0
        self._notifier = Notifier()
        self.start_info: StartInfo | None = None

    @property
    def bound_addr(self) -> tuple[str, int] | None:
        """Host and port of the first TCP socket while the server runs, else None."""
        for url in self.start_info.urls if self.start_info is not None else ():
            if not url.startswith("unix:"):
                host, _, port = url.partition("://")[2].rpartition(":")
                return host.strip("[]"), int(port)
        return None

    def run(self) -> None:
        """Serve until SIGINT, SIGTERM or `shutdown()`; blocks. Raises a `PounceError` when it cannot start.

        A second signal ends the process without waiting for requests: `SystemExit(1)`. systemd is told of the start
        and the end where it has asked.
        """
        self._notifier = Notifier.from_environ()
        run_on_new_loop(self._serve_with_signals(), loop_factory(self._config.loop))

    async def _serve_with_signals(self) -> None:
        restore = self._handle_signals(asyncio.get_running_loop())
        try:
            await self.serve()
        except asyncio.CancelledError:
            if self._signals < 2:
                raise
        finally:
            restore()
        if self._signals > 1:
            raise SystemExit(1)

    def _handle_signals(self, loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
        if threading.current_thread() is not threading.main_thread():
            return lambda: None
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def on_signal(number: int, frame: FrameType | None) -> None:
            self._signals += 1
            if self._signals > 1 and self._loop is None:
                # Still importing, or past the end: there is no loop that could react.
                raise SystemExit(1)
            if self._signals > 2:
                # The loop does not even react to the second: something blocks it.
                os._exit(1)
            self.shutdown(force=self._signals > 1)

        for number in before:
            signal.signal(number, on_signal)

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        return restore

    async def serve(self) -> None:
        """Serve on the running loop until `shutdown()`. Raises a `PounceError` when it cannot start."""
        config = self._config
        registry = self._registry or Registry.discover(config)
        _report_plugins(registry)
        app, app_name = self._load_app()
        context, certificate = _tls(config, registry)
        listeners, datagrams = _open_sockets(config, registry)
        try:
            worker = Worker(
                config, app, registry, listeners, context, datagrams=datagrams, server_certificate=certificate
            )
            with self._lock:
                self._loop, self._worker = asyncio.get_running_loop(), worker
                self._main = asyncio.current_task()
                if self._shutdown:
                    worker.stop()
            await worker.serve(
                lambda: self._ready(registry, listeners, app_name, context is not None),
                lambda: self._released(listeners),
            )
        finally:
            self._notifier.stop_watchdog()
            with self._lock:
                self._loop = self._worker = self._main = None
            _close(listeners)
            for _, sock in datagrams:
                sock.close()
            self.start_info = None

    def shutdown(self, *, force: bool = False) -> None:
        """End the server: requests that run get `shutdown_timeout` to finish, none of it with `force`.

        May be called from any thread, at any time, and again. Returns at once.
        """
        with self._lock:
            self._shutdown = True
            if self._loop is None or self._worker is None:
                return
            self._loop.call_soon_threadsafe(self._force if force else self._worker.stop)

    def _force(self) -> None:
        if self.start_info is None and self._main is not None:
            # Still starting up: there is nothing to drain.
            self._main.cancel()
        elif self._worker is not None:
            self._worker.force()

    def _load_app(self) -> tuple[ASGIApp, str | None]:
        if not isinstance(self._app, str):
            app = called(self._app, repr(self._app)) if self._config.factory else self._app
            if not callable(app):
                raise ConfigError(f"app must be an ASGI application or module:attribute (got {app!r})")
            return adapted(app), None
        app, culprit = import_app(self._app, self._config)
        if culprit is not None:
            log.warning("Importing %s switched the GIL on: workers will not run in parallel", culprit)
        return app, self._app

    def _ready(self, registry: Registry, listeners: list[Listener], app: str | None, tls: bool) -> None:
        from pounce import __version__

        info = StartInfo(
            version=__version__,
            python=sys.version.split()[0],
            gil=gil_enabled(),
            urls=tuple(listener.url("https" if tls else "http") for listener in listeners),
            pid=os.getpid(),
            app=app,
            workers=1,
            tls=tls,
            wires=tuple(registry.wires),
            http_parser=registry.parser(self._config.http_parser).name,
        )
        self.start_info = info
        event = {
            "event": "startup",
            "version": info.version,
            "python": info.python,
            "gil": info.gil,
            "url": info.urls[0],
            "urls": info.urls,
            "pid": info.pid,
            "app": info.app,
            "workers": info.workers,
            "tls": info.tls,
            "http_parser": info.http_parser,
        }
        listening = f"Listening on {', '.join(info.urls)}"
        log.info("%s", listening, extra={"event": event})
        self._notifier.ready(listening)
        self._notifier.start_watchdog(asyncio.get_running_loop())
        if self._on_ready is not None:
            self._on_ready(info)

    def _released(self, listeners: list[Listener]) -> None:
        self._notifier.stopping()
        _close(listeners)


def _open_sockets(
    config: ServerConfig, registry: Registry
) -> tuple[list[Listener], list[tuple[DatagramWire, socket.socket]]]:
    """The TCP sockets, and those for datagrams on the same ports."""
    attempts = 8
    while True:
        listeners = open_listeners(config)
        try:
            return listeners, open_datagram_sockets(config, registry, listeners)
        except BaseException as exc:
            chosen = any(listener.bind.path is None and not listener.bind.port for listener in listeners)
            _close(listeners)
            attempts -= 1
            # A free TCP port that the system chose need not be free for UDP; another one will be.
            if not (isinstance(exc, BindError) and chosen and attempts):
                raise


def _close(listeners: list[Listener]) -> None:
    for listener in listeners:
        listener.close()
    listeners.clear()


def _tls(config: ServerConfig, registry: Registry) -> tuple[Any, str | None]:
    if config.ssl_certfile is None:
        return None, None
    from pounce.net.tls import create_context, server_certificate

    return create_context(config, registry.alpn()), server_certificate(config)


def _report_plugins(registry: Registry) -> None:
    for entry in registry.loaded:
        if entry.skipped and not entry.skipped.startswith(("disabled", "plugins are off", "not among")):
            log.warning("Plugin %s (%s) is skipped: %s", entry.name, entry.distribution, entry.skipped)
        if entry.gil_enabled:
            log.warning("Plugin %s (%s) switched the GIL on", entry.name, entry.distribution)


def run(
    app: ASGIApp | str,
    *,
    config: ServerConfig | None = None,
    on_ready: Callable[[StartInfo], None] | None = None,
    **settings: Any,
) -> None:
    """Serve `app` until the process is told to end; sets up logging; blocks.

    Settings are those of `ServerConfig`, given either one by one or as `config`. Raises `TypeError` for both, and a
    `PounceError` when the server cannot start.
    """
    from pounce.observe.logs import Logs

    if config is not None and settings:
        raise TypeError("give config or single settings, not both")
    if config is None:
        config = ServerConfig.of(settings)
    elif not isinstance(config, ServerConfig):
        raise TypeError(f"config must be a ServerConfig (got {type(config).__name__})")
    busy: list[threading.Thread] = []
    try:
        with Logs(config):
            try:
                Server(config, app, on_ready=on_ready).run()
            finally:
                busy = busy_threads()
                if busy:
                    log.error("%d calls in threads did not end in time and are abandoned", len(busy))
    finally:
        if busy:
            # The interpreter would wait for them, against the bound that whoever sent the signal relies on.
            sys.stdout.flush()
            os._exit(1)
