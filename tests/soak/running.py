"""The server of the soak tests, in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["COUNTS", "check", "server"]

COUNTS = ("descriptors", "tasks", "connections", "exchanges")
"""What must be back where it was."""
OBJECT_GROWTH = 500
"""Objects that the garbage collector knows of: caches may fill, but not with requests."""


@contextmanager
def server(**settings: object) -> Iterator[int]:
    """The port of a server in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("soak_app.py")), json.dumps(settings)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline().rpartition(":")[2])
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0


def check(
    what: str,
    start: Mapping[str, float],
    found: Sequence[Mapping[str, float]],
    memory_growth: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Compare the censuses of a run's parts, and show them: the lowest of the first half with that of the second.

    `memory_growth` is in KiB, of resident memory and of the part of it that is no file.
    """
    half = len(found) // 2

    def lowest(name: str, part: Sequence[Mapping[str, float]]) -> float:
        return min(item[name] for item in part)

    first, second = found[:half], found[half:]
    with capsys.disabled():
        print(f"\n{what}")
        print(f"  {'':12} {'start':>8} {'1st half':>8} {'2nd half':>8}   (lowest; memory in KiB)")
        for name in start:
            print(f"  {name:12} {start[name]:>8,} {lowest(name, first):>8,} {lowest(name, second):>8,}")
    for name in COUNTS:
        assert found[-1][name] <= start[name], name
    assert lowest("objects", second) - lowest("objects", first) <= OBJECT_GROWTH
    for name in ("rss", "anonymous"):
        assert lowest(name, second) - lowest(name, first) <= memory_growth, name
