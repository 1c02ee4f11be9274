"""A loop whose time the test moves on: `TestServer(app, loop="tests.clock:HeldLoop")`.

So what is due after a minute comes at once, and nothing is due because the machine is slow.
"""

import asyncio

__all__ = ["HeldLoop"]


class HeldLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop, with hands on its clock."""

    def __init__(self) -> None:
        self._ahead = 0.0
        super().__init__()

    def time(self) -> float:
        return super().time() + self._ahead

    async def advance(self, seconds: float) -> None:
        """Let so many seconds pass at once, and then what the ticker has to do about it; call it on the loop."""
        self._ahead += seconds
        # Longer than two ticks: their order on the loop is that of their times.
        await asyncio.sleep(0.6)
