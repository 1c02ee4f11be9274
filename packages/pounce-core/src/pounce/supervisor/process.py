"""A server process: the workers of one process, and the thread that answers for them to the supervisor.

The main thread imports the application, starts the workers, and from then on only listens to the supervisor: it stays
able to speak when a worker's loop stands still. When the supervisor is gone, the process drains and ends.
"""

import itertools
import logging
import os
import pickle
import select
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from math import inf
from typing import NoReturn, Protocol

from pounce.contract.totals import Totals
from pounce.contract.wire import Fleet
from pounce.errors import PounceError, WorkerError
from pounce.exchange.service import ASGIApp
from pounce.gc_hold import settle
from pounce.importer import application_traceback
from pounce.leftovers import END_TIMEOUT, Leftovers
from pounce.net.bind import Listener
from pounce.net.inherited import adopt_udp
from pounce.observe.logs import Logs, reopen_log_files
from pounce.process_title import set_title
from pounce.supervisor.channel import Channel
from pounce.supervisor.drain_bound import drain_bound
from pounce.supervisor.messages import (
    BEAT,
    AllTotals,
    Announce,
    Beat,
    CollectTotals,
    Failed,
    Force,
    Limit,
    Message,
    OwnTotals,
    Ready,
    Receive,
    Recycle,
    ReopenLogs,
    Resize,
    Spec,
    Start,
    Stop,
    Tell,
    WantTotals,
)
from pounce.supervisor.signals import leave_to_supervisor
from pounce.worker.loop import import_loop
from pounce.worker.portion import Limits
from pounce.worker.shared import prepare
from pounce.worker.standstill import Standstill
from pounce.worker.state import Description, WorkerState
from pounce.worker.threads import WorkerThreads
from pounce.worker.worker import SOON

__all__ = ["ServerProcess", "main", "serve", "wait_for_start"]

log = logging.getLogger("pounce")

FORCED_END = 5.0
"""Seconds that workers get to end when they are not to wait for anything."""


def main(fd: int) -> NoReturn:
    """Entry point of a new interpreter: `fd` is the channel to the supervisor, on which a `Start` comes first."""
    leave_to_supervisor()
    channel = Channel(socket.socket(fileno=fd))
    spec = wait_for_start(channel)
    sys.exit(serve(channel, spec, spec.app) if spec is not None else 1)


def wait_for_start(channel: Channel) -> Spec | None:
    """What a `Start` says, which comes first; None when nothing comes, or it cannot be done."""
    messages: list[Message] = []
    while not messages:
        select.select([channel], [], [])
        messages = channel.receive()
        if channel.ended:
            return None
    start = messages.pop(0)
    assert isinstance(start, Start)
    channel.unread(messages)
    if start.folder:
        try:
            os.chdir(start.folder)
        except OSError as exc:
            gone = f"the folder of the server, {start.folder}, cannot be entered any more: {exc.strerror or exc}"
            channel.send(Failed(WorkerError(gone, code="POUNCE_WORKER_STARTUP_FAILED"), ""))
            return None
    sys.path[:] = start.path
    spec: Spec = pickle.loads(start.spec)
    return spec


def serve(channel: Channel, spec: Spec, app: ASGIApp | str) -> int:
    """Do what `spec` says until the supervisor ends it; returns the exit code."""
    left = Leftovers()
    try:
        logs = Logs(spec.config)
    except PounceError as exc:
        channel.send(_failed(exc))
        return 1
    with logs:
        set_title(spec.config, _part(spec))
        process = ServerProcess(channel, spec)
        code = process.run(app)
    if process.abandoned:
        # The interpreter would wait for them.
        sys.stdout.flush()
        os._exit(code)
    left.bound(spec.config, END_TIMEOUT if code else process.time_left(), code)
    return code


def _part(spec: Spec) -> str:
    return f"worker {spec.first_worker}" if spec.workers == 1 else f"{spec.workers} workers"


class Workers(Protocol):
    """What a server process has workers in; `WorkerThreads` says what the methods mean."""

    abandoned: bool

    def describe(self) -> Description: ...
    def start(self, count: int, first: int = 0) -> None: ...
    def add(self, number: int) -> None: ...
    def settle(self) -> list[PounceError]: ...
    def receive(self, sockets: list[socket.socket]) -> None: ...
    def take_away(self, number: int) -> None: ...
    @property
    def numbers(self) -> list[int]: ...
    def states(self) -> list[WorkerState]: ...
    def totals(self) -> Totals: ...
    def stack(self, ident: int) -> str: ...
    def limit(self, limits: Limits) -> None: ...
    def tell(self, fleet: Fleet | None) -> None: ...
    def announce_end(self) -> None: ...
    def reopen_logs(self) -> None: ...
    def stop(self, *, empty: bool, hurry: bool = False, timeout: float | None = None) -> None: ...
    def force(self) -> None: ...
    def join(self, timeout: float | None = None) -> bool: ...


