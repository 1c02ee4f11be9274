"""limit_concurrency and the queue in front of it, over every wire."""

import asyncio
import queue
import threading
from typing import Any

import pytest
from tests.conformance.client import PATIENCE
from tests.conformance.wires import Wire, answer, read_body

from pounce.admission.concurrency import Gate, Ticket

ONE = {"limit_concurrency": 1, "request_queue_enabled": True}


class Held:
    """An application whose requests go on when the test lets them, and answer with their body."""

    def __init__(self) -> None:
        self.started: queue.Queue[str] = queue.Queue()
        self.released = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        self.started.put(scope["path"])
        await asyncio.to_thread(self.released.wait, PATIENCE)
        await answer(send, await read_body(receive))


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> queue.Queue[str]:
    """What happens to the line: `joined` and `left`."""
    events: queue.Queue[str] = queue.Queue()
    join, leave = Gate.join, Gate.quit

    def joined(gate: Gate, ticket: Ticket) -> bool | None:
        found = join(gate, ticket)
        events.put("joined" if found is False else "not joined")
        return found

    def left(gate: Gate, ticket: Ticket) -> None:
        leave(gate, ticket)
        events.put("left")

    monkeypatch.setattr(Gate, "join", joined)
    monkeypatch.setattr(Gate, "quit", left)
    return events


def test_requests_wait_with_their_bodies_and_are_served_in_their_order(wire: Wire, line: queue.Queue[str]) -> None:
    app = Held()
    server = wire.start(app, **ONE)
    requests = []
    for path in ("/1", "/2", "/3"):
        request = server.connect().open("POST", path, body=True)
        request.send_body(path.encode() * 1000)
        request.end()
        requests.append(request)
        if path == "/1":
            assert app.started.get(timeout=PATIENCE) == "/1"
        else:
            assert line.get(timeout=PATIENCE) == "joined"
    assert app.started.empty()
    app.released.set()
    assert [request.response().body for request in requests] == [b"/1" * 1000, b"/2" * 1000, b"/3" * 1000]
    assert [app.started.get(timeout=PATIENCE) for _ in range(2)] == ["/2", "/3"]


def test_access_log_has_how_long_a_request_has_waited(
    wire: Wire, line: queue.Queue[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pounce.access")
    app = Held()
    server = wire.start(app, **ONE, access_log=True, access_log_format="%(U)s %(queued)s")
    first = server.connect().open("GET", "/1")
    assert app.started.get(timeout=PATIENCE) == "/1"
    second = server.connect().open("GET", "/2")
    assert line.get(timeout=PATIENCE) == "joined"
    app.released.set()
    assert [request.response().status for request in (first, second)] == [200, 200]
    server.stop()
    lines = [record.getMessage() for record in caplog.records if record.name == "pounce.access"]
    waited = {path: float(seconds) for path, seconds in map(str.split, lines)}
    assert waited["/1"] == 0
    assert waited["/2"] > 0


def test_request_beyond_those_that_wait_is_told_to_come_again(wire: Wire, line: queue.Queue[str]) -> None:
    app = Held()
    server = wire.start(app, **ONE, request_queue_max_depth=1, probes=True)
    first = server.connect().open("GET", "/1")
    assert app.started.get(timeout=PATIENCE) == "/1"
    second = server.connect().open("GET", "/2")
    assert line.get(timeout=PATIENCE) == "joined"
    refused = server.request("POST", "/3", body=b"3")
    assert (refused.status, refused.headers[b"retry-after"], refused.complete) == (503, b"5", True)
    assert refused.headers[b"x-pounce-error-code"] == b"POUNCE_LIMIT_REQUESTS"
    assert server.request("GET", "/livez").status == 200
    app.released.set()
    assert [request.response().status for request in (first, second)] == [200, 200]


def test_client_that_leaves_frees_its_place_in_the_line(wire: Wire, line: queue.Queue[str]) -> None:
    app = Held()
    server = wire.start(app, **ONE, request_queue_max_depth=1)
    first = server.connect().open("GET", "/1")
    assert app.started.get(timeout=PATIENCE) == "/1"
    leaves = server.connect().open("GET", "/leaves")
    assert line.get(timeout=PATIENCE) == "joined"
    leaves.abort()
    assert line.get(timeout=PATIENCE) == "left"
    third = server.connect().open("GET", "/3")
    assert line.get(timeout=PATIENCE) == "joined"
    app.released.set()
    assert [request.response().status for request in (first, third)] == [200, 200]
    assert [app.started.get(timeout=PATIENCE)] == ["/3"]


def test_request_waits_no_longer_than_it_may(wire: Wire, line: queue.Queue[str]) -> None:
    app = Held()
    loops: queue.Queue[Any] = queue.Queue()

    async def tells_its_loop(scope: Any, receive: Any, send: Any) -> None:
        loops.put(asyncio.get_running_loop())
        await app(scope, receive, send)

    server = wire.start(tells_its_loop, **ONE, loop="tests.clock:HeldLoop", lifespan="off")
    first = server.connect().open("GET", "/1")
    loop = loops.get(timeout=PATIENCE)
    late = server.connect().open("GET", "/late")
    assert line.get(timeout=PATIENCE) == "joined"
    asyncio.run_coroutine_threadsafe(loop.advance(11), loop)
    refused = late.response()
    assert (refused.status, refused.headers[b"x-pounce-error-code"]) == (503, b"POUNCE_TIMEOUT_QUEUE")
    app.released.set()
    assert first.response().status == 200
