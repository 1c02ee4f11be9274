"""Collecting: adds up what all workers of the server have counted, when one of them wants to know.

    a process          supervisor                    all processes
     ── WantTotals ──▶   ── CollectTotals ──────────▶
                         ◀────────────── OwnTotals ──
     ◀── AllTotals ───

A process says OwnTotals once more at its end, so that nothing of what it has counted is lost.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from pounce.contract.totals import Totals
from pounce.supervisor.child import Child
from pounce.supervisor.children import Children
from pounce.supervisor.messages import CollectTotals

__all__ = ["Collecting"]

PATIENCE = 1.0
"""Seconds that a process gets to say its totals; after that, what it said last has to do."""


@dataclass(slots=True)
class Collection:
    """One that is under way."""

    missing: set[Child]
    told: Callable[[Totals], object]
    due: float


class Collecting:
    """The supervisor's part of it."""

    def __init__(self, children: Children) -> None:
        self._children = children
        self._ended = Totals()
        """Of processes that are gone."""
        self._collections: dict[int, Collection] = {}
        self._last = 0
        self.counts: dict[str, float] = {}
        """What the supervisor itself counts."""

    def count(self, name: str) -> None:
        """Something has happened to the server as a whole."""
        self.counts[name] = self.counts.get(name, 0) + 1

    def want(self, told: Callable[[Totals], object]) -> None:
        """Ask all for what they have counted, and call `told`, at once or later, with the sum."""
        self._last += 1
        number = self._last
        serve = [child for child in self._children if child.ready is not None and not child.channel.ended]
        asked = {child for child in serve if child.channel.send(CollectTotals(number))}
        self._collections[number] = Collection(asked, told, time.monotonic() + PATIENCE)
        self._look_at(number)

    def said(self, child: Child, number: int) -> None:
        """`child` has said its totals, for the collection with this number."""
        collection = self._collections.get(number)
        if collection is not None:
            collection.missing.discard(child)
            self._look_at(number)

    def ended(self, child: Child) -> None:
        """It is gone, and says nothing more."""
        self._ended = Totals.of((self._ended, child.totals.ended()))
        for number, collection in tuple(self._collections.items()):
            collection.missing.discard(child)
            self._look_at(number)

    def next_deadline(self) -> float:
        """When `look()` is due, by `time.monotonic()`."""
        return min((each.due for each in self._collections.values()), default=inf)

    def look(self, now: float) -> None:
        """Do without those who have had their time before `now`."""
        for number, collection in tuple(self._collections.items()):
            if collection.due <= now:
                collection.missing.clear()
                self._look_at(number)

    def _look_at(self, number: int) -> None:
        collection = self._collections[number]
        if collection.missing:
            return
        del self._collections[number]
        running = (child.totals for child in self._children)
        collection.told(Totals.of((self._ended, Totals(self.counts), *running)))
