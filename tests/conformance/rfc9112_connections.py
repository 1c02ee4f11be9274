"""RFC 9112 9: what happens on a connection from one request to the next, and how it ends."""

import asyncio
from typing import Any

import pytest
from tests.conformance.rfc9112_support import (
    Gated,
    Noting,
    Receive,
    Send,
    chunk,
    connect,
    echo_app,
    get,
    in_loop,
    parser,
    path_app,
    post,
    post_chunked,
    read_body,
    reply,
)

from pounce.errors import ClientGone
from pounce.net.linger import LINGER_MAX

__all__ = ["parser"]


# Keep-alive (9.3)


@pytest.mark.parametrize(
    ("version", "fields", "kept"),
    [
        ("1.1", (), True),
        ("1.1", ("Connection: keep-alive",), True),
        ("1.1", ("Connection: close",), False),
        ("1.1", ("Connection: x, CLOSE",), False),
        ("1.1", ("Connection: x", "Connection: close"), False),
        ("1.1", ("Connection: closed",), True),
        ("1.0", (), False),
        ("1.0", ("Connection: Keep-Alive",), True),
        ("1.0", ("Connection: keep-alive, close",), False),
    ],
)
@in_loop
async def test_who_keeps_the_connection(version: str, fields: tuple[str, ...], kept: bool, parser: str) -> None:
    peer = connect(path_app, parser)
    peer.feed(get("/1", *fields, version=version))
    answer = await peer.answer()
    assert answer.closes is not kept
    assert peer.transport.is_closing() is not kept
    peer.feed(get("/2"))
    assert [answer.body for answer in await peer.answers()] == ([b"/1", b"/2"] if kept else [b"/1"])


@in_loop
async def test_an_http_1_0_client_is_told_that_the_connection_is_kept(parser: str) -> None:
    peer = connect(path_app, parser)
    peer.feed(get("/", "Connection: keep-alive", version="1.0"))
    assert (await peer.answer()).headers["connection"] == "keep-alive"


@in_loop
async def test_the_last_answer_of_max_requests_per_connection_announces_it(parser: str) -> None:
    peer = connect(path_app, parser, max_requests_per_connection=3)
    for path in ("/1", "/2", "/3", "/4"):
        peer.feed(get(path))
        await peer.settle()
    answers = await peer.answers()
    assert [(answer.body, answer.closes) for answer in answers] == [(b"/1", False), (b"/2", False), (b"/3", True)]
    assert peer.ended


@in_loop
async def test_pipelined_requests_beyond_max_requests_per_connection_are_not_begun(parser: str) -> None:
    app = Noting()
    peer = connect(app, parser, max_requests_per_connection=2)
    peer.feed(get("/1") + get("/2") + get("/3"))
    answers = await peer.answers()
    assert [answer.closes for answer in answers] == [False, True]
    assert [path for _, path, _ in app.seen] == ["/1", "/2"]


@in_loop
async def test_an_application_can_end_the_connection(parser: str) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await reply(send, b"bye", headers=[(b"connection", b"close")])

    peer = connect(app, parser)
    peer.feed(get())
    answer = await peer.answer()
    assert (answer.body, answer.closes) == (b"bye", True)
    assert peer.ended


@in_loop
async def test_an_answer_while_draining_announces_the_end(parser: str) -> None:
    app = Gated()
    peer = connect(app, parser)
    peer.feed(get("/1"))
    peer.service.draining = True
    peer.protocol.drain()
    app.open("/1")
    answer = await peer.answer()
    assert (answer.body, answer.closes) == (b"/1", True)
    assert peer.ended


@in_loop
async def test_while_draining_only_the_last_of_the_pipelined_answers_announces_the_end(parser: str) -> None:
    app = Gated()
    peer = connect(app, parser)
    peer.feed(get("/1") + get("/2") + get("/3"))
    peer.service.draining = True
    peer.protocol.drain()
    app.open("/1", "/2", "/3")
    assert [(answer.body, answer.closes) for answer in await peer.answers()] == [
        (b"/1", False),
        (b"/2", False),
        (b"/3", True),
    ]
    assert peer.ended


# Pipelining (9.3.2)


