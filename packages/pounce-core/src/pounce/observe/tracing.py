"""Traces and metrics by OpenTelemetry: its own ASGI middleware around the application, outermost.

Providers belong to the process, as all of OpenTelemetry does: the first worker makes them, in the process in which it
serves, and the others use the same. Where the application has set its own, those are used and none is made.
"""

import logging
import os
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from pounce.errors import ConfigError
from pounce.exchange.traced import running
from pounce.gil import gil_enabled
from pounce.observe.flushing import FLUSH_TIMEOUT, flushed

if TYPE_CHECKING:
    from pounce.config import ServerConfig
    from pounce.contract.wire import ASGIApp

__all__ = ["traced"]

EXPORT_TIMEOUT = 5
"""Seconds that one export may take."""
_making = threading.Lock()
"""Held while the providers of this process are made, for whichever worker comes first."""


def traced(service: Any, app: ASGIApp) -> ASGIApp:
    """`app` with a span around each request and WebSocket, which is current while it runs."""
    # Without it names are those of before they were settled, and metrics have the path of the request as a label.
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
    with _making:
        _hear_what_it_logs()
        _make_providers(service.config)
    service.on_end.add(partial(flushed, _flush))
    middleware: Any = OpenTelemetryMiddleware(
        _with_route(app),
        default_span_details=_span_details,
        server_request_hook=_tell_exchange,
        # A span for each piece of a body would be most of what there is.
        exclude_spans=["receive", "send"],
    )
    found: ASGIApp = middleware
    return found


class _AsOurs(logging.Handler):
    """Has records written as the server's own are."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger("pounce").handle(record)


def _hear_what_it_logs() -> None:
    """Where nobody has made a handler for what the library logs, Python writes it to stderr as it is: with the text of
    clients, and in the midst of lines of JSON."""
    logger = logging.getLogger("opentelemetry")
    if not logger.hasHandlers():
        logger.addHandler(_AsOurs())
    # It has a warning for each of the many members that a client may write into one field.
    baggage = logging.getLogger("opentelemetry.baggage.propagation")
    if baggage.level == logging.NOTSET:
        baggage.setLevel(logging.ERROR)


def _make_providers(config: ServerConfig) -> None:
    resource = Resource.create({"service.name": config.otel_service_name})
    exporters = _exporters_over_grpc if config.otel_protocol == "grpc" else _exporters_over_http
    of_spans, of_metrics = exporters((config.otel_endpoint or "").rstrip("/"))
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        # Workers flush when they end, within a bound; at the exit of Python there is none.
        tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
        tracers.add_span_processor(BatchSpanProcessor(of_spans()))
        trace.set_tracer_provider(tracers)
    # The name of what stands for none is not public.
    if type(metrics.get_meter_provider()).__name__ == "_ProxyMeterProvider":
        reader = PeriodicExportingMetricReader(of_metrics())
        metrics.set_meter_provider(MeterProvider([reader], resource=resource, shutdown_on_exit=False))


type Exporters = tuple[Callable[[], SpanExporter], Callable[[], MetricExporter]]


def _exporters_over_http(endpoint: str) -> Exporters:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return (
        lambda: OTLPSpanExporter(f"{endpoint}/v1/traces", timeout=EXPORT_TIMEOUT),
        lambda: OTLPMetricExporter(f"{endpoint}/v1/metrics", timeout=EXPORT_TIMEOUT),
    )


def _exporters_over_grpc(endpoint: str) -> Exporters:
    """Raises `ConfigError` without the GIL, and where the package is missing."""
    if not gil_enabled():
        raise ConfigError(
            "otel_protocol grpc needs the GIL: there is no grpcio for free-threaded Python",
            hint="Take http: collectors have it on port 4318.",
        )
    try:
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    except ModuleNotFoundError as exc:
        raise ConfigError(
            f"otel_protocol grpc needs the exporter over gRPC ({exc.name} is missing)",
            hint="Install it: pip install opentelemetry-exporter-otlp-proto-grpc",
        ) from exc
    plain = endpoint.startswith("http://")
    return (
        lambda: OTLPSpanExporter(endpoint, insecure=plain, timeout=EXPORT_TIMEOUT),
        lambda: OTLPMetricExporter(endpoint, insecure=plain, timeout=EXPORT_TIMEOUT),
    )


def _flush() -> None:
    for provider in (trace.get_tracer_provider(), metrics.get_meter_provider()):
        flush = getattr(provider, "force_flush", None)
        if flush is not None:
            flush(int(FLUSH_TIMEOUT * 1000))


def _span_details(scope: Any) -> tuple[str, dict[str, Any]]:
    """The name of a span before its route is known: no part of the path, which has no bound."""
    method = scope.get("method", "WEBSOCKET")
    return (method if method in _METHODS else "HTTP"), {}


_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "WEBSOCKET"))


def _tell_exchange(span: trace.Span, scope: Any) -> None:
    exchange = running.get()
    if exchange is not None:
        exchange.trace_id = trace.format_trace_id(span.get_span_context().trace_id)


def _with_route(app: ASGIApp) -> ASGIApp:
    """`app`, with `scope["pounce.route"]` in its span where it has set that before its answer begins."""

    async def routed(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            await app(scope, receive, send)
            return

        # The span ends with the last message of the answer, and the route is known before the first.
        async def sending(message: Any) -> None:
            if message["type"] in ("http.response.start", "websocket.accept"):
                route = scope.get("pounce.route")
                if route is not None:
                    span.set_attribute("http.route", route)
                    span.update_name(f"{_span_details(scope)[0]} {route}")
            await send(message)

        span = trace.get_current_span()
        await app(scope, receive, sending)

    return routed
