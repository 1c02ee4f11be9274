"""app_timeout: what becomes of applications that take too long."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pounce.contract.head import RequestHead
from pounce.exchange.service import Service
from pounce.plugin import API_VERSION, Plugin, Responder, Upgrade
from pounce.registry import Registry
from pounce.testing import RecordingStream
from pounce.testing.memory import memory_service

START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body", "body": b"body"}


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))  # type: ignore[arg-type]


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Waits:
    """Sends some messages, and then waits to be cancelled."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.messages = messages
        self.cancelled = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        for message in self.messages:
            await send(message)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


def ask(service: Service, path: str = "/", method: bytes = b"GET", **more: Any) -> RecordingStream:
    stream = RecordingStream()
    service.open(RequestHead(method, path.encode(), [(b"host", b"h")], "1.1", **more), stream)
    return stream


def test_request_of_which_nothing_was_sent_is_answered_504(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        app = Waits()
        service = memory_service(app, app_timeout=5)
        stream = ask(service, "/late")
        service.tick(service.loop.time() + 4)
        assert (stream.status, app.cancelled) == (None, False)
        service.tick(service.loop.time() + 6)
        await turns()
        assert (stream.status, stream.ended, app.cancelled) == (504, True, True)
        assert dict(stream.headers)[b"x-pounce-error-code"] == b"POUNCE_TIMEOUT_APP"
        assert service.counts == {"POUNCE_TIMEOUT_APP": 1}
        assert not service.tasks

    with caplog.at_level(logging.ERROR, "pounce"):
        run(test)
    (record,) = caplog.records
    assert "b'/late'" in record.getMessage()


def test_answer_that_has_begun_is_broken_off() -> None:
    async def test() -> None:
        app = Waits(START, BODY | {"more_body": True})
        service = memory_service(app, app_timeout=5)
        stream = ask(service)
        service.tick(service.loop.time() + 6)
        await turns()
        assert (stream.status, stream.was_reset, app.cancelled) == (200, True, True)

    run(test)


def test_answer_to_head_that_has_left_ends() -> None:
    async def test() -> None:
        app = Waits(START, BODY | {"more_body": True})
        service = memory_service(app, app_timeout=5)
        stream = ask(service, method=b"HEAD")
        service.tick(service.loop.time() + 6)
        await turns()
        assert (stream.status, stream.ended, stream.was_reset, app.cancelled) == (200, True, False, True)

    run(test)


def test_work_after_the_answer_may_take_longer() -> None:
    async def test() -> None:
        app = Waits(START, BODY)
        service = memory_service(app, app_timeout=5)
        ask(service)
        service.tick(service.loop.time() + 6)
        await turns()
        assert not app.cancelled
        for task in service.tasks:
            task.cancel()
        await turns()

    run(test)


def test_application_whose_client_has_left_is_cancelled_without_an_answer() -> None:
    async def test() -> None:
        app = Waits()
        service = memory_service(app, app_timeout=5)
        stream = ask(service)
        stream.exchange.stream_lost(None)
        service.tick(service.loop.time() + 6)
        await turns()
        assert (stream.status, app.cancelled) == (None, True)

    run(test)


def test_only_those_that_are_late_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        service = memory_service(Waits(), app_timeout=5)
        began = service.loop.time()
        early = ask(service)
        with monkeypatch.context() as later:
            later.setattr(service.loop, "time", lambda: began + 3)
            late = ask(service)
        service.tick(began + 7)
        assert (early.status, late.status) == (504, None)
        service.tick(began + 8)
        assert late.status == 504
        await turns()

    run(test)


@pytest.mark.parametrize("what", ["upgrade", "responder"])
def test_upgrades_and_what_the_server_answers_itself_may_take_longer(what: str) -> None:
    app = Waits()

    def opens(service: Any, head: RequestHead, stream: Any) -> Any:
        class Opened:
            def __init__(self) -> None:
                stream.exchange = self

            async def run(self, app: Any) -> None:
                await app(None, None, None)

        exchange = Opened()
        service.call_app(exchange)
        return exchange

    own = Responder(name="own", create=lambda service: lambda head: app if head.target == b"/own" else None)
    upgrade = Upgrade(token=b"own", open=opens)
    registry = Registry.of(Plugin(name="own", api=API_VERSION, responders=(own,), upgrades=(upgrade,)))

    async def test() -> None:
        service = memory_service(app, registry, app_timeout=5)
        ask(service, "/own", upgrade=b"own" if what == "upgrade" else None)
        service.tick(service.loop.time() + 6)
        await turns()
        assert not app.cancelled
        for task in service.tasks:
            task.cancel()
        await turns()

    run(test)


def test_time_in_the_queue_is_no_time_of_the_application() -> None:
    async def test() -> None:
        service = memory_service(Waits(), app_timeout=5, limit_concurrency=1, request_queue_enabled=True)
        first, second = ask(service), ask(service)
        service.tick(service.loop.time() + 6)
        await turns()
        assert (first.status, second.status) == (504, None)
        service.tick(service.loop.time() + 4)
        assert second.status is None
        service.tick(service.loop.time() + 6)
        assert second.status == 504
        await turns()

    run(test)
