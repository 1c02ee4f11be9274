"""Messages, fragments and control frames (RFC 6455 5, 8.1), and what breaks their rules."""

import asyncio
import enum
import zlib
from collections import UserDict
from http import HTTPStatus
from typing import Any

import pytest
from peer import (
    BINARY,
    CLOSE,
    CONTINUATION,
    DEFLATE,
    PING,
    PONG,
    TEXT,
    App,
    Echo,
    Peer,
    chosen,
    closing,
    in_loop,
    masked,
    opened,
)

pytestmark = pytest.mark.usefixtures("wire")

SIZES = [0, 1, 2, 3, 4, 5, 125, 126, 127, 4095, 4096, 4097, 65535, 65536, 200_001]


@pytest.mark.parametrize("size", SIZES)
@in_loop
async def test_messages_of_every_size_make_the_round_trip(size: int) -> None:
    app = Echo()
    peer = await opened(app)
    binary, text = bytes(at * 7 & 0xFF for at in range(size)), "é" * (size // 2) + "x" * (size % 2)
    peer.send(masked(BINARY, binary))
    assert await peer.one() == (0x82, binary)
    peer.send(masked(TEXT, text.encode()))
    assert await peer.one() == (0x81, text.encode())
    assert app.messages == [binary, text]


@in_loop
async def test_a_message_has_text_or_bytes_and_not_the_other_key() -> None:
    app = App()
    peer = await opened(app)
    peer.send(masked(TEXT, b"a"), masked(BINARY, b"b"), masked(TEXT), masked(BINARY))
    await peer.settle()
    assert list(app.received)[1:] == [
        {"type": "websocket.receive", "text": "a"},
        {"type": "websocket.receive", "bytes": b"b"},
        {"type": "websocket.receive", "text": ""},
        {"type": "websocket.receive", "bytes": b""},
    ]


FRAGMENTED = [
    masked(TEXT, "Grü".encode()[:3], fin=False),
    masked(PING, b"in between"),
    masked(CONTINUATION, fin=False),
    masked(CONTINUATION, "Grü".encode()[3:] + b"n", fin=False),
    masked(PONG, b"unasked"),
    masked(CONTINUATION, b"!"),
    masked(BINARY, b"\xff" * 300),
]


@pytest.mark.parametrize("step", [1, 2, 3, 7, 100_000])
@in_loop
async def test_fragments_are_one_message_however_they_arrive(step: int) -> None:
    app = App()
    peer = await opened(app)
    data = b"".join(FRAGMENTED)
    for at in range(0, len(data), step):
        peer.send(data[at : at + step])
    assert await peer.one() == (0x80 | PONG, b"in between")
    await peer.settle()
    assert app.messages == ["Grün!", b"\xff" * 300]


@in_loop
async def test_a_split_at_every_position_changes_nothing() -> None:
    data = b"".join(FRAGMENTED)
    app = App()
    peer = await opened(app)
    for at in range(len(data)):
        peer.send(data[:at]) if at else None
        peer.send(data[at:])
        async with asyncio.timeout(60):
            while len(app.messages) < 2:
                await peer.settle()
        assert app.messages == ["Grün!", b"\xff" * 300], at
        app.received.clear()


@in_loop
async def test_bytes_that_came_with_the_handshake_are_kept() -> None:
    app = Echo()
    peer = Peer(app)
    await peer.open(early=masked(TEXT, b"early") + masked(TEXT, b"late")[:4])
    assert (await peer.one()).payload == b"early"


@in_loop
async def test_pings_are_answered_in_order_with_their_payload() -> None:
    peer = await opened(App())
    peer.send(masked(PING, b"1"), masked(PING, b"x" * 125), masked(PING))
    assert await peer.next(3) == [(0x8A, b"1"), (0x8A, b"x" * 125), (0x8A, b"")]


PROTOCOL_ERRORS = {
    "not masked": b"\x81\x02hi",
    "RSV1 without an extension": masked(TEXT, b"x", rsv=4),
    "RSV2": masked(TEXT, b"x", rsv=2),
    "RSV3": masked(PING, b"x", rsv=1),
    "RSV1 on a control frame": masked(PING, b"x", rsv=4),
    "control frame above 125 bytes": masked(PING, b"x" * 126),
    "fragmented control frame": masked(PING, b"x", fin=False),
    "fragmented close": masked(CLOSE, b"\x03\xe8", fin=False),
    "opcode 3": masked(3, b"x"),
    "opcode 7": masked(7, b"x"),
    "opcode 11": masked(11, b"x"),
    "opcode 15": masked(15, b"x"),
    "continuation of nothing": masked(CONTINUATION, b"x"),
    "text within a text": masked(TEXT, b"x", fin=False) + masked(TEXT, b"y"),
    "length 5 in two bytes": b"\x81\xfe\x00\x05" + bytes(9),
    "length 125 in two bytes": b"\x81\xfe\x00\x7d" + bytes(129),
    "length 126 in eight bytes": b"\x82\xff" + (126).to_bytes(8) + bytes(130),
    "length 65535 in eight bytes": b"\x82\xff" + (65535).to_bytes(8) + bytes(4),
    "length of 64 bits": b"\x82\xff" + (1 << 63).to_bytes(8) + bytes(4),
    "close of one byte": masked(CLOSE, b"\x03"),
    **{
        f"close code {code}": closing(code)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
}


@pytest.mark.parametrize("step", [1, 100_000])
@pytest.mark.parametrize("data", PROTOCOL_ERRORS.values(), ids=PROTOCOL_ERRORS)
@in_loop
async def test_protocol_errors_are_answered_with_1002_and_the_end(data: bytes, step: int) -> None:
    app = App()
    peer = await opened(app)
    whole = masked(TEXT, b"before") + data + masked(TEXT, b"after") * 3
    for at in range(0, len(whole), step):
        peer.send(whole[at : at + step])
    assert (await peer.one()).close[0] == 1002
    assert peer.ended
    await peer.settle()
    assert app.messages == ["before"]
    assert app.disconnect is not None
    assert app.disconnect[0] == 1002


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1014, 3000, 3999, 4999])
@in_loop
async def test_valid_close_codes_are_answered_and_told(code: int) -> None:
    app = App()
    peer = await opened(app)
    peer.send(closing(code, "adiós".encode()))
    assert (await peer.one()).close == (code, "")
    assert peer.ended
    await peer.settle()
    assert app.disconnect == (code, "adiós")


