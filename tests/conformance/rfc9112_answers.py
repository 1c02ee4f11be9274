"""RFC 9112 6 and 7, RFC 9110 15: how the end of an answer is marked, and which answers have no body."""

import asyncio
from typing import Any

import pytest
from tests.conformance.rfc9112_support import Receive, Send, connect, get, in_loop, parser, read_answers, reply

__all__ = ["parser"]


def streaming(*pieces: bytes, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Any:
    """An application that sends its body piece by piece."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    return app


def whole(body: bytes, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Any:
    """An application that sends its body at once."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await reply(send, body, status, headers)

    return app


def failing(*pieces: bytes, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Any:
    """An application that breaks down after some pieces of its body."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        raise RuntimeError("broken on purpose")

    return app


LENGTH = ((b"content-length", b"6"),)

# Framing (RFC 9112 6.3)


@in_loop
async def test_a_body_that_is_all_there_gets_a_length(parser: str) -> None:
    peer = connect(whole(b"hello!"), parser)
    peer.feed(get())
    answer = await peer.answer()
    assert (answer.headers, answer.body) == ({"content-length": "6"}, b"hello!")


@in_loop
async def test_an_empty_body_gets_a_length_of_zero(parser: str) -> None:
    peer = connect(whole(b"", 404), parser)
    peer.feed(get())
    assert (await peer.answer()).headers == {"content-length": "0"}


@in_loop
async def test_a_streamed_body_with_a_length_is_sent_as_it_is(parser: str) -> None:
    peer = connect(streaming(b"one", b"two", headers=LENGTH), parser)
    peer.feed(get() + get())
    answers = await peer.answers()
    assert [(answer.body, answer.chunks) for answer in answers] == [(b"onetwo", None)] * 2


@in_loop
async def test_a_streamed_body_without_a_length_is_chunked(parser: str) -> None:
    peer = connect(streaming(b"one", b"", b"two"), parser)
    peer.feed(get() + get())
    answers = await peer.answers()
    assert [answer.chunks for answer in answers] == [[b"one", b"two"]] * 2
    assert all(answer.complete for answer in answers)


@in_loop
async def test_an_empty_piece_is_not_sent_as_the_last_chunk(parser: str) -> None:
    peer = connect(streaming(b"", b"", b"x", b""), parser)
    peer.feed(get())
    answer = await peer.answer()
    assert (answer.chunks, answer.complete) == ([b"x"], True)


@in_loop
async def test_a_transfer_coding_of_the_application_is_not_sent(parser: str) -> None:
    peer = connect(streaming(b"x", headers=((b"transfer-encoding", b"gzip"),)), parser)
    peer.feed(get())
    answer = await peer.answer()
    assert answer.headers["transfer-encoding"] == "chunked"


@pytest.mark.parametrize("size", [1, 16_383, 16_384, 65_536, 3_000_000])
@pytest.mark.parametrize("how", [whole, streaming], ids=["whole", "streamed"])
@in_loop
async def test_bodies_of_any_size(size: int, how: Any, parser: str) -> None:
    body = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    peer = connect(how(body), parser)
    peer.feed(get() + get())
    await peer.wait_until(lambda: not peer.service.tasks)
    assert [answer.body == body for answer in await peer.answers()] == [True, True]


# Answers without a body (RFC 9112 6.3, 1.)


@pytest.mark.parametrize("app", [whole(b"hello!"), whole(b"hello!", headers=LENGTH)], ids=["added", "given"])
@in_loop
async def test_an_answer_to_head_has_the_fields_of_get_and_no_body(app: Any, parser: str) -> None:
    """RFC 9110 9.3.2"""
    peer = connect(app, parser)
    peer.feed(get(method="HEAD") + get())
    head, full = await peer.answers("HEAD", "GET")
    assert (head.body, full.body) == (b"", b"hello!")
    assert head.headers == full.headers


@pytest.mark.parametrize("app", [streaming(b"a", b"b"), failing(b"a")], ids=["streamed", "failing"])
@in_loop
async def test_a_streamed_answer_to_head_has_no_body_and_keeps_the_connection(app: Any, parser: str) -> None:
    peer = connect(app, parser)
    peer.feed(get(method="HEAD"))
    assert (await peer.answer("HEAD")).status == 200
    peer.feed(get(method="HEAD"))
    assert [answer.status for answer in await peer.answers("HEAD")] == [200, 200]


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("app", [whole, streaming], ids=["whole", "streamed"])
@in_loop
async def test_204_and_304_have_no_body_whatever_the_application_sends(status: int, app: Any, parser: str) -> None:
    peer = connect(app(b"unwanted", status=status), parser)
    peer.feed(get() + get())
    answers = await peer.answers()
    assert [(answer.status, answer.headers) for answer in answers] == [(status, {})] * 2


@in_loop
async def test_204_has_no_length_and_304_keeps_that_of_the_application(parser: str) -> None:
    """RFC 9110 8.6"""
    for status, expected in ((204, {}), (304, {"content-length": "6"})):
        peer = connect(whole(b"", status, LENGTH), parser)
        peer.feed(get())
        assert (await peer.answer()).headers == expected


@in_loop
async def test_a_server_error_for_head_has_no_body(parser: str) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        raise RuntimeError("broken on purpose")

    peer = connect(app, parser)
    peer.feed(get(method="HEAD") + get(method="HEAD"))
    assert [answer.status for answer in await peer.answers("HEAD")] == [500, 500]


# Interim answers (RFC 9110 15.2)


@in_loop
async def test_early_hints_come_before_the_answer(parser: str) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload", b"</b.js>; rel=preload"]})
        await asyncio.sleep(0)
        await reply(send, b"x")

    peer = connect(app, parser)
    peer.feed(get())
    data = peer.received
    assert data.startswith(b"HTTP/1.1 103 Early Hints\r\n")
    assert data.count(b"link: ") == 2
    await peer.settle()
    assert peer.received.partition(b"\r\n\r\n")[2].startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("status", [102, 103, 110, 199])
@in_loop
async def test_any_interim_answer_goes_before_the_final_one(status: int, parser: str) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        for n in (b"1", b"2"):
            await send({"type": "http.response.start", "status": status, "headers": [(b"x-n", n)]})
        await reply(send, b"x")

    peer = connect(app, parser)
    peer.feed(get() + get())
    for answer in await peer.answers():
        assert answer.interim == [(status, {"x-n": "1"}), (status, {"x-n": "2"})]
        assert (answer.status, answer.body) == (200, b"x")


@in_loop
async def test_an_http_1_0_client_gets_no_interim_answer(parser: str) -> None:
    """RFC 9110 15.2: "A server MUST NOT send a 1xx response to an HTTP/1.0 client." """

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.early_hint", "links": [b"</a.css>"]})
        await send({"type": "http.response.start", "status": 102})
        await receive()
        await reply(send, b"x")

    peer = connect(app, parser)
    peer.feed(get("/", "Content-Length: 2", "Expect: 100-continue", method="POST", version="1.0") + b"ab")
    answer = await peer.answer()
    assert (answer.interim, answer.body) == ([], b"x")


@pytest.mark.parametrize("status", [100, 101])
@in_loop
async def test_an_application_cannot_send_100_or_101_itself(status: int, parser: str) -> None:
    peer = connect(whole(b"", status), parser)
    peer.feed(get())
    assert (await peer.answer()).status == 500


# Trailers (RFC 9112 7.1.2)


def with_trailers(*pieces: bytes) -> Any:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        if "http.response.trailers" not in scope["extensions"]:
            await reply(send, b"".join(pieces))
            return
        await send({"type": "http.response.start", "status": 200, "trailers": True, "headers": [(b"trailer", b"sum")]})
        for piece in pieces[:-1]:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": pieces[-1]})
        await send({"type": "http.response.trailers", "headers": [(b"sum", b"1")], "more_trailers": True})
        await send({"type": "http.response.trailers", "headers": [(b"x", b"y")]})

    return app


@pytest.mark.parametrize("pieces", [(b"",), (b"one",), (b"one", b"two")])
@in_loop
async def test_trailers_follow_a_chunked_body(pieces: tuple[bytes, ...], parser: str) -> None:
    peer = connect(with_trailers(*pieces), parser, asgi_extensions=["trailers"])
    peer.feed(get() + get())
    answers = await peer.answers()
    for answer in answers:
        assert (answer.body, answer.trailers) == (b"".join(pieces), {"sum": "1", "x": "y"})
        assert answer.complete
    assert len(answers) == 2


@in_loop
async def test_trailers_are_not_offered_to_an_http_1_0_client(parser: str) -> None:
    peer = connect(with_trailers(b"one"), parser, asgi_extensions=["trailers"])
    peer.feed(get(version="1.0"))
    answer = await peer.answer()
    assert (answer.body, answer.trailers) == (b"one", {})


@in_loop
async def test_trailers_of_an_answer_to_head_are_not_sent(parser: str) -> None:
    peer = connect(with_trailers(b"one"), parser, asgi_extensions=["trailers"])
    peer.feed(get(method="HEAD") + get())
    head, full = await peer.answers("HEAD", "GET")
    assert (head.body, head.trailers, full.trailers) == (b"", {}, {"sum": "1", "x": "y"})


# HTTP/1.0


@in_loop
async def test_a_streamed_answer_to_http_1_0_ends_with_the_connection(parser: str) -> None:
    peer = connect(streaming(b"one", b"two"), parser)
    peer.feed(get("/", "Connection: keep-alive", version="1.0"))
    answer = await peer.answer()
    assert "transfer-encoding" not in answer.headers
    assert (answer.body, answer.closes) == (b"onetwo", True)
    assert peer.ended


@in_loop
async def test_a_streamed_answer_with_a_length_keeps_an_http_1_0_connection(parser: str) -> None:
    peer = connect(streaming(b"one", b"two", headers=LENGTH), parser)
    peer.feed(get("/", "Connection: keep-alive", version="1.0") * 2)
    answers = await peer.answers()
    assert [(answer.body, answer.headers["connection"]) for answer in answers] == [(b"onetwo", "keep-alive")] * 2


@in_loop
async def test_answers_name_http_1_1_whatever_the_client_speaks(parser: str) -> None:
    """RFC 9110 6.2: the highest minor version the sender conforms to."""
    peer = connect(whole(b"x"), parser)
    peer.feed(get(version="1.0"))
    await peer.settle()
    assert peer.received.startswith(b"HTTP/1.1 200 OK\r\n")


# An application that breaks down


@in_loop
async def test_a_chunked_answer_that_breaks_off_has_no_last_chunk(parser: str) -> None:
    peer = connect(failing(b"one", b"two"), parser)
    peer.feed(get() + get("/never"))
    await peer.settle()
    assert peer.closed
    answers = read_answers(peer.received, ended=True)
    assert [(answer.chunks, answer.complete) for answer in answers] == [([b"one", b"two"], False)]


@in_loop
async def test_an_answer_with_a_length_that_breaks_off_is_too_short(parser: str) -> None:
    peer = connect(failing(b"one", headers=LENGTH), parser)
    peer.feed(get() + get("/never"))
    await peer.settle()
    assert peer.closed
    answers = read_answers(peer.received, ended=True)
    assert [(answer.body, answer.complete) for answer in answers] == [(b"one", False)]


@in_loop
async def test_an_answer_that_the_end_of_the_connection_ends_breaks_off_with_a_reset(parser: str) -> None:
    """Nothing else tells an HTTP/1.0 client that the body is not whole."""
    aborted: list[bool] = []
    peer = connect(failing(b"one"), parser)
    abort = peer.transport.abort
    peer.transport.abort = lambda: (aborted.append(True), abort())[1]  # type: ignore[method-assign]
    peer.feed(get(version="1.0"))
    await peer.settle()
    assert peer.closed
    assert aborted == [True]
    assert not peer.transport.ended


@pytest.mark.parametrize("app", [failing(), failing(headers=LENGTH)])
@in_loop
async def test_an_application_that_fails_before_its_first_byte_is_answered_with_500(app: Any, parser: str) -> None:
    peer = connect(app, parser)
    peer.feed(get() + get())
    answers = await peer.answers()
    assert [(answer.status, answer.complete) for answer in answers] == [(500, True)] * 2


@pytest.mark.parametrize("body", [b"", b"short", b"too long"])
@in_loop
async def test_a_body_that_does_not_fit_its_length_is_refused(body: bytes, parser: str) -> None:
    peer = connect(whole(body, headers=LENGTH), parser)
    peer.feed(get())
    assert (await peer.answer()).status == 500


@in_loop
async def test_a_body_that_grows_beyond_its_length_is_broken_off_and_no_byte_more_is_sent(parser: str) -> None:
    peer = connect(streaming(b"one", b"three", headers=LENGTH), parser)
    peer.feed(get() + get("/never"))
    await peer.settle()
    assert peer.closed
    assert [(answer.body, answer.complete) for answer in read_answers(peer.received)] == [(b"one", False)]


# When the head leaves


@in_loop
async def test_a_head_is_sent_when_the_body_lets_itself_be_waited_for(parser: str) -> None:
    gate = asyncio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await gate.wait()
        await send({"type": "http.response.body", "body": b"late"})

    peer = connect(app, parser)
    peer.feed(get())
    await peer.settle()
    assert peer.received == b""
    peer.after(0.3)
    assert peer.received.endswith(b"\r\n\r\n")
    gate.set()
    answer = await peer.answer()
    assert (answer.body, answer.complete) == (b"late", True)


# A slow reader


@in_loop
async def test_an_application_waits_for_a_client_that_does_not_read(parser: str) -> None:
    sent = 0

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200})
        for _ in range(200):
            await send({"type": "http.response.body", "body": b"." * 10_000, "more_body": True})
            sent += 1
        await send({"type": "http.response.body"})

    peer = connect(app, parser)
    peer.transport.stall()
    peer.feed(get())
    await peer.settle(200)
    assert sent < 20
    assert peer.transport.largest_waiting < 200_000
    before = sent
    peer.transport.take(len(peer.transport.waiting))
    await peer.settle(200)
    assert before < sent < before + 20
    peer.transport.unstall()
    await peer.wait_until(lambda: not peer.service.tasks)
    answer = await peer.answer()
    assert len(answer.body) == 2_000_000


@in_loop
async def test_the_next_request_waits_until_the_answer_has_left(parser: str) -> None:
    """Else a client that never reads could have any number of answers kept for it."""
    begun = 0

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        nonlocal begun
        begun += 1
        await asyncio.sleep(0)
        await reply(send, b"." * 100_000)

    peer = connect(app, parser)
    peer.transport.stall()
    peer.feed(get() * 50)
    await peer.settle(500)
    assert begun == 1
    peer.transport.unstall()
    await peer.wait_until(lambda: begun == 50)
    assert len(await peer.answers()) == 50


@in_loop
async def test_an_application_that_waits_for_a_slow_client_is_told_when_it_leaves(parser: str) -> None:
    raised: list[type[BaseException]] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"." * 10_000, "more_body": True})
        except OSError as exc:
            raised.append(type(exc))
            raise

    peer = connect(app, parser)
    peer.transport.stall()
    peer.feed(get())
    await peer.settle(100)
    peer.lose()
    await peer.settle()
    assert [cls.__name__ for cls in raised] == ["ClientGone"]
    assert not peer.service.tasks
