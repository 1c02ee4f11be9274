"""RFC 9112 over real sockets: TCP, TLS and Unix. What is only about bytes is tested in memory, in the files beside."""

import asyncio
import threading
from typing import Any

import pytest
from tests.conformance.rfc9112_support import (
    PATIENCE,
    Answer,
    Client,
    Held,
    Receive,
    Send,
    echo_app,
    get,
    parser,
    path_app,
    post,
    post_chunked,
    reply,
    serve,
    socket_kind,
)

__all__ = ["parser", "serve", "socket_kind"]

KERNEL_MAX = 16_000_000
"""More than the kernel keeps of a connection in both of its buffers."""


def test_a_connection_serves_one_request_after_the_other(serve: Any) -> None:
    site = serve(echo_app)
    with site.client() as client:
        for n in range(20):
            client.send(post(b"%d" % n) if n % 2 else post_chunked(b"%d" % n))
            answer = client.answer()
            assert (answer.status, answer.body, answer.closes) == (200, b"%d" % n, False)
        client.send(get("/", "Connection: close"))
        assert [answer.closes for answer in client.answers()] == [True]


def test_pipelined_requests_in_pieces_of_any_size(serve: Any) -> None:
    site = serve(path_app)
    data = b"".join(get(f"/{n}") for n in range(200))
    for size in (1, 37, 4096):
        with site.client() as client:
            for at in range(0, len(data) if size > 1 else 500, size):
                client.send(data[at : at + size])
            count = 200 if size > 1 else data[:500].count(b"\r\n\r\n")
            assert [client.answer().body for _ in range(count)] == [b"/%d" % n for n in range(count)]


def test_thousands_of_pipelined_requests(serve: Any, socket_kind: str) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0)
        await reply(send, scope["raw_path"])

    site = serve(app)
    with site.client() as client:
        data = b"".join(get(f"/{n}") for n in range(2000))
        # Two threads cannot share a TLS socket; the kernel's buffers have room for all of this there.
        sender = threading.Thread(target=client.send, args=(data,))
        sender.start()
        if socket_kind == "tls":
            sender.join()
        assert all(client.answer().body == b"/%d" % n for n in range(2000))
        sender.join()


def test_a_large_body_goes_both_ways(serve: Any) -> None:
    site = serve(echo_app, max_request_size=0)
    body = bytes(range(256)) * 8000
    with site.client() as client:
        for data in (post(body), post_chunked(body[:1_000_000], body[1_000_000:])):
            client.send(data)
            assert client.answer().body == body


def test_an_upload_waits_for_an_application_that_does_not_read(serve: Any) -> None:
    gate = Held()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        async def nothing(message: dict[str, Any]) -> None:
            pass

        await gate(scope, receive, nothing)
        total, more = 0, True
        while more:
            message = await receive()
            total += len(message["body"])
            more = message["more_body"]
        await reply(send, b"%d" % total)

    size = KERNEL_MAX + 1_000_000
    site = serve(app, max_request_size=0)
    with site.client() as client:
        client.send(post(b"", length=size))
        gate.wait_until_begun()
        client.sock.settimeout(0.3)
        sent, block = 0, b"x" * 65_536
        with pytest.raises(TimeoutError):
            while sent < size:
                sent += client.sock.send(block[: size - sent])
        assert sent < KERNEL_MAX
        client.sock.settimeout(PATIENCE)
        gate.open()
        while sent < size:
            sent += client.sock.send(block[: size - sent])
        assert client.answer().body == b"%d" % size


def test_a_download_waits_for_a_client_that_does_not_read(serve: Any) -> None:
    stuck = threading.Event()
    sent = 0
    size, block = KERNEL_MAX + 1_000_000, b"x" * 100_000

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
        while sent < size:
            message = {"type": "http.response.body", "body": block, "more_body": sent + len(block) < size}
            sending = asyncio.ensure_future(send(message))
            await asyncio.wait({sending}, timeout=0.3)
            if not sending.done():
                stuck.set()
            await sending
            sent += len(block)

    site = serve(app)
    with site.client() as client:
        client.send(get("/", "Connection: close"))
        assert stuck.wait(PATIENCE), "the application can send without end"
        assert sent < KERNEL_MAX
        answer = client.answers()[0]
        assert (len(answer.body), answer.complete) == (size, True)


@pytest.mark.parametrize("sent", [get("/1"), get("/1") + get("/2"), post(b"x", "/1") + post_chunked(b"y", path="/2")])
def test_a_client_that_ends_its_half_still_gets_its_answers(serve: Any, socket_kind: str, sent: bytes) -> None:
    if socket_kind == "tls":
        pytest.skip("asyncio ends both halves of TLS together")
    app = Held()
    site = serve(app)
    with site.client() as client:
        client.send(sent)
        client.end()
        app.wait_until_begun()
        app.open()
        count = sent.count(b"HTTP/1.1")
        assert [answer.body for answer in client.answers()] == [b"/%d" % n for n in range(1, count + 1)]


