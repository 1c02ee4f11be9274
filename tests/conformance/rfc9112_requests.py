"""RFC 9112 2, 3, 6 and 7: how a request is read, whatever way its bytes arrive."""

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
    pieces_of,
    post,
    post_chunked,
    read_body,
    reply,
)

__all__ = ["parser"]

MESSAGES = {
    "get": (get("/a", "Accept: */*"), [("GET", "/a", b"")]),
    "length": (post(b"hello", "/b"), [("POST", "/b", b"hello")]),
    "chunked": (post_chunked(b"hello", b" ", b"world", path="/c"), [("POST", "/c", b"hello world")]),
    "trailers": (post_chunked(b"x", path="/d", trailers=b"Sum: 1\r\n"), [("POST", "/d", b"x")]),
    "empty lines first": (b"\r\n\r\n" + get("/e"), [("GET", "/e", b"")]),
    "two pipelined": (post(b"one", "/1") + get("/2"), [("POST", "/1", b"one"), ("GET", "/2", b"")]),
    "chunked then get": (post_chunked(b"one", path="/1") + get("/2"), [("POST", "/1", b"one"), ("GET", "/2", b"")]),
}


@pytest.mark.parametrize("name", MESSAGES)
@in_loop
async def test_the_cuts_between_reads_do_not_matter(name: str, parser: str) -> None:
    data, expected = MESSAGES[name]
    for how, pieces in pieces_of(data):
        app = Noting()
        peer = connect(app, parser)
        for piece in pieces:
            peer.feed(piece)
            await peer.settle(2)
        assert [answer.status for answer in await peer.answers()] == [200] * len(expected), how
        assert app.seen == expected, how


@pytest.mark.parametrize("name", MESSAGES)
@in_loop
async def test_nothing_is_answered_before_the_last_byte_of_a_request(name: str, parser: str) -> None:
    data, expected = MESSAGES[name]
    app = Noting()
    peer = connect(app, parser)
    peer.feed(data[:-1])
    await peer.settle()
    assert app.seen == expected[:-1]
    peer.feed(data[-1:])
    await peer.settle()
    assert app.seen == expected


@pytest.mark.parametrize("lines", [1, 2, 5])
@in_loop
async def test_empty_lines_before_a_request_are_ignored(lines: int, parser: str) -> None:
    """RFC 9112 2.2: old clients send an extra CRLF after a body."""
    app = Noting()
    peer = connect(app, parser)
    peer.feed(b"\r\n" * lines + post(b"ab", "/1") + b"\r\n" * lines + get("/2") + b"\r\n")
    assert [answer.status for answer in await peer.answers()] == [200, 200]
    assert [path for _, path, _ in app.seen] == ["/1", "/2"]


@pytest.mark.parametrize(
    ("target", "raw_path", "query"),
    [
        ("http://example.org/x/y?q=1", b"/x/y", b"q=1"),
        ("http://example.org", b"/", b""),
        ("http://example.org?q", b"/", b"q"),
        ("HTTP://example.org/%41", b"/%41", b""),
    ],
)
@in_loop
async def test_an_absolute_target_names_the_same_resource(
    target: str, raw_path: bytes, query: bytes, parser: str
) -> None:
    app = Noting()
    peer = connect(app, parser)
    peer.feed(get(target))
    assert (await peer.answer()).status == 200
    assert (app.scopes[0]["raw_path"], app.scopes[0]["query_string"]) == (raw_path, query)


@in_loop
async def test_options_of_the_server_as_a_whole(parser: str) -> None:
    """RFC 9112 3.2.4"""
    app = Noting()
    peer = connect(app, parser)
    peer.feed(get("*", method="OPTIONS"))
    assert (await peer.answer()).status == 200
    assert app.seen == [("OPTIONS", "*", b"")]


@pytest.mark.parametrize("method", ["PATCH", "PROPFIND", "M-SEARCH", "get", "X!#$%&'*+-.^_`|~9"])
@in_loop
async def test_any_token_is_a_method_and_case_counts(method: str, parser: str) -> None:
    app = Noting()
    peer = connect(app, parser)
    peer.feed(get("/", method=method))
    await peer.settle()
    assert [seen[0] for seen in app.seen] == [method]


@in_loop
async def test_a_higher_minor_version_is_served_as_1_1(parser: str) -> None:
    """RFC 9110 2.5"""
    app = Noting()
    peer = connect(app, parser)
    peer.feed(get("/", version="1.9"))
    answer = await peer.answer()
    assert (answer.status, answer.closes) == (200, False)
    assert app.scopes[0]["http_version"] == "1.1"


@in_loop
async def test_field_names_arrive_in_lower_case_and_values_without_blanks_around_them(parser: str) -> None:
    app = Noting()
    peer = connect(app, parser)
    peer.feed(get("/", "X-One:1", "x-ONE: \t 2 \t", "Empty:", "Last: a  b"))
    await peer.settle()
    assert list(app.scopes[0]["headers"]) == [
        (b"host", b"example.org"),
        (b"x-one", b"1"),
        (b"x-one", b"2"),
        (b"empty", b""),
        (b"last", b"a  b"),
    ]


