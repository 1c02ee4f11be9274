"""Collecting: adds up what all workers of the server have counted, when one of them wants to know.

    a process          supervisor                    all processes
     ── WantTotals ──▶   ── CollectTotals ──────────▶
                         ◀────────────── OwnTotals ──
     ◀── AllTotals ───

A process says OwnTotals once more at its end, so that nothing of what it has counted is lost.

However many want to know, there is one collection at a time: who comes while it is under way waits for the next one.
And a process that has not answered is not asked again before it has: what is written to one that stands still would
fill its channel, and the supervisor would wait for that.
"""

import time
from collections.abc import Callable
from math import inf

from pounce.contract.totals import Totals
from pounce.supervisor.child import Child
from pounce.supervisor.children import Children
from pounce.supervisor.messages import CollectTotals

__all__ = ["Collecting"]

PATIENCE = 1.0
"""Seconds that a process gets to say its totals; after that, what it said last has to do."""


type Told = Callable[[Totals], object]


class Collecting:
    """The supervisor's part of it."""

    def __init__(self, children: Children) -> None:
        self._children = children
        self._ended = Totals()
        """Of processes that are gone."""
        self._waiting: list[Told] = []
        """Who gets the next sum."""
        self._told: list[Told] = []
        """Who gets the sum that is being collected; empty while none is."""
        self._missing: set[Child] = set()
        """Whose part of it has not come."""
        self._due = inf
        """When it has to do without them."""
        self._owing: set[Child] = set()
        """Who was asked, for this sum or an earlier one, and has not answered."""
        self._last = 0
        self.counts: dict[str, float] = {}
        """What the supervisor itself counts."""

    def count(self, name: str) -> None:
        """Something has happened to the server as a whole."""
        self.counts[name] = self.counts.get(name, 0) + 1

    def want(self, told: Told) -> None:
        """Ask all for what they have counted, and call `told`, at once or later, with the sum."""
        self._waiting.append(told)
        if not self._told:
            self._begin()

    def _begin(self) -> None:
        self._told, self._waiting = self._waiting, []
        self._last += 1
        self._due = time.monotonic() + PATIENCE
        serve = {child for child in self._children if child.ready is not None and not child.channel.ended}
        self._missing = {child for child in serve - self._owing if child.channel.send(CollectTotals(self._last))}
        self._owing |= self._missing
        self._look_whether_complete()

    def said(self, child: Child) -> None:
        """`child` has said its totals."""
        self._owing.discard(child)
        self._missing.discard(child)
        self._look_whether_complete()

    def ended(self, child: Child) -> None:
        """It is gone, and says nothing more."""
        self._ended = Totals.of((self._ended, child.totals.ended()))
        self.said(child)

    def next_deadline(self) -> float:
        """When `look()` is due, by `time.monotonic()`."""
        return self._due

    def look(self, now: float) -> None:
        """Do without those who have had their time before `now`."""
        if self._due <= now:
            self._missing.clear()
            self._look_whether_complete()

    def _look_whether_complete(self) -> None:
        if not self._told or self._missing:
            return
        told, self._told, self._due = self._told, [], inf
        running = (child.totals for child in self._children)
        totals = Totals.of((self._ended, Totals(self.counts), *running))
        for each in told:
            each(totals)
        if self._waiting:
            self._begin()
