"""Gates: where an application waits until its test lets it go on, whatever thread either runs in."""

import asyncio
import itertools
import threading
from typing import ClassVar

from tests.frameworks.wires import PATIENCE

__all__ = ["Gate"]


class Gate:
    """The test opens it, the application waits at it; the application finds it by `key`, which a request carries.

    `reached` is set when the application has come to the gate, `left` by the application when it is through with
    whatever the test is about.
    """

    _all: ClassVar[dict[str, Gate]] = {}
    _keys = itertools.count(1)

    def __init__(self) -> None:
        self.key = str(next(self._keys))
        self.reached = threading.Event()
        self.left = threading.Event()
        self._opened = threading.Event()
        self._lock = threading.Lock()
        """Protects the order of "is it open?" and "then tell me"."""
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        self._all[self.key] = self

    @classmethod
    def named(cls, key: str) -> Gate:
        return cls._all[key]

    def open(self) -> None:
        with self._lock:
            self._opened.set()
            for loop, event in self._waiters:
                loop.call_soon_threadsafe(event.set)

    async def wait(self) -> None:
        event = asyncio.Event()
        with self._lock:
            if self._opened.is_set():
                event.set()
            self._waiters.append((asyncio.get_running_loop(), event))
        self.reached.set()
        async with asyncio.timeout(PATIENCE):
            await event.wait()

    async def wait_for_ever(self) -> None:
        """What a source of pieces does that has nothing to give: it leaves the gate when it is made to end."""
        try:
            await asyncio.Event().wait()
        finally:
            self.left.set()

    def wait_in_thread(self) -> None:
        self.reached.set()
        if not self._opened.wait(PATIENCE):
            raise TimeoutError

    def was_reached(self) -> bool:
        """Whether the application comes to the gate, within the time a test has."""
        return self.reached.wait(PATIENCE)

    def was_left(self) -> bool:
        return self.left.wait(PATIENCE)
