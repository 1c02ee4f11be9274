"""WorkerInterpreters: the workers of one process, each in a subinterpreter (PEP 734) with imports of its own.

    main interpreter                       an interpreter, on a thread of its own
    ServerProcess ── WorkerInterpreters ══ channel ══ InterpreterProcess ── one worker on another thread

An interpreter is to its process what a process is to the supervisor: the same code runs in it and the same messages go
over a pair of sockets, so that it starts, drains and stands still as processes do. It accepts from the shared sockets
over descriptors of its own. One that stands still is replaced by a further one, not by another process.

Interpreters share the process, hence signals, the working directory and descriptors, and a crash takes all along.
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
from collections.abc import Callable, Sequence
from concurrent import interpreters
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pounce
from pounce.contract.totals import Totals
from pounce.contract.wire import Fleet
from pounce.errors import PounceError, WorkerError
from pounce.importer import RemoteTraceback
from pounce.net.bind import Listener
from pounce.supervisor.channel import Channel
from pounce.supervisor.messages import (
    BEAT,
    AllTotals,
    Announce,
    Beat,
    CollectTotals,
    Failed,
    Force,
    Left,
    Limit,
    Message,
    OwnTotals,
    Ready,
    Receive,
    Recycle,
    ReopenLogs,
    Spec,
    Start,
    Stop,
    Tell,
    WantTotals,
)
from pounce.worker.datagram_shares import DatagramShares
from pounce.worker.portion import Limits, portion_of
from pounce.worker.state import Description, WorkerState
from pounce.worker.threads import translated

__all__ = ["WorkerInterpreters"]

log = logging.getLogger("pounce")

type AskTotals = Callable[[Callable[[Totals | None], None]], None]

TOTALS_PATIENCE = 0.5
"""Seconds that all interpreters together get to say what they have counted."""

START = """\
import sys
sys.path.insert(0, {folder!r})
from pounce.gc_hold import hold
hold()
from pounce.supervisor.interpreter_process import main
main({fd})
"""


class WorkerInterpreter:
    """One interpreter, its thread, and the thread that listens to it."""

    def __init__(
        self,
        spec: Spec,
        *,
        ask_totals: AskTotals,
        on_change: Callable[[], Any],
        on_recycle: Callable[[str], Any],
    ) -> None:
        self.number = spec.first_worker
        self._ask_totals = ask_totals
        self._spec = spec
        self._on_change = on_change
        self._on_recycle = on_recycle
        self._interpreter = interpreters.create()
        self._channel, self._theirs = Channel.pair()
        self._beat: Beat | None = None
        self.totals = Totals()
        """What it last said that its worker has counted."""
        self._said = threading.Condition()
        """It has said them, or has ended."""
        self._said_last = 0
        self._heard = time.monotonic()
        self.ready: Ready | None = None
        self.error: PounceError | None = None
        self.settled = threading.Event()
        """It serves, or has ended."""
        self.ended = threading.Event()
        self.told = False
        """It was told to end."""
        self.abandoned = False
        """It has threads that still run."""
        self.thread = threading.Thread(target=self._run, name=f"pounce interpreter {self.number}", daemon=True)
        self._listener = threading.Thread(target=self._listen, name=f"pounce channel {self.number}", daemon=True)
        self._channel.send(Start("", tuple(sys.path), pickle.dumps(spec)))
        self._listener.start()
        self.thread.start()

    def tell(self, message: Message) -> None:
        """What an interpreter that has ended does not hear is no loss."""
        self._channel.send(message)

    def receive(self, sockets: list[socket.socket]) -> None:
        """Read datagrams from duplicates of these sockets from now on, and from no others."""
        self.tell(Receive(tuple(sock.fileno() for sock in sockets)))

    def wait_for_totals(self, number: int, until: float) -> None:
        """Until `totals` are those that this `CollectTotals` has asked for, or `until`, or its end."""
        with self._said:
            self._said.wait_for(
                lambda: self._said_last >= number or self._channel.ended, max(0.0, until - time.monotonic())
            )

    def stop(self, *, hurry: bool = False, timeout: float | None = None) -> None:
        """Drain; told again, in no more time than that from then on."""
        self.told = True
        self._channel.send(Stop(empty=True, hurry=hurry, timeout=timeout))

    def force(self) -> None:
        """End at once."""
        self.told = True
        self._channel.send(Force())

    def states(self) -> list[WorkerState]:
        """How its worker is doing; empty before it serves. Silent is also who does not even say so."""
        if self._beat is None or self.ended.is_set():
            return []
        overdue = max(0.0, time.monotonic() - self._heard - 2 * BEAT)
        return [replace(state, silence=state.silence + overdue) for state in self._beat.workers]

    def _tell_totals(self, number: int, totals: Totals | None) -> None:
        self.tell(AllTotals(number, totals))

    def _run(self) -> None:
        folder = str(Path(pounce.__file__).parents[1])
        try:
            try:
                self._interpreter.exec(START.format(folder=folder, fd=self._theirs.fileno()))
            finally:
                self._theirs.close()
                self._listener.join()
                self._channel.close()
            if not self.abandoned:
                self._interpreter.close()
        except interpreters.InterpreterError as exc:
            self.abandoned = True
            self.error = self.error or WorkerError(f"an interpreter failed: {exc}")
        finally:
            self.ended.set()
            self.settled.set()
            self._on_change()

    def _listen(self) -> None:
        while not self._channel.ended:
            select.select([self._channel], [], [])
            for message in self._channel.receive():
                match message:
                    case Ready():
                        self.ready = message
                        self.settled.set()
                        self._on_change()
                    case Beat():
                        self._beat, self._heard = message, time.monotonic()
                    case Failed(error, text):
                        if text:
                            error.__cause__ = RemoteTraceback(text)
                        self.error = error
                    case Recycle(reason):
                        self._on_recycle(reason)
                    case OwnTotals(number, totals):
                        with self._said:
                            self.totals = totals
                            self._said_last = max(self._said_last, number)
                            self._said.notify_all()
                    case WantTotals(number):
                        self._ask_totals(partial(self._tell_totals, number))
                    case Left():
                        self.abandoned = True
        with self._said:
            self._said.notify_all()


class WorkerInterpreters:
    """The workers of one process, as `WorkerThreads` has them on threads; `listeners` are closed when they drain."""

    def __init__(
        self,
        spec: Spec,
        listeners: list[Listener],
        *,
        ask_totals: AskTotals,
        on_change: Callable[[], Any],
        on_recycle: Callable[[str], Any],
    ) -> None:
        self._spec = spec
        self._limits = Limits.of(spec.config)
        self._ask_totals = ask_totals
        self._ended = Totals()
        """What those have counted that have ended."""
        self._collections = itertools.count(1)
        self._fleet: Fleet | None = None
        self._listeners = listeners
        self._on_change = on_change
        self._on_recycle = on_recycle
        self._interpreters: list[WorkerInterpreter] = []
        self._abandoned: list[WorkerInterpreter] = []
        """They must not be forgotten: an interpreter that nobody knows is destroyed."""
        self.abandoned = False
        """There are such that still run."""
        self._description: Description | None = None
        self._datagrams = DatagramShares(WorkerInterpreter.receive)

    def describe(self) -> Description:
        """How they serve."""
        assert self._description is not None
        return self._description

    def start(self, count: int, first: int = 0) -> None:
        """Start `count` workers, numbered from `first`, and return when they serve.

        Raises what the first of them reports that cannot; the others have ended then.
        """
        for number in range(first, first + count):
            self.add(number)
        for each in self._interpreters:
            each.settled.wait()
            if each.ready is not None:
                self._description = each.ready.description
        for error in self.settle():
            self.force()
            self.join()
            raise error

    def add(self, number: int) -> None:
        """Start one more."""
        config = self._spec.config
        spec = self._spec._replace(
            config=replace(
                config,
                # The main interpreter waits for it, for all of them.
                drain_delay=0.0,
                # None knows of the others.
                max_buffered=portion_of(config.max_buffered, self._spec.workers, number),
                websocket_max_incomplete=portion_of(config.websocket_max_incomplete, self._spec.workers, number),
            ),
            mode="process",
            workers=1,
            first_worker=number,
            place=number,
            listeners=tuple((listener.bind, os.dup(listener.sock.fileno())) for listener in self._listeners),
        )
        interpreter = WorkerInterpreter(
            spec, ask_totals=self._ask_totals, on_change=self._on_change, on_recycle=self._on_recycle
        )
        self._interpreters.append(interpreter)
        if self._fleet is not None:
            interpreter.tell(Tell(self._fleet))
        self._share_out()

    def settle(self) -> list[PounceError]:
        """Take note of those that have ended; gives what is wrong with those that were not told to."""
        ended = [each for each in self._interpreters if each.ended.is_set()]
        self._interpreters = [each for each in self._interpreters if each not in ended]
        self._ended = Totals.of((self._ended, *(each.totals.ended() for each in ended)))
        self._abandoned += [each for each in ended if each.abandoned]
        if ended:
            self._share_out()
        self.abandoned = bool(self._abandoned)
        self._share_datagrams()
        return [translated(each.error) for each in ended if not each.told or each.error is not None]

    def take_away(self, number: int) -> None:
        """Let this worker drain and end."""
        taken = [each for each in self._interpreters if each.number == number and not each.told]
        for each in taken:
            # Before its loop turns again, if it stands still.
            each.tell(Announce())
        # Whoever drains takes on no new peers, so others have to read its sockets before.
        self._share_datagrams(leaving=taken)
        for each in taken:
            each.stop()
        self._share_out()

    def limit(self, limits: Limits) -> None:
        """Have no more than these from now on."""
        self._limits = limits
        self._share_out()

    def _share_out(self) -> None:
        serving = [each for each in self._interpreters if not each.told]
        for number, each in enumerate(serving):
            each.tell(Limit(self._limits.portion(len(serving), number)))

    def receive(self, sockets: list[socket.socket]) -> None:
        """Read datagrams from these sockets from now on, and from no others; they are closed here."""
        self._datagrams.replace(sockets)
        self._share_datagrams()

    def _share_datagrams(self, leaving: Sequence[WorkerInterpreter] = ()) -> None:
        running = [each for each in self._interpreters if each.ready is not None and not each.ended.is_set()]
        self._datagrams.deal(running, [each for each in running if each.told or each in leaving])

    @property
    def numbers(self) -> list[int]:
        """Of the workers that serve."""
        return [each.number for each in self._interpreters if not each.told and not each.ended.is_set()]

    def tell(self, fleet: Fleet | None) -> None:
        """Let them know how all workers of the server are, also those that are ending."""
        self._fleet = fleet
        for each in self._interpreters:
            each.tell(Tell(fleet))

    def states(self) -> list[WorkerState]:
        """How the workers are doing, also those that are ending."""
        return [state for each in self._interpreters for state in each.states()]

    def totals(self) -> Totals:
        """What the workers have counted, those that have ended included; what one said last where it is silent."""
        number, until = next(self._collections), time.monotonic() + TOTALS_PATIENCE
        for each in self._interpreters:
            each.tell(CollectTotals(number))
        for each in self._interpreters:
            each.wait_for_totals(number, until)
        return Totals.of((self._ended, *(each.totals for each in self._interpreters)))

    def stack(self, ident: int) -> str:
        """Nothing: the interpreter itself has logged it, if Python runs in it at all."""
        return ""

    def announce_end(self) -> None:
        """Let health and all answers say that the end is near; connections are accepted and served as before."""
        for each in self._interpreters:
            each.tell(Announce())

    def reopen_logs(self) -> None:
        """Open the files of their logs again."""
        for each in self._interpreters:
            each.tell(ReopenLogs())

    def stop(self, *, empty: bool, hurry: bool = False, timeout: float | None = None) -> None:
        """Let all drain; they accept what waits on the listening sockets first. Returns at once."""
        for each in self._interpreters:
            each.stop(hurry=hurry, timeout=timeout)
        # The last that has one open must have emptied it.
        for listener in self._listeners:
            listener.close()

    def force(self) -> None:
        """End all without waiting for what runs."""
        self.stop(empty=False)
        for each in self._interpreters:
            each.force()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until all have ended; False when `timeout` seconds were not enough."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for each in self._interpreters:
            if not each.ended.wait(None if deadline is None else max(0.0, deadline - time.monotonic())):
                return False
            each.thread.join()
            self.abandoned |= each.abandoned
        self._datagrams.close()
        return True
