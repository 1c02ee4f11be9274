"""An event loop in a thread of its own, from which a test calls what belongs to another loop."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any, Self

from pounce.worker.loop import loop_factory

__all__ = ["PATIENCE", "Elsewhere"]

PATIENCE = 60.0
"""Seconds after which what should have happened has not."""


class Elsewhere:
    """Runs coroutines on its loop; `loop` is what settings call it."""

    def __init__(self, loop: str = "asyncio") -> None:
        self.loop = loop_factory(loop)()
        self._thread = threading.Thread(target=self._run, name="elsewhere")
        self._ended = False

    def _run(self) -> None:
        self.loop.run_forever()
        self.loop.run_until_complete(self._cancel_what_is_left())
        self.loop.close()

    async def _cancel_what_is_left(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Begin it there; from any thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Wait for it without giving one's own loop a turn."""
        return self.start(coroutine).result(PATIENCE)

    async def wait(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Wait for it on one's own loop."""
        async with asyncio.timeout(PATIENCE):
            return await asyncio.wrap_future(self.start(coroutine))

    def call[T](self, function: Callable[[], T]) -> T:
        """Call it there, and wait."""

        async def called() -> T:
            return function()

        return self.run(called())  # type: ignore[no-any-return]

    @asynccontextmanager
    async def cancelled_too_late(self, coroutine: Coroutine[Any, Any, Any]) -> AsyncIterator[None]:
        """Within it the coroutine has begun there, and its loop stands still. At the end it is cancelled, before that
        loop hears of anything that has happened in the meantime."""
        begun, goes_on = threading.Event(), threading.Event()

        async def begin() -> None:
            task = asyncio.ensure_future(coroutine)
            await asyncio.sleep(0)
            begun.set()
            assert goes_on.wait(PATIENCE)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()

        ended = self.start(begin())
        async with asyncio.timeout(PATIENCE):
            while not begun.is_set():
                await asyncio.sleep(0)
            try:
                yield
            finally:
                goes_on.set()
            await asyncio.wrap_future(ended)
            # What the cancelled one has left for this loop to do was there before this.
            await asyncio.wrap_future(self.start(asyncio.sleep(0)))
            await asyncio.sleep(0)

    def end(self) -> None:
        """Cancel what is left, and close the loop."""
        if not self._ended:
            self._ended = True
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(PATIENCE)
            assert not self._thread.is_alive()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.end()
