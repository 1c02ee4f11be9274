"""Hot upgrade: a new supervisor, started by the same command line, takes over from the one that serves.

    the old one                            the new one
        ── starts it, with the sockets ──▶   starts its processes on them
        ◀───────────── "ready" ──────────   serves; the PID file and the control socket are its own by now
        drains and ends                      goes on
        ◀────── the end of the pipe ─────   cannot start: the old one goes on as if nothing had been

The two may be of different versions, so they agree on no more than this: descriptors by number, a pipe, and JSON in
the variable LISTEN_FDS_OF_POUNCE. Their processes hand datagrams on to each other (worker/mailbox.py).
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pounce.errors import SupervisorError
from pounce.net.bind import Listener, Passed, names_of
from pounce.supervisor.datagrams import PassedDatagrams
from pounce.supervisor.start_folder import StartFolder
from pounce.variables import inheritable
from pounce.worker.siblings import Siblings

__all__ = ["Predecessor", "Successor"]

VARIABLE = "LISTEN_FDS_OF_POUNCE"
READY = b"ready"
PATIENCE = 5.0
"""Seconds that a process may take for its end."""


class Predecessor:
    """The supervisor that this process takes over from."""

    def __init__(
        self, pid: int, report: int, sockets: list[Passed], datagrams: PassedDatagrams | None, generation: int
    ) -> None:
        self.pid = pid
        self.sockets = sockets
        self.datagrams = datagrams
        self.generation = generation
        """How often it had been reloaded."""
        self._report = report

    @classmethod
    def from_environ(cls) -> Self | None:
        """None for a process that was not started by an upgrade. What is found is for this process alone, and once."""
        text = os.environ.pop(VARIABLE, "")
        try:
            found = json.loads(text)
            pid, report = int(found["pid"]), int(found["report"])
            sockets = [Passed(**each) for each in found["sockets"]]
            datagrams = found.get("datagrams")
            generation = int(found["generation"])
        except ValueError, KeyError, TypeError:
            return None
        if pid != os.getppid():
            return None
        fds = datagrams["fds"] if datagrams is not None else []
        for fd in (report, *(passed.fd for passed in sockets), *fds):
            os.set_inheritable(fd, False)
        if os.environ.get("WATCHDOG_PID") == str(pid):
            os.environ["WATCHDOG_PID"] = str(os.getpid())
        return cls(pid, report, sockets, _datagrams_from(datagrams) if datagrams is not None else None, generation)

    def descriptors(self) -> list[int]:
        """What a fork has no business with."""
        return [self._report] if self._report >= 0 else []

    def relieve(self) -> None:
        """Tell it that everything is served here."""
        try:
            os.write(self._report, READY)
        except OSError:
            # It has died; then nobody is left to be told.
            pass
        self.close()

    def close(self) -> None:
        """Without `relieve()` before, it goes on."""
        if self._report >= 0:
            os.close(self._report)
            self._report = -1


class Successor:
    """The supervisor that is to take over from this process."""

    def __init__(
        self,
        sets: Sequence[Sequence[Listener]],
        datagrams: PassedDatagrams | None,
        folder: StartFolder,
        generation: int,
    ) -> None:
        """Start it. Raises `SupervisorError` where that cannot be, and `OSError`."""
        _check()
        self._news, report = os.pipe()
        secret = -1
        try:
            os.set_blocking(self._news, False)
            names = names_of([listener.bind for listener in sets[0]])
            passed = [
                {"name": names[id(listener.bind)], "twins": number, "fd": listener.sock.fileno(), "file": listener.file}
                for number, listeners in enumerate(sets)
                for listener in listeners
            ]
            found: dict[str, object] = {
                "pid": os.getpid(),
                "report": report,
                "sockets": passed,
                "generation": generation,
            }
            fds = [report, *(listener.sock.fileno() for listeners in sets for listener in listeners)]
            if datagrams is not None:
                # The environment of a process is easily shown, and copied to others.
                secret = _readable(datagrams.siblings.secret)
                found["datagrams"] = {
                    "fds": datagrams.fds,
                    "folder": datagrams.siblings.folder,
                    "process": datagrams.siblings.process,
                    "secret": secret,
                }
                fds += [secret, *datagrams.fds]
            self._process = subprocess.Popen(
                [folder.renamed(sys.executable), *sys.orig_argv[1:]],
                cwd=folder.name,
                env=inheritable() | {VARIABLE: json.dumps(found)},
                pass_fds=fds,
            )
        except BaseException:
            os.close(self._news)
            raise
        finally:
            os.close(report)
            if secret >= 0:
                os.close(secret)
        self.pid = self._process.pid

    def fileno(self) -> int:
        return self._news

    def is_ready(self) -> bool | None:
        """What the pipe says: whether it serves, or has ended; None as long as neither."""
        try:
            return bool(os.read(self._news, len(READY)))
        except BlockingIOError:
            return None

    def end_in_words(self) -> str:
        """How it ended, for people; only when `is_ready()` was False."""
        try:
            code = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return f"exited with {code}" if code >= 0 else f"was killed by signal {-code}"

    def give_up(self) -> None:
        """It is to end, as this process does."""
        self._process.terminate()

    def close(self) -> None:
        """Let go of it."""
        os.close(self._news)
        # From now on it belongs to whoever adopts it.
        self._process.returncode = self._process.returncode or 0


def _readable(data: bytes) -> int:
    """A descriptor from which this can be read once."""
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    return reader


def _datagrams_from(found: dict[str, Any]) -> PassedDatagrams:
    with open(found["secret"], "rb") as pipe:
        secret = pipe.read()
    return PassedDatagrams(tuple(found["fds"]), Siblings(secret, found["folder"], found["process"]))


def _check() -> None:
    """Raises `SupervisorError` where the command line cannot be run again, or must not."""
    if os.getpid() == 1:
        raise SupervisorError("the end of process 1 ends all others: start a new container instead")
    main = sys.modules.get("__main__")
    repeatable = sys.argv[:1] == ["-c"] or Path(getattr(main, "__file__", None) or "").is_file()
    if len(sys.orig_argv) < 2 or not repeatable:
        raise SupervisorError("the command line that started this program cannot be run again")
