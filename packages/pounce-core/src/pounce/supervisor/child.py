"""Child: a server process as the supervisor sees it, from its start to its end.

    STARTING ──Ready──▶ SERVING ──drain()──▶ DRAINING ──▶ ENDED
        └──── Failed, or it dies ──┴───────────────────────▲
"""

import enum
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pounce
from pounce.errors import ConfigError
from pounce.supervisor.channel import Channel
from pounce.supervisor.messages import Beat, Failed, Force, Ready, Spec, Start, Stop
from pounce.supervisor.start_folder import StartFolder

if TYPE_CHECKING:
    from pounce.exchange.service import ASGIApp

__all__ = ["DUMP", "SUPERVISORS", "Child", "State", "fork", "spawn"]

START = """\
import sys
sys.path.insert(0, {folder!r})
from pounce.supervisor.process import main
main({fd})
"""

DUMP = signal.SIGUSR2
"""Makes a server process write the stacks of its threads to stderr, also when Python itself stands still."""
SUPERVISORS = frozenset(
    {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1}
)
"""Signals of a terminal or a process manager, which reach all processes of the server and are for the supervisor."""


class State(enum.Enum):
    """See the top of the file."""

    STARTING = enum.auto()
    SERVING = enum.auto()
    DRAINING = enum.auto()
    ENDED = enum.auto()


class Child:
    """A process of ours, running or ended. Nobody else waits for it."""

    def __init__(self, pid: int, channel: Channel, spec: Spec) -> None:
        self.pid = pid
        self.channel = channel
        self.spec = spec
        self.state = State.STARTING
        self.started = time.monotonic()
        self.heard = self.started
        """When it last said anything."""
        self.ready: Ready | None = None
        self.failed: Failed | None = None
        self.beat: Beat | None = None
        self.recycle: str | None = None
        """Why it asked to be replaced, when its generation had not taken over yet."""
        self.silent = False
        """It said nothing for too long."""
        self.kill_at = inf
        """When a process that drains is given up."""
        self.exit_code: int | None = None
        """The negative number of a signal where one ended it."""

    def __repr__(self) -> str:
        return f"process {self.pid}"

    def drain(self, *, empty: bool, kill_after: float, hurry: bool = False) -> None:
        """Let it finish what it has accepted, then end; kill it when it has not after `kill_after` seconds."""
        if self.state in (State.STARTING, State.SERVING):
            self.state = State.DRAINING
            self.kill_at = time.monotonic() + kill_after
            self.channel.send(Stop(empty, hurry))

    def force(self, *, kill_after: float) -> None:
        """Let it end at once; kill it when it has not after `kill_after` seconds."""
        if self.state is not State.ENDED:
            self.state = State.DRAINING
            self.kill_at = time.monotonic() + kill_after
            self.channel.send(Force())

    def kill(self) -> None:
        """End it without asking."""
        if self.state is not State.ENDED:
            self.kill_at = inf
            os.kill(self.pid, signal.SIGKILL)

    def dump_stacks(self) -> None:
        """Make it write the stacks of its threads to stderr."""
        if self.state is not State.ENDED:
            os.kill(self.pid, DUMP)

    def has_ended(self) -> bool:
        """Whether it has; sets `exit_code` and lets go of it then."""
        return self._wait(os.WNOHANG)

    def wait(self) -> None:
        """Wait until it has."""
        self._wait(0)

    def _wait(self, options: int) -> bool:
        if self.state is State.ENDED:
            return True
        try:
            pid, status = os.waitpid(self.pid, options)
        except ChildProcessError:
            # Somebody else in this process waits for whatever ends.
            pid, status = self.pid, 0
        if not pid:
            return False
        self.state = State.ENDED
        self.exit_code = os.waitstatus_to_exitcode(status)
        return True

    def end_in_words(self) -> str:
        """How it ended, for people."""
        code = self.exit_code or 0
        if code >= 0:
            return f"exited with {code}"
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """A process that is started within has them blocked until it has its handlers (process.py)."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SUPERVISORS | {DUMP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def spawn(spec: Spec, folder: StartFolder) -> Child:
    """Start a fresh interpreter in `folder` that does what `spec` says; the application is named in it.

    Raises `ConfigError` for settings that cannot leave this process.
    """
    try:
        pickled = pickle.dumps(spec)
    except (pickle.PicklingError, AttributeError, TypeError) as exc:
        raise ConfigError(
            f"a setting cannot be handed to another process: {exc}",
            hint="Functions must be found by their name in a module that can be imported.",
        ) from exc
    channel, theirs = Channel.pair()
    with theirs:
        # A current directory in front (-c puts one there, -P does not) could hide modules of the standard library.
        code = START.format(folder=str(Path(pounce.__file__).parents[1]), fd=theirs.fileno())
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        with _signals_held_back():
            process = subprocess.Popen(
                [sys.executable, *flags, "-P", "-c", code],
                pass_fds=(theirs.fileno(), *(fd for _, fd in spec.listeners)),
            )
    # Only `Child` waits for it.
    process.returncode = 0
    channel.send(Start(folder.name, folder.all_renamed(sys.path), pickled))
    return Child(process.pid, channel, spec)


def fork(spec: Spec, app: ASGIApp, foreign: Iterable[int]) -> Child:
    """Start a copy of this process that does what `spec` says with `app`; it closes the descriptors in `foreign`."""
    channel, theirs = Channel.pair()
    sys.stdout.flush()
    sys.stderr.flush()
    with _signals_held_back(), warnings.catch_warnings():
        # The only other thread is the one that writes the log, and the child uses nothing of it.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
        if not pid:
            _forked(Channel(theirs), spec, app, (channel.fileno(), *foreign))
    theirs.close()
    return Child(pid, channel, spec)


def _forked(channel: Channel, spec: Spec, app: ASGIApp, foreign: Iterable[int]) -> NoReturn:
    code = 1
    try:
        import logging

        from pounce.supervisor.process import handle_signals, serve

        handle_signals()
        signal.set_wakeup_fd(-1)
        # A process must see the end of its channel when its supervisor is gone, so no other may hold it.
        for fd in foreign:
            os.close(fd)
        logging.getLogger("pounce").handlers.clear()
        code = serve(channel, spec, app)
        # As multiprocessing does: wait for threads, within the bound that they were given.
        threading._shutdown()  # type: ignore[attr-defined]
    except BaseException:  # noqa: BLE001 - nothing may get back into the code that forked
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        os._exit(code)
