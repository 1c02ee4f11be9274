"""Buckets: how much of their limits clients have used up, for all workers of a process.

Of a token bucket that fills evenly one number is enough: when it will be full again. Each request moves that by the
time in which one token comes, and a request that would move it further than the whole bucket takes is refused. A bucket
that is full need not be kept, for it is like one that nobody has ever seen.

The number of buckets has a bound. Where it is reached, those that are full are dropped first, then those from which
least is missing. So who sends from many addresses pushes out what cost as little to make, and none that is used up:
for that each of those addresses would have to use up as much.

There are shards, each with a lock of its own, so that workers seldom wait for each other.
"""

import threading
from math import inf

__all__ = ["FORGOTTEN", "SLACK", "Bucket", "Buckets"]

type Bucket = list[float]
"""When it will be full: one number."""

FORGOTTEN = inf
"""In a bucket that is not among the others any more: nothing can be taken from it."""
SLACK = 0.001
"""Part of a token that may be missing."""
SHARDS = 16
SMALL = 1024
"""Buckets for which one shard is enough."""


class Buckets:
    """All buckets of one process, by key; may be used from any thread.

    `period` is the time in which a token comes, `span` that in which an empty bucket fills; times are seconds, `now` by
    one clock that never goes back.
    """

    def __init__(self, most: int) -> None:
        """No more than about `most` are kept."""
        count = SHARDS if most > SMALL else 1
        self._mask = count - 1
        self._most = -(-most // count)
        self._shards = tuple((threading.Lock(), dict[str, Bucket]()) for _ in range(count))
        """The lock protects the dict and the buckets in it."""

    def __len__(self) -> int:
        return sum(len(buckets) for _, buckets in self._shards)

    def find(self, key: str, now: float) -> tuple[threading.Lock, Bucket]:
        """A bucket, and the lock that protects it. For who does by himself what `take()` does: where it has been
        forgotten since, which the time in it tells, it has to be found anew."""
        lock, buckets = self._shards[hash(key) & self._mask]
        with lock:
            return lock, self._find(buckets, key, now)

    def take(self, key: str, period: float, span: float, now: float) -> float:
        """Take a token. The time that it took to fill what is left in the bucket, or, where there was no token, the
        time until there is one, below 0; then nothing is taken."""
        lock, buckets = self._shards[hash(key) & self._mask]
        with lock:
            bucket = self._find(buckets, key, now)
            full = max(bucket[0], now) + period
            # A token is there a little before its time, for times are not exact.
            left = span + SLACK * period + now - full
            if left >= 0.0:
                bucket[0] = full
            return left

    def wait(self, key: str, period: float, span: float, now: float) -> float:
        """The time until there is a token, at most 0 when there is one; takes none."""
        lock, buckets = self._shards[hash(key) & self._mask]
        with lock:
            bucket = buckets.get(key)
            full = now if bucket is None else bucket[0]
            return full + period - SLACK * period - span - now

    def set(self, key: str, full: float, now: float) -> None:
        """A bucket will be full at this time, as somebody says who knows more of it."""
        lock, buckets = self._shards[hash(key) & self._mask]
        with lock:
            self._find(buckets, key, now)[0] = full

    def _find(self, buckets: dict[str, Bucket], key: str, now: float) -> Bucket:
        bucket = buckets.get(key)
        if bucket is None:
            if len(buckets) >= self._most:
                self._forget(buckets, now)
            bucket = buckets[key] = [now]
        return bucket

    def _forget(self, buckets: dict[str, Bucket], now: float) -> None:
        """Make room for a quarter of the shard, so that this is seldom done."""
        keep = self._most * 3 // 4
        times = sorted(bucket[0] for bucket in buckets.values())
        least = now if len(times) <= keep else max(now, times[len(times) - keep - 1])
        for key in [key for key, bucket in buckets.items() if bucket[0] <= least]:
            buckets.pop(key)[0] = FORGOTTEN
