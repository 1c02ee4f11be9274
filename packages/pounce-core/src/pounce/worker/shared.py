"""Shared: what the workers of one process have in common, made once before they start."""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pounce.config import ServerConfig
from pounce.errors import ConfigError
from pounce.exchange.service import ASGIApp
from pounce.gil import gil_enabled
from pounce.importer import adapted, called, import_app
from pounce.net.bind import binds_of
from pounce.registry import Registry
from pounce.worker.state import Description

if TYPE_CHECKING:
    from pounce.net.tls import ServerTLS

__all__ = ["Shared", "prepare"]

log = logging.getLogger("pounce")


@dataclass(frozen=True, slots=True)
class Shared:
    """What the workers of one process have in common; nothing of it changes while they serve, but for certificates
    that are renewed."""

    config: ServerConfig
    app: ASGIApp
    registry: Registry
    tls: ServerTLS | None
    generation: int = 0
    """How often the server was reloaded before this process started."""

    def describe(self) -> Description:
        """How it is served."""
        return Description(
            gil=gil_enabled(),
            tls=self.tls is not None,
            wires=tuple(self.registry.wires),
            http_parser=self.registry.parser(self.config.http_parser).name,
        )


def prepare(config: ServerConfig, app: ASGIApp | str, registry: Registry | None = None, generation: int = 0) -> Shared:
    """Find the plugins, import or make the application, read the certificate. Raises a `PounceError`."""
    registry = registry or Registry.discover(config)
    _report_plugins(registry)
    loaded = _load_app(app, config)
    return Shared(config, loaded, registry, _tls(config, registry), generation)


def _load_app(app: ASGIApp | str, config: ServerConfig) -> ASGIApp:
    """The application itself, for one that is named or made by a factory. Raises a `PounceError`."""
    if isinstance(app, str):
        loaded: ASGIApp
        loaded, culprit = import_app(app, config)
        if culprit is not None:
            log.warning("Importing %s switched the GIL on: workers will not run in parallel", culprit)
        return loaded
    made = called(app, repr(app)) if config.factory else app
    if not callable(made):
        raise ConfigError(f"app must be an ASGI application or module:attribute (got {made!r})")
    checked: ASGIApp = adapted(made)
    return checked


def _tls(config: ServerConfig, registry: Registry) -> ServerTLS | None:
    # Also without TLS: whether the wires that binds name are there shows before anything is opened.
    offers = [registry.wire_table(bind.wires).alpn for bind in binds_of(config)]
    if not config.uses_tls:
        return None
    from pounce.net.tls import ServerTLS

    return ServerTLS(config, registry.wire_table().alpn, offers)


def _report_plugins(registry: Registry) -> None:
    for entry in registry.loaded:
        if entry.skipped and not entry.skipped.startswith(("disabled", "plugins are off", "not among")):
            log.warning("Plugin %s (%s) is skipped: %s", entry.name, entry.distribution, entry.skipped)
        if entry.gil_enabled:
            log.warning("Plugin %s (%s) switched the GIL on", entry.name, entry.distribution)
