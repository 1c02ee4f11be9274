"""Loops that stand still: an application blocks them, and nothing that it serves goes on."""

import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from math import inf
from typing import Protocol

from pounce.worker.state import WorkerState

__all__ = ["LoneWatch", "Standstill", "stack_of"]

log = logging.getLogger("pounce")


def stack_of(ident: int) -> str:
    """Where this thread is, to follow a line of the log."""
    frame = sys._current_frames().get(ident)
    return ":\n" + ("".join(traceback.format_stack(frame)).rstrip() if frame is not None else "  it has no Python code")


class Workers(Protocol):
    """`WorkerThreads` says what the methods mean."""

    def stack(self, ident: int) -> str: ...
    def take_away(self, number: int) -> None: ...
    def add(self, number: int) -> None: ...


class Standstill:
    """Has other workers do the work of one that stands still; it drains should its loop turn again."""

    def __init__(
        self, timeout: float, *, replaces: bool, patience: float, give_up: Callable[[WorkerState], object]
    ) -> None:
        """Workers are silent for no longer than `timeout` seconds; 0 sets no limit.

        Where this `replaces` them, another one is added for each. `give_up` is called, once, for one that has not ended
        `patience` seconds later.
        """
        self._timeout = timeout
        self._replaces = replaces
        self._patience = patience
        self._give_up = give_up
        self._set_aside: dict[int, float] = {}
        """Threads of workers that stood still, and when they are given up."""

    def look(self, workers: Workers, states: Iterable[WorkerState], *, stopping: bool = False) -> None:
        """Do what is due. While all are `stopping` no further ones are set aside."""
        now = time.monotonic()
        running = {state.ident: state for state in states if state.ident is not None}
        for ident in tuple(self._set_aside):
            if ident not in running:
                del self._set_aside[ident]
            elif self._set_aside[ident] <= now:
                self._set_aside[ident] = inf
                self._give_up(running[ident])
        if not self._timeout or stopping:
            return
        for ident, state in running.items():
            if state.silence > self._timeout and ident not in self._set_aside:
                log.error("Worker %d stands still for %.0f s%s", state.number, state.silence, workers.stack(ident))
                self._set_aside[ident] = now + self._patience
                if self._replaces:
                    workers.take_away(state.number)
                    workers.add(state.number)


class LoneWatch:
    """Says so, from a thread of its own, when a loop stands still that no other worker can take the place of."""

    def __init__(self, timeout: float, heartbeat: Callable[[], float]) -> None:
        """To be made on the thread of the loop, which showed a sign of life at `heartbeat()`, a monotonic time."""
        self._timeout = timeout
        self._heartbeat = heartbeat
        self._ident = threading.get_ident()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pounce watch", daemon=True)

    def start(self) -> None:
        """Watch from now on; with a `timeout` of 0 there is nothing to watch for."""
        if self._timeout:
            self._thread.start()

    def stop(self) -> None:
        """Watch no more."""
        self._stopped.set()

    def _run(self) -> None:
        told, wait = False, self._timeout
        while not self._stopped.wait(wait):
            silence = time.monotonic() - self._heartbeat()
            if silence > self._timeout and not told:
                log.error(
                    "The event loop stands still for %.0f s, and there is no other worker%s",
                    silence,
                    stack_of(self._ident),
                )
            told = silence > self._timeout
            wait = max(1.0, self._timeout - silence)
