"""What the supervisor and a server process say to each other.

    supervisor                      server process
        ── Start ─────────────────────▶   imports the application, starts workers
        ◀─────────── Ready or Failed ──   accepts connections, or ends
        ◀────────────────────── Beat ──   every second from then on
        ◀─────────────────── Recycle ──   wishes to be replaced
        ◀──────────────── WantTotals ──   one of its workers wants to know what all have counted
        ── CollectTotals ─────────────▶   says what its own have
        ◀───────────────── OwnTotals ──   also at its end
        ── Receive, Resize, Limit, ───▶
           ReopenLogs, Tell, AllTotals
        ── Stop, Force ───────────────▶   drains; ends

A server process and an interpreter in it say the same to each other, and Announce and Left. They are tuples: to make a
dataclass of each takes seven times as long, at every start. So they are told apart by their class, and never by `==`.
"""

from typing import NamedTuple

from pounce.config import ServerConfig
from pounce.contract.totals import Totals
from pounce.contract.wire import Fleet
from pounce.errors import PounceError
from pounce.net.bind import Bind
from pounce.supervisor.modes import Mode
from pounce.worker.portion import Limits
from pounce.worker.siblings import Siblings
from pounce.worker.state import Description, WorkerState

__all__ = [
    "BEAT", "AllTotals", "Announce", "Beat", "CollectTotals", "Failed", "Force", "Left", "Limit", "Message",
    "OwnTotals", "Ready", "Receive", "Recycle", "ReopenLogs", "Resize", "Spec", "Start", "Stop", "Tell", "WantTotals",
]  # fmt: skip

BEAT = 1.0
"""Seconds between two messages that all is well."""


class Start(NamedTuple):
    """The first message to a fresh interpreter."""

    folder: str
    """Where it has to be, as a process; empty to stay."""
    path: tuple[str, ...]
    """What sys.path has to be before `spec` can be read."""
    spec: bytes
    """A pickled `Spec`."""


class Spec(NamedTuple):
    """What a server process is to do."""

    config: ServerConfig
    """With this process's share of `Limits`."""
    app: str
    mode: Mode
    workers: int
    """In this process."""
    first_worker: int
    """Number of the first of them."""
    generation: int
    """How often the server was reloaded before."""
    listeners: tuple[tuple[Bind, int], ...]
    """With the numbers of their descriptors."""
    place: int = 0
    """Number of the first of them among those of the real process: interpreters have a part of one."""
    siblings: Siblings | None = None
    """How its workers find those of other processes; None where none of them receives datagrams."""


class Ready(NamedTuple):
    """Connections are accepted."""

    description: Description


class Failed(NamedTuple):
    """The process cannot start."""

    error: PounceError
    traceback: str
    """Of what the application raised; empty where it has no part in it."""


class Beat(NamedTuple):
    """The process is alive, and so far its workers are."""

    workers: tuple[WorkerState, ...]


class Recycle(NamedTuple):
    """The process asks for another one in its place, and serves until that is there."""

    reason: str


class Receive(NamedTuple):
    """Read datagrams from these sockets from now on, and from no others."""

    fds: tuple[int, ...]
    """They travel with the message, and arrive as descriptors of the receiver, who closes them."""


class Resize(NamedTuple):
    """Serve with so many workers."""

    workers: int


class Limit(NamedTuple):
    """Have no more than these: there are more or fewer processes to share the limits with."""

    limits: Limits


class Tell(NamedTuple):
    """How the workers of the whole server are; where `probes` asks for it."""

    fleet: Fleet | None


class WantTotals(NamedTuple):
    """Say what all workers of the server have counted."""

    number: int
    """Comes back in the answer."""


class AllTotals(NamedTuple):
    """What was wanted."""

    number: int
    totals: Totals | None
    """None where it cannot be had."""


class CollectTotals(NamedTuple):
    """Say what your own workers have counted."""

    number: int
    """Comes back in the answer."""


class OwnTotals(NamedTuple):
    """What the workers of the process have counted, those that have ended included."""

    number: int
    """Of the `CollectTotals`; 0 for the last word of a process that ends."""
    totals: Totals


class ReopenLogs(NamedTuple):
    """Open the files of the log again: they were moved away."""


class Announce(NamedTuple):
    """Let health and all answers say that the end is near."""


class Stop(NamedTuple):
    """Drain, then end."""

    empty: bool
    """Take what waits on the listening sockets first: nobody else will."""
    hurry: bool = False
    """Somebody waits for the end; see `Worker.stop()`."""
    timeout: float | None = None
    """Seconds that running requests have to finish; None is `shutdown_timeout`."""


class Force(NamedTuple):
    """End without waiting for what runs."""


class Left(NamedTuple):
    """Threads of the application run on, for which nobody may wait."""


type Message = (
    AllTotals
    | Announce
    | CollectTotals
    | OwnTotals
    | WantTotals
    | Left
    | Start
    | Ready
    | Failed
    | Beat
    | Receive
    | Recycle
    | Resize
    | Limit
    | ReopenLogs
    | Stop
    | Force
    | Tell
)
