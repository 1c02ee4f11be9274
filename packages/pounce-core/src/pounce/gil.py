"""Whether the GIL is on."""

import sys
from collections.abc import Callable

__all__ = ["gil_enabled"]


def gil_enabled() -> bool:
    """Whether the GIL is on; True on every build that cannot go without."""
    check: Callable[[], bool] | None = getattr(sys, "_is_gil_enabled", None)
    return check is None or check()
