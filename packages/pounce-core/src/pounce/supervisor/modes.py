"""How many workers a configuration asks for, and what they run in."""

from typing import Literal

from pounce.config import ServerConfig
from pounce.errors import ConfigError
from pounce.gil import gil_enabled
from pounce.supervisor.control_folder import is_named

__all__ = ["Mode", "check_workers", "is_supervised", "mode_of", "workers_of"]

type Mode = Literal["thread", "process", "subinterpreter"]


def workers_of(config: ServerConfig) -> int:
    """The number of workers that a configuration asks for."""
    return config.resolve_workers()


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
        or is_named(config.control_socket)
        or config.user is not None
        or config.group is not None
        or config.preload
    )


def check_workers(config: ServerConfig) -> None:
    """Raises `ConfigError` where the workers are to keep a limit together and have nothing in common to count in, and
    where they cannot report as they are to."""
    if config.worker_mode == "subinterpreter":
        for name in ("otel_endpoint", "sentry_dsn", "sentry_dsn_file"):
            if getattr(config, name) is not None:
                raise ConfigError(
                    f"{name} and worker_mode subinterpreter exclude each other",
                    hint="What sends needs a daemon thread, which interpreters do not have: use thread or process.",
                )
    has_store = config.rate_limit_store is not None or config.rate_limit_store_file is not None
    if not config.rate_limit_enabled or has_store or workers_of(config) == 1:
        return
    if mode_of(config) != "thread":
        raise ConfigError(
            f"rate_limit_enabled needs rate_limit_store where workers are more than one {mode_of(config)}",
            hint="Each would count for itself: set rate_limit_store, or worker_mode thread.",
        )