@in_loop
async def test_a_close_without_a_code_is_1005_for_the_application_and_empty_on_the_wire() -> None:
    app = App()
    peer = await opened(app)
    peer.send(closing(None))
    assert await peer.one() == (0x88, b"")
    await peer.settle()
    assert app.disconnect == (1005, "")


NOT_UTF8 = {
    "invalid byte": b"a\xffb",
    "overlong": b"\xc0\xaf",
    "surrogate": b"\xed\xa0\x80",
    "above U+10FFFF": b"\xf4\x90\x80\x80",
    "incomplete at the end": "é".encode()[:1],
}


@pytest.mark.parametrize("payload", NOT_UTF8.values(), ids=NOT_UTF8)
@pytest.mark.parametrize("frames", [1, 2])
@in_loop
async def test_text_that_is_not_utf8_is_answered_with_1007(payload: bytes, frames: int) -> None:
    app = App()
    peer = await opened(app)
    if frames == 1:
        peer.send(masked(TEXT, payload))
    else:
        peer.send(masked(TEXT, payload[:1], fin=False), masked(CONTINUATION, payload[1:]))
    assert (await peer.one()).close[0] == 1007
    await peer.settle()
    assert app.messages == []
    assert app.disconnect is not None
    assert app.disconnect[0] == 1007


