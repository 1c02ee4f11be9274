"""Server: an application, its sockets and its workers, from start to end.

It is long and one thing: the three ways in which a server runs (one worker on the loop that is there, workers on
threads of this process, processes that are supervised) begin and end alike, are told of signals, certificates and the
end by the same few fields, and tell the same. What each of them runs is elsewhere: `worker/`, `supervisor/`.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from math import inf
from types import FrameType
from typing import TYPE_CHECKING, Any, Unpack

from pounce.app_failure import Interrupted
from pounce.config import WORKER_TIMEOUT, ServerConfig
from pounce.config_checks import HOOKS
from pounce.display import PLAIN, DisplayConfig
from pounce.errors import ConfigError, PounceError
from pounce.gc_hold import settle
from pounce.idle_settings import idle_settings
from pounce.importer import is_importing
from pounce.late import late
from pounce.leftovers import END_TIMEOUT, Leftovers
from pounce.net.bind import Listener
from pounce.net.udp import open_sockets
from pounce.observe.logs import LastWords, reopen_log_files
from pounce.process_title import set_title
from pounce.supervisor.control_folder import AUTO, is_named
from pounce.supervisor.drain_bound import DRAIN_MARGIN, END_MARGIN, drain_bound
from pounce.supervisor.modes import check_workers, is_supervised, mode_of, workers_of
from pounce.supervisor.pid_file import PidFile
from pounce.supervisor.systemd import Notifier
from pounce.supervisor.terminal import is_of_terminal, is_on_terminal
from pounce.supervisor.upgrade import Predecessor
from pounce.variables import load_env_files
from pounce.variables import use_colors as set_colors

# A supervisor is small: what serves is imported where it does.
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from pounce.config_kwargs import ServerConfigKwargs
    from pounce.contract.totals import Totals
    from pounce.exchange.service import ASGIApp
    from pounce.lifecycle import LifecycleCollector
    from pounce.net.tls import ServerTLS
    from pounce.registry import Registry
    from pounce.supervisor.lone_control import LoneControl
    from pounce.supervisor.server_hooks import ServerHooks
    from pounce.sync_protocol import SyncApp
    from pounce.worker.state import Description, WorkerState
else:
    type ASGIApp = late("pounce.exchange.service:ASGIApp")
    type ServerConfigKwargs = late("pounce.config_kwargs:ServerConfigKwargs")
    type Registry = late("pounce.registry:Registry")
    type LifecycleCollector = late("pounce.lifecycle:LifecycleCollector")
    type SyncApp = late("pounce.sync_protocol:SyncApp")
    type AbstractEventLoop = late("asyncio:AbstractEventLoop")
    type Totals = late("pounce.contract.totals:Totals")
    type Description = late("pounce.worker.state:Description")
    type WorkerState = late("pounce.worker.state:WorkerState")

__all__ = ["Server", "StartInfo", "run", "run_alone"]

log = logging.getLogger("pounce")

BEAT = 1.0
"""Seconds between two looks for workers that stand still."""
SUPERVISORS = ("SIGHUP", "SIGTTIN", "SIGTTOU", "SIGUSR2")
"""Signals that only a supervisor can obey, and whose default action would end or stop the process."""


@dataclass(frozen=True, slots=True)
class StartInfo:
    """What a server tells when it has started."""

    version: str
    python: str
    gil: bool
    """The GIL is on where the application runs."""
    urls: tuple[str, ...]
    """Where clients find it, with the real ports."""
    pid: int
    app: str | None
    """As it was named, None for an object."""
    workers: int
    tls: bool
    wires: tuple[str, ...]
    http_parser: str
    worker_mode: str = "thread"
    """What the workers run in."""
    display: DisplayConfig = PLAIN
    """How the application shows itself, as far as it does."""

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port of the first of `urls` that is no Unix socket's; None where there is none."""
        for url in self.urls:
            if not url.startswith("unix:"):
                host, _, port = url.partition("://")[2].rpartition(":")
                return host.strip("[]"), int(port)
        return None


