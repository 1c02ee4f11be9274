"""RFC 9110 10.1.1: 100 (Continue) only for a client that waits for it, and only when the application wants the body."""

import asyncio
from typing import Any

import pytest
from tests.conformance.rfc9112_support import (
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
    reply,
)

__all__ = ["parser"]

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def asking(length: int = 5, version: str = "1.1", expect: str = "100-continue") -> bytes:
    """The head of a request whose client waits before it sends its body."""
    return get("/", f"Content-Length: {length}", f"Expect: {expect}", method="POST", version=version)


@pytest.mark.parametrize("expect", ["100-continue", "100-Continue"])
@in_loop
async def test_100_is_sent_when_the_application_reads(expect: str, parser: str) -> None:
    peer = connect(echo_app, parser)
    peer.feed(asking(expect=expect))
    await peer.settle()
    assert peer.received == CONTINUE
    peer.feed(b"hello" + asking(2))
    await peer.settle()
    assert peer.received.endswith(CONTINUE)
    peer.feed(b"ok")
    answers = await peer.answers()
    assert [(answer.body, answer.closes, len(answer.interim)) for answer in answers] == [
        (b"hello", False, 1),
        (b"ok", False, 1),
    ]


@in_loop
async def test_100_is_sent_for_a_chunked_body_too(parser: str) -> None:
    peer = connect(echo_app, parser)
    peer.feed(get("/", "Transfer-Encoding: chunked", "Expect: 100-continue", method="POST"))
    await peer.settle()
    assert peer.received == CONTINUE
    peer.feed(chunk(b"hello") + b"0\r\n\r\n")
    assert (await peer.answer()).body == b"hello"


@in_loop
async def test_100_waits_until_the_application_reads(parser: str) -> None:
    gate = asyncio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await gate.wait()
        await echo_app(scope, receive, send)

    peer = connect(app, parser)
    peer.feed(asking())
    await peer.settle()
    peer.after(5.0)
    assert peer.received == b""
    gate.set()
    await peer.settle()
    assert peer.received == CONTINUE


@in_loop
async def test_100_is_sent_once(parser: str) -> None:
    peer = connect(echo_app, parser)
    peer.feed(asking())
    for byte in b"hello":
        await peer.settle()
        peer.feed(bytes([byte]))
    answer = await peer.answer()
    assert (answer.body, len(answer.interim)) == (b"hello", 1)


@in_loop
async def test_a_client_that_does_not_wait_gets_no_100(parser: str) -> None:
    """RFC 9110 10.1.1: it may be left out once a part of the body has come."""
    peer = connect(echo_app, parser)
    peer.feed(asking() + b"hello")
    answer = await peer.answer()
    assert (answer.body, answer.interim) == (b"hello", [])


@in_loop
async def test_an_answer_without_reading_gets_no_100_and_ends_the_connection(parser: str) -> None:
    """The client may or may not send the body now: nobody knows where the next request would begin."""
    peer = connect(path_app, parser)
    peer.feed(asking())
    answer = await peer.answer()
    assert (answer.interim, answer.status, answer.closes) == ([], 200, True)
    peer.feed(b"hello" + get("/next"))
    peer.feed_eof()
    await peer.settle()
    assert peer.closed
    assert len(await peer.answers()) == 1


@in_loop
async def test_no_100_after_the_final_answer_has_begun(parser: str) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"begun ", "more_body": True})
        message = await receive()
        await send({"type": "http.response.body", "body": message["body"]})

    peer = connect(app, parser)
    peer.feed(asking())
    await peer.settle()
    assert b"100 Continue" not in peer.received
    peer.feed(b"hello")
    answer = await peer.answer()
    assert (answer.interim, answer.body) == ([], b"begun hello")


@in_loop
async def test_an_http_1_0_client_gets_no_100(parser: str) -> None:
    peer = connect(echo_app, parser)
    peer.feed(asking(version="1.0"))
    await peer.settle()
    assert peer.received == b""
    peer.feed(b"hello")
    answer = await peer.answer()
    assert (answer.interim, answer.body) == ([], b"hello")


@in_loop
async def test_a_request_without_a_body_gets_no_100(parser: str) -> None:
    app = Noting()
    peer = connect(app, parser)
    peer.feed(get("/", "Expect: 100-continue") + asking(0))
    assert [answer.interim for answer in await peer.answers()] == [[], []]


@pytest.mark.parametrize("expect", ["a-miracle", "100-continue, a-miracle", "200-ok", ""])
@in_loop
async def test_another_expectation_is_417(expect: str, parser: str) -> None:
    app = Noting()
    peer = connect(app, parser)
    peer.feed(asking(expect=expect) + b"hello")
    answer = await peer.answer()
    assert (answer.status, answer.closes, app.seen) == (417, True, [])


@in_loop
async def test_a_body_that_is_too_large_is_refused_before_it_is_asked_for(parser: str) -> None:
    app = Noting()
    peer = connect(app, parser, max_request_size=10)
    peer.feed(asking(11))
    answer = await peer.answer()
    assert (answer.status, answer.interim, answer.closes, app.seen) == (413, [], True, [])


@in_loop
async def test_a_client_that_waits_is_not_timed_out_while_the_application_thinks(parser: str) -> None:
    gate = asyncio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await gate.wait()
        await echo_app(scope, receive, send)

    peer = connect(app, parser, request_timeout=2.0)
    peer.feed(asking())
    peer.after(1000.0)
    await peer.settle()
    gate.set()
    await peer.settle()
    assert peer.received == CONTINUE
    peer.feed(b"hello")
    assert (await peer.answer()).body == b"hello"


@in_loop
async def test_a_client_that_was_told_to_continue_and_does_not_is_timed_out(parser: str) -> None:
    peer = connect(echo_app, parser, request_timeout=2.0)
    peer.feed(asking())
    await peer.settle()
    assert peer.received == CONTINUE
    peer.after(1.9)
    await peer.settle()
    assert peer.received == CONTINUE
    peer.after(2.1)
    answer = await peer.answer()
    assert (answer.status, answer.closes) == (408, True)


@in_loop
async def test_a_pipelined_request_is_asked_to_continue_after_the_answer_before_it(parser: str) -> None:
    gate = asyncio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        if scope["method"] == "GET":
            await gate.wait()
            await reply(send, b"first")
        else:
            await echo_app(scope, receive, send)

    peer = connect(app, parser)
    peer.feed(get() + asking())
    await peer.settle()
    assert peer.received == b""
    gate.set()
    await peer.settle()
    assert peer.received.endswith(b"first" + CONTINUE)
