"""Child: a server process as the supervisor sees it, from its start to its end.

    STARTING ──Ready──▶ SERVING ──drain()──▶ DRAINING ──▶ ENDED
        └──── Failed, or it dies ──┴───────────────────────▲
"""

import enum
import os
import signal
import time
from math import inf

from pounce.contract.totals import Totals
from pounce.supervisor.channel import Channel
from pounce.supervisor.messages import Beat, Failed, Force, Ready, Spec, Stop
from pounce.supervisor.signals import DUMP

__all__ = ["Child", "State"]


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
        self.totals = Totals()
        """What it last said that its workers have counted."""
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

    def drain(
        self, *, empty: bool, kill_after: float, hurry: bool = False, timeout: float | None = None
    ) -> None:
        """Let it finish what it has accepted within `timeout`, then end; kill it when it has not after `kill_after`
        seconds. One that drains already has no more time than that from now on."""
        if self.state is not State.ENDED:
            self.state = State.DRAINING
            self.kill_at = min(self.kill_at, time.monotonic() + kill_after)
            self.channel.send(Stop(empty, hurry, timeout))

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
