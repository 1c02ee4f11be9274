"""Concurrency: who may start, who waits, and what becomes of the places."""

import asyncio
import re
import threading
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, ClassVar

import pytest

from pounce.admission.concurrency import Concurrency, Gate
from pounce.config import ServerConfig
from pounce.contract.head import RequestHead
from pounce.errors import BadRequest
from pounce.exchange.service import Service
from pounce.plugin import API_VERSION, Plugin, Responder, Upgrade
from pounce.registry import Registry
from pounce.testing import MemoryConnection, RecordingStream
from pounce.testing.memory import memory_service, observe
from pounce.worker.portion import Limits

LIMITED = {"limit_concurrency": 2, "request_queue_enabled": True, "request_queue_max_depth": 2}
CODE = b"x-pounce-error-code"


class Held:
    """An application whose requests go on when the test lets them."""

    def __init__(self) -> None:
        self.running: dict[str, asyncio.Event] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        self.running[path] = asyncio.Event()
        try:
            await self.running[path].wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": path.encode()})
        finally:
            del self.running[path]

    async def release(self, path: str) -> None:
        self.running[path].set()
        await turns()


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def head(path: str, method: bytes = b"GET", **more: Any) -> RequestHead:
    return RequestHead(method, path.encode(), [(b"host", b"example.org")], "1.1", **more)


def ask(service: Service, path: str, **more: Any) -> RecordingStream:
    stream = RecordingStream()
    service.open(head(path, **more), stream)
    return stream


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        try:
            await asyncio.wait_for(test(), 60)  # type: ignore[arg-type]
        finally:
            # The end of one starts another that has waited: asyncio cancels only those that there are.
            while rest := asyncio.all_tasks() - {asyncio.current_task()}:
                for task in rest:
                    task.cancel()
                await asyncio.gather(*rest, return_exceptions=True)

    asyncio.run(whole())


def gate_of(service: Service) -> Gate:
    assert isinstance(service.concurrency, Concurrency)
    return service.concurrency.gate


def test_requests_above_the_limit_wait_and_start_in_their_order() -> None:
    async def test() -> None:
        app = Held()
        service = memory_service(app, **LIMITED)
        streams = {path: ask(service, path) for path in ("/1", "/2", "/3", "/4")}
        assert set(app.running) == {"/1", "/2"}
        await app.release("/2")
        assert set(app.running) == {"/1", "/3"}
        await app.release("/1")
        await app.release("/3")
        await app.release("/4")
        assert [stream.body.decode() for stream in streams.values()] == list(streams)
        assert (gate_of(service).running, gate_of(service).waiting) == (0, 0)

    run(test)


def test_one_beyond_those_that_wait_is_told_to_come_again() -> None:
    async def test() -> None:
        service = memory_service(Held(), **LIMITED)
        *_, refused = [ask(service, f"/{number}") for number in range(5)]
        assert (refused.status, dict(refused.headers)[b"retry-after"]) == (503, b"5")
        assert dict(refused.headers)[CODE] == b"POUNCE_LIMIT_REQUESTS"
        assert service.counts["POUNCE_LIMIT_REQUESTS"] == 1

    run(test)


def test_nobody_waits_where_there_is_no_queue() -> None:
    async def test() -> None:
        service = memory_service(Held(), limit_concurrency=2)
        assert [ask(service, f"/{number}").status for number in range(3)] == [None, None, 503]

    run(test)


def test_application_that_is_done_at_once_has_left_its_place() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    async def test() -> None:
        service = memory_service(app, limit_concurrency=1)
        assert [ask(service, "/").status for _ in range(3)] == [200] * 3

    run(test)


@pytest.mark.parametrize("end", ["raises", "cancelled"])
def test_application_that_fails_leaves_its_place(end: str) -> None:
    async def test() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            if end == "raises":
                raise RuntimeError
            await asyncio.Event().wait()

        service = memory_service(app, limit_concurrency=1)
        ask(service, "/")
        for task in tuple(service.tasks):
            task.cancel()
        await turns()
        assert gate_of(service).running == 0

    run(test)


@pytest.mark.parametrize("how", ["gone", "half closed", "reset for a broken rule"])
def test_client_that_leaves_while_it_waits_frees_its_place(how: str) -> None:
    async def test() -> None:
        app = Held()
        service = memory_service(app, **LIMITED | {"limit_concurrency": 1, "request_queue_max_depth": 1})
        ask(service, "/1")
        gone = ask(service, "/gone")
        if how == "half closed":
            gone.exchange.half_closed()
            assert gone.was_reset
        else:
            gone.exchange.stream_lost(None if how == "gone" else BadRequest("late", status=408))
            assert gone.status == (None if how == "gone" else 408)
        next_one = ask(service, "/next")
        await app.release("/1")
        assert set(app.running) == {"/next"}
        await app.release("/next")
        assert next_one.body == b"/next"
        assert gate_of(service).running == 0

    run(test)


