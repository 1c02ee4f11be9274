"""What a WebSocket asks for takes from its connection's share of a turn of the loop, and nothing is lost by that."""

import asyncio
import random
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from peer import (
    BINARY,
    CONTINUATION,
    DEFLATE,
    PING,
    TEXT,
    App,
    Echo,
    H2Peer,
    Peer,
    closing,
    in_loop,
    masked,
    opened,
)

from pounce.contract.turns import STEPS
from pounce.errors import AppError
from pounce_ws.deflate import INFLATE_PART, Deflater, Inflater
from pounce_ws.exchange import WebSocketExchange
from pounce_ws.frames import MessageReader
from pounce_ws.output import DEFLATE_PIECE
from pounce_ws.payload import Payload

pytestmark = pytest.mark.usefixtures("wire")


class Count:
    """How often a method was called, or what `size` makes of what it returned."""

    def __init__(
        self, patch: pytest.MonkeyPatch, where: type, name: str, size: Callable[[Any], int] = lambda _: 1
    ) -> None:
        self.total = 0
        method = getattr(where, name)

        def counting(*args: Any) -> Any:
            result = method(*args)
            self.total += size(result)
            return result

        patch.setattr(where, name, counting)

    async def of_turns(self, done: Callable[[], bool]) -> list[int]:
        """By how much it grew in each turn until `done()`."""
        found = [self.total]
        for _ in range(20_000):
            if done():
                return found
            before = self.total
            await asyncio.sleep(0)
            found.append(self.total - before)
        raise AssertionError("it did not happen")


@in_loop
async def test_pings_are_answered_so_many_in_each_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = await opened(App())
    count = Count(monkeypatch, WebSocketExchange, "_control")
    peer.send(*(masked(PING, b"%03d" % number) for number in range(900)))
    turns = await count.of_turns(lambda: count.total >= 900)
    assert max(turns) <= STEPS
    assert [frame.payload for frame in await peer.next(900)] == [b"%03d" % number for number in range(900)]


@pytest.mark.parametrize("piece", [b"", b"x"], ids=["empty", "a byte"])
@in_loop
async def test_fragments_are_read_so_many_in_each_turn(monkeypatch: pytest.MonkeyPatch, piece: bytes) -> None:
    app = App()
    peer = await opened(app)
    count = Count(monkeypatch, MessageReader, "_read_payload")
    middle = masked(CONTINUATION, piece, fin=False) * 2000
    peer.send(masked(TEXT, b"<", fin=False) + middle + masked(CONTINUATION, b">"))
    turns = await count.of_turns(lambda: bool(app.messages))
    assert max(turns) <= STEPS + 1
    assert app.messages == ["<" + piece.decode() * 2000 + ">"]


@in_loop
async def test_messages_are_taken_so_many_in_each_turn() -> None:
    app = App()
    peer = await opened(app)
    peer.send(*(masked(TEXT, b"%d" % number) for number in range(2000)))
    turns = []
    while len(app.messages) < 2000:
        before = len(app.messages)
        await asyncio.sleep(0)
        turns.append(len(app.messages) - before)
    assert max(turns) <= STEPS + 16
    assert app.messages == [str(number) for number in range(2000)]


@in_loop
async def test_one_message_after_the_other_needs_no_other_turn(wire: str) -> None:
    if wire != "h1":
        pytest.skip("elsewhere frames of the wire count as well")
    app = Echo()
    peer = await opened(app)
    for number in range(3 * STEPS):
        peer.send(masked(TEXT, b"%d" % number))
        await asyncio.sleep(0)
        assert not peer.exchange._input.waits
    assert len(await peer.next(3 * STEPS)) == 3 * STEPS


@in_loop
async def test_large_message_is_inflated_a_part_in_each_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    app = App()
    peer = await opened(app, DEFLATE)
    count = Count(monkeypatch, Inflater, "go_on", len)
    message = b"0123456789abcdef" * 2**17
    deflater = zlib.compressobj(wbits=-12)
    deflated = (deflater.compress(message) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]
    peer.send(masked(BINARY, deflated, rsv=4), masked(TEXT, b"after"))
    turns = await count.of_turns(lambda: len(app.messages) == 2)
    # It is looked at whether there is more to do after a part.
    assert max(turns) <= 1024 * STEPS + INFLATE_PART
    assert app.messages == [message, "after"]


