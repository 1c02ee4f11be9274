"""Of what operators see, and of plugins."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from pounce.options import option
from pounce.settings.types import LogFormat, LogLevel, OtelProtocol, Signage, StatsdFormat

__all__ = ["ObservationSettings"]


@dataclasses.dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class ObservationSettings:
    """Of what operators see, and of plugins."""

    # Logging
    log_level: LogLevel = option("info", "Least severe level that is logged.", group="logging")
    log_format: LogFormat = option("auto", "auto is text on a terminal and JSON elsewhere.", group="logging")
    log_config: Any = option(
        None,
        "Configuration of logging: a table, or a file in TOML, JSON, YAML or INI.",
        group="logging",
    )
    error_log_file: str | None = option(
        None,
        "Where the log goes in place of standard error: a file, - for standard output, syslog or journald.",
        group="logging",
    )
    access_log: bool = option(True, "Log a line for each request.", group="logging")
    access_log_health: bool = option(
        False, "Log requests to health_check_path, /livez and /readyz too.", group="logging", needs="access_log"
    )
    access_log_format: str = option(
        "auto",
        "Form of its lines: auto (as log_format), text, json, logfmt, common, combined, or one made of values such as"
        " %(h)s.",
        group="logging",
        needs="access_log",
    )
    access_log_file: str | None = option(
        None,
        "Where it goes in place of error_log_file: a file, - for standard output, syslog or journald.",
        group="logging",
        needs="access_log",
    )
    access_log_sample: float = option(
        1.0,
        "Share of the requests that have a line, at random; those that fail have one always.",
        group="logging",
        ge=0,
        le=1,
        needs="access_log",
    )
    access_log_filter: Any = option(
        None,
        "Function, or module:attribute, of method, path and status; False leaves the request out of the access log.",
        group="logging",
        needs="access_log",
    )

    # Banner
    app_name: str | None = option(None, "Name of the application, shown at the start.", group="banner")
    app_tagline: str | None = option(None, "What is said of it in one line.", group="banner")
    app_version: str | None = option(None, "Its version.", group="banner")
    app_lines: tuple[str, ...] = option((), "Further lines of the banner. May be repeated.", group="banner")
    display: Any = option(
        None,
        "All of these at once: a DisplayConfig, or a mapping. The settings above go before it.",
        group="banner",
        flag=False,
    )
    signage: Signage | None = option(
        None, "How much of a banner to show on start; none is full, unless the application says otherwise.",
        group="banner",
    )  # fmt: skip

    # Events
    lifecycle_collector: Any = option(
        None,
        "Collector of events, or module:attribute of one; in Python and in files also several.",
        group="events",
    )
    lifecycle_logging: bool = option(
        False, "Log events of connections and requests to the logger pounce.lifecycle.", group="events"
    )
    log_slow_requests_threshold: float = option(
        5.0,
        "Time from which a request is logged as a warning.",
        group="events",
        unit="seconds",
        ge=0,
        needs="lifecycle_logging",
    )

    # Metrics
    metrics_enabled: bool = option(False, "Count requests, and tell Prometheus at metrics_path.", group="metrics")
    metrics_path: str = option(
        "/metrics", "Where Prometheus reads the metrics of all workers.", group="metrics", needs="metrics_enabled"
    )
    metrics_bind: str | None = option(
        None,
        "Address of their own, as bind takes it, at which they alone are, and then nowhere else: 127.0.0.1:9100.",
        group="metrics",
        needs="metrics_enabled",
    )

    statsd_address: str | None = option(
        None, "Send the same to a statsd server: 127.0.0.1:8125, or unix:/path.", group="metrics"
    )
    statsd_format: StatsdFormat = option(
        "statsd",
        "dogstatsd has labels as tags, statsd in the names.",
        group="metrics",
        needs="statsd_address",
    )
    statsd_prefix: str = option("", "What names begin with.", group="metrics", needs="statsd_address")
    statsd_interval: float = option(
        10.0, "Time between two reports.", group="metrics", unit="seconds", ge=0.25, needs="statsd_address"
    )
    introspection_enabled: bool = option(
        False, "Tell what runs here at introspection_path, on loopback or for the token.", group="metrics"
    )
    introspection_path: str = option(
        "/_pounce/info", "Where that is told, as JSON.", group="metrics", needs="introspection_enabled"
    )
    introspection_bind: str = option(
        "127.0.0.1",
        "Where it is told without the token: on loopback. With a port, as bind takes it, an address of its own for it"
        " and the status page, which are then nowhere else.",
        group="metrics",
        needs="introspection_enabled or status_page_enabled",
    )
    status_page_enabled: bool = option(
        False, "Show how the server does at status_page_path, on loopback or for the token.", group="metrics"
    )
    status_page_path: str = option("/_pounce/", "Where that page is.", group="metrics", needs="status_page_enabled")
    introspection_token: str | None = option(
        None,
        "Bearer token with which clients that are not on this machine see status page and information.",
        group="metrics",
        secret=True,
    )
    introspection_token_file: str | None = option(None, "File whose first line is that token.", group="metrics")

    # Traces
    otel_endpoint: str | None = option(
        None, "Send traces and metrics there by OTLP, for example http://127.0.0.1:4318.", group="traces"
    )
    otel_protocol: OtelProtocol = option(
        "http", "What OTLP is spoken over; grpc needs the GIL.", group="traces", needs="otel_endpoint"
    )
    otel_service_name: str = option(
        "pounce", "What the service is called in them.", group="traces", needs="otel_endpoint"
    )
    sentry_dsn: str | None = option(None, "Report errors to this project of Sentry.", group="traces", secret=True)
    sentry_dsn_file: str | None = option(None, "File whose first line is that project.", group="traces")
    sentry_environment: str | None = option(
        None,
        "What the reports say of where this runs; none is that of the SDK.",
        group="traces",
        needs="sentry_dsn or sentry_dsn_file",
    )
    sentry_release: str | None = option(
        None,
        "What they say of which version runs; none is that of the SDK.",
        group="traces",
        needs="sentry_dsn or sentry_dsn_file",
    )
    sentry_traces_sample_rate: float = option(
        0.1,
        "Share of the requests that are traced there.",
        group="traces",
        ge=0,
        le=1,
        needs="sentry_dsn or sentry_dsn_file",
    )
    sentry_profiles_sample_rate: float = option(
        0.0,
        "Share of these that are profiled; only with the GIL.",
        group="traces",
        ge=0,
        le=1,
        needs="sentry_dsn or sentry_dsn_file",
    )
    sentry_send_default_pii: bool = option(
        False,
        "Send what may be personal too: addresses, cookies, queries, bodies, values of variables.",
        group="traces",
        needs="sentry_dsn or sentry_dsn_file",
    )

    # Plugins
    plugins: bool = option(
        True, "Load installed plugins; without them the server's own parts are left.", group="plugins"
    )
    disable_plugin: tuple[str, ...] = option((), "Leave this plugin out; may be repeated.", group="plugins")
    only_plugins: tuple[str, ...] = option(
        (),
        "Load these plugins and the server's own parts, no others; may be repeated.",
        group="plugins",
        needs="plugins",
    )
    plugin_settings: Mapping[str, Mapping[str, Any]] = option(
        dict, "Settings of plugins, a table for each plugin by its name.", group="plugins", flag=False, factory=True
    )
