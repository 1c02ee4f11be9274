"""Children: the server processes that run, what they say, and when each has ended.

Where the system has descriptors for it they tell of the end of a process. Elsewhere the end of its channel does, a
moment early, and it is looked at again and again until it has really ended.
"""

import logging
import os
import selectors
import time
from collections.abc import Iterator
from contextlib import suppress
from math import inf
from typing import Protocol

from pounce.config import ServerConfig
from pounce.supervisor.child import Child, State
from pounce.supervisor.messages import Beat, Failed, Message, OwnTotals, Ready, Recycle, ReopenLogs, WantTotals

__all__ = ["FORCED_END", "ChildEvents", "Children"]

log = logging.getLogger("pounce.supervisor")

FORCED_END = 8.0
"""Seconds that a process gets to end when it is not to wait for anything."""
SILENCE_MARGIN = 5.0
"""Seconds that a process may be silent for longer than its workers may."""
POLL = 0.05
"""Seconds between two looks for the end of a process, where the system cannot report it."""


class ChildEvents(Protocol):
    """Who is told what becomes of the processes."""

    def child_ready(self, child: Child) -> None:
        """It serves."""

    def child_ended(self, child: Child, before: State) -> None:
        """It has ended, in that state, and is no longer one of them."""

    def recycle(self, child: Child, reason: str) -> None:
        """It asks for another one in its place, or needs one."""

    def totals_wanted(self, child: Child, number: int) -> None:
        """It wants to know what all workers have counted."""

    def totals_said(self, child: Child) -> None:
        """It has said what its own have, which are `child.totals` now."""


class Children:
    """All processes that were started and have not ended."""

    def __init__(self, config: ServerConfig, selector: selectors.BaseSelector, events: ChildEvents) -> None:
        self._timeout = config.worker_timeout
        self._selector = selector
        self._events = events
        self._running: set[Child] = set()
        self._pidfds: dict[Child, int] = {}
        """Descriptors that tell of the end of a process, where the system has them."""

    def __iter__(self) -> Iterator[Child]:
        """Those that run now, in no order; any may end meanwhile."""
        return iter(tuple(self._running))

    def __len__(self) -> int:
        return len(self._running)

    def add(self, child: Child) -> None:
        """It was started."""
        self._running.add(child)
        self._selector.register(child.channel, selectors.EVENT_READ, lambda: self.receive(child))
        try:
            fd = os.pidfd_open(child.pid)
        except OSError, AttributeError:
            # Not on this system.
            return
        self._pidfds[child] = fd
        self._selector.register(fd, selectors.EVENT_READ, lambda: self._look_whether_ended(child))

    def receive(self, child: Child) -> None:
        """Act on what it has said."""
        if child.channel.ended or child not in self._running:
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
                    self._events.child_ready(child)
            case Failed():
                child.failed = message
            case Beat():
                child.beat = message
            case OwnTotals(_, totals):
                child.totals = totals
                self._events.totals_said(child)
            case WantTotals(number):
                self._events.totals_wanted(child, number)
            case Recycle(reason):
                self._events.recycle(child, reason)

    def _look_whether_ended(self, child: Child) -> None:
        before = child.state
        if before is State.ENDED or not child.has_ended():
            return
        if not child.channel.ended:
            # What it said last.
            self.receive(child)
        self._forget(child)
        self._events.child_ended(child, before)

    def _forget(self, child: Child) -> None:
        self._running.discard(child)
        fd = self._pidfds.pop(child, None)
        if fd is not None:
            self._selector.unregister(fd)
            os.close(fd)
        if not child.channel.ended:
            self._selector.unregister(child.channel)
        child.channel.close()

    def reap_orphans(self) -> None:
        """Wait for what has ended and is not ours: as process 1 this one is the parent of all orphans."""
        ours = {child.pid: child for child in self._running}
        with suppress(ChildProcessError):
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if ended.si_pid in ours:
                    self._look_whether_ended(ours[ended.si_pid])
                else:
                    os.waitpid(ended.si_pid, os.WNOHANG)

    # Deadlines

    def next_deadline(self) -> float:
        """When `look()` is due, by `time.monotonic()`."""
        deadlines = [child.kill_at for child in self._running]
        deadlines += [self._silent_at(child) for child in self._running]
        deadlines += [time.monotonic() + POLL for child in self._running if self._must_be_polled(child)]
        return min(deadlines, default=inf)

    def look(self, now: float) -> None:
        """Act on deadlines that lie before `now`."""
        for child in self:
            if child.kill_at <= now:
                log.error("Process %d did not end in time and is killed", child.pid)
                child.kill()
            if self._silent_at(child) <= now:
                self._on_silence(child)
            if self._must_be_polled(child):
                self._look_whether_ended(child)

    def _silent_at(self, child: Child) -> float:
        """When this process will have been silent for too long."""
        if not self._timeout or child.state is not State.SERVING or child.silent:
            return inf
        # Its workers may be silent so long; it answers for them within a second.
        return child.heard + self._timeout + SILENCE_MARGIN

    def _on_silence(self, child: Child) -> None:
        """Not even its main thread runs, so Python itself stands still: have it say where, and do without it."""
        child.silent = True
        log.error("Process %d stands still; the stacks of its threads follow where it can still write them", child.pid)
        child.dump_stacks()
        self._events.recycle(child, "it stands still")

    def _must_be_polled(self, child: Child) -> bool:
        return child.channel.ended and child not in self._pidfds

    # All of them

    def reopen_logs(self) -> None:
        """Have the files that the application logs to opened again."""
        for child in self:
            child.channel.send(ReopenLogs())

    def force(self) -> None:
        """Let all end at once."""
        for child in self:
            if child.ready is None:
                # It has nothing to lose.
                child.kill()
            else:
                child.force(kill_after=FORCED_END)

    def kill(self) -> None:
        """End all without asking; may be called by a signal handler."""
        for child in self:
            child.kill()

    def close(self) -> None:
        """End all, and wait until they have."""
        for child in self:
            child.kill()
            child.wait()
            self._forget(child)

    def descriptors(self) -> list[int]:
        """What a fork has no business with."""
        channels = [child.channel.fileno() for child in self._running if not child.channel.ended]
        return [*self._pidfds.values(), *channels]
