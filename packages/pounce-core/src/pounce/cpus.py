"""How many CPUs this process may use: what affinity and control groups leave of those the machine has."""

import math
import os
from pathlib import Path

__all__ = ["usable_cpus"]


def usable_cpus(root: Path = Path("/")) -> int:
    """CPUs in the affinity mask, and no more than the quota of the control group (v2 or v1) rounded up; at least 1.

    `root` is where the file systems `proc` and `sys` are found.
    """
    cpus = os.process_cpu_count() or 1
    for quota in _quotas(root):
        cpus = min(cpus, math.ceil(quota))
    return max(1, cpus)


def _quotas(root: Path) -> list[float]:
    """The CPU quotas that apply to this process, in CPUs: of its control group and those above it."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found: list[float | None] = []
    for line in lines:
        hierarchy, controllers, path = line.split(":", 2)
        if hierarchy == "0":
            found += [_quota_v2(folder) for folder in _upwards(root / "sys/fs/cgroup", path)]
        elif "cpu" in controllers.split(","):
            for mount in (controllers, "cpu"):
                found += [_quota_v1(folder) for folder in _upwards(root / "sys/fs/cgroup" / mount, path)]
    return [quota for quota in found if quota is not None]


def _upwards(top: Path, path: str) -> list[Path]:
    folder = top / path.lstrip("/")
    # In a container the own group may be what is mounted at the top.
    return [top, *(each for each in (folder, *folder.parents) if top in each.parents)]


def _quota_v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except OSError, ValueError:
        # No such file, or "max".
        return None


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
        return quota / period if quota > 0 and period > 0 else None
    except OSError, ValueError:
        return None