class Server:
    """One server: `run()` it, or await `serve()` on a loop that is already there.

    `app` is an ASGI 3 application or the name of one (`module:attribute`). Several servers can live in one process.
    `on_ready` is called once connections are accepted: on the loop where there is one, else on the thread of `run()`.
    `sync_app` and `lifecycle_collector` take the place of the settings of these names.
    """

    def __init__(
        self,
        config: ServerConfig,
        app: ASGIApp | str,
        *,
        registry: Registry | None = None,
        on_ready: Callable[[StartInfo], None] | None = None,
        sync_app: SyncApp | None = None,
        lifecycle_collector: LifecycleCollector | None = None,
    ) -> None:
        """Raises `ConfigError` for settings that its workers cannot keep together."""
        if lifecycle_collector is not None:
            config = replace(config, lifecycle_collector=lifecycle_collector)
        if sync_app is not None:
            config = replace(config, sync_app=sync_app)
        check_workers(config)
        self._config = config if not config.ssl_self_signed else _with_certificate(config)
        self._app = app
        self._registry = registry
        self._on_ready = on_ready
        self._lock = threading.RLock()
        """Protects the three fields below, which `shutdown()` reads and writes from any thread, also from a signal
        handler that interrupts the thread holding it: hence reentrant."""
        self._end: Callable[[bool, bool], Any] | None = None
        """Ends what runs, by force or in a hurry, as `shutdown()` says; None while nothing does."""
        self._shutdown = False
        self._hurry = False
        self._end_by = inf
        """When what applications leave has had `shutdown_timeout`."""
        self.signals = 0
        """How many have asked for the end."""
        self._ended = threading.Event()
        self._notifier = Notifier()
        self._tls: tuple[ServerTLS, ...] = ()
        self._pid_file: PidFile | None = None
        self._own_loop = False
        """The loop runs for this server alone."""
        self._control: LoneControl | None = None
        self._hooks: ServerHooks | None = None
        self.start_info: StartInfo | None = None

    @property
    def bound_addr(self) -> tuple[str, int] | None:
        """Host and port of the first TCP socket while the server runs, else None."""
        return self.start_info.address if self.start_info is not None else None

    def run(self) -> None:
        """Serve until SIGINT, SIGTERM or `shutdown()`; blocks. Raises a `PounceError` when it cannot start.

        Where an event loop runs in this thread, such as in a notebook, `serve()` is for it: `ConfigError`.

        A second signal ends the process without waiting for requests: `SystemExit(1)`. More than one worker run in
        processes that this one supervises. systemd is told of the start and the end where it has asked.
        """
        _check_no_loop_runs()
        if (reason := _leave_orphans_to_the_original(self._config)) is not None:
            log.warning("Nobody waits for orphaned processes: this is process 1, and %s", reason)
        # In this order: what systemd has said to the one is for the other from now on.
        predecessor = Predecessor.from_environ()
        self._notifier = Notifier.from_environ()
        before = predecessor.pid if predecessor is not None else None
        supervised = is_supervised(self._config) or predecessor is not None
        set_title(self._config, "supervisor" if supervised else "")
        if self._config.umask is not None:
            os.umask(self._config.umask)
        with self._hooked(), PidFile(self._config.pid_file, successor_of=before) as self._pid_file:
            self._tell_idle_settings()
            if supervised:
                in_main_thread = threading.current_thread() is threading.main_thread()
                self._supervise(handle_signals=in_main_thread, own_process=True, predecessor=predecessor)
            else:
                from pounce.importer import look_in_app_dir
                from pounce.worker.loop import import_loop, loop_factory, run_on_new_loop

                import_loop(self._config.loop)
                look_in_app_dir(self._config)
                run_on_new_loop(self._serve_with_signals, loop_factory(self._config.loop))

    @contextmanager
    def _hooked(self) -> Iterator[None]:
        """Call the hooks of the beginning and the end around what is within."""
        if self._hooks is None and any(getattr(self._config, name) is not None for name in HOOKS):
            from pounce.supervisor.server_hooks import ServerHooks

            self._hooks = ServerHooks(self._config)
            self._hooks.call("on_starting")
            try:
                yield
            finally:
                self._hooks.call("on_exit")
                self._hooks = None
        else:
            yield

    async def _serve_with_signals(self) -> None:
        import asyncio

        self._own_loop = True
        restore = self._handle_signals(asyncio.get_running_loop())
        try:
            await self.serve()
        except asyncio.CancelledError:
            if self.signals < 2:
                raise
        finally:
            self._ended.set()
            if self._control is not None:
                self._control.close()
            restore()
        if self.signals > 1:
            raise SystemExit(1)

    def _handle_signals(self, loop: AbstractEventLoop) -> Callable[[], None]:
        if threading.current_thread() is not threading.main_thread():
            return lambda: None
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def on_signal(number: int, frame: FrameType | None) -> None:
            self.signals += 1
            if self.signals == 1:
                threading.Thread(target=self._bound_the_end, name="pounce bound", daemon=True).start()
            if self.signals > 1 and self._end is None:
                # Still importing, or past the end: there is no loop that could react.
                raise Interrupted(1)
            if self.signals > 2:
                # The loop does not even react to the second: something blocks it.
                os._exit(1)
            self.shutdown(force=self.signals > 1, hurry=is_of_terminal(number))

        for number in before:
            signal.signal(number, on_signal)

        def on_supervisors(number: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(
                log.error, "%s is for a supervisor, and there is none: nothing happens", signal.Signals(number).name
            )

        def reopen_logs(number: int, frame: FrameType | None) -> None:
            # Beside the loop: somebody may wait for a log that nobody reads.
            threading.Thread(target=reopen_log_files, name="pounce logs", daemon=True).start()

        if signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL:
            before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, reopen_logs)
        for name in SUPERVISORS:
            number = getattr(signal, name)
            # Who closes a terminal wants what runs in it to end.
            on_terminal = name == "SIGHUP" and is_on_terminal()
            if signal.getsignal(number) == signal.SIG_DFL and not on_terminal:
                before[number] = signal.signal(number, on_supervisors)

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        return restore

    def _bound_the_end(self) -> None:
        """Do for one worker in the calling process what a supervisor does: end what stands still."""
        bound = self._config.drain_delay + drain_bound(self._config) + DRAIN_MARGIN
        if self._ended.wait(bound):
            return
        from pounce.worker.standstill import stack_of

        words, stack = LastWords(self._config), stack_of(threading.main_thread().ident or 0)
        words.say(logging.ERROR, "The server did not end within %.0f s and is given up%s", bound, stack)
        words.close()
        os._exit(0)

    async def serve(self) -> None:
        """Serve on the running loop until `shutdown()`. Raises a `PounceError` when it cannot start.

        More than one worker run beside the loop: on threads of this process where that is their mode, else in processes
        that a thread of this one supervises.
        """
        import asyncio

        config = self._config
        given: dict[str, object] = {"reload": config.reload, "control_socket": is_named(config.control_socket)}
        if self._pid_file is None:
            # Those of the whole process.
            given |= {"user": config.user, "group": config.group, "umask": config.umask, "preload": config.preload}
        for name, value in given.items():
            if value is not None and value is not False:
                raise ConfigError(f"{name} needs a process of its own", hint="Use run() or the command.")
        if self._pid_file is not None:
            await self._serve()
            return
        with self._hooked(), PidFile(config.pid_file) as self._pid_file:
            self._tell_idle_settings(asyncio.get_running_loop())
            await self._serve()

    async def _serve(self) -> None:
        config = self._config
        one = workers_of(config) == 1 and config.worker_mode not in ("process", "subinterpreter")
        if one and config.worker_timeout in (0, WORKER_TIMEOUT):
            from pounce.worker.affinity import on_one_cpu

            with on_one_cpu() if config.cpu_affinity else nullcontext():
                await self._serve_alone()
        elif one or mode_of(config) == "thread":
            # One that is to be replaced needs a thread that it may block.
            await self._serve_on_threads()
        else:
            await self._serve_in_processes()

    def _tell_idle_settings(self, loop: AbstractEventLoop | None = None) -> None:
        if idle := idle_settings(self._config, loop):
            log.warning("These settings do nothing: %s", idle)

    async def _serve_alone(self) -> None:
        import asyncio

        from pounce.worker.shared import prepare
        from pounce.worker.standstill import LoneWatch
        from pounce.worker.worker import Worker

        config = self._config
        shared = prepare(config, self._app, self._registry)
        self._tls = shared.all_tls
        listeners, datagrams = open_sockets(config)
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        try:
            worker = Worker(
                config,
                shared.application(),
                shared.registry,
                listeners,
                shared.tls,
                bind_tls=shared.bind_tls,
                gil_watch=shared.gil_watch,
                admission=shared.admission,
                gate=shared.gate,
                peers=shared.peers,
                buffers=shared.buffers,
            )
            watch = LoneWatch(config.worker_timeout, lambda: worker.heartbeat)

            def end(force: bool, hurry: bool) -> None:
                if force and self.start_info is None and task is not None:
                    # Still starting up: there is nothing to drain.
                    task.cancel()
                elif force:
                    worker.force()
                else:
                    worker.stop(hurry=hurry)

            def on_ready() -> None:
                worker.receive([sock.dup() for sock in datagrams])
                watch.start()
                self._tell(shared.describe(), listeners, loop)
                self._open_control(lambda: ([worker.state()], worker.service.own_totals()))

            def released() -> None:
                # From now on no tick shows that the loop turns, or none soon.
                watch.stop()
                self._released(listeners)

            with self._ended_by(lambda force, hurry: loop.call_soon_threadsafe(end, force, hurry)):
                await worker.serve(on_ready, released)
        finally:
            self._notifier.stop_watchdog()
            _close(listeners)
            for sock in datagrams:
                sock.close()

    def _open_control(self, look: Callable[[], tuple[list[WorkerState], Totals]]) -> None:
        """Where nobody supervises this server, and it is alone in its process."""
        if not self._own_loop or self._config.control_socket != AUTO:
            return
        from pounce.supervisor.lone_control import LoneControl

        assert self.start_info is not None
        self._control = LoneControl(self._config, self._app, self.start_info.urls, look, self.shutdown)

    def _released(self, listeners: list[Listener]) -> None:
        self._notifier.stopping()
        _close(listeners)

    async def _serve_on_threads(self) -> None:
        import asyncio

        from pounce.supervisor.datagrams import DatagramSockets
        from pounce.worker.loop import import_loop
        from pounce.worker.shared import prepare
        from pounce.worker.standstill import Standstill
        from pounce.worker.threads import WorkerThreads
        from pounce.worker.worker import SOON

        config = self._config
        import_loop(config.loop)
        shared = prepare(config, self._app, self._registry)
        self._tls = shared.all_tls
        listeners, first = open_sockets(config)
        try:
            datagrams = DatagramSockets(config, listeners, first, count=workers_of(config))
        except BaseException:
            _close(listeners)
            raise
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def on_change() -> None:
            loop.call_soon_threadsafe(changed.set)

        def recycle(reason: str) -> None:
            log.warning("The server ends after %s, to be started again", reason)
            self.shutdown()

        workers = WorkerThreads(
            shared,
            listeners,
            dispatched=True,
            siblings=datagrams.siblings(),
            on_change=on_change,
            on_recycle=recycle,
        )

        bound = drain_bound(config)
        standstill = Standstill(
            config.worker_timeout,
            replaces=True,
            patience=bound,
            give_up=lambda state: log.error("Worker %d still stands still, and its thread is left", state.number),
        )

        give_up_at = inf
        """When workers that do not end are left."""

        def end(force: bool, hurry: bool) -> None:
            nonlocal give_up_at
            if force:
                workers.force()
            elif not config.drain_delay:
                workers.stop(empty=True, hurry=hurry)
            elif give_up_at == inf:
                log.info(SOON, config.drain_delay)
                workers.announce_end()
                loop.call_later(config.drain_delay, lambda: workers.stop(empty=True, hurry=hurry))
            give_up_at = min(give_up_at, time.monotonic() + (END_MARGIN if force else config.drain_delay + bound))

        try:
            with self._ended_by(lambda force, hurry: loop.call_soon_threadsafe(end, force, hurry)):
                await asyncio.to_thread(workers.start, workers_of(config))
                workers.receive(datagrams.duplicates())
                if not self._shutdown:
                    # Else the listeners are closed, or about to be.
                    self._tell(shared.describe(), listeners)
                    self._open_control(lambda: (workers.states(), workers.totals()))
                while not workers.join(0) and time.monotonic() < give_up_at:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(changed.wait(), BEAT)
                    changed.clear()
                    standstill.look(workers, workers.states(), stopping=self._shutdown)
                    for error in workers.settle():
                        # There is no reason to trust the others.
                        workers.stop(empty=True)
                        await asyncio.to_thread(workers.join)
                        raise error
        finally:
            workers.force()
            if not workers.join(END_MARGIN):
                log.error("%d workers did not end in time and are left", len(workers.states()))
            _close(listeners)
            datagrams.close()

    async def _serve_in_processes(self) -> None:
        """A thread supervises them, as `run()` would."""
        import asyncio

        supervising = asyncio.ensure_future(asyncio.to_thread(self._supervise, handle_signals=False))
        try:
            await asyncio.shield(supervising)
        except asyncio.CancelledError:
            self.shutdown(force=True)
            await asyncio.wait([supervising])
            raise

    def _supervise(
        self, *, handle_signals: bool, own_process: bool = False, predecessor: Predecessor | None = None
    ) -> None:
        from pounce.supervisor.supervisor import Supervisor

        if self._registry is not None:
            raise ConfigError("a registry cannot be handed to other processes", hint="Use workers in threads, or one.")
        supervisor = Supervisor(
            self._config, self._app, self._tell, self._notifier, predecessor, own_process=own_process, hooks=self._hooks
        )
        with self._ended_by(lambda force, hurry: supervisor.shutdown(force=force, hurry=hurry)):
            supervisor.run(handle_signals=handle_signals)

    @contextmanager
    def _ended_by(self, end: Callable[[bool, bool], Any]) -> Iterator[None]:
        with self._lock:
            self._end = end
            if self._shutdown:
                end(False, self._hurry)
        try:
            yield
        finally:
            with self._lock:
                self._end = None
            self.start_info = None

    def shutdown(self, *, force: bool = False, hurry: bool = False) -> None:
        """End the server: requests that run get `shutdown_timeout` to finish, none of it with `force`.

        With `hurry` applications that wait are told `http.disconnect` after a second: somebody sits in front of the
        server. May be called from any thread, at any time, and again. Returns at once.
        """
        with self._lock:
            if not self._shutdown or force:
                self._end_by = 0.0 if force else time.monotonic() + self._config.shutdown_timeout
            self._shutdown = True
            self._hurry |= hurry
            if self._end is not None:
                self._end(force, hurry)

    def time_left(self) -> float:
        """Seconds that are left of `shutdown_timeout` since the first `shutdown()`, for what applications leave."""
        longest = self._config.shutdown_timeout
        return max(END_TIMEOUT, min(longest, self._end_by - time.monotonic()))

    def reload_certificates(self) -> bool:
        """Read the files of TLS again, for connections that begin from now on.

        False when they cannot be used, and the old ones stay: the log says why. May be called from any thread. It
        concerns the workers of this process: those in others look by themselves, as all do, and SIGHUP replaces them.
        """
        # All of them, also where one fails.
        read = [tls.reload() for tls in self._tls]
        return all(read)

    def _tell(
        self, description: Description, listeners: list[Listener], loop: AbstractEventLoop | None = None
    ) -> None:
        """Connections are accepted: log it, and call `on_ready`."""
        from pounce import __version__

        settle()
        if self._pid_file is not None:
            self._pid_file.write()

        config = self._config
        info = StartInfo(
            version=__version__,
            python=sys.version.split()[0],
            gil=description.gil,
            urls=tuple(listener.url("https" if description.tls else "http") for listener in listeners),
            pid=os.getpid(),
            app=self._app if isinstance(self._app, str) else None,
            workers=workers_of(config),
            tls=description.tls or any(listener.bind.has_certificate for listener in listeners),
            wires=description.wires,
            http_parser=description.http_parser,
            worker_mode=mode_of(config) if is_supervised(config) else "thread",
            display=description.display,
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
            "worker_mode": info.worker_mode,
            "tls": info.tls,
            "http_parser": info.http_parser,
        }
        for name in ("name", "tagline", "version"):
            if said := getattr(info.display, name):
                event[f"app_{name}"] = said
        listening = f"Listening on {', '.join(info.urls)}"
        log.info("%s", listening, extra={"event": event})
        self._notifier.ready(listening)
        if loop is not None:
            self._notifier.start_watchdog(loop)
        if self._hooks is not None:
            self._hooks.urls = info.urls
            self._hooks.call("when_ready")
        if self._on_ready is not None:
            self._on_ready(info)


