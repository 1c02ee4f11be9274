"""What collectors are told of connections and requests, whatever the wire."""

import logging
from typing import Any

import pytest
from tests.conformance.client import PATIENCE
from tests.conformance.wires import Started, Wire, answer, read_body
from tests.workers.running import eventually

from pounce.lifecycle import (
    BufferedCollector,
    ClientDisconnected,
    ConnectionCompleted,
    ConnectionOpened,
    LifecycleEvent,
    RequestStarted,
    ResponseCompleted,
)


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/breaks":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("on purpose")
    if scope["path"] == "/waits":
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    await answer(send, await read_body(receive))


class Log(list[LifecycleEvent]):
    """A collector of the events of one server."""

    def record(self, event: LifecycleEvent) -> None:
        self.append(event)

    def of[T](self, kind: type[T]) -> list[T]:
        return [event for event in self if isinstance(event, kind)]

    def closed(self) -> list[ConnectionCompleted]:
        """Those of connections that are gone, once there is one."""
        eventually(lambda: bool(self.of(ConnectionCompleted)), PATIENCE)
        return self.of(ConnectionCompleted)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def started(wire: Wire, log: Log) -> Started:
    return wire.start(app, lifecycle_collector=log, lifespan="off")


def test_the_events_of_a_connection_are_whole_and_in_order(started: Started, log: Log) -> None:
    with started.connect() as client:
        assert client.request("POST", "/path?query", body=b"hello").body == b"hello"
        client.request("GET", "/")
    [closed] = log.closed()
    # The answer of a server is over for it when the last byte has left: a client may be faster.
    kinds = [type(event) for event in log]
    assert kinds[0] is ConnectionOpened
    assert kinds[-1] is ConnectionCompleted
    assert sorted(kind.__name__ for kind in kinds[1:-1]) == ["RequestStarted"] * 2 + ["ResponseCompleted"] * 2
    first, _ = log.of(RequestStarted)
    assert (first.method, first.path) == ("POST", "/path")
    ended = next(event for event in log.of(ResponseCompleted) if event.method == "POST")
    assert (ended.status, ended.bytes_sent, ended.complete) == (200, 5, True)
    assert (closed.requests_served, closed.total_bytes_sent) == (2, 5)
    assert {event.connection_id for event in log} == {log[0].connection_id}
    assert [event.timestamp_ns for event in log] == sorted(event.timestamp_ns for event in log)
    [opened] = log.of(ConnectionOpened)
    assert opened.protocol in ("h1", "h2", "h3")


def test_a_request_that_is_refused_has_its_events_too(wire: Wire, log: Log) -> None:
    started = wire.start(app, lifecycle_collector=log, lifespan="off", max_request_size=10)
    with started.connect() as client:
        assert client.request("POST", "/", body=b"x" * 11).status == 413
    log.closed()
    assert [event.status for event in log.of(ResponseCompleted)] == [413]
    assert len(log.of(RequestStarted)) == 1


def test_an_answer_that_breaks_off_says_so(started: Started, log: Log) -> None:
    with started.connect() as client:
        assert not client.request("GET", "/breaks").complete
    log.closed()
    [ended] = log.of(ResponseCompleted)
    assert not ended.complete
    [gone] = log.of(ClientDisconnected)
    assert gone.during_streaming
    assert log.index(gone) < log.index(ended)


@pytest.mark.parametrize("resets", [False, True], ids=["ends", "resets"])
def test_what_a_client_leaves_open_ends_before_its_connection(started: Started, log: Log, resets: bool) -> None:
    with started.connect() as client:
        request = client.open("GET", "/waits")
        request.read_head()
        if resets:
            request.abort()
    [closed] = log.closed()
    eventually(lambda: bool(log.of(ResponseCompleted)), PATIENCE)
    assert log[-1] is closed
    assert len(log.of(ConnectionOpened)) == 1


def test_several_collectors_are_told_and_one_that_fails_hurts_no_other(
    wire: Wire, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    class Fails:
        def record(self, event: LifecycleEvent) -> None:
            raise RuntimeError("on purpose")

    started = wire.start(app, lifecycle_collector=[Fails(), log], lifespan="off")
    assert started.request("GET", "/").status == 200
    eventually(lambda: bool(log.of(ResponseCompleted)))
    assert "Collector Fails failed" in caplog.text


def test_events_are_logged_where_that_is_asked_for(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "pounce.lifecycle")
    started = wire.start(app, lifecycle_logging=True, log_slow_requests_threshold=0.0, lifespan="off")
    assert started.request("GET", "/slow").status == 200

    def lines(level: int) -> list[str]:
        return [record.getMessage() for record in caplog.records if record.levelno == level]

    eventually(lambda: any("ResponseCompleted" in line for line in lines(logging.WARNING)))
    assert any('"path": "/slow"' in line for line in lines(logging.DEBUG))


def test_what_is_no_collector_is_an_error_at_the_start(wire: Wire) -> None:
    with pytest.raises(Exception, match="has no method record"):
        wire.start(app, lifecycle_collector=object(), lifespan="off")


def test_a_buffer_flushes_when_it_is_full_and_when_it_is_asked() -> None:
    taken: list[list[LifecycleEvent]] = []
    buffer = BufferedCollector(2, taken.append)
    event = RequestStarted(
        connection_id=1, worker_id=0, timestamp_ns=1, method="GET", path="/", http_version="1.1"
    )
    for _ in range(3):
        buffer.record(event)
    assert (len(taken), len(buffer)) == (1, 1)
    assert buffer.flush() == [event]
    assert (len(taken), len(buffer)) == (2, 0)
