"""What an application leaves running when its server has ended: threads, for which the interpreter would wait.

It waits at its exit for all that are no daemons, as long as they take: for a call that an endpoint of `def` makes, and
for a `threading.Timer`. Whoever sent the signal relies on a bound. Idle threads of a pool end when the exit has begun,
so until then nobody can tell who will be waited for:

    run() returns ──▶ the program goes on ──▶ the interpreter ends ──▶ threads end, or their time does ──▶ exit
                      a daemon waits for that ▲                    it names them, and ends the process ▲
"""

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterable

from pounce.config import ServerConfig
from pounce.observe.logs import LastWords

__all__ = ["END_TIMEOUT", "LeftThreads"]

log = logging.getLogger("pounce")

END_TIMEOUT = 2.0
"""Seconds that threads get at the least, also when all the time for the end is over."""
UNMENTIONED = 0.5
"""Seconds that threads may take without being named: those that were idle need no longer."""


class LeftThreads:
    """The threads that were started since this was made and hold up the end of the interpreter."""

    def __init__(self) -> None:
        self._before = frozenset(threading.enumerate())

    def _running(self) -> list[threading.Thread]:
        own = threading.current_thread()
        return [
            thread
            for thread in threading.enumerate()
            if not thread.daemon and thread is not own and thread not in self._before
        ]

    def bound(self, config: ServerConfig, seconds: float, exit_code: int) -> None:
        """Have the process end so many seconds after its interpreter wants to at the latest, then with `exit_code`.

        They are for the threads that run now. Those of the program around the server are waited for in any case.
        """
        running = self._running()
        if running:
            ending = threading.Event()
            # Called before the one of `concurrent.futures`, which waits; `atexit` comes after all waiting.
            threading._register_atexit(ending.set)  # type: ignore[attr-defined]
            # Both of them now: once an interpreter ends, it starts no thread.
            words = LastWords(config)
            arguments = (ending, running, words, seconds, exit_code)
            threading.Thread(target=_watch, args=arguments, name="pounce end", daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Wait for them, in what is an interpreter's last act; False where some are left after so many seconds."""
        _let_idle_pools_end()
        left = _joined(running := self._running(), UNMENTIONED)
        if left:
            log.warning(_WAITING, max(0.0, seconds), _named(left))
            left = _joined(running, seconds - UNMENTIONED)
        if left:
            log.error(_LEFT, _named(left))
        return not left


_WAITING = "Waiting up to %.0f s for threads of the application: %s"
_LEFT = "Threads of the application did not end in time and are left: %s"


def _watch(
    ending: threading.Event, threads: list[threading.Thread], words: LastWords, seconds: float, exit_code: int
) -> None:
    ending.wait()
    if left := _joined(threads, UNMENTIONED):
        words.say(logging.WARNING, _WAITING, seconds, _named(left))
        left = _joined(left, seconds - UNMENTIONED)
    if not left:
        return
    words.say(logging.ERROR, _LEFT, _named(left))
    words.close()
    for other in threading.enumerate():
        if other not in left and other is not threading.main_thread() and not other.daemon:
            other.join()
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
    os._exit(exit_code)


def _joined(threads: Iterable[threading.Thread], seconds: float) -> list[threading.Thread]:
    """Wait until all have ended, or so many seconds; gives those that have not."""
    deadline = time.monotonic() + seconds
    for thread in (threads := list(threads)):
        thread.join(max(0.0, deadline - time.monotonic()))
    return [thread for thread in threads if thread.is_alive()]


def _named(threads: Iterable[threading.Thread]) -> str:
    return ", ".join(sorted(thread.name for thread in threads))


def _let_idle_pools_end() -> None:
    """Do what `concurrent.futures` does at the exit of an interpreter, but for waiting."""
    pools = sys.modules.get("concurrent.futures.thread")
    if pools is not None:
        pools._shutdown = True  # type: ignore[attr-defined]
        for queue in pools._threads_queues.copy().values():
            queue.put(None)
