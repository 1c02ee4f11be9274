"""Traces in memory, with providers of the application's own; tests/conformance has them on every wire."""

import asyncio
import logging
import logging.handlers
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.clock import HeldLoop

from pounce import ConfigError, ServerConfig
from pounce.h1.plugin import plugin as h1
from pounce.observe import tracing
from pounce.observe.flushing import flushed
from pounce.observe.tracing_plugin import plugin as traces
from pounce.registry import Registry
from pounce.testing import MemoryConnection
from pounce.testing.memory import memory_service
from pounce_ws.plugin import plugin as ws

PATIENCE = 60.0
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[TracerProvider]:
    """The application's own, which stays in its place."""
    own = TracerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: own)
    monkeypatch.setattr(trace, "set_tracer_provider", lambda other: pytest.fail("another one takes its place"))
    # Where whoever asks for a meter looks, too: the one of the process may have been ended by an earlier test.
    monkeypatch.setattr(metrics._internal, "_METER_PROVIDER", metrics.NoOpMeterProvider())
    yield own
    own.shutdown()


@pytest.fixture
def spans(provider: TracerProvider) -> Callable[[], Sequence[ReadableSpan]]:
    """Those that have ended."""
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter.get_finished_spans


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/fails":
        raise RuntimeError("on purpose")
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hello"})


def answers(*requests: bytes, **settings: Any) -> list[bytes]:
    """What each of them is answered."""

    async def ask() -> list[bytes]:
        registry = Registry.of(h1, traces)
        connection = MemoryConnection(
            service=memory_service(app, registry, otel_endpoint="http://127.0.0.1:9", **settings)
        )
        found = []
        for request in requests:
            before = len(connection.received)
            connection.feed(request)
            await connection.settle()
            found.append(bytes(connection.received[before:]))
        return found

    return asyncio.run(ask())


def get(path: str, *fields: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: test", *fields, "", ""]).encode()


def test_a_provider_of_the_application_is_used_and_not_replaced(spans: Callable[[], Sequence[ReadableSpan]]) -> None:
    [answer] = answers(get("/"))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert [span.name for span in spans()] == ["GET"]


@pytest.mark.usefixtures("spans")
@pytest.mark.parametrize(
    ("accept", "told"),
    [
        ("text/plain", f"Trace id: {TRACE}"),
        ("application/json", f'"trace_id": "{TRACE}"'),
        ("text/html", f"<p>{TRACE}</p>"),
    ],
)
def test_an_error_page_has_the_trace_of_its_request(accept: str, told: str) -> None:
    [answer] = answers(get("/fails", f"Accept: {accept}", f"traceparent: 00-{TRACE}-{PARENT}-01"))
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert told.encode() in answer


@pytest.mark.usefixtures("spans")
def test_an_error_page_without_a_trace_does_not_show_that_of_the_request_before() -> None:
    _, answer = answers(
        get("/", f"traceparent: 00-{TRACE}-{PARENT}-01"), get("/", "Content-Length: x"), max_request_size=10
    )
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert TRACE.encode() not in answer


class Silent(SpanExporter):
    """A collector that does not answer before it is let go."""

    def __init__(self) -> None:
        self.asked, self.let_go = threading.Event(), threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.asked.set()
        self.let_go.wait(PATIENCE)
        return SpanExportResult.SUCCESS


def test_a_collector_that_does_not_answer_holds_no_request_up(provider: TracerProvider) -> None:
    collector = Silent()
    provider.add_span_processor(BatchSpanProcessor(collector, schedule_delay_millis=1, max_export_batch_size=1))
    try:
        answers(get("/"))
        assert collector.asked.wait(PATIENCE)
        found = answers(*[get("/")] * 20)
        assert [answer[:15] for answer in found] == [b"HTTP/1.1 200 OK"] * 20
    finally:
        collector.let_go.set()


def test_a_flush_that_does_not_end_is_left_when_its_time_is_over() -> None:
    let_go = threading.Event()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, HeldLoop)
        flushing = loop.create_task(flushed(lambda: let_go.wait(PATIENCE), 3600.0))
        await asyncio.sleep(0)
        assert not flushing.done()
        await loop.advance(3601.0)
        await flushing

    try:
        with asyncio.Runner(loop_factory=HeldLoop) as runner:
            runner.run(main())
    finally:
        let_go.set()


