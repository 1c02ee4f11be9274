"""Which stream gets the next frame (RFC 9218 10)."""

from typing import Protocol

from pounce.exchange.priority import Priority

__all__ = ["Prioritized", "Scheduler"]


class Prioritized(Protocol):
    """What decides about a stream's turn."""

    id: int
    priority: Priority


class Scheduler[S: Prioritized]:
    """The streams that could send now, and whose turn it is.

    The most urgent first; of these the non-incremental ones one after the other, in the order of their requests; then
    the incremental ones, a frame each in turn.
    """

    __slots__ = ("_turn", "ready")

    def __init__(self) -> None:
        self.ready: dict[S, int] = {}
        """Streams by when an incremental one had its last turn."""
        self._turn = 0

    def add(self, stream: S) -> None:
        """`stream` has something that its own window lets pass."""
        if stream not in self.ready:
            self.ready[stream] = self._turn

    def remove(self, stream: S) -> None:
        """It has not, or is gone."""
        self.ready.pop(stream, None)

    def next(self) -> S:
        """The stream that sends next."""
        ready = self.ready
        if len(ready) == 1:
            return next(iter(ready))
        self._turn += 1
        stream = min(ready, key=self._order)
        if stream.priority[1]:
            ready[stream] = self._turn
        return stream

    def _order(self, stream: S) -> tuple[int, bool, int]:
        urgency, incremental = stream.priority
        return urgency, incremental, self.ready[stream] if incremental else stream.id
