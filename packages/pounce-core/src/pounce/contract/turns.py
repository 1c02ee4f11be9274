"""Turns: how much one connection may have done before all others have had their turn of the loop.

Theory of operation. What has arrived on a connection goes to its wire in one call, and that may be a lot of work:
64 KiB are two thousand small requests. On uvloop it need not end there: it reads 32 times 256,000 bytes in a row from a
client that keeps pace, and writes at once, so that no back-pressure ends it; only then it looks at anybody else.

So work is counted in steps, of some microseconds each. A connection has a `Share` of `STEPS`; whatever was asked for by
its peer takes from it: requests beyond the first one of a read, frames, messages, pieces of a body, bytes that are
inflated. When it is used up, what is left waits, and no more is read. The connection stands in the queue of its worker,
its `Turns`, of which one goes on in each turn of the loop, with a new share. So everybody else waits for one share at
most, however many connections ask for more than theirs, and one that sends its requests one by one is never in the
queue, nor pays anything for it.

Several parties may take from one share: the wire, and what was opened on its streams. They go on in the order in which
they began to wait.
"""

import asyncio
import contextvars
import functools
from collections import deque
from collections.abc import Callable
from typing import Final

__all__ = ["STEPS", "Share", "Turns"]

STEPS: Final = 128
"""Steps that a connection may take before others have their turn."""


class Turns:
    """The connections of one worker whose shares are used up, in the order in which they go on."""

    __slots__ = ("_context", "_queue")

    def __init__(self) -> None:
        self._queue: deque[Share] = deque()
        # Of its own, so that nothing runs in the context of the request that happened to use up its share first.
        self._context = contextvars.copy_context()

    def add(self, share: Share) -> None:
        """Let `share` be renewed when all before it were; each is there once."""
        self._queue.append(share)
        if len(self._queue) == 1:
            self._soon()

    def _soon(self) -> None:
        asyncio.get_running_loop().call_soon(self._next, context=self._context)

    def _next(self) -> None:
        queue = self._queue
        share = queue[0]
        try:
            share.renew()
        finally:
            queue.popleft()
            if share.waits:
                queue.append(share)
            if queue:
                self._soon()


class Share:
    """What one connection may still have done in this turn.

    Whoever does work for its peer takes steps from `left`. When that is no longer above 0 it leaves off, with the work
    at hand if it cannot be divided, and calls `later()`.
    """

    __slots__ = ("_turns", "_waiting", "left", "waits")

    def __init__(self, turns: Turns) -> None:
        self.left = STEPS
        """Steps that may still be taken; whoever takes them subtracts them, and leaves off when it is not above 0."""
        self.waits = False
        """Somebody waits for the next turn, and comes before what is new."""
        self._turns = turns
        self._waiting: deque[tuple[Callable[[], object], int]] | None = None

    def begin(self) -> None:
        """A turn of the loop begins for this connection: bytes have arrived."""
        if not self.waits:
            self.left = STEPS

    def later(self, go_on: Callable[[], object], steps: int = 0) -> None:
        """Call `go_on` in a later turn, behind what waits already. `steps` are those that it will take afterwards."""
        if not self.waits:
            self.waits = True
            if self._waiting is None:
                self._waiting = deque()
            self._turns.add(self)
        assert self._waiting is not None
        self._waiting.append((go_on, steps))

    async def spend(self, steps: int) -> None:
        """Take as many steps, and wait for the next turn when none are left for the ones that follow."""
        self.left -= steps
        if self.left <= 0:
            turn = asyncio.get_running_loop().create_future()
            self.later(functools.partial(_come, turn), steps)
            await turn

    def renew(self) -> None:
        """The turn has come: call those that wait, as far as the new share goes."""
        self.left = STEPS
        waiting = self._waiting
        assert waiting is not None
        try:
            for _ in range(len(waiting)):
                go_on, steps = waiting.popleft()
                self.left -= steps
                go_on()
                if self.left <= 0:
                    break
        finally:
            self.waits = bool(waiting)


def _come(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)
