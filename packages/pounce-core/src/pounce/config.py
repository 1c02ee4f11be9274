"""ServerConfig: every setting of the server, once.

The dataclass is the single schema: its field metadata feeds validation, the flags of the command line, files,
environment and the documentation. Add a setting by adding a field; nothing else lists them.
"""

import dataclasses
import re
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pounce.errors import ConfigError
from pounce.options import Option, option, options_of, unknown_setting

__all__ = ["WORKER_TIMEOUT", "ServerConfig", "describe"]

WORKER_TIMEOUT = 30.0
"""Default of `worker_timeout`. Any other one brings a thread to one worker in the calling process."""

type LogLevel = Literal["debug", "info", "warning", "error", "critical"]
type LogFormat = Literal["auto", "text", "json"]
type Lifespan = Literal["auto", "on", "off"]
type IPv6 = Literal["dual", "only", "off"]
type QuicEngine = Literal["qh3", "zoomies"]
type AltSvc = Literal["auto", "clear", "off"]
type TLSVersion = Literal["1.2", "1.3"]
type ClientCertificates = Literal["none", "optional", "required"]
type LifespanScope = Literal["worker", "process"]
type WorkerStartupFailure = Literal["shutdown", "ignore"]
type Signage = Literal["full", "minimal", "off"]
type WorkerMode = Literal["auto", "thread", "process", "subinterpreter", "sync", "async"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """All settings of one server; immutable, checked when it is built.

    Durations are seconds, sizes are bytes. Raises `ConfigError` naming the field, the value and the allowed
    range when a value has the wrong type or lies outside.
    """

    # Application
    root_path: str = option("", "Path prefix the application is mounted under (ASGI root_path).", group="application")
    factory: bool = option(
        False, "Treat the application as a factory: call it to get the ASGI application.", group="application"
    )
    app_dir: str = option(
        ".",
        "Folder put first on sys.path before the application is imported; empty leaves it alone.",
        group="application",
    )
    lifespan: Lifespan = option(
        "auto", "Run the ASGI lifespan: auto serves without it where the application has none.", group="application"
    )
    debug: bool = option(False, "Show error codes and hints in the bodies of error answers.", group="application")
    health_check_path: str | None = option(
        None, "Path answered by the server itself with its health, for example /healthz.", group="application"
    )
    server_header: str = option("pounce", "Value of the Server response header; empty sends none.", group="application")
    date_header: bool = option(True, "Send a Date response header.", group="application")

    # Workers
    workers: int = option(
        1, "Event loops that serve, each on a core of its own; 0 takes as many as there are CPUs to use.",
        group="workers", ge=0, le=1024,
    )  # fmt: skip
    worker_mode: WorkerMode = option(
        "auto",
        "What workers run in: auto is thread without the GIL and process with it; sync and async are auto.",
        group="workers",
    )

    executor_threads_per_worker: int = option(
        0, "Threads for what an application runs in its loop's executor; 0 is Python's own number.",
        group="workers", ge=0, le=1024,
    )  # fmt: skip
    lifespan_scope: LifespanScope = option(
        "worker",
        "Run the lifespan once for each worker, on its loop, or once for all workers of a process.",
        group="workers",
        needs="lifespan",
    )
    worker_hooks: bool = option(
        False, "Call the application with pounce.worker.startup, .draining and .shutdown in each worker.",
        group="workers",
    )  # fmt: skip
    worker_startup_failure: WorkerStartupFailure = option(
        "shutdown",
        "What a pounce.worker.startup that fails means: the end of the start, or nothing.",
        group="workers",
        needs="worker_hooks",
    )
    max_requests: int = option(
        0, "Requests after which a worker is replaced by a fresh one; 0 sets no limit.", group="workers", ge=0
    )
    max_lifetime: float = option(
        0.0, "Time after which a worker is replaced; 0 sets no limit.", group="workers", unit="seconds", ge=0
    )
    max_rss: int = option(
        0,
        "Physical memory of its process at which a worker is replaced (Linux); 0 sets no limit.",
        group="workers",
        unit="bytes",
        ge=0,
    )
    recycle_jitter: int = option(
        10, "Per cent by which each of these is raised at random, so that workers do not end together.",
        group="workers", ge=0, le=100, needs="max_requests or max_lifetime or max_rss",
    )  # fmt: skip
    worker_timeout: float = option(
        WORKER_TIMEOUT,
        "Time an event loop may stand still before its worker is replaced; 0 sets no limit.",
        group="workers",
        unit="seconds",
        ge=0,
    )
    cpu_affinity: bool = option(
        False, "Keep each worker on a CPU of its own, of those that are allowed (Linux).", group="workers"
    )
    pid_file: str | None = option(None, "File that holds the process id while the server runs.", group="workers")
    control_socket: str | None = option(
        None, "Unix socket on which pounce status, reload and stop reach the server.", group="workers"
    )
    reload: bool = option(False, "Start new processes when files of the application change.", group="workers")
    reload_dirs: tuple[str, ...] = option(
        (), "Watch this folder instead of app_dir; may be repeated.", group="workers", needs="reload"
    )
    reload_include: tuple[str, ...] = option(
        (),
        "Watch what matches this line of a .gitignore beside *.py, for example *.sql; may be repeated.",
        group="workers",
        needs="reload",
    )
    reload_exclude: tuple[str, ...] = option(
        (),
        "Do not watch what matches this line of a .gitignore, for example data/; may be repeated.",
        group="workers",
        needs="reload",
    )
    reload_delay: float = option(
        0.25, "Time that files must rest before a change counts.", group="workers", unit="seconds", ge=0, needs="reload"
    )

    # Network
    host: str = option(
        "127.0.0.1", "Address or name to listen on; a name may resolve to several addresses.", group="network"
    )
    port: int = option(8000, "TCP port; 0 takes a free one.", group="network", ge=0, le=65535)
    uds: str | None = option(None, "Listen on this Unix socket instead of host and port.", group="network")
    uds_permissions: int = option(
        0o660, "File mode of the Unix socket.", group="network", unit="octal", ge=0, le=0o777, needs="uds"
    )
    bind: tuple[str, ...] = option(
        (),
        "Listen here instead of host and port: [wire://]host:port, unix:/path, fd://number or systemd:name; "
        "may be repeated.",
        group="network",
    )
    ipv6: IPv6 = option(
        "dual",
        "What an IPv6 wildcard ([::]) accepts: dual takes IPv4 too, only does not, off uses no IPv6.",
        group="network",
    )
    backlog: int = option(
        2048, "Connections the kernel queues before they are accepted.", group="network", ge=1, le=65535
    )
    http_parser: str = option(
        "auto", "HTTP/1.1 parser by name; auto takes the installed one of highest priority.", group="network"
    )

    loop: str = option(
        "auto", "Event loop: auto (uvloop where it is installed), asyncio, uvloop or module:factory.", group="network"
    )
    reuseport: bool = option(
        False, "Bind TCP with SO_REUSEPORT: sockets of several processes share an address.", group="network"
    )
    proxy_protocol: bool = option(
        False, "Require a header of the PROXY protocol, version 1 or 2, on every connection.", group="network"
    )
    proxy_protocol_from: tuple[str, ...] = option(
        ("127.0.0.1", "::1"),
        "Address or network whose PROXY headers are believed, unix for Unix sockets; may be repeated.",
        group="network",
        needs="proxy_protocol",
    )

    # TLS
    ssl_certfile: str | None = option(None, "Certificate chain, PEM.", group="tls")
    ssl_keyfile: str | None = option(None, "Private key of the certificate, PEM.", group="tls")
    ssl_keyfile_password: str | None = option(
        None, "Password of the private key.", group="tls", secret=True, needs="ssl_certfile"
    )
    tls_handshake_timeout: float = option(
        10.0, "Time a TLS handshake may take.", group="tls", unit="seconds", gt=0, needs="ssl_certfile"
    )
    ssl_keyfile_password_file: str | None = option(
        None, "File whose first line is the password of the private key.", group="tls", needs="ssl_certfile"
    )
    ssl_self_signed: bool = option(
        False, "Make a certificate for localhost, for development; kept from one start to the next.", group="tls"
    )
    ssl_sni: tuple[str, ...] = option(
        (),
        "A further certificate, for clients that ask for a name: name=certfile:keyfile; may be repeated.",
        group="tls",
    )
    ssl_reload: bool = option(
        True,
        "Look every few seconds whether a file of TLS has changed, and use it for new connections.",
        group="tls",
        needs="ssl_certfile",
    )
    ssl_minimum_version: TLSVersion = option(
        "1.2", "Oldest version of TLS that is spoken.", group="tls", needs="ssl_certfile"
    )
    ssl_ciphers: str = option(
        "ECDHE+AESGCM:ECDHE+CHACHA20",
        "Ciphers for TLS 1.2, as OpenSSL writes a list of them.",
        group="tls",
        needs="ssl_certfile",
    )
    ssl_session_tickets: int = option(
        2,
        "Tickets a client gets to resume its session with; 0 gives none.",
        group="tls",
        ge=0,
        le=16,
        needs="ssl_certfile",
    )
    ssl_cert_reqs: ClientCertificates = option(
        "none", "Whether clients are asked for a certificate, and turned away without one.", group="tls"
    )
    ssl_ca_certs: str | None = option(
        None, "Authorities that client certificates must come from: a file, PEM, or a folder.", group="tls"
    )
    ssl_crl: str | None = option(None, "List of client certificates that are revoked, PEM.", group="tls")
    ssl_keylog: str | None = option(
        None,
        "Write the secrets of all connections to this file, for analysis; never in production.",
        group="tls",
        needs="ssl_certfile",
    )

    # HTTP/3
    http3_enabled: bool = option(
        False, "Serve HTTP/3 on the UDP ports of the TLS binds too; needs the package pounce-h3.", group="http3"
    )
    http3_engine: QuicEngine = option(
        "qh3", "QUIC implementation; zoomies on loopback only.", group="http3", needs="http3_enabled"
    )
    http3_max_connections: int = option(
        10_000,
        "Open QUIC connections of one worker; packets that would open more are dropped.",
        group="http3",
        ge=1,
        needs="http3_enabled",
    )
    http3_idle_timeout: float = option(
        30.0,
        "Time a QUIC connection may stay silent before it ends.",
        group="http3",
        unit="seconds",
        gt=0,
        needs="http3_enabled",
    )
    http3_retry_above: int = option(
        256,
        "Unfinished handshakes of one worker above which clients must prove their address first (QUIC Retry).",
        group="http3",
        ge=0,
        needs="http3_enabled",
    )
    http3_qpack_max_table_capacity: int = option(
        4096,
        "Size of the dynamic table for compressed request headers; 0 uses none.",
        group="http3",
        unit="bytes",
        ge=0,
        le=65536,
        needs="http3_enabled",
    )
    http3_zero_rtt_enabled: bool = option(
        False,
        "Take safe requests in the first flight of clients that come back (0-RTT); others are answered 425.",
        group="http3",
        needs="http3_enabled",
    )
    http3_alt_svc: AltSvc = option(
        "auto",
        "Alt-Svc header of answers: auto announces HTTP/3 where it is served, clear takes it back.",
        group="http3",
    )
    http3_alt_svc_max_age: float = option(
        86400.0,
        "Time clients may remember the announcement.",
        group="http3",
        unit="seconds",
        ge=0,
        needs="http3_enabled",
    )

    # Limits
    max_header_size: int = option(
        65536,
        "Size of a message head (request line and headers) and of a trailer section.",
        group="limits",
        unit="bytes",
        ge=256,
    )
    max_headers: int = option(100, "Header fields in one head or trailer section.", group="limits", ge=1)
    max_request_size: int = option(
        1_048_576, "Size of a request body; 0 sets no limit.", group="limits", unit="bytes", ge=0
    )
    max_connections: int = option(
        10_000, "Open connections; further ones are answered 503. 0 sets no limit.", group="limits", ge=0
    )
    max_requests_per_connection: int = option(
        0, "Requests served on one connection before it is closed; 0 sets no limit.", group="limits", ge=0
    )
    min_body_rate: int = option(
        240,
        "Slowest average rate of a request body, in bytes a second after 5 s of grace; 0 sets no limit.",
        group="limits",
        unit="bytes",
        ge=0,
    )

    # Deadlines
    header_timeout: float = option(
        10.0,
        "Time for a complete message head, from its first byte or the opening of the connection.",
        group="deadlines",
        unit="seconds",
        gt=0,
    )
    keep_alive_timeout: float = option(
        5.0, "Time a connection may stay idle between requests.", group="deadlines", unit="seconds", gt=0
    )
    request_timeout: float = option(
        30.0, "Time between two pieces of a request body.", group="deadlines", unit="seconds", gt=0
    )
    write_timeout: float = option(
        30.0, "Time a peer may take no byte of what is waiting for it.", group="deadlines", unit="seconds", gt=0
    )
    startup_timeout: float = option(30.0, "Time for the lifespan startup.", group="deadlines", unit="seconds", gt=0)
    shutdown_timeout: float = option(
        10.0,
        "Time for running requests to finish on shutdown, and again for the lifespan shutdown.",
        group="deadlines",
        unit="seconds",
        ge=0,
    )
    drain_delay: float = option(
        0.0,
        "Time for which connections are still accepted on shutdown, while health says draining.",
        group="deadlines",
        unit="seconds",
        ge=0,
    )
    drain_disconnect: int = option(
        80,
        "Per cent of shutdown_timeout after which applications that still run are told http.disconnect; 100 is never.",
        group="deadlines",
        ge=0,
        le=100,
    )

    # WebSocket
    websocket_max_message_size: int = option(
        16_777_216,
        "Size of a WebSocket message, after decompression; 0 sets no limit.",
        group="websocket",
        unit="bytes",
        ge=0,
    )
    websocket_compression: bool = option(
        True, "Compress WebSocket messages (permessage-deflate) for clients that offer it.", group="websocket"
    )
    websocket_compression_min_size: int = option(
        128,
        "Smaller messages are sent uncompressed.",
        group="websocket",
        unit="bytes",
        ge=0,
        needs="websocket_compression",
    )
    websocket_compression_window_bits: int = option(
        12,
        "Size of the compression windows as a power of 2; both directions of a connection keep theirs.",
        group="websocket",
        ge=9,
        le=15,
        needs="websocket_compression",
    )
    websocket_compression_context_takeover: bool = option(
        True,
        "Keep the windows from message to message: smaller messages, more memory.",
        group="websocket",
        needs="websocket_compression",
    )
    websocket_origins: tuple[str, ...] = option(
        (),
        "Origins that web pages may connect from, as https://example.org; empty allows all. May be repeated.",
        group="websocket",
    )
    websocket_ping_interval: float = option(
        20.0, "Time between pings to WebSocket clients; 0 sends none.", group="websocket", unit="seconds", ge=0
    )
    websocket_ping_timeout: float = option(
        20.0,
        "Time after a ping in which the client must send something, its pong at least; 0 waits for ever.",
        group="websocket",
        unit="seconds",
        ge=0,
        needs="websocket_ping_interval",
    )
    websocket_idle_timeout: float = option(
        0.0,
        "Time without a message either way that closes a WebSocket; 0 never does.",
        group="websocket",
        unit="seconds",
        ge=0,
    )
    websocket_close_timeout: float = option(
        10.0, "Time for the client's part of the closing handshake.", group="websocket", unit="seconds", gt=0
    )

    # Logging
    log_level: LogLevel = option("info", "Least severe level that is logged.", group="logging")
    log_format: LogFormat = option("auto", "auto is text on a terminal and JSON elsewhere.", group="logging")
    access_log: bool = option(True, "Log a line for each request.", group="logging")
    access_log_filter: Callable[[str, str, int], bool] | None = option(
        None,
        "Called with method, path and status; False leaves the request out of the access log.",
        group="logging",
        flag=False,
        needs="access_log",
    )
    signage: Signage = option("full", "How much of a banner to show on start.", group="logging")

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

    @property
    def uses_tls(self) -> bool:
        """Whether there is a certificate."""
        return self.ssl_certfile is not None or self.ssl_self_signed

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> ServerConfig:
        """A configuration from settings by name. Raises `ConfigError` also for a name that does not exist."""
        known = [item.name for item in OPTIONS]
        for name in settings:
            if name not in known:
                raise unknown_setting(name, known)
        return cls(**settings)

    def __reduce__(self) -> tuple[Any, ...]:
        settings = {item.name: getattr(self, item.name) for item in OPTIONS}
        settings["plugin_settings"] = {name: dict(table) for name, table in self.plugin_settings.items()}
        return (ServerConfig.of, (settings,))

    def __post_init__(self) -> None:
        for item in OPTIONS:
            object.__setattr__(self, item.name, item.checked(getattr(self, item.name)))
        object.__setattr__(self, "plugin_settings", _checked_tables(self.plugin_settings))
        self._check_together()

    def _check_together(self) -> None:
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            given, missing = ("ssl_certfile", "ssl_keyfile") if self.ssl_certfile else ("ssl_keyfile", "ssl_certfile")
            raise ConfigError(
                f"{given} is given without {missing}", hint=f"TLS needs both; add {missing} or leave out {given}."
            )
        if self.http3_enabled and not self.uses_tls:
            raise ConfigError(
                "http3_enabled is given without ssl_certfile", hint="HTTP/3 is always encrypted; add a certificate."
            )
        if self.http3_enabled and self.uds is not None:
            raise ConfigError("http3_enabled and uds exclude each other", hint="HTTP/3 needs a UDP port.")
        if self.http3_enabled and self.ssl_cert_reqs != "none":
            raise ConfigError(
                "http3_enabled and ssl_cert_reqs exclude each other",
                hint="HTTP/3 asks no client for a certificate, and would be a way past that.",
            )
        if self.ssl_self_signed and self.ssl_certfile is not None:
            raise ConfigError("ssl_self_signed and ssl_certfile exclude each other", hint="Leave out one of them.")
        if self.ssl_keyfile_password is not None and self.ssl_keyfile_password_file is not None:
            raise ConfigError(
                "ssl_keyfile_password and ssl_keyfile_password_file exclude each other", hint="Leave out one of them."
            )
        if (self.ssl_cert_reqs == "none") != (self.ssl_ca_certs is None):
            raise ConfigError(
                "client certificates need both ssl_cert_reqs and ssl_ca_certs",
                hint="For example --ssl-cert-reqs required --ssl-ca-certs ca.pem.",
            )
        if self.ssl_crl is not None and self.ssl_ca_certs is None:
            raise ConfigError("ssl_crl is given without ssl_ca_certs", hint="It says which of their clients are out.")
        if not self.uses_tls:
            for name in ("ssl_sni", "ssl_ca_certs"):
                if getattr(self, name):
                    raise ConfigError(
                        f"{name} is given without a certificate", hint="Add ssl_certfile and ssl_keyfile."
                    )
        if self.access_log_filter is not None and not callable(self.access_log_filter):
            raise ConfigError(f"access_log_filter must be a function (got {self.access_log_filter!r})")
        if not self.host:
            raise ConfigError("host must not be empty", hint="Use 127.0.0.1 for this machine, 0.0.0.0 or :: for all.")
        if self.uds == "":
            raise ConfigError("uds must not be empty", hint="Give the path of the Unix socket.")
        if self.uds is not None and self.bind:
            raise ConfigError("uds and bind exclude each other", hint="Write the socket as bind unix:/path.")
        if self.health_check_path is not None and not self.health_check_path.startswith("/"):
            raise ConfigError(f"health_check_path must start with / (got {self.health_check_path!r})")
        if re.search(r"[^\x20-\x7e]", self.server_header):
            raise ConfigError(f"server_header must be printable ASCII (got {self.server_header!r})")
        if self.root_path and (not self.root_path.startswith("/") or self.root_path.endswith("/")):
            raise ConfigError(
                f"root_path must start with / and not end with it (got {self.root_path!r})",
                hint="For example --root-path /api.",
            )


def _checked_tables(tables: Any) -> Mapping[str, Mapping[str, Any]]:
    if isinstance(tables, Mapping) and all(isinstance(table, Mapping) for table in tables.values()):
        return types.MappingProxyType({name: types.MappingProxyType(dict(table)) for name, table in tables.items()})
    raise ConfigError(f"plugin_settings must be a mapping of mappings (got {tables!r})")


def describe() -> tuple[Option, ...]:
    """Every setting in the order of the class: what the command line and the reference page are made from."""
    return OPTIONS


OPTIONS = options_of(ServerConfig)
