"""Supervisor: keeps the processes that serve running, and replaces them without losing a request.

It owns the listening sockets, and never imports the application nor sees a request. What it keeps is a *generation*: as
many places as there are to be processes, each with its process.

    start          every place of the first generation gets a process; when one cannot start, the server ends
    death          the place gets another process, after a pause; when its budget is spent, the server ends
    replacement    a process that asks for it serves until its successor does, then drains
    reload         a second generation starts beside the first on the same sockets. When all of it is ready the first
                   one drains; when part of it fails, all of it ends, and the first one goes on as if nothing had been.
                   A later reload takes the place of one that is under way
    upgrade        a new supervisor starts beside this one on the same sockets (upgrade.py). When it serves all drains,
                   and this one ends; when it cannot, this one goes on
    end            the sockets close here, so that the processes can empty them; all drain

The loop below is single-threaded and waits for descriptors alone: channels, ends of processes, signals, deadlines.
"""

import logging
import os
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from math import inf
from types import FrameType
from typing import TYPE_CHECKING, Any

from pounce.config import ServerConfig
from pounce.contract.wire import Fleet
from pounce.errors import ConfigError, PounceError, SupervisorError
from pounce.importer import RemoteTraceback
from pounce.net.bind import Listener, names_of, open_listeners
from pounce.net.udp import open_sockets
from pounce.observe.logs import reopen_log_files
from pounce.supervisor.child import Child, State, fork, spawn
from pounce.supervisor.control import Answer, ControlSocket
from pounce.supervisor.datagrams import DatagramSockets
from pounce.supervisor.drain_bound import DRAIN_MARGIN, drain_bound
from pounce.supervisor.messages import Beat, Failed, Limit, Message, Ready, Recycle, ReopenLogs, Resize, Spec, Tell
from pounce.supervisor.modes import mode_of, workers_of
from pounce.supervisor.orphans import cannot_reap
from pounce.supervisor.restart_budget import LONGEST_PAUSE, RestartBudget
from pounce.supervisor.start_folder import StartFolder
from pounce.supervisor.systemd import Notifier
from pounce.supervisor.terminal import is_of_terminal
from pounce.supervisor.upgrade import Predecessor, Successor
from pounce.supervisor.watch_files import FileWatcher
from pounce.worker.portion import portion_of
from pounce.worker.state import Description

if TYPE_CHECKING:
    from pounce.exchange.service import ASGIApp

__all__ = ["Supervisor"]

log = logging.getLogger("pounce.supervisor")

FORCED_END = 8.0
"""Seconds that a process gets to end when it is not to wait for anything."""
SILENCE_MARGIN = 5.0
"""Seconds that a process may be silent for longer than its workers may."""
POLL = 0.05
"""Seconds between two looks for the end of a process, where the system cannot report it."""


@dataclass
class Place:
    """Where one process is to run."""

    number: int
    listeners: tuple[Listener, ...]
    budget: RestartBudget = field(default_factory=RestartBudget)
    child: Child | None = None
    successor: Child | None = None
    """Starts, and takes the place of `child` when it is ready."""
    start_at: float = inf
    """When to try again after a death."""

    @property
    def children(self) -> list[Child]:
        """The process that serves, and the one that is to take its place."""
        return [child for child in (self.child, self.successor) if child is not None]