@pytest.mark.parametrize("fields", [(), ("Connection: close",)], ids=["kept", "last"])
def test_an_answer_that_waits_for_its_client_is_followed_by_what_is_due(serve: Any, fields: tuple[str, ...]) -> None:
    """The connection goes on, or ends, at the moment the last byte has left."""
    size = KERNEL_MAX + 1_000_000

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await reply(send, b"x" * size if scope["path"] == "/large" else b"small")

    site = serve(app)
    for _ in range(2):
        with site.client() as client:
            client.send(get("/large", *fields) + get("/small", "Connection: close"))
            sizes = [len(answer.body) for answer in client.answers()]
        assert sizes == ([size] if fields else [size, 5])


# Ends that the client can tell apart


def test_a_chunked_answer_that_breaks_off_has_no_end(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        raise RuntimeError("broken on purpose")

    site = serve(app)
    with site.client() as client:
        client.send(get())
        answers = client.answers()
    assert [(answer.body, answer.complete) for answer in answers] == [(b"begun", False)]


def test_a_client_that_ends_after_a_broken_answer_ends_the_connection(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Both sides close at the same time, which must not be the server's second close."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await send({"type": "http.response.body", "body": b"three"})

    site = serve(app, shutdown_timeout=120.0)
    for _ in range(5):
        with site.client() as client:
            client.send(get())
            assert client.rest().endswith(b"one")
    site.server.stop(timeout=60)


def test_a_close_delimited_answer_that_breaks_off_is_a_reset(
    serve: Any, socket_kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An orderly end would tell an HTTP/1.0 client that the body is whole (RFC 9112 8)."""
    if socket_kind == "unix":
        pytest.skip("a Unix socket knows no reset")

    gate = Held()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        await gate(scope, receive, send)

    site = serve(app)
    with site.client() as client:
        client.send(get(version="1.0"))
        assert client.sock.recv(65536).startswith(b"HTTP/1.1 200")
        gate.wait_until_begun()
        gate.open()
        # reply() sends a second http.response.start, which is an error of the application.
        with pytest.raises(ConnectionResetError):
            client.rest()


def last_answer(client: Client, socket_kind: str) -> Answer:
    """The answer after which the server ends its half, in order and without a reset."""
    answer = client.answer()
    # asyncio cannot end one half of TLS, so there the end comes when the server has waited long enough.
    assert socket_kind == "tls" or client.rest() == b""
    return answer


@pytest.mark.parametrize("sent", [b"GET  / HTTP/1.1\r\n\r\n", get("/", "no colon"), post_chunked()[:-5] + b"zz\r\n"])
def test_a_client_that_goes_on_sending_can_read_the_answer_to_its_error(
    serve: Any, socket_kind: str, sent: bytes
) -> None:
    site = serve(echo_app)
    with site.client() as client:
        client.send(sent)
        client.send(b"x" * 500_000)
        answer = last_answer(client, socket_kind)
    assert (answer.status, answer.closes) == (400, True)


def test_a_client_that_sends_on_can_read_an_answer_that_came_before_its_body(serve: Any, socket_kind: str) -> None:
    site = serve(path_app, max_request_size=0)
    with site.client() as client:
        client.send(post(b"", "/early", length=900_000))
        client.send(b"x" * 900_000)
        answer = last_answer(client, socket_kind)
    assert (answer.body, answer.closes) == (b"/early", True)


def test_a_client_whose_body_is_too_large_can_read_the_answer(serve: Any, socket_kind: str) -> None:
    site = serve(path_app, max_request_size=100_000)
    with site.client() as client:
        client.send(post(b"", length=800_000))
        client.send(b"x" * 800_000)
        answer = last_answer(client, socket_kind)
    assert (answer.status, answer.closes) == (413, True)


def test_an_application_is_told_that_its_client_left(serve: Any) -> None:
    told = threading.Event()
    begun = threading.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        begun.set()
        if (await receive())["type"] == "http.disconnect":
            told.set()

    site = serve(app)
    with site.client() as client:
        client.send(get())
        assert begun.wait(PATIENCE)
    assert told.wait(PATIENCE)


def test_a_client_that_resets_hurts_nobody_else(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    app = Held()
    site = serve(app)
    with site.client() as other:
        for _ in range(20):
            client = site.client()
            client.send(get("/held"))
            app.wait_until_begun()
            client.reset()
        other.send(get("/now"))
        assert other.answer().body == b"/now"
    app.open()


def test_write_timeout_gives_up_a_client_that_takes_nothing(serve: Any) -> None:
    told = threading.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"." * 100_000, "more_body": True})
        except OSError:
            told.set()

    site = serve(app, write_timeout=0.3)
    with site.client(receive_buffer=65_536) as client:
        client.send(get())
        assert told.wait(PATIENCE)
