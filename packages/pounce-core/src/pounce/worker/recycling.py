"""Recycling: when a worker has served long enough to be replaced by a fresh one."""

import random
from math import inf

from pounce.config import ServerConfig
from pounce.resident import resident_bytes

__all__ = ["Recycling"]

LOOK = 1.0
"""Seconds between two looks at the memory of the process."""


class Recycling:
    """Holds one worker against `max_requests`, `max_lifetime` and `max_rss`.

    Each is raised by a random part of `recycle_jitter` per cent, so that workers that started together do not end
    together.
    """

    def __init__(self, config: ServerConfig, now: float) -> None:
        """`now` is a monotonic time in seconds, as for `reason()`."""

        def limit(value: float) -> float:
            return value * (1 + random.random() * config.recycle_jitter / 100) if value else inf

        self._requests = limit(config.max_requests)
        self._end = now + limit(config.max_lifetime)
        self._rss = limit(config.max_rss)
        self._next_look = now
        self._began = now

    def reason(self, requests: int, now: float) -> str | None:
        """Why the worker should go, having served so many requests; None while it should not."""
        if requests >= self._requests:
            return f"{requests} requests (max_requests)"
        if now >= self._end:
            return f"{now - self._began:.0f} s (max_lifetime)"
        if self._rss < inf and now >= self._next_look:
            self._next_look = now + LOOK
            resident = resident_bytes()
            if resident >= self._rss:
                return f"{resident / 1048576:.0f} MiB of memory (max_rss)"
        return None