@in_loop
async def test_pipelined_answers_come_in_the_order_of_the_requests(parser: str) -> None:
    app = Gated()
    peer = connect(app, parser)
    peer.feed(get("/1") + get("/2") + get("/3"))
    for path in ("/3", "/2", "/1"):
        app.open(path)
        await peer.settle()
    assert [answer.body for answer in await peer.answers()] == [b"/1", b"/2", b"/3"]


@in_loop
async def test_nothing_of_a_later_answer_is_sent_before_an_earlier_one_is_complete(parser: str) -> None:
    app = Gated()
    peer = connect(app, parser)
    app.open("/2", "/3")
    peer.feed(get("/1") + get("/2") + get("/3"))
    await peer.settle()
    assert peer.received == b""
    app.open("/1")
    assert [answer.body for answer in await peer.answers()] == [b"/1", b"/2", b"/3"]


@in_loop
async def test_answers_to_pipelined_requests_leave_in_one_write(parser: str) -> None:
    peer = connect(path_app, parser)
    # As many as a connection has done in one turn.
    peer.feed(b"".join(get(f"/{n}") for n in range(8)))
    assert [answer.body for answer in await peer.answers()] == [b"/%d" % n for n in range(8)]
    assert len(peer.writes) == 1


@in_loop
async def test_the_gathering_of_answers_is_bounded(parser: str) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await reply(send, b"." * 1000)

    peer = connect(app, parser)
    peer.feed(get() * 200)
    await peer.until_read()
    assert len(await peer.answers()) == 200
    assert max(map(len, peer.writes)) < 20_000


@in_loop
async def test_one_answer_is_one_write(parser: str) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0)
        await reply(send, b"hello")

    peer = connect(app, parser)
    peer.feed(get())
    await peer.answer()
    assert len(peer.writes) == 1


@in_loop
async def test_bytes_of_the_next_request_that_arrive_while_one_is_served_are_kept(parser: str) -> None:
    app = Gated()
    app.open("/2", "/3")
    peer = connect(app, parser)
    peer.feed(get("/1"))
    for byte in get("/2") + post(b"body", "/3"):
        peer.feed(bytes([byte]))
        await peer.settle(1)
    assert app.begun == ["/1"]
    app.open("/1")
    assert [answer.body for answer in await peer.answers()] == [b"/1", b"/2", b"/3"]


@pytest.mark.parametrize("waits", [False, True], ids=["eager", "waiting"])
@in_loop
async def test_thousands_of_pipelined_requests_do_not_recurse(waits: bool, parser: str) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        if waits:
            await asyncio.sleep(0)
        await reply(send, scope["raw_path"])

    count = 2000
    peer = connect(app, parser)
    peer.feed(b"".join(get(f"/{n}") for n in range(count)))
    await peer.wait_until(lambda: peer.received.endswith(b"/%d" % (count - 1)), turns=100_000)
    assert [answer.body for answer in await peer.answers()] == [b"/%d" % n for n in range(count)]


@in_loop
async def test_a_flood_of_requests_is_not_read_while_one_is_served_and_all_are_answered(parser: str) -> None:
    app = Gated()
    peer = connect(app, parser)
    path = "/" + 400 * "x"
    block = get(path) * 100
    app.open(path)
    peer.feed(get("/1"))
    fed = 0
    while not peer.paused:
        peer.feed(block)
        fed += 1
        assert fed < 10, "reading goes on"
    for _ in range(3):
        peer.feed(block)
    assert peer.protocol.parser.buffered < 200_000  # type: ignore[attr-defined]
    app.open("/1")
    total = 1 + (fed + 3) * 100
    await peer.wait_until(lambda: peer.received.count(b"HTTP/1.1 200") == total, turns=100_000)
    assert not peer.paused


