"""How the tests run a proxy."""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = 60.0


@contextmanager
def running(command: list[str], listening: socket.socket, **environment: str) -> Iterator[int]:
    """A proxy that takes a listening socket over: nobody has to guess when it is there. Its port."""
    process = subprocess.Popen(
        command,
        pass_fds=[listening.fileno()],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield listening.getsockname()[1]
    finally:
        process.terminate()
        process.wait(PATIENCE)
