"""Which engine speaks QUIC, and where it may."""

import ipaddress
from typing import TYPE_CHECKING

from pounce.errors import ConfigError

if TYPE_CHECKING:
    from pounce.plugin import Service
    from pounce_h3.engine import Engine
    from pounce_h3.settings import H3Settings

__all__ = ["check_address", "make_engine"]


def make_engine(service: Service) -> Engine:
    """The engine that the configuration names. Raises `ConfigError`, `TLSError`."""
    config = service.config
    # The configuration has no HTTP/3 without a certificate.
    assert service.tls is not None
    if config.http3_engine == "qh3":
        from pounce_h3.qh3_engine import Qh3Engine

        return Qh3Engine(config, service.tls)
    from pounce_h3.zoomies_engine import ZoomiesEngine

    if config.http3_zero_rtt_enabled:
        raise ConfigError("http3_zero_rtt_enabled is on, but the engine zoomies gives no tickets")
    if config.http3_webtransport_enabled:
        raise ConfigError("http3_webtransport_enabled is on, but the engine zoomies has no datagrams")
    if not config.http3_retry_above:
        raise ConfigError("http3_retry_above is 0, but the engine zoomies cannot have clients prove their address")
    return ZoomiesEngine(config, service.tls)


def check_address(service: Service, host: str) -> None:
    """Raises `ConfigError` when the engine is not to be reached from there."""
    settings: H3Settings = service.settings["h3"]
    if service.config.http3_engine != "zoomies" or settings.zoomies_beyond_loopback:
        return
    if not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        raise ConfigError(
            f"the engine zoomies is for loopback, and would be reached at {host}",
            hint="No other implementation understands it, and it was not made for peers that mean harm. "
            "Listen on 127.0.0.1 or ::1, use the engine qh3, or --set h3.zoomies_beyond_loopback=true.",
        )
