"""The limits and deadlines of one connection: totals, not per read, and only the client's own time counts."""

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

__all__ = ["parser"]

# Time. `peer.after(s)` is what the worker does s seconds from now; the bytes themselves arrive now.


@in_loop
async def test_header_timeout_of_a_connection_that_brings_nothing(parser: str) -> None:
    peer = connect(path_app, parser, header_timeout=10.0)
    peer.after(9.9)
    await peer.settle()
    assert not peer.closed
    peer.after(10.1)
    await peer.settle()
    assert (peer.received, peer.ended) == (b"", True)


@in_loop
async def test_header_timeout_of_a_head_that_does_not_end(parser: str) -> None:
    app = Noting()
    peer = connect(app, parser, header_timeout=10.0)
    peer.feed(get()[:-1])
    peer.after(9.9)
    await peer.settle()
    assert peer.received == b""
    peer.after(10.1)
    answer = await peer.answer()
    assert (answer.status, answer.closes, app.seen) == (408, True, [])
    assert answer.headers["x-pounce-error-code"] == "POUNCE_TIMEOUT_REQUEST_HEAD"
    assert peer.transport.ended


@pytest.mark.parametrize("first", [b"", b"\r\n", get("/0")], ids=["opened", "empty line", "second request"])
@in_loop
async def test_header_timeout_is_not_prolonged_by_bytes_that_trickle_in(first: bytes, parser: str) -> None:
    """The deadline of a head, once set, stays where it is."""
    peer = connect(path_app, parser, header_timeout=10.0)
    peer.feed(first)
    await peer.settle()
    head = get("/x", "A: " + "b" * 50)
    peer.feed(head[:1])
    deadline = peer.protocol.deadline
    for byte in head[1:-1]:
        peer.feed(bytes([byte]))
    assert peer.protocol.deadline == deadline
    assert deadline <= peer.service.loop.time() + 10.0


@in_loop
async def test_header_timeout_begins_with_the_first_byte_of_a_later_head(parser: str) -> None:
    peer = connect(path_app, parser, header_timeout=10.0, keep_alive_timeout=100.0)
    peer.feed(get("/1"))
    await peer.settle()
    peer.after(99.0)
    peer.feed(b"G")
    peer.after(9.9)
    await peer.settle()
    assert not peer.transport.ended
    peer.after(10.1)
    assert [answer.status for answer in await peer.answers()] == [200, 408]


@in_loop
async def test_header_timeout_of_a_head_that_begins_behind_a_request_being_served(parser: str) -> None:
    """It is due from the moment the server waits for it."""
    app = Gated()
    peer = connect(app, parser, header_timeout=10.0)
    peer.feed(get("/1") + b"GET /2 HT")
    peer.after(1000.0)
    app.open("/1")
    await peer.settle()
    peer.after(9.9)
    assert [answer.status for answer in await peer.answers()] == [200]
    peer.after(10.1)
    assert [answer.status for answer in await peer.answers()] == [200, 408]


@in_loop
async def test_keep_alive_timeout(parser: str) -> None:
    peer = connect(path_app, parser, keep_alive_timeout=5.0)
    peer.feed(get())
    await peer.settle()
    peer.after(4.9)
    await peer.settle()
    assert not peer.closed
    peer.after(5.1)
    await peer.settle()
    assert peer.ended
    assert len(await peer.answers()) == 1


@in_loop
async def test_keep_alive_timeout_is_not_prolonged_by_empty_lines(parser: str) -> None:
    peer = connect(path_app, parser, keep_alive_timeout=5.0)
    peer.feed(get())
    await peer.settle()
    deadline = peer.protocol.deadline
    for _ in range(10):
        peer.feed(b"\r\n")
    assert peer.protocol.deadline == deadline


@in_loop
async def test_no_deadline_while_the_application_works(parser: str) -> None:
    app = Gated()
    peer = connect(app, parser)
    peer.feed(get("/1"))
    await peer.settle()
    peer.after(100_000.0)
    app.open("/1")
    assert (await peer.answer()).status == 200


