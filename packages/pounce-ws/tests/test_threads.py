"""WebSockets that are used from another loop than their own: as if it were theirs, on every wire."""

import asyncio
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from peer import BINARY, CLOSE, DEFLATE, TEXT, App, Frame, Peer, chosen, closing, in_loop, masked, opened
from tests.threads.elsewhere import PATIENCE, Elsewhere

from pounce import AppError, ClientGone

pytestmark = pytest.mark.usefixtures("wire")


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    with Elsewhere() as started:
        yield started


class Listening(App):
    """Its messages are taken by the test."""

    def __init__(self) -> None:
        super().__init__(eager=False)


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():
            await asyncio.sleep(0)


def patient(app: Any) -> Peer:
    """A client that waits for what happens in another thread."""
    peer = chosen[0](app)
    peer.connection.wait_until = until  # type: ignore[method-assign, assignment]
    return peer


async def frames(peer: Peer, count: int) -> list[Frame]:
    found: list[Frame] = []
    await until(lambda: found.extend(peer.frames()) or len(found) >= count)
    assert len(found) == count
    return found


async def frames_until(peer: Peer, last: bytes) -> list[Frame]:
    found: list[Frame] = []
    await until(lambda: found.extend(peer.frames()) or (found and found[-1].payload == last))
    return found


def inflated(frames: list[Frame]) -> list[str]:
    """The texts of compressed messages of one frame each, by the context that they share."""
    inflater = zlib.decompressobj(-15)
    for frame in frames:
        assert frame.first == 0xC1, "not a compressed text"
    return [inflater.decompress(frame.payload + b"\0\0\xff\xff").decode() for frame in frames]


@in_loop
async def test_compressed_messages_of_several_loops_arrive_whole_and_each_loops_in_its_order(
    elsewhere: Elsewhere,
) -> None:
    app = App()
    peer = await opened(app, DEFLATE)
    messages = {who: [f"{who}{number:03}" + who * 2000 for number in range(60)] for who in "abc"}

    async def send(who: str) -> None:
        for message in messages[who]:
            await app.send(message)

    with Elsewhere() as another:
        await asyncio.gather(send("a"), elsewhere.wait(send("b")), another.wait(send("c")))
    texts = inflated(await frames(peer, 180))
    for who, sent in messages.items():
        assert [text for text in texts if text[0] == who] == sent


@in_loop
async def test_messages_are_received_on_another_loop_in_their_order(elsewhere: Elsewhere) -> None:
    app = Listening()
    peer = await opened(app)

    async def take() -> list[Any]:
        return [await app.take() for _ in range(151)]

    taking = asyncio.ensure_future(elsewhere.wait(take()))
    for number in range(150):
        peer.send(masked(TEXT if number % 2 else BINARY, b"%d" % number))
        await asyncio.sleep(0)
    peer.send(closing(1000))
    *messages, last = await taking
    assert [message.get("text", message.get("bytes")) for message in messages] == [
        str(number) if number % 2 else b"%d" % number for number in range(150)
    ]
    assert last == {"type": "websocket.disconnect", "code": 1000, "reason": ""}
    with pytest.raises(ClientGone):
        await elsewhere.wait(app.take())


@in_loop
async def test_close_from_another_loop_comes_after_the_messages_before_it(elsewhere: Elsewhere) -> None:
    app = App()
    peer = await opened(app)

    async def end() -> None:
        await asyncio.gather(app.send("one"), app.send("two"), app.close(3000, "enough"))

    await elsewhere.wait(end())
    one, two, close = await frames(peer, 3)
    assert (one.payload, two.payload, close.opcode, close.close) == (b"one", b"two", CLOSE, (3000, "enough"))
    with pytest.raises(AppError, match="out of order"):
        await elsewhere.wait(app.send("three"))


@in_loop
async def test_message_that_is_wrong_is_an_error_for_the_loop_that_sent_it_and_for_nobody_else(
    elsewhere: Elsewhere,
) -> None:
    app = App()
    peer = await opened(app)
    with pytest.raises(AppError, match="text or bytes"):
        await elsewhere.wait(app._send({"type": "websocket.send"}))
    await app.send("fine")
    assert (await peer.one()).payload == b"fine"


async def filled(peer: Peer, app: App) -> None:
    """Let the client take nothing until the stream is not writable any more."""
    peer.connection.transport.stall()
    while peer.exchange.stream.writable:
        await app.send(b"x" * 30_000)


