"""What an application raises when several event loops use what belongs to one of them, and what to do about it."""

import logging
import re
import threading
from collections.abc import Iterator

from pounce.errors import LifespanError, PounceError

__all__ = ["LoopAdvice"]

log = logging.getLogger("pounce")

_symptom = re.compile(
    "bound to a different event loop|(attached|belongs) to a different loop|same event loop"
    "|different task|should be used inside a task"
).search
"""What asyncio, anyio and aiohttp say then."""
_DEPTH = 50

ONE_FOR_ALL = (
    "The application is one object for all of them. Two ways out: name a factory, which makes one for each worker"
    " (main:create_app(), or --factory), or serve with --worker-mode process."
)
ONE_EACH = (
    "It was made outside of the factory, by a module for example. Two ways out: make it in the factory or in the"
    " lifespan, or serve with --worker-mode process."
)


class LoopAdvice:
    """One for the workers on threads of a process: the first time that one of them has such an error the log says what
    it means."""

    def __init__(self, *, one_per_worker: bool) -> None:
        """`one_per_worker`: each worker has an application of its own."""
        self._one_per_worker = one_per_worker
        self.loops = 0
        """How many event loops there were; set by whoever starts the workers."""
        self._untold = threading.Lock()
        """Taken by who tells it, for good."""

    def on_error(self, error: BaseException) -> None:
        """The application raised `error`, which was logged; from any thread."""
        if self.loops > 1 and any(_symptom(str(each)) for each in _chain(error)) and self._untold.acquire(False):
            log.warning(
                "Several event loops, one for each worker, use what belongs to one of them. %s",
                ONE_EACH if self._one_per_worker else ONE_FOR_ALL,
            )

    def on_start_failed(self, error: PounceError) -> None:
        """A worker could not start with `error`, while others could."""
        if isinstance(error, LifespanError) and not self._one_per_worker:
            error.hint = f"Other workers could start. {ONE_FOR_ALL}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, those behind it, and those in groups."""
    found = [error]
    for _ in range(_DEPTH):
        if not found:
            return
        each = found.pop()
        yield each
        found += [other for other in (each.__cause__, each.__context__) if other is not None]
        if isinstance(each, BaseExceptionGroup):
            found += each.exceptions
