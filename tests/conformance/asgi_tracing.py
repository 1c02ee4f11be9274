"""Traces by OpenTelemetry, whatever the wire, as a collector on loopback receives them."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from tests.collector import Collector, collecting
from tests.conformance.wires import Started, Wire, answer

from pounce import ConfigError, ServerConfig

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/fails":
        raise RuntimeError("on purpose")
    if scope["path"].startswith("/items/"):
        scope["pounce.route"] = "/items/{id}"
    await answer(send, trace.format_trace_id(trace.get_current_span().get_span_context().trace_id).encode())


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """Of the whole module, as providers are of the whole process."""
    with collecting() as found:
        yield found
        for provider in (trace.get_tracer_provider(), metrics.get_meter_provider()):
            provider.shutdown()  # type: ignore[union-attr]


@pytest.fixture
def started(wire: Wire, collector: Collector) -> Started:
    started = wire.start(app, otel_endpoint=collector.url, access_log=True, trusted_hosts=["127.0.0.1"], lifespan="off")
    collector.bodies.clear()
    return started


def only_span(collector: Collector, started: Started) -> Span:
    """That of the only request, once it has come."""
    started.server.stop()
    [span] = collector.spans()
    return span


def attributes(span: Span) -> dict[str, Any]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


def test_a_request_is_a_span_of_the_trace_it_comes_from_and_current_in_the_application(
    started: Started, collector: Collector
) -> None:
    found = started.request("GET", "/any", [(b"traceparent", f"00-{TRACE}-{PARENT}-01".encode())])
    assert found.body.decode() == TRACE
    span = only_span(collector, started)
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert (span.name, span.kind) == ("GET", Span.SPAN_KIND_SERVER)
    assert attributes(span)["http.response.status_code"] == 200


def test_what_the_application_raises_is_recorded(started: Started, collector: Collector) -> None:
    assert started.request("GET", "/fails").status == 500
    span = only_span(collector, started)
    assert span.status.code == Status.STATUS_CODE_ERROR
    [event] = span.events
    assert {each.key: each.value.string_value for each in event.attributes}["exception.message"] == "on purpose"


def test_the_route_that_the_application_sets_names_the_span(started: Started, collector: Collector) -> None:
    started.request("GET", "/items/17")
    span = only_span(collector, started)
    assert (span.name, attributes(span)["http.route"]) == ("GET /items/{id}", "/items/{id}")


def test_the_access_log_has_the_trace_of_a_request_that_begins_one(
    started: Started, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "pounce.access"):
        body = started.request("GET", "/any").body.decode()
        span = only_span(collector, started)
    assert span.trace_id.hex() == body
    [entry] = [record.msg for record in caplog.records if record.name == "pounce.access"]
    assert entry.trace_id == body  # type: ignore[attr-defined]


def test_an_address_without_a_scheme_is_refused() -> None:
    with pytest.raises(ConfigError, match="otel_endpoint must begin with http"):
        ServerConfig(otel_endpoint="127.0.0.1:4318")