@in_loop
async def test_a_close_reason_that_is_not_utf8_is_1007() -> None:
    peer = await opened(App())
    peer.send(closing(1000, b"\xff"))
    assert (await peer.one()).close[0] == 1007


@pytest.mark.parametrize("piece", [b"\xed\xa0\x80", b"\xf4\x90", b"\xff"])
@in_loop
async def test_wrong_utf8_is_noticed_before_the_frame_has_ended(piece: bytes) -> None:
    peer = await opened(App())
    head, payload = masked(TEXT, b"x" * 1000, mask=bytes(4))[:8], b"abc" + piece
    peer.send(head, payload[:1])
    for at in range(1, len(payload)):
        assert peer.frames() == []
        peer.send(payload[at : at + 1])
    assert (await peer.one()).close[0] == 1007


@in_loop
async def test_messages_before_the_end_are_delivered_first() -> None:
    app = App(eager=False)
    peer = await opened(app)
    peer.send(masked(TEXT, b"1"), masked(TEXT, b"2"), b"\xff\xff")
    await peer.settle()
    assert [await app.take() for _ in range(2)] == [{"type": "websocket.receive", "text": text} for text in "12"]
    assert (await app.take())["code"] == 1002


@in_loop
async def test_several_receivers_share_the_messages_and_one_that_is_cancelled_takes_none() -> None:
    app = App(eager=False)
    peer = await opened(app)
    tasks = [asyncio.ensure_future(app.take()) for _ in range(3)]
    await peer.settle()
    tasks[0].cancel()
    peer.send(masked(TEXT, b"1"), masked(TEXT, b"2"))
    await peer.settle()
    assert tasks[0].cancelled()
    assert [task.result()["text"] for task in tasks[1:]] == ["1", "2"]


@pytest.mark.parametrize(
    "message",
    [
        {"type": "websocket.send"},
        {"type": "websocket.send", "text": None, "bytes": None},
        {"type": "websocket.send", "text": "a", "bytes": b"b"},
        {"type": "websocket.send", "text": b"bytes"},
        {"type": "websocket.send", "bytes": "text"},
        {"type": "websocket.accept"},
        {"type": "websocket.close", "code": 1005},
        {"type": "websocket.close", "code": 999},
        {"type": "websocket.close", "code": "1000"},
        {"type": "websocket.close", "code": 1000, "reason": "é" * 62},
        {"type": "websocket.http.response.start", "status": 403},
        {"type": "http.response.start", "status": 200},
        {"type": "nonsense"},
    ],
    ids=str,
)
@in_loop
async def test_wrong_messages_of_the_application_raise(message: Any) -> None:
    from pounce.errors import AppError

    app = App(eager=False)
    peer = await opened(app)
    with pytest.raises(AppError):
        await app._send(message)
    assert peer.frames() == []
    await app.send("still open")
    assert (await peer.one()).payload == b"still open"


# As applications write them


class Bytes(bytes):
    def __bytes__(self) -> bytes:
        return b"something else"


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "something else"

    def encode(self, *args: Any) -> bytes:
        return b"something else"


class Code(enum.IntEnum):
    GOING_AWAY = 1001


class Number(int):
    def to_bytes(self, *args: Any, **kwargs: Any) -> bytes:
        return b"??"


HOLD_BYTES = [Bytes(b"x" * 300), bytearray(b"x" * 300), memoryview(b"x" * 300), memoryview(b"x-" * 300)[::2]]


@pytest.mark.parametrize("data", HOLD_BYTES, ids=lambda data: type(data).__name__)
@pytest.mark.parametrize("deflate", [False, True], ids=["plain", "deflate"])
@in_loop
async def test_whatever_holds_bytes_can_be_sent(data: Any, deflate: bool) -> None:
    app = App(eager=False)
    peer = await opened(app, *[DEFLATE] * deflate)
    await app._send({"type": "websocket.send", "bytes": data, "text": None})
    assert await next_payload(peer) == (0x82, b"x" * 300)


