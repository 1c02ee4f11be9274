"""What an application leaves when its server has ended, and for which the interpreter would wait as long as it takes.

First for threads that are no daemons: for a call that an endpoint of `def` makes, and for a `threading.Timer`. Then for
exit handlers (`atexit`), among them that of `multiprocessing`, which waits for child processes. Whoever sent the signal
relies on a bound. Idle threads of a pool end when the exit has begun, so until then nobody can tell who will be waited
for:

    run() returns ──▶ the program goes on ──▶ the interpreter ends ──▶ threads, then exit handlers ──▶ exit
                      a daemon waits for that ▲          once their time is over it names them, and ends the process ▲

What the program around the server has left itself is waited for as Python does. The last exit handler is called first,
so one that is put there before the server, and one after it, enclose those of the application.
"""

import atexit
import contextlib
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterable
from types import FrameType
from typing import Any, NoReturn

from pounce.config import ServerConfig
from pounce.observe.logs import LastWords

__all__ = ["END_TIMEOUT", "Leftovers"]

log = logging.getLogger("pounce")

END_TIMEOUT = 2.0
"""Seconds that what is left gets at the least, also when all the time for the end is over."""
UNMENTIONED = 0.5
"""Seconds that it may take without being named: threads that were idle need no longer."""


class Leftovers:
    """The threads, child processes and exit handlers that have come since this was made."""

    def __init__(self, *, in_program: bool = False) -> None:
        """`in_program` says that there is a program around the server, which goes on when that has ended."""
        self._before = frozenset(threading.enumerate())
        self._children_before = frozenset(_children())
        self._logs_before = len(logging._handlerList)  # type: ignore[attr-defined]
        self._in_program = in_program
        self._over = threading.Event()
        """What was left has ended; of a process that is the server's alone nobody says so."""
        if in_program:
            atexit.register(self._end_if_alone)
        self._handlers_before = _exit_handlers()

    def _running(self) -> list[threading.Thread]:
        own = threading.current_thread()
        return [
            thread
            for thread in threading.enumerate()
            if not thread.daemon and thread is not own and thread not in self._before
        ]

    def _living(self) -> list[Any]:
        """Child processes, daemons included: `multiprocessing` tells those to end, and waits for them all the same."""
        return [child for child in _children() if child not in self._children_before and _is_alive(child)]

    def _holds_up_handlers(self) -> bool:
        """Whether exit handlers may take long, so that an end in good order costs no thread."""
        # The handlers of logging are closed by an exit handler that is there already.
        more_logs = not self._in_program and len(logging._handlerList) > self._logs_before  # type: ignore[attr-defined]
        return more_logs or _exit_handlers() > self._handlers_before or bool(self._living())

    def _end_if_alone(self) -> None:
        """The exit handlers of the application have been called; that of `multiprocessing` may be the program's."""
        if not self._living():
            self._over.set()

    def bound(self, config: ServerConfig, seconds: float, exit_code: int, signals: int | None = None) -> None:
        """Have the process end so many seconds after its interpreter wants to at the latest, then with `exit_code`.

        They are for what has come until now. Threads, child processes and exit handlers of the program around the
        server are waited for in any case. `signals` says how many have asked for the end: with the second the process
        ends at once. With None they are for somebody else.
        """
        running = self._running()
        if not running and not self._holds_up_handlers():
            atexit.unregister(self._end_if_alone)
            return
        ending, begun = threading.Event(), threading.Event()
        takes_signals = signals is not None and threading.current_thread() is threading.main_thread()

        def on_end() -> None:
            if takes_signals and self._in_program:
                _end_at_second_signal(signals or 0)
            ending.set()

        # Called before the one of `concurrent.futures`, which waits; `atexit` comes after all waiting.
        threading._register_atexit(on_end)  # type: ignore[attr-defined]
        atexit.register(begun.set)
        # Both of them now: once an interpreter ends, it starts no thread.
        words = LastWords(config)
        arguments = (ending, begun, running, words, seconds, exit_code)
        threading.Thread(target=self._watch, args=arguments, name="pounce end", daemon=True).start()
        if takes_signals and not self._in_program:
            _end_at_second_signal(signals or 0)

    def _watch(
        self,
        ending: threading.Event,
        begun: threading.Event,
        threads: list[threading.Thread],
        words: LastWords,
        seconds: float,
        exit_code: int,
    ) -> None:
        ending.wait()
        until = time.monotonic() + seconds
        if left := _joined(threads, UNMENTIONED):
            words.say(logging.WARNING, _WAITING, seconds, _THREADS, _named(left))
            left = _joined(left, until - time.monotonic())
        if left:
            words.say(logging.ERROR, _LEFT, _THREADS.capitalize(), _named(left))
            words.close()
            for other in threading.enumerate():
                if other not in left and other is not threading.main_thread() and not other.daemon:
                    other.join()
            _exit(exit_code)
        # In between there are the threads of the program.
        remaining = max(0.0, until - time.monotonic())
        begun.wait()
        until = time.monotonic() + remaining
        if self._over.wait(min(UNMENTIONED, remaining)):
            return
        words.say(logging.WARNING, *self._waiting(seconds))
        if self._over.wait(max(0.0, until - time.monotonic())):
            return
        words.say(logging.ERROR, *self._left())
        words.close()
        _exit(exit_code)

    def _waiting(self, seconds: float) -> tuple[Any, ...]:
        """What to say of that for which exit handlers wait, or one that takes long itself."""
        names = self._names()
        return (_WAITING, seconds, _CHILDREN, names) if names else (_WAITING_FOR_HANDLER, seconds)

    def _left(self) -> tuple[Any, ...]:
        """The same when the time is over."""
        names = self._names()
        return (_LEFT, _CHILDREN.capitalize(), names) if names else (_LEFT_HANDLER,)

    def _names(self) -> str:
        return ", ".join(sorted(f"{child.name} (pid {child.pid})" for child in self._living()))

    def wait(self, seconds: float) -> bool:
        """Wait for threads, in what is an interpreter's last act; False where some are left after so many seconds."""
        _let_idle_pools_end()
        left = _joined(running := self._running(), UNMENTIONED)
        if left:
            log.warning(_WAITING, max(0.0, seconds), _THREADS, _named(left))
            left = _joined(running, seconds - UNMENTIONED)
        if left:
            log.error(_LEFT, _THREADS.capitalize(), _named(left))
        return not left

    def call_exit_handlers(self, config: ServerConfig, seconds: float) -> bool:
        """Do what the interpreter would do after that, when logging is over; False where it takes longer."""
        if not self._holds_up_handlers():
            return True
        # No daemon: an interpreter beside the main one has none.
        thread = threading.Thread(target=atexit._run_exitfuncs, name="pounce end")
        thread.start()
        if not _joined([thread], UNMENTIONED):
            return True
        words = LastWords(config)
        words.say(logging.WARNING, *self._waiting(max(0.0, seconds)))
        left = _joined([thread], seconds - UNMENTIONED)
        if left:
            words.say(logging.ERROR, *self._left())
        words.close()
        return not left


_WAITING = "Waiting up to %.0f s for %s: %s"
_LEFT = "%s did not end in time and are left: %s"
_THREADS = "threads of the application"
_CHILDREN = "child processes of the application"
_WAITING_FOR_HANDLER = "Waiting up to %.0f s for an exit handler of the application"
_LEFT_HANDLER = "An exit handler of the application did not end in time and is left"


def _exit_handlers() -> int:
    return atexit._ncallbacks()


def _children() -> list[Any]:
    """Processes that `multiprocessing` has started, if the application has imported it."""
    started = sys.modules.get("multiprocessing.process")
    return list(started._children.copy()) if started is not None else []


def _is_alive(child: Any) -> bool:
    """Without taking note of its end, for which somebody else may be waiting."""
    poll = select.poll()
    try:
        poll.register(child.sentinel, select.POLLIN)
    except ValueError:
        # It is closed.
        return False
    return not poll.poll(0)


def _end_at_second_signal(count: int) -> None:
    """From now on have SIGINT and SIGTERM end this process as the server would, which has had so many of them."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count > 1:
            os._exit(1)

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, on_signal)


def _exit(code: int) -> NoReturn:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
    os._exit(code)


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