@in_loop
async def test_loop_elsewhere_waits_for_a_slow_client_behind_those_that_wait_already(elsewhere: Elsewhere) -> None:
    app = App()
    peer = await opened(app)
    exchange = peer.exchange
    await filled(peer, app)
    first = asyncio.ensure_future(app.send(b"first"))
    await until(lambda: len(exchange._output.writers) == 1)
    second = asyncio.ensure_future(elsewhere.wait(app.send(b"second")))
    await until(lambda: len(exchange._output.writers) == 2)
    third = asyncio.ensure_future(app.send(b"third"))
    await until(lambda: len(exchange._output.writers) == 3)
    assert not second.done()
    peer.connection.transport.unstall()
    await asyncio.gather(first, second, third)
    found = await frames_until(peer, b"third")
    assert [frame.payload for frame in found[-3:]] == [b"first", b"second", b"third"]


@in_loop
async def test_client_that_goes_ends_the_wait_of_a_loop_elsewhere(elsewhere: Elsewhere) -> None:
    app = Listening()
    peer = await opened(app)
    exchange = peer.exchange
    await filled(peer, app)
    waiting = asyncio.ensure_future(elsewhere.wait(app.send(b"never")))
    await until(lambda: exchange._output.writers)
    exchange.stream_lost(None)
    with pytest.raises(ClientGone):
        await waiting
    with pytest.raises(ClientGone):
        await elsewhere.wait(app.send(b"later"))


@in_loop
async def test_those_who_still_send_after_client_and_application_have_gone_hear_that_the_client_is_gone(
    elsewhere: Elsewhere,
) -> None:
    app = App()
    peer = await opened(app)
    peer.send(closing(1001))
    await until(lambda: app.ended)
    await asyncio.sleep(0)
    with pytest.raises(ClientGone):
        await elsewhere.wait(app.send("elsewhere"))
    with pytest.raises(ClientGone):
        await app.send("here")


@in_loop
async def test_sender_elsewhere_that_is_cancelled_sends_nothing_and_lets_the_next_one_write(
    elsewhere: Elsewhere,
) -> None:
    app = App()
    peer = await opened(app)
    exchange = peer.exchange
    await filled(peer, app)
    cancelled = elsewhere.start(app.send(b"never"))
    await until(lambda: len(exchange._output.writers) == 1)
    following = asyncio.ensure_future(elsewhere.wait(app.send(b"following")))
    await until(lambda: len(exchange._output.writers) == 2)
    cancelled.cancel()
    await until(lambda: len(exchange._output.writers) == 1)
    peer.connection.transport.unstall()
    await following
    found = await frames_until(peer, b"following")
    assert b"never" not in [frame.payload for frame in found]


@pytest.mark.parametrize("message", ["text", b"bytes", None], ids=["text", "bytes", "disconnect"])
@in_loop
async def test_message_that_is_on_its_way_to_a_cancelled_loop_elsewhere_is_not_lost(
    elsewhere: Elsewhere, message: str | bytes | None
) -> None:
    app = Listening()
    peer = await opened(app)
    exchange = peer.exchange
    async with elsewhere.cancelled_too_late(app.take()):
        await until(lambda: exchange._input.waiters)
        if message is None:
            peer.send(closing(1000))
        else:
            text = isinstance(message, str)
            peer.send(masked(TEXT if text else BINARY, message.encode() if isinstance(message, str) else message))
        await until(lambda: not peer.service.crossing._calls)
    if message is None:
        assert await app.take() == {"type": "websocket.disconnect", "code": 1000, "reason": ""}
    else:
        key = "text" if isinstance(message, str) else "bytes"
        assert await app.take() == {"type": "websocket.receive", key: message}


@in_loop
async def test_handshake_is_answered_from_another_loop(elsewhere: Elsewhere) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def serve() -> None:
            assert (await receive())["type"] == "websocket.connect"
            await send({"type": "websocket.accept"})
            while (message := await receive())["type"] == "websocket.receive":
                await send({**message, "type": "websocket.send"})

        await elsewhere.wait(serve())

    peer = patient(app)
    await peer.open()
    peer.send(masked(TEXT, b"echo"), masked(BINARY, b"again"))
    assert [frame.payload for frame in await frames(peer, 2)] == [b"echo", b"again"]
    peer.send(closing(1001))
    assert (await frames(peer, 1))[0].close == (1001, "")


@in_loop
async def test_handshake_is_refused_from_another_loop(elsewhere: Elsewhere) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def refuse() -> None:
            await send({"type": "websocket.http.response.start", "status": 418, "headers": []})
            await send({"type": "websocket.http.response.body", "body": b"tea"})

        await elsewhere.wait(refuse())

    assert (await patient(app).handshake()).status == 418
