"""Losses: how many lines of logs this process could not write, for whoever counts."""

import threading

__all__ = ["Losses", "losses"]


class Losses:
    """Added to by those who lose, taken by one who counts; from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        """Protects `_count`."""
        self._count = 0

    def add(self, count: int = 1) -> None:
        """So many more are lost."""
        with self._lock:
            self._count += count

    def take(self) -> int:
        """How many were lost since this was last asked."""
        if not self._count:
            return 0
        with self._lock:
            found, self._count = self._count, 0
        return found


losses = Losses()
"""Of this process."""
