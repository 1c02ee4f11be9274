"""WorkerThreads: the workers of one process, each on a thread of its own, behind one dispatcher.

    STARTING ──ready──▶ SERVING ──stop()──▶ DRAINING ──▶ ended
                           └────set_aside()───┘

They get their connections from the dispatcher, unless there is to be one alone for ever, which then accepts for itself.
"""

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from pounce.contract.totals import Totals
from pounce.contract.wire import Fleet
from pounce.errors import PounceError, WorkerError
from pounce.gil import gil_enabled
from pounce.immortal import Immortals, own_copy
from pounce.net.bind import Listener
from pounce.worker.affinity import stay_on_one_cpu
from pounce.worker.datagram_shares import DatagramShares
from pounce.worker.dispatcher import Dispatcher, Inbox
from pounce.worker.lifespan import ProcessLifespan
from pounce.worker.loop import loop_factory, run_on_new_loop
from pounce.worker.loop_advice import LoopAdvice
from pounce.worker.portion import Limits, portion_of
from pounce.worker.shared import OnePerWorker, Shared
from pounce.worker.siblings import Siblings
from pounce.worker.standstill import stack_of
from pounce.worker.state import Description, WorkerState
from pounce.worker.worker import FORCED_SHUTDOWN, Worker

__all__ = ["WorkerThreads", "translated"]

log = logging.getLogger("pounce")


class WorkerThread:
    """One worker and its thread."""

    def __init__(
        self,
        shared: Shared,
        listeners: list[Listener],
        number: int,
        *,
        accepts: bool,
        lifespan: ProcessLifespan | None,
        siblings: Siblings | None,
        released: Callable[[], None],
        on_change: Callable[[], Any],
        on_recycle: Callable[[str], Any] | None,
        immortals: Immortals | None,
        advice: LoopAdvice | None,
        daemon: bool,
        ask_totals: Callable[[Callable[[Totals | None], None]], None],
    ) -> None:
        self._shared = shared
        self._ask_totals = ask_totals
        self._immortals = immortals
        self._advice = advice
        self._lifespan = lifespan
        self._siblings = siblings
        self._on_recycle = on_recycle
        self._listeners = listeners
        self._accepts = accepts
        self._released = released
        self._on_change = on_change
        self._lock = threading.Lock()
        """Protects `_stop`, `loop` and `worker`, which other threads use to stop this one."""
        self._stop: Callable[[Worker], None] | None = None
        self.number = number
        self.loop: asyncio.AbstractEventLoop | None = None
        self.worker: Worker | None = None
        self.inbox: Inbox | None = None
        self.error: BaseException | None = None
        self.settled = threading.Event()
        """It is ready, or it has ended."""
        self.ended = threading.Event()
        """The thread is through with everything but its own end."""
        self.told = False
        """It was told to end."""
        self.admitted = False
        """It is among those that get connections, or was."""
        self.thread = threading.Thread(target=self._run, name=f"pounce worker {number}", daemon=daemon)

    def stop(self, how: Callable[[Worker], None] = Worker.retire) -> None:
        """Drain, or with `Worker.force` end; from any thread, at any time."""
        with self._lock:
            self.told = True
            self._stop = how
            if self.loop is not None and self.worker is not None:
                with contextlib.suppress(RuntimeError):  # it has just ended
                    self.loop.call_soon_threadsafe(how, self.worker)

    def receive(self, sockets: list[socket.socket]) -> None:
        """Read datagrams from duplicates of these sockets from now on, and from no others; from any thread."""
        own = [sock.dup() for sock in sockets]
        with self._lock:
            if self.loop is not None and self.worker is not None:
                try:
                    self.loop.call_soon_threadsafe(self.worker.receive, own)
                    return
                except RuntimeError:  # it has just ended
                    pass
        for sock in own:
            sock.close()

    def announce_end(self) -> None:
        """Let health and every answer say that the end is near; from any thread."""
        if self.worker is not None:
            # One of the few fields of a service that others may set.
            self.worker.service.draining = True

    def state(self) -> WorkerState | None:
        """None before it serves."""
        worker, inbox = self.worker, self.inbox
        if worker is None or inbox is None:
            return None
        connections, requests = inbox.load
        return WorkerState(
            number=self.number,
            ident=self.thread.ident,
            silence=time.monotonic() - inbox.beat,
            connections=connections,
            requests=requests,
            served=worker.service.requests,
            draining=worker.service.draining,
        )

    def totals(self) -> Totals:
        """What it has counted; from any thread."""
        return self.worker.service.own_totals() if self.worker is not None else Totals()

    def _run(self) -> None:
        try:
            if self._shared.config.cpu_affinity:
                stay_on_one_cpu(self.number)
            run_on_new_loop(self._serve, loop_factory(self._shared.config.loop))
        except BaseException as exc:  # noqa: BLE001 - kept for the thread that asked for this one
            self.error = exc
        finally:
            self.settled.set()
            self.ended.set()
            self._on_change()

    async def _serve(self) -> None:
        shared = self._shared
        loop = asyncio.get_running_loop()
        worker = Worker(
            own_copy(shared.config),
            shared.application(),
            shared.registry,
            self._listeners,
            shared.tls,
            bind_tls=shared.bind_tls,
            siblings=self._siblings,
            worker_id=self.number,
            generation=shared.generation,
            accepts=self._accepts,
            lifespan=self._lifespan,
            gil_watch=shared.gil_watch,
            gate=shared.gate,
            peers=shared.peers,
            buffers=shared.buffers,
            on_recycle=self._on_recycle,
            on_app_error=self._advice.on_error if self._advice is not None else None,
            admission=shared.admission,
        )
        worker.service.ask_totals = self._ask_totals
        immortals = self._immortals
        if immortals is not None:
            immortals.look()
            worker.service.on_tick.add(lambda now: immortals.look())
        self.inbox = Inbox(worker, loop)
        with self._lock:
            self.loop, self.worker = loop, worker
            if self._stop is not None:
                self._stop(worker)
        try:
            await worker.serve(self._ready, self._released)
        finally:
            with self._lock:
                self.loop = None

    def _ready(self) -> None:
        assert self.inbox is not None
        self.inbox.show_life()
        self.settled.set()
        self._on_change()


