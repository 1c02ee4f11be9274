"""What process 1 owes its container: it becomes the parent of processes whose own has ended, and has to wait for them.

A supervisor knows its children, so it waits for whatever else ends. One worker in the calling process cannot tell what
its application has started, and waits for itself, from an orphan. So a copy of the process goes on, and the original
stays behind for the orphans: all that it has started is that copy.

    process 1 ── fork ──▶ the copy serves, with children of its own
        │  waits for all that end; hands signals on; ends as the copy does
"""

import os
import signal
import sys
import threading
from contextlib import suppress
from typing import NoReturn

__all__ = ["cannot_reap", "go_on_in_a_copy"]

_FROM_KERNEL = 0
"""`si_code` above this: the kernel has sent it, as it does for a terminal, and then to the copy too."""


def cannot_reap(*, threads: int = 1) -> str | None:
    """Why this process cannot tell its children from others: not only the server has any, or makes them."""
    with suppress(ChildProcessError):
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return "it has children of its own"
    return "it has other threads" if threads > 1 else None


def go_on_in_a_copy() -> str | None:
    """Returns in a copy of this process, which waits for orphans itself until the copy ends, and then ends as it did.

    Where that cannot be, no copy is made, and what is returned says why.
    """
    try:
        threads = len(os.listdir("/proc/self/task"))
    except OSError:
        threads = threading.active_count()
    reason = cannot_reap(threads=threads)
    if reason is not None or not hasattr(signal, "sigwaitinfo"):
        return reason or "the system does not let it wait for signals"
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    copy = os.fork()
    if copy:
        _stay_for(copy)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    for name in ("LISTEN_PID", "WATCHDOG_PID"):
        if os.environ.get(name) == "1":
            # What systemd has said to process 1 is for whoever serves.
            os.environ[name] = str(os.getpid())
    return None


def _stay_for(copy: int) -> NoReturn:
    while True:
        info = signal.sigwaitinfo(signal.valid_signals())
        if info.si_signo != signal.SIGCHLD:
            if info.si_code <= _FROM_KERNEL:
                with suppress(ProcessLookupError):
                    os.kill(copy, info.si_signo)
            continue
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == copy:
                    code = os.waitstatus_to_exitcode(ended[1])
                    # As a shell has it, for one that a signal has ended.
                    os._exit(code if code >= 0 else 128 - code)