class ServerProcess:
    """The main thread of a server process."""

    def __init__(self, channel: Channel, spec: Spec) -> None:
        self._channel = channel
        self._spec = spec
        self._wake, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self._stopping = False
        self._stop_at = inf
        """When the drain begins."""
        self._hurry = False
        """Somebody waits for the end."""
        self._empty = False
        """What waits on the sockets then is accepted first."""
        self._timeout: float | None = None
        """Seconds that running requests have to finish; None is `shutdown_timeout`."""
        self._give_up_at = inf
        self._end_by = inf
        """When what applications leave has had `shutdown_timeout`."""
        self._exit_code = 0
        self.abandoned = False
        """Workers were left behind that did not end in time: nobody may wait for them."""
        self._wanted: dict[int, Callable[[Totals | None], None]] = {}
        """Who waits for what all workers of the server have counted."""
        self._questions = itertools.count(1)
        self._kept: Workers | None = None
        self._standstill = self._watch()

    def _watch(self) -> Standstill:
        # Alone it cannot be replaced but with its process.
        alone = self._spec.mode == "process"
        return Standstill(
            self._spec.config.worker_timeout,
            replaces=not alone,
            patience=0.0 if alone else drain_bound(self._spec.config),
            give_up=lambda state: self._ask_for_another("a worker stands still"),
        )

    def run(self, app: ASGIApp | str) -> int:
        """Serve; returns the exit code."""
        spec = self._spec
        listeners = [Listener.from_fd(bind, fd) for bind, fd in spec.listeners]
        try:
            with self._start_guard():
                workers = self._workers(app, listeners)
                workers.start(spec.workers, spec.first_worker)
        except BaseException as exc:  # noqa: BLE001 - told to the supervisor
            self._channel.send(_failed(exc))
            # An interpreter that failed may have left something behind.
            self.abandoned = spec.mode == "subinterpreter"
            return 1
        settle()
        self._channel.send(Ready(workers.describe()))
        self._answer_for(workers)
        self._channel.send(OwnTotals(0, workers.totals()))
        self.abandoned |= workers.abandoned
        # An interpreter that nobody knows any more is destroyed, and its threads are waited for.
        self._kept = workers
        for listener in listeners:
            listener.close()
        if self._channel.ended and spec.siblings is not None:
            # Nobody else is left to do so.
            spec.siblings.remove_if_empty()
        return self._exit_code

    def _start_guard(self) -> AbstractContextManager[None]:
        return ended_after(self._channel)

    def time_left(self) -> float:
        """Seconds that are left of `shutdown_timeout`, for what applications leave."""
        longest = self._spec.config.shutdown_timeout if self._timeout is None else self._timeout
        return max(END_TIMEOUT, min(longest, self._end_by - time.monotonic()))

    def _workers(self, app: ASGIApp | str, listeners: list[Listener]) -> Workers:
        """Raises a `PounceError` when the application cannot be had."""
        spec = self._spec
        if spec.mode == "subinterpreter":
            from pounce.supervisor.interpreters import WorkerInterpreters

            return WorkerInterpreters(
                spec,
                listeners,
                ask_totals=self._ask_totals,
                on_change=self._notify,
                on_recycle=self._ask_for_another,
            )
        import_loop(spec.config.loop)
        return WorkerThreads(
            prepare(spec.config, app, generation=spec.generation),
            listeners,
            dispatched=spec.mode == "thread",
            siblings=spec.siblings,
            ask_totals=self._ask_totals,
            place=spec.place,
            on_change=self._notify,
            on_recycle=self._ask_for_another,
            daemon=False,
        )

    def _notify(self) -> None:
        """Wake the main thread; from any."""
        try:
            self._waker.send(b"\0")
        except OSError:
            pass

    def _answer_for(self, workers: Workers) -> None:
        """Send signs of life and do what the supervisor says, until all workers have ended."""
        next_beat = 0.0
        self._listen(workers)
        while not workers.join(0):
            now = time.monotonic()
            if now >= next_beat:
                next_beat = now + BEAT
                states = workers.states()
                self._channel.send(Beat(tuple(states)))
                self._standstill.look(workers, states, stopping=self._stopping)
            if now >= self._stop_at:
                self._stop(workers, empty=self._empty)
            if now >= self._give_up_at:
                log.error("%d workers did not end in time and are abandoned", len(workers.states()))
                self._exit_code = 1
                self.abandoned = True
                return
            # Nobody is left to speak to when the supervisor is gone.
            channels: list[Channel | socket.socket] = [self._wake]
            if not self._channel.ended:
                channels.append(self._channel)
            deadline = min(next_beat, self._stop_at, self._give_up_at)
            readable, _, _ = select.select(channels, [], [], max(0.0, deadline - time.monotonic()))
            if self._wake in readable:
                self._wake.recv(4096)
                self._settle(workers)
            if self._channel in readable:
                self._listen(workers)

    def _settle(self, workers: Workers) -> None:
        for error in workers.settle():
            log.critical("%s", error, exc_info=error.__cause__)
            self._exit_code = 1
            self._ask_for_another(str(error))

    def _ask_totals(self, told: Callable[[Totals | None], None]) -> None:
        """Have the supervisor tell what all have counted; from any thread."""
        number = next(self._questions)
        self._wanted[number] = told
        if not self._channel.send(WantTotals(number)):
            self._tell_totals(number, None)

    def _tell_totals(self, number: int, totals: Totals | None) -> None:
        told = self._wanted.pop(number, None)
        if told is not None:
            told(totals)

    def _ask_for_another(self, reason: str) -> None:
        self._channel.send(Recycle(reason))

    def _listen(self, workers: Workers) -> None:
        for message in self._channel.receive():
            match message:
                case Stop(_, hurry, timeout) if self._give_up_at < inf:
                    # It drains already, and now the server ends.
                    self._hurry, self._timeout = hurry, timeout
                    self._stop(workers, empty=False)
                case Stop(empty, hurry, timeout):
                    self._stopping = True
                    self._hurry, self._timeout = hurry, timeout
                    delay = self._spec.config.drain_delay if empty else 0.0
                    self._stop_at, self._empty = time.monotonic() + delay, empty
                    if delay:
                        log.info(SOON, delay)
                        workers.announce_end()
                case Force():
                    self._stopping = True
                    self._stop_at = inf
                    self._give_up_at = time.monotonic() + FORCED_END
                    self._end_by = 0.0
                    workers.force()
                case Announce():
                    workers.announce_end()
                case Receive(fds):
                    workers.receive([adopt_udp(fd) for fd in fds])
                case Resize(count) if not self._stopping:
                    self._resize(workers, count)
                case Limit(limits):
                    workers.limit(limits)
                case Tell(fleet):
                    workers.tell(fleet)
                case CollectTotals(number):
                    self._channel.send(OwnTotals(number, workers.totals()))
                case AllTotals(number, totals):
                    self._tell_totals(number, totals)
                case ReopenLogs():
                    reopen_log_files()
                    workers.reopen_logs()
        if self._channel.ended:
            for number in self._wanted.copy():
                self._tell_totals(number, None)
        if self._channel.ended and not self._stopping:
            log.error("The supervisor is gone: no further connections are accepted")
            # Nobody says any more how the others are.
            workers.tell(None)
            self._stop(workers, empty=True)

    def _stop(self, workers: Workers, *, empty: bool) -> None:
        self._stopping = True
        self._stop_at = inf
        now, config = time.monotonic(), self._spec.config
        self._give_up_at = min(self._give_up_at, now + drain_bound(config, self._timeout))
        self._end_by = min(self._end_by, now + (config.shutdown_timeout if self._timeout is None else self._timeout))
        workers.stop(empty=empty, hurry=self._hurry, timeout=self._timeout)

    def _resize(self, workers: Workers, count: int) -> None:
        numbers = sorted(workers.numbers)
        for number in numbers[count:]:
            workers.take_away(number)
        free = [number for number in range(count) if number not in numbers]
        for number in free[: count - len(numbers)]:
            workers.add(number)


@contextmanager
def ended_after(supervisor: Channel) -> Iterator[None]:
    """Within, this process ends soon after its supervisor: a start that hangs, in an import, would not notice."""
    over, started = socket.socketpair()

    def watch() -> None:
        poll = select.poll()
        # Its end alone, which is always told; what it says is for the main thread.
        poll.register(supervisor, 0)
        poll.register(over, select.POLLIN)
        poll.poll()
        poll.unregister(supervisor)
        if not poll.poll(FORCED_END * 1000):
            os._exit(1)

    watcher = threading.Thread(target=watch, name="pounce start")
    with over:
        watcher.start()
        try:
            yield
        finally:
            started.close()
            watcher.join()


def _failed(error: BaseException) -> Failed:
    """`error` as it can travel: what the application raised stays behind, and its traceback goes along as text."""
    if isinstance(error, PounceError):
        return Failed(error, application_traceback(error))
    wrapped = WorkerError(
        f"a server process could not start: {type(error).__name__}: {error}", code="POUNCE_WORKER_STARTUP_FAILED"
    )
    return Failed(wrapped, "".join(traceback.format_exception(error)))
