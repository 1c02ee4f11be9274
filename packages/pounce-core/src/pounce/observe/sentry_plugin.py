"""What brings reports to Sentry into a worker where `sentry_dsn` asks for them."""

from typing import TYPE_CHECKING

from pounce.errors import ConfigError
from pounce.plugin import API_VERSION, MiddlewareChoice, Plugin

if TYPE_CHECKING:
    from pounce.contract.wire import ASGIApp, Service

__all__ = ["plugin"]


def create(service: Service, app: ASGIApp) -> ASGIApp | None:
    """Raises `ConfigError` where the SDK is missing, or cannot do what the settings say."""
    if service.config.sentry_dsn is None and service.config.sentry_dsn_file is None:
        return None
    try:
        from pounce.observe.sentry import reported
    except ModuleNotFoundError as exc:
        raise ConfigError(
            f"sentry_dsn needs the SDK of Sentry ({exc.name} is missing)",
            hint="Install it: pip install 'pounce-core[sentry]'",
        ) from exc
    return reported(service, app)


plugin = Plugin(
    name="sentry", api=API_VERSION, middleware=(MiddlewareChoice(name="sentry", create=create, where="outer"),)
)
