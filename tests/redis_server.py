"""A Redis server of the tests' own, which they may stop, pause and start anew."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from typing import Any, Self

import pytest

__all__ = ["RedisServer", "needs_redis"]

PATIENCE = 60.0


def _is_installed() -> bool:
    try:
        import redis.asyncio  # noqa: F401
    except ImportError:
        return False
    return shutil.which("redis-server") is not None


needs_redis = pytest.mark.skipif(
    not _is_installed(), reason="needs redis-server (apt install redis-server) and the package redis"
)


class RedisServer:
    """On a Unix socket, so that no port can be taken by somebody else while it is down; with nothing on the disk."""

    def __init__(self, *flags: str) -> None:
        # Not tmp_path: the address of a Unix socket has room for about a hundred bytes.
        self._folder = tempfile.mkdtemp(prefix="redis-")
        self._path = os.path.join(self._folder, "socket")
        self.url = f"unix://{self._path}"
        self._flags = flags
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return when it answers."""
        line = ["--port", "0", "--unixsocket", self._path, "--save", "", "--appendonly", "no", "--dir", self._folder]
        self._process = subprocess.Popen(["redis-server", *line, *self._flags], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.call("PING")
                return
            except OSError:
                assert time.monotonic() < deadline and self._process.poll() is None, "redis-server does not start"
                time.sleep(0.01)

    def call(self, *words: str) -> list[bytes]:
        """What it answers to a command, line by line; for answers of fewer than 65536 bytes."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(self._path)
            client.sendall((" ".join(words) + "\r\nQUIT\r\n").encode())
            answer = b""
            while piece := client.recv(65536):
                answer += piece
        return answer.split(b"\r\n")

    def time(self) -> float:
        """Seconds by its clock."""
        lines = self.call("TIME")
        return int(lines[2]) + int(lines[4]) / 1e6

    def pause(self) -> None:
        """It neither answers nor closes anything until `resume()`."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        self._send(signal.SIGCONT)

    def kill(self) -> None:
        self._send(signal.SIGKILL)
        self._end()

    def _send(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _end(self) -> None:
        if self._process is not None:
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> Any:
        if self._process is not None:
            self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)
