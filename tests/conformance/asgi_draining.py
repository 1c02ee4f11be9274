"""What applications learn of a drain, on every wire: the notice, then `http.disconnect`, then their cancellation."""

import asyncio
import json
import threading
import time
from typing import Any

import pytest
from tests.conformance.wires import Wire, answer, read_body

PATIENCE = 60.0


class Streaming:
    """Streams until it hears what it listens for; notes what it was told, and when."""

    def __init__(self, listens: str, *, finishes: bool = True) -> None:
        self.listens = listens
        self.finishes = finishes
        self.begun = threading.Event()
        self.told = threading.Event()
        self.was_set: list[bool] = []
        self.cancelled = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        notice = scope["extensions"]["pounce.worker.draining"]
        await read_body(receive)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        self.was_set.append(notice.is_set())
        self.begun.set()
        try:
            if self.listens == "notice":
                await notice.wait()
            elif self.listens == "disconnect":
                assert await receive() == {"type": "http.disconnect"}
            else:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        self.was_set.append(notice.is_set())
        self.told.set()
        if self.finishes:
            await send({"type": "http.response.body", "body": b", ended"})


class Asked(threading.Thread):
    """A request in a thread of its own, with what came back."""

    def __init__(self, started: Any) -> None:
        super().__init__()
        self.client = started.connect()
        self.response: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.response = self.client.request("GET", "/")
        except BaseException as exc:
            self.error = exc


def drained(wire: Wire, app: Streaming, *, hurry: bool = False, **settings: Any) -> tuple[Asked, float]:
    """Shut a server down while `app` streams; the request, and how many seconds the end took."""
    started = wire.start(app, **settings)
    asked = Asked(started)
    asked.start()
    assert app.begun.wait(PATIENCE)
    began = time.monotonic()
    started.server.shutdown(hurry=hurry)
    asked.join(PATIENCE)
    asked.client.close()
    started.server.stop()
    return asked, time.monotonic() - began


def test_a_stream_that_waits_for_the_notice_ends_in_its_own_way(wire: Wire) -> None:
    app = Streaming("notice")
    asked, seconds = drained(wire, app, shutdown_timeout=2 * PATIENCE)
    assert asked.response.body == b"begun, ended"
    assert app.was_set == [False, True]
    assert seconds < PATIENCE


def test_a_stream_that_waits_for_the_disconnect_is_told_in_time_to_end_in_its_own_way(wire: Wire) -> None:
    app = Streaming("disconnect")
    asked, seconds = drained(wire, app, shutdown_timeout=PATIENCE, drain_disconnect=1)
    assert asked.response.body == b"begun, ended"
    assert PATIENCE / 100 <= seconds < PATIENCE


def test_a_stream_is_told_after_a_second_where_somebody_waits_for_the_end(wire: Wire) -> None:
    app = Streaming("disconnect")
    asked, seconds = drained(wire, app, hurry=True, shutdown_timeout=2 * PATIENCE)
    assert asked.response.body == b"begun, ended"
    assert 1.0 <= seconds < PATIENCE


def test_an_application_that_is_told_and_gives_up_its_answer_breaks_it_off_without_an_error_in_the_log(
    wire: Wire, caplog: Any
) -> None:
    app = Streaming("disconnect", finishes=False)
    asked, _ = drained(wire, app, shutdown_timeout=2 * PATIENCE, drain_disconnect=0)
    assert asked.response is None or asked.response.body == b"begun"
    assert [record.getMessage() for record in caplog.records if record.levelname in ("ERROR", "WARNING")] == []


def test_an_application_is_told_nothing_where_the_setting_says_so(wire: Wire) -> None:
    app = Streaming("disconnect")
    _, seconds = drained(wire, app, shutdown_timeout=0.3, drain_disconnect=100)
    assert (app.told.is_set(), app.cancelled) == (False, True)
    assert seconds >= 0.3


def test_an_application_that_listens_to_nothing_is_cancelled_when_the_time_is_over(wire: Wire) -> None:
    app = Streaming("nothing")
    _, seconds = drained(wire, app, shutdown_timeout=0.3)
    assert app.cancelled
    assert 0.3 <= seconds < PATIENCE


def test_connections_are_accepted_and_health_says_draining_during_the_delay(wire: Wire) -> None:
    notices: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        notices.append(scope["extensions"]["pounce.worker.draining"].is_set())
        await answer(send, b"served")

    started = wire.start(app, drain_delay=2 * PATIENCE, health_check_path="/health")
    assert started.request("GET", "/health").status == 200
    end = time.monotonic() + PATIENCE
    started.server.shutdown()
    health = started.request("GET", "/health")
    while health.status == 200 and time.monotonic() < end:
        health = started.request("GET", "/health")
    assert (health.status, json.loads(health.body)["status"]) == (503, "draining")
    assert started.request("GET", "/").body == b"served"
    started.server.shutdown(force=True)
    started.stop()
    assert notices == [False]


def test_the_server_ends_after_the_delay(wire: Wire) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise NotImplementedError

    started = wire.start(app, drain_delay=0.3)
    began = time.monotonic()
    started.stop()
    assert 0.3 <= time.monotonic() - began < PATIENCE


def test_a_second_shutdown_cuts_the_delay_short(wire: Wire) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await answer(send)

    started = wire.start(app, drain_delay=2 * PATIENCE)
    began = time.monotonic()
    started.server.shutdown()
    started.server.shutdown(force=True)
    started.stop()
    assert time.monotonic() - began < PATIENCE


def test_request_after_the_end_of_the_drain_is_answered_503_and_starts_nothing(wire: Wire) -> None:
    asked: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        receive.__self__.service.end()
        await answer(send, b"last")

    started = wire.start(app, lifespan="off", debug=True)
    first, second = started.connect(), started.connect()
    assert first.request("GET", "/first").body == b"last"
    refused = second.request("POST", "/second", body=b"x")
    assert (refused.status, b"POUNCE_SHUTTING_DOWN" in refused.body) == (503, True)
    if wire.case.has_reasons:
        assert second.read_eof()
    assert asked == ["/first"]


@pytest.mark.parametrize("options", ["", "root_path=/bind"], ids=["as the server", "of its own"])
def test_service_of_each_bind_knows_of_the_end_when_what_runs_is_cancelled(wire: Wire, options: str) -> None:
    begun = threading.Event()
    ending: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        service = receive.__self__.service
        ending.append(service.ending)
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ending.append(service.ending)

    started = wire.start(app, options=options, lifespan="off", shutdown_timeout=0.05)
    with started.connect() as client:
        request = client.open("GET", "/")
        assert begun.wait(PATIENCE)
        started.server.shutdown()
        assert request.response().status == 503
    assert ending == [False, True]
