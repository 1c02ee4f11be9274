"""Budget: how much a peer may ask for that costs it less than us.

A budget is a token bucket: `burst` at once, `rate` a second in the long run. Each kind of work that no request pays for
has its own, so that a flood of one kind ends its connection, and nothing that a client does in earnest comes near.
"""

from collections.abc import Callable

__all__ = ["Budget"]


class Budget:
    """A token bucket."""

    __slots__ = ("_burst", "_error", "_left", "_name", "_rate", "_since", "_time")

    def __init__(
        self, name: str, burst: int, rate: float, time: Callable[[], float], error: Callable[[str], Exception]
    ) -> None:
        """`rate` is tokens a second, `time` the clock, `error` makes what is raised of a message."""
        self._name = name
        self._burst = burst
        self._rate = rate
        self._time = time
        self._error = error
        self._left = float(burst)
        self._since = time()

    def spend(self) -> None:
        """Take a token. Raises when there is none."""
        if self._left < 1:
            now = self._time()
            self._left = min(self._burst, self._left + (now - self._since) * self._rate)
            self._since = now
            if self._left < 1:
                raise self._error(f"too many {self._name}")
        self._left -= 1

    def earn(self, count: int) -> None:
        """Put tokens back, up to the burst."""
        self._left = min(self._burst, self._left + count)