@pytest.mark.parametrize("deflate", [False, True], ids=["plain", "deflate"])
@in_loop
async def test_whatever_is_text_can_be_sent(deflate: bool) -> None:
    app = App(eager=False)
    peer = await opened(app, *[DEFLATE] * deflate)
    await app._send(UserDict({"type": Text("websocket.send"), "text": Text("é" * 150)}))
    assert await next_payload(peer) == (0x81, "é".encode() * 150)


async def next_payload(peer: Peer) -> tuple[int, bytes]:
    """The next message, inflated."""
    first, payload = await peer.one()
    if first & 0x40:
        payload = zlib.decompressobj(-15).decompress(payload + b"\0\0\xff\xff")
    return first & ~0x40, payload


@in_loop
async def test_bytes_that_are_changed_after_they_were_sent_leave_as_they_were() -> None:
    app = App(eager=False)
    peer = await opened(app)
    data = bytearray(b"before")
    peer.connection.transport.stall()
    await app._send({"type": "websocket.send", "bytes": data})
    data[:] = b"AFTER!"
    peer.connection.transport.unstall()
    assert await peer.one() == (0x82, b"before")


@pytest.mark.parametrize("code", [Code.GOING_AWAY, Number(1001)], ids=["IntEnum", "subclass"])
@in_loop
async def test_a_close_has_any_kind_of_number_and_text(code: Any) -> None:
    app = App(eager=False)
    peer = await opened(app)
    exchange = peer.exchange
    await app._send({"type": Text("websocket.close"), "code": code, "reason": Text("why")})
    assert (await peer.one()).close == (1001, "why")
    assert type(exchange.close_code) is int


@pytest.mark.parametrize("reason", [b"bytes", 5, ["why"]], ids=repr)
@in_loop
async def test_a_reason_that_is_no_text_is_refused(reason: Any) -> None:
    from pounce.errors import AppError

    app = App(eager=False)
    peer = await opened(app)
    with pytest.raises(AppError):
        await app._send({"type": "websocket.close", "code": 1000, "reason": reason})
    assert peer.frames() == []


@in_loop
async def test_a_handshake_is_accepted_with_any_kind_of_text_and_bytes() -> None:
    fields = [(bytearray(b"X-Mine"), Bytes(b"1")), (memoryview(b"x-other"), memoryview(b"2"))]
    app = App(subprotocol=Text("chat"), headers=fields)
    peer = chosen[0](app)
    answer = await peer.open((b"sec-websocket-protocol", b"chat"))
    assert (answer[b"sec-websocket-protocol"], answer[b"x-mine"], answer[b"x-other"]) == (b"chat", b"1", b"2")


@in_loop
async def test_a_denial_has_any_kind_of_number_text_and_bytes() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        start = {"status": HTTPStatus.GONE, "headers": [(bytearray(b"x-mine"), Bytes(b"1"))]}
        await send(UserDict(start, type=Text("websocket.http.response.start")))
        await send(UserDict({"type": "websocket.http.response.body", "body": bytearray(b"gone")}))

    answer = await chosen[0](app).handshake()
    assert (answer.status, answer[b"x-mine"], answer[b"content-length"]) == (410, b"1", b"4")


@in_loop
async def test_receive_that_is_cancelled_at_any_moment_loses_no_message() -> None:
    app = App(eager=False)
    peer = await opened(app)
    sent = [b"%d" % number for number in range(200)]
    peer.send(*(masked(BINARY, message) for message in sent))
    await peer.settle()
    taken = []
    while len(taken) < len(sent):
        task = asyncio.ensure_future(app.take())
        # A turn in which it begins; those of every so many messages let others have one before they give theirs.
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            taken.append(task.result()["bytes"])
    assert taken == sent
