"""Totals: what the workers of a server count, added up."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

__all__ = ["METRICS", "Totals"]

METRICS = ("http_", "pounce_", "process_", "python_")
"""How the names of numbers begin that are for Prometheus, and not for people."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What some workers have counted, or all of a server."""

    counts: dict[str, float] = field(default_factory=dict)
    """What has happened so often: sums of `Service.counts`, which never fall. Workers that have ended stay in them."""
    gauges: dict[str, float] = field(default_factory=dict)
    """How it is now: sums of `Service.gauges`, of those that run."""
    processes: dict[str, float] = field(default_factory=dict)
    """What is so of a process and not of a worker, by names with its pid: several of its workers may say it, also one
    that takes the place of another, so the highest counts and no sum. Gone with whoever says it."""
    exemplars: dict[str, tuple[str, float, float]] = field(default_factory=dict)
    """For the names of some counts the trace of the last that was counted: its id, its value, and when it was, in
    seconds since the epoch."""

    @classmethod
    def of(cls, all_of_them: Iterable[Totals]) -> Self:
        """Their sum."""
        counts: dict[str, float] = {}
        gauges: dict[str, float] = {}
        processes: dict[str, float] = {}
        exemplars: dict[str, tuple[str, float, float]] = {}
        for each in all_of_them:
            for into, of_it in ((counts, each.counts), (gauges, each.gauges)):
                for name, value in of_it.items():
                    into[name] = into.get(name, 0) + value
            for name, value in each.processes.items():
                processes[name] = max(value, processes.get(name, value))
            for name, found in each.exemplars.items():
                if name not in exemplars or exemplars[name][2] < found[2]:
                    exemplars[name] = found
        return cls(counts, gauges, processes, exemplars)

    def ended(self) -> Totals:
        """What stays of them when those who have counted are gone."""
        return Totals(self.counts)
