"""Signals: which are for whom, in the supervisor and in the processes that serve.

What a terminal or a process manager sends reaches all processes of the server and is for the supervisor. In a process
that starts it is blocked, until that has its handlers.
"""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

from pounce.supervisor.terminal import is_of_terminal

__all__ = ["DUMP", "Signals", "held_back", "leave_to_supervisor"]

DUMP = signal.SIGUSR2
"""Makes a server process write the stacks of its threads to stderr, also when Python itself stands still."""
SUPERVISORS = frozenset(
    {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1}
)
"""Signals of a terminal or a process manager, which reach all processes of the server and are for the supervisor."""


class Signals:
    """The handlers of the supervisor, which are there from `handle()` to `restore()`.

    `end(force, hurry)` is called for SIGINT and SIGTERM, with force for the second one. At the third `kill` is called,
    and this process ends at once.
    """

    def __init__(self, end: Callable[[bool, bool], None], kill: Callable[[], None]) -> None:
        self._end = end
        self._kill = kill
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}
        self.ends = 0
        """How often the end was asked for."""

    def handle(self, others: Mapping[signal.Signals, Callable[[], None]]) -> None:
        """Call what `others` has for a signal when that comes; for the main thread alone."""

        def on_other(number: int, frame: FrameType | None) -> None:
            others[signal.Signals(number)]()

        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._on_end)
        for number in others:
            self._before[number] = signal.signal(number, on_other)

    def restore(self) -> None:
        """Have the handlers again that there were before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_end(self, number: int, frame: FrameType | None) -> None:
        self.ends += 1
        if self.ends > 2:
            self._kill()
            os._exit(1)
        self._end(self.ends > 1, is_of_terminal(number))


@contextmanager
def held_back() -> Iterator[None]:
    """A process that is started within has them blocked until `leave_to_supervisor()`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SUPERVISORS | {DUMP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_to_supervisor() -> None:
    """In a server process, leave to the supervisor what is for it; until this is called it is blocked.

    Handlers, not SIG_IGN: that would be inherited by the programs that an application starts.
    """

    def leave_it(number: int, frame: FrameType | None) -> None: ...

    # Not to be had in a subinterpreter, which imports this module too.
    import faulthandler

    # Nobody has asked a process that only starts for its stacks.
    for number in SUPERVISORS | {DUMP}:
        signal.signal(number, leave_it)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SUPERVISORS | {DUMP})
    faulthandler.register(DUMP, all_threads=True)
