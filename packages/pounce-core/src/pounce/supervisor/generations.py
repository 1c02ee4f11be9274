"""Generations: as many places as there are to be processes, each with its process, and what becomes of them.

    start          every place of the first generation gets a process; when one cannot start, the server ends
    death          the place gets another process, after a pause; when its budget is spent, the server ends
    replacement    a process that asks for it serves until its successor does, then drains
    reload         a second generation starts beside the first on the same sockets. When all of it is ready the first
                   one drains; when part of it fails, all of it ends, and the first one goes on as if nothing had been.
                   A later reload takes the place of one that is under way
"""

import logging
import selectors
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from pounce.config import ServerConfig
from pounce.config_checks import HOOKS
from pounce.errors import PounceError, SupervisorError, WorkerError
from pounce.importer import RemoteTraceback
from pounce.net.bind import Listener
from pounce.supervisor.child import Child, State
from pounce.supervisor.children import FORCED_END, Children
from pounce.supervisor.collecting import Collecting
from pounce.supervisor.drain_bound import DRAIN_MARGIN, drain_bound
from pounce.supervisor.launch import check_fork, fork, spawn
from pounce.supervisor.messages import AllTotals, Limit, Resize, Spec
from pounce.supervisor.modes import mode_of, workers_of
from pounce.supervisor.restart_budget import LONGEST_PAUSE, RestartBudget
from pounce.supervisor.sockets import Sockets
from pounce.supervisor.start_folder import StartFolder
from pounce.worker.portion import Limits
from pounce.worker.state import Description

if TYPE_CHECKING:
    from pounce.contract.wire import ASGIApp

__all__ = ["GenerationEvents", "Generations", "Place"]

log = logging.getLogger("pounce.supervisor")


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


class GenerationEvents(Protocol):
    """Who is told what becomes of the generations."""

    def served(self, description: Description, took: float) -> None:
        """The first one serves, after so many seconds. What this raises ends the server."""

    def reload_began(self) -> None: ...

    def reload_ended(self, error: str | None, took: float) -> None:
        """After so many seconds; with `error` what served before goes on."""

    def reload_overtaken(self) -> None:
        """A later one takes its place."""

    def process_ended(self, child: Child) -> None:
        """One of them has."""

    def cannot_go_on(self, error: Exception) -> None:
        """The server has to end."""


