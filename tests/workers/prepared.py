"""Commands that start as copies of a process which has imported already what they need.

To start Python and to import is most of what a command costs, and each time the same. The processes that a server
starts are as fresh as ever; who has something to say about the start, or about what is imported, has one of its own.
What comes of a copy is a child of the process of the tests, as any other is.
"""

import atexit
import contextlib
import ctypes
import functools
import importlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

__all__ = ["PreparedCommand", "can_prepare"]

MODULES = (
    "pounce.h1.plugin", "pounce.middleware.plugins", "pounce.supervisor.supervisor", "pounce.worker.affinity",
    "pounce.worker.shared", "pounce.worker.standstill", "pounce.worker.worker", "pounce_cli.__main__",
    "pounce_cli.commands", "pounce_cli.plain_line", "pounce_cli.serve", "pounce_h1fast.plugin", "pounce_h2.plugin",
    "pounce_h3.plugin", "pounce_ws.plugin", "uvloop",
)  # fmt: skip
PR_SET_CHILD_SUBREAPER = 36
MOST = 1 << 18
"""Bytes of an order: words and environment."""


_one_at_a_time = threading.Lock()


def can_prepare(environ: Mapping[str, str]) -> bool:
    """Whether a copy is what a start would be: not where the interpreter itself is told something."""
    return sys.platform == "linux" and not any(name.startswith("PYTHON") for name in environ)


class PreparedCommand(subprocess.Popen[str]):
    """What `python -m pounce_cli` with the words in `args` is, as a copy."""

    def _execute_child(self, args: list[str], *rest: Any) -> None:
        cwd, env, pipes, new_session = rest[4], rest[5], rest[9:15], rest[-2]
        streams = {0: pipes[0], 1: pipes[3], 2: pipes[5]}
        given = {number: fd for number, fd in streams.items() if fd != -1}
        order = {
            "words": args, "folder": None if cwd is None else str(cwd), "environ": env or {**os.environ},
            "new_session": new_session, "streams": [*given],
        }  # fmt: skip
        # Tests start several at once: each answer is to the order before it, and who adopts does so until it is there.
        with _one_at_a_time:
            original = _original()
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
def _original() -> socket.socket:
    """The way to the process that is copied, which ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen([sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()])

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
    """Be as if started so."""
    program = sys.modules["pounce_cli.__main__"]
    if order["new_session"]:
        os.setsid()
    os.environ.clear()
    os.environ.update(order["environ"])
    if order["folder"] is not None:
        os.chdir(order["folder"])
    sys.modules["__main__"] = program
    sys.argv = [str(program.__file__), *order["words"]]
    sys.orig_argv[1:] = ["-m", "pounce_cli", *order["words"]]


def main() -> int:
    """Be copied as long as somebody asks; gives the exit code of the command in a copy."""
    # The folder of this file.
    del sys.path[0]
    for name in MODULES:
        # Not every package is everywhere.
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)
    with socket.socket(fileno=int(sys.argv[1])) as control:
        order = order_of_a_copy(control)
    if order is None:
        return 0
    become(order)
    code: int = sys.modules["pounce_cli.__main__"].run()
    return code


if __name__ == "__main__":
    sys.exit(main())
