"""What settings have to do with each other, and what else the entry of one cannot say of it.

Called by a `ServerConfig` when it is made, with each of its values checked by itself.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pounce.errors import ConfigError
from pounce.options import Table
from pounce.spelling import did_you_mean

if TYPE_CHECKING:
    from pounce.config import ServerConfig

__all__ = ["EXTENSIONS", "HOOKS", "check_together"]

EXTENSIONS = ("early_hint", "trailers", "pathsend", "zerocopysend", "sendfile")
"""Messages beyond ASGI's own that an application may answer with, as `http.response.NAME`: always taken, offered as
`asgi_extensions` says; `sendfile` is `pounce.response.sendfile`. Frameworks send some because they are offered, and a
middleware between them and the server that knows start and body alone loses the answer. An early hint is sent where
somebody has asked for it, and an answer that has lost its hints is whole."""


HOOKS = ("on_starting", "when_ready", "on_reload", "worker_exit", "on_exit")
"""Settings that are functions of the server's own life."""


def check_together(config: ServerConfig) -> None:
    """Settings that are right by themselves: bring those of several parts into their form, and raise `ConfigError` for
    what contradicts another one, or no `Option` can say."""
    object.__setattr__(config, "plugin_settings", _checked_tables(config.plugin_settings))
    object.__setattr__(config, "trusted_hosts_wildcard", "*" in config.trusted_hosts)
    if config.display is not None:
        object.__setattr__(config, "display", _checked_display(config.display))
    object.__setattr__(config, "asgi_extensions", _checked_extensions(config.asgi_extensions))
    if (config.ssl_certfile is None) != (config.ssl_keyfile is None):
        given, missing = ("ssl_certfile", "ssl_keyfile") if config.ssl_certfile else ("ssl_keyfile", "ssl_certfile")
        raise ConfigError(
            f"{given} is given without {missing}", hint=f"TLS needs both; add {missing} or leave out {given}."
        )
    if config.http3_enabled and not config.uses_tls:
        raise ConfigError(
            "http3_enabled is given without ssl_certfile", hint="HTTP/3 is always encrypted; add a certificate."
        )
    if config.http3_enabled and config.uds is not None:
        raise ConfigError("http3_enabled and uds exclude each other", hint="HTTP/3 needs a UDP port.")
    if config.http3_enabled and config.ssl_cert_reqs != "none":
        raise ConfigError(
            "http3_enabled and ssl_cert_reqs exclude each other",
            hint="HTTP/3 asks no client for a certificate, and would be a way past that.",
        )
    if config.ssl_self_signed and config.ssl_certfile is not None:
        raise ConfigError("ssl_self_signed and ssl_certfile exclude each other", hint="Leave out one of them.")
    for name in ("ssl_keyfile_password", "rate_limit_store", "introspection_token", "sentry_dsn"):
        if getattr(config, name) is not None and getattr(config, f"{name}_file") is not None:
            raise ConfigError(f"{name} and {name}_file exclude each other", hint="Leave out one of them.")
    if (config.ssl_cert_reqs == "none") != (config.ssl_ca_certs is None):
        raise ConfigError(
            "client certificates need both ssl_cert_reqs and ssl_ca_certs",
            hint="For example --ssl-cert-reqs required --ssl-ca-certs ca.pem.",
        )
    if config.ssl_crl is not None and config.ssl_ca_certs is None:
        raise ConfigError("ssl_crl is given without ssl_ca_certs", hint="It says which of their clients are out.")
    if not config.uses_tls:
        for name in ("ssl_sni", "ssl_ca_certs"):
            if getattr(config, name):
                raise ConfigError(
                    f"{name} is given without a certificate", hint="Add ssl_certfile and ssl_keyfile."
                )
    if config.application_scope == "worker" and config.lifespan_scope == "process":
        raise ConfigError(
            "application_scope worker and lifespan_scope process exclude each other",
            hint="Each worker's application has a lifespan of its own; leave out one of them.",
        )
    if isinstance(config.log_config, Mapping):
        object.__setattr__(config, "log_config", Table(config.log_config))
    elif not isinstance(config.log_config, str | None):
        raise ConfigError(f"log_config must be a table or the name of a file (got {config.log_config!r})")
    if not isinstance(config.access_log_filter, str | None) and not callable(config.access_log_filter):
        raise ConfigError(f"access_log_filter must be a function (got {config.access_log_filter!r})")
    for name in (*HOOKS, "ssl_context"):
        value = getattr(config, name)
        if not isinstance(value, str | None) and not callable(value):
            raise ConfigError(f"{name} must be a function, or module:attribute (got {value!r})")
    if config.preload and config.reload:
        raise ConfigError("preload and reload exclude each other", hint="What is imported once does not change.")
    if re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", config.request_id_header) is None:
        raise ConfigError(f"request_id_header must be the name of a field (got {config.request_id_header!r})")
    for origin in config.websocket_origins:
        if _origin(origin) is None:
            hint = "For example https://example.org, without a path."
            raise ConfigError(
                f"websocket_origins must be scheme://host[:port], as browsers send them (got {origin!r})",
                hint="Leave it out to allow all." if origin == "*" else hint,
            )
    if not config.host:
        raise ConfigError("host must not be empty", hint="Use 127.0.0.1 for this machine, 0.0.0.0 or :: for all.")
    for name, path in (("uds", config.uds), ("control_socket", config.control_socket)):
        if path == "":
            raise ConfigError(f"{name} must not be empty", hint="Give the path of the Unix socket.")
        if path is not None and path.startswith("unix:"):
            raise ConfigError(
                f"{name} is the path of a Unix socket alone (got {path!r})",
                hint=f"Write {path[5:]!r}; unix: is what bind takes.",
            )
    if config.uds is not None and config.bind:
        raise ConfigError("uds and bind exclude each other", hint="Write the socket as bind unix:/path.")
    if config.health_check_path is not None and not config.health_check_path.startswith("/"):
        raise ConfigError(f"health_check_path must start with / (got {config.health_check_path!r})")
    if not config.status_page_path.endswith("/"):
        raise ConfigError(f"status_page_path must end with / (got {config.status_page_path!r})")
    if ":" not in config.introspection_bind and config.introspection_bind not in ("127.0.0.1", "localhost"):
        raise ConfigError(
            f"introspection_bind must be loopback, or have a port (got {config.introspection_bind!r})",
            hint="The path is answered on every bind, elsewhere to those who have introspection_token; with a port it"
            " is answered there alone.",
        )
    for name in ("metrics_path", "introspection_path", "status_page_path"):
        if not getattr(config, name).startswith("/"):
            raise ConfigError(f"{name} must start with / (got {getattr(config, name)!r})")
    if config.otel_endpoint is not None and not config.otel_endpoint.startswith(("http://", "https://")):
        raise ConfigError("otel_endpoint must begin with http:// or https://", hint="OTLP over HTTP has port 4318.")
    if re.search(r"[^\x20-\x7e]", config.server_header):
        raise ConfigError(f"server_header must be printable ASCII (got {config.server_header!r})")
    if config.root_path and (not config.root_path.startswith("/") or config.root_path.endswith("/")):
        raise ConfigError(
            f"root_path must start with / and not end with it (got {config.root_path!r})",
            hint="For example --root-path /api.",
        )


_origin = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s,*?#@]+|null", re.IGNORECASE).fullmatch
"""RFC 6454 6.2; `null` is that of pages without one, such as files."""


def _checked_display(given: Any) -> Any:
    from pounce.display import DisplayConfig

    if isinstance(given, Mapping):
        return DisplayConfig.of(given)
    if not isinstance(given, DisplayConfig):
        raise ConfigError(f"display must be a DisplayConfig or a mapping (got {given!r})")
    return given


def _checked_extensions(given: tuple[str, ...]) -> tuple[str, ...]:
    """Their short names, each once."""
    names = tuple(dict.fromkeys(name.removeprefix("http.response.") for name in given))
    for name in names:
        if name not in EXTENSIONS:
            raise ConfigError(
                f"asgi_extensions must be of {', '.join(EXTENSIONS)} (got {name!r})",
                hint=did_you_mean(name, EXTENSIONS),
            )
    return names


def _checked_tables(tables: Any) -> Mapping[str, Mapping[str, Any]]:
    if isinstance(tables, Mapping) and all(isinstance(table, Mapping) for table in tables.values()):
        return Table({name: Table(table) for name, table in tables.items()})
    raise ConfigError(f"plugin_settings must be a mapping of mappings (got {tables!r})")
