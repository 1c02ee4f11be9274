"""The page that Prometheus reads: what all workers have counted, in its text format or in OpenMetrics."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar

from pounce.contract.totals import Totals
from pounce.endpoints.answer import answer
from pounce.exchange.accept import preferred_type
from pounce.exchange.scope import split_target

if TYPE_CHECKING:
    from pounce.contract.head import RequestHead
    from pounce.contract.pieces import Response
    from pounce.contract.wire import ASGIApp, Service

__all__ = ["families", "metrics_page"]

FAMILIES = {
    "http_requests_total": "Requests that were answered.",
    "http_request_duration_seconds": "From the head of a request to the last byte of its answer.",
    "http_response_first_byte_seconds": "From the head of a request to the first byte of its answer.",
    "http_request_size_bytes": "Bodies of requests.",
    "http_response_size_bytes": "Bodies of answers.",
    "http_connections_active": "Connections that are open.",
    "http_requests_in_flight": "Requests whose application runs.",
    "http_streams_active": "WebSockets, and whatever else an upgrade opened, that are open.",
    "http_stream_duration_seconds": "From the head of an upgrade to its end.",
    "http_bytes_sent_total": "Bytes of bodies and messages.",
    "pounce_requests_total": "Requests that were answered, by version of HTTP.",
    "pounce_connections": "Connections that are open, by wire.",
    "pounce_tls_handshakes_total": "TLS handshakes that were completed.",
    "pounce_tls_handshake_failures_total": "Connections that came to nothing before they began.",
    "pounce_http3_retries_total": "Clients of HTTP/3 that had to prove their address by a Retry.",
    "pounce_http3_packets_lost_total": "Packets of HTTP/3 that were lost, of connections that have ended.",
    "pounce_request_queue_depth": "Requests that wait for a place.",
    "pounce_request_queue_wait_seconds": "How long requests have waited that then had one.",
    "pounce_rate_limited_total": "Requests that were refused by a rate limit.",
    "pounce_rate_limit_store_failures_total": "How often the store of rate limits did not answer.",
    "pounce_rate_limited_locally_total": "Requests that a process has decided without the store.",
    "pounce_log_lines_dropped_total": "Lines of logs that could not be written.",
    "pounce_workers": "Workers that run, those included that drain.",
    "pounce_event_loop_lag_seconds": "How late the loop of a worker last came round.",
    "pounce_certificate_expiry_timestamp_seconds": "When the certificate of the server expires, since the epoch.",
    "process_cpu_seconds_total": "Seconds of processor time.",
    "process_resident_memory_bytes": "Memory that is resident.",
    "python_gc_collections_total": "Runs of the garbage collector.",
    "pounce_events_total": "What else has happened: limits that were hit, errors, reloads, and what plugins count.",
    "pounce_gauge": "How else it is: what plugins tell.",
}
"""Families in the order of the page, and what they are."""
HISTOGRAMS = (
    "http_request_duration_seconds",
    "http_response_first_byte_seconds",
    "http_request_size_bytes",
    "http_response_size_bytes",
    "http_stream_duration_seconds",
    "pounce_request_queue_wait_seconds",
)
HIDDEN = frozenset(("requests", "connections", "running", "request_queue_waits", "request_queue_seconds"))
"""Totals that other families have."""
OWN_FAMILIES = {
    "POUNCE_LIMIT_RATE": "pounce_rate_limited_total",
    "rate_limit_store_failed": "pounce_rate_limit_store_failures_total",
    "rate_limited_locally": "pounce_rate_limited_locally_total",
    "request_queue": "pounce_request_queue_depth",
    "tls_handshakes": "pounce_tls_handshakes_total",
    "handshake_error": "pounce_tls_handshake_failures_total",
    "h3_retry": "pounce_http3_retries_total",
    "h3_packets_lost": "pounce_http3_packets_lost_total",
    "log_lines_dropped": "pounce_log_lines_dropped_total",
}
"""Totals that have a family of their own, in place of a label."""
FORMATS = (
    b"text/plain; version=0.0.4; charset=utf-8",
    *(
        b"application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=" + escaping
        for escaping in (b"underscores", b"allow-utf-8", b"dots", b"values")
    ),
)
"""What the page is written in, the first for who accepts anything."""


def metrics_page(service: Service) -> Callable[[RequestHead], Response | ASGIApp | None]:
    """Answers GET and HEAD of `metrics_path`; 503 where the supervisor does not answer."""
    wanted = service.config.metrics_path.encode()

    async def page(scope: Any, receive: Any, send: Any) -> None:
        encode, content_type = choose_encoder(preferred_type(scope["headers"], FORMATS).decode())
        try:
            totals = await service.totals()
        except TimeoutError as exc:
            status, content_type, body = 503, "text/plain; charset=utf-8", f"{exc}\n".encode()
        else:
            status, body = 200, encode(Page(totals))
        await answer(send, status, content_type.encode(), body)

    def respond(head: RequestHead) -> Response | ASGIApp | None:
        # `in` has bytes raise an error, and drop it, before it looks.
        if head.target.find(wanted) < 0 or split_target(head.target)[0] != wanted:
            return None
        return page if head.method in (b"GET", b"HEAD") else None

    return respond


class Page:
    """What an encoder of prometheus_client takes for a registry."""

    def __init__(self, totals: Totals) -> None:
        self._totals = totals

    def collect(self) -> Iterable[Metric]:
        return families(self._totals)


def families(totals: Totals) -> list[Metric]:
    """What these totals are to Prometheus."""
    found: dict[str, Metric] = {}

    def add(kind: Literal["counter", "gauge"], key: str, value: float) -> None:
        name, labels = _parted(OWN_FAMILIES.get(key, key))
        family = next((each for each in HISTOGRAMS if name.startswith(each)), name)
        if family not in FAMILIES:
            family = name = "pounce_events_total" if kind == "counter" else "pounce_gauge"
            labels = {"event" if kind == "counter" else "name": key}
        metric = found.get(family)
        if metric is None:
            what = "histogram" if family in HISTOGRAMS else kind
            metric = found[family] = Metric(family.removesuffix("_total") if kind == "counter" else family, "", what)
            metric.documentation = FAMILIES[family]
        found_exemplar = totals.exemplars.get(key)
        exemplar = None
        if found_exemplar is not None:
            trace_id, measured, at = found_exemplar
            exemplar = Exemplar({"trace_id": trace_id}, measured, at)
        metric.add_sample(name, labels, value, exemplar=exemplar)
        if labels.get("le") == "+Inf":
            metric.add_sample(f"{family}_count", {}, value)

    for key, value in totals.counts.items():
        if key not in HIDDEN:
            add("counter", key, value)
    for key, value in totals.gauges.items():
        if key not in HIDDEN:
            add("gauge", key, value)
    for key, value in totals.processes.items():
        add("counter" if _parted(key)[0].endswith("_total") else "gauge", key, value)
    return [found[name] for name in FAMILIES if name in found]


def _parted(key: str) -> tuple[str, dict[str, str]]:
    """Name and labels of what `pounce.observe.metrics.sample` has put together."""
    name, brace, labels = key.partition("{")
    if not brace:
        return name, {}
    return name, dict(pair.split("=", 1) for pair in labels.rstrip("}").split(",") if "=" in pair)
