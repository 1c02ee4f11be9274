"""Settings of the plugin that the server does not share with others."""

from dataclasses import dataclass

from pounce.errors import ConfigError

__all__ = ["H3Settings"]


@dataclass(frozen=True, slots=True)
class H3Settings:
    """`plugin_settings["h3"]`. Raises `ConfigError`."""

    secret: str = ""
    """What the keys of Retry tokens and stateless resets are made from; at least 16 characters. Several processes
    behind one address, and the same server after a restart, need the same one. Without it each process has its own."""
    force_engine: bool = False
    """Use an engine that is not fit for the open network beyond loopback."""

    def __post_init__(self) -> None:
        if not isinstance(self.secret, str) or 0 < len(self.secret) < 16:
            raise ConfigError("h3.secret must be a text of at least 16 characters, or empty")
        if not isinstance(self.force_engine, bool):
            raise ConfigError(f"h3.force_engine must be true or false (got {self.force_engine!r})")