@in_loop
async def test_a_flood_of_requests_is_bounded_while_they_are_answered(parser: str) -> None:
    """The socket is read at the pace of the answers, not by another 64 KiB for each answer."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0)
        await reply(send, b"")

    peer = connect(app, parser)
    block = get("/x") * 1600
    largest = 0

    def step() -> bool:
        nonlocal largest
        largest = max(largest, peer.protocol.parser.buffered)  # type: ignore[attr-defined]
        return peer.received.count(b"HTTP/1.1 200") >= 200

    for _ in range(40):
        peer.feed(block)
    await peer.wait_until(step)
    assert len(block) > 50_000
    assert largest < 65_536 + 2 * len(block)


STATUS_LINE = b"HTTP/1.1 200"


@in_loop
async def test_a_client_that_pipelines_and_does_not_read_holds_the_requests_back(parser: str) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await reply(send, b"." * 1000)

    peer = connect(app, parser)
    peer.transport.stall()
    # Long ones: it is bytes that are bounded, and requests that cost time.
    block = get("/" + 400 * "x") * 100
    for _ in range(20):
        peer.feed(block)
        await peer.settle(3)
    assert peer.transport.largest_waiting < 200_000
    assert peer.protocol.parser.buffered < 200_000  # type: ignore[attr-defined]
    assert peer.paused
    peer.transport.unstall()
    found = looked_at = 0

    def are_all_there() -> bool:
        nonlocal found, looked_at
        # Not `peer.received`, which is a copy each time.
        received = peer.transport.received
        found += received.count(STATUS_LINE, looked_at)
        looked_at = max(len(received) - len(STATUS_LINE) + 1, 0)
        return found == 2000

    await peer.wait_until(are_all_there, turns=200_000)


# Half-close (RFC 9293 3.6): a client may end its half and still wait for the answers


@pytest.mark.parametrize("sent", [get("/1"), get("/1") + get("/2"), post(b"x", "/1") + post_chunked(b"y", path="/2")])
@pytest.mark.parametrize("waits", [False, True], ids=["eager", "waiting"])
@in_loop
async def test_a_client_that_ends_its_half_gets_its_answers_and_the_connection_ends(
    sent: bytes, waits: bool, parser: str
) -> None:
    count = sent.count(b"HTTP/1.1")
    gate = asyncio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await read_body(receive)
        if waits:
            await gate.wait()
        await reply(send, scope["raw_path"])

    peer = connect(app, parser)
    peer.feed(sent)
    peer.feed_eof()
    await peer.settle()
    gate.set()
    assert [answer.body for answer in await peer.answers()] == [b"/%d" % n for n in range(1, count + 1)]
    assert peer.closed


@in_loop
async def test_the_last_answer_to_a_client_that_ended_its_half_announces_the_end(parser: str) -> None:
    app = Gated()
    peer = connect(app, parser)
    peer.feed(get("/1") + get("/2"))
    peer.feed_eof()
    app.open("/1", "/2")
    assert [answer.closes for answer in await peer.answers()] == [False, True]


@pytest.mark.parametrize("rest", [b"GET / HTT", post(b"half", "/2", length=8), post_chunked(b"a", path="/2")[:-1]])
@in_loop
async def test_half_a_request_before_the_end_of_the_clients_half_is_given_up_at_once(rest: bytes, parser: str) -> None:
    gate = asyncio.Event()
    bodies: list[bytes | None] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        if scope["path"] == "/1":
            await gate.wait()
            await reply(send, b"/1")
        else:
            bodies.append(await read_body(receive))

    peer = connect(app, parser)
    peer.feed(get("/1") + rest)
    peer.feed_eof()
    await peer.settle()
    gate.set()
    assert [answer.body for answer in await peer.answers()] == [b"/1"]
    assert peer.closed
    assert bodies == ([None] if b"/2" in rest else [])


@in_loop
async def test_a_streamed_answer_reaches_a_client_that_ended_its_half(parser: str) -> None:
    gate = asyncio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"one ", "more_body": True})
        await gate.wait()
        await send({"type": "http.response.body", "body": b"two"})

    peer = connect(app, parser)
    peer.feed(get())
    await peer.settle()
    peer.feed_eof()
    await peer.settle()
    gate.set()
    answer = await peer.answer()
    assert (answer.body, answer.complete) == (b"one two", True)
    assert peer.closed


@pytest.mark.parametrize("status", [200, 204, 304])
@in_loop
async def test_answer_without_a_body_that_comes_in_pieces_keeps_no_other_from_a_client_that_ended_its_half(
    status: int, parser: str
) -> None:
    gate = asyncio.Event()
    raised: list[type[BaseException]] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        if scope["method"] == "GET" and scope["raw_path"] == b"/2":
            await reply(send, b"second")
            return
        await send({"type": "http.response.start", "status": status})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        await gate.wait()
        try:
            for _ in range(3):
                await send({"type": "http.response.body", "body": b"piece", "more_body": True})
        except OSError as exc:
            raised.append(type(exc))
            raise

    peer = connect(app, parser)
    first = b"HEAD" if status == 200 else b"GET"
    peer.feed(get("/1").replace(b"GET", first) + get("/2"))
    peer.feed_eof()
    await peer.settle()
    gate.set()
    await peer.settle()
    assert peer.received.startswith(b"HTTP/1.1 %d " % status)
    assert peer.received.endswith(b"second")
    # Nobody is there to take the pieces, and who sends them is told.
    assert raised == [ClientGone]
    assert peer.closed


# An answer before the body was read (9.3, 9.6)


@pytest.mark.parametrize("size", [1, 1000, 200_000])
@in_loop
async def test_a_small_unread_body_is_drained_and_the_connection_used_again(size: int, parser: str) -> None:
    peer = connect(path_app, parser)
    body = b"GET /evil HTTP/1.1\r\nHost: x\r\n\r\n" * (size // 32 + 1)
    data = post(body[:size], "/1")
    peer.feed(data[:200])
    await peer.settle()
    peer.feed(data[200:] + get("/2"))
    await peer.wait_until(lambda: b"/2" in peer.received)
    assert [(answer.body, answer.closes) for answer in await peer.answers()] == [(b"/1", False), (b"/2", False)]


@in_loop
async def test_a_small_unread_chunked_body_is_drained_and_the_connection_used_again(parser: str) -> None:
    peer = connect(path_app, parser)
    peer.feed(post_chunked(b"x" * 1000, b"y" * 1000, path="/1") + get("/2"))
    assert [answer.body for answer in await peer.answers()] == [b"/1", b"/2"]


@in_loop
async def test_a_large_unread_body_ends_the_connection_gently(parser: str) -> None:
    """RFC 9112 9.6: end our half, read on for a while, so that no reset destroys the answer."""
    peer = connect(path_app, parser, max_request_size=0)
    peer.feed(post(b"x" * 1000, "/1", length=50_000_000))
    answer = await peer.answer()
    assert (answer.body, answer.closes) == (b"/1", True)
    assert peer.transport.ended
    assert not peer.transport.is_closing()
    peer.feed(b"x" * 100_000)
    await peer.settle()
    assert not peer.transport.is_closing()
    peer.feed_eof()
    await peer.settle()
    assert peer.closed
    assert len(await peer.answers()) == 1


@in_loop
async def test_a_chunked_body_that_goes_on_and_on_after_its_answer_ends_the_connection(parser: str) -> None:
    peer = connect(path_app, parser, max_request_size=0)
    peer.feed(get("/1", "Transfer-Encoding: chunked", method="POST"))
    for _ in range(LINGER_MAX // 1_048_576 + 2):
        peer.feed(chunk(b"x" * 1_048_576))
        await peer.settle(2)
    assert (await peer.answer()).body == b"/1"
    assert peer.closed


@in_loop
async def test_a_drained_body_is_not_given_to_the_application(parser: str) -> None:
    after: list[Any] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await reply(send, b"")
        after.append(await receive())

    peer = connect(app, parser)
    peer.feed(post(b"12345"))
    await peer.settle()
    assert after == [{"type": "http.disconnect"}]


@in_loop
async def test_a_drained_body_that_does_not_arrive_ends_the_connection(parser: str) -> None:
    peer = connect(path_app, parser, request_timeout=3.0)
    peer.feed(post(b"12345", "/1", length=1000))
    assert (await peer.answer()).body == b"/1"
    peer.after(2.9)
    await peer.settle()
    assert not peer.closed
    peer.after(3.1)
    await peer.settle()
    assert peer.ended
    assert len(await peer.answers()) == 1


# After an error


BAD = {
    "request line": b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "length and coding": post_chunked(b"x", fields=("Content-Length: 3",)),
    "header": get("/", "no colon"),
    "chunk": get("/", "Transfer-Encoding: chunked", method="POST") + b"zz\r\nhello\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest.mark.parametrize("before", [0, 2])
@in_loop
async def test_after_bytes_that_are_no_request_nothing_more_is_read(bad: bytes, before: int, parser: str) -> None:
    app = Noting()
    peer = connect(app, parser)
    peer.feed(get("/ok") * before + bad + get("/smuggled"))
    answers = await peer.answers()
    peer.feed(get("/later"))
    await peer.settle()
    peer.feed_eof()
    assert [answer.status for answer in answers] == [200] * before + [400]
    assert [answer.closes for answer in answers] == [False] * before + [True]
    assert len(await peer.answers()) == before + 1
    assert [path for _, path, body in app.seen if body is not None] == ["/ok"] * before
    assert peer.closed


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@in_loop
async def test_after_an_error_the_server_ends_its_half_and_reads_on_for_a_bounded_time(bad: bytes, parser: str) -> None:
    peer = connect(echo_app, parser)
    peer.feed(bad)
    await peer.settle()
    assert peer.transport.ended
    assert not peer.transport.is_closing()
    for second in (0.5, 1.0, 1.5):
        peer.feed(b"x")
        peer.after(second)
        await peer.settle()
        assert not peer.closed
    peer.after(2.1)
    await peer.settle()
    assert peer.closed


@in_loop
async def test_after_an_error_a_bounded_amount_is_read(parser: str) -> None:
    peer = connect(echo_app, parser)
    peer.feed(BAD["request line"])
    for _ in range(LINGER_MAX // 1_048_576 + 1):
        peer.feed(b"x" * 1_048_576)
        await peer.settle(1)
    assert peer.closed
    assert peer.protocol.parser.buffered < 1000  # type: ignore[attr-defined]


@in_loop
async def test_a_bad_request_waits_for_the_answers_before_it(parser: str) -> None:
    app = Gated()
    peer = connect(app, parser)
    peer.feed(get("/1") + BAD["no host"])
    await peer.settle()
    assert peer.received == b""
    app.open("/1")
    assert [answer.status for answer in await peer.answers()] == [200, 400]


@in_loop
async def test_a_bad_chunk_after_the_answer_was_complete_gets_no_second_answer(parser: str) -> None:
    peer = connect(path_app, parser)
    peer.feed(get("/1", "Transfer-Encoding: chunked", method="POST") + b"zz\r\n" + get("/2"))
    assert (await peer.answer()).body == b"/1"
    assert peer.transport.ended


@in_loop
async def test_a_bad_chunk_while_the_answer_is_streamed_breaks_it_off(parser: str) -> None:
    gone = asyncio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()

    peer = connect(app, parser)
    peer.feed(get("/", "Transfer-Encoding: chunked", method="POST"))
    await peer.settle()
    peer.feed(b"zz\r\n")
    answer = await peer.answer()
    assert (answer.status, answer.complete) == (200, False)
    assert gone.is_set()
    assert peer.closed


# The client is gone


@in_loop
async def test_an_application_that_waits_is_told_that_the_client_is_gone(parser: str) -> None:
    told: list[str] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        told.append((await receive())["type"])
        with pytest.raises(OSError):
            await reply(send, b"too late")
        told.append("send refused")

    peer = connect(app, parser)
    peer.feed(get())
    await peer.settle()
    peer.lose()
    await peer.settle()
    assert told == ["http.disconnect", "send refused"]
    assert not peer.service.tasks


@in_loop
async def test_requests_behind_one_whose_client_left_are_not_begun(parser: str) -> None:
    app = Gated()
    peer = connect(app, parser)
    peer.feed(get("/1") + get("/2"))
    peer.lose()
    await peer.settle()
    app.open("/1", "/2")
    await peer.settle()
    assert app.begun == ["/1"]
    assert not peer.service.connections


# Body and pipelining together


@in_loop
async def test_an_application_that_reads_only_a_part_of_its_body_does_not_disturb_the_next_request(
    parser: str,
) -> None:
    bodies: list[bytes] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        bodies.append((await receive())["body"])
        await reply(send, scope["raw_path"])

    peer = connect(app, parser)
    peer.feed(post_chunked(b"a", path="/1")[:-5])
    await peer.settle()
    peer.feed(chunk(b"unread") + b"0\r\n\r\n" + post(b"c", "/2"))
    answers = await peer.answers()
    assert [answer.body for answer in answers] == [b"/1", b"/2"]
    assert bodies == [b"a", b"c"]
