"""Processes of Python that need not start: forks of one that has imported what they would.

A start of the interpreter and the imports of a server take half a second of CPU, which is all that many tests of a
process take. What is started here is otherwise a process as any: its own folder, environment, output and exit code. Who
has something to say about the start itself, or about what is imported, starts the interpreter.
"""

import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SERVER = (
    "pounce_cli.commands", "pounce_cli.errors", "pounce_cli.plain_line", "pounce_cli.serve",
    "pounce.endpoints.plugin", "pounce.exchange.health", "pounce.exchange.pipeline", "pounce.h1.connection",
    "pounce.h1.plugin", "pounce.identity.identity", "pounce.middleware.compression", "pounce.middleware.plugins",
    "pounce.observe.access_log", "pounce.observe.events_plugin", "pounce.observe.metrics_plugin",
    "pounce.observe.sentry_plugin", "pounce.observe.tracing_plugin", "pounce.registry", "pounce.worker.affinity",
    "pounce.worker.shared", "pounce.worker.standstill", "pounce.worker.worker", "pounce_h1fast.plugin",
    "pounce_h2.plugin", "pounce_h3.plugin", "pounce_ws.plugin", "uvloop",
)  # fmt: skip
"""What `pounce serve` imports, and the parsing library for what is wrong with a line."""


class Process:
    """What a fork runs; the part of `subprocess.Popen` that tests use, with text in both pipes."""

    def __init__(self, control: socket.socket, order: dict[str, Any]) -> None:
        self._told, theirs = socket.socketpair()
        self._told.sendall(json.dumps(order).encode() + b"\n")
        (out, their_out), (err, their_err) = os.pipe(), os.pipe()
        with theirs:
            socket.send_fds(control, [b"\n"], [their_out, their_err, theirs.fileno()])
        os.close(their_out)
        os.close(their_err)
        self.stdout, self.stderr = os.fdopen(out), os.fdopen(err)
        self.returncode: int | None = None
        self.pid = int(self._told.recv(16))

    def poll(self) -> int | None:
        return self.wait() if self.returncode is None and select.select([self._told], [], [], 0)[0] else self.returncode

    def wait(self) -> int:
        if self.returncode is None:
            with self._told:
                self.returncode = int(self._told.recv(16))
        return self.returncode

    def communicate(self) -> tuple[str, str]:
        """Whatever is left to read of both pipes, to their end and that of the process."""
        out: list[str] = []
        reader = threading.Thread(target=lambda: out.append("" if self.stdout.closed else self.stdout.read()))
        reader.start()
        err = "" if self.stderr.closed else self.stderr.read()
        reader.join()
        self.stdout.close()
        self.stderr.close()
        self.wait()
        return out[0], err

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Interpreter:
    """The process that is forked, with `modules` imported."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno()), *modules],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            )  # fmt: skip

    def start(self, words: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> Process:
        """Start what `python words` would, in `folder`: `-m` and a module or a file, and arguments."""
        variables = {**os.environ, **(environment or {})}
        return Process(self._control, {"words": [*words], "folder": str(folder), "environ": variables})


@functools.cache
def interpreter(*modules: str) -> Interpreter:
    """The interpreter of this process of tests that has imported `modules`; it ends with the tests."""
    return Interpreter(modules)


def order_of_a_fork(control: socket.socket) -> dict[str, Any] | None:
    """Fork for each that asks for it; returns in each of the forks, with what it is to do, and at the end."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.set_wakeup_fd(wake)
    running: dict[int, socket.socket] = {}
    while True:
        ready = select.select([control, woken], [], [])[0]
        if woken in ready:
            os.read(woken, 4096)
            for pid in [*running]:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    with running.pop(pid) as told, contextlib.suppress(OSError):
                        told.sendall(b"%d" % os.waitstatus_to_exitcode(status))
        if control in ready:
            _, given, _, _ = socket.recv_fds(control, 1, 3)
            if not given:
                return None
            out, err, told_fd = given
            told = socket.socket(fileno=told_fd)
            pid = os.fork()
            if pid == 0:
                break
            told.sendall(b"%d" % pid)
            os.close(out)
            os.close(err)
            running[pid] = told
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(out, 1)
    os.dup2(err, 2)
    with told, told.makefile() as asked:
        order: dict[str, Any] = json.loads(asked.readline())
    for each in (control, *running.values()):
        each.close()
    for fd in (woken, wake, out, err):
        os.close(fd)
    return order


def become(order: dict[str, Any]) -> list[str]:
    """Be the process that is asked for; returns the words of its line."""
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environ"])
    words: list[str] = order["words"]
    sys.orig_argv = [sys.executable, *words]
    sys.path[0] = order["folder"] if words[0] == "-m" else str(Path(words[0]).parent.absolute())
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[1:1] = [path for path in given if path and path not in sys.path[1:]]
    importlib.invalidate_caches()
    sys.argv = words[1:] if words[0] == "-m" else [*words]
    return words


if __name__ == "__main__":
    for name in sys.argv[2:]:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    asked_for = order_of_a_fork(socket.socket(fileno=int(sys.argv[1])))
    if asked_for is not None:
        what = become(asked_for)
        if what[0] == "-m":
            runpy.run_module(what[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(what[0], run_name="__main__")