@in_loop
async def test_request_trailers_come_with_the_end_of_the_body(parser: str) -> None:
    messages: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        while True:
            messages.append(await receive())
            if not messages[-1]["more_body"]:
                break
        await reply(send)

    peer = connect(app, parser)
    peer.feed(post_chunked(b"abc", trailers=b"Checksum: 9\r\nX: y\r\n"))
    assert (await peer.answer()).status == 200
    assert b"".join(message["body"] for message in messages) == b"abc"
    assert messages[-1]["trailers"] == [(b"checksum", b"9"), (b"x", b"y")]


@pytest.mark.parametrize("size", [0, 1, 16_383, 65_536, 65_537, 1_000_000])
@in_loop
async def test_bodies_of_any_size_with_a_length(size: int, parser: str) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    peer = connect(echo_app, parser)
    peer.feed(post(body))
    await peer.wait_until(lambda: not peer.transport.unread and not peer.service.tasks)
    assert (await peer.answer()).body == body


@pytest.mark.parametrize("size", [1, 100, 65_536, 300_000])
@in_loop
async def test_chunked_bodies_of_any_chunk_size(size: int, parser: str) -> None:
    body = b"0123456789" * 60_000
    body = body[: max(size * 20, 1000)]
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    peer = connect(echo_app, parser)
    peer.feed(post_chunked(*chunks))
    await peer.wait_until(lambda: not peer.transport.unread and not peer.service.tasks)
    assert (await peer.answer()).body == body


@pytest.mark.parametrize(
    "sent",
    [
        post(b"hell", length=5),
        post(b"", length=5),
        get("/", "Transfer-Encoding: chunked", method="POST") + chunk(b"hello"),
        get("/", "Transfer-Encoding: chunked", method="POST") + b"5\r\nhel",
        get("/", "Transfer-Encoding: chunked", method="POST") + chunk(b"hello") + b"0\r\n",
        get("/", "Transfer-Encoding: chunked", method="POST") + chunk(b"hello") + b"0\r\nSum: 1\r\n",
    ],
)
@pytest.mark.parametrize("how", ["end", "lose"])
@in_loop
async def test_a_body_that_was_cut_off_is_a_disconnect_and_never_complete(sent: bytes, how: str, parser: str) -> None:
    """RFC 9112 8: an incomplete message must not be taken for a whole one."""
    app = Noting()
    peer = connect(app, parser)
    peer.feed(sent)
    await peer.settle()
    assert app.seen == []
    if how == "end":
        peer.feed_eof()
    else:
        peer.lose()
    await peer.settle()
    assert app.seen == [("POST", "/", None)]
    assert peer.closed


@pytest.mark.parametrize("sent", [b"", b"GET / HT", get("/")[:-1], b"\r\n"])
@in_loop
async def test_a_client_that_ends_before_its_head_is_complete_gets_nothing(sent: bytes, parser: str) -> None:
    app = Noting()
    peer = connect(app, parser)
    peer.feed(sent)
    peer.feed_eof()
    await peer.settle()
    assert (peer.received, peer.closed, app.seen) == (b"", True, [])


@in_loop
async def test_a_body_that_looks_like_a_request_stays_a_body(parser: str) -> None:
    app = Noting()
    peer = connect(app, parser)
    peer.feed(post(get("/evil"), "/1") + post_chunked(get("/evil"), path="/2") + get("/3"))
    await peer.settle()
    assert app.seen == [("POST", "/1", get("/evil")), ("POST", "/2", get("/evil")), ("GET", "/3", b"")]


@in_loop
async def test_a_body_can_be_read_while_the_answer_is_being_sent(parser: str) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        more = True
        while more:
            message = await receive()
            more = message["more_body"]
            await send({"type": "http.response.body", "body": message["body"].upper(), "more_body": more})

    peer = connect(app, parser)
    peer.feed(get("/", "Transfer-Encoding: chunked", method="POST") + chunk(b"one"))
    await peer.settle()
    assert b"ONE" in peer.received
    peer.feed(chunk(b"two"))
    await peer.settle()
    assert b"TWO" in peer.received
    peer.feed(b"0\r\n\r\n" + post(b"next"))
    answers = await peer.answers()
    assert [answer.body for answer in answers] == [b"ONETWO", b"NEXT"]


@in_loop
async def test_read_body_of_a_request_without_one_does_not_wait(parser: str) -> None:
    bodies: list[bytes | None] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        bodies.append(await read_body(receive))
        await reply(send)

    peer = connect(app, parser)
    peer.feed(get("/") + post(b"") + post_chunked())
    assert len(await peer.answers()) == 3
    assert bodies == [b"", b"", b""]
