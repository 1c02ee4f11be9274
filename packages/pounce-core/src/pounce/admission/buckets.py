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

__all__ = ["Buckets"]

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
        self._shards = tuple((threading.Lock(), dict[str, float]()) for _ in range(count))
        """The lock protects the dict."""

    def __len__(self) -> int:
        return sum(len(full_at) for _, full_at in self._shards)

    def take(self, key: str, period: float, span: float, now: float) -> float:
        """Take a token. The time that it took to fill what is left in the bucket, or, where there was no token, the
        time until there is one, below 0; then nothing is taken."""
        lock, full_at = self._shards[hash(key) & self._mask]
        with lock:
            full = full_at.get(key)
            if full is None:
                if len(full_at) >= self._most:
                    self._forget(full_at, now)
                full = now
            elif full < now:
                full = now
            full += period
            # A token is there a little before its time, for times are not exact.
            left = span + now - full
            if left > -0.001 * period:
                full_at[key] = full
                return left if left > 0.0 else 0.0
            return left

    def wait(self, key: str, period: float, span: float, now: float) -> float:
        """The time until there is a token, at most 0 when there is one; takes none."""
        lock, full_at = self._shards[hash(key) & self._mask]
        with lock:
            return full_at.get(key, now) + period * 0.999 - span - now

    def set(self, key: str, full: float, now: float) -> None:
        """A bucket will be full at this time, as somebody says who knows more of it."""
        lock, full_at = self._shards[hash(key) & self._mask]
        with lock:
            if len(full_at) >= self._most and key not in full_at:
                self._forget(full_at, now)
            full_at[key] = full

    def _forget(self, full_at: dict[str, float], now: float) -> None:
        """Make room for a quarter of the shard, so that this is seldom done."""
        keep = self._most * 3 // 4
        times = sorted(full_at.values())
        least = now if len(times) <= keep else max(now, times[len(times) - keep - 1])
        for key in [key for key, full in full_at.items() if full <= least]:
            del full_at[key]
