"""The garbage collector while a process of ours starts, and what it looks through later.

What a start makes (modules, classes, routes, settings) stays until the end. Without the GIL the collector has no
generations: each of its runs stops all threads and looks through everything there is, ten times while FastAPI is
imported, and then for as long as the process serves. So it waits until the server is ready, runs once, and what is
left then is frozen: later runs pass over it.

That is for processes and interpreters that are ours alone: nothing here concerns the program that `serve()` or
`pounce.run()` is called in.
"""

import gc

__all__ = ["hold", "let_go", "settle"]

HELD = 1_000_003
"""Objects after which the collector runs in spite of it: an application that leaves that many cycles needs it. Nobody
else sets this number, so whoever has set another in the meantime is known, and keeps it."""

_threshold: tuple[int, int, int] | None = None
"""What it was before, of the interpreter."""


def hold() -> None:
    """Have the collector wait."""
    global _threshold
    before = gc.get_threshold()
    # 0 is never.
    if 0 < before[0] < HELD:
        _threshold = before
        gc.set_threshold(HELD, *before[1:])


def let_go() -> None:
    """Have it run again as before `hold()`, unless the application has said how."""
    global _threshold
    if _threshold is not None and gc.get_threshold()[0] == HELD:
        gc.set_threshold(*_threshold)
    _threshold = None


def settle() -> None:
    """The start is over: what is left of it stays until the end. Does nothing without a `hold()`."""
    if _threshold is None:
        return
    if gc.isenabled():
        gc.collect()
        gc.freeze()
    let_go()