@in_loop
async def test_messages_that_inflate_one_after_the_other_share_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the application takes each at once."""
    app = App()
    peer = await opened(app, DEFLATE)
    count = Count(monkeypatch, Inflater, "go_on", len)
    message = bytes(100_000)
    deflater = zlib.compressobj(wbits=-12)
    deflated = (deflater.compress(message) + deflater.flush(zlib.Z_FULL_FLUSH))[:-4]
    peer.send(masked(BINARY, deflated, rsv=4) * 30)
    turns = await count.of_turns(lambda: len(app.messages) == 30)
    assert max(turns) <= 1024 * STEPS + INFLATE_PART
    assert app.messages == [message] * 30


@in_loop
async def test_message_that_inflates_beyond_the_limit_is_noticed_in_a_later_turn() -> None:
    app = App()
    peer = await opened(app, DEFLATE, websocket_max_message_size=1_000_000)
    deflater = zlib.compressobj(wbits=-12)
    deflated = (deflater.compress(bytes(1_000_001)) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]
    peer.send(masked(BINARY, deflated, rsv=4))
    assert (await peer.one()).close[0] == 1009
    assert app.messages == []


@in_loop
async def test_text_is_checked_while_it_is_inflated_in_parts() -> None:
    app = App()
    peer = await opened(app, DEFLATE)
    good = "Grün ".encode() * 100_000
    deflater = zlib.compressobj(wbits=-12)
    deflated = (deflater.compress(good) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]
    bad = (deflater.compress(good + b"\xff" + good) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]
    peer.send(masked(TEXT, deflated, rsv=4), masked(TEXT, bad, rsv=4))
    assert (await peer.one()).close[0] == 1007
    assert app.messages == [good.decode()]


GRUEN = "Grün 漢 😀 ".encode() * 40_000
"""Of characters that are cut wherever a piece ends."""


@in_loop
async def test_long_text_is_decoded_a_part_in_each_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    app = App()
    peer = await opened(app)
    count = Count(monkeypatch, Payload, "decode", int)
    frame = masked(TEXT, GRUEN)
    pieces = [frame[at : at + 50_001] for at in range(0, len(frame), 50_001)]
    for piece in pieces[:-1]:
        peer.send(piece)
    peer.send(pieces[-1], masked(TEXT, b"after"))
    turns = await count.of_turns(lambda: len(app.messages) == 2)
    # It is looked at whether there is more to do after a part.
    assert max(turns) <= 1024 * STEPS + 50_001
    assert app.messages == [GRUEN.decode(), "after"]


@in_loop
async def test_text_whose_last_piece_is_no_utf_8_is_noticed_while_it_is_decoded() -> None:
    app = App()
    peer = await opened(app)
    frame = masked(TEXT, GRUEN + b"\xf0")
    for at in range(0, len(frame), 50_000):
        peer.send(frame[at : at + 50_000])
    assert (await peer.one()).close[0] == 1007
    assert app.messages == []


@in_loop
async def test_closing_while_a_long_text_is_decoded_ends_that_too() -> None:
    app = App(eager=False)
    peer = await opened(app)
    frame = masked(TEXT, GRUEN)
    for at in range(0, len(frame), 50_000):
        peer.send(frame[at : at + 50_000])
    await app.close(3000)
    assert (await peer.one()).close == (3000, "")
    peer.send(closing(3000))
    await peer.connection.wait_until(lambda: peer.ended)


@in_loop
async def test_long_text_is_given_out_though_the_client_goes_while_it_is_decoded(wire: str) -> None:
    if wire == "h3":
        pytest.skip("a client of HTTP/3 that closes takes back what it has sent")
    app = App()
    peer = await opened(app)
    count = 0

    def counting(payload: Payload) -> int:
        nonlocal count
        count += 1
        return decode(payload)

    decode = Payload.decode
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Payload, "decode", counting)
        frame = masked(TEXT, GRUEN)
        for at in range(0, len(frame), 50_000):
            peer.send(frame[at : at + 50_000])
        await peer.connection.wait_until(lambda: count > 0)
        peer.connection.lose()
        await peer.connection.wait_until(lambda: app.disconnect is not None)
    assert app.messages == [GRUEN.decode()]


@pytest.mark.parametrize("cut", [1, 7, 1000])
@in_loop
async def test_deflated_message_in_fragments_is_the_same_however_it_is_cut(cut: int) -> None:
    app = App()
    peer = await opened(app, DEFLATE)
    message = random.Random(1).randbytes(20_000) * 10
    deflater = zlib.compressobj(wbits=-12)
    deflated = (deflater.compress(message) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]
    step = len(deflated) // cut + 1
    pieces = [deflated[at : at + step] for at in range(0, len(deflated), step)] + [b""]
    frames = [
        masked(CONTINUATION if at else BINARY, piece, rsv=0 if at else 4, fin=at == len(pieces) - 1)
        for at, piece in enumerate(pieces)
    ]
    peer.send(*frames, masked(PING, b"between"), masked(TEXT, b"after"))
    assert (await peer.one()).payload == b"between"
    await peer.connection.wait_until(lambda: len(app.messages) == 2)
    assert app.messages == [message, "after"]


# What an application sends


def inflated(frames: list[Any]) -> list[bytes]:
    """The messages of a server that keeps its window."""
    inflater = zlib.decompressobj(-15)
    return [
        inflater.decompress(frame.payload + b"\0\0\xff\xff") if frame.first & 0x40 else frame.payload
        for frame in frames
    ]


@in_loop
async def test_large_message_is_deflated_a_piece_in_each_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    app = App(eager=False)
    peer = await opened(app, DEFLATE)
    count = Count(monkeypatch, Deflater, "begin")
    message = random.Random(1).randbytes(10_000) * 20
    sending = asyncio.ensure_future(app.send(message))
    turns = await count.of_turns(sending.done)
    assert max(turns) <= STEPS * 64 // DEFLATE_PIECE
    assert inflated([await peer.one()]) == [message]


@in_loop
async def test_nobody_comes_between_the_pieces_of_a_large_message() -> None:
    app = App(eager=False)
    peer = await opened(app, DEFLATE)
    messages = [bytes([number]) * size for number, size in enumerate((200_000, 10, 150_000, 200, 100_000))]
    sending = [asyncio.ensure_future(app.send(message)) for message in messages]
    # A pong is no message, and does not wait.
    peer.send(masked(PING, b"now"))
    frames = await peer.next(6)
    assert inflated([frame for frame in frames if frame.opcode == BINARY]) == messages
    assert frames[0].payload == b"now"
    await asyncio.gather(*sending)


@in_loop
async def test_message_that_was_given_up_in_between_spoils_none_after_it() -> None:
    app = App(eager=False)
    peer = await opened(app, DEFLATE)
    await app.send(b"first" * 100)
    sending = asyncio.ensure_future(app.send(random.Random(1).randbytes(100_000)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    assert sending.cancelled()
    await app.send(b"second" * 100)
    await app.send(b"second" * 100)
    assert inflated(await peer.next(3)) == [b"first" * 100, b"second" * 100, b"second" * 100]


@in_loop
async def test_closing_while_a_large_message_is_deflated_ends_that_too() -> None:
    app = App(eager=False)
    peer = await opened(app, DEFLATE)
    sending = asyncio.ensure_future(app.send(bytes(500_000)))
    await asyncio.sleep(0)
    await app.close(3000)
    assert (await peer.one()).close == (3000, "")
    with pytest.raises(AppError, match="out of order"):
        await sending


# Ends


@in_loop
async def test_close_is_met_behind_the_messages_before_it() -> None:
    app = App()
    peer = await opened(app)
    peer.send(*(masked(TEXT, b"%d" % number) for number in range(1000)), closing(3001))
    assert (await peer.one()).close == (3001, "")
    await peer.settle()
    assert app.messages == [str(number) for number in range(1000)]
    assert app.disconnect is not None
    assert app.disconnect[0] == 3001


@in_loop
async def test_what_has_arrived_is_given_out_though_the_client_is_gone(wire: str) -> None:
    if wire == "h3":
        pytest.skip("a client of HTTP/3 that closes takes back what it has sent")
    app = App()
    peer = await opened(app)
    peer.send(*(masked(PING, b"%d" % number) for number in range(300)), masked(TEXT, b"last"))
    await peer.connection.until_read()
    peer.connection.lose()
    await peer.connection.wait_until(lambda: app.disconnect is not None)
    assert app.messages == ["last"]


@in_loop
async def test_idle_timeout_does_not_blame_a_client_whose_messages_wait_here() -> None:
    app = App()
    peer = await opened(app, websocket_idle_timeout=10)
    exchange = peer.exchange
    peer.send(*(masked(PING) for _ in range(1000)), masked(TEXT, b"in time"))
    assert exchange._input.waits
    exchange.deadline_passed(peer.service.loop.time() + 11)
    await peer.connection.wait_until(lambda: bool(app.messages))
    assert app.messages == ["in time"]
    assert not app.disconnect


@in_loop
async def test_drain_is_told_to_a_client_whose_frames_wait_here() -> None:
    peer = await opened(App())
    peer.send(*(masked(PING) for _ in range(1000)))
    peer.service.draining = True
    for drain in tuple(peer.service.on_drain):
        drain()
    await peer.connection.wait_until(lambda: any(frame.opcode == 8 for frame in peer.frames()))


@in_loop
async def test_websockets_of_one_connection_have_one_share(wire: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if wire != "h2":
        pytest.skip("one wire with many streams will do")
    first = await opened(App())
    assert isinstance(first, H2Peer)
    client = first._h2
    streams = []
    for _ in range(9):
        stream = client.get_next_available_stream_id()
        client.send_headers(stream, first._fields(b"/", b"CONNECT", ()))
        streams.append(stream)
    first.connection.feed(client.data_to_send())
    await first.settle()
    assert len(first.service.shared["ws"]._open) == 10
    count = Count(monkeypatch, WebSocketExchange, "_control")
    for stream in streams:
        client.send_data(stream, masked(PING) * 500)
    first.connection.feed(client.data_to_send())
    turns = await count.of_turns(lambda: count.total >= 9 * 500)
    assert max(turns) <= 2 * STEPS


@in_loop
async def test_requests_before_the_handshake_are_served_before_it(wire: str) -> None:
    if wire != "h1":
        pytest.skip("requests of other wires have no order")

    class Site(App):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "websocket":
                await super().__call__(scope, receive, send)
                return
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body"})

    app = Site()
    peer = Peer(app)
    handshake = (
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    peer.connection.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 100 + handshake + masked(TEXT, b"early") * 200)
    await peer.connection.wait_until(lambda: len(app.messages) == 200)
    assert peer.received.count(b"HTTP/1.1 200") == 100
    assert peer.received.count(b"HTTP/1.1 101") == 1
