"""Waiting: requests of which is not yet known whether they may start."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from pounce.errors import BadRequest
from pounce.exchange.service import Admit, Service
from pounce.exchange.waiting import Verdict, WaitingExchange
from pounce.plugin import API_VERSION, Exchange, ObserverFactory, Plugin, RequestHead, Stream, Upgrade
from pounce.registry import Registry
from pounce.testing import MemoryConnection, RecordingStream
from pounce.testing.memory import memory_service, observe

GET = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"
REFUSED = BadRequest("Not now", status=429, code="POUNCE_NOT_NOW")


class Promises:
    """A step that lets every request wait; the test keeps the promises."""

    def __init__(self) -> None:
        self.made: list[asyncio.Future[Verdict]] = []

    def __call__(self, service: Service) -> Admit:
        def admit(head: RequestHead, stream: Stream) -> Exchange:
            promise: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
            self.made.append(promise)
            return WaitingExchange(cast("Any", service), head, stream, promise)

        return admit


class Completions:
    def __init__(self) -> None:
        self.statuses: list[tuple[int, bool]] = []

    def completed(self, exchange: Any) -> None:
        self.statuses.append((exchange.status, exchange.broken))


class Echo:
    """Answers with the body of the request."""

    def __init__(self) -> None:
        self.started = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.started += 1
        body, more = b"", True
        while more:
            message = await receive()
            assert message["type"] == "http.request"
            body += message["body"]
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"<%b>" % body})


def connected(app: Any, step: Promises, **settings: Any) -> tuple[MemoryConnection, Completions]:
    service = memory_service(app, admission=(step,), **settings)
    seen = Completions()
    observe(service, seen)
    return MemoryConnection(service=service), seen


class Starts(Completions):
    """Keeps what it is told, in its order."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def started(self, exchange: Any) -> None:
        self.told.append(f"started {exchange.head.target.decode()}")

    def completed(self, exchange: Any) -> None:
        self.told.append(f"completed {exchange.status}")


def watched(app: Any, step: Promises) -> tuple[MemoryConnection, Starts]:
    from pounce.h1.plugin import plugin as h1

    seen = Starts()
    factory = ObserverFactory(name="starts", create=lambda service: seen)
    registry = Registry.of(h1, Plugin(name="starts", api=API_VERSION, observers=(factory,)))
    return MemoryConnection(service=memory_service(app, registry, admission=(step,))), seen


def run(test: Callable[[], Any]) -> None:
    asyncio.run(test())


def test_application_starts_when_the_promise_is_kept_and_finds_the_body() -> None:
    async def test() -> None:
        app, step = Echo(), Promises()
        connection, seen = connected(app, step)
        connection.feed(b"POST / HTTP/1.1\r\nHost: example.org\r\nContent-Length: 6\r\n\r\nabc")
        await connection.settle()
        connection.feed(b"def")
        await connection.settle()
        assert (app.started, connection.received) == (0, b"")
        step.made[0].set_result(None)
        await connection.settle()
        assert connection.received.endswith(b"<abcdef>")
        assert seen.statuses == [(200, False)]

    run(test)


def test_connection_serves_on_after_a_refusal_that_was_waited_for() -> None:
    async def test() -> None:
        app, step = Echo(), Promises()
        connection, seen = connected(app, step)
        connection.feed(GET)
        step.made[0].set_result(REFUSED)
        await connection.settle()
        connection.feed(GET)
        step.made[1].set_result(None)
        await connection.settle()
        assert seen.statuses == [(429, False), (200, False)]

    run(test)


def test_body_of_a_request_that_waits_stays_with_the_wire() -> None:
    async def test() -> None:
        connection, _ = connected(Echo(), Promises(), max_request_size=0)
        connection.feed(b"POST / HTTP/1.1\r\nHost: example.org\r\nContent-Length: 10000000\r\n\r\n")
        for _ in range(40):
            connection.feed(b"x" * 65536)
            await connection.settle(2)
        assert connection.transport.unread

    run(test)


