"""Latencies, counted in buckets whose width grows with the value: an error below 1 % from a microsecond to an hour.

Up to 256 µs each has a bucket; beyond, each doubling has 128. That is the layout of HdrHistogram with two digits.
"""

from collections.abc import Iterator

__all__ = ["Histogram"]

LONGEST = (1 << 32) - 1
"""Microseconds of the last bucket."""


class Histogram:
    """Counts of latencies in microseconds. Belongs to one thread; `add()` brings several together."""

    __slots__ = ("count", "counts", "longest", "shortest", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (_index(LONGEST) + 1)
        self.count = 0
        self.sum = 0
        self.shortest = LONGEST
        self.longest = 0

    def record(self, microseconds: int, count: int = 1) -> None:
        """Count a latency; what is negative, by a clock that two threads read, is 0."""
        value = min(max(microseconds, 0), LONGEST)
        self.counts[_index(value)] += count
        self.count += count
        self.sum += value * count
        self.longest = max(self.longest, value)
        self.shortest = min(self.shortest, value)

    def add(self, other: Histogram) -> None:
        """Count what another has counted."""
        self.counts = [one + more for one, more in zip(self.counts, other.counts, strict=True)]
        self.count += other.count
        self.sum += other.sum
        self.longest = max(self.longest, other.longest)
        self.shortest = min(self.shortest, other.shortest)

    @property
    def mean(self) -> float:
        """Microseconds; 0 where nothing was counted."""
        return self.sum / self.count if self.count else 0.0

    def percentile(self, percent: float) -> int:
        """The latency that so many per cent of all do not exceed, in microseconds; 0 where nothing was counted."""
        wanted = max(1, -(-self.count * percent // 100))
        seen = 0
        for index, count in enumerate(self.counts):
            seen += count
            if seen >= wanted and count:
                return min(_upper_end(index), self.longest)
        return self.longest

    def buckets(self) -> Iterator[tuple[int, int]]:
        """Upper end and count of each bucket in which there is something."""
        return ((_upper_end(index), count) for index, count in enumerate(self.counts) if count)


def _index(value: int) -> int:
    shift = max(value.bit_length() - 8, 0)
    return (shift << 7) + (value >> shift)


def _upper_end(index: int) -> int:
    shift = max((index >> 7) - 1, 0)
    return ((index - (shift << 7) + 1) << shift) - 1
