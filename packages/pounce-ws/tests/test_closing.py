"""How a WebSocket ends (RFC 6455 7), and what each side is told."""

import asyncio
import logging
from typing import Any

import pytest
from peer import PING, TEXT, App, Echo, Peer, closing, in_loop, masked, opened

from pounce.errors import AppError, ClientGone

pytestmark = pytest.mark.usefixtures("wire")


@in_loop
async def test_application_closes_and_the_client_answers() -> None:
    app = App(eager=False)
    peer = await opened(app)
    await app.close(3001, "enough")
    assert (await peer.one()).close == (3001, "enough")
    assert not peer.ended
    peer.send(masked(TEXT, b"too late"), closing(3001))
    await peer.settle()
    assert peer.ended
    assert await app.take() == {"type": "websocket.disconnect", "code": 3001, "reason": ""}


@in_loop
async def test_application_that_closes_is_done_even_if_the_client_never_answers() -> None:
    app = App(eager=False)
    peer = await opened(app, websocket_close_timeout=3)
    await app.close()
    peer.connection.after(2.9)
    await peer.settle()
    assert not peer.ended
    peer.connection.after(3.1)
    await peer.settle()
    assert peer.ended
    assert (await app.take())["type"] == "websocket.disconnect"


@pytest.mark.parametrize("code", [None, 1000])
@in_loop
async def test_close_without_a_code_is_1000(code: int | None) -> None:
    app = App(eager=False)
    peer = await opened(app)
    await app.close(code)
    assert (await peer.one()).close == (1000, "")


@in_loop
async def test_sending_after_the_own_close_is_out_of_order() -> None:
    app = App(eager=False)
    await opened(app)
    await app.close()
    with pytest.raises(AppError, match="out of order"):
        await app.send("more")
    with pytest.raises(AppError, match="out of order"):
        await app.close()


@in_loop
async def test_sending_to_a_client_that_has_closed_raises_an_oserror() -> None:
    app = App(eager=False)
    peer = await opened(app)
    peer.send(closing(1000))
    for what in (app.send("more"), app.close()):
        with pytest.raises(ClientGone):
            await what


@in_loop
async def test_disconnect_is_told_once() -> None:
    app = App(eager=False)
    peer = await opened(app)
    peer.send(closing(1000, b"bye"))
    assert await app.take() == {"type": "websocket.disconnect", "code": 1000, "reason": "bye"}
    with pytest.raises(ClientGone):
        await app.take()


@in_loop
async def test_application_that_returns_closes_with_1000() -> None:
    class Returns(App):
        async def serve(self) -> None:
            await self.send("bye")

    peer = await opened(Returns())
    frames = await peer.next(2)
    assert frames[0].payload == b"bye"
    assert frames[1].close == (1000, "")
    peer.send(closing(1000))
    await peer.settle()
    assert peer.ended


