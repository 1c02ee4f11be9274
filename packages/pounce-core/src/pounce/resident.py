"""How much memory this process has."""

import os

__all__ = ["resident_bytes"]


def resident_bytes() -> int:
    """Physical memory of this process; 0 where the system does not tell (other than Linux)."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
