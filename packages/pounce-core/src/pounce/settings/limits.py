"""Of how much, how often and how long."""

import dataclasses

from pounce.options import option
from pounce.settings.types import RateLimitFields

__all__ = ["LimitSettings"]


@dataclasses.dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class LimitSettings:
    """Of how much, how often and how long."""

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
