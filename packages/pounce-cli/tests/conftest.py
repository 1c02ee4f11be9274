"""A folder with an application, and the command as a real process."""

import json
import re
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import warm

MAIN = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError("no lifespan")
    body = (scope["root_path"] + "|" + scope["scheme"]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body})


def create():
    return app


not_an_app = 3
"""


class Process:
    """A `pounce` process; `lines` is what it has written to stderr so far."""

    def __init__(self, arguments: list[str], cwd: Path, environment: dict[str, str], cold: bool) -> None:
        self.popen = warm.start(
            ["-m", "pounce_cli", *arguments],
            environ=environment,
            fresh=cold,
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.lines: list[str] = []
        self._guard = threading.Timer(120, self.popen.kill)
        self._guard.start()

    def line(self, pattern: str) -> re.Match[str]:
        """The first line on stderr that matches, waited for."""
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            self.lines.append(line)
            if match := re.search(pattern, line):
                return match
        raise AssertionError(f"{pattern!r} was never written, but: {''.join(self.lines)}")

    def started(self) -> dict[str, Any]:
        """The JSON line of the start, waited for."""
        event: dict[str, Any] = json.loads(self.line('"event": "startup"').string)
        return event

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send the signal; the exit code."""
        self.popen.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        """The exit code, waited for; the rest of stderr is in `lines`."""
        _, rest = self.popen.communicate()
        self.lines += rest.splitlines(keepends=True)
        return self.popen.returncode

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.communicate()
        self._guard.cancel()


class Pounce:
    """Starts `pounce` in the folder of the application: in a process that is warm, but for `cold`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cold = False
        self.running: list[Process] = []

    def start(self, *arguments: str, **environment: str) -> Process:
        process = Process(list(arguments), self.folder, environment, self.cold)
        self.running.append(process)
        return process

    def fails(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """Exit code and stderr of a command that ends by itself."""
        process = self.start(*arguments, **environment)
        return process.ended(), "".join(process.lines)


@pytest.fixture(autouse=True)
def no_configuration_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder is an empty one."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def pounce(tmp_path: Path) -> Iterator[Pounce]:
    (tmp_path / "main.py").write_text(MAIN)
    pounce = Pounce(tmp_path)
    yield pounce
    for process in pounce.running:
        process.close()


def exchange(sock: socket.socket, path: str = "/") -> tuple[int, bytes]:
    """Status and body of one GET."""
    with sock:
        sock.settimeout(60)
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while data := sock.recv(65536):
            answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


@pytest.fixture
def get() -> Any:
    def get(url: str, path: str = "/", context: ssl.SSLContext | None = None) -> tuple[int, bytes]:
        host, _, port = url.partition("://")[2].rpartition(":")
        sock = socket.create_connection((host, int(port)), 10)
        return exchange(sock if context is None else context.wrap_socket(sock, server_hostname=host), path)

    return get


@pytest.fixture
def get_unix() -> Any:
    def get(path: Path) -> tuple[int, bytes]:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(path))
        return exchange(sock)

    return get
