"""Processes of Python that need not start: copies of one that has imported what they would.

A start of the interpreter and the imports of a server take half a second of CPU, which is all that many tests of a
process take. What is started here is otherwise a process as any, and a child of the one that starts it: its own folder,
environment, pipes and exit code. Who has something to say about the start itself, or about what is imported, starts the
interpreter.

    tests ──start()──▶ original, which has imported ──copy──▶ server, a child of the tests
                                                                └─ has a copy of the original, its own,
                                                                   for the processes that it starts (`Nursery`)
"""

import atexit
import contextlib
import ctypes
import functools
import gc
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
from types import ModuleType, SimpleNamespace
from typing import Any

__all__ = ["NAME", "SERVER", "start"]

SERVER = (
    "pounce.endpoints.plugin", "pounce.exchange.health", "pounce.exchange.pipeline", "pounce.h1.connection",
    "pounce.h1.plugin", "pounce.identity.identity", "pounce.middleware.compression", "pounce.middleware.plugins",
    "pounce.net.tls", "pounce.observe.access_log", "pounce.observe.events_plugin", "pounce.observe.metrics_plugin",
    "pounce.observe.sentry_plugin", "pounce.observe.tracing_plugin", "pounce.registry", "pounce.supervisor.process",
    "pounce.supervisor.supervisor", "pounce.worker.affinity", "pounce.worker.shared", "pounce.worker.standstill",
    "pounce.worker.worker", "pounce_cli.commands", "pounce_cli.errors", "pounce_cli.main", "pounce_cli.plain_line",
    "pounce_cli.serve", "pounce_h1fast.plugin", "pounce_h2.plugin", "pounce_h3.plugin", "pounce_ws.plugin", "uvloop",
)  # fmt: skip
"""What `pounce serve` imports, and the parsing library for what is wrong with a line."""
NAME = "original"
"""What `/proc/PID/comm` calls a process that is only there to be copied."""
PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 15, 36
MOST = 1 << 18
"""Bytes of an order: words and environment."""
MOST_FDS = 100
FREE = 1000
"""Descriptors from here on are nobody's."""

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
    return Copy(words, _original(modules), env=env, text=True, **settings)


class Copy(subprocess.Popen[str]):
    """A process that is a copy of the one at the other end of `original`."""

    def __init__(self, words: Sequence[str], original: socket.socket, **settings: Any) -> None:
        self._original = original
        super().__init__([*words], **settings)

    def _execute_child(self, args: list[str], *rest: Any) -> None:
        kept, cwd, env, pipes, new_session = rest[3], rest[4], rest[5], rest[9:15], rest[-2]
        streams = {0: pipes[0], 1: pipes[3], 2: pipes[5]}
        places = {number: fd for number, fd in streams.items() if fd != -1} | {fd: fd for fd in kept}
        folder = os.open("." if cwd is None else cwd, os.O_PATH)
        told, tell = os.pipe()
        order = {
            "words": args, "environ": dict(os.environ) if env is None else env, "new_session": new_session,
            "blocked": [*signal.pthread_sigmask(signal.SIG_BLOCK, ())], "places": [*places],
        }  # fmt: skip
        try:
            # Who adopts does so until the copy is there, and others may be started at the same time.
            with _one_at_a_time:
                _adopt(True)
                socket.send_fds(self._original, [json.dumps(order).encode()], [tell, folder, *places.values()])
                os.close(tell)
                pid = os.read(told, 100)
                _adopt(False)
        finally:
            os.close(told)
            os.close(folder)
        assert pid, "the process that is copied has ended"
        self.pid = int(pid)
        self._child_created = True
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


# In the process that is copied, and in copies


