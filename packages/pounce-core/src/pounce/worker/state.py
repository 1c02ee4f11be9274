"""What workers tell of themselves, for those who only listen."""

from dataclasses import dataclass

from pounce.display import PLAIN, DisplayConfig

__all__ = ["Description", "WorkerState"]


@dataclass(frozen=True, slots=True)
class Description:
    """What a process tells of how it serves."""

    gil: bool
    """The GIL is on."""
    tls: bool
    wires: tuple[str, ...]
    http_parser: str
    display: DisplayConfig = PLAIN
    """How the application shows itself."""


@dataclass(frozen=True, slots=True)
class WorkerState:
    """How one worker is doing."""

    number: int
    ident: int | None
    """Of its thread."""
    silence: float
    """Seconds since its loop last showed a sign of life."""
    connections: int
    requests: int
    """Running now."""
    served: int
    """Requests since it started."""
    draining: bool
