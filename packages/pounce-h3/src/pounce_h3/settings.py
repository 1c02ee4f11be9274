"""Settings of the plugin that the server does not share with others."""

from dataclasses import dataclass

from pounce.errors import ConfigError

__all__ = ["H3Settings"]


@dataclass(frozen=True, slots=True)
class H3Settings:
    """`plugin_settings["h3"]`. Raises `ConfigError`."""

    secret: str = ""
    """What the keys of Retry tokens, stateless resets and connection ids are made from; at least 16 characters. Several
    servers behind one address, and the same server after a restart, need the same one. Without it the server draws one,
    which its processes share."""

    def __post_init__(self) -> None:
        if not isinstance(self.secret, str) or 0 < len(self.secret) < 16:
            raise ConfigError("h3.secret must be a text of at least 16 characters, or empty")