@pytest.mark.parametrize("error", [RuntimeError("on purpose"), GeneratorExit(), SystemExit(3)], ids=repr)
@in_loop
async def test_application_that_raises_closes_with_1011_and_is_logged(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    class Raises(App):
        async def serve(self) -> None:
            raise error

    peer = await opened(Raises())
    assert (await peer.one()).close[0] == 1011
    assert [record.getMessage() for record in caplog.records] == ["Exception in ASGI application"]


@in_loop
async def test_application_that_fails_because_the_client_is_gone_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Sends(App):
        async def serve(self) -> None:
            while True:
                await self.send("x")
                await asyncio.sleep(0)

    app = Sends()
    peer = await opened(app)
    peer.connection.lose()
    await peer.settle()
    assert isinstance(app.error, ClientGone)
    assert caplog.records == []


@in_loop
async def test_a_client_that_vanishes_is_1006() -> None:
    app = App()
    peer = await opened(app)
    peer.send(masked(TEXT, b"last words"))
    peer.connection.lose()
    await peer.settle()
    assert app.messages == ["last words"]
    assert app.disconnect == (1006, "")


@pytest.mark.parametrize("partial", [b"", masked(TEXT, b"half of it")[:5]])
@in_loop
async def test_a_client_that_ends_its_half_without_close_is_1006(partial: bytes) -> None:
    app = App()
    peer = await opened(app)
    if partial:
        peer.send(partial)
    peer.end_half()
    await peer.settle()
    assert app.disconnect == (1006, "")
    assert peer.ended


@in_loop
async def test_close_is_answered_after_the_message_before_it() -> None:
    app = Echo()
    peer = await opened(app)
    peer.send(masked(TEXT, b"hello"), closing(1000))
    frames = await peer.next(2)
    assert frames[0].payload == b"hello"
    assert frames[1].close[0] == 1000
    await peer.settle()
    assert app.disconnect == (1000, "")


@in_loop
async def test_close_is_answered_even_if_the_application_never_comes_back() -> None:
    app = App(eager=False)
    peer = await opened(app, websocket_close_timeout=4)
    peer.send(masked(TEXT, b"hello"), closing(1000))
    await peer.settle()
    assert peer.frames() == []
    peer.connection.after(2.1)
    assert (await peer.one()).close[0] == 1000
    assert (await app.take())["text"] == "hello"
    assert (await app.take())["code"] == 1000


@in_loop
async def test_both_close_at_once() -> None:
    app = App(eager=False)
    peer = await opened(app)
    peer.send(masked(TEXT, b"x"), closing(1000))
    await app.close(4000, "mine")
    assert (await peer.one()).close == (4000, "mine")
    assert peer.ended


@in_loop
async def test_application_may_work_on_after_the_end() -> None:
    done = asyncio.Event()
    go_on = asyncio.Event()

    class Cleans(App):
        async def serve(self) -> None:
            await super().serve()
            await go_on.wait()
            done.set()

    peer = await opened(Cleans())
    peer.send(closing(1000))
    await peer.settle()
    peer.connection.lose()
    await peer.settle()
    go_on.set()
    await asyncio.wait_for(done.wait(), 60)


@in_loop
async def test_nothing_is_answered_after_close_was_received() -> None:
    peer = await opened(App())
    peer.send(closing(1000), masked(PING, b"x"), masked(TEXT, b"y"))
    assert (await peer.one()).close[0] == 1000
    await peer.settle()
    assert peer.frames() == []


# Drain


@in_loop
async def test_drain_tells_both_sides_1012() -> None:
    app = App()
    peer = await opened(app)
    peer.service.draining = True
    for callback in tuple(peer.service.on_drain):
        callback()
    assert (await peer.one()).close[0] == 1012
    await peer.settle()
    assert app.disconnect is not None
    assert app.disconnect[0] == 1012
    peer.send(closing(1012))
    await peer.settle()
    assert peer.ended


@in_loop
async def test_handshake_that_is_accepted_during_the_drain_is_answered_503() -> None:
    go_on = asyncio.Event()

    class Late(App):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await go_on.wait()
            await super().__call__(scope, receive, send)

    app = Late()
    peer = Peer(app)
    waiting = asyncio.ensure_future(peer.handshake())
    await peer.settle()
    peer.service.draining = True
    go_on.set()
    assert (await waiting).status == 503
    await peer.settle()
    assert app.disconnect == (1006, "")


@in_loop
async def test_cancelled_application_closes_with_1012() -> None:
    app = App(eager=False)
    peer = await opened(app)
    for task in tuple(peer.service.tasks):
        task.cancel()
    assert (await peer.one()).close[0] == 1012


# Deadlines


@in_loop
async def test_a_ping_is_sent_at_each_interval() -> None:
    peer = await opened(App(), websocket_ping_interval=10, websocket_ping_timeout=0)
    peer.connection.after(9.9)
    assert peer.frames() == []
    for seconds in (10.1, 20.2, 30.3):
        peer.connection.after(seconds)
        assert await peer.one() == (0x89, b"")


@in_loop
async def test_a_client_that_does_not_answer_a_ping_is_given_up() -> None:
    app = App()
    peer = await opened(app, websocket_ping_interval=10, websocket_ping_timeout=5)
    peer.connection.after(10.1)
    await peer.one()
    peer.connection.after(15)
    assert peer.frames() == []
    peer.connection.after(15.2)
    assert (await peer.one()).close[0] == 1011
    assert peer.ended
    await peer.settle()
    assert app.disconnect is not None
    assert app.disconnect[0] == 1011


@pytest.mark.parametrize("data", [masked(10), masked(TEXT, b"half")[:3]])
@in_loop
async def test_a_client_that_sends_anything_is_alive(data: bytes) -> None:
    peer = await opened(App(), websocket_ping_interval=10, websocket_ping_timeout=5)
    peer.connection.after(10.1)
    await peer.one()
    peer.send(data)
    peer.connection.after(15.2)
    peer.connection.after(19)
    assert peer.frames() == []
    peer.connection.after(20.2)
    assert await peer.one() == (0x89, b"")


@in_loop
async def test_a_client_whose_messages_the_application_lets_wait_is_not_given_up() -> None:
    app = App(eager=False)
    peer = await opened(app, websocket_ping_interval=10, websocket_ping_timeout=5)
    peer.connection.after(10.1)
    await peer.one()
    peer.exchange._pings.heard = False
    peer.send(masked(2, bytes(70_000)), masked(2, bytes(70_000)))
    peer.exchange._pings.heard = False
    peer.connection.after(15.2)
    assert peer.frames() == []


@in_loop
async def test_no_pings_with_interval_0() -> None:
    peer = await opened(App(), websocket_ping_interval=0)
    peer.connection.after(1e6)
    assert peer.frames() == []


@in_loop
async def test_idle_timeout_closes_with_1001_and_pongs_do_not_count() -> None:
    app = App()
    peer = await opened(app, websocket_idle_timeout=60, websocket_ping_interval=0)
    peer.send(masked(10))
    peer.connection.after(59)
    assert peer.frames() == []
    peer.connection.after(61)
    assert (await peer.one()).close[0] == 1001


@in_loop
async def test_idle_timeout_begins_anew_with_each_message(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    app = App()
    peer = await opened(app, websocket_idle_timeout=60, websocket_ping_interval=0)
    exchange: Any = peer.exchange
    exchange._pings.last_message -= 59
    peer.send(masked(TEXT, b"x"))
    peer.connection.after(30)
    assert peer.frames() == []
