"""Which CPU a thread runs on."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["on_one_cpu", "stay_on_one_cpu"]

log = logging.getLogger("pounce")


def stay_on_one_cpu(number: int) -> None:
    """Keep this thread on one of the CPUs that it may use: another one for each `number`, as far as there are any."""
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        try:
            os.sched_setaffinity(0, {allowed[number % len(allowed)]})
        except OSError as exc:
            log.warning("Worker %d cannot be kept on one CPU: %s", number, exc.strerror or exc)


@contextmanager
def on_one_cpu() -> Iterator[None]:
    """Keep this thread on one CPU within, and let it go afterwards: it is the caller's."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    stay_on_one_cpu(0)
    try:
        yield
    finally:
        if before:
            os.sched_setaffinity(0, before)
