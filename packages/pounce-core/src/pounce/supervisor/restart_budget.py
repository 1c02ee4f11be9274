"""RestartBudget: how often, and after what pause, something that keeps dying is started again."""

import collections

__all__ = ["RestartBudget"]

RESTARTS = 5
WINDOW = 60.0
"""Seconds in which that many restarts are allowed."""
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0


class RestartBudget:
    """Belongs to a place, not to what is in it, so that it accumulates however often that is replaced."""

    def __init__(self) -> None:
        self._restarts: collections.deque[float] = collections.deque()

    def next_pause(self, now: float) -> float | None:
        """Seconds to wait before another start, which is counted; None when there are no more to spend."""
        while self._restarts and self._restarts[0] <= now - WINDOW:
            self._restarts.popleft()
        if len(self._restarts) >= RESTARTS:
            return None
        pause = min(FIRST_PAUSE * 2.0 ** len(self._restarts), LONGEST_PAUSE)
        # The window is that of the starts, not of the deaths before them.
        self._restarts.append(now + pause)
        return pause
