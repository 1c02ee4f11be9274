"""The status page and its events, whatever the wire; tests/interop/test_browser.py looks at it in a browser."""

import json
from typing import Any

import pytest
from tests.conformance.wires import Started, Wire, answer

PAGE, EVENTS = "/_pounce/", "/_pounce/events"
HERE = (b"host", b"localhost")


async def app(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"the application")


@pytest.fixture
def started(wire: Wire) -> Started:
    return wire.start(app, status_page_enabled=True, introspection_token="a-token", lifespan="off")


def test_the_page_runs_nothing_but_its_own_script(started: Started) -> None:
    found = started.request("GET", PAGE, [HERE])
    fields = dict(found.headers)
    assert (found.status, fields[b"content-type"]) == (200, b"text/html; charset=utf-8")
    policy = fields[b"content-security-policy"]
    assert b"default-src 'none'" in policy
    assert policy.count(b"'sha256-") == 2


def test_events_tell_how_the_server_does(started: Started) -> None:
    with started.connect() as client:
        request = client.open("GET", EVENTS, [HERE])
        assert request.read_head().status == 200
        text = b""
        # What workers count is collected now and then: an event may come before the first time.
        for _ in range(30):
            event, end, text = (text + request.read_piece()).rpartition(b"\n\n")
            seen = json.loads(event.rpartition(b"\n\n")[2].removeprefix(b"data: ")) if end else {}
            if seen.get("gauges", {}).get("connections"):
                break
        request.abort()
    assert seen["counts"]["requests"] == 1
    assert seen["gauges"]["connections"] == 1


def test_events_tell_of_the_memory_of_the_processes(started: Started) -> None:
    with started.connect() as client:
        request = client.open("GET", EVENTS, [HERE])
        text = b""
        for _ in range(30):
            text += request.read_piece()
            if b'"process_resident_memory_bytes{pid=' in text:
                break
        request.abort()
    assert b'"process_resident_memory_bytes{pid=' in text


def test_events_are_for_this_machine_and_for_the_token(started: Started) -> None:
    relayed = [HERE, (b"forwarded", b"for=192.0.2.1")]
    assert started.request("GET", EVENTS, relayed).status == 403
    assert started.request("HEAD", EVENTS, [*relayed, (b"authorization", b"Bearer a-token")]).status == 200


def test_other_paths_are_the_applications(started: Started) -> None:
    assert started.request("GET", "/_pounce/other").body == b"the application"
    assert started.request("GET", "/").body == b"the application"


def test_who_looks_does_not_hold_up_the_end(started: Started) -> None:
    with started.connect() as client:
        request = client.open("GET", EVENTS, [HERE])
        assert request.read_piece()
        started.server.shutdown()
        while request.read_piece():
            pass
