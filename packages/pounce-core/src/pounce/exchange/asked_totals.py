"""AskedTotals: what all workers have counted, for those of one worker who want to know.

However many these are, there is one question at a time: who comes while it is under way waits for the next one, so that
what is told is never older than the wish to know it.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from pounce.contract.totals import Totals

__all__ = ["AskedTotals"]

TIMEOUT = 5.0
"""Seconds that the supervisor gets to tell."""


class AskedTotals:
    """Belongs to one loop."""

    def __init__(self, ask: Callable[[Callable[[Totals | None], None]], None], loop: asyncio.AbstractEventLoop) -> None:
        """`ask` calls what it is given once, at once or later, on any thread; with None where it cannot be had."""
        self._ask = ask
        self._loop = loop
        self._asked: set[asyncio.Future[Totals | None]] = set()
        """Whom the answer is for that is under way."""
        self._waiting: set[asyncio.Future[Totals | None]] = set()
        self._is_under_way = False

    async def get(self) -> Totals:
        """Raises `TimeoutError` where it cannot be had."""
        answer: asyncio.Future[Totals | None] = self._loop.create_future()
        self._waiting.add(answer)
        if not self._is_under_way:
            self._ask_now()
        try:
            async with asyncio.timeout(TIMEOUT):
                totals = await answer
        finally:
            self._waiting.discard(answer)
            self._asked.discard(answer)
        if totals is None:
            raise TimeoutError("nobody can tell what all workers have counted: the supervisor is gone")
        return totals

    def _ask_now(self) -> None:
        self._is_under_way = True
        self._asked, self._waiting = self._waiting, set()
        self._ask(self._told)

    def _told(self, totals: Totals | None) -> None:
        with suppress(RuntimeError):  # the loop has been closed
            self._loop.call_soon_threadsafe(self._settle, totals)

    def _settle(self, totals: Totals | None) -> None:
        self._is_under_way = False
        for answer in self._asked:
            if not answer.done():
                answer.set_result(totals)
        if self._waiting:
            self._ask_now()
