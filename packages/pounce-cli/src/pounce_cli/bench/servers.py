"""Starts the servers that are measured, each in a process of its own, with the settings that make them comparable: no
access log, the same number of workers, everything else as it comes. They end with the process that has started them.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from pounce.errors import ConfigError
from pounce_cli.bench.load import LoadError

__all__ = ["COMMANDS", "Running", "serving", "version_of"]

START_TIMEOUT = 60.0
END_TIMEOUT = 20.0
ENDS = (signal.SIGTERM, signal.SIGHUP)
"""Signals that end a process without another word of it."""
ENDS_WITH_PARENT = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit()
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""Becomes the command behind the parent's process id, which the kernel ends with the parent, however that ends."""


class Running(NamedTuple):
    """A server that accepts connections."""

    command: list[str]
    port: int
    pid: int

    def memory(self) -> int | None:
        """Bytes of physical memory of all its processes; None where that cannot be seen."""
        pages = [_resident(pid) for pid in _family(self.pid)]
        return sum(pages) * os.sysconf("SC_PAGE_SIZE") if any(pages) else None


def _uvicorn(app: str, port: int, workers: int) -> list[str]:
    return ["uvicorn", app, "--host", "127.0.0.1", "--port", str(port), "--workers", str(workers),
            "--no-access-log", "--log-level", "warning"]  # fmt: skip


def _granian(app: str, port: int, workers: int) -> list[str]:
    return ["granian", "--interface", "asgi", app, "--host", "127.0.0.1", "--port", str(port),
            "--workers", str(workers), "--no-access-log", "--log-level", "warning"]  # fmt: skip


def _hypercorn(app: str, port: int, workers: int) -> list[str]:
    return ["hypercorn", app, "--bind", f"127.0.0.1:{port}", "--workers", str(workers), "--log-level", "WARNING"]


def _gunicorn(app: str, port: int, workers: int) -> list[str]:
    return ["gunicorn", "-k", "asgi", app, "--bind", f"127.0.0.1:{port}", "--workers", str(workers),
            "--log-level", "warning"]  # fmt: skip


def _daphne(app: str, port: int, workers: int) -> list[str]:
    return ["daphne", app, "-b", "127.0.0.1", "-p", str(port), "-v", "0"]


def _pounce(app: str, port: int, workers: int) -> list[str]:
    return ["pounce_cli", "serve", app, "--host", "127.0.0.1", "--port", str(port), "--workers", str(workers),
            "--no-access-log", "--log-level", "warning", "--signage", "off", "--max-request-size", "0"]  # fmt: skip


COMMANDS: dict[str, Callable[[str, int, int], list[str]]] = {
    "pounce": _pounce, "uvicorn": _uvicorn, "granian": _granian, "hypercorn": _hypercorn, "gunicorn": _gunicorn,
    "daphne": _daphne,
}  # fmt: skip
"""The words behind `python -m`, by server."""


def version_of(name: str, python: str) -> str:
    """The version of this server that an interpreter has. Raises `ConfigError` where it has none, or there is none."""
    if name not in COMMANDS:
        raise ConfigError(f"there is no server {name!r} to compare with", hint=f"There are {', '.join(COMMANDS)}.")
    if shutil.which(python) is None:
        raise ConfigError(f"there is no interpreter {python}", hint="--python names that of an environment.")
    distribution = "pounce-core" if name == "pounce" else name
    code = f"from importlib.metadata import version; print(version({distribution!r}))"
    found = subprocess.run([python, "-c", code], capture_output=True, text=True)
    if found.returncode:
        raise ConfigError(
            f"{distribution} is not installed for {python}",
            hint=f"pip install {distribution}, or name with --python the interpreter of an environment that has it.",
        )
    return found.stdout.strip()


@contextmanager
def serving(name: str, app: str, workers: int, python: str) -> Iterator[Running]:
    """A server that `version_of` knows, started with that interpreter. Raises `LoadError` where it does not start."""
    port = _free_port()
    command = [python, "-m", *COMMANDS[name](app, port, workers)]
    with tempfile.TemporaryFile() as said, _leaving_by_signals():
        process = subprocess.Popen(
            _ending_with_us(command), stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
        )
        try:
            _wait_until_it_accepts(process, port, name, said)
            yield Running(command, port, process.pid)
        finally:
            _end(process)


@contextmanager
def _leaving_by_signals() -> Iterator[None]:
    """Signals that end the process leave by `SystemExit`, once, with the exit code that shells have for them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Under nohup one is ignored, and stays so.
    ours = [number for number in ENDS if signal.getsignal(number) is signal.SIG_DFL]

    def leave(number: int, frame: FrameType | None) -> None:
        for each in ours:
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in ours:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _ending_with_us(command: list[str]) -> list[str]:
    if sys.platform != "linux":
        return command
    return [sys.executable, "-ISc", ENDS_WITH_PARENT, str(os.getpid()), *command]


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _wait_until_it_accepts(process: subprocess.Popen[bytes], port: int, name: str, said: object) -> None:
    until = time.monotonic() + START_TIMEOUT
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    said.seek(0)  # type: ignore[attr-defined]
    text = said.read().decode(errors="replace").strip()  # type: ignore[attr-defined]
    raise LoadError(f"{name} does not start: {text[-2000:] or 'it says nothing'}", code="POUNCE_BENCH_NOT_STARTED")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it, and what it has started."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(END_TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _family(pid: int) -> Iterator[int]:
    yield pid
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = tasks.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from _family(int(child))


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0


