"""What one worker counts, and what becomes of it on the page, without a server."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.exposition import generate_latest as text
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from pounce.config import ServerConfig
from pounce.contract.totals import Totals
from pounce.observe.losses import Losses
from pounce.observe.metrics import Metrics
from pounce.observe.metrics_page import Page, families

TRACE = "0af7651916cd43dd8448eb211c80319c"


def metrics(**settings: Any) -> Metrics:
    service: Any = SimpleNamespace(
        config=ServerConfig(**settings),
        loop=SimpleNamespace(time=time.monotonic),
        worker_id=0,
        on_tick=set(),
        on_totals=set(),
        counts={},
        tls=None,
    )
    return Metrics(service)


def request(seconds: float = 0.0, **more: Any) -> Any:
    """One that has taken so long."""
    fields = {
        "head": SimpleNamespace(method=b"GET", version="1.1"),
        "status": 200,
        "started": time.monotonic() - seconds,
        "bytes_sent": 0,
        "bytes_received": 0,
        "first_byte": None,
        "queued": 0.0,
        "trace_id": None,
    }
    return SimpleNamespace(**(fields | more))


def totals(found: Metrics) -> Totals:
    gathered = Totals(gauges={"running": 0, "connections": 0})
    found._fill(gathered)
    return gathered


def within(counts: dict[str, float], name: str, bound: str) -> float:
    return counts[f"{name}_bucket{{le={bound}}}"]


def test_bodies_are_histograms_of_their_sizes() -> None:
    found = metrics()
    for received, sent in ((0, 13), (5_000, 2_000_000)):
        found.completed(request(bytes_received=received, bytes_sent=sent))
    counts = totals(found).counts
    asked, answered = "http_request_size_bytes", "http_response_size_bytes"
    assert [within(counts, asked, bound) for bound in ("100.0", "1000.0", "10000.0", "+Inf")] == [0, 0, 1, 1]
    assert [within(counts, answered, bound) for bound in ("100.0", "1000000.0", "10000000.0")] == [1, 1, 2]
    assert counts["http_request_size_bytes_sum"] == 5_000
    assert counts["http_response_size_bytes_sum"] == counts["http_bytes_sent_total"] == 2_000_013


def test_first_bytes_are_earlier_than_last_ones_where_answers_are_streams() -> None:
    found = metrics()
    stream, whole = request(600.0), request(600.0)
    stream.first_byte = stream.started + 0.07
    found.completed(stream)
    found.completed(whole)
    counts = totals(found).counts
    name = "http_response_first_byte_seconds"
    assert [within(counts, name, bound) for bound in ("0.05", "0.075", "10.0", "+Inf")] == [0, 1, 1, 2]
    assert within(counts, "http_request_duration_seconds", "10.0") == 0


def test_waits_in_the_queue_are_a_histogram_where_there_is_a_queue() -> None:
    found = metrics(limit_concurrency=1)
    found.completed(request(queued=0.3))
    found.completed(request())
    counts = totals(found).counts
    name = "pounce_request_queue_wait_seconds"
    assert [within(counts, name, bound) for bound in ("0.25", "0.5", "+Inf")] == [0, 1, 1]
    assert f"{name}_sum" not in totals(metrics()).counts


def test_the_last_trace_of_a_bucket_is_its_exemplar_in_openmetrics() -> None:
    found = metrics(otel_endpoint="http://127.0.0.1:4318")
    # Far from the bounds of their buckets, however long this takes.
    found.completed(request(600.0, trace_id="1" * 32))
    found.completed(request(600.0, trace_id=TRACE))
    found.completed(request())
    page: Any = Page(totals(found))
    samples = [sample for family in openmetrics_families(openmetrics(page).decode()) for sample in family.samples]
    [sample] = [sample for sample in samples if sample.exemplar]
    assert (sample.labels["le"], sample.exemplar.labels) == ("+Inf", {"trace_id": TRACE})
    assert sample.exemplar.value >= 600


def test_exemplars_do_not_disturb_the_older_format() -> None:
    found = metrics(otel_endpoint="http://127.0.0.1:4318")
    found.completed(request(0.3, trace_id=TRACE))
    page: Any = Page(totals(found))
    told = text(page).decode()
    assert TRACE not in told
    assert list(text_string_to_metric_families(told))


def test_of_the_exemplars_of_several_workers_the_latest_is_told() -> None:
    name = "http_request_duration_seconds_bucket{le=0.5}"
    workers = [Totals(exemplars={name: (str(at), 0.3, at)}) for at in (5.0, 9.0, 7.0)]
    assert Totals.of(workers).exemplars == {name: ("9.0", 0.3, 9.0)}


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("tls_handshakes", "pounce_tls_handshakes"),
        ("handshake_error", "pounce_tls_handshake_failures"),
        ("h3_retry", "pounce_http3_retries"),
        ("POUNCE_LIMIT_RATE", "pounce_rate_limited"),
        ("rate_limit_store_failed", "pounce_rate_limit_store_failures"),
        ("log_lines_dropped", "pounce_log_lines_dropped"),
    ],
)
def test_what_has_a_family_of_its_own_is_no_event(name: str, family: str) -> None:
    [found] = families(Totals({name: 3}))
    assert (found.name, found.type, [sample.value for sample in found.samples]) == (family, "counter", [3])


def test_the_depth_of_the_queue_is_a_gauge_of_its_own() -> None:
    [found] = families(Totals(gauges={"request_queue": 2}))
    assert (found.name, found.type) == ("pounce_request_queue_depth", "gauge")


def test_lines_of_logs_that_were_lost_are_counted_by_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = Losses()
    monkeypatch.setattr("pounce.observe.metrics.losses", lost)
    found, other = metrics(), metrics()
    for _ in range(3):
        lost.add()
    found._look_at_process()
    other._look_at_process()
    lost.add()
    found._look_at_process()
    assert [each._service.counts.get("log_lines_dropped") for each in (found, other)] == [4, None]
