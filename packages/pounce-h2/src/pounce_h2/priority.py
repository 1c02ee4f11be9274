"""Priorities (RFC 9218): what a client says of its requests, and which of them gets the next frame."""

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pounce_h2.stream import H2Stream

__all__ = ["DEFAULT", "Priority", "Scheduler", "parse_priority"]

_urgency = re.compile(rb"(?:^|,)[ \t]*u[ \t]*=[ \t]*([0-7])(?=[ \t]*(?:[,;]|$))")
_incremental = re.compile(rb"(?:^|,)[ \t]*i(?:=\?([01]))?(?=[ \t]*(?:[,;]|$))")


class Priority(NamedTuple):
    """Urgency from 0, the most urgent, to 7; an incremental answer is useful in pieces (RFC 9218 4)."""

    urgency: int = 3
    incremental: bool = False


DEFAULT = Priority()


def parse_priority(value: bytes, base: Priority = DEFAULT) -> Priority:
    """The priority in a Priority field; parameters that are missing, unknown or wrong are those of `base`."""
    urgency = _urgency.findall(value)
    incremental = _incremental.findall(value)
    return Priority(
        int(urgency[-1]) if urgency else base.urgency,
        incremental[-1] != b"0" if incremental else base.incremental,
    )


class Scheduler:
    """The streams that could send now, and whose turn it is.

    The most urgent first; of these the non-incremental ones one after the other, in the order of their requests; then
    the incremental ones, a frame each in turn (RFC 9218 10).
    """

    __slots__ = ("_turn", "ready")

    def __init__(self) -> None:
        self.ready: dict[H2Stream, int] = {}
        """Streams by when an incremental one had its last turn."""
        self._turn = 0

    def add(self, stream: H2Stream) -> None:
        """`stream` has something that its own window lets pass."""
        if stream not in self.ready:
            self.ready[stream] = self._turn

    def remove(self, stream: H2Stream) -> None:
        """It has not, or is gone."""
        self.ready.pop(stream, None)

    def next(self) -> H2Stream:
        """The stream that sends next."""
        ready = self.ready
        if len(ready) == 1:
            return next(iter(ready))
        self._turn += 1
        stream = min(ready, key=self._order)
        if stream.priority.incremental:
            ready[stream] = self._turn
        return stream

    def _order(self, stream: H2Stream) -> tuple[int, bool, int]:
        urgency, incremental = stream.priority
        return urgency, incremental, self.ready[stream] if incremental else stream.id