def test_client_that_leaves_takes_its_place_with_it() -> None:
    async def test() -> None:
        app, step = Echo(), Promises()
        connection, seen = connected(app, step)
        connection.feed(GET)
        connection.lose()
        await connection.settle()
        assert step.made[0].cancelled()
        assert (app.started, seen.statuses) == (0, [(0, True)])

    run(test)


def test_peer_that_breaks_a_rule_while_it_waits_is_told_so() -> None:
    async def test() -> None:
        app, step = Echo(), Promises()
        connection, seen = connected(app, step)
        connection.feed(b"POST / HTTP/1.1\r\nHost: example.org\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n")
        await connection.settle()
        assert connection.received.startswith(b"HTTP/1.1 400 ")
        assert step.made[0].cancelled()
        assert (app.started, seen.statuses) == (0, [(400, False)])

    run(test)


def test_body_that_turned_out_too_large_while_waiting_is_answered_without_the_application() -> None:
    async def test() -> None:
        app, step = Echo(), Promises()
        connection, seen = connected(app, step, max_request_size=4)
        connection.feed(b"POST / HTTP/1.1\r\nHost: example.org\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n12345678\r\n")
        step.made[0].set_result(None)
        await connection.settle()
        assert (app.started, seen.statuses) == (0, [(413, False)])

    run(test)


def test_admitted_request_takes_its_place_in_the_queue_as_well() -> None:
    async def test() -> None:
        first, step = asyncio.Event(), Promises()
        paths: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            paths.append(scope["path"])
            if scope["path"] == "/1":
                await first.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        service = memory_service(app, admission=(step,), limit_concurrency=1, request_queue_enabled=True)
        connections = [MemoryConnection(service=service) for _ in range(2)]
        for number, connection in enumerate(connections, 1):
            connection.feed(GET.replace(b" / ", b" /%d " % number))
            step.made[-1].set_result(None)
            await connection.settle()
        assert paths == ["/1"]
        first.set()
        await connections[1].settle()
        assert paths == ["/1", "/2"]
        assert connections[1].received.startswith(b"HTTP/1.1 200 ")

    run(test)


def test_upgrade_opens_when_the_promise_is_kept() -> None:
    async def test() -> None:
        opened: list[bytes] = []

        def opens(service: Any, head: RequestHead, stream: Stream) -> Exchange:
            stream.tunnel([])
            opened.append(head.target)
            return cast("Exchange", RecordingExchange(stream))

        step = Promises()
        registry = Registry.of(Plugin(name="own", api=API_VERSION, upgrades=(Upgrade(token=b"own", open=opens),)))
        service = memory_service(None, registry, admission=(step,))
        stream = RecordingStream()
        service.open(RequestHead(b"GET", b"/", [], "2", upgrade=b"own"), stream, b"early")
        assert opened == []
        step.made[0].set_result(None)
        await asyncio.sleep(0)
        assert (opened, cast("Any", stream.exchange).received) == ([b"/"], [b"early"])

    run(test)


class RecordingExchange:
    def __init__(self, stream: Any) -> None:
        stream.exchange = self
        self.received: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        self.received.append(data)


def test_observers_are_told_of_a_request_when_it_begins_to_wait_and_once() -> None:
    async def test() -> None:
        step = Promises()
        connection, seen = watched(Echo(), step)
        connection.feed(GET)
        await connection.settle()
        assert seen.told == ["started /"]
        step.made[0].set_result(None)
        await connection.settle()
        assert seen.told == ["started /", "completed 200"]

    run(test)


def test_observers_are_told_once_of_a_request_that_has_waited_to_be_refused() -> None:
    async def test() -> None:
        step = Promises()
        connection, seen = watched(Echo(), step)
        connection.feed(GET)
        await connection.settle()
        step.made[0].set_result(REFUSED)
        await connection.settle()
        assert seen.told == ["started /", "completed 429"]

    run(test)


def test_observers_are_told_of_the_next_request_of_a_connection_that_has_waited() -> None:
    async def test() -> None:
        step = Promises()
        connection, seen = watched(Echo(), step)
        for number in range(2):
            connection.feed(GET)
            await connection.settle()
            step.made[number].set_result(None)
            await connection.settle()
        assert seen.told == ["started /", "completed 200"] * 2

    run(test)
