"""Processes of Python that need not start: copies of one that has imported what they would.

A start of the interpreter and the imports of a server take half a second of CPU, which is all that many tests of a
process take. What is started here is otherwise a process as any, and a child of the process of the tests: its own
folder, environment, pipes and exit code. The processes that a server starts are as fresh as ever. Who has something to
say about the start itself, or about what is imported, starts the interpreter.
"""

import atexit
import contextlib
import ctypes
import functools
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["SERVER", "start"]

SERVER = (
    "pounce_cli.commands", "pounce_cli.errors", "pounce_cli.plain_line", "pounce_cli.serve",
    "pounce.endpoints.plugin", "pounce.exchange.health", "pounce.exchange.pipeline", "pounce.h1.connection",
    "pounce.h1.plugin", "pounce.identity.identity", "pounce.middleware.compression", "pounce.middleware.plugins",
    "pounce.observe.access_log", "pounce.observe.events_plugin", "pounce.observe.metrics_plugin",
    "pounce.observe.sentry_plugin", "pounce.observe.tracing_plugin", "pounce.registry", "pounce.supervisor.supervisor",
    "pounce.worker.affinity", "pounce.worker.shared", "pounce.worker.standstill", "pounce.worker.worker",
    "pounce_h1fast.plugin", "pounce_h2.plugin", "pounce_h3.plugin", "pounce_ws.plugin", "uvloop",
)  # fmt: skip
"""What `pounce serve` imports, and the parsing library for what is wrong with a line."""
PR_SET_CHILD_SUBREAPER = 36
MOST = 1 << 18
"""Bytes of an order: words and environment."""

_one_at_a_time = threading.Lock()


def start(
    words: Sequence[str],
    *,
    modules: tuple[str, ...] = SERVER,
    environ: Mapping[str, str] | None = None,
    fresh: bool = False,
    **settings: Any,
) -> subprocess.Popen[str]:
    """Start what `python words` would: `-m` and a module, or a file, and arguments.

    `environ` is what is set beside the environment of this process; `settings` are those of `subprocess.Popen`. It is a
    copy of a process that has imported `modules`, unless it is to be `fresh`, or the interpreter itself is told
    something by its environment.
    """
    env = {**os.environ, **(environ or {})}
    if fresh or sys.platform != "linux" or any(name.startswith("PYTHON") for name in environ or ()):
        return subprocess.Popen([sys.executable, *words], env=env, text=True, **settings)
    return Copy(words, modules, env=env, text=True, **settings)


class Copy(subprocess.Popen[str]):
    """A process that is a copy of one that has imported `modules`."""

    def __init__(self, words: Sequence[str], modules: tuple[str, ...], **settings: Any) -> None:
        self._modules = modules
        super().__init__([*words], **settings)

    def _execute_child(self, args: list[str], *rest: Any) -> None:
        cwd, env, pipes, new_session = rest[4], rest[5], rest[9:15], rest[-2]
        streams = {0: pipes[0], 1: pipes[3], 2: pipes[5]}
        given = {number: fd for number, fd in streams.items() if fd != -1}
        order = {
            "words": args, "folder": os.getcwd() if cwd is None else str(cwd), "environ": env,
            "new_session": new_session, "streams": [*given],
        }  # fmt: skip
        # Tests start several at once: each answer is to the order before it, and who adopts does so until it is there.
        with _one_at_a_time:
            original = _original(self._modules)
            _adopt(True)
            try:
                socket.send_fds(original, [json.dumps(order).encode()], [*given.values()])
                pid = original.recv(100)
                assert pid, "the process that is copied has ended"
                self.pid = int(pid)
                self._child_created = True
            finally:
                _adopt(False)
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


def _adopt(on: bool) -> None:
    """Whether what is started below this process becomes a child of it when whoever started it ends."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl failed")


@functools.cache
def _original(modules: tuple[str, ...]) -> socket.socket:
    """The way to the process that is copied, which ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno()), *modules],
            pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


# In the process that is copied


def order_of_a_copy(control: socket.socket) -> dict[str, Any] | None:
    """Make a copy for each order; returns in the copy with its order, and with None when there are no more."""
    while True:
        data, fds, _, _ = socket.recv_fds(control, MOST, 3)
        if not data:
            return None
        told, tell = os.pipe()
        # Ends at once, so that the copy is adopted.
        between = os.fork()
        if not between:
            pid = os.fork()
            if pid:
                os.write(tell, str(pid).encode())
                os._exit(0)
            os.close(told)
            os.close(tell)
            order: dict[str, Any] = json.loads(data)
            for number, fd in zip(order["streams"], fds, strict=True):
                os.dup2(fd, number)
                os.close(fd)
            return order
        os.close(tell)
        for fd in fds:
            os.close(fd)
        pid_of_copy = os.read(told, 100)
        os.close(told)
        os.waitpid(between, 0)
        control.send(pid_of_copy)


def become(order: dict[str, Any]) -> None:
    """Be as if started so, and run what was asked for."""
    words, folder = order["words"], order["folder"]
    if order["new_session"]:
        os.setsid()
    os.environ.clear()
    os.environ.update(order["environ"])
    os.chdir(folder)
    sys.orig_argv[1:] = words
    sys.path[0] = folder if words[0] == "-m" else str(Path(words[0]).parent.absolute())
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[1:1] = [path for path in given if path and path not in sys.path[1:]]
    importlib.invalidate_caches()
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


def main() -> None:
    """Be copied as long as somebody asks, and do in a copy what it is for."""
    # What a terminal sends to all that it has started is for the tests.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in sys.argv[2:]:
        # Not every package is everywhere.
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)
    with socket.socket(fileno=int(sys.argv[1])) as control:
        order = order_of_a_copy(control)
    if order is not None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        become(order)


if __name__ == "__main__":
    main()