def _check_no_loop_runs() -> None:
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and asyncio._get_running_loop() is not None:
        raise ConfigError(
            "an event loop runs in this thread already, which run() would block",
            code="POUNCE_RUN_IN_LOOP",
            hint="In a notebook or a coroutine: await pounce.Server(pounce.ServerConfig(port=8000), app).serve()",
        )


def _leave_orphans_to_the_original(config: ServerConfig) -> str | None:
    """As process 1 go on in a copy of it; gives the reason where that cannot be. A supervisor waits for them itself."""
    if os.getpid() != 1 or is_supervised(config):
        return None
    from pounce.supervisor.orphans import go_on_in_a_copy

    return go_on_in_a_copy()


def _is_on_terminal() -> bool:
    try:
        return os.isatty(0)
    except OSError:
        return False


def _close(listeners: list[Listener]) -> None:
    for listener in listeners:
        listener.close()
    listeners.clear()


def _with_certificate(config: ServerConfig) -> ServerConfig:
    from pounce.net.tls import with_certificate

    return with_certificate(config)


def run(
    app: ASGIApp | str,
    *,
    config: ServerConfig | None = None,
    on_ready: Callable[[StartInfo], None] | None = None,
    env_file: str | os.PathLike[str] | None = None,
    use_colors: bool | None = None,
    **settings: Unpack[ServerConfigKwargs],
) -> None:
    """Serve `app` until the process is told to end; sets up logging; blocks.

    Settings are those of `ServerConfig`, given either one by one or as `config`. Raises `TypeError` for both, and a
    `PounceError` when the server cannot start.
    """
    if is_importing():
        raise ConfigError(
            "pounce.run() is called by the module that is being imported to get the application;"
            ' put it below if __name__ == "__main__"'
        )
    if config is not None and settings:
        raise TypeError("give config or single settings, not both")
    if env_file is not None:
        load_env_files([os.fspath(env_file)], "env_file")
    if use_colors is not None:
        set_colors(use_colors)
    if config is None:
        config = ServerConfig.of(settings)
    elif not isinstance(config, ServerConfig):
        raise TypeError(f"config must be a ServerConfig (got {type(config).__name__})")
    _run(app, config, on_ready, in_program=True)


def run_alone(app: ASGIApp | str, *, config: ServerConfig, on_ready: Callable[[StartInfo], None]) -> None:
    """The same in a process that has nothing else to do: whatever holds up its end is bounded."""
    _run(app, config, on_ready, in_program=False)


def _run(
    app: ASGIApp | str, config: ServerConfig, on_ready: Callable[[StartInfo], None] | None, *, in_program: bool
) -> None:
    from pounce.observe.logs import Logs

    # Before there are threads, such as that of the log; where it cannot be, the server says so.
    _leave_orphans_to_the_original(config)
    server, left, exit_code = Server(config, app, on_ready=on_ready), Leftovers(in_program=in_program), 1
    try:
        with Logs(config):
            server.run()
        exit_code = 0
    except (PounceError, SystemExit) as exc:
        exit_code = exc.exit_code if isinstance(exc, PounceError) else 1
        raise
    finally:
        left.bound(config, END_TIMEOUT if exit_code else server.time_left(), exit_code, server.signals)