def order_of_a_copy(control: socket.socket) -> dict[str, Any] | None:
    """Make a copy for each order; returns in the copy with its order, and with None when there are no more."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, NAME.encode(), 0, 0, 0)
    # What a terminal sends to all that it has started, or a test to a group, is for others.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        data, fds, _, _ = socket.recv_fds(control, MOST, MOST_FDS)
        if not data:
            return None
        read, write = os.pipe()
        # Ends at once, so that the copy is adopted.
        between = os.fork()
        if not between:
            pid = os.fork()
            if pid:
                os.write(write, str(pid).encode())
                os._exit(0)
            for fd in (read, write, control.detach()):
                os.close(fd)
            order: dict[str, Any] = json.loads(data)
            _take(order, fds)
            return order
        os.close(write)
        pid_of_copy = os.read(read, 100)
        os.close(read)
        os.waitpid(between, 0)
        os.write(fds[0], pid_of_copy)
        for fd in fds:
            os.close(fd)


def _take(order: dict[str, Any], fds: list[int]) -> None:
    """Have the folder and the descriptors of an order, and the name and the signals of a process that starts."""
    tell, folder, *given = fds
    os.fchdir(folder)
    os.close(tell)
    os.close(folder)
    # One may have come at the place of another.
    moved = []
    for fd in given:
        moved.append(FREE + len(moved))
        os.dup2(fd, moved[-1])
        os.close(fd)
    for place, fd in zip(order["places"], moved, strict=True):
        os.dup2(fd, place)
        os.close(fd)
    ctypes.CDLL(None).prctl(PR_SET_NAME, b"python3.14t", 0, 0, 0)
    # Whatever runs the tests may run them with it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, order["blocked"])


class Nursery:
    """A copy of this process as it is now, to be copied for the processes that this one starts."""

    def __init__(self) -> None:
        """Returns in those as well, and there with an order."""
        self.order: dict[str, Any] | None = None
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork():
            theirs.close()
            self._looks = _looks()
            return
        self._ours.close()
        self.order = order_of_a_copy(theirs)
        if self.order is None:
            os._exit(0)

    def popen(self, words: Sequence[str], **settings: Any) -> subprocess.Popen[Any]:
        if _looks() != self._looks:
            return subprocess.Popen(words, **settings)
        return Copy(words[1:], self._ours, **settings)


def _looks() -> list[str]:
    """What a process leaves to those that it starts, and may change."""
    wanted = ("Uid", "Gid", "Groups", "Umask", "Cpus_allowed", "Seccomp", "NoNewPrivs")
    return [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(wanted)]


def become(order: dict[str, Any]) -> None:
    """Be as if started so, and run what was asked for."""
    words: list[str] = order["words"]
    if order["new_session"]:
        os.setsid()
    os.environ.clear()
    os.environ.update(order["environ"])
    if words[:3] == ["-m", "pounce_cli", "serve"] and not {"--workers", "--worker-mode", "--reload"}.isdisjoint(words):
        nursery = Nursery()
        if nursery.order is not None:
            become(nursery.order)
            return
        launch: Any = importlib.import_module("pounce.supervisor.launch")
        flags = subprocess._args_from_interpreter_flags  # type: ignore[attr-defined]
        launch.subprocess = SimpleNamespace(Popen=nursery.popen, _args_from_interpreter_flags=flags)
    sys.orig_argv[1:] = words
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[1:1] = [path for path in given if path and path not in sys.path[1:]]
    importlib.invalidate_caches()
    if words[0] == "-m":
        sys.path[0] = os.getcwd()
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[-2:-1] == ["-c"]:
        del sys.path[0]
        sys.argv = ["-c"]
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(words[-1], vars(main))
    else:
        sys.path[0] = str(Path(words[0]).parent.absolute())
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


def main() -> None:
    """Be copied as long as somebody asks, and do in a copy what it is for."""
    for name in sys.argv[2:]:
        # Not every package is everywhere.
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()
    order = order_of_a_copy(socket.socket(fileno=int(sys.argv[1])))
    if order is not None:
        _run(order)


def _run(order: dict[str, Any]) -> None:
    """Do what is asked for, to the end. That of the interpreter takes a tenth of a second, to clear what all copies
    have."""
    code = 0
    try:
        become(order)
    except KeyboardInterrupt:
        raise
    except SystemExit as exc:
        if isinstance(exc.code, str):
            print(exc.code, file=sys.stderr)
        code = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF)


if __name__ == "__main__":
    main()
