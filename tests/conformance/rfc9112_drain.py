"""RFC 9112 9.6 and the end of a server: what was accepted before it is answered, and the wait is bounded."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.conformance.rfc9112_support import (
    PATIENCE,
    Held,
    Receive,
    Send,
    connect,
    get,
    in_loop,
    parser,
    path_app,
    post,
    read_answers,
    reply,
    serve,
    socket_kind,
)

__all__ = ["parser", "serve", "socket_kind"]


class Blocking:
    """An application whose first request blocks the whole loop until the test lets it go on."""

    def __init__(self) -> None:
        self.blocked = threading.Event()
        self.go_on = threading.Event()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["path"] == "/block":
            self.blocked.set()
            assert self.go_on.wait(PATIENCE)
        await reply(send, scope["raw_path"])


# In memory


@in_loop
async def test_an_idle_connection_is_closed_after_a_moment(parser: str) -> None:
    peer = connect(path_app, parser)
    peer.feed(get("/1"))
    await peer.settle()
    peer.service.draining = True
    peer.protocol.drain()
    peer.after(0.9)
    await peer.settle()
    assert not peer.ended
    peer.after(1.1)
    await peer.settle()
    assert peer.ended


@in_loop
async def test_a_connection_that_has_brought_nothing_yet_gets_a_moment(parser: str) -> None:
    peer = connect(path_app, parser)
    peer.service.draining = True
    peer.protocol.drain()
    peer.after(0.9)
    await peer.settle()
    assert not peer.closed
    peer.feed(get("/late"))
    answer = await peer.answer()
    assert (answer.body, answer.closes) == (b"/late", True)
    assert peer.ended


@in_loop
async def test_a_connection_that_brings_nothing_is_closed_after_a_moment(parser: str) -> None:
    peer = connect(path_app, parser)
    peer.service.draining = True
    peer.protocol.drain()
    peer.after(1.1)
    await peer.settle()
    assert peer.ended


@pytest.mark.parametrize("begun", [get("/1")[:-2], post(b"abc", "/1")[:-2]], ids=["head", "body"])
@in_loop
async def test_a_request_that_has_begun_to_arrive_is_answered(begun: bytes, parser: str) -> None:
    whole = get("/1") if begun.startswith(b"GET") else post(b"abc", "/1")
    peer = connect(path_app, parser)
    peer.feed(begun)
    peer.service.draining = True
    peer.protocol.drain()
    peer.after(0.3)
    peer.feed(whole[len(begun) :])
    answers = await peer.answers()
    assert [answer.body for answer in answers] == [b"/1"]


# Over sockets


def test_a_request_that_is_being_served_is_answered(serve: Any) -> None:
    app = Held()
    site = serve(app)
    with site.client() as client:
        client.send(get("/held"))
        app.wait_until_begun()
        site.server.shutdown()
        app.open()
        assert [(answer.body, answer.closes) for answer in client.answers()] == [(b"/held", True)]
    site.server.stop()


def test_requests_that_were_pipelined_before_the_end_are_answered(serve: Any) -> None:
    app = Blocking()
    site = serve(app)
    with site.client() as client:
        client.send(get("/block"))
        assert app.blocked.wait(PATIENCE)
        client.send(get("/2") + get("/3"))
        site.server.shutdown()
        app.go_on.set()
        answers = client.answers()
    assert [answer.body for answer in answers] == [b"/block", b"/2", b"/3"]


def test_a_request_that_still_lies_in_the_socket_of_an_idle_connection_is_answered(serve: Any) -> None:
    app = Blocking()
    site = serve(app)
    with site.client() as idle, site.client() as blocker:
        idle.send(get("/1"))
        assert idle.answer().body == b"/1"
        blocker.send(get("/block"))
        assert app.blocked.wait(PATIENCE)
        idle.send(get("/2"))
        site.server.shutdown()
        app.go_on.set()
        assert [answer.body for answer in idle.answers()] == [b"/2"]


def test_connections_that_nobody_has_accepted_yet_are_answered(serve: Any) -> None:
    app = Blocking()
    site = serve(app)
    count = 8

    def ask(n: int) -> list[bytes]:
        with site.client() as client:
            client.send(get(f"/{n}"))
            return [answer.body for answer in client.answers()]

    with site.client() as blocker, ThreadPoolExecutor(count) as pool:
        blocker.send(get("/block"))
        assert app.blocked.wait(PATIENCE)
        asked = [pool.submit(ask, n) for n in range(count)]
        # The kernel takes the connections although the server does nothing; wait until it has them all.
        waiting_in_backlog(site, count)
        site.server.shutdown()
        app.go_on.set()
        assert [future.result(PATIENCE) for future in asked] == [[b"/%d" % n] for n in range(count)]


def waiting_in_backlog(site: Any, count: int) -> None:
    """Wait until the kernel holds that many connections that the server has not accepted."""
    limit = time.monotonic() + PATIENCE
    while _backlog(site) < count:
        assert time.monotonic() < limit, "the connections do not arrive"
        time.sleep(0.005)


def _backlog(site: Any) -> int:
    url = site.server.url
    if url.startswith("unix:"):
        path = url.removeprefix("unix:")
        with open("/proc/net/unix", encoding="utf-8") as table:
            # Connected sockets of the path that nobody has accepted are listed with it, beside the listening one.
            rows = [line.split() for line in table if line.rstrip().endswith(" " + path)]
        return sum(row[5] == "02" for row in rows)
    with open("/proc/net/tcp", encoding="ascii") as table:
        for line in table:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].partition(":")[2], 16) == site.server.port:
                return int(fields[4].partition(":")[2], 16)
    return 0


def test_idle_connections_are_closed_without_waiting(serve: Any) -> None:
    site = serve(path_app, shutdown_timeout=2 * PATIENCE, keep_alive_timeout=2 * PATIENCE)
    with site.client() as client:
        client.send(get())
        client.answer()
        started = time.monotonic()
        site.server.stop()
        assert client.rest() == b""
    assert time.monotonic() - started < PATIENCE


def test_a_connection_that_never_brought_a_request_does_not_hold_the_end_up(serve: Any) -> None:
    site = serve(path_app, shutdown_timeout=2 * PATIENCE, header_timeout=2 * PATIENCE)
    with site.client():
        started = time.monotonic()
        site.server.stop()
    assert time.monotonic() - started < PATIENCE


def test_new_connections_are_refused_while_draining(serve: Any) -> None:
    app = Held()
    site = serve(app)
    with site.client() as client:
        client.send(get("/held"))
        app.wait_until_begun()
        site.server.shutdown()
        app.open()
        client.rest()
    site.server.stop()
    with pytest.raises(OSError):
        site.client()


def test_the_wait_is_bounded_by_shutdown_timeout_and_the_application_is_cancelled(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app = Held()
    site = serve(app, shutdown_timeout=0.4)
    with site.client() as client:
        client.send(get("/held"))
        app.wait_until_begun()
        started = time.monotonic()
        site.server.stop()
        took = time.monotonic() - started
        assert 0.4 <= took < PATIENCE
        assert app.cancelled.acquire(blocking=False)
        answers = client.answers()
    assert [(answer.status, answer.closes) for answer in answers] == [(503, True)]


def test_an_answer_that_is_cut_off_at_the_end_is_visibly_broken(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    app = Held()

    async def streaming(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        await app(scope, receive, send)

    site = serve(streaming, shutdown_timeout=0.2)
    with site.client() as client:
        client.send(get())
        app.wait_until_begun()
        site.server.stop()
        data = client.rest()
    assert [(answer.body, answer.complete) for answer in read_answers(data)] == [(b"begun", False)]


def test_a_second_shutdown_ends_the_wait_at_once(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    app = Held()
    site = serve(app, shutdown_timeout=2 * PATIENCE)
    with site.client() as client:
        client.send(get("/held"))
        app.wait_until_begun()
        site.server.shutdown()
        client.send(get("/now"))
        started = time.monotonic()
        site.server.shutdown(force=True)
        site.server.stop()
        assert time.monotonic() - started < PATIENCE
        assert app.cancelled.acquire(blocking=False)


def test_a_client_that_does_not_read_does_not_hold_the_end_up(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    begun = threading.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        begun.set()
        while True:
            await send({"type": "http.response.body", "body": b"." * 100_000, "more_body": True})

    site = serve(app, shutdown_timeout=0.3, write_timeout=2 * PATIENCE)
    with site.client() as client:
        client.send(get())
        assert begun.wait(PATIENCE)
        started = time.monotonic()
        site.server.stop()
        assert time.monotonic() - started < PATIENCE