def test_client_that_leaves_when_its_place_has_just_come_gives_it_on() -> None:
    async def test() -> None:
        app = Held()
        service = memory_service(app, **LIMITED | {"limit_concurrency": 1})
        ask(service, "/1")
        gone, last = ask(service, "/gone"), ask(service, "/last")
        app.running["/1"].set()
        while gate_of(service).waiting > 1:
            await asyncio.sleep(0)
        # Its place has been given to it, and it has not been told.
        gone.exchange.stream_lost(None)
        await turns()
        assert (gone.status, set(app.running)) == (None, {"/last"})
        await app.release("/last")
        assert last.body == b"/last"

    run(test)


def test_request_that_waits_too_long_is_told_to_come_again() -> None:
    async def test() -> None:
        app = Held()
        service = memory_service(app, **LIMITED | {"limit_concurrency": 1}, request_queue_timeout=3)
        ask(service, "/1")
        late = ask(service, "/late")
        service.tick(service.loop.time() + 2)
        assert late.status is None
        service.tick(service.loop.time() + 4)
        assert (late.status, dict(late.headers)[CODE]) == (503, b"POUNCE_TIMEOUT_QUEUE")
        assert dict(late.headers)[b"retry-after"] == b"5"
        assert gate_of(service).waiting == 0
        await app.release("/1")
        assert gate_of(service).running == 0

    run(test)


def test_those_that_wait_at_the_end_of_the_worker_are_answered() -> None:
    async def test() -> None:
        service = memory_service(Held(), **LIMITED | {"limit_concurrency": 1})
        ask(service, "/1")
        waiting = ask(service, "/2")
        assert service.concurrency is not None
        service.concurrency.end()
        assert (waiting.status, dict(waiting.headers)[CODE]) == (503, b"POUNCE_SHUTTING_DOWN")

    run(test)


