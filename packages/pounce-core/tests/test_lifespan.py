"""Lifespan on a loop that goes on afterwards; what applications may do is in tests/conformance/asgi_lifespan.py."""

import asyncio
from typing import Any

import pytest

from pounce import LifespanError, ServerConfig
from pounce.worker.lifespan import Lifespan


class App:
    """Notes how its lifespan ended."""

    def __init__(self, *messages: str, then: str = "wait") -> None:
        self.messages = messages
        self.then = then
        self.end = "has not ended"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await receive()
            for message in self.messages:
                await send({"type": message})
            if self.then == "wait":
                await asyncio.Event().wait()
            self.end = "returned"
        except BaseException as exc:
            self.end = type(exc).__name__
            raise


def lifespan(app: App, **settings: Any) -> Lifespan:
    return Lifespan(ServerConfig.of(settings), app)


def test_startup_that_is_cancelled_ends_the_application() -> None:
    app = App()

    async def test() -> None:
        starting = asyncio.create_task(lifespan(app).startup())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert app.end == "CancelledError"

    asyncio.run(test())


@pytest.mark.parametrize(
    ("app", "settings"),
    [
        (App("lifespan.startup.failed"), {}),
        (App(), {"startup_timeout": 0.01}),
    ],
    ids=["failed", "timeout"],
)
def test_startup_that_fails_ends_the_application(app: App, settings: dict[str, Any]) -> None:
    async def test() -> None:
        with pytest.raises(LifespanError):
            await lifespan(app, **settings).startup()
        assert app.end == "CancelledError"

    asyncio.run(test())


@pytest.mark.parametrize(
    "messages",
    [
        ("lifespan.shutdown.complete",),
        ("lifespan.nonsense",),
        ("lifespan.startup",),
        ("lifespan.startup.complete", "lifespan.startup.complete"),
        ("lifespan.startup.complete", "lifespan.startup.failed"),
    ],
    ids=",".join,
)
def test_message_out_of_order_raises_in_the_application(messages: tuple[str, ...]) -> None:
    app = App(*messages)

    async def test() -> None:
        subject = lifespan(app)
        try:
            await subject.startup()
        except LifespanError:
            pass
        await subject.shutdown(0.01)
        assert app.end == "AppError"

    asyncio.run(test())


def test_shutdown_without_a_startup_does_nothing() -> None:
    asyncio.run(lifespan(App()).shutdown(1))


def test_application_that_ignores_its_cancellation_does_not_hold_up_the_end() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)

    async def test() -> None:
        subject = Lifespan(ServerConfig(), app)
        await subject.startup()
        async with asyncio.timeout(5):
            await subject.shutdown(0.01)

    asyncio.run(test())


def test_state_is_what_the_application_left() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["state"]["pool"] = 1
        await receive()
        await send({"type": "lifespan.startup.complete"})

    async def test() -> None:
        subject = Lifespan(ServerConfig(), app)
        await subject.startup()
        assert subject.state == {"pool": 1}
        await subject.shutdown(1)

    asyncio.run(test())
