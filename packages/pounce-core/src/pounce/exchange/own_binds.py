"""Which endpoints of the server are at an address of their own, and then nowhere else."""

from pounce.config import ServerConfig

__all__ = ["own_binds"]


def own_binds(config: ServerConfig) -> dict[str, tuple[str, ...]]:
    """The names of their responders, by the address as `bind` takes it."""
    found: dict[str, tuple[str, ...]] = {}
    if config.metrics_bind is not None and config.metrics_enabled:
        found[config.metrics_bind] = ("metrics",)
    has_port = ":" in config.introspection_bind and config.introspection_bind != "::1"
    if has_port and (config.introspection_enabled or config.status_page_enabled):
        found[config.introspection_bind] = (*found.get(config.introspection_bind, ()), "info", "status_page")
    return found