class Generations:
    """The generation that serves, and the one that starts beside it.

    `foreign` tells the descriptors that a fork has no business with, beside those of sockets and processes. `number` is
    that of the first one.
    """

    def __init__(
        self,
        config: ServerConfig,
        app: ASGIApp | str,
        sockets: Sockets,
        selector: selectors.BaseSelector,
        events: GenerationEvents,
        *,
        foreign: Callable[[], list[int]],
        number: int = 0,
    ) -> None:
        self._config = config
        hooks: dict[str, Any] = dict.fromkeys(HOOKS)
        # Those of the server need not be known elsewhere.
        self._own_config = replace(config, **hooks)
        self._app = app
        self._sockets = sockets
        self._events = events
        self._foreign = foreign
        self.folder = StartFolder()
        self.children = Children(config, selector, self)
        self.collecting = Collecting(self.children)
        self.totals_said = self.collecting.said
        self.mode = mode_of(config)
        self.workers = workers_of(config)
        self.places: list[Place] = []
        self.coming: list[Place] = []
        """The generation that starts beside `places`."""
        self.number = number
        """How often all processes were replaced; where that failed the number is not used again."""
        self.serves = False
        """The first one does, or has."""
        self.stopping = False
        """No others are started."""
        self._began = time.monotonic()
        """When the last reload began, or the server."""

    @property
    def processes(self) -> int:
        """How many there are to be."""
        return self.workers if self.mode == "process" else 1

    # Start

    def start(self) -> None:
        """Start the first one."""
        self.places = self._started([])

    def preload(self) -> None:
        """Import the application here, for processes that are copies of this one. Raises a `PounceError`."""
        if isinstance(self._app, str):
            from pounce.importer import preloaded

            self._app = preloaded(self._app, self._config)
            # It may have started threads.
            check_fork(self._config)

    def open_sockets(self) -> None:
        """Open what the processes of the first one listen on: later this one may not be allowed to."""
        for number in range(self.processes):
            self._sockets.listeners_of(number, self.processes)

    def _started(self, before: list[Place]) -> list[Place]:
        count = self.processes
        places = [Place(number, self._sockets.listeners_of(number, count)) for number in range(count)]
        for place, its_own in zip(places, before, strict=False):
            place.budget = its_own.budget
        for place in places:
            self._start_successor(place)
        return places

    def _start_successor(self, place: Place) -> None:
        spec = Spec(
            config=replace(self._own_config, **asdict(self._limits_of(place))),
            app=self._app if isinstance(self._app, str) else "",
            mode=self.mode,
            workers=1 if self.mode == "process" else self.workers,
            first_worker=place.number,
            generation=self.number,
            listeners=tuple((listener.bind, listener.sock.fileno()) for listener in place.listeners),
            siblings=self._sockets.siblings(),
        )
        child = (
            spawn(spec, self.folder) if isinstance(self._app, str) else fork(spec, self._app, self._foreign_to(spec))
        )
        place.successor = child
        self.children.add(child)

    def _limits_of(self, place: Place) -> Limits:
        return Limits.of(self._config).portion(self.processes, place.number)

    def _foreign_to(self, spec: Spec) -> list[int]:
        """What a fork that does `spec` has no business with."""
        # The kernel gives connections to every socket that is open, also where nobody accepts them.
        listening, others = self._sockets.descriptors()
        own = set(listening).difference(fd for _, fd in spec.listeners)
        return [*own, *others, *self.children.descriptors(), *self._foreign()]

    # What becomes of a process

    def child_ready(self, child: Child) -> None:
        """See `ChildEvents`."""
        log.debug("Process %d serves", child.pid)
        for place in (*self.places, *self.coming):
            if place.successor is child:
                before, place.child, place.successor = place.child, child, None
                self.share_datagrams()
                if before is not None:
                    self._drain(before)
                if child.recycle is not None:
                    self.recycle(child, child.recycle)
        if self.coming and all(place.child is not None for place in self.coming):
            self._take_over()
        if not self.serves and all(place.child is not None for place in self.places):
            assert child.ready is not None
            self.serves = True
            try:
                self._events.served(child.ready.description, time.monotonic() - self._began)
            except Exception as exc:  # noqa: BLE001 - raised when those that serve have drained
                self._events.cannot_go_on(exc)
                return
        if self.mode != "process" and child.spec.workers != self.workers:
            # Their number has changed while it started.
            child.channel.send(Resize(self.workers))

    def child_ended(self, child: Child, before: State) -> None:
        """See `ChildEvents`."""
        self._events.process_ended(child)
        self.collecting.ended(child)
        self._sockets.forget(child)
        self.share_datagrams()
        if before is State.DRAINING:
            level = logging.WARNING if child.exit_code and child.ready is not None else logging.DEBUG
            log.log(level, "Process %d %s", child.pid, child.end_in_words())
        elif child.ready is None:
            self._on_failed_start(child)
        else:
            self._on_death(child)

    def _on_failed_start(self, child: Child) -> None:
        error, text = _why(child)
        if any(place.successor is child for place in self.coming):
            self._give_up_reload(error, text)
            return
        place = next((place for place in self.places if place.successor is child), None)
        if place is None or self.stopping:
            return
        place.successor = None
        if not self.serves:
            if text:
                error.__cause__ = RemoteTraceback(text)
            self._events.cannot_go_on(error)
            return
        log.error("A process could not be started: %s%s", error, f"\n{text}" if text else "")
        self._start_later(place)

    def _on_death(self, child: Child) -> None:
        place = next((place for place in (*self.places, *self.coming) if place.child is child), None)
        if place is None or self.stopping:
            return
        log.error("Process %d %s", child.pid, child.end_in_words())
        self.collecting.count("process_deaths")
        place.child = None
        if place in self.coming:
            self._give_up_reload(WorkerError(f"a new process {child.end_in_words()}"), "")
        elif place.successor is None:
            self._start_later(place)

    def _start_later(self, place: Place) -> None:
        pause = place.budget.next_pause(time.monotonic())
        if pause is None and place.child is not None:
            # It is its successor that cannot start.
            pause = LONGEST_PAUSE
        if pause is None:
            self._events.cannot_go_on(
                SupervisorError(
                    "the processes that serve keep ending: they were restarted too often",
                    code="POUNCE_SUPERVISOR_RESTARTS_SPENT",
                    hint="The log says how each of them ended; 5 restarts are allowed within 60 seconds.",
                )
            )
            return
        log.warning("A new process starts in %g s", pause)
        place.start_at = time.monotonic() + pause

    def totals_wanted(self, child: Child, number: int) -> None:
        """See `ChildEvents`."""
        self.collecting.want(lambda totals: child.channel.send(AllTotals(number, totals)))

    def recycle(self, child: Child, reason: str) -> None:
        """See `ChildEvents`."""
        if child.ready is None or any(place.child is child for place in self.coming):
            # It asks once. Before it is ready: its workers serve already when it says so.
            child.recycle = reason
            return
        place = next((place for place in self.places if place.child is child), None)
        if place is not None and place.successor is None and place.start_at == inf and not self.stopping:
            self.collecting.count("process_replacements")
            log.info("Process %d is replaced: %s", child.pid, reason)
            self._start_successor(place)

    # Reload

    def reload(self) -> None:
        """Start another one beside the one that serves; nothing before that does, or at the end."""
        if self.stopping or not self.serves:
            return
        if self.coming:
            # It may have read what has changed since, or not, and may never be ready.
            self._drop_coming()
            log.info("A later reload takes the place of the one that was under way")
            self._events.reload_overtaken()
        log.info("Reloading")
        self.number += 1
        self._events.reload_began()
        self._began = time.monotonic()
        self.coming = self._started(self.places)

    def _take_over(self) -> None:
        old, self.places, self.coming = self.places, self.coming, []
        self.share_datagrams()
        for place in old:
            for child in place.children:
                self._drain(child, timeout=self._config.reload_timeout)
        log.info("Reloaded")
        self.collecting.count("reloads")
        self._events.reload_ended(None, time.monotonic() - self._began)
        for place in tuple(self.places):
            if place.child is not None and place.child.recycle is not None:
                self.recycle(place.child, place.child.recycle)

    def _drop_coming(self) -> None:
        coming, self.coming = self.coming, []
        for place in coming:
            for child in place.children:
                self._drain(child)

    def _give_up_reload(self, error: PounceError, text: str) -> None:
        self._drop_coming()
        if self.mode == "process":
            self.workers = len(self.places)
        self.collecting.count("reloads_failed")
        log.error("Reload failed, what served before goes on: %s%s", error, f"\n{text}" if text else "")
        self._events.reload_ended(str(error), time.monotonic() - self._began)

    # More and fewer places

    def fit(self) -> None:
        """Have as many places as there are to be processes."""
        count = self.processes
        if self._sockets.spread and len(self.places) > count:
            # The others must have the sockets of those that go.
            self.reload()
            return
        while len(self.places) < count:
            number = len(self.places)
            place = Place(number, self._sockets.listeners_of(number, count))
            self.places.append(place)
            self._start_successor(place)
        gone = self.places[count:]
        del self.places[count:]
        self.share_datagrams()
        for place in gone:
            for child in place.children:
                self._drain(child)
        for place in self.places:
            for child in place.children:
                child.channel.send(Limit(self._limits_of(place)))

    def share_datagrams(self) -> None:
        """Have every UDP socket read by a process that serves, or at the end by one that is left."""
        serving = [
            place.child if place.child is not None and place.child.state is State.SERVING else None
            for place in self.places
        ]
        left = [child for child in self.children if child.ready is not None] if self.stopping else []
        others = sorted(left, key=lambda child: child.started)
        count = sum(child is not None for child in serving) if self.mode == "process" else self.workers
        self._sockets.share_datagrams(serving, others, count)

    # Deadlines

    def next_deadline(self) -> float:
        """When `look()` is due, by `time.monotonic()`."""
        first = min(self.children.next_deadline(), self.collecting.next_deadline())
        return min(first, *(place.start_at for place in self.places), inf)

    def look(self, now: float) -> None:
        """Act on deadlines that lie before `now`."""
        self.children.look(now)
        self.collecting.look(now)
        for place in self.places:
            if place.start_at <= now and not self.stopping:
                place.start_at = inf
                self._start_successor(place)

    # The end

    def drain(self, *, empty: bool, hurry: bool) -> None:
        """Let all processes drain; `stopping` has to be set. With `empty` nobody serves the sockets after this."""
        for child in self.children:
            self._drain(child, empty=empty, hurry=hurry)

    def _drain(
        self, child: Child, *, empty: bool = False, hurry: bool = False, timeout: float | None = None
    ) -> None:
        starting = child.state is State.STARTING
        kill_after = self._config.drain_delay + drain_bound(self._config, timeout) + DRAIN_MARGIN
        child.drain(empty=empty, kill_after=kill_after, hurry=hurry, timeout=timeout)
        if not starting:
            return
        # It may serve by now.
        self.children.receive(child)
        if child.ready is None and self.mode == "subinterpreter":
            # Some of its interpreters may.
            child.kill_at = min(child.kill_at, time.monotonic() + FORCED_END)
        elif child.ready is None:
            # It has nothing to lose, and may take for ever to start.
            child.kill()


def _why(child: Child) -> tuple[PounceError, str]:
    if child.failed is not None:
        return child.failed.error, child.failed.traceback
    return (
        WorkerError(
            f"a server process {child.end_in_words()} before it could serve", code="POUNCE_WORKER_STARTUP_FAILED"
        ),
        "",
    )
