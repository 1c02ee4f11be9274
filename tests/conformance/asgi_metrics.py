"""What Prometheus reads of the server, whatever the wire."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from tests.conformance.wires import Started, Wire, answer, read_body
from tests.workers.running import eventually

from pounce.contract.totals import Totals
from pounce.observe.metrics_page import families

VERSIONS = {"h1": "1.1", "h2": "2", "h3": "3"}


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/fails":
        raise RuntimeError("on purpose")
    await answer(send, await read_body(receive))


@pytest.fixture
def started(wire: Wire) -> Iterator[Started]:
    yield wire.start(app, metrics_enabled=True, lifespan="off")


def scraped(started: Started, accept: str = "text/plain") -> dict[tuple[str, str], float]:
    """Samples by name and labels, where all of a histogram's are one name's."""
    found = started.request("GET", "/metrics", [(b"accept", accept.encode())])
    assert found.status == 200
    families = openmetrics_families if "openmetrics" in accept else text_string_to_metric_families
    return {
        (sample.name, ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))): sample.value
        for family in families(found.body.decode())
        for sample in family.samples
    }


def test_requests_are_counted_by_method_and_status(started: Started, wire: Wire) -> None:
    for _ in range(3):
        started.request("GET", "/")
    started.request("POST", "/", body=b"x" * 1000)
    started.request("GET", "/fails")
    found = scraped(started)
    assert found["http_requests_total", "method=GET,status=200"] == 3
    assert found["http_requests_total", "method=POST,status=200"] == 1
    assert found["http_requests_total", "method=GET,status=500"] == 1
    assert found["http_bytes_sent_total", ""] > 1000
    assert found["pounce_events_total", "event=app_error"] == 1
    [version] = {labels for name, labels in found if name == "pounce_requests_total"}
    assert found["pounce_requests_total", version] == 5
    assert found["http_request_size_bytes_sum", ""] == 1000
    assert found["http_request_size_bytes_count", ""] == 1
    assert found["http_response_first_byte_seconds_count", ""] == 5


def test_a_method_that_a_client_makes_up_gets_no_label(started: Started) -> None:
    for number in range(3):
        started.request(f"BREW{number}", "/")
    found = scraped(started)
    assert found["http_requests_total", "method=unknown,status=200"] == 3
    assert not [labels for _, labels in found if "BREW" in labels]


def test_durations_are_a_histogram_of_all_requests(started: Started) -> None:
    for _ in range(4):
        started.request("GET", "/")
    found = scraped(started)
    name = "http_request_duration_seconds"
    buckets = [value for (sample, _), value in found.items() if sample == f"{name}_bucket"]
    assert buckets == sorted(buckets)
    assert (len(buckets), buckets[-1], found[f"{name}_count", ""]) == (15, 4, 4)
    assert found[f"{name}_sum", ""] > 0


def test_openmetrics_is_told_to_who_asks_for_it(started: Started) -> None:
    started.request("GET", "/")
    found = scraped(started, "application/openmetrics-text;version=1.0.0")
    assert found["http_requests_total", "method=GET,status=200"] == 1


TEXT, OPENMETRICS = b"text/plain; version=0.0.4", b"application/openmetrics-text; version=1.0.0"
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;"
    "q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "answered"),
    [("text/plain;version=0.0.4;q=0.1,application/openmetrics-text;q=0", TEXT),
     ("application/openmetrics-text;q=0.3,text/plain;q=0.9", TEXT),
     ("application/openmetrics-text;q=0.9,text/plain;q=0.3", OPENMETRICS),
     ("application/openmetrics-text; version=9.9.9", TEXT), ("text/plain; version=9.9.9", TEXT),
     ("application/openmetrics-text; version=9.9.9, application/openmetrics-text; q=0.1", OPENMETRICS),
     ("application/openmetrics-text; version=0.0.1", TEXT), ("*/*", TEXT), ("text/html", TEXT),
     (PROMETHEUS, OPENMETRICS)],
)  # fmt: skip
def test_format_is_the_one_with_the_highest_quality_that_there_is(
    started: Started, accept: str, answered: bytes
) -> None:
    headers = dict(started.request("GET", "/metrics", [(b"accept", accept.encode())]).headers)
    assert headers[b"content-type"].startswith(answered)


def test_the_page_is_for_get_and_head_alone(started: Started) -> None:
    assert started.request("POST", "/metrics", body=b"to the application").body == b"to the application"
    head = started.request("HEAD", "/metrics?any")
    assert (head.status, head.body) == (200, b"")
    [length] = [value for name, value in head.headers if name == b"content-length"]
    assert int(length) > 0


def test_without_the_setting_the_path_is_the_applications(wire: Wire) -> None:
    started = wire.start(app, lifespan="off")
    assert started.request("POST", "/metrics", body=b"mine").body == b"mine"


def test_what_is_so_of_a_process_has_its_pid_and_its_type() -> None:
    names = ("process_cpu_seconds_total", "process_resident_memory_bytes")
    found = families(Totals(processes={f"{name}{{pid=7}}": 2.5 for name in names}))
    assert [(family.type, family.samples) for family in found] == [
        ("counter", [Sample(names[0], {"pid": "7"}, 2.5)]),
        ("gauge", [Sample(names[1], {"pid": "7"}, 2.5)]),
    ]


def test_the_end_of_the_certificate_and_handshakes_are_told(started: Started, wire: Wire) -> None:
    assert started.request("GET", "/").status == 200
    found: set[float] = set()

    def is_told() -> bool:
        found.update(value for (name, _), value in scraped(started).items() if "certificate_expiry" in name)
        return bool(found) or not started.server.url.startswith("https:")

    eventually(is_told)
    assert all(value > time.time() for value in found)
    handshakes = scraped(started).get(("pounce_tls_handshakes_total", ""), 0)
    assert (handshakes > 0) is started.server.url.startswith("https:")