def test_what_the_server_answers_itself_needs_no_place() -> None:
    async def own(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    responder = Responder(name="own", create=lambda service: lambda head: own if head.target == b"/own" else None)
    registry = Registry.of(Plugin(name="own", api=API_VERSION, responders=(responder,)))

    async def test() -> None:
        service = memory_service(Held(), registry, limit_concurrency=1)
        ask(service, "/1")
        assert [ask(service, path).status for path in ("/own", "/2")] == [204, 503]
        assert gate_of(service).running == 1

    run(test)


def test_body_of_a_request_that_waits_is_not_taken() -> None:
    """As with an application that does not ask for it."""

    async def test() -> None:
        app = Held()
        service = memory_service(app, limit_concurrency=1, request_queue_enabled=True, max_request_size=0)
        ask(service, "/1")
        connection = MemoryConnection(service=service)
        connection.feed(b"POST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 10000000\r\n\r\n")
        for _ in range(20):
            connection.feed(b"a" * 16384)
        assert len(connection.transport.unread) == 16 - 1
        connection.lose()
        await turns()

    run(test)


def test_time_in_the_queue_is_told_to_clients_and_observers() -> None:
    class Observer:
        seen: ClassVar[list[float]] = []

        def completed(self, exchange: Any) -> None:
            self.seen.append(exchange.queued)

    async def test() -> None:
        app = Held()
        service = memory_service(app, **LIMITED | {"limit_concurrency": 1}, server_timing=True, request_id=True)
        observe(service, Observer())
        ask(service, "/1")
        stream = ask(service, "/2")
        began = monotonic()
        await turns()
        least = monotonic() - began
        service.tick(service.loop.time())
        assert service.gauges["request_queue"] == 1
        await app.release("/1")
        await app.release("/2")
        found = re.search(rb"queue;dur=([0-9.]+)", dict(stream.headers)[b"server-timing"])
        assert found is not None
        # Rounded to microseconds.
        assert float(found[1]) / 1000 >= least - 1e-6
        assert Observer.seen[0] == 0.0
        assert Observer.seen[1] >= least
        assert (service.counts["request_queue_waits"], service.counts["request_queue_seconds"]) == (
            1,
            Observer.seen[1],
        )

    run(test)


def opens(service: Any, head: RequestHead, stream: Any) -> Any:
    class Opened:
        def __init__(self) -> None:
            stream.exchange = self
            self.head, self.stream = head, stream

        async def run(self, app: Any) -> None:
            await app({"path": head.target.decode()}, None, None)

    exchange = Opened()
    service.call_app(exchange)
    return stream.exchange


@pytest.mark.parametrize("counted", [True, False])
def test_what_an_upgrade_opens_has_a_place_while_it_is_open_where_that_is_asked_for(counted: bool) -> None:
    registry = Registry.of(Plugin(name="own", api=API_VERSION, upgrades=(Upgrade(token=b"own", open=opens),)))

    async def test() -> None:
        app = Held()
        service = memory_service(
            app, registry, **LIMITED | {"limit_concurrency": 1}, limit_concurrency_websockets=counted
        )
        ask(service, "/socket", upgrade=b"own")
        assert set(app.running) == {"/socket"}
        second = ask(service, "/second", upgrade=b"own")
        assert second.status == (503 if counted else None)
        ask(service, "/request")
        assert ("/request" in app.running) is not counted
        for task in tuple(service.tasks):
            task.cancel()
        await turns()
        assert ("/request" in app.running) is counted

    run(test)


def test_more_places_are_given_at_once_and_fewer_as_requests_end() -> None:
    async def test() -> None:
        app = Held()
        service = memory_service(app, **LIMITED)
        for number in range(1, 5):
            ask(service, f"/{number}")
        gate_of(service).resize(3, 10)
        await turns()
        assert set(app.running) == {"/1", "/2", "/3"}
        gate_of(service).resize(1, 10)
        await app.release("/1")
        await app.release("/2")
        assert set(app.running) == {"/3"}
        await app.release("/3")
        assert set(app.running) == {"/4"}
        await app.release("/4")
        assert gate_of(service).running == 0

    run(test)


def test_bound_is_exact_over_threads_and_nobody_is_left_in_line() -> None:
    """Four loops share a gate of three places; each request looks how many run."""
    loops, each, limit = 4, 60, 3
    gate = Gate(limit, 0)
    lock = threading.Lock()
    together = threading.Barrier(loops)
    most = [0, 0]
    answered: list[int | None] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with lock:
            most[0] += 1
            most[1] = max(most)
        await turns(3)
        with lock:
            most[0] -= 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    async def serve() -> None:
        service = memory_service(app, limit_concurrency=limit, request_queue_enabled=True)
        assert isinstance(service.concurrency, Concurrency)
        service.concurrency.gate = gate
        together.wait(60)
        streams = [ask(service, "/") for _ in range(each)]
        while not all(stream.ended for stream in streams):
            await asyncio.sleep(0.001)
        answered.extend(stream.status for stream in streams)

    threads = [threading.Thread(target=run, args=(serve,)) for _ in range(loops)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answered == [200] * loops * each
    assert most[1] <= limit
    assert (gate.running, gate.waiting) == (0, 0)


def test_place_goes_to_the_next_where_the_loop_of_the_oldest_has_ended() -> None:
    gate = Gate(1, 0)
    app = Held()
    first = asyncio.new_event_loop()

    async def waits_elsewhere() -> None:
        service = memory_service(app, limit_concurrency=1, request_queue_enabled=True)
        assert isinstance(service.concurrency, Concurrency)
        service.concurrency.gate = gate
        ask(service, "/lost")

    async def test() -> None:
        service = memory_service(app, limit_concurrency=1, request_queue_enabled=True)
        assert isinstance(service.concurrency, Concurrency)
        service.concurrency.gate = gate
        ask(service, "/1")
        elsewhere = threading.Thread(target=lambda: (first.run_until_complete(waits_elsewhere()), first.close()))
        elsewhere.start()
        elsewhere.join()
        ask(service, "/2")
        await app.release("/1")
        assert set(app.running) == {"/2"}
        await app.release("/2")
        assert gate.running == 0

    run(test)


def test_request_behind_the_one_that_has_just_ended_finds_its_place() -> None:
    """Pipelined, it is opened in the turn of the loop in which the application of the first returns."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    async def test() -> None:
        connection = MemoryConnection(service=memory_service(app, limit_concurrency=1))
        connection.feed(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" * 5)
        await connection.settle(60)
        assert connection.received.count(b"HTTP/1.1 200 OK") == 5

    run(test)


@pytest.mark.parametrize("parts", [1, 3, 4])
def test_processes_have_equal_parts_of_what_holds_for_the_whole_server(parts: int) -> None:
    limits = Limits.of(ServerConfig(limit_concurrency=10, request_queue_max_depth=0, max_connections=100))
    found = [limits.portion(parts, number) for number in range(parts)]
    assert sum(each.limit_concurrency for each in found) == 10
    assert sum(each.max_connections for each in found) == 100
    # No limit is none for each.
    assert {each.request_queue_max_depth for each in found} == {0}
    assert max(each.limit_concurrency for each in found) - min(each.limit_concurrency for each in found) <= 1
