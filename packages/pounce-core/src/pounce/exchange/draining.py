"""DrainNotice: how an application learns that its worker is about to end."""

import asyncio
from contextlib import suppress

from pounce.errors import ClientGone
from pounce.exchange.crossing import Crossing, running_loop

__all__ = ["DrainNotice"]


class DrainNotice:
    """What `scope["extensions"]["pounce.worker.draining"]` is: one for each worker, to be waited for on any loop.

    It is set when the worker accepts no more connections and lets requests finish. An answer that would go on, such as
    a stream of events or a long poll, should end then, in its own way and at a place that suits its client.
    """

    __slots__ = ("_begun", "_crossing")

    def __init__(self, begun: asyncio.Event, crossing: Crossing) -> None:
        self._begun = begun
        self._crossing = crossing

    def is_set(self) -> bool:
        """The worker drains; may be asked from any thread."""
        return self._begun.is_set()

    async def wait(self) -> None:
        """Wait until the worker drains; returns at once when it does."""
        if self._begun.is_set():
            return
        if running_loop() is self._crossing.loop:
            await self._begun.wait()
        else:
            # A worker that has ended without one does not go on either.
            with suppress(ClientGone):
                await self._crossing.call(self.wait)
