"""Whether somebody sits in front of the server."""

import os
import signal

__all__ = ["is_of_terminal", "is_on_terminal"]


def is_on_terminal() -> bool:
    """Standard input is a terminal."""
    try:
        return os.isatty(0)
    except OSError:
        return False


def is_of_terminal(number: int) -> bool:
    """Whether a signal is what Ctrl-C sends: SIGINT, to the processes in the foreground of a terminal."""
    if number != signal.SIGINT:
        return False
    if is_on_terminal():
        return True
    # A terminal that only the output goes to, or none of both.
    try:
        terminal = os.open(os.ctermid(), os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
