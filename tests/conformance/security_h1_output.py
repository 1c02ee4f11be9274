"""What an application sends cannot become another answer: header fields are checked, nothing is stripped in silence."""

import logging
from typing import Any

import pytest
from tests.conformance.rfc9112_support import Receive, Send, connect, get, in_loop, parser, read_answers, reply

__all__ = ["parser"]

INJECTIONS = {
    "CRLF in a value": (b"x-a", b"b\r\nX-Injected: 1"),
    "CRLF CRLF in a value": (b"x-a", b"b\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
    "LF in a value": (b"x-a", b"b\nX-Injected: 1"),
    "CR in a value": (b"x-a", b"b\rX-Injected: 1"),
    "NUL in a value": (b"x-a", b"b\0c"),
    "ESC in a value": (b"x-a", b"\x1b[31m"),
    "CRLF in a name": (b"x-a: b\r\nX-Injected", b"1"),
    "colon in a name": (b"x-a:b", b"1"),
    "blank in a name": (b"x a", b"1"),
    "empty name": (b"", b"1"),
    "high byte in a name": (b"x-\xff", b"1"),
    "CRLF in Set-Cookie": (b"set-cookie", b"a=b\r\nX-Injected: 1"),
    "CRLF in Location": (b"location", b"/\r\nX-Injected: 1"),
    "Content-Length that is no number": (b"content-length", b"1\r\nX-Injected: 1"),
    "Content-Length with a sign": (b"content-length", b"+1"),
    "text instead of bytes": ("x-a", "b"),
}


@pytest.mark.parametrize("name", INJECTIONS)
@in_loop
async def test_a_header_that_would_break_out_becomes_a_500_and_is_logged(
    name: str, parser: str, caplog: pytest.LogCaptureFixture
) -> None:
    header = INJECTIONS[name]

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [header]})
        await send({"type": "http.response.body", "body": b"x"})

    peer = connect(app, parser)
    with caplog.at_level(logging.ERROR):
        peer.feed(get() + get())
        answers = await peer.answers()
    assert [answer.status for answer in answers] == [500, 500]
    assert b"X-Injected" not in peer.received
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


@in_loop
async def test_a_trailer_that_would_break_out_breaks_the_answer_off(
    parser: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "trailers": True})
        await send({"type": "http.response.body", "body": b"x"})
        await send({"type": "http.response.trailers", "headers": [(b"a", b"b\r\nX-Injected: 1")]})

    peer = connect(app, parser)
    peer.feed(get() + get("/never"))
    await peer.settle()
    assert [answer.complete for answer in read_answers(peer.received)] == [False]
    assert b"X-Injected" not in peer.received
    assert peer.closed
    assert "ERROR" in [record.levelname for record in caplog.records]


@pytest.mark.parametrize(
    "message",
    [
        {"type": "http.response.early_hint", "links": [b"</a>\r\nX-Injected: 1"]},
        {"type": "http.response.start", "status": 103, "headers": [(b"link", b"</a>\r\nX-Injected: 1")]},
    ],
)
@in_loop
async def test_an_interim_answer_that_would_break_out_is_not_sent(
    message: dict[str, Any], parser: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(message)
        await reply(send, b"x")

    peer = connect(app, parser)
    peer.feed(get())
    answer = await peer.answer()
    assert (answer.status, answer.interim) == (500, [])
    assert b"X-Injected" not in peer.received


@in_loop
async def test_a_value_may_have_blanks_tabs_and_high_bytes(parser: str) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await reply(send, b"x", headers=[(b"X-A", b" a\tb \xff "), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")])

    peer = connect(app, parser)
    peer.feed(get())
    answer = await peer.answer()
    assert answer.headers["x-a"] == "a\tb \xff"
    assert answer.raw_head.count(b"set-cookie: ") == 2


@in_loop
async def test_a_header_checked_before_does_not_let_another_pass(parser: str) -> None:
    """The table of known fields must not mix up a name and a value."""
    headers = [[(b"x-a", b"1")], [(b"x-a", b"1\r\nX-Injected: 1")], [(b"x-a", b"1")], [(b"x-a:", b"1")]]

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await reply(send, b"x", headers=headers.pop(0))

    peer = connect(app, parser)
    peer.feed(get() * 4)
    assert [answer.status for answer in await peer.answers()] == [200, 500, 200, 500]


@in_loop
async def test_what_the_application_raised_is_not_told_to_the_client(
    parser: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        raise RuntimeError("the password is hunter2")

    for debug in (False, True):
        peer = connect(app, parser, debug=debug)
        peer.feed(get())
        assert (await peer.answer()).status == 500
        assert b"hunter2" not in peer.received
    assert "hunter2" in caplog.text