class Supervisor:
    """Serves `app` with the workers that `config` asks for.

    `on_ready` is called once the first generation serves, and before `predecessor` is told so.
    """

    def __init__(
        self,
        config: ServerConfig,
        app: ASGIApp | str,
        on_ready: Callable[[Description, list[Listener]], None],
        notifier: Notifier,
        predecessor: Predecessor | None = None,
    ) -> None:
        self._config = config
        self._app = app
        self._on_ready = on_ready
        self._notifier = notifier
        self._next_sign = inf
        """When systemd expects a sign of life."""
        self._mode = mode_of(config)
        self._workers = workers_of(config)
        self._sets: list[list[Listener]] = [[]]
        """A listener for each bind, then sets of twins for further processes."""
        self._datagrams: DatagramSockets | None = None
        """Opened with them."""
        self._predecessor = predecessor
        self._successor: Successor | None = None
        self._folder = StartFolder()
        self._places: list[Place] = []
        self._fleet: Fleet | None = None
        """What the workers were last told of each other."""
        self._relieved = False
        """Another server has taken over."""
        self._generation = predecessor.generation + 1 if predecessor is not None else 0
        """How often all processes were replaced; where that failed the number is not used again."""
        self._coming: list[Place] = []
        """The generation that starts beside `_places`."""
        self._resize_by = 0
        """Workers to add when the reload is over."""
        self._watcher: FileWatcher | None = None
        self._control: ControlSocket | None = None
        self._reload_at = time.monotonic()
        """When the last reload began, or the server."""
        self._reload_answers: list[Answer] = []
        """Who waits for the end of the reload."""
        self._started_at = time.time()
        self._children: set[Child] = set()
        self._started = False
        self._urls: list[str] = []
        self._shutdowns = 0
        self._stopping = False
        self._error: Exception | None = None
        self._requests: list[Callable[[], None]] = []
        """What other threads and signal handlers want done on this one."""
        self._wake, self._waker = socket.socketpair()
        for sock in (self._wake, self._waker):
            sock.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._pidfds: dict[Child, int] = {}
        """Descriptors that tell of the end of a process, where the system has them."""

    # From any thread, and from signal handlers

    def shutdown(self, *, force: bool = False, hurry: bool = False) -> None:
        """End: requests that run get `shutdown_timeout` to finish, none of it with `force`; see `Server.shutdown()`."""
        self._call(self._force if force else lambda: self._stop(hurry=hurry))

    def reload(self) -> None:
        """Replace all processes by new ones with the application as it is now."""
        self._call(self._reload)

    def resize(self, by: int) -> None:
        """Serve with so many workers more, or fewer with a negative number; one at the least."""
        self._call(lambda: self._resize(by))

    def upgrade(self) -> None:
        """Have a new supervisor take over, with pounce as it is installed now."""
        self._call(self._upgrade)

    def reopen_logs(self) -> None:
        """Open the files that the application logs to again, in all processes."""
        self._call(self._reopen_logs)

    def _call(self, request: Callable[[], None]) -> None:
        self._requests.append(request)
        try:
            self._waker.send(b"\0")
        except OSError:
            # It is full: the loop wakes anyway. Or closed: it has ended.
            pass

    # The loop

    def run(self, *, handle_signals: bool) -> None:
        """Serve until `shutdown()`; blocks. Raises a `PounceError` when it cannot start or go on.

        With `handle_signals`, which is for the main thread, signals do what docs/workers.md says.
        """
        restore = self._handle_signals() if handle_signals else lambda: None
        try:
            if not isinstance(self._app, str):
                _check_fork(self._config)
            self._selector.register(self._wake, selectors.EVENT_READ, self._woken)
            self._open_listeners()
            if self._predecessor is None:
                self._open_control()
            if self._config.reload:
                # What changes while the first processes start may be too late for them.
                self._watcher = FileWatcher(self._config, self.reload, self._folder.name)
            self._places = self._start_generation([])
            while self._children or not self._stopping:
                for key, _ in self._selector.select(self._until_next_deadline()):
                    key.data()
                self._look_at_deadlines()
                self._tell_fleet()
        finally:
            restore()
            self._close()
        if self._error is not None:
            raise self._error
        if self._shutdowns > 1:
            raise SystemExit(1)

    def _handle_signals(self) -> Callable[[], None]:
        def on_end(number: int, frame: FrameType | None) -> None:
            self._shutdowns += 1
            if self._shutdowns > 2:
                for child in tuple(self._children):
                    child.kill()
                os._exit(1)
            self.shutdown(force=self._shutdowns > 1, hurry=is_of_terminal(number))

        handlers: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGHUP: lambda: self._call(self._reload_by_hand),
            signal.SIGTTIN: lambda: self.resize(+1),
            signal.SIGTTOU: lambda: self.resize(-1),
            signal.SIGUSR1: self.reopen_logs,
            signal.SIGUSR2: self.upgrade,
        }

        if os.getpid() == 1:
            reason = cannot_reap(threads=1 + len(_other_threads()))
            if reason is None:
                handlers[signal.SIGCHLD] = lambda: self._call(self._reap_orphans)
            else:
                log.warning("Nobody waits for orphaned processes: this is process 1, and %s", reason)

        def on_other(number: int, frame: FrameType | None) -> None:
            handlers[signal.Signals(number)]()

        before = {number: signal.signal(number, on_end) for number in (signal.SIGINT, signal.SIGTERM)}
        before |= {number: signal.signal(number, on_other) for number in handlers}

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        return restore

    def _woken(self) -> None:
        try:
            self._wake.recv(4096)
        except OSError:
            pass
        while self._requests:
            self._requests.pop(0)()

    def _until_next_deadline(self) -> float | None:
        deadlines = [self._next_sign, *(child.kill_at for child in self._children)]
        deadlines += [place.start_at for place in self._places]
        deadlines += [self._silent_at(child) for child in self._children]
        deadlines += [time.monotonic() + POLL for child in self._children if self._must_be_polled(child)]
        first = min(deadlines, default=inf)
        return None if first == inf else max(0.0, first - time.monotonic())

    def _silent_at(self, child: Child) -> float:
        """When this process will have been silent for too long."""
        timeout = self._config.worker_timeout
        if not timeout or child.state is not State.SERVING or child.silent:
            return inf
        # Its workers may be silent so long; it answers for them within a second.
        return child.heard + timeout + SILENCE_MARGIN

    def _on_silence(self, child: Child) -> None:
        """Not even its main thread runs, so Python itself stands still: have it say where, and do without it."""
        child.silent = True
        log.error("Process %d stands still; the stacks of its threads follow where it can still write them", child.pid)
        child.dump_stacks()
        self._recycle(child, "it stands still")

    def _must_be_polled(self, child: Child) -> bool:
        return child.channel.ended and child not in self._pidfds

    def _tell_fleet(self) -> None:
        """Let all workers know how the others are, where somebody asks them for it."""
        if not self._config.probes:
            return
        serving = starting = draining = 0
        for child in self._children:
            workers = child.beat.workers if child.beat is not None else ()
            count = len(workers) or child.spec.workers
            if child.state is State.STARTING:
                starting += count
            elif child.state is State.SERVING:
                leaving = sum(worker.draining for worker in workers)
                serving += count - leaving
                draining += leaving
            elif child.state is State.DRAINING:
                draining += count
        ready = self._relieved or (not self._stopping and serving > 0)
        fleet = Fleet(self._workers, serving, starting, draining, ready)
        if fleet != self._fleet:
            self._fleet = fleet
            for child in self._children:
                if child.ready is not None and not child.channel.ended:
                    child.channel.send(Tell(fleet))

    def _look_at_deadlines(self) -> None:
        now = time.monotonic()
        if self._next_sign <= now:
            self._give_sign()
        for child in tuple(self._children):
            if child.kill_at <= now:
                log.error("Process %d did not end in time and is killed", child.pid)
                child.kill()
            if self._silent_at(child) <= now:
                self._on_silence(child)
            if self._must_be_polled(child):
                self._look_whether_ended(child)
        for place in self._places:
            if place.start_at <= now and not self._stopping:
                place.start_at = inf
                self._start_successor(place)

    def _give_sign(self) -> None:
        interval = self._notifier.watchdog_interval
        if interval is not None:
            self._notifier.watchdog()
            self._next_sign = time.monotonic() + interval

    def _close(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
        for child in tuple(self._children):
            child.kill()
            child.wait()
            self._forget(child)
        self._close_listeners()
        if self._datagrams is not None:
            self._datagrams.close()
        if self._control is not None:
            self._control.close()
        if self._predecessor is not None:
            self._predecessor.close()
        if self._successor is not None:
            if self._successor.is_ready() is None:
                # It is still starting, and has nothing to lose.
                self._successor.give_up()
            self._forget_successor()
        self._selector.close()
        self._wake.close()
        self._waker.close()

    # Sockets

    def _open_listeners(self) -> None:
        """Raises a `PounceError`."""
        passed = self._predecessor.sockets if self._predecessor is not None else []
        first: list[socket.socket] = []
        if self._predecessor is None:
            listeners, first = open_sockets(self._config)
        else:
            listeners = open_listeners(self._config, passed)
        self._sets = [listeners]
        left = self._predecessor.datagrams if self._predecessor is not None else None
        self._datagrams = DatagramSockets(self._config, listeners, first, left, count=self._workers)
        names = names_of(listener.bind for listener in self._sets[0])
        binds = {names[id(listener.bind)]: listener.bind for listener in self._sets[0]}
        further: dict[int, list[Listener]] = {}
        for each in passed:
            if each.name not in binds:
                # The command line has changed.
                os.close(each.fd)
            elif each.twins:
                listener = Listener.from_fd(binds[each.name], each.fd, self._config.backlog)
                further.setdefault(each.twins, []).append(listener)
        self._sets += [further[number] for number in sorted(further)]

    @property
    def _spreads(self) -> bool:
        """Each process has sockets of its own."""
        return (
            self._mode == "process" and self._config.reuseport and any(listener.has_twins for listener in self._sets[0])
        )

    def _listeners_of(self, number: int, processes: int) -> tuple[Listener, ...]:
        """What place `number` of a generation of so many listens on.

        A set of twins that was opened is served until the end, if need be by a process that has several: to close one
        would lose the connections that wait on it.
        """
        if not self._spreads:
            return tuple(listener for listeners in self._sets for listener in listeners)
        while len(self._sets) < processes:
            own = [listener for listener in self._sets[0] if listener.has_twins]
            self._sets.append([listener.twin(self._config.backlog) for listener in own])
        found = [listener for listener in self._sets[0] if not listener.has_twins or not number]
        for twins in self._sets[number or processes :: processes]:
            found += twins
        return tuple(found)

    def _close_listeners(self) -> None:
        for listeners in self._sets:
            for listener in listeners:
                listener.close()
            listeners.clear()

    def _share_datagrams(self) -> None:
        """Have every UDP socket read by a process that serves, or at the end by one that is left."""
        if self._datagrams is None:
            return
        serving = [
            place.child if place.child is not None and place.child.state is State.SERVING else None
            for place in self._places
        ]
        left = [child for child in self._children if child.ready is not None] if self._stopping else []
        others = sorted(left, key=lambda child: child.started)
        count = sum(child is not None for child in serving) if self._mode == "process" else self._workers
        self._datagrams.share(serving, others, count)

    # Processes

    @property
    def _processes(self) -> int:
        return self._workers if self._mode == "process" else 1

    def _start_generation(self, before: list[Place]) -> list[Place]:
        count = self._processes
        places = [Place(number, self._listeners_of(number, count)) for number in range(count)]
        for place, its_own in zip(places, before, strict=False):
            place.budget = its_own.budget
        for place in places:
            self._start_successor(place)
        return places

    def _start_successor(self, place: Place) -> None:
        spec = Spec(
            config=replace(self._config, max_connections=self._limit_of(place)),
            app=self._app if isinstance(self._app, str) else "",
            mode=self._mode,
            workers=1 if self._mode == "process" else self._workers,
            first_worker=place.number,
            generation=self._generation,
            listeners=tuple((listener.bind, listener.sock.fileno()) for listener in place.listeners),
            siblings=self._datagrams.siblings() if self._datagrams is not None else None,
        )
        child = (
            spawn(spec, self._folder) if isinstance(self._app, str) else fork(spec, self._app, self._foreign_to(spec))
        )
        place.successor = child
        self._children.add(child)
        self._selector.register(child.channel, selectors.EVENT_READ, lambda: self._receive(child))
        try:
            fd = os.pidfd_open(child.pid)
        except OSError, AttributeError:
            # Not on this system. The channel tells of the end too, a moment early.
            return
        self._pidfds[child] = fd
        self._selector.register(fd, selectors.EVENT_READ, lambda: self._look_whether_ended(child))

    def _limit_of(self, place: Place) -> int:
        return portion_of(self._config.max_connections, self._processes, place.number)

    def _foreign_to(self, spec: Spec) -> list[int]:
        """What a fork that does `spec` has no business with."""
        # The kernel gives connections to every socket that is open, also where nobody accepts them.
        listening = {listener.sock.fileno() for listeners in self._sets for listener in listeners}
        own = [*listening.difference(fd for _, fd in spec.listeners)]
        own += [self._wake.fileno(), self._waker.fileno(), *self._pidfds.values()]
        own += [child.channel.fileno() for child in self._children if not child.channel.ended]
        if self._datagrams is not None:
            own += self._datagrams.descriptors()
        if self._control is not None:
            own += self._control.descriptors()
        if self._predecessor is not None:
            own += self._predecessor.descriptors()
        if self._successor is not None:
            own.append(self._successor.fileno())
        if hasattr(self._selector, "fileno"):
            own.append(self._selector.fileno())
        return own

    def _receive(self, child: Child) -> None:
        if child.channel.ended or child not in self._children:
            # Something else in this turn of the loop has read it to its end.
            return
        for message in child.channel.receive():
            child.heard = time.monotonic()
            self._on_message(child, message)
        if child.channel.ended:
            self._selector.unregister(child.channel)
            if child.state is State.SERVING:
                # It goes down; the end itself follows.
                child.kill_at = min(child.kill_at, time.monotonic() + FORCED_END)

    def _on_message(self, child: Child, message: Message) -> None:
        match message:
            case Ready():
                child.ready = message
                if child.state is State.STARTING:
                    child.state = State.SERVING
                    self._on_child_ready(child)
            case Failed():
                child.failed = message
            case Beat():
                child.beat = message
            case Recycle(reason):
                self._recycle(child, reason)

    def _look_whether_ended(self, child: Child) -> None:
        before = child.state
        if before is State.ENDED or not child.has_ended():
            return
        if not child.channel.ended:
            # What it said last.
            self._receive(child)
        self._forget(child)
        self._share_datagrams()
        if before is State.DRAINING:
            level = logging.WARNING if child.exit_code and child.ready is not None else logging.DEBUG
            log.log(level, "Process %d %s", child.pid, child.end_in_words())
        elif child.ready is None:
            self._on_failed_start(child)
        else:
            self._on_death(child)

    def _reap_orphans(self) -> None:
        """Wait for what has ended and is not ours: as process 1 this one is the parent of all orphans."""
        ours = {child.pid: child for child in self._children}
        with suppress(ChildProcessError):
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if ended.si_pid in ours:
                    self._look_whether_ended(ours[ended.si_pid])
                else:
                    os.waitpid(ended.si_pid, os.WNOHANG)

    def _forget(self, child: Child) -> None:
        self._children.discard(child)
        if self._datagrams is not None:
            self._datagrams.forget(child)
        fd = self._pidfds.pop(child, None)
        if fd is not None:
            self._selector.unregister(fd)
            os.close(fd)
        if not child.channel.ended:
            self._selector.unregister(child.channel)
        child.channel.close()

    # What becomes of a place

    def _on_child_ready(self, child: Child) -> None:
        log.debug("Process %d serves", child.pid)
        # It has not been told yet.
        self._fleet = None
        for place in (*self._places, *self._coming):
            if place.successor is child:
                before, place.child, place.successor = place.child, child, None
                self._share_datagrams()
                if before is not None:
                    self._drain(before)
        if self._coming and all(place.child is not None for place in self._coming):
            self._take_over()
        if not self._started and all(place.child is not None for place in self._places):
            assert child.ready is not None
            try:
                self._on_start(child.ready.description)
            except Exception as exc:  # noqa: BLE001 - raised when those that serve have drained
                self._end_with(exc)
                return
        if self._mode != "process" and child.spec.workers != self._workers:
            # Their number has changed while it started.
            child.channel.send(Resize(self._workers))

    def _on_start(self, description: Description) -> None:
        """The first generation serves."""
        self._started = True
        if self._watcher is not None:
            self._watcher.start_took = time.monotonic() - self._reload_at
            self._watcher.start()
        scheme = "https" if description.tls else "http"
        self._urls = [listener.url(scheme) for listener in self._sets[0]]
        if self._predecessor is not None:
            self._open_control()
        self._on_ready(description, self._sets[0])
        if self._predecessor is not None:
            # Nothing of the other one's is touched before nothing can fail any more.
            if self._control is not None:
                self._control.take_over()
            self._sets = [[listener.owned() for listener in listeners] for listeners in self._sets]
            if self._datagrams is not None:
                self._datagrams.take_over()
            self._predecessor.relieve()
        self._give_sign()

    def _on_failed_start(self, child: Child) -> None:
        error, text = _why(child)
        if any(place.successor is child for place in self._coming):
            self._give_up_reload(error, text)
            return
        place = next((place for place in self._places if place.successor is child), None)
        if place is None or self._stopping:
            return
        place.successor = None
        if not self._started:
            if text:
                error.__cause__ = RemoteTraceback(text)
            self._end_with(error)
            return
        log.error("A process could not be started: %s%s", error, f"\n{text}" if text else "")
        self._start_later(place)

    def _on_death(self, child: Child) -> None:
        place = next((place for place in (*self._places, *self._coming) if place.child is child), None)
        if place is None or self._stopping:
            return
        log.error("Process %d %s", child.pid, child.end_in_words())
        place.child = None
        if place in self._coming:
            self._give_up_reload(SupervisorError(f"a new process {child.end_in_words()}"), "")
        elif place.successor is None:
            self._start_later(place)

    def _start_later(self, place: Place) -> None:
        pause = place.budget.next_pause(time.monotonic())
        if pause is None and place.child is not None:
            # It is its successor that cannot start.
            pause = LONGEST_PAUSE
        if pause is None:
            self._end_with(
                SupervisorError(
                    "the processes that serve keep ending: they were restarted too often",
                    code="POUNCE_SUPERVISOR_RESTARTS_SPENT",
                    hint="The log says how each of them ended; 5 restarts are allowed within 60 seconds.",
                )
            )
            return
        log.warning("A new process starts in %g s", pause)
        place.start_at = time.monotonic() + pause

    def _recycle(self, child: Child, reason: str) -> None:
        if any(place.child is child for place in self._coming):
            # It asks once.
            child.recycle = reason
            return
        place = next((place for place in self._places if place.child is child), None)
        if place is not None and place.successor is None and place.start_at == inf and not self._stopping:
            log.info("Process %d is replaced: %s", child.pid, reason)
            self._start_successor(place)

    # Reload

    def _reload_by_hand(self) -> None:
        if self._watcher is not None:
            self._watcher.react_to_all()
        self._reload()

    def _reload(self) -> None:
        if self._stopping or not self._started:
            return
        if self._coming:
            # It may have read what has changed since, or not, and may never be ready.
            self._drop_coming()
            log.info("A later reload takes the place of the one that was under way")
            self._answer_reload({"ok": False, "error": "a later reload took its place"})
        log.info("Reloading")
        self._generation += 1
        self._notifier.reloading()
        self._reload_at = time.monotonic()
        self._coming = self._start_generation(self._places)

    def _take_over(self) -> None:
        old, self._places, self._coming = self._places, self._coming, []
        self._share_datagrams()
        for place in old:
            for child in place.children:
                self._drain(child)
        log.info("Reloaded")
        if self._watcher is not None:
            self._watcher.start_took = time.monotonic() - self._reload_at
        self._answer_reload({"ok": True})
        self._notifier.ready()
        self._resize_if_asked()
        for place in tuple(self._places):
            if place.child is not None and place.child.recycle is not None:
                self._recycle(place.child, place.child.recycle)

    def _drop_coming(self) -> None:
        coming, self._coming = self._coming, []
        for place in coming:
            for child in place.children:
                self._drain(child)

    def _give_up_reload(self, error: PounceError, text: str) -> None:
        self._drop_coming()
        if self._mode == "process":
            self._workers = len(self._places)
        self._notifier.ready("The last reload failed")
        log.error("Reload failed, what served before goes on: %s%s", error, f"\n{text}" if text else "")
        self._answer_reload({"ok": False, "error": f"reload failed: {error}"})
        self._resize_if_asked()

    def _resize_if_asked(self) -> None:
        by, self._resize_by = self._resize_by, 0
        if by:
            self._resize(by)

    # Upgrade

    def _upgrade(self) -> None:
        if self._stopping or not self._started:
            return
        if self._successor is not None:
            log.warning("An upgrade is under way: process %d starts", self._successor.pid)
            return
        try:
            passed = self._datagrams.passed() if self._datagrams is not None else None
            self._successor = Successor(self._sets, passed, self._folder, self._generation)
        except (OSError, SupervisorError) as exc:
            log.error("No upgrade: %s", exc)
            return
        log.info("Upgrading: process %d starts", self._successor.pid)
        self._selector.register(self._successor, selectors.EVENT_READ, self._on_news_of_successor)

    def _on_news_of_successor(self) -> None:
        assert self._successor is not None
        ready = self._successor.is_ready()
        if ready is None:
            return
        pid = self._successor.pid
        if not ready:
            end = self._successor.end_in_words()
            self._forget_successor()
            if not self._stopping:
                log.error("Upgrade failed, what served before goes on: process %d %s", pid, end)
            return
        self._forget_successor()
        log.info("Upgraded: process %d serves, this one ends", pid)
        self._notifier.main_pid(pid)
        # From now on the service is the other one.
        self._notifier, self._next_sign = Notifier(), inf
        if self._watcher is not None:
            self._watcher.stop()
        self._sets = [[replace(listener, owner=0) for listener in listeners] for listeners in self._sets]
        if self._datagrams is not None:
            self._datagrams.leave()
        self._relieved = True
        self._stop(empty=False)

    def _forget_successor(self) -> None:
        assert self._successor is not None
        self._selector.unregister(self._successor)
        self._successor.close()
        self._successor = None

    # The control socket

    def _open_control(self) -> None:
        if self._config.control_socket is not None:
            commands = {"status": self._tell_status, "reload": self._reload_for, "stop": self._stop_for}
            self._control = ControlSocket(
                self._config.control_socket, self._selector, commands, takes_over=self._predecessor is not None
            )

    def _reload_for(self, answer: Answer) -> None:
        if self._stopping or not self._started:
            answer({"ok": False, "error": "the server is starting or ending"})
        else:
            self._reload_by_hand()
            self._reload_answers.append(answer)

    def _answer_reload(self, outcome: dict[str, Any]) -> None:
        answers, self._reload_answers = self._reload_answers, []
        for answer in answers:
            answer(outcome)

    def _stop_for(self, answer: Answer) -> None:
        answer({"ok": True})
        self._stop()

    def _tell_status(self, answer: Answer) -> None:
        from pounce import __version__

        state = "ending" if self._stopping else "reloading" if self._coming else "serving"
        processes = [
            {
                "pid": child.pid,
                "state": child.state.name.lower(),
                "workers": [asdict(worker) for worker in child.beat.workers] if child.beat is not None else [],
            }
            for child in sorted(self._children, key=lambda child: child.started)
        ]
        status = {
            "version": __version__,
            "pid": os.getpid(),
            "state": state if self._started else "starting",
            "urls": self._urls,
            "uptime_seconds": round(time.time() - self._started_at, 1),
            "workers": self._workers,
            "worker_mode": self._mode,
            "processes": processes,
        }
        answer({"ok": True, "status": status})

    # More and fewer workers

    def _resize(self, by: int) -> None:
        if self._coming:
            self._resize_by += by
            return
        if self._stopping or not self._started:
            return
        self._workers = max(1, self._workers + by)
        log.info("Serving with %d workers", self._workers)
        if self._mode != "process":
            for place in self._places:
                if place.child is not None:
                    place.child.channel.send(Resize(self._workers))
            self._share_datagrams()
            return
        if self._spreads and len(self._places) > self._workers:
            # The others must have the sockets of those that go.
            self._reload()
            return
        while len(self._places) < self._workers:
            number = len(self._places)
            place = Place(number, self._listeners_of(number, self._workers))
            self._places.append(place)
            self._start_successor(place)
        gone = self._places[self._workers :]
        del self._places[self._workers :]
        self._share_datagrams()
        for place in gone:
            for child in place.children:
                self._drain(child)
        for place in self._places:
            for child in place.children:
                child.channel.send(Limit(self._limit_of(place)))

    def _reopen_logs(self) -> None:
        reopen_log_files()
        for child in self._children:
            child.channel.send(ReopenLogs())

    # The end

    def _drain(self, child: Child, *, empty: bool = False, hurry: bool = False) -> None:
        starting = child.state is State.STARTING
        kill_after = self._config.drain_delay + drain_bound(self._config) + DRAIN_MARGIN
        child.drain(empty=empty, kill_after=kill_after, hurry=hurry)
        if not starting:
            return
        # It may serve by now.
        self._receive(child)
        if child.ready is None and self._mode == "subinterpreter":
            # Some of its interpreters may.
            child.kill_at = min(child.kill_at, time.monotonic() + FORCED_END)
        elif child.ready is None:
            # It has nothing to lose, and may take for ever to start.
            child.kill()

    def _stop(self, *, empty: bool = True, hurry: bool = False) -> None:
        """With `empty` nobody serves the sockets after this."""
        if self._stopping:
            return
        self._stopping = True
        # Before they drain: by itself none can tell a reload from the end.
        self._tell_fleet()
        if self._successor is not None:
            self._successor.give_up()
        self._notifier.stopping()
        if self._control is not None:
            self._control.leave()
        # The last one that has a socket open must have emptied it.
        self._close_listeners()
        for child in tuple(self._children):
            self._drain(child, empty=empty, hurry=hurry)

    def _force(self) -> None:
        self._stop()
        for child in tuple(self._children):
            if child.ready is None:
                # It has nothing to lose.
                child.kill()
            else:
                child.force(kill_after=FORCED_END)

    def _end_with(self, error: Exception) -> None:
        self._error = self._error or error
        self._stop()


def _check_fork(config: ServerConfig) -> None:
    """Raises `ConfigError` where a copy of this process could not work."""
    if config.reload:
        raise ConfigError(
            "reload needs the name of the application, to import it anew", hint='Write "module:attribute".'
        )
    if mode_of(config) == "subinterpreter":
        raise ConfigError(
            "an application object cannot be handed to other interpreters",
            code="POUNCE_SUPERVISOR_FORK_UNAVAILABLE",
            hint='Name the application instead: "module:attribute".',
        )
    others = _other_threads()
    if others or not hasattr(os, "fork"):
        raise ConfigError(
            "an application object cannot be handed to other processes"
            + (f": this one has other threads ({', '.join(others)})" if others else ""),
            code="POUNCE_SUPERVISOR_FORK_UNAVAILABLE",
            hint='Name the application instead: "module:attribute".',
        )


def _other_threads() -> list[str]:
    """The names of those beside this one; that which writes the log shares nothing with anybody."""
    return [
        thread.name
        for thread in threading.enumerate()
        if thread is not threading.current_thread() and not thread.name.endswith("(_monitor)")
    ]


def _why(child: Child) -> tuple[PounceError, str]:
    if child.failed is not None:
        return child.failed.error, child.failed.traceback
    return (
        SupervisorError(
            f"a server process {child.end_in_words()} before it could serve", code="POUNCE_WORKER_STARTUP_FAILED"
        ),
        "",
    )
