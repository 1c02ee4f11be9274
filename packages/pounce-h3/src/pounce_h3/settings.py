"""Settings of the plugin that the server does not share with others."""

from dataclasses import dataclass

from pounce.errors import ConfigError
from pounce.plugin import option

__all__ = ["H3Settings"]


@dataclass(frozen=True, slots=True)
class H3Settings:
    """`plugin_settings["h3"]`. Raises `ConfigError`.

    Several servers behind one address, and the same server after a restart, need the same secret. Without it the server
    draws one, which its processes share.
    """

    secret: str = option(
        "",
        "What the keys of Retry tokens, stateless resets and connection ids are made from; at least 16 characters.",
        secret=True,
    )
    zoomies_beyond_loopback: bool = option(
        False, "Let the engine zoomies be reached from other machines. It was not made for peers that mean harm."
    )

    def __post_init__(self) -> None:
        if 0 < len(self.secret) < 16:
            raise ConfigError("h3.secret must be a text of at least 16 characters, or empty")
