"""How long a drain may last."""

from pounce.config import ServerConfig

__all__ = ["DRAIN_MARGIN", "END_MARGIN", "drain_bound"]

END_MARGIN = 8.0
"""Seconds that what ignores its end is waited for, beside the times of the configuration."""
DRAIN_MARGIN = 4.0
"""Seconds that a process may take for its own end, when its workers have ended or were given up."""


def drain_bound(config: ServerConfig, timeout: float | None = None) -> float:
    """Seconds within which a worker ends that is told to, unless it stands still; `timeout` is what its requests have,
    where that is not `shutdown_timeout`."""
    return (config.shutdown_timeout if timeout is None else timeout) + config.shutdown_timeout + END_MARGIN
