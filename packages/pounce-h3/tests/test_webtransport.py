"""WebTransport (draft-ietf-webtrans-http3, RFC 9297), in memory: what sessions tell applications, and what they say."""

import asyncio
import tracemalloc
from typing import Any

import pytest
from tests.conformance.h3 import literal_section

from pounce.errors import AppError, ClientGone, ConfigError
from pounce.worker.ticker import Ticker
from pounce_h3.capsules import CLOSE_SESSION, DRAIN_SESSION, BadCapsule, Capsule, Capsules, capsule
from pounce_h3.codes import (
    H3_DATAGRAM_ERROR,
    H3_FRAME_ERROR,
    H3_ID_ERROR,
    H3_INTERNAL_ERROR,
    H3_MESSAGE_ERROR,
    H3_REQUEST_REJECTED,
    WT_BUFFERED_STREAM_REJECTED,
    WT_SESSION_GONE,
    application_code,
    code_of_application,
)
from pounce_h3.engine import DatagramReceived
from pounce_h3.frames import frame, varint
from pounce_h3.qpack import Qpack
from pounce_h3.sessions import EARLY_MAX, EARLY_SIZE

from .wt_peer import App, Peer

pytestmark = pytest.mark.anyio

UPLOAD = [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", b"/")]
UNI, BIDI = 14, 4
"""Streams that the client may open next, beside those of QPACK and the one of the session."""


async def opened(**config: Any) -> tuple[App, Peer]:
    """A session with the number 0, accepted."""
    app = App()
    peer = Peer(app, **config)
    assert peer.open() == 0
    await app.accept()
    return app, peer


def status_of(peer: Peer, number: int) -> int:
    """Of the answer to a request."""
    section = peer.answer(number)[0][0]
    fields, _ = Qpack(peer.service, peer.h3.heads._instructions).decode(number, section)
    return int(dict(fields)[b":status"])


def fields_of(peer: Peer, number: int) -> dict[bytes, bytes]:
    fields, _ = Qpack(peer.service, peer.h3.heads._instructions).decode(number, peer.answer(number)[0][0])
    return dict(fields)


# Opening


async def test_scope_says_what_the_client_asks_for() -> None:
    app = App()
    peer = Peer(app)
    peer.open((b"origin", b"https://a.example"), (b"wt-available-protocols", b'"chat-2", "chat"'), path=b"/a%20b?c=d")
    scope = app.scope
    assert {name: scope[name] for name in ("type", "scheme", "http_version", "path", "raw_path", "query_string")} == {
        "type": "webtransport",
        "scheme": "https",
        "http_version": "3",
        "path": "/a b",
        "raw_path": b"/a%20b",
        "query_string": b"c=d",
    }
    assert scope["subprotocols"] == ["chat-2", "chat"]
    assert (b"origin", b"https://a.example") in scope["headers"]
    assert scope["extensions"]["webtransport.http.response"] == {}
    assert "method" not in scope
    assert not any(name.startswith("http.") for name in scope["extensions"])


async def test_accepted_session_is_answered_with_200_and_the_subprotocol() -> None:
    app = App()
    peer = Peer(app)
    peer.open((b"wt-available-protocols", b'"a","b\\"c";q=1'), (b"sec-webtransport-http3-draft02", b"1"))
    await app.accept(subprotocol='b"c', headers=[(b"x-a", b"1")])
    await asyncio.sleep(0)
    found = fields_of(peer, 0)
    assert found[b":status"] == b"200"
    assert found[b"wt-protocol"] == b'"b\\"c"'
    assert found[b"sec-webtransport-http3-draft"] == b"draft02"
    assert found[b"x-a"] == b"1"


@pytest.mark.parametrize("value", [b"a, b", b'"a" "b"', b'"a', b'"a",' * 2000])
async def test_field_that_is_no_list_of_strings_offers_nothing(value: bytes) -> None:
    app = App()
    Peer(app).open((b"wt-available-protocols", value))
    assert app.scope["subprotocols"] == []


async def test_refused_session_is_answered_403() -> None:
    app = App()
    peer = Peer(app)
    peer.open()
    assert (await app.hear())[0] == "connect"
    await app.say("close")
    await asyncio.sleep(0)
    assert status_of(peer, 0) == 403


async def test_refusal_may_be_any_answer() -> None:
    app = App()
    peer = Peer(app)
    peer.open()
    assert (await app.hear())[0] == "connect"
    await app.say("http.response.start", status=418, headers=[])
    await app.say("http.response.body", body=b"no")
    await asyncio.sleep(0)
    assert status_of(peer, 0) == 418
    assert peer.answer(0)[1] == b"no"


async def test_application_that_returns_without_an_answer_has_failed() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        return

    peer = Peer(app)
    peer.open()
    await asyncio.sleep(0)
    assert status_of(peer, 0) == 500


async def test_where_it_is_off_nobody_knows_it() -> None:
    app = App()
    peer = Peer(app, http3_webtransport_enabled=False)
    peer.open()
    await asyncio.sleep(0)
    assert status_of(peer, 0) == 501
    assert peer.h3.streams.sessions is None
    assert varint(0x2B603742) not in peer.sent(3)


async def test_settings_announce_it() -> None:
    peer = Peer(App(), http3_webtransport_max_sessions=5)
    for name, value in ((0x33, 1), (0x2B603742, 1), (0xC671706A, 5)):
        assert varint(name) + varint(value) in peer.sent(3)


async def test_sessions_of_one_connection_are_bounded() -> None:
    app = App()
    peer = Peer(app, http3_webtransport_max_sessions=2)
    numbers = [peer.open() for _ in range(3)]
    await asyncio.sleep(0)
    assert status_of(peer, numbers[2]) == 429
    peer.reset(numbers[0], 0x10C)
    fourth = peer.open()
    await app.accept()
    await asyncio.sleep(0)
    assert status_of(peer, fourth) == 200


async def test_pages_of_other_origins_are_refused_where_origins_are_named() -> None:
    app = App()
    peer = Peer(app, http3_webtransport_origins=["https://a.example"])
    bad = peer.open((b"origin", b"https://b.example"))
    good = peer.open((b"origin", b"https://A.example"))
    await app.accept()
    await asyncio.sleep(0)
    assert (status_of(peer, bad), status_of(peer, good)) == (403, 200)


async def test_session_takes_a_place_where_concurrency_is_limited() -> None:
    app = App()
    peer = Peer(app, limit_concurrency=1, limit_concurrency_websockets=True)
    first, second = peer.open(), peer.open()
    await app.accept()
    await asyncio.sleep(0)
    assert (status_of(peer, first), status_of(peer, second)) == (200, 503)
    assert peer.h3.streams.sessions is not None
    assert peer.h3.streams.sessions.count == 1


# Streams


@pytest.mark.parametrize(("stream", "bidirectional"), [(UNI, False), (BIDI, True)])
async def test_stream_of_the_client_is_told_piece_by_piece(stream: int, bidirectional: bool) -> None:
    app, peer = await opened()
    peer.stream(stream, 0, b"one")
    common = {"stream": stream, "bidirectional": bidirectional}
    assert await app.hear() == ("stream.receive", {**common, "data": b"one", "end_stream": False})
    peer.more(stream, b"tw")
    peer.more(stream, b"o", end=True)
    assert await app.hear() == ("stream.receive", {**common, "data": b"two", "end_stream": True})
    assert peer.held == 0


async def test_head_of_a_stream_may_come_in_pieces() -> None:
    app, peer = await opened()
    for stream, kind in ((UNI, 0x54), (BIDI, 0x41)):
        for byte in varint(kind) + b"\x40\x00" + b"x":
            peer.more(stream, bytes((byte,)))
        kind_of, message = await app.hear()
        assert (kind_of, message["stream"], message["data"]) == ("stream.receive", stream, b"x")


async def test_stream_without_a_byte_is_told() -> None:
    app, peer = await opened()
    peer.stream(BIDI, 0)
    kind, message = await app.hear()
    assert (kind, message["data"], message["end_stream"]) == ("stream.receive", b"", False)


async def test_bytes_go_back_on_a_stream_of_the_client() -> None:
    app, peer = await opened()
    peer.stream(BIDI, 0, b"ask", end=True)
    await app.hear()
    await app.say("stream.send", stream=BIDI, data=b"an")
    await app.say("stream.send", stream=BIDI, data=b"swer", end_stream=True)
    await asyncio.sleep(0)
    assert peer.sent(BIDI) == b"answer"
    assert BIDI in peer.quic.ended
    with pytest.raises(ClientGone):
        await app.say("stream.send", stream=BIDI, data=b"more")


@pytest.mark.parametrize(("bidirectional", "kind", "expected"), [(False, 0x54, 15), (True, 0x41, 1)])
async def test_stream_of_the_server_begins_with_its_session(bidirectional: bool, kind: int, expected: int) -> None:
    app, peer = await opened()
    await app.say("stream.open", bidirectional=bidirectional, token="mine")
    found = {"stream": expected, "bidirectional": bidirectional, "token": "mine"}
    assert await app.hear() == ("stream.opened", found)
    await app.say("stream.send", stream=expected, data=b"push", end_stream=True)
    await asyncio.sleep(0)
    assert peer.sent(expected) == varint(kind) + varint(0) + b"push"


async def test_opening_a_stream_waits_until_the_client_allows_it() -> None:
    app, peer = await opened()
    peer.quic.openable = False
    opening = asyncio.ensure_future(app.say("stream.open"))
    await asyncio.sleep(0)
    peer.receive()
    await asyncio.sleep(0)
    assert not opening.done()
    peer.quic.openable = True
    peer.receive()
    await asyncio.wait_for(opening, 60)
    assert (await app.hear())[0] == "stream.opened"


@pytest.mark.parametrize("end", ["session", "connection"])
async def test_opening_a_stream_fails_when_there_is_no_session_any_more(end: str) -> None:
    app, peer = await opened()
    peer.quic.openable = False
    opening = asyncio.ensure_future(app.say("stream.open"))
    await asyncio.sleep(0)
    if end == "session":
        peer.close(0, 0)
    else:
        peer.h3.abort()
    with pytest.raises(ClientGone):
        await asyncio.wait_for(opening, 60)


async def test_client_answers_on_a_bidirectional_stream_of_the_server() -> None:
    app, peer = await opened()
    await app.say("stream.open", bidirectional=True)
    await app.hear()
    peer.more(1, b"answer", end=True)
    found = {"stream": 1, "bidirectional": True, "data": b"answer", "end_stream": True}
    assert await app.hear() == ("stream.receive", found)


async def test_streams_take_turns() -> None:
    app, peer = await opened()
    peer.stream(UNI, 0, b"a" * 100_000)
    peer.stream(UNI + 4, 0, b"b")
    heard = [await app.hear() for _ in range(3)]
    assert [(message["stream"], len(message["data"])) for _, message in heard] == [
        (UNI, 65536),
        (UNI + 4, 1),
        (UNI, 100_000 - 65536),
    ]


async def test_window_bounds_what_is_told_and_not_consumed() -> None:
    app = App()
    peer = Peer(app)
    peer.open()
    await app.accept(stream_window=10)
    peer.stream(UNI, 0, b"0123456789abcdef", end=True)
    peer.stream(UNI + 4, 0, b"other", end=True)
    assert (await app.hear())[1]["data"] == b"0123456789"
    assert (await app.hear())[1]["data"] == b"other"
    assert peer.held > 0
    with pytest.raises(AppError):
        await app.say("stream.consumed", stream=UNI, size=11)
    await app.say("stream.consumed", stream=UNI, size=4)
    assert (await app.hear())[1]["data"] == b"abcd"
    await app.say("stream.consumed", stream=UNI, size=10)
    found = {"stream": UNI, "bidirectional": False, "data": b"ef", "end_stream": True}
    assert await app.hear() == ("stream.receive", found)
    # It is over, and counts no more.
    await app.say("stream.consumed", stream=UNI, size=2)
    assert peer.held == 0


async def test_sending_waits_for_a_client_that_takes_nothing_on_that_stream_alone() -> None:
    app, peer = await opened()
    peer.quic.credit = {}
    await app.say("stream.open")
    await app.say("stream.open")
    await app.say("stream.send", stream=15, data=b"x" * 200_000)
    await asyncio.sleep(0)
    sending = asyncio.ensure_future(app.say("stream.send", stream=15, data=b"more"))
    await app.say("stream.send", stream=19, data=b"other")
    await asyncio.sleep(0)
    assert not sending.done()
    peer.quic.credit[15] = 1_000_000
    peer.receive()
    await asyncio.wait_for(sending, 60)


async def test_client_gives_up_its_half() -> None:
    app, peer = await opened()
    peer.stream(BIDI, 0, b"x")
    await app.hear()
    peer.more(BIDI, b"lost")
    peer.reset(BIDI, code_of_application(77))
    assert await app.hear() == ("stream.reset", {"stream": BIDI, "code": 77})
    assert peer.held == 0
    await app.say("stream.send", stream=BIDI, data=b"still ours", end_stream=True)


async def test_stream_that_was_given_up_before_it_was_told_is_never_told() -> None:
    app, peer = await opened()
    peer.stream(BIDI, 0, b"x")
    peer.reset(BIDI, 5)
    peer.stream(UNI, 0, b"y")
    assert (await app.hear())[1]["stream"] == UNI
    assert peer.quic.resets == {BIDI: code_of_application(0)}


async def test_client_wants_no_more_of_ours() -> None:
    app, peer = await opened()
    peer.quic.credit = {}
    await app.say("stream.open")
    await app.hear()
    await app.say("stream.send", stream=15, data=b"x" * 200_000)
    await asyncio.sleep(0)
    sending = asyncio.ensure_future(app.say("stream.send", stream=15, data=b"more"))
    await asyncio.sleep(0)
    peer.stop(15, code_of_application(3))
    assert await app.hear() == ("stream.stop", {"stream": 15, "code": 3})
    with pytest.raises(ClientGone):
        await asyncio.wait_for(sending, 60)


async def test_code_that_is_no_application_s_is_none() -> None:
    app, peer = await opened()
    peer.stream(BIDI, 0, b"x")
    await app.hear()
    peer.reset(BIDI, 0x10C)
    assert await app.hear() == ("stream.reset", {"stream": BIDI, "code": None})


async def test_application_gives_up_and_stops_with_codes() -> None:
    app, peer = await opened()
    peer.stream(BIDI, 0, b"x")
    await app.hear()
    peer.more(BIDI, b"unwanted")
    await app.say("stream.reset", stream=BIDI, code=0xFFFFFFFF)
    await app.say("stream.stop", stream=BIDI, code=30)
    assert peer.quic.resets == {BIDI: code_of_application(0xFFFFFFFF)}
    assert peer.quic.stopped == {BIDI: code_of_application(30)}
    peer.more(BIDI, b"more of it")
    assert peer.held == 0


def test_codes_leave_out_those_that_are_reserved() -> None:
    for code in (0, 1, 29, 30, 31, 255, 0xFFFFFFFF):
        wire = code_of_application(code)
        assert (wire - 0x21) % 0x1F
        assert application_code(wire) == code
    assert code_of_application(0) == 0x52E4A40FA8DB
    assert code_of_application(0xFFFFFFFF) == 0x52E5AC983162
    assert application_code(0x52E4A40FA8DA) is None
    assert application_code(0x52E5AC983163) is None


@pytest.mark.parametrize(
    "message",
    [
        {"type": "webtransport.stream.send", "stream": 400, "data": b""},
        {"type": "webtransport.stream.send", "stream": UNI, "data": b""},
        {"type": "webtransport.stream.send", "stream": "1", "data": b""},
        {"type": "webtransport.stream.send", "stream": BIDI, "data": "text"},
        {"type": "webtransport.stream.open", "urgency": 8},
        {"type": "webtransport.stream.reset", "stream": BIDI, "code": 1 << 32},
        {"type": "webtransport.stream.consumed", "stream": BIDI, "size": 1},
        {"type": "webtransport.datagram.send"},
        {"type": "webtransport.close", "code": -1},
        {"type": "webtransport.close", "reason": "x" * 1025},
        {"type": "webtransport.accept"},
        {"type": "http.response.start", "status": 200},
    ],
)
async def test_wrong_message_is_the_application_s_fault_and_changes_nothing(message: dict[str, Any]) -> None:
    app, peer = await opened()
    peer.stream(UNI, 0, b"x")
    peer.stream(BIDI, 0, b"x")
    with pytest.raises(AppError) as caught:
        await app.send(message)
    assert caught.value.code == "POUNCE_APP_BAD_MESSAGE"
    assert (await app.hear())[0] == "stream.receive"


async def test_application_may_speak_from_another_loop() -> None:
    app, peer = await opened()

    async def elsewhere() -> tuple[Any, ...]:
        await app.say("stream.open", token=7)
        opened = await app.hear()
        await app.say("stream.send", stream=15, data=b"from a thread", end_stream=True)
        return opened

    heard = await asyncio.to_thread(asyncio.run, elsewhere())
    assert heard == ("stream.opened", {"stream": 15, "bidirectional": False, "token": 7})
    await asyncio.sleep(0)
    assert peer.sent(15).endswith(b"from a thread")


async def test_message_that_nobody_waits_for_any_more_is_there_for_the_next_one() -> None:
    app, peer = await opened()
    exchange = app.receive.__self__
    peer.datagram(0, b"one")
    message = await app.receive()
    exchange._put_back(message)
    assert await app.receive() == message
    peer.close(0, 1)
    last = await app.receive()
    exchange._put_back(last)
    assert await app.receive() == last


async def test_urgent_stream_goes_first() -> None:
    app, peer = await opened()
    peer.quic.credit, peer.quic.room = dict.fromkeys((0, 15, 19), 1_000_000), 0
    await app.say("stream.open", urgency=5)
    await app.say("stream.open", urgency=1)
    await app.say("stream.send", stream=15, data=bytes(60_000))
    await app.say("stream.send", stream=19, data=bytes(60_000))
    peer.quic.room = 70_000
    peer.receive()
    assert peer.quic.left[19] > 60_000
    assert peer.quic.left[15] < 10_000


@pytest.mark.parametrize("bidirectional", [False, True])
async def test_stream_is_forgotten_when_its_last_byte_has_left(bidirectional: bool) -> None:
    app, peer = await opened()
    peer.quic.credit = {0: 1000}
    await app.say("stream.open", bidirectional=bidirectional)
    stream = (await app.hear())[1]["stream"]
    await app.say("stream.send", stream=stream, data=bytes(30_000), end_stream=True)
    peer.receive()
    if bidirectional:
        peer.more(stream, b"", end=True)
    sessions = peer.h3.streams.sessions
    assert sessions is not None
    for granted in (10_000, 19_990):
        assert list(sessions._streams) == [stream]
        peer.quic.credit[stream] = granted
        peer.receive()
    peer.quic.credit[stream] = 1000
    peer.receive()
    peer.receive()
    assert not sessions._streams
    assert len(peer.sent(stream)) > 30_000


async def test_session_goes_on_after_the_server_has_said_that_it_takes_no_more_requests() -> None:
    app, peer = await opened()
    peer.h3.streams.leave()
    peer.stream(BIDI, 0, b"still")
    assert (await app.hear())[1]["data"] == b"still"
    peer._next = 8
    refused = peer.open()
    assert peer.quic.resets == {refused: H3_REQUEST_REJECTED}


# Datagrams


async def test_datagrams_go_both_ways() -> None:
    app, peer = await opened()
    peer.datagram(0, b"ping")
    assert await app.hear() == ("datagram.receive", {"data": b"ping"})
    await app.say("datagram.send", data=b"pong")
    await asyncio.sleep(0)
    assert peer.quic.datagrams == [varint(0) + b"pong"]


async def test_datagrams_for_which_nobody_has_time_are_dropped_and_counted() -> None:
    app, peer = await opened(http3_webtransport_datagram_queue=3)
    for number in range(10):
        peer.datagram(0, b"%d" % number)
    assert [(await app.hear())[1]["data"] for _ in range(3)] == [b"0", b"1", b"2"]
    assert peer.service.counts["webtransport_datagrams_dropped"] == 7
    peer.datagram(0, b"there is room again")
    assert (await app.hear())[1]["data"] == b"there is room again"


async def test_datagrams_wait_for_the_network_up_to_a_bound() -> None:
    app, peer = await opened(http3_webtransport_datagram_queue=3)
    peer.quic.room = 0
    for number in range(10):
        await app.say("datagram.send", data=b"%d" % number)
    await asyncio.sleep(0)
    assert peer.quic.datagrams == []
    assert peer.service.counts["webtransport_datagrams_dropped"] == 7
    peer.quic.room = 1000
    peer.receive()
    assert peer.quic.datagrams == [varint(0) + b"0", varint(0) + b"1", varint(0) + b"2"]


async def test_datagram_that_is_too_large_is_dropped() -> None:
    app, peer = await opened()
    await app.say("datagram.send", data=b"x" * 1000)
    await app.say("datagram.send", data=b"x" * 999)
    await asyncio.sleep(0)
    assert [len(each) for each in peer.quic.datagrams] == [1000]


async def test_client_that_has_not_said_it_takes_datagrams_gets_none() -> None:
    app, peer = await opened(settings={})
    await app.say("datagram.send", data=b"x")
    await asyncio.sleep(0)
    assert peer.quic.datagrams == []


async def test_datagrams_of_no_session_are_dropped() -> None:
    app, peer = await opened()
    peer.datagram(400, b"x")
    peer.datagram(0, b"y")
    assert (await app.hear())[1]["data"] == b"y"
    assert peer.service.counts["webtransport_datagrams_unknown"] == 1


async def test_datagram_may_come_as_a_capsule() -> None:
    app, peer = await opened()
    peer.say(0, capsule(0, b"by capsule"))
    assert await app.hear() == ("datagram.receive", {"data": b"by capsule"})


@pytest.mark.parametrize("data", [b"", b"\x40", varint(1 << 60)])
async def test_datagram_that_names_no_request_ends_the_connection(data: bytes) -> None:
    _, peer = await opened()
    peer.feed(DatagramReceived(data))
    assert peer.quic.closed is not None
    assert peer.quic.closed[0] == H3_DATAGRAM_ERROR


# The end


async def test_client_closes_the_session() -> None:
    app, peer = await opened()
    peer.stream(BIDI, 0, b"x")
    await app.hear()
    peer.close(0, 7, b"genug")
    assert await app.hear() == ("disconnect", {"code": 7, "reason": "genug"})
    with pytest.raises(ClientGone):
        await app.hear()
    with pytest.raises(ClientGone):
        await app.say("datagram.send", data=b"x")
    await asyncio.sleep(0)
    assert 0 in peer.quic.ended
    assert peer.quic.resets == {BIDI: WT_SESSION_GONE}
    assert peer.quic.stopped == {BIDI: WT_SESSION_GONE}
    assert peer.held == 0


async def test_end_of_the_stream_alone_is_code_0() -> None:
    app, peer = await opened()
    peer.say(0, b"", end=True)
    assert await app.hear() == ("disconnect", {"code": 0, "reason": ""})


async def test_what_has_arrived_as_a_whole_is_told_before_the_end() -> None:
    app, peer = await opened()
    peer.stream(UNI, 0, b"last words", end=True)
    peer.stream(UNI + 4, 0, b"not comp")
    peer.close(0, 0)
    assert (await app.hear())[1]["data"] == b"last words"
    assert (await app.hear())[0] == "disconnect"
    assert peer.held == 0


async def test_client_that_is_gone_has_no_code() -> None:
    app, peer = await opened()
    peer.reset(0, 0x10C)
    assert await app.hear() == ("disconnect", {"code": None, "reason": ""})


async def test_connection_that_ends_ends_its_sessions() -> None:
    app, peer = await opened()
    peer.stream(UNI, 0, b"x")
    waiting = asyncio.ensure_future(app.hear())
    await asyncio.sleep(0)
    assert (await waiting)[0] == "stream.receive"
    waiting = asyncio.ensure_future(app.hear())
    await asyncio.sleep(0)
    peer.h3.abort()
    assert await waiting == ("disconnect", {"code": None, "reason": ""})
    assert peer.held == 0


async def test_application_closes_the_session() -> None:
    app, peer = await opened()
    await app.say("close", code=9, reason="done")
    await asyncio.sleep(0)
    assert peer.capsules(0) == [(CLOSE_SESSION, (9).to_bytes(4) + b"done")]
    assert 0 in peer.quic.ended
    assert await app.hear() == ("disconnect", {"code": 9, "reason": "done"})


async def test_application_that_returns_has_closed_the_session() -> None:
    app, peer = await opened()
    peer.stream(UNI, 0, b"x")
    await app.returns()
    assert peer.capsules(0) == [(CLOSE_SESSION, bytes(4))]
    assert peer.held == 0


async def test_application_that_fails_breaks_the_session() -> None:
    app, peer = await opened()
    app.failure = ZeroDivisionError()
    await app.returns()
    await asyncio.sleep(0)
    assert peer.capsules(0) == []
    assert peer.quic.resets == {0: H3_INTERNAL_ERROR}


async def test_client_asks_to_come_to_an_end() -> None:
    app, peer = await opened()
    peer.say(0, capsule(DRAIN_SESSION) * 3)
    assert await app.hear() == ("drain", {})
    peer.datagram(0, b"x")
    assert (await app.hear())[0] == "datagram.receive"


async def test_worker_that_drains_asks_both_ends_and_then_closes() -> None:
    app, peer = await opened(http3_webtransport_drain_timeout=0)
    for callback in tuple(peer.service.on_drain):
        callback()
    assert await app.hear() == ("drain", {})
    assert await app.hear() == ("disconnect", {"code": 0, "reason": "server is shutting down"})
    kinds = [kind for kind, _ in peer.capsules(0)]
    assert kinds == [DRAIN_SESSION, CLOSE_SESSION]
    assert not peer.service.on_drain


async def test_session_is_refused_while_the_worker_drains() -> None:
    app = App()
    peer = Peer(app)
    peer.open()
    peer.service.draining = True
    await app.accept()
    await asyncio.sleep(0)
    assert status_of(peer, 0) == 503


async def test_observers_see_one_session_from_its_beginning_to_its_end() -> None:
    _, peer = await opened()
    assert peer.service.gauges["webtransport_open"] == 1
    assert peer.service.counts["webtransport_sessions"] == 1
    peer.close(0, 0)
    assert peer.service.gauges["webtransport_open"] == 0


# What is not allowed


@pytest.mark.parametrize(
    "data",
    [
        varint(CLOSE_SESSION) + varint(3) + b"abc",
        varint(CLOSE_SESSION) + varint(1029),
        varint(CLOSE_SESSION) + varint((1 << 62) - 1),
    ],
    ids=["too short", "too long", "that lies"],
)
async def test_close_of_a_wrong_length_breaks_the_session(data: bytes) -> None:
    app, peer = await opened()
    peer.say(0, data)
    assert await app.hear() == ("disconnect", {"code": None, "reason": ""})
    assert peer.quic.resets[0] == H3_MESSAGE_ERROR
    assert peer.quic.closed is None


async def test_session_that_ends_inside_a_capsule_is_broken() -> None:
    app, peer = await opened()
    peer.say(0, varint(0x1234) + varint(100) + b"few", end=True)
    assert await app.hear() == ("disconnect", {"code": None, "reason": ""})


def test_nothing_is_kept_of_capsules_that_nobody_knows() -> None:
    capsules = Capsules()
    capsules.receive(varint(0x1234) + varint(1 << 40))
    assert capsules.next() == Capsule(0x1234, b"")
    for _ in range(100):
        capsules.receive(bytes(10_000))
        assert capsules.next() is None
        assert capsules.held == 0


def test_capsules_are_cut_wherever_their_bytes_are() -> None:
    data = capsule(0, b"a" * 70) + capsule(0x99, b"b" * 80) + capsule(CLOSE_SESSION, b"\0\0\0\7why")
    found = []
    capsules = Capsules()
    for byte in data:
        capsules.receive(bytes((byte,)))
        while (each := capsules.next()) is not None:
            found.append(each)
    assert found == [Capsule(0, b"a" * 70), Capsule(0x99, b""), Capsule(CLOSE_SESSION, b"\0\0\0\7why")]
    with pytest.raises(BadCapsule):
        capsules.receive(varint(CLOSE_SESSION) + varint(2000))
        capsules.next()


async def test_many_capsules_take_turns_with_others() -> None:
    app, peer = await opened()
    peer.say(0, capsule(0x1234) * 1000 + capsule(0, b"last"))
    assert not peer.h3.streams.unread
    assert (await app.hear())[1] == {"data": b"last"}


@pytest.mark.parametrize(("stream", "kind"), [(UNI, 0x54), (BIDI, 0x41)])
async def test_stream_of_what_no_request_can_open_ends_the_connection(stream: int, kind: int) -> None:
    _, peer = await opened()
    peer.more(stream, varint(kind) + varint(2))
    assert peer.quic.closed is not None
    assert peer.quic.closed[0] == H3_ID_ERROR


async def test_stream_that_has_begun_as_something_else_ends_the_connection() -> None:
    _, peer = await opened()
    peer.more(BIDI, frame(0x21, b"grease") + varint(0x41) + varint(0))
    assert peer.quic.closed is not None
    assert peer.quic.closed[0] == H3_FRAME_ERROR


@pytest.mark.parametrize("stream", [UNI, BIDI])
async def test_streams_of_a_session_that_is_over_are_given_up(stream: int) -> None:
    app, peer = await opened()
    peer.close(0, 0)
    await app.returns()
    peer.stream(stream, 0, b"late")
    assert peer.quic.stopped[stream] == WT_SESSION_GONE
    peer.more(stream, b"later", end=True)
    assert peer.held == 0


async def test_stream_of_a_request_that_is_no_session_is_given_up() -> None:
    app, peer = await opened()
    number = peer.open(path=b"/other")
    await app.hear()
    await app.say("close")
    await asyncio.sleep(0)
    peer.stream(UNI, number, b"x")
    assert peer.quic.stopped[UNI] == WT_SESSION_GONE


# What comes too early


async def test_streams_that_overtake_their_session_are_kept() -> None:
    app = App()
    peer = Peer(app)
    peer.stream(4, 0, b"bidi", end=True)
    peer.stream(UNI, 0, b"uni")
    peer.more(UNI, b" and more", end=True)
    assert peer.open() == 0
    peer._next = 8
    await app.accept()
    heard = [(await app.hear())[1] for _ in range(2)]
    assert [(each["stream"], each["data"]) for each in heard] == [(4, b"bidi"), (UNI, b"uni and more")]


async def test_streams_that_come_too_early_are_bounded_in_number() -> None:
    peer = Peer(App())
    for number in range(EARLY_MAX + 3):
        peer.stream(UNI + 4 * number, 0, b"x")
    assert peer.quic.stopped == {UNI + 4 * number: WT_BUFFERED_STREAM_REJECTED for number in range(16, 19)}


async def test_streams_that_come_too_early_are_bounded_in_size() -> None:
    peer = Peer(App())
    peer.stream(UNI, 0, b"x")
    for _ in range(100):
        peer.more(UNI, bytes(EARLY_SIZE // 10))
    assert peer.quic.stopped == {UNI: WT_BUFFERED_STREAM_REJECTED}
    assert peer.held == 0


async def test_streams_whose_session_was_refused_make_room() -> None:
    app = App()
    peer = Peer(app)
    for number in range(EARLY_MAX):
        peer.stream(UNI + 4 * number, 0, b"x")
    peer.ask(b"\0\0\xd1\xd7\x50\x09localhost\xc1")
    peer.stream(UNI + 4 * EARLY_MAX, 8, b"for another")
    assert set(peer.quic.stopped.values()) == {WT_SESSION_GONE}


# What a client can make the server hold


async def test_flood_of_streams_holds_no_more_than_a_connection_may_let_wait() -> None:
    app, peer = await opened()
    peer.never_tires()
    for number in range(5000):
        peer.stream(UNI + 4 * number, 0, b"x", end=True)
        if peer.h3.windows.is_shut:
            break
    assert number < 1100
    assert peer.held <= 1_100_000
    del app


class Held:
    """A connection whose clock is held, and one stream of its session is filled until nothing more is looked at."""

    def __init__(self, **config: Any) -> None:
        loop = asyncio.get_running_loop()
        self.now = loop.time()
        loop.time = lambda: self.now  # type: ignore[method-assign]
        self.app, self.unread = App(), UNI + 8
        self.peer = Peer(self.app, **config)
        self.peer.never_tires()

    async def fill(self, **more: Any) -> None:
        self.peer.open()
        await self.app.accept(**more)
        self.peer.stream(self.unread, 0)
        while not self.peer.h3.windows.is_shut:
            self.peer.more(self.unread, bytes(16384))

    def advance(self, seconds: float) -> None:
        self.now += seconds
        Ticker(self.peer.service).sweep(self.now)


async def test_stream_that_nobody_reads_is_given_up_when_it_has_held_up_others_for_too_long() -> None:
    held = Held(http3_webtransport_read_timeout=20)
    peer = held.peer
    peer.open()
    await held.app.accept()
    reader = held.app
    peer.stream(UNI, 0, b"read")
    await reader.hear()
    held.app = peer.service.app = App()
    other = peer.open()
    await held.app.accept()
    peer.stream(held.unread, other)
    while not peer.h3.windows.is_shut:
        peer.more(held.unread, bytes(16384))
    held.advance(19)
    assert peer.h3.windows.is_shut
    held.advance(2)
    await asyncio.sleep(0)
    assert not peer.h3.windows.is_shut
    assert peer.quic.stopped == {held.unread: WT_BUFFERED_STREAM_REJECTED}
    assert peer.service.counts["webtransport_unread_streams"] == 1
    peer.more(held.unread, b"on its way")
    peer.more(UNI, b"more")
    assert (await reader.hear())[1]["data"] == b"more"
    # Only what the two sessions have open, and have read.
    assert peer.held == 1024


async def test_application_hears_that_a_stream_was_given_up_which_it_has_begun_to_read() -> None:
    held = Held()
    await held.fill(stream_window=10)
    assert (await held.app.hear())[1]["data"] == bytes(10)
    # Something was taken meanwhile.
    held.advance(31)
    held.advance(31)
    found = {"stream": held.unread, "code": None}
    assert await held.app.hear() == ("stream.reset", found)


async def test_stream_that_is_read_slowly_is_not_given_up_before_it_is_read_no_more() -> None:
    held = Held()
    await held.fill()
    held.advance(10)
    assert (await held.app.hear())[1]["stream"] == held.unread
    held.advance(25)
    assert held.peer.quic.stopped == {}
    held.advance(25)
    assert held.peer.quic.stopped == {}
    held.advance(10)
    assert list(held.peer.quic.stopped) == [held.unread]


async def test_streams_that_are_opened_and_never_heard_of_are_given_up_too() -> None:
    held = Held()
    held.peer.open()
    await held.app.accept()
    for number in range(2000):
        held.peer.stream(UNI + 4 * number, 0)
        if held.peer.h3.windows.is_shut:
            break
    held.advance(31)
    await asyncio.sleep(0)
    assert not held.peer.h3.windows.is_shut
    # As many as there has to be room for.
    assert 500 < len(held.peer.quic.stopped) < 530


async def test_body_of_a_request_that_nobody_reads_may_wait() -> None:
    held = Held()
    await held.fill()
    held.app = held.peer.service.app = App()
    upload = held.peer.ask(literal_section(UPLOAD), end=False)
    held.peer.say(upload, bytes(900_000))
    held.advance(31)
    held.advance(31)
    assert list(held.peer.quic.stopped) == [held.unread]


async def test_without_a_limit_streams_that_nobody_reads_may_wait() -> None:
    held = Held(http3_webtransport_read_timeout=0)
    await held.fill()
    held.advance(100_000)
    assert held.peer.quic.stopped == {}
    assert held.peer.h3.windows.is_shut


async def test_flood_of_streams_that_are_given_up_at_once_leaves_nothing() -> None:
    app, peer = await opened()
    peer.never_tires()
    for number in range(3000):
        peer.stream(UNI + 4 * number, 0, b"x")
        peer.reset(UNI + 4 * number, 0)
    assert peer.held == 0
    sessions = peer.h3.streams.sessions
    assert sessions is not None
    assert not sessions._streams
    peer.datagram(0, b"next")
    assert (await app.hear())[1] == {"data": b"next"}


async def test_flood_of_datagrams_holds_no_more_than_the_queue() -> None:
    app, peer = await opened(http3_webtransport_datagram_queue=64)
    peer.never_tires()
    tracemalloc.start()
    try:
        for _ in range(20_000):
            peer.datagram(0, bytes(1000))
        assert tracemalloc.get_traced_memory()[0] < 500_000
    finally:
        tracemalloc.stop()
    del app


async def test_bytes_that_come_one_by_one_take_no_more_than_they_count() -> None:
    app, peer = await opened()
    peer.never_tires()
    peer.stream(UNI, 0, b"x")
    tracemalloc.start()
    try:
        for _ in range(20_000):
            peer.more(UNI, b"x")
        assert tracemalloc.get_traced_memory()[0] < 200_000
    finally:
        tracemalloc.stop()
    assert peer.held == 20_001 + 1024
    del app


def test_engine_without_datagrams_cannot_have_it(tls_files: tuple[str, str]) -> None:
    from pounce.config import ServerConfig
    from pounce_h3.engines import make_engine

    pytest.importorskip("zoomies")

    class OfIt:
        config = ServerConfig(
            ssl_certfile=tls_files[0],
            ssl_keyfile=tls_files[1],
            http3_enabled=True,
            http3_engine="zoomies",
            http3_webtransport_enabled=True,
        )
        tls = object()

    with pytest.raises(ConfigError, match="http3_webtransport_enabled"):
        make_engine(OfIt())  # type: ignore[arg-type]