@pytest.mark.parametrize("rest", [post(b"hel", length=100), post_chunked(b"hel")[:-3]])
@in_loop
async def test_request_timeout_between_two_pieces_of_a_body(rest: bytes, parser: str) -> None:
    app = Noting()
    peer = connect(app, parser, request_timeout=3.0, min_body_rate=0)
    peer.feed(rest)
    await peer.settle()
    peer.after(2.9)
    await peer.settle()
    assert peer.received == b""
    peer.after(3.1)
    answer = await peer.answer()
    assert (answer.status, answer.closes) == (408, True)
    assert answer.headers["x-pounce-error-code"] == "POUNCE_TIMEOUT_REQUEST_BODY"
    assert app.seen == [("POST", "/", None)]
    assert peer.transport.ended


@in_loop
async def test_request_timeout_begins_anew_with_each_piece(parser: str) -> None:
    peer = connect(echo_app, parser, request_timeout=3.0, min_body_rate=0)
    peer.feed(post(b"", length=3))
    for _ in range(2):
        before = peer.service.loop.time()
        peer.feed(b"x")
        assert peer.protocol.deadline >= before + 3.0


@in_loop
async def test_a_body_slower_than_min_body_rate_is_given_up_however_often_a_byte_comes(parser: str) -> None:
    """With 5 s of grace and 100 B/s, 300 bytes may take 8 s and no more."""
    peer = connect(echo_app, parser, request_timeout=1000.0, min_body_rate=100)
    peer.feed(post(b"", length=1000))
    for _ in range(300):
        peer.feed(b"x")
    await peer.settle()
    peer.after(7.9)
    await peer.settle()
    assert peer.received == b""
    peer.after(8.1)
    assert (await peer.answer()).status == 408


@in_loop
async def test_bytes_that_are_not_body_do_not_count_for_min_body_rate(parser: str) -> None:
    peer = connect(echo_app, parser, request_timeout=1000.0, min_body_rate=100)
    peer.feed(get("/", "Transfer-Encoding: chunked", method="POST"))
    for _ in range(20):
        peer.feed(b"1;" + b"x" * 98 + b"\r\ny\r\n")
    await peer.settle()
    peer.after(5.1)
    await peer.settle()
    assert peer.received == b""
    peer.after(5.3)
    assert (await peer.answer()).status == 408


@in_loop
async def test_a_deadline_of_the_body_breaks_off_an_answer_that_has_begun(parser: str) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        await read_body(receive)

    peer = connect(app, parser, request_timeout=3.0)
    peer.feed(post(b"", length=3))
    await peer.settle()
    peer.after(3.1)
    answer = await peer.answer()
    assert (answer.status, answer.complete) == (200, False)
    assert peer.closed


@in_loop
async def test_time_in_which_the_application_does_not_read_does_not_count(parser: str) -> None:
    gate = asyncio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await gate.wait()
        await echo_app(scope, receive, send)

    peer = connect(app, parser, request_timeout=3.0, max_request_size=0)
    size = 1_000_000
    peer.feed(post(b"", length=size))
    fed = 0
    while not peer.paused:
        peer.feed(b"x" * 10_000)
        fed += 10_000
        assert fed < size, "the socket is read although nobody takes the body"
    peer.after(100_000.0)
    await peer.settle()
    assert peer.received == b""
    gate.set()
    await peer.wait_until(lambda: not peer.paused)
    peer.after(2.9)
    await peer.settle()
    assert peer.received == b""
    peer.feed(b"x" * (size - fed))
    await peer.wait_until(lambda: not peer.service.tasks)
    assert len((await peer.answer()).body) == size


@in_loop
async def test_once_the_application_reads_again_the_client_has_its_time_again(parser: str) -> None:
    gate = asyncio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await gate.wait()
        await echo_app(scope, receive, send)

    peer = connect(app, parser, request_timeout=3.0, max_request_size=0)
    peer.feed(post(b"x" * 100_000, length=200_000))
    await peer.settle()
    assert peer.paused
    gate.set()
    await peer.settle()
    assert not peer.paused
    peer.after(3.1)
    assert (await peer.answer()).status == 408


# Slow readers


