"""A stream that raises from one of its methods has failed: it is reset, and costs nobody else anything."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from peer import KEY, PING, REGISTRY, TEXT, App, Echo, closing, in_loop, masked

from pounce.contract.stream import Body
from pounce.errors import ClientGone
from pounce.plugin import Completed, Headers, RequestHead
from pounce.testing import RecordingStream
from pounce.testing.memory import memory_service, observe
from pounce_ws.exchange import WebSocketExchange
from pounce_ws.opening import open_websocket


class Panic(BaseException):
    """As engines written in Rust raise it."""


class BrokenStream(RecordingStream):
    """Raises what `fails` has for a method, after the method's work as before it."""

    def __init__(self) -> None:
        super().__init__()
        self.fails: dict[str, BaseException] = {}

    def write(self, body: Body, more: bool) -> None:
        self._maybe_fail("write")
        super().write(body, more)

    def tunnel(self, headers: Headers) -> None:
        self._maybe_fail("tunnel")
        super().tunnel(headers)

    def consumed(self, count: int) -> None:
        self._maybe_fail("consumed")
        super().consumed(count)

    def reset(self) -> None:
        super().reset()
        self._maybe_fail("reset")

    def _maybe_fail(self, method: str) -> None:
        assert not self.was_reset or method == "reset", "used after its reset"
        if method in self.fails:
            raise self.fails[method]


class Observer:
    """Keeps what it is told of."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def completed(self, exchange: Completed) -> None:
        self.seen.append(exchange)


class Broken:
    """One WebSocket on a stream that can be broken; `completed` is what observers were told."""

    def __init__(self, app: App, *, fails: dict[str, BaseException] | None = None, **settings: Any) -> None:
        self.service = memory_service(app, REGISTRY, **settings)
        observer = Observer()
        self.completed = observer.seen
        observe(self.service, *self.service.observers, observer)
        self.stream = BrokenStream()
        self.stream.fails = fails or {}
        head = RequestHead(
            b"GET", b"/", [(b"host", b"a"), (b"sec-websocket-version", b"13"), (b"sec-websocket-key", KEY)], "1.1"
        )
        exchange = open_websocket(self.service, head, self.stream)
        assert isinstance(exchange, WebSocketExchange)
        self.exchange = exchange

    async def settle(self) -> None:
        for _ in range(30):
            await asyncio.sleep(0)

    @property
    def is_given_up(self) -> bool:
        """Its stream was reset, and nothing of it is left open; it was counted and told once."""
        return (
            self.stream.was_reset
            and self.service.counts["stream_error"] == 1
            and not self.service.shared["ws"]._open
            and self.completed == [self.exchange]
        )


@pytest.fixture(params=[RuntimeError("engine"), Panic("engine")], ids=["exception", "panic"])
def failure(request: pytest.FixtureRequest) -> BaseException:
    exc: BaseException = request.param
    return exc


@in_loop
async def test_application_that_sends_hears_that_the_client_is_gone(failure: BaseException) -> None:
    app = App(eager=False)
    broken = Broken(app)
    await broken.settle()
    broken.stream.fails["write"] = failure
    with pytest.raises(ClientGone):
        await app.send("lost")
    assert broken.is_given_up
    assert await app.take() == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
    with pytest.raises(ClientGone):
        await app.send("later")


@in_loop
async def test_application_that_sends_what_is_gathered_hears_it_with_the_last_one(failure: BaseException) -> None:
    app = App(eager=False)
    broken = Broken(app)
    await broken.settle()
    broken.stream.fails["write"] = failure
    broken.exchange.data_received(masked(TEXT, b"1") + masked(TEXT, b"2"))
    await app.take()
    await app.send("waits for the next one")
    await app.take()
    with pytest.raises(ClientGone):
        await app.send("lost")
    assert broken.is_given_up


@in_loop
async def test_a_stream_that_fails_over_what_was_taken_is_given_up(failure: BaseException) -> None:
    app = App(eager=False)
    broken = Broken(app)
    await broken.settle()
    broken.stream.fails["consumed"] = failure
    broken.exchange.data_received(masked(TEXT, b"1"))
    assert broken.is_given_up
    assert (await app.take())["text"] == "1"
    assert await app.take() == {"type": "websocket.disconnect", "code": 1006, "reason": ""}


@in_loop
async def test_answers_to_one_read_that_cannot_be_written_end_it(failure: BaseException) -> None:
    app = Echo()
    broken = Broken(app)
    await broken.settle()
    broken.stream.fails["write"] = failure
    broken.exchange.data_received(masked(TEXT, b"x") * 3)
    await broken.settle()
    assert broken.is_given_up
    assert app.ended


def ping(broken: Broken) -> None:
    broken.exchange.data_received(masked(PING, b"x"))


def close(broken: Broken) -> None:
    broken.exchange.data_received(closing(1000))


def breach(broken: Broken) -> None:
    broken.exchange.data_received(b"\x81\x00")


def drain(broken: Broken) -> None:
    for each in tuple(broken.service.on_drain):
        each()


def end_of_half(broken: Broken) -> None:
    broken.exchange.eof_received()


def interval(broken: Broken) -> None:
    for each in tuple(broken.service.on_tick):
        each(broken.service.loop.time() + 20.5)


@pytest.mark.parametrize("event", [ping, close, breach, drain, end_of_half, interval], ids=lambda each: each.__name__)
@in_loop
async def test_what_is_answered_by_the_server_reaches_nobody_and_hurts_nobody(
    failure: BaseException, event: Callable[[Broken], None]
) -> None:
    app = App()
    broken = Broken(app)
    await broken.settle()
    broken.stream.fails["write"] = failure
    event(broken)
    await broken.settle()
    assert broken.is_given_up
    assert app.ended
    assert app.disconnect is not None
    assert "plugin_error" not in broken.service.counts


@in_loop
async def test_pong_that_waited_for_the_client_is_no_trap(failure: BaseException) -> None:
    app = App()
    broken = Broken(app)
    await broken.settle()
    broken.stream.writable = False
    ping(broken)
    broken.stream.fails["write"] = failure
    broken.stream.writable = True
    broken.exchange.resume_writing()
    assert broken.is_given_up


@in_loop
async def test_close_of_the_application_is_over_with_its_stream(failure: BaseException) -> None:
    app = App(eager=False)
    broken = Broken(app)
    await broken.settle()
    broken.stream.fails["write"] = failure
    await app.close()
    assert broken.is_given_up


@in_loop
async def test_handshake_that_cannot_be_accepted_is_given_up(failure: BaseException) -> None:
    app = App()
    broken = Broken(app, fails={"tunnel": failure})
    await broken.settle()
    assert isinstance(app.error, ClientGone)
    assert broken.is_given_up
    assert broken.completed[0].status == 0


@in_loop
async def test_stream_that_cannot_even_be_reset_is_given_up(failure: BaseException) -> None:
    app = App()
    broken = Broken(app)
    await broken.settle()
    broken.stream.fails |= {"write": failure, "reset": failure}
    ping(broken)
    await broken.settle()
    assert broken.is_given_up
    assert app.disconnect == (1006, "")


@in_loop
async def test_close_timeout_ends_one_that_cannot_be_reset(failure: BaseException) -> None:
    broken = Broken(App(), websocket_close_timeout=5)
    await broken.settle()
    drain(broken)
    broken.stream.fails["reset"] = failure
    for each in tuple(broken.service.on_tick):
        each(broken.service.loop.time() + 6)
    assert not broken.service.shared["ws"]._open
    assert broken.completed == [broken.exchange]
