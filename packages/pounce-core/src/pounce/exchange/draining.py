"""DrainNotice: how an application learns that its worker is about to end."""

import asyncio

__all__ = ["DrainNotice"]


class DrainNotice:
    """What `scope["extensions"]["pounce.worker.draining"]` is: one for each worker, to be waited for on its loop.

    It is set when the worker accepts no more connections and lets requests finish. An answer that would go on, such as
    a stream of events or a long poll, should end then, in its own way and at a place that suits its client.
    """

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def is_set(self) -> bool:
        """The worker drains; may be asked from any thread."""
        return self._event.is_set()

    async def wait(self) -> None:
        """Wait until the worker drains; returns at once when it does."""
        await self._event.wait()

    def set(self) -> None:
        """For the worker alone."""
        self._event.set()
