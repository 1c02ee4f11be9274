"""How an application shows itself at the start: its own name in the banner and in the log, in place of the server's.

Each part is what settings say (`app_name`, `app_tagline`, `app_version`, `app_lines`, `signage`), else `display`, else
`__pounce_display__` of the application: a mapping with the same names, or a function that gives one.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from pounce.errors import ConfigError

if TYPE_CHECKING:
    from pounce.config import ServerConfig

__all__ = ["PLAIN", "DisplayConfig", "display_of"]

log = logging.getLogger("pounce")

SIGNAGE = ("full", "minimal", "off")


@dataclass(frozen=True, slots=True)
class DisplayConfig:
    """What the banner says of an application; None leaves it to others. Raises `ConfigError`."""

    name: str | None = None
    tagline: str | None = None
    version: str | None = None
    lines: tuple[str, ...] = ()
    signage: str | None = None
    """How much of a banner: full, minimal or off."""

    def __post_init__(self) -> None:
        for name in ("name", "tagline", "version"):
            if not isinstance(getattr(self, name), str | None):
                raise ConfigError(f"display.{name} must be a string or none (got {getattr(self, name)!r})")
        if isinstance(self.lines, str) or not all(isinstance(line, str) for line in self.lines):
            raise ConfigError(f"display.lines must be strings (got {self.lines!r})")
        object.__setattr__(self, "lines", tuple(self.lines))
        if self.signage is not None and self.signage not in SIGNAGE:
            raise ConfigError(f"display.signage must be one of {', '.join(SIGNAGE)} (got {self.signage!r})")

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """One from a mapping by the names of the fields. Raises `ConfigError`."""
        known = {field.name for field in fields(cls)}
        for name in given:
            if name not in known:
                raise ConfigError(f"display has no {name!r}", hint=f"It takes {', '.join(sorted(known))}.")
        return cls(**given)

    def over(self, other: DisplayConfig) -> DisplayConfig:
        """This one, with what it leaves open from the other."""
        return DisplayConfig(*(getattr(self, field.name) or getattr(other, field.name) for field in fields(self)))


PLAIN = DisplayConfig()
"""Nobody has said anything."""


def display_of(config: ServerConfig, app: object = None) -> DisplayConfig:
    """What is shown, by the settings and by what the application says of itself. A mistake of the latter is a warning
    in the log: the start does not fail for it."""
    settings = DisplayConfig(config.app_name, config.app_tagline, config.app_version, config.app_lines, config.signage)
    if config.display is not None:
        settings = settings.over(config.display)
    said = getattr(app, "__pounce_display__", None)
    if said is None:
        return settings
    try:
        return settings.over(DisplayConfig.of(said() if callable(said) else said))
    except Exception as exc:  # noqa: BLE001 - whatever an application does there, it is served
        log.warning("__pounce_display__ of the application is not used: %s: %s", type(exc).__name__, exc)
        return settings
