"""The server of the soak tests, in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["COUNTS", "OBJECT_GROWTH", "server"]

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
        process.communicate(timeout=30)
    assert process.returncode == 0
