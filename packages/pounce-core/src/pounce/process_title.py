"""What a process is called in lists of processes."""

from pounce.config import ServerConfig
from pounce.errors import ConfigError

__all__ = ["set_title"]


def set_title(config: ServerConfig, part: str = "") -> None:
    """Name this process as `process_title` says, and `part` of the server. Raises `ConfigError` where the package for
    that is not installed."""
    if config.process_title is None:
        return
    try:
        from setproctitle import setproctitle
    except ImportError as exc:
        raise ConfigError(
            "process_title needs the package setproctitle, which is not installed",
            hint="Install it: pip install 'pounce-core[title]'",
        ) from exc
    setproctitle(f"{config.process_title}: {part}" if part else config.process_title)
