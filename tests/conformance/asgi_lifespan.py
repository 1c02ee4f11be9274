"""The lifespan protocol (ASGI lifespan 2.0)."""

import asyncio
import logging
import threading
from typing import Any

import pytest
from tests.conformance.client import PATIENCE
from tests.conformance.wires import Wire, answer

from pounce import LifespanError


class App:
    """Notes the events of its lifespan; requests are answered with them."""

    def __init__(self) -> None:
        self.events: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.lifespan(scope, receive, send)
        else:
            await self.request(scope, receive, send)

    async def lifespan(self, scope: Any, receive: Any, send: Any) -> None:
        self.events.append((await receive())["type"])
        await send({"type": "lifespan.startup.complete"})
        self.events.append((await receive())["type"])
        await send({"type": "lifespan.shutdown.complete"})

    async def request(self, scope: Any, receive: Any, send: Any) -> None:
        await answer(send, ",".join(self.events).encode())


def test_startup_runs_before_the_first_request_and_shutdown_after_the_last(wire: Wire) -> None:
    app = App()
    server = wire.start(app)
    assert server.request("GET", "/").body == b"lifespan.startup"
    server.stop()
    assert app.events == ["lifespan.startup", "lifespan.shutdown"]


def test_scope_is_that_of_the_specification(wire: Wire) -> None:
    scopes: list[Any] = []

    class Show(App):
        async def lifespan(self, scope: Any, receive: Any, send: Any) -> None:
            scopes.append(dict(scope))
            await super().lifespan(scope, receive, send)

    wire.start(Show()).stop()
    assert scopes == [{"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}]


def test_off_runs_no_lifespan(wire: Wire) -> None:
    app = App()
    server = wire.start(app, lifespan="off")
    assert server.request("GET", "/").body == b""
    server.stop()
    assert app.events == []


class Unsupported(App):
    async def lifespan(self, scope: Any, receive: Any, send: Any) -> None:
        raise NotImplementedError("no lifespan here")


class Returns(App):
    async def lifespan(self, scope: Any, receive: Any, send: Any) -> None:
        return


class TakesItForHttp(App):
    async def lifespan(self, scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"hello")


class ReadsAndTakesItForHttp(App):
    async def lifespan(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await answer(send, b"hello")


class NeedsAPath(App):
    async def lifespan(self, scope: Any, receive: Any, send: Any) -> None:
        await answer(send, scope["path"])


class RaisesOfAnUnknownMessage(App):
    """Wraps whatever `send` raises, as middleware does."""

    async def lifespan(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        try:
            await answer(send)
        except Exception as exc:
            raise RuntimeError("middleware") from exc


WITHOUT_LIFESPAN = [Unsupported, Returns, TakesItForHttp, ReadsAndTakesItForHttp, NeedsAPath, RaisesOfAnUnknownMessage]


@pytest.mark.parametrize("app", WITHOUT_LIFESPAN)
def test_auto_serves_an_application_without_lifespan(
    wire: Wire, app: type[App], caplog: pytest.LogCaptureFixture
) -> None:
    server = wire.start(app())
    assert server.request("GET", "/").complete
    server.stop()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("app", WITHOUT_LIFESPAN)
def test_on_refuses_an_application_without_lifespan(wire: Wire, app: type[App]) -> None:
    with pytest.raises(LifespanError):
        wire.start(app(), lifespan="on")


@pytest.mark.parametrize("setting", ["auto", "on"])
def test_startup_that_fails_ends_the_server_with_its_message(wire: Wire, setting: str) -> None:
    class Fails(App):
        async def lifespan(self, scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no database"})

    with pytest.raises(LifespanError, match="no database") as caught:
        wire.start(Fails(), lifespan=setting)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("setting", ["auto", "on"])
def test_startup_that_raises_ends_the_server_and_names_the_error(wire: Wire, setting: str) -> None:
    class Raises(App):
        async def lifespan(self, scope: Any, receive: Any, send: Any) -> None:
            await receive()
            raise RuntimeError("broken pipe dream")

    with pytest.raises(LifespanError, match="RuntimeError: broken pipe dream"):
        wire.start(Raises(), lifespan=setting)


def test_startup_that_takes_too_long_ends_the_server(wire: Wire) -> None:
    cancelled = threading.Event()

    class Hangs(App):
        async def lifespan(self, scope: Any, receive: Any, send: Any) -> None:
            await receive()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

    with pytest.raises(LifespanError, match="longer than") as caught:
        wire.start(Hangs(), startup_timeout=0.05)
    assert caught.value.code == "POUNCE_LIFESPAN_STARTUP_TIMEOUT"
    assert cancelled.wait(PATIENCE)


def test_application_that_stays_after_a_failed_startup_is_cancelled(wire: Wire) -> None:
    cancelled: list[bool] = []

    class Stays(App):
        async def lifespan(self, scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "lifespan.startup.failed"})
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(True)
                raise

    with pytest.raises(LifespanError):
        wire.start(Stays())
    assert cancelled == [True]


def test_message_that_lifespan_does_not_know_raises_in_the_application(wire: Wire) -> None:
    class Mistypes(App):
        async def lifespan(self, scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "lifespan.startup.completed"})
            await asyncio.Event().wait()

    with pytest.raises(LifespanError):
        wire.start(Mistypes(), lifespan="on", startup_timeout=5)


def test_application_may_end_its_lifespan_after_the_startup(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    class Leaves(App):
        async def lifespan(self, scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "lifespan.startup.complete"})

    server = wire.start(Leaves())
    assert server.request("GET", "/").complete
    server.stop()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_lifespan_that_dies_in_between_is_logged_and_requests_are_served(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    class Dies(App):
        async def lifespan(self, scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "lifespan.startup.complete"})
            raise RuntimeError("died in between")

    server = wire.start(Dies())
    assert server.request("GET", "/").complete
    server.stop()
    assert "died in between" in caplog.text


def test_shutdown_that_fails_is_logged(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    class Fails(App):
        async def lifespan(self, scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.failed", "message": "could not flush"})

    wire.start(Fails()).stop()
    assert "could not flush" in caplog.text


def test_shutdown_that_raises_is_logged(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    class Raises(App):
        async def lifespan(self, scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            raise RuntimeError("raised in shutdown")

    wire.start(Raises()).stop()
    assert "raised in shutdown" in caplog.text


def test_shutdown_that_hangs_is_cancelled_and_logged(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    cancelled: list[bool] = []

    class Hangs(App):
        async def lifespan(self, scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(True)
                raise

    wire.start(Hangs(), shutdown_timeout=0.05).stop()
    assert cancelled == [True]
    assert "shutdown took longer" in caplog.text


def test_shutdown_waits_for_requests_that_run(wire: Wire) -> None:
    begun = threading.Event()
    go = threading.Event()

    class Busy(App):
        async def request(self, scope: Any, receive: Any, send: Any) -> None:
            begun.set()
            await asyncio.to_thread(go.wait, PATIENCE)
            await answer(send, ",".join(self.events).encode())

    app = Busy()
    server = wire.start(app)
    with server.connect() as client:
        request = client.open("GET", "/")
        assert begun.wait(PATIENCE)
        server.server.shutdown()
        go.set()
        assert request.response().body == b"lifespan.startup"
    server.stop()
    assert app.events == ["lifespan.startup", "lifespan.shutdown"]


def test_context_variables_of_the_startup_do_not_appear_in_requests(wire: Wire) -> None:
    from contextvars import ContextVar

    mark: ContextVar[str] = ContextVar("mark", default="none")

    class Marks(App):
        async def lifespan(self, scope: Any, receive: Any, send: Any) -> None:
            mark.set("startup")
            await super().lifespan(scope, receive, send)

        async def request(self, scope: Any, receive: Any, send: Any) -> None:
            await answer(send, mark.get().encode())

    assert wire.start(Marks()).request("GET", "/").body == b"none"
