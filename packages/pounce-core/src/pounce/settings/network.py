"""Of sockets, of TLS, and of HTTP/3."""

import dataclasses
from typing import Any

from pounce.options import option
from pounce.settings.types import AltSvc, ClientCertificates, IPv6, QuicEngine, TLSVersion

__all__ = ["NetworkSettings"]


@dataclasses.dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class NetworkSettings:
    """Of sockets, of TLS, and of HTTP/3."""

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
    http3_webtransport_read_timeout: float = option(
        30.0,
        "Time for which streams that a session does not read may hold up their connection, before they are given up; "
        "0 sets no limit.",
        group="http3",
        unit="seconds",
        ge=0,
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
