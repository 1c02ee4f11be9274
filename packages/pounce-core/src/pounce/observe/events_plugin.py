"""What tells collectors of events, where there are any."""

from typing import TYPE_CHECKING

from pounce.plugin import API_VERSION, ObserverFactory, Plugin

if TYPE_CHECKING:
    from pounce.contract.wire import Service
    from pounce.observe.events import Events

__all__ = ["plugin"]


def create(service: Service) -> Events | None:
    """Raises `AppImportError` and `ConfigError` for a collector that cannot be had, or is none."""
    config = service.config
    if config.lifecycle_collector is None and not config.lifecycle_logging:
        return None
    from pounce.observe.events import Events as Found
    from pounce.observe.events import collectors_of

    return Found(service, collectors_of(config))


plugin = Plugin(name="events", api=API_VERSION, observers=(ObserverFactory(name="events", create=create),))
