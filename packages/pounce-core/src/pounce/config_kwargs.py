"""ServerConfigKwargs: the settings as keyword arguments, for type checkers.

Made from `ServerConfig` by packages/pounce-core/tests/test_config_kwargs.py.
"""

from collections.abc import Mapping
from typing import Any, TypedDict

from pounce.settings.types import (
    AltSvc,
    ApplicationScope,
    ClientCertificates,
    ForwardedFamily,
    Interface,
    IPv6,
    Lifespan,
    LifespanScope,
    LogFormat,
    LogLevel,
    OtelProtocol,
    QuicEngine,
    RateLimitFields,
    Signage,
    StatsdFormat,
    TLSVersion,
    WorkerMode,
    WorkerStartupFailure,
)

__all__ = ["ServerConfigKwargs"]


class ServerConfigKwargs(TypedDict, total=False):
    """What `pounce.run()` takes beside the application: every setting, second spellings, and arguments of uvicorn."""

    root_path: str
    factory: bool
    app_dir: str
    interface: Interface
    wsgi_threads: int
    lifespan: Lifespan
    asgi_extensions: tuple[str, ...]
    debug: bool
    probes: bool
    health_check_path: str | None
    debug_hosts: tuple[str, ...]
    error_pages: Mapping[str, str]
    server_header: str
    date_header: bool
    middleware: tuple[Any, ...]
    sync_app: Any
    workers: int
    worker_mode: WorkerMode
    executor_threads_per_worker: int
    application_scope: ApplicationScope
    lifespan_scope: LifespanScope
    worker_hooks: bool
    worker_startup_failure: WorkerStartupFailure
    max_requests: int
    max_lifetime: float
    max_rss: int
    recycle_jitter: int
    worker_timeout: float
    cpu_affinity: bool
    pid_file: str | None
    control_socket: str | None
    reload: bool
    reload_dirs: tuple[str, ...]
    reload_include: tuple[str, ...]
    reload_exclude: tuple[str, ...]
    reload_delay: float
    user: str | None
    group: str | None
    initgroups: bool
    umask: int | None
    process_title: str | None
    preload: bool
    on_starting: Any
    when_ready: Any
    on_reload: Any
    worker_exit: Any
    on_exit: Any
    host: str
    port: int
    uds: str | None
    uds_permissions: int
    bind: tuple[str, ...]
    ipv6: IPv6
    backlog: int
    http_parser: str
    http2_enabled: bool
    loop: str
    tcp_keep_alive: float
    tcp_keep_alive_interval: float
    tcp_keep_alive_probes: int
    tcp_fast_open: int
    reuseport: bool
    proxy_protocol: bool
    proxy_protocol_from: tuple[str, ...]
    ssl_certfile: str | None
    ssl_keyfile: str | None
    ssl_keyfile_password: str | None
    tls_handshake_timeout: float
    ssl_keyfile_password_file: str | None
    ssl_self_signed: bool
    ssl_sni: tuple[str, ...]
    ssl_reload: bool
    ssl_minimum_version: TLSVersion
    ssl_ciphers: str
    ssl_ciphersuites: str | None
    ssl_groups: str | None
    ssl_context: Any
    ssl_session_tickets: int
    ssl_cert_reqs: ClientCertificates
    ssl_ca_certs: str | None
    ssl_crl: str | None
    ssl_keylog: str | None
    http3_enabled: bool
    quic_bind: tuple[str, ...]
    http3_engine: QuicEngine
    http3_max_connections: int
    http3_idle_timeout: float
    http3_retry_above: int
    http3_qpack_max_table_capacity: int
    http3_zero_rtt_enabled: bool
    http3_ping_interval: float
    http3_qlog_dir: str | None
    http3_webtransport_enabled: bool
    http3_webtransport_max_sessions: int
    http3_webtransport_max_streams: int
    http3_webtransport_datagram_queue: int
    http3_webtransport_origins: tuple[str, ...]
    http3_webtransport_read_timeout: float
    http3_webtransport_drain_timeout: float
    http3_alt_svc: AltSvc
    http3_alt_svc_max_age: float
    max_header_size: int
    max_headers: int
    h11_max_incomplete_event_size: int | None
    max_request_size: int
    max_connections: int
    max_connections_per_peer: int
    max_connections_per_peer_exempt: tuple[str, ...]
    max_buffered: int
    limit_concurrency: int
    limit_concurrency_websockets: bool
    request_queue_enabled: bool
    request_queue_max_depth: int
    max_requests_per_connection: int
    min_body_rate: int
    min_write_rate: int
    rate_limit_enabled: bool
    rate_limit_requests_per_second: float
    rate_limit_burst: int
    rate_limit_max_tracked_ips: int
    rate_limit_key: str
    rate_limit_routes: tuple[str, ...]
    rate_limit_exempt: tuple[str, ...]
    rate_limit_exempt_paths: tuple[str, ...]
    rate_limit_fields: RateLimitFields
    rate_limit_store: str | None
    rate_limit_store_file: str | None
    rate_limit_store_timeout: float
    rate_limit_store_prefix: str
    header_timeout: float
    keep_alive_timeout: float
    request_timeout: float
    app_timeout: float
    request_queue_timeout: float
    write_timeout: float
    startup_timeout: float
    shutdown_timeout: float
    reload_timeout: float | None
    drain_delay: float
    drain_disconnect: int
    websocket_max_message_size: int
    websocket_max_incomplete: int
    websocket_compression: bool
    websocket_compression_min_size: int
    websocket_compression_window_bits: int
    websocket_compression_context_takeover: bool
    websocket_origins: tuple[str, ...]
    websocket_ping_interval: float
    websocket_ping_timeout: float
    websocket_idle_timeout: float
    websocket_close_timeout: float
    proxy_headers: bool
    trusted_hosts: tuple[str, ...]
    trusted_hosts_wildcard: bool
    forwarded_for_trusted_hops: int
    forwarded_family: ForwardedFamily
    forwarded_prefix: bool
    trusted_keep_alive_timeout: float | None
    request_id: bool
    request_id_header: str
    request_id_generator: Any
    server_timing: bool
    forwarded_real_ip: bool
    server_names: tuple[str, ...]
    headers: tuple[str, ...]
    https_redirect: bool
    https_redirect_port: int
    hsts: str
    compression: bool
    compression_min_size: int
    compression_types: str
    compression_event_streams: bool
    compression_zstd_level: int
    compression_br_level: int
    compression_gzip_level: int
    compression_dictionaries: tuple[Any, ...]
    static_files: Mapping[str, str]
    static_cache_control: str
    static_precompressed: bool
    static_follow_symlinks: bool
    static_index_file: str | None
    static_fallback: str | None
    static_immutable: str
    log_level: LogLevel
    log_format: LogFormat
    log_config: Any
    error_log_file: str | None
    access_log: bool
    access_log_health: bool
    access_log_format: str
    access_log_file: str | None
    access_log_sample: float
    access_log_filter: Any
    app_name: str | None
    app_tagline: str | None
    app_version: str | None
    app_lines: tuple[str, ...]
    display: Any
    signage: Signage | None
    lifecycle_collector: Any
    lifecycle_logging: bool
    log_slow_requests_threshold: float
    metrics_enabled: bool
    metrics_path: str
    metrics_bind: str | None
    statsd_address: str | None
    statsd_format: StatsdFormat
    statsd_prefix: str
    statsd_interval: float
    introspection_enabled: bool
    introspection_path: str
    introspection_bind: str
    status_page_enabled: bool
    status_page_path: str
    introspection_token: str | None
    introspection_token_file: str | None
    otel_endpoint: str | None
    otel_protocol: OtelProtocol
    otel_service_name: str
    sentry_dsn: str | None
    sentry_dsn_file: str | None
    sentry_environment: str | None
    sentry_release: str | None
    sentry_traces_sample_rate: float
    sentry_profiles_sample_rate: float
    sentry_send_default_pii: bool
    plugins: bool
    disable_plugin: tuple[str, ...]
    only_plugins: tuple[str, ...]
    plugin_settings: Mapping[str, Mapping[str, Any]]
    reload_dir: tuple[str, ...]
    reload_includes: tuple[str, ...]
    reload_excludes: tuple[str, ...]
    http: str
    http2: bool
    http3: bool
    timeout_keep_alive: float
    timeout_graceful_shutdown: float
    ws_max_size: int
    ws_ping_interval: float
    ws_ping_timeout: float
    forwarded_allow_ips: tuple[str, ...]
    header: tuple[str, ...]
    fd: int | None
    ws: str
    ws_per_message_deflate: bool
    limit_max_requests: int | None
    timeout_worker_healthcheck: float
    reset_contextvars: bool
