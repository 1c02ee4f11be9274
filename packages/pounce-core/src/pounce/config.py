"""ServerConfig: every setting of the server, once.

The dataclass is the single schema: its field metadata feeds validation, the flags of the command line, files,
environment and the documentation. Add a setting by adding a field; nothing else lists them.

It is long and one thing: a table with an entry for each setting, in groups. A group of its own class would be a second
level of names for everybody who sets or reads one. What no entry can say of itself, which is what settings have to do
with each other, is in `config_checks`.
"""

import dataclasses
import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pounce.config_checks import EXTENSIONS, check_together
from pounce.errors import ConfigError
from pounce.options import Option, option, options_of, secret_from, unknown_setting

__all__ = ["EXTENSIONS", "WORKER_TIMEOUT", "ServerConfig", "describe", "setting_of_bind"]

WORKER_TIMEOUT = 30.0
"""Default of `worker_timeout`. Any other one brings a thread to one worker in the calling process."""

type LogLevel = Literal["debug", "info", "warning", "error", "critical"]
type LogFormat = Literal["auto", "text", "json"]
type ForwardedFamily = Literal["x-forwarded", "forwarded"]
type Lifespan = Literal["auto", "on", "off"]
type Interface = Literal["auto", "asgi", "wsgi"]
type IPv6 = Literal["dual", "only", "off"]
type QuicEngine = Literal["qh3", "zoomies"]
type AltSvc = Literal["auto", "clear", "off"]
type TLSVersion = Literal["1.2", "1.3"]
type ClientCertificates = Literal["none", "optional", "required"]
type LifespanScope = Literal["worker", "process"]
type ApplicationScope = Literal["auto", "worker", "process"]
type RateLimitFields = Literal["refused", "all", "off"]
type WorkerStartupFailure = Literal["shutdown", "ignore"]
type Signage = Literal["full", "minimal", "off"]
type StatsdFormat = Literal["statsd", "dogstatsd"]
type OtelProtocol = Literal["http", "grpc"]
type WorkerMode = Literal["auto", "thread", "process", "subinterpreter", "sync", "async"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """All settings of one server; immutable, checked when it is built.

    Durations are seconds, sizes are bytes. Raises `ConfigError` naming the field, the value and the allowed
    range when a value has the wrong type or lies outside.
    """

    # Application
    root_path: str = option(
        "",
        "Path prefix the application is mounted under (ASGI root_path).",
        group="application",
        per_bind=True,
    )
    factory: bool = option(
        False, "Treat the application as a factory: call it to get the ASGI application.", group="application"
    )
    app_dir: str = option(
        ".",
        "Folder put first on sys.path before the application is imported; empty leaves it alone.",
        group="application",
    )
    interface: Interface = option(
        "auto", "What the application speaks; auto tells ASGI 3 and WSGI apart.", group="application"
    )
    wsgi_threads: int = option(
        0,
        "Requests that a WSGI application runs at once in each worker; 0 is as many threads as executors have.",
        group="application",
        ge=0,
    )
    lifespan: Lifespan = option(
        "auto", "Run the ASGI lifespan: auto serves without it where the application has none.", group="application"
    )
    asgi_extensions: tuple[str, ...] = option(
        ("early_hint",),
        "Offer the application this way to answer: early_hint, trailers, pathsend, zerocopysend, sendfile.",
        group="application",
    )
    debug: bool = option(False, "Show error codes and hints in the bodies of error answers.", group="application")
    probes: bool = option(
        False,
        "Answer /livez and /readyz, as orchestrators and load balancers ask: the latter for the whole server.",
        group="application",
    )
    health_check_path: str | None = option(
        None, "Path answered by the server itself with its health, for example /healthz.", group="application"
    )
    debug_hosts: tuple[str, ...] = option(
        ("127.0.0.1", "::1"),
        "Addresses that are shown the debug page, unix for Unix sockets, * for all. May be repeated.",
        group="application",
        needs="debug",
    )
    error_pages: Mapping[str, str] = option(
        dict,
        "Error pages, files or applications, by status or class: 404=404.html, 5xx=main:oops. May be repeated.",
        group="application",
        factory=True,
    )
    server_header: str = option("pounce", "Value of the Server response header; empty sends none.", group="application")
    date_header: bool = option(True, "Send a Date response header.", group="application")
    middleware: tuple[Any, ...] = option(
        (),
        "Middleware around the application, outermost first, as module:attribute or, in files, [module:attribute,"
        " {settings}]. May be repeated.",
        group="application",
    )
    sync_app: Any = option(
        None,
        "Answers requests at once, without a coroutine, or leaves them to the application: what has handle_sync(),"
        " or module:attribute.",
        group="application",
        flag=False,
    )

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
    application_scope: ApplicationScope = option(
        "auto",
        "Call a factory once for each worker, or for all workers of a process; auto is worker, for an object process.",
        group="workers",
    )
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
        "auto",
        "Unix socket on which pounce status, reload and stop reach the server; auto is one in a folder of its user"
        " where they find it, off none.",
        group="workers",
    )
    reload: bool = option(False, "Start new processes when files of the application change.", group="workers")
    reload_dirs: tuple[str, ...] = option(
        (),
        "Watch this folder instead of app_dir; may be repeated.",
        group="workers",
        also=("reload_dir",),
        needs="reload",
    )
    reload_include: tuple[str, ...] = option(
        (),
        "Watch what matches this line of a .gitignore beside *.py, for example *.sql; may be repeated.",
        group="workers",
        also=("reload_includes",),
        needs="reload",
    )
    reload_exclude: tuple[str, ...] = option(
        (),
        "Do not watch what matches this line of a .gitignore, for example data/; may be repeated.",
        group="workers",
        also=("reload_excludes",),
        needs="reload",
    )
    reload_delay: float = option(
        0.25, "Time that files must rest before a change counts.", group="workers", unit="seconds", ge=0, needs="reload"
    )

    # Process
    user: str | None = option(
        None,
        "User that the server becomes when its sockets are open, by name or number; started by root alone.",
        group="process",
    )
    group: str | None = option(
        None, "Group that it becomes; none is that of user.", group="process"
    )
    initgroups: bool = option(
        False, "Give it the other groups of user too; otherwise it has none.", group="process", needs="user"
    )
    umask: int | None = option(
        None,
        "What files that it makes do not allow, where nothing else says so; none leaves that as it is.",
        group="process",
        unit="octal",
        ge=0,
        le=0o777,
    )
    process_title: str | None = option(
        None, "What its processes are called in lists of processes; needs pounce-core[title].", group="process"
    )
    preload: bool = option(
        False,
        "Import the application once, and start processes as copies of that (fork): they share memory, and a reload"
        " brings nothing new.",
        group="process",
    )
    on_starting: Any = option(
        None,
        "Function that is called before sockets are opened, or module:attribute; it gets a ServerEvent.",
        group="process",
    )
    when_ready: Any = option(None, "The same, once connections are accepted.", group="process")
    on_reload: Any = option(None, "The same, when a reload is through.", group="process")
    worker_exit: Any = option(None, "The same, when a process of workers has ended.", group="process")
    on_exit: Any = option(None, "The same, at the end.", group="process")

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
        "Listen here instead of host and port: [wire://]host:port, udp+wire://host:port, unix:/path, fd://number or "
        "systemd:name; may be repeated.",
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
        "auto",
        "HTTP/1.1 parser by name; auto takes the installed one of highest priority.",
        group="network",
        also=("http",),
    )

    http2_enabled: bool = option(
        True, "Speak HTTP/2 where pounce-h2 is installed.", group="network", also=("http2",)
    )
    loop: str = option(
        "auto", "Event loop: auto (uvloop where it is installed), asyncio, uvloop or module:factory.", group="network"
    )
    tcp_keep_alive: float = option(
        0.0,
        "Time without traffic after which the kernel asks whether a TCP peer is still there; 0 never does.",
        group="network",
        unit="seconds",
        ge=0,
        le=32767,
    )
    tcp_keep_alive_interval: float = option(
        10.0,
        "Time between two such questions.",
        group="network",
        unit="seconds",
        ge=1,
        le=32767,
        needs="tcp_keep_alive",
    )
    tcp_keep_alive_probes: int = option(
        6, "Questions without an answer that end a connection.", group="network", ge=1, le=127, needs="tcp_keep_alive"
    )
    tcp_fast_open: int = option(
        0,
        "Connections whose first data may come with their SYN at a time (TCP Fast Open, RFC 7413); 0 allows none.",
        group="network",
        ge=0,
        le=65535,
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
    ssl_certfile: str | None = option(None, "Certificate chain, PEM.", group="tls", per_bind=True)
    ssl_keyfile: str | None = option(None, "Private key of the certificate, PEM.", group="tls", per_bind=True)
    ssl_keyfile_password: str | None = option(
        None, "Password of the private key.", group="tls", secret=True, needs="ssl_certfile"
    )
    tls_handshake_timeout: float = option(
        10.0, "Time a TLS handshake may take.", group="tls", unit="seconds", gt=0, needs="ssl_certfile", per_bind=True
    )
    ssl_keyfile_password_file: str | None = option(
        None,
        "File whose first line is the password of the private key.",
        group="tls",
        per_bind=True,
        needs="ssl_certfile",
    )
    ssl_self_signed: bool = option(
        False, "Make a certificate for localhost, for development; kept from one start to the next.", group="tls"
    )
    ssl_sni: tuple[str, ...] = option(
        (),
        "A further certificate, for clients that ask for a name: name=certfile:keyfile; may be repeated.",
        group="tls",
        per_bind=True,
    )
    ssl_reload: bool = option(
        True,
        "Look every few seconds whether a file of TLS has changed, and use it for new connections.",
        group="tls",
        needs="ssl_certfile",
    )
    ssl_minimum_version: TLSVersion = option(
        "1.2", "Oldest version of TLS that is spoken.", group="tls", per_bind=True, needs="ssl_certfile"
    )
    ssl_ciphers: str = option(
        "ECDHE+AESGCM:ECDHE+CHACHA20",
        "Ciphers for TLS 1.2, as OpenSSL writes a list of them.",
        group="tls",
        per_bind=True,
        needs="ssl_certfile",
    )
    ssl_ciphersuites: str | None = option(
        None,
        "Cipher suites for TLS 1.3, with colons between them; needs Python 3.15.",
        group="tls",
        per_bind=True,
        needs="ssl_certfile",
    )
    ssl_groups: str | None = option(
        None,
        "Groups for key exchange, with colons between them; more than one needs Python 3.15.",
        group="tls",
        per_bind=True,
        needs="ssl_certfile",
    )
    ssl_context: Any = option(
        None,
        "Function that may change each ssl.SSLContext of the server before it is used, or module:attribute.",
        group="tls",
        per_bind=True,
        needs="ssl_certfile",
    )
    ssl_session_tickets: int = option(
        2,
        "Tickets a client gets to resume its session with; 0 gives none.",
        group="tls",
        per_bind=True,
        ge=0,
        le=16,
        needs="ssl_certfile",
    )
    ssl_cert_reqs: ClientCertificates = option(
        "none", "Whether clients are asked for a certificate, and turned away without one.", group="tls", per_bind=True
    )
    ssl_ca_certs: str | None = option(
        None,
        "Authorities that client certificates must come from: a file, PEM, or a folder.",
        group="tls",
        per_bind=True,
    )
    ssl_crl: str | None = option(None, "List of client certificates that are revoked, PEM.", group="tls", per_bind=True)
    ssl_keylog: str | None = option(
        None,
        "Write the secrets of all connections to this file, for analysis; never in production.",
        group="tls",
        needs="ssl_certfile",
    )

    # HTTP/3
    http3_enabled: bool = option(
        False,
        "Serve HTTP/3 on the UDP ports of the TLS binds too; needs the package pounce-h3.",
        group="http3",
        also=("http3",),
    )
    quic_bind: tuple[str, ...] = option(
        (),
        "Serve HTTP/3 on these UDP ports, as host:port, and not on those beside the TLS binds. May be repeated.",
        group="http3",
        needs="http3_enabled",
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
    http3_ping_interval: float = option(
        0.0,
        "How often clients of requests that run are sent a PING, so that connections on which nothing else happens for "
        "long stay open; 0 sends none.",
        group="http3",
        unit="seconds",
        ge=0,
        needs="http3_enabled",
    )
    http3_qlog_dir: str | None = option(
        None,
        "A folder that gets a file for each QUIC connection with what has happened on it (qlog); to look for faults.",
        group="http3",
        needs="http3_enabled",
    )
    http3_webtransport_enabled: bool = option(
        False,
        "Open WebTransport sessions for applications that know the scope webtransport; a preview.",
        group="http3",
        needs="http3_enabled",
    )
    http3_webtransport_max_sessions: int = option(
        16,
        "Sessions of one connection; more are answered 429.",
        group="http3",
        ge=1,
        needs="http3_webtransport_enabled",
    )
    http3_webtransport_max_streams: int = option(
        256,
        "Streams of each kind that a client may have open on a connection, requests among them.",
        group="http3",
        ge=1,
        le=65536,
        needs="http3_webtransport_enabled",
    )
    http3_webtransport_datagram_queue: int = option(
        256,
        "Datagrams of a session that wait for the application, and of a connection for the network; more are dropped.",
        group="http3",
        ge=1,
        needs="http3_webtransport_enabled",
    )
    http3_webtransport_origins: tuple[str, ...] = option(
        (),
        "Origins that web pages may open sessions from, as https://example.org; empty allows all.",
        group="http3",
        needs="http3_webtransport_enabled",
    )
    http3_webtransport_drain_timeout: float = option(
        5.0,
        "Time that sessions have to come to an end when their worker drains, before they are closed.",
        group="http3",
        unit="seconds",
        ge=0,
        needs="http3_webtransport_enabled",
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
        per_bind=True,
    )
    max_headers: int = option(
        100,
        "Header fields in one head or trailer section.",
        group="limits",
        ge=1,
        per_bind=True,
    )
    h11_max_incomplete_event_size: int | None = option(
        None,
        "The same for the parser h11 alone, where that is to be less than max_header_size.",
        group="limits",
        unit="bytes",
        ge=256,
    )
    max_request_size: int = option(
        1_048_576, "Size of a request body; 0 sets no limit.", group="limits", unit="bytes", ge=0, per_bind=True
    )
    max_connections: int = option(
        10_000, "Open connections; further ones are answered 503. 0 sets no limit.", group="limits", ge=0
    )
    max_connections_per_peer: int = option(
        0,
        "Open connections of one address, or IPv6 /64, to a process; further ones are answered 503. 0 sets no limit.",
        group="limits",
        ge=0,
    )
    max_connections_per_peer_exempt: tuple[str, ...] = option(
        (),
        "Address or network that it does not hold for, such as a proxy, or localhost. May be repeated.",
        group="limits",
        needs="max_connections_per_peer",
    )
    max_buffered: int = option(
        0,
        "Bodies that wait for applications, and answers that wait for peers, in a process; beyond that those with most"
        " are paused, then closed. 0 sets no limit.",
        group="limits",
        unit="bytes",
        ge=0,
    )
    limit_concurrency: int = option(
        0,
        "Requests that run at once in the whole server; further ones wait or are answered 503. 0 sets no limit.",
        group="limits",
        ge=0,
    )
    limit_concurrency_websockets: bool = option(
        False,
        "Count WebSockets among them while they are open; where no more may run they are refused, and do not wait.",
        group="limits",
        needs="limit_concurrency",
    )
    request_queue_enabled: bool = option(
        False,
        "Have requests above limit_concurrency wait, the oldest first.",
        group="limits",
        needs="limit_concurrency",
    )
    request_queue_max_depth: int = option(
        1000,
        "Requests that wait in the whole server; further ones are answered 503. 0 sets no limit.",
        group="limits",
        ge=0,
        needs="request_queue_enabled",
    )
    max_requests_per_connection: int = option(
        0,
        "Requests served on one connection before it is closed; 0 sets no limit.",
        group="limits",
        ge=0,
        per_bind=True,
    )
    min_body_rate: int = option(
        240,
        "Slowest average rate of a request body, in bytes a second after 5 s of grace; 0 sets no limit.",
        group="limits",
        unit="bytes",
        ge=0,
        per_bind=True,
    )
    min_write_rate: int = option(
        240,
        "Slowest average rate at which a peer takes what waits for it, in bytes a second over each write_timeout; "
        "0 sets no limit.",
        group="limits",
        unit="bytes",
        ge=0,
        per_bind=True,
    )

    # Rate limits
    rate_limit_enabled: bool = option(
        False, "Bound how often a client may ask; what is beyond is answered 429.", group="rate limits"
    )
    rate_limit_requests_per_second: float = option(
        100.0, "Requests of one client in a second, over time.", group="rate limits", gt=0,
        needs="rate_limit_enabled",
    )  # fmt: skip
    rate_limit_burst: int = option(
        200, "Requests that a client may send at once after a pause.", group="rate limits", ge=1,
        needs="rate_limit_enabled",
    )  # fmt: skip
    rate_limit_max_tracked_ips: int = option(
        100_000, "Clients that a process remembers at most.", group="rate limits", ge=1,
        needs="rate_limit_enabled",
    )  # fmt: skip
    rate_limit_key: str = option(
        "client",
        "Who counts as one client: client, which is an address or an IPv6 /64, or who sends the same header:NAME or"
        " cookie:NAME.",
        group="rate limits",
        needs="rate_limit_enabled",
    )
    rate_limit_routes: tuple[str, ...] = option(
        (),
        "A limit of its own, the first that fits counts: 'POST /login 5/m', '/api/* 50/s 100', '/static/* off'. May be"
        " repeated.",
        group="rate limits",
        needs="rate_limit_enabled",
    )
    rate_limit_exempt: tuple[str, ...] = option(
        (),
        "Clients without a limit: addresses, networks, unix for peers of Unix sockets. May be repeated.",
        group="rate limits",
        needs="rate_limit_enabled",
    )
    rate_limit_exempt_paths: tuple[str, ...] = option(
        (), "Paths without a limit, for example /static/*. May be repeated.", group="rate limits",
        needs="rate_limit_enabled",
    )  # fmt: skip
    rate_limit_fields: RateLimitFields = option(
        "refused",
        "Answers that have the fields RateLimit and RateLimit-Policy: those that refuse, all, or none (off).",
        group="rate limits",
        needs="rate_limit_enabled",
    )
    rate_limit_store: str | None = option(
        None,
        "Redis or Valkey that several processes or machines share their limits in: redis://host:6379/0, rediss:// over"
        " TLS, unix:///path.",
        group="rate limits",
        secret=True,
        needs="rate_limit_enabled",
    )
    rate_limit_store_file: str | None = option(
        None, "File whose first line is that URL.", group="rate limits", needs="rate_limit_enabled"
    )
    rate_limit_store_timeout: float = option(
        0.1,
        "Time the store has for an answer; then the process decides by itself.",
        group="rate limits",
        unit="seconds",
        gt=0,
        needs="rate_limit_store or rate_limit_store_file",
    )
    rate_limit_store_prefix: str = option(
        "pounce:rate:", "What names in the store begin with; servers with the same share their limits.",
        group="rate limits", needs="rate_limit_store or rate_limit_store_file",
    )  # fmt: skip

    # Deadlines
    header_timeout: float = option(
        10.0,
        "Time for a complete message head, from its first byte or the opening of the connection.",
        group="deadlines",
        unit="seconds",
        gt=0,
        per_bind=True,
    )
    keep_alive_timeout: float = option(
        5.0,
        "Time a connection may stay idle between requests.",
        group="deadlines",
        also=("timeout_keep_alive",),
        unit="seconds",
        gt=0,
        per_bind=True,
    )
    request_timeout: float = option(
        30.0, "Time between two pieces of a request body.", group="deadlines", unit="seconds", gt=0, per_bind=True
    )
    app_timeout: float = option(
        0.0,
        "Time an application may take for a complete answer; 0 sets no limit.",
        group="deadlines",
        unit="seconds",
        ge=0,
    )
    request_queue_timeout: float = option(
        10.0,
        "Time a request may wait for others to end.",
        group="deadlines",
        unit="seconds",
        gt=0,
        needs="request_queue_enabled",
    )
    write_timeout: float = option(
        30.0,
        "Time a peer may take nothing, or less than min_write_rate, of what is waiting for it.",
        group="deadlines",
        unit="seconds",
        gt=0,
        per_bind=True,
    )
    startup_timeout: float = option(30.0, "Time for the lifespan startup.", group="deadlines", unit="seconds", gt=0)
    shutdown_timeout: float = option(
        10.0,
        "Time for running requests to finish on shutdown, and again for the lifespan shutdown.",
        group="deadlines",
        also=("timeout_graceful_shutdown",),
        unit="seconds",
        ge=0,
    )
    reload_timeout: float | None = option(
        None,
        "Time for running requests to finish on a reload; none is shutdown_timeout.",
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
        also=("ws_max_size",),
        unit="bytes",
        ge=0,
        per_bind=True,
    )
    websocket_max_incomplete: int = option(
        268_435_456,
        "Size of all WebSocket messages of a process that have begun and not ended; 0 sets no limit.",
        group="websocket",
        unit="bytes",
        ge=0,
    )
    websocket_compression: bool = option(
        True,
        "Compress WebSocket messages (permessage-deflate) for clients that offer it.",
        group="websocket",
        per_bind=True,
    )
    websocket_compression_min_size: int = option(
        128,
        "Smaller messages are sent uncompressed.",
        group="websocket",
        unit="bytes",
        ge=0,
        needs="websocket_compression",
        per_bind=True,
    )
    websocket_compression_window_bits: int = option(
        12,
        "Size of the compression windows as a power of 2; both directions of a connection keep theirs.",
        group="websocket",
        ge=9,
        le=15,
        needs="websocket_compression",
        per_bind=True,
    )
    websocket_compression_context_takeover: bool = option(
        True,
        "Keep the windows from message to message: smaller messages, more memory.",
        group="websocket",
        needs="websocket_compression",
        per_bind=True,
    )
    websocket_origins: tuple[str, ...] = option(
        (),
        "Origins that web pages may connect from, as https://example.org; empty allows all. May be repeated.",
        group="websocket",
        per_bind=True,
    )
    websocket_ping_interval: float = option(
        20.0,
        "Time between pings to WebSocket clients; 0 sends none.",
        group="websocket",
        also=("ws_ping_interval",),
        unit="seconds",
        ge=0,
        per_bind=True,
    )
    websocket_ping_timeout: float = option(
        20.0,
        "Time after a ping in which the client must send something, its pong at least; 0 waits for ever.",
        group="websocket",
        also=("ws_ping_timeout",),
        unit="seconds",
        ge=0,
        needs="websocket_ping_interval",
        per_bind=True,
    )
    websocket_idle_timeout: float = option(
        0.0,
        "Time without a message either way that closes a WebSocket; 0 never does.",
        group="websocket",
        unit="seconds",
        ge=0,
        per_bind=True,
    )
    websocket_close_timeout: float = option(
        10.0,
        "Time for the client's part of the closing handshake.",
        group="websocket",
        unit="seconds",
        gt=0,
        per_bind=True,
    )

    # Behind proxies
    proxy_headers: bool = option(
        True,
        "Judge the fields by which proxies say whom they speak for: believe those of trusted_hosts, take away others.",
        group="proxies",
    )
    trusted_hosts: tuple[str, ...] = option(
        (),
        "Proxies that are believed: addresses, networks, unix for peers of Unix sockets, * for all. May be repeated.",
        group="proxies",
        also=("forwarded_allow_ips",),
    )
    trusted_hosts_wildcard: bool = option(
        False,
        "Whether trusted_hosts has *: follows from it, whatever is given.",
        group="proxies",
        flag=False,
    )
    forwarded_for_trusted_hops: int = option(
        1, "Proxies in front, counted from here, whose addresses need not be known.", group="proxies", ge=1
    )
    forwarded_family: ForwardedFamily = option(
        "x-forwarded", "Which fields the proxies write: X-Forwarded-For and its kin, or Forwarded.", group="proxies"
    )
    forwarded_prefix: bool = option(
        False, "Put X-Forwarded-Prefix of a trusted proxy in front of root_path.", group="proxies"
    )
    trusted_keep_alive_timeout: float | None = option(
        None,
        "keep_alive_timeout of trusted proxies; none is 75 s, or keep_alive_timeout where that was changed.",
        group="proxies",
        unit="seconds",
        gt=0,
        per_bind=True,
    )
    request_id: bool = option(
        False, "Give every request an id, which its answer and its log line have.", group="proxies"
    )
    request_id_header: str = option(
        "x-request-id", "Field that has the id, in answers and from trusted proxies.", group="proxies"
    )
    request_id_generator: Any = option(
        None, "Function that makes the ids, or module:attribute.", group="proxies", flag=False
    )
    server_timing: bool = option(
        False, "Tell in the field Server-Timing how long reading, waiting and the application took.", group="proxies"
    )
    forwarded_real_ip: bool = option(
        False, "Take X-Real-IP of a trusted proxy where it sends no X-Forwarded-For.", group="proxies"
    )

    # Answers
    server_names: tuple[str, ...] = option(
        (),
        "Hosts that are answered for, others get 421: example.org, *.example.org; empty is all. May be repeated.",
        group="application",
    )
    headers: tuple[str, ...] = option(
        (),
        "Field of every answer that has none of this name, as Name:Value. May be repeated.",
        group="application",
        also=("header",),
    )
    https_redirect: bool = option(
        False, "Send requests over http on to https, but for those that renew certificates.", group="tls"
    )
    https_redirect_port: int = option(443, "Port that they are sent to.", group="tls", ge=1, le=65535)
    hsts: str = option(
        "", "Value of Strict-Transport-Security, for example max-age=31536000; empty sends none.", group="tls"
    )

    # Compression
    compression: bool = option(
        True,
        "Compress what shrinks by it, for clients that accept it: zstd, br (with brotlicffi), gzip.",
        group="compression",
    )
    compression_min_size: int = option(
        500, "Bytes from which a body is compressed.", group="compression", unit="bytes", ge=0
    )
    compression_types: str = option(
        "", "Regular expression for the media types to compress; empty is those that shrink.", group="compression"
    )
    compression_event_streams: bool = option(False, "Compress text/event-stream too.", group="compression")
    compression_zstd_level: int = option(3, "Level of zstd; 0 leaves it out.", group="compression", ge=0, le=22)
    compression_br_level: int = option(4, "Level of br; 0 leaves it out.", group="compression", ge=0, le=11)
    compression_gzip_level: int = option(6, "Level of gzip; 0 leaves it out.", group="compression", ge=0, le=9)
    compression_dictionaries: tuple[Any, ...] = option(
        (),
        "Dictionaries (RFC 9842), made by pounce.load_dictionary().",
        group="compression",
        flag=False,
    )

    # Static files
    static_files: Mapping[str, str] = option(
        dict,
        "Directories to serve files from, by the path they are under: /static=public. May be repeated.",
        group="static files",
        factory=True,
    )
    static_cache_control: str = option(
        "public, max-age=3600", "Cache-Control of static files; empty sends none.", group="static files"
    )
    static_precompressed: bool = option(
        True, "Send file.br, file.zst or file.gz in place of file to clients that take it.", group="static files"
    )
    static_follow_symlinks: bool = option(False, "Follow links that end inside of the directory.", group="static files")
    static_index_file: str | None = option(
        "index.html", "File that is served for a directory; none serves nothing there.", group="static files"
    )
    static_fallback: str | None = option(
        None, "File of the directory that browsers get for pages which nobody has.", group="static files"
    )
    static_immutable: str = option(
        "",
        "Regular expression for names of files that never change; hashed is that of names with a hash.",
        group="static files",
    )

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

    def resolve_workers(self) -> int:
        """The number of workers: `workers`, or as many as there are CPUs to use for 0."""
        from pounce.cpus import usable_cpus

        return self.workers or usable_cpus()

    def secret(self, name: str) -> str | None:
        """The value of a secret setting, or what is in the file that the setting `NAME_file` names; None for neither.

        Raises `ConfigError` where that cannot be read.
        """
        value: str | None = getattr(self, name)
        path = getattr(self, f"{name}_file")
        return value if path is None else secret_from(f"{name}_file", path)

    def to_iic_dict(self) -> dict[str, Any]:
        """The settings that JSON can hold, by name: all but functions and other objects. Secrets are among them."""
        return {item.name: value for item in OPTIONS if (value := _as_json(getattr(self, item.name))) is not _NOT_JSON}

    def to_json(self) -> str:
        """The same as text."""
        return json.dumps(self.to_iic_dict())

    @classmethod
    def from_iic_dict(cls, settings: Mapping[str, Any]) -> ServerConfig:
        """A configuration from `to_iic_dict()`, also that of another version: names that do not exist are passed over.

        Raises `ConfigError`.
        """
        known = {item.name for item in OPTIONS}
        return cls.of({name: value for name, value in settings.items() if name in known})

    @classmethod
    def from_json(cls, text: str) -> ServerConfig:
        """The same from text. Raises `ConfigError`."""
        try:
            settings = json.loads(text)
        except ValueError as exc:
            raise ConfigError(f"the configuration is not JSON: {exc}") from exc
        if not isinstance(settings, dict):
            raise ConfigError("the configuration must be an object of JSON")
        return cls.from_iic_dict(settings)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> ServerConfig:
        """The same as `of()`."""
        return cls.of(settings)

    @property
    def uses_tls(self) -> bool:
        """Whether there is a certificate."""
        return self.ssl_certfile is not None or self.ssl_self_signed

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> ServerConfig:
        """A configuration from settings by name, or by a second spelling that a name has.

        Raises `ConfigError` also for a name that does not exist.
        """
        names = {spelling: item.name for item in OPTIONS for spelling in (item.name, *item.also)}
        given: dict[str, str] = {}
        for spelling in settings:
            name = names.get(spelling)
            if name is None:
                raise unknown_setting(spelling, names)
            if name in given:
                raise ConfigError(f"{given[name]} and {spelling} are two spellings of one setting", hint="Give one.")
            given[name] = spelling
        return cls(**{name: settings[spelling] for name, spelling in given.items()})

    def __reduce__(self) -> tuple[Any, ...]:
        settings = {item.name: getattr(self, item.name) for item in OPTIONS}
        return (ServerConfig.of, (settings,))

    def __post_init__(self) -> None:
        for item in OPTIONS:
            object.__setattr__(self, item.name, item.checked(getattr(self, item.name)))
        check_together(self)


_NOT_JSON = object()


def _as_json(value: Any) -> Any:
    """The value made of what JSON has, `_NOT_JSON` where it cannot be."""
    if isinstance(value, Mapping):
        value = {name: _as_json(each) for name, each in value.items()}
        return _NOT_JSON if any(each is _NOT_JSON for each in value.values()) else value
    if isinstance(value, tuple | list):
        value = [_as_json(each) for each in value]
        return _NOT_JSON if any(each is _NOT_JSON for each in value) else value
    return value if value is None or isinstance(value, bool | int | float | str) else _NOT_JSON


def describe() -> tuple[Option, ...]:
    """Every setting in the order of the class: what the command line and the reference page are made from."""
    return OPTIONS


def setting_of_bind(name: str, others: Iterable[str]) -> Option:
    """The setting of the server that a bind may have its own of, by its name or a second spelling of that.

    `others` are what else the bind takes. Raises `ConfigError`.
    """
    items = {spelling: item for item in OPTIONS for spelling in (item.name, *item.also)}
    item = items.get(name)
    if item is None:
        known = [*others, *(spelling for spelling, each in items.items() if each.per_bind)]
        close = difflib.get_close_matches(name, known, 1)
        hint = f"Did you mean {close[0]}?" if close else f"It takes {', '.join(others)}, and settings of connections."
        raise ConfigError(f"{name!r} is not an option of this bind", hint=hint)
    if not item.per_bind:
        raise ConfigError(f"{name} is a setting of the whole server, of which a bind cannot have its own")
    return item


OPTIONS = options_of(ServerConfig)
