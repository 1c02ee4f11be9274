"""Input: what a client has sent, until the application takes it.

Theory of operation. Bytes of the stream wait in the reader; messages are read out of them only as far as the
application keeps up: while more than `QUEUE_HIGH` is queued nothing is read, and what was not read is not `consumed()`,
so that the wire stops in its turn. So one connection holds the queue, one message, and what the wire lets through.

Reading takes from the connection's share of a turn of the loop, and goes on in the next turn when it is used up.
"""

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from pounce_ws.frames import Control, MessageReader

if TYPE_CHECKING:
    from pounce.contract.turns import Share
    from pounce_ws.pings import Pings

__all__ = ["FULL", "QUEUE_HIGH", "QUEUE_LOW", "USED_UP", "Input", "wake"]

QUEUE_HIGH = 65536
"""Bytes of messages that wait for the application, above which no more are read."""
QUEUE_LOW = 16384
MESSAGE_COST = 128
"""Bytes that a message takes besides its own."""

# Why reading has stopped. Numbers: `pounce.immortal` tells why not an Enum.
FULL: Final = 0
"""So much is queued that no more is read."""
USED_UP: Final = 1
"""So is the share."""


class Input:
    """Messages of one client, in their order. `waiters` are those who wait for the next one."""

    __slots__ = (
        "_loop",
        "_pings",
        "eof",
        "held",
        "messages_received",
        "queue",
        "queued",
        "reader",
        "share",
        "waiters",
        "waits",
    )

    def __init__(self, reader: MessageReader, share: Share, pings: Pings, loop: asyncio.AbstractEventLoop) -> None:
        self.reader = reader
        self.share = share
        self._pings = pings
        self._loop = loop
        self.queue: deque[str | bytes] = deque()
        self.queued = 0
        """Bytes that the queue takes."""
        self.held = 0
        """Bytes that arrived and were not `consumed()`."""
        self.messages_received = 0
        self.eof = False
        """The client has ended its half."""
        self.waiters: list[asyncio.Future[None]] = []
        self.waits = False
        """Reading goes on in the connection's next turn."""

    def read(self) -> Control | int | None:
        """Queue messages until there is a control frame, `FULL` or `USED_UP`; None when more bytes are needed.

        Raises `Violation`.
        """
        reader, queue = self.reader, self.queue
        while True:
            event = reader.next_event()
            if event is None or isinstance(event, Control):
                return event
            self.messages_received += 1
            self.queued += len(event) + MESSAGE_COST
            queue.append(event)
            if self._pings.idle_timeout:
                self._pings.last_message = self._loop.time()
            if self.waiters:
                wake(self.waiters)
            if len(queue) > 1:
                # The first of a read is free: who sends one message after the other is in nobody's way.
                self.share.left -= 1
                if self.share.left <= 0:
                    return USED_UP
            elif reader.at == len(reader.buffer):
                # Most messages come alone.
                return None
            if self.queued >= QUEUE_HIGH:
                return FULL

    def put_back(self, message: str | bytes) -> None:
        """Have `message` be the next one again."""
        self.queue.appendleft(message)
        self.queued += len(message) + MESSAGE_COST

    def drop(self) -> None:
        """Nobody will take what is queued."""
        self.queue.clear()
        self.queued = 0


def wake(waiters: list[asyncio.Future[None]]) -> None:
    """Let all of them go on; each has a future of its own, so that cancelling one leaves the others alone."""
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
    waiters.clear()