# OTLP over gRPC


class Exporter:
    """What stands for those of the package, which cannot be installed everywhere."""

    made: list[tuple[str, bool]]

    def __init__(self, endpoint: str, *, insecure: bool, timeout: float) -> None:
        self.made.append((endpoint, insecure))


@pytest.mark.parametrize(("scheme", "plain"), [("http", True), ("https", False)])
def test_grpc_is_spoken_to_the_endpoint_itself(monkeypatch: pytest.MonkeyPatch, scheme: str, plain: bool) -> None:
    monkeypatch.setattr(tracing, "gil_enabled", lambda: True)
    monkeypatch.setattr(Exporter, "made", [], raising=False)
    package = "opentelemetry.exporter.otlp.proto.grpc"
    for name, what in (("metric_exporter", "OTLPMetricExporter"), ("trace_exporter", "OTLPSpanExporter")):
        module: Any = ModuleType(name)
        setattr(module, what, Exporter)
        monkeypatch.setitem(sys.modules, f"{package}.{name}", module)
    monkeypatch.setitem(sys.modules, package, ModuleType(package))
    for make in tracing._exporters_over_grpc(f"{scheme}://collector:4317"):
        make()
    assert Exporter.made == [(f"{scheme}://collector:4317", plain)] * 2


@pytest.mark.parametrize(("gil", "message"), [(False, "needs the GIL"), (True, "needs the exporter over gRPC")])
def test_grpc_that_cannot_be_had_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch, provider: TracerProvider, gil: bool, message: str
) -> None:
    monkeypatch.setattr(tracing, "gil_enabled", lambda: gil)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc", None)
    config = ServerConfig(otel_endpoint="http://127.0.0.1:4317", otel_protocol="grpc")
    with pytest.raises(ConfigError, match=f"otel_protocol grpc {message}"):
        tracing.traced(SimpleNamespace(config=config, on_end=set()), app)


# WebSockets


async def chat(scope: Any, receive: Any, send: Any) -> None:
    scope["pounce.route"] = "/rooms/{name}"
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": 1000})


def test_a_websocket_is_a_span_of_the_trace_it_comes_from(spans: Callable[[], Sequence[ReadableSpan]]) -> None:
    async def ask() -> None:
        registry = Registry.of(h1, ws, traces)
        connection = MemoryConnection(service=memory_service(chat, registry, otel_endpoint="http://127.0.0.1:9"))
        fields = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
        fields += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", f"traceparent: 00-{TRACE}-{PARENT}-01"]
        connection.feed(get("/rooms/17?token=x", *fields))
        await connection.settle()
        assert connection.received.startswith(b"HTTP/1.1 101 ")

    asyncio.run(ask())
    [span] = spans()
    assert span.context is not None
    assert (span.name, f"{span.context.trace_id:032x}") == ("WEBSOCKET /rooms/{name}", TRACE)


@pytest.fixture
def of_library(monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """The library's logger as it is in a program that has set up no logging."""
    logger = logging.getLogger("opentelemetry")
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logging.getLogger("opentelemetry.baggage.propagation"), "level", logging.NOTSET)
    # As a configuration of logging leaves what there is when it comes.
    for each in (logger, logger.getChild("sdk"), logging.getLogger("opentelemetry.baggage.propagation")):
        monkeypatch.setattr(each, "disabled", False)
    return logger


@pytest.mark.usefixtures("spans")
@pytest.mark.parametrize("has_own", [False, True], ids=["without", "with"])
def test_what_the_library_logs_is_written_as_the_servers_own_unless_it_has_a_handler(
    has_own: bool, of_library: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, ours = logging.handlers.BufferingHandler(1000), logging.handlers.BufferingHandler(1000)
    monkeypatch.setattr(of_library, "hasHandlers", lambda: has_own)
    monkeypatch.setattr(logging.getLogger("pounce"), "handlers", [ours])
    if has_own:
        of_library.addHandler(own)
    answers(get("/", "Baggage: " + "c," * 400))
    of_library.getChild("sdk").warning("of the library")
    found = [[record.getMessage() for record in each.buffer if record.name != "pounce"] for each in (own, ours)]
    assert found == ([["of the library"], []] if has_own else [[], ["of the library"]])
