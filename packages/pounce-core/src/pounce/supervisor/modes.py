"""How many workers a configuration asks for, and what they run in."""

from typing import Literal

from pounce.config import ServerConfig
from pounce.gil import gil_enabled
from pounce.supervisor.cpus import usable_cpus

__all__ = ["Mode", "is_supervised", "mode_of", "workers_of"]

type Mode = Literal["thread", "process", "subinterpreter"]


def workers_of(config: ServerConfig) -> int:
    """The number of workers that a configuration asks for."""
    return config.workers or usable_cpus()


def mode_of(config: ServerConfig) -> Mode:
    """What its workers run in."""
    match config.worker_mode:
        case "thread" | "process" | "subinterpreter":
            return config.worker_mode
        case _:
            return "process" if gil_enabled() else "thread"


def is_supervised(config: ServerConfig) -> bool:
    """Whether it takes more than one loop in the calling process."""
    return (
        workers_of(config) > 1
        or config.worker_mode in ("process", "subinterpreter")
        or config.reload
        or bool(config.max_requests or config.max_lifetime or config.max_rss)
        or config.control_socket is not None
    )