class WorkerThreads:
    """The workers of one process, which close `listeners` when they drain.

    Its methods are called from one thread, which is none of theirs.
    `on_change` is called, on the thread of the worker, whenever one serves or has ended; `settle()` is to follow.
    """

    def __init__(
        self,
        shared: Shared,
        listeners: list[Listener],
        *,
        dispatched: bool,
        siblings: Siblings | None = None,
        ask_totals: Callable[[Callable[[Totals | None], None]], None] | None = None,
        place: int = 0,
        on_change: Callable[[], Any],
        on_recycle: Callable[[str], Any] | None = None,
        daemon: bool = True,
    ) -> None:
        """`on_recycle` is called on a worker's thread with the reason why it should be replaced. `ask_totals` is how
        workers learn what those of the whole server have counted, where there are others than these; `place` is the
        number of the first one in its process.

        Without `daemon` the interpreter waits for the threads, and for those that the application starts on them: these
        are daemons where their parents are.
        """
        self._shared = shared
        self._limits = Limits.of(shared.config)
        self._place = place
        self._ask_totals = ask_totals if ask_totals is not None else lambda told: told(self.totals())
        self._lock = threading.Lock()
        """Protects `_threads` and `_ended` as one, for whoever counts."""
        self._ended = Totals()
        """What workers have counted that have ended."""
        self._fleet: Fleet | None = None
        self._on_recycle = on_recycle
        self._siblings = siblings
        self._datagrams = DatagramShares(WorkerThread.receive)
        self._lifespan: ProcessLifespan | None = None
        self._forced = False
        self._daemon = daemon
        self._listeners = listeners
        self._on_change = on_change
        self._stopping = False
        self.abandoned = False
        """Nobody may wait for what is left; on threads `join()` tells."""
        self._threads: list[WorkerThread] = []
        self._dispatcher = Dispatcher([each for each in listeners if not each.bind.datagrams]) if dispatched else None
        self._advice: LoopAdvice | None = None
        if dispatched:
            self._advice = LoopAdvice(one_per_worker=isinstance(shared.application, OnePerWorker))
        self._immortals: Immortals | None = None
        if dispatched and not gil_enabled():
            self._immortals = Immortals({"pounce", "asyncio", "selectors"} | shared.registry.packages)

    def describe(self) -> Description:
        """How they serve."""
        return self._shared.describe()

    def start(self, count: int, first: int = 0) -> None:
        """Start `count` workers, numbered from `first`, and return when they serve.

        Raises what the first of them raised that cannot; the others have ended then.
        """
        shared = self._shared
        if shared.config.lifespan_scope == "process" and self._lifespan is None and self._dispatcher is not None:
            lifespan = ProcessLifespan(shared.config, shared.application(), daemon=self._daemon)
            lifespan.start()
            self._lifespan = lifespan
            self._count_loop()
        for number in range(first, first + count):
            self.add(number)
        for thread in self._threads:
            thread.settled.wait()
        for error in self.settle():
            if self._advice is not None and self.numbers:
                self._advice.on_start_failed(error)
            self.force()
            self.join()
            raise error

    def receive(self, sockets: list[socket.socket]) -> None:
        """Read datagrams from these sockets from now on, and from no others; they are closed here."""
        self._datagrams.replace(sockets)
        self._share_datagrams()

    def _share_datagrams(self) -> None:
        running = [thread for thread in self._threads if thread.admitted and not thread.ended.is_set()]
        self._datagrams.deal(running, [thread for thread in running if thread.told])

    def add(self, number: int) -> None:
        """Start one more; it gets connections when it serves."""
        thread = WorkerThread(
            self._shared,
            self._listeners,
            number,
            accepts=self._dispatcher is None,
            lifespan=self._lifespan,
            siblings=self._siblings,
            released=self._release if self._dispatcher is None else lambda: None,
            on_change=self._on_change,
            on_recycle=self._on_recycle,
            immortals=self._immortals,
            advice=self._advice,
            daemon=self._daemon,
            ask_totals=self._ask_totals,
        )
        self._count_loop()
        thread.thread.start()
        with self._lock:
            self._threads.append(thread)

    def _count_loop(self) -> None:
        if self._advice is not None:
            self._advice.loops += 1

    def settle(self) -> list[PounceError]:
        """Take note of workers that serve by now, and of those that have ended.

        Gives what is wrong with those that have ended without being told to, once for each.
        """
        for thread in self._threads:
            if thread.settled.is_set() and not thread.admitted and thread.inbox is not None:
                thread.admitted = True
                if self._dispatcher is not None and not thread.told:
                    self._dispatcher.add(thread.inbox)
        ended = [thread for thread in self._threads if thread.ended.is_set()]
        with self._lock:
            self._threads = [thread for thread in self._threads if thread not in ended]
            self._ended = Totals.of((self._ended, *(thread.totals().ended() for thread in ended)))
        for thread in ended:
            thread.thread.join()
            if self._dispatcher is not None and thread.inbox is not None:
                self._dispatcher.remove(thread.inbox)
        self._share_out()
        self._share_datagrams()
        return [translated(thread.error) for thread in ended if not thread.told]

    def take_away(self, number: int) -> None:
        """Let this worker drain and end: it gets nothing more, and what it has not taken yet goes to the others."""
        taken = [thread for thread in self._threads if thread.number == number and not thread.told]
        for thread in taken:
            if self._dispatcher is not None and thread.inbox is not None:
                self._dispatcher.remove(thread.inbox)
            # Before its loop turns again, if it stands still.
            thread.announce_end()
            thread.told = True
        # Whoever drains takes on no new peers, so others have to read its sockets before.
        self._share_datagrams()
        for thread in taken:
            thread.stop()
        self._share_out()

    @property
    def numbers(self) -> list[int]:
        """Of the workers that serve."""
        return [thread.number for thread in self._threads if not thread.told and not thread.ended.is_set()]

    def _share_out(self) -> None:
        """Connections in all no more than the limit; the dispatcher keeps the shares even."""
        workers = [thread.worker for thread in self._threads if thread.worker is not None and not thread.told]
        for number, worker in enumerate(workers):
            worker.service.max_connections = portion_of(self._limits.max_connections, len(workers), number)
            worker.service.workers = len(workers)
            worker.service.place = self._place + number
            worker.service.fleet = self._fleet

    def limit(self, limits: Limits) -> None:
        """Have no more than these from now on."""
        self._limits = limits
        if self._shared.gate is not None:
            self._shared.gate.resize(limits.limit_concurrency, limits.request_queue_max_depth)
        self._share_out()

    def tell(self, fleet: Fleet | None) -> None:
        """Let them know how all workers of the server are, also those that are ending."""
        self._fleet = fleet
        for thread in self._threads:
            if thread.worker is not None:
                # One of the few fields of a service that others may set.
                thread.worker.service.fleet = fleet

    def states(self) -> list[WorkerState]:
        """How the workers are doing, also those that are ending."""
        found = [thread.state() for thread in self._threads if not thread.ended.is_set()]
        return [state for state in found if state is not None]

    def totals(self) -> Totals:
        """What the workers have counted, those that have ended included; from any thread."""
        with self._lock:
            return Totals.of((self._ended, *(thread.totals() for thread in self._threads)))

    def stack(self, ident: int) -> str:
        """Where this thread is, to follow a line of the log."""
        return stack_of(ident)

    def _release(self) -> None:
        """The listening sockets are not needed any more."""
        for listener in self._listeners:
            listener.close()

    def reopen_logs(self) -> None:
        """Nothing: they have those of the process."""

    def announce_end(self) -> None:
        """Let health and all answers say that the end is near; connections are accepted and served as before."""
        for thread in self._threads:
            thread.announce_end()

    def stop(self, *, empty: bool, hurry: bool = False, timeout: float | None = None) -> None:
        """Let all drain, also those that are still starting. Returns at once.

        With `empty` what waits on the listening sockets is accepted first; for the others see `Worker.stop()`.
        """
        if not self._stopping:
            self._stopping = True
            if self._dispatcher is not None:
                self._dispatcher.stop(empty=empty)
        for thread in self._threads:
            thread.stop(lambda worker: worker.stop(delay=0.0, hurry=hurry, timeout=timeout))

    def force(self) -> None:
        """End all without waiting for what runs."""
        self._forced = True
        self.stop(empty=False)
        for thread in self._threads:
            thread.stop(Worker.force)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until all have ended; False when `timeout` seconds were not enough."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads:
            if not thread.ended.wait(None if deadline is None else max(0.0, deadline - time.monotonic())):
                return False
            thread.thread.join()
        self._datagrams.close()
        if self._lifespan is not None:
            self._lifespan.stop(FORCED_SHUTDOWN if self._forced else self._shared.config.shutdown_timeout)
        return True


def translated(error: BaseException | None) -> PounceError:
    if isinstance(error, PounceError):
        return error
    what = f": {type(error).__name__}: {error}" if error is not None else ""
    translated = WorkerError(f"a worker ended without being told to{what}")
    translated.__cause__ = error
    return translated
