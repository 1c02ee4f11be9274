"""A server in processes of its own, started as a user starts it, whose log the test reads."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from tests import warm

PATIENCE = 180.0
"""Seconds that anything may take before the test fails."""

FEWEST = {
    "thread": ("--workers", "2", "--worker-mode", "thread"),
    "process": ("--workers", "1", "--worker-mode", "process"),
    "subinterpreter": ("--workers", "1", "--worker-mode", "subinterpreter"),
}
"""As few workers as are below a supervisor: for what does not take several, each of which costs a start."""

APP = """
import asyncio, ctypes, json, os, threading, time

VERSION = 1

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    path, query = scope["path"], scope["query_string"].decode()
    if path == "/slow":
        await asyncio.sleep(float(query.partition("&")[0]))
    elif path == "/held":
        with open("reached", "ab") as reached:
            reached.write(b".")
        while not os.path.exists("released"):
            await asyncio.sleep(0.01)
    elif path == "/block":
        time.sleep(float(query))
    elif path == "/segfault":
        ctypes.string_at(0)
    elif path == "/exit":
        os._exit(7)
    body = json.dumps({
        "query": query, "version": VERSION, "pid": os.getpid(), "parent": os.getppid(),
        "thread": threading.current_thread().name, "worker": scope["extensions"].get("pounce.worker"),
    }).encode()
    await send({
        "type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))],
    })
    await send({"type": "http.response.body", "body": body})

async def lifespan(receive, send):
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
"""

HANGING = (
    APP
    + """
os.close(os.open("hangs", os.O_CREAT))
threading.Event().wait()
"""
)
"""Its import never ends; `hangs` says that it has come so far."""


def version(number: int, app: str = APP) -> str:
    """The application, as one that answers with another version."""
    return app.replace("VERSION = 1", f"VERSION = {number}")


class Running:
    """A server, from its start to its end; a context manager that leaves nothing behind."""

    def __init__(
        self,
        folder: Path,
        *flags: str,
        app: str = APP,
        environ: dict[str, str] | None = None,
        wait: bool = True,
        command: list[str] | None = None,
        stdin: str | None = None,
        terminal: int | None = None,
        new_session: bool = False,
    ) -> None:
        """`stdin` is what it can read; `terminal` the descriptor of one that it is on, by its standard output. In a
        session of its own it is on none otherwise."""
        self.folder = folder
        self.write(app)
        port = () if "--bind" in flags else ("--port", "0")
        words = ["serve", "main:app", *port, "--no-access-log", "--log-format", "json", *flags]
        # What a process is called is where its own line was.
        told_at_start = terminal is not None or "--process-title" in flags
        # What processes with datagrams meet in, the last of them removes.
        self._leaves_files = any("http3" in word or "udp" in word for word in (*flags, *(command or ())))
        self.process = warm.start(
            ["-m", "pounce_cli", *words] if command is None else command,
            environ=environ,
            fresh=command is not None or told_at_start,
            cwd=folder,
            stdin=None if stdin is None else subprocess.PIPE,
            stdout=subprocess.DEVNULL if terminal is None else terminal,
            stderr=subprocess.PIPE,
            start_new_session=new_session or terminal is not None,
            preexec_fn=None if terminal is None else _take_terminal,
        )
        if stdin is not None:
            assert self.process.stdin is not None
            with self.process.stdin as pipe:
                pipe.write(stdin)
        self.pid = self.process.pid
        """Of the supervisor; another one after an upgrade."""
        self.log: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self._closed = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.address = ("", 0)
        self.version = 1
        """Of the application that was written last, by `write_next()`."""
        self.processes = 0
        """How many it has started, once it serves."""
        if wait:
            host, _, port = self.wait_for(is_start)["url"].partition("://")[2].rpartition(":")
            self.address = (host, int(port))
            self.processes = len(self.children())

    def write(self, app: str) -> None:
        """Make `app` the application that is imported from now on."""
        path = self.folder / "main.py"
        path.write_text(app)
        # Within one second a change of the same size would pass for none.
        stamp = time.time_ns()
        os.utime(path, ns=(stamp, stamp))
        for cached in self.folder.glob("__pycache__/main.*"):
            cached.unlink(missing_ok=True)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                entry = json.loads(line)
            except ValueError:
                entry = {"text": line}
            with self._news:
                self.log.append(entry)
                self._news.notify_all()
        with self._news:
            self._closed = True
            self._news.notify_all()

    def wait_for(self, wanted: Callable[[dict[str, Any]], bool], *, after: int = 0) -> dict[str, Any]:
        """The first entry of the log that is wanted, of those that come after the first `after`."""
        deadline = time.monotonic() + PATIENCE
        with self._news:
            while True:
                for entry in self.log[after:]:
                    if wanted(entry):
                        return entry
                left = deadline - time.monotonic()
                if self._closed or left <= 0:
                    raise AssertionError(f"not in the log: {self.text()}")
                self._news.wait(left)

    def wait_for_message(self, part: str, *, after: int = 0) -> dict[str, Any]:
        """The first entry whose message has `part` in it."""
        return self.wait_for(lambda entry: part in entry.get("message", entry.get("text", "")), after=after)

    def text(self) -> str:
        """The whole log."""
        return "\n".join(entry.get("text") or json.dumps(entry) for entry in self.log)

    def kill(self, number: int) -> None:
        os.kill(self.pid, number)

    def reload(self) -> None:
        """Have new processes take over, and wait until they have."""
        at = len(self.log)
        self.kill(signal.SIGHUP)
        self.wait_for_message("Reloaded", after=at)

    def upgrade(self) -> None:
        """Have a new supervisor take over, and wait until the old one has ended, in good order."""
        at, old = len(self.log), self.pid
        self.kill(signal.SIGUSR2)
        said = self.wait_for_message("Upgraded: process", after=at)["message"]
        self.pid = int(said.split()[2])
        if old == self.process.pid:
            assert self.process.wait(PATIENCE) == 0
        else:
            eventually(lambda: not is_running(old))

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, PATIENCE)

    def get(self, path: str = "/") -> dict[str, Any]:
        """What the application answers over a connection of its own."""
        with self.connect() as client:
            return ask(client, path)

    def reached(self, count: int = 1) -> None:
        """Wait until the application has so many requests for `/held`."""
        path = self.folder / "reached"
        eventually(lambda: path.exists() and path.stat().st_size >= count)

    def release(self) -> None:
        """Let the application answer requests for `/held`."""
        (self.folder / "released").touch()

    def children(self) -> list[int]:
        """The processes that this one has started."""
        return children_of(self.pid)

    def settle(self) -> None:
        """Wait until there are as many processes as at the start, so that none starts nor ends, and forget what has
        been asked: for the next test of a server that several share."""
        eventually(lambda: len(self.children()) == self.processes)
        for name in ("reached", "released", "hangs"):
            (self.folder / name).unlink(missing_ok=True)

    def write_next(self, app: str = APP) -> int:
        """Make the application one that answers with another version; gives that."""
        self.version += 1
        self.write(version(self.version, app))
        return self.version

    def end(self, number: int = signal.SIGTERM) -> int:
        """Tell it to end; gives its exit code, which after an upgrade is that of the first."""
        self.kill(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end; gives its exit code. All of its log has been read then."""
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        # A supervisor that is killed takes its processes along; not to wait for their orderly end is cheaper.
        # In the middle of an upgrade one of them is a supervisor too, which would go on.
        children = self.children()
        ended = _handles_of([each for each in children if not self._leaves_files or children_of(each)])
        self.process.kill()
        self.process.wait()
        if self.pid != self.process.pid and is_running(self.pid):
            os.kill(self.pid, signal.SIGKILL)
        for handle in ended:
            try:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            except ProcessLookupError:
                pass
            os.close(handle)
        self._reader.join(PATIENCE)
        assert self.process.stderr is not None
        if not self._reader.is_alive():
            self.process.stderr.close()