def flood(size: int = 1_000_000) -> Any:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        for _ in range(size // 10_000):
            await send({"type": "http.response.body", "body": b"." * 10_000, "more_body": True})
        await send({"type": "http.response.body"})

    return app


class Leaving:
    """Notes by what error an application ended."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.error = ""

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        except OSError as exc:
            self.error = type(exc).__name__
            raise


@in_loop
async def test_write_timeout_of_a_client_that_takes_nothing(parser: str) -> None:
    peer = connect(flood(), parser, write_timeout=30.0)
    peer.transport.stall()
    peer.feed(get())
    await peer.settle()
    peer.after(29.0)
    await peer.settle()
    assert not peer.closed
    peer.after(31.0)
    await peer.settle()
    assert (peer.closed, peer.was_reset) == (True, True)
    assert not peer.service.tasks
    assert peer.service.counts["write_timeout"] == 1


@pytest.mark.parametrize(
    ("rate", "count"), [(0, 1), (0, 10), (240, 7200), (1000, 30_000)], ids=["any", "any more", "default", "set"]
)
@in_loop
async def test_write_timeout_does_not_hit_a_client_that_is_slow_but_goes_on(rate: int, count: int, parser: str) -> None:
    peer = connect(flood(), parser, write_timeout=30.0, min_write_rate=rate)
    peer.transport.stall()
    peer.feed(get())
    await peer.settle()
    for _ in range(min(20, 50_000 // count)):
        peer.transport.take(count)
        peer.after(31.0)
        await peer.settle(2)
        assert not peer.closed
    peer.after(31.0 + 31.0)
    await peer.settle()
    assert peer.closed


@pytest.mark.parametrize(("rate", "count"), [(240, 7199), (1000, 29_999)], ids=["default", "set"])
@in_loop
async def test_min_write_rate_of_a_client_that_takes_little(rate: int, count: int, parser: str) -> None:
    app = Leaving(flood())
    peer = connect(app, parser, write_timeout=30.0, **({"min_write_rate": rate} if rate != 240 else {}))
    peer.transport.stall()
    peer.feed(get())
    await peer.settle()
    peer.transport.take(count)
    peer.after(29.0)
    await peer.settle()
    assert not peer.closed
    peer.after(31.0)
    await peer.settle()
    assert (peer.closed, peer.was_reset, app.error) == (True, True, "ClientGone")
    assert peer.service.counts["write_timeout"] == 1


@pytest.mark.parametrize(("each", "goes_on"), [(7199, False), (7200, True)])
@in_loop
async def test_min_write_rate_of_a_file_that_the_kernel_sends(
    each: int, goes_on: bool, parser: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not how much of the file the kernel has that counts."""
    peer = connect(Noting(), parser, write_timeout=30.0)
    taken = 0

    async def sendfile(*args: Any) -> int:
        await asyncio.Event().wait()
        return 0

    monkeypatch.setattr(asyncio.get_running_loop(), "sendfile", sendfile, raising=False)
    monkeypatch.setattr(type(peer.protocol), "taken", lambda self: taken, raising=False)
    peer.protocol.sends_files = True  # type: ignore[attr-defined]

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.pathsend", "path": __file__})

    peer.service.app = app
    peer.feed(get())
    await peer.settle()
    for number in range(3):
        taken += each
        peer.after(30.5 * (number + 1))
        await peer.settle()
    assert (peer.closed, peer.was_reset) == (not goes_on, not goes_on)
    peer.lose()
    await peer.settle()


@in_loop
async def test_min_write_rate_counts_what_was_taken_lately(parser: str) -> None:
    """Who was fast for a while is not given the time that this has saved."""
    peer = connect(flood(), parser, write_timeout=30.0)
    peer.transport.stall()
    peer.feed(get())
    await peer.settle()
    peer.transport.take(40_000)
    peer.after(31.0)
    await peer.settle()
    assert not peer.closed
    peer.transport.take(1000)
    peer.after(62.0)
    await peer.settle()
    assert peer.closed


@in_loop
async def test_min_write_rate_does_not_count_the_time_of_a_slow_application(parser: str) -> None:
    app = Gated()

    async def slow(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        for n in range(4):
            await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
            await app.gate(str(n)).wait()
        await send({"type": "http.response.body"})

    peer = connect(slow, parser, write_timeout=30.0)
    peer.feed(get())
    for n in range(4):
        await peer.settle()
        peer.after(1000.0)
        assert not peer.closed
        app.open(str(n))
    assert len((await peer.answer()).body) == 4000


@in_loop
async def test_write_timeout_of_an_answer_that_is_small(parser: str) -> None:
    """Also the bytes of an answer below the high-water mark must leave within the time."""
    peer = connect(path_app, parser, write_timeout=30.0)
    peer.transport.stall()
    peer.feed(get())
    await peer.settle()
    peer.after(29.0)
    await peer.settle()
    assert not peer.closed
    peer.after(31.0)
    await peer.settle()
    assert peer.closed


@in_loop
async def test_write_timeout_of_the_last_answer(parser: str) -> None:
    """A connection that is closing must not stay for a client that takes nothing."""
    peer = connect(path_app, parser, write_timeout=30.0)
    peer.transport.stall()
    peer.feed(get("/", "Connection: close"))
    await peer.settle()
    peer.after(31.0)
    await peer.settle()
    assert peer.closed


@pytest.mark.parametrize("data", [get("/", "no colon"), get() * 1000], ids=["error", "pipelined"])
@in_loop
async def test_write_timeout_of_answers_that_nobody_takes(data: bytes, parser: str) -> None:
    peer = connect(path_app, parser, write_timeout=30.0)
    peer.transport.stall()
    peer.feed(data)
    await peer.settle(1000)
    for _ in range(3):
        peer.after(100.0)
        await peer.settle()
    assert peer.closed


# Sizes


@pytest.mark.parametrize("step", [1, 7, 100_000])
@in_loop
async def test_max_header_size_is_a_total_and_noticed_before_the_end(step: int, parser: str) -> None:
    app = Noting()
    peer = connect(app, parser, max_header_size=1000)
    data = get("/")[:-2] + (b"X-Filling: " + b"x" * 80 + b"\r\n") * 20
    for at in range(0, len(data), step):
        peer.feed(data[at : at + step])
        if peer.received:
            break
    fed = min(len(data), at + step)
    assert step > 1000 or 1000 < fed <= 1000 + step
    answer = await peer.answer()
    assert (answer.status, answer.closes, app.seen) == (431, True, [])


@pytest.mark.parametrize("step", [1, 7, 100_000])
@in_loop
async def test_a_request_line_that_fills_the_head_alone_is_414(step: int, parser: str) -> None:
    peer = connect(path_app, parser, max_header_size=1000)
    data = b"GET /" + b"x" * 3000
    for at in range(0, len(data), step):
        peer.feed(data[at : at + step])
        if peer.received:
            break
    assert step > 1000 or at + step <= 1000 + step
    answer = await peer.answer()
    assert (answer.status, answer.closes) == (414, True)


@in_loop
async def test_a_head_of_just_max_header_size_is_served_and_one_byte_more_is_not(parser: str) -> None:
    size = 1000
    for more, status in ((0, 200), (1, 431)):
        head = get("/", "X: ")
        head = get("/", "X: " + "x" * (size + more - len(head)))
        assert len(head) == size + more
        peer = connect(path_app, parser, max_header_size=size)
        peer.feed(head)
        assert (await peer.answer()).status == status


@in_loop
async def test_just_max_headers_are_served_and_one_more_is_not(parser: str) -> None:
    for more, status in ((0, 200), (1, 431)):
        peer = connect(path_app, parser, max_headers=20)
        peer.feed(get("/", *(f"X-{n}: {n}" for n in range(19 + more))))
        assert (await peer.answer()).status == status


@in_loop
async def test_limits_of_a_head_count_for_trailers_too(parser: str) -> None:
    for trailers in (b"A: b\r\n" * 21, b"A: " + b"b" * 1200 + b"\r\n"):
        app = Noting()
        peer = connect(app, parser, max_headers=20, max_header_size=1000)
        peer.feed(post_chunked(b"x", trailers=trailers))
        answer = await peer.answer()
        assert (answer.status, answer.closes) == (431, True)
        assert app.seen == [("POST", "/", None)]


@in_loop
async def test_each_request_has_the_whole_of_the_limits(parser: str) -> None:
    peer = connect(path_app, parser, max_header_size=300, max_headers=5)
    peer.feed(get("/", "X: " + "x" * 200, "Y: y") * 50)
    assert [answer.status for answer in await peer.answers()] == [200] * 50


@in_loop
async def test_a_content_length_above_max_request_size_is_refused_at_once(parser: str) -> None:
    app = Noting()
    peer = connect(app, parser, max_request_size=1000)
    peer.feed(post(b"", length=1001))
    answer = await peer.answer()
    assert (answer.status, app.seen) == (413, [])
    assert answer.headers["x-pounce-error-code"] == "POUNCE_LIMIT_REQUEST_TOO_LARGE"


@in_loop
async def test_a_huge_content_length_ends_the_connection(parser: str) -> None:
    app = Noting()
    peer = connect(app, parser, max_request_size=1000)
    peer.feed(post(b"", length=10**18))
    answer = await peer.answer()
    assert (answer.status, answer.closes, app.seen) == (413, True, [])
    assert peer.transport.ended


@in_loop
async def test_a_body_of_just_max_request_size_is_served(parser: str) -> None:
    peer = connect(echo_app, parser, max_request_size=1000)
    peer.feed(post(b"x" * 1000) + post_chunked(b"x" * 999, b"y"))
    assert [len(answer.body) for answer in await peer.answers()] == [1000, 1000]


@in_loop
async def test_a_chunked_body_is_refused_as_soon_as_it_exceeds_max_request_size(parser: str) -> None:
    app = Noting()
    peer = connect(app, parser, max_request_size=1000)
    peer.feed(get("/", "Transfer-Encoding: chunked", method="POST") + chunk(b"x" * 1000))
    await peer.settle()
    assert peer.received == b""
    peer.feed(b"1\r\nx")
    assert (await peer.answer()).status == 413
    assert app.seen == [("POST", "/", None)]


@in_loop
async def test_a_chunked_body_above_the_limit_breaks_off_an_answer_that_has_begun(parser: str) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        await read_body(receive)

    peer = connect(app, parser, max_request_size=1000)
    peer.feed(get("/", "Transfer-Encoding: chunked", method="POST"))
    await peer.settle()
    peer.feed(chunk(b"x" * 1001))
    answer = await peer.answer()
    assert (answer.status, answer.complete) == (200, False)
    assert peer.closed


@in_loop
async def test_max_request_size_counts_each_request_for_itself(parser: str) -> None:
    peer = connect(echo_app, parser, max_request_size=1000)
    peer.feed(post(b"x" * 900) * 5)
    assert [answer.status for answer in await peer.answers()] == [200] * 5


@in_loop
async def test_max_request_size_0_is_no_limit(parser: str) -> None:
    peer = connect(echo_app, parser, max_request_size=0)
    peer.feed(post(b"x" * 3_000_000))
    await peer.wait_until(lambda: not peer.service.tasks and not peer.transport.unread)
    assert len((await peer.answer()).body) == 3_000_000


# Memory


@in_loop
async def test_a_body_that_nobody_reads_is_not_kept(parser: str) -> None:
    gate = asyncio.Event()
    largest = 0

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        nonlocal largest
        await gate.wait()
        more, total = True, 0
        while more:
            message = await receive()
            largest = max(largest, len(message["body"]))
            total += len(message["body"])
            more = message["more_body"]
        await reply(send, b"%d" % total)

    peer = connect(app, parser, max_request_size=0)
    peer.feed(post(b"", length=5_000_000))
    for _ in range(500):
        peer.feed(b"x" * 10_000)
    await peer.settle()
    assert peer.paused
    gate.set()
    await peer.wait_until(lambda: not peer.service.tasks)
    assert (await peer.answer()).body == b"5000000"
    assert largest < 200_000


@in_loop
async def test_a_chunked_body_that_nobody_reads_is_not_kept(parser: str) -> None:
    gate = asyncio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await gate.wait()
        await echo_app(scope, receive, send)

    peer = connect(app, parser, max_request_size=0)
    peer.feed(get("/", "Transfer-Encoding: chunked", method="POST"))
    for _ in range(500):
        peer.feed(chunk(b"x" * 10_000))
    await peer.settle()
    assert peer.paused
    assert len(peer.transport.unread) > 480
    gate.set()
    peer.transport.unread.append(b"0\r\n\r\n")
    await peer.wait_until(lambda: not peer.service.tasks)
    assert len((await peer.answer()).body) == 5_000_000


@in_loop
async def test_a_closed_connection_leaves_nothing_behind(parser: str) -> None:
    app = Noting()
    for data in (get(), get("/", "no colon"), post(b"x", length=5), b"GET", get("/", "Connection: close")):
        peer = connect(app, parser)
        peer.feed(data)
        await peer.settle()
        peer.lose()
        await peer.settle()
        assert not peer.service.connections
        assert not peer.service.tasks
