"""What brings metrics into a worker where `metrics_enabled` asks for them."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from pounce.errors import ConfigError
from pounce.plugin import API_VERSION, ObserverFactory, Plugin, RequestHead, Responder, Response

if TYPE_CHECKING:
    from pounce.contract.wire import ASGIApp, Service
    from pounce.observe.metrics import Metrics
    from pounce.observe.statsd import Statsd

__all__ = ["plugin"]


def observer(service: Service) -> Metrics | None:
    config = service.config
    # The status page shows them too.
    if not (config.metrics_enabled or config.status_page_enabled or config.statsd_address):
        return None
    from pounce.observe.metrics import Metrics as Found

    return Found(service)


def statsd(service: Service) -> Statsd | None:
    """Raises `ConfigError` where there is no such server."""
    if not service.config.statsd_address:
        return None
    from pounce.observe.statsd import Statsd as Found

    return Found(service)


def responder(service: Service) -> Callable[[RequestHead], Response | ASGIApp | None] | None:
    """Raises `ConfigError` where the package is missing that writes the page."""
    if not service.config.metrics_enabled or not service.config.metrics_path:
        return None
    try:
        from pounce.observe.metrics_page import metrics_page
    except ModuleNotFoundError as exc:
        raise ConfigError(
            "metrics_enabled needs the package prometheus-client",
            hint="Install it: pip install 'pounce-core[metrics]'",
        ) from exc
    return metrics_page(service)


plugin = Plugin(
    name="metrics",
    api=API_VERSION,
    observers=(ObserverFactory(name="metrics", create=observer), ObserverFactory(name="statsd", create=statsd)),
    responders=(Responder(name="metrics", create=responder),),
)
