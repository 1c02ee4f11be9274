"""What brings traces into a worker where `otel_endpoint` asks for them."""

from typing import TYPE_CHECKING

from pounce.errors import ConfigError
from pounce.plugin import API_VERSION, MiddlewareChoice, Plugin

if TYPE_CHECKING:
    from pounce.contract.wire import ASGIApp, Service

__all__ = ["plugin"]


def create(service: Service, app: ASGIApp) -> ASGIApp | None:
    """Raises `ConfigError` where the packages are missing that make traces."""
    if service.config.otel_endpoint is None:
        return None
    try:
        from pounce.observe.tracing import traced
    except ModuleNotFoundError as exc:
        raise ConfigError(
            f"otel_endpoint needs the packages of OpenTelemetry ({exc.name} is missing)",
            hint="Install them: pip install 'pounce-core[otel]'",
        ) from exc
    return traced(service, app)


plugin = Plugin(
    name="tracing", api=API_VERSION, middleware=(MiddlewareChoice(name="tracing", create=create, where="outer"),)
)