def _handles_of(pids: list[int]) -> list[int]:
    """Of processes; a number may become that of another one."""
    found = []
    for pid in pids:
        try:
            found.append(os.pidfd_open(pid))
        except OSError:
            pass
    return found


def _take_terminal() -> None:
    """Have the terminal of the standard output, whose Ctrl-C then reaches this process."""
    fcntl.ioctl(1, termios.TIOCSCTTY, 0)


def is_start(entry: dict[str, Any]) -> bool:
    return entry.get("event") == "startup"


def ask(client: socket.socket, path: str = "/") -> dict[str, Any]:
    """The answer to one request on a connection that stays open."""
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
    return read_answer(client)


def read_answer(client: socket.socket) -> dict[str, Any]:
    """The JSON of one answer, which has to be a whole one; `close` tells whether it was announced as the last."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += received(client)
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert lines[0] == b"http/1.1 200 ok", head
    length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
    while len(body) < length:
        body += received(client)
    answer: dict[str, Any] = json.loads(body)
    return answer | {"close": b"connection: close" in lines}


def received(client: socket.socket) -> bytes:
    data = client.recv(65536)
    assert data, "the connection ended before the answer did"
    return data


def status(control: Path) -> dict[str, Any]:
    """What a server says of itself on its control socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(control))
        client.sendall(b'{"command": "status"}\n')
        found: dict[str, Any] = json.loads(received(client))["status"]
        return found


def eventually(condition: Callable[[], bool], patience: float = PATIENCE) -> None:
    """Wait until `condition` holds; for what nothing reports."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def children_of(pid: int) -> list[int]:
    """The processes that a process has started; none where it is gone."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError, ProcessLookupError:
        return []
    return [int(child) for child in children if not _is_original(child)]


def _is_original(pid: str) -> bool:
    """Whether it is only there to be copied."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == warm.NAME
    except FileNotFoundError, ProcessLookupError:
        # It may end between opening and reading.
        return False


def is_running(pid: int) -> bool:
    """Whether there is such a process, other than a dead one that nobody has asked after."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
