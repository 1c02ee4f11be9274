"""RFC 9112 9.6: however the server ends a connection, its last answer arrives, and what follows is an end, not a reset.

The clients here send on when they should not, at moments spread over those in which the server closes.
"""

import asyncio
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.conformance.rfc9112_support import (
    Receive,
    Send,
    connect,
    get,
    in_loop,
    parser,
    path_app,
    read_answers,
    reply,
    serve,
    socket_kind,
)

from pounce.h1.connection import IDLE_LINGER

__all__ = ["parser", "serve", "socket_kind"]

TRIES = 40
LARGE = b"." * 300_000


async def app(scope: Any, receive: Receive, send: Send) -> None:
    """Ends the connection with its answer, which is large for /large."""
    body = LARGE if scope["path"] == "/large" else b"small"
    await reply(send, body, headers=[] if scope["path"] == "/" else [(b"connection", b"close")])


def spin(seconds: float) -> None:
    """Wait for less than a timer can."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def send_on(site: Any, path: str) -> str:
    """One connection: its first request, further ones that come too late, and what became of it in a word."""
    with site.client() as client:
        client.send(get(path))
        try:
            for _ in range(3):
                spin(random.random() * 0.0005)
                client.send(get(path))
            data = client.rest()
        except OSError as exc:
            return type(exc).__name__
    answers = read_answers(data)
    body = LARGE if path == "/large" else b"small"
    return "answered" if [(each.complete, each.body) for each in answers] == [(True, body)] else f"{len(data)} bytes"


@pytest.mark.parametrize(
    ("path", "settings"),
    [("/", {"max_requests_per_connection": 1}), ("/close", {}), ("/large", {})],
    ids=["max requests", "application closes", "large answer"],
)
def test_requests_that_cross_with_the_end_do_not_destroy_the_last_answer(
    serve: Any, path: str, settings: dict[str, Any]
) -> None:
    site = serve(app, **settings)
    with ThreadPoolExecutor(4) as pool:
        ends = list(pool.map(lambda _: send_on(site, path), range(TRIES)))
    assert set(ends) == {"answered"}


class Busy(threading.Thread):
    """A client that asks once, and from `go` on again as soon as it is answered, until the server ends the
    connection."""

    def __init__(self, site: Any, go: threading.Event) -> None:
        super().__init__()
        self.site, self.go = site, go
        self.answered = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            with self.site.client() as client:
                client.send(get("/"))
                closes = client.answer().closes
                self.answered.set()
                self.go.wait(60)
                while not closes:
                    client.send(get("/"))
                    closes = client.answer().closes
                assert client.rest() == b""
        except EOFError as exc:
            # It was slower to ask than an idle connection is kept; the end must have come before any of an answer.
            self.error = None if str(exc).endswith(" b''") else exc
        except BaseException as exc:
            self.error = exc


def test_clients_that_ask_on_during_a_drain_meet_no_reset_and_no_half_answer(serve: Any) -> None:
    for _ in range(2):
        site = serve(path_app)
        go = threading.Event()
        clients = [Busy(site, go) for _ in range(8)]
        for client in clients:
            client.start()
        for client in clients:
            assert client.answered.wait(60)
        go.set()
        site.server.stop()
        for client in clients:
            client.join()
        assert [client.error for client in clients if client.error] == []


@pytest.mark.parametrize("force", [False, True], ids=["time is over", "at once"])
def test_nothing_is_begun_behind_a_request_that_the_end_of_a_drain_has_cancelled(serve: Any, force: bool) -> None:
    begun: list[str] = []
    running = threading.Event()

    async def slow(scope: Any, receive: Receive, send: Send) -> None:
        begun.append(scope["path"])
        running.set()
        await asyncio.sleep(600)

    site = serve(slow, lifespan="off", shutdown_timeout=60.0 if force else 0.05)
    with site.client() as client:
        client.send(b"".join(get(f"/{number}") for number in range(4)))
        assert running.wait(60)
        site.server.shutdown(force=force)
        answers = read_answers(client.rest())
        site.server.stop()
    assert [(answer.status, answer.closes) for answer in answers] == [(503, True)]
    assert begun == ["/0"]


class Late(threading.Thread):
    """A client that asks once, then again `pause` after the server has begun to drain."""

    def __init__(self, site: Any, drain: threading.Event, pause: float) -> None:
        super().__init__()
        self.site, self.drain, self.pause = site, drain, pause
        self.answered = threading.Event()
        self.outcome = ""

    def run(self) -> None:
        with self.site.client() as client:
            client.send(get("/1"))
            client.answer()
            self.answered.set()
            self.drain.wait(60)
            time.sleep(self.pause)
            try:
                client.send(get("/2"))
                answers = read_answers(client.rest())
            except OSError as exc:
                self.outcome = type(exc).__name__
                return
            whole = [(answer.body, answer.closes) for answer in answers] == [(b"/2", True)]
            self.outcome = "answered" if whole else "ended" if not answers else "broken"


def test_a_request_that_crosses_with_the_end_of_an_idle_connection_is_answered(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pounce.h1.connection.DRAIN_GRACE", 60.0)
    site = serve(path_app, keep_alive_timeout=120, shutdown_timeout=120)
    drain = threading.Event()
    clients = [Late(site, drain, n * 0.01) for n in range(40)]
    for client in clients:
        client.start()
    for client in clients:
        assert client.answered.wait(60)
    site.server.shutdown()
    drain.set()
    for client in clients:
        client.join()
    site.server.stop()
    assert {client.outcome for client in clients} == {"answered"}


def test_a_client_that_keeps_its_half_open_is_waited_for_no_longer_than_the_bound(serve: Any) -> None:
    site = serve(app)
    with site.client() as client:
        client.send(get("/close"))
        assert [answer.body for answer in client.answers()] == [b"small"]
        began = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() < began + 60:
                client.sock.send(b"x")
                time.sleep(0.01)
        assert time.monotonic() - began < 60


# In memory


@in_loop
async def test_an_idle_connection_that_is_ended_is_read_for_a_moment(parser: str) -> None:
    peer = connect(path_app, parser, keep_alive_timeout=5.0)
    peer.feed(get("/1"))
    peer.after(5.1)
    await peer.settle()
    assert (peer.ended, peer.closed) == (True, False)
    peer.feed(get("/2"))
    peer.after(IDLE_LINGER + 0.1)
    await peer.settle()
    assert peer.closed
    assert [answer.body for answer in await peer.answers()] == [b"/1"]


@in_loop
async def test_a_client_that_asked_for_the_end_is_not_waited_for(parser: str) -> None:
    peer = connect(path_app, parser)
    peer.feed(get("/1", "Connection: close"))
    await peer.settle()
    assert peer.closed


@in_loop
async def test_a_client_that_ends_its_half_too_is_waited_for_no_longer(parser: str) -> None:
    peer = connect(path_app, parser, max_requests_per_connection=1)
    peer.feed(get("/1"))
    await peer.settle()
    assert not peer.closed
    peer.feed_eof()
    await peer.settle()
    assert peer.closed


@in_loop
async def test_a_last_answer_that_nobody_takes_does_not_keep_the_connection(parser: str) -> None:
    peer = connect(app, parser, write_timeout=30.0)
    peer.transport.stall()
    peer.feed(get("/large"))
    await peer.settle()
    for seconds in (31.0, 62.0, 93.0):
        peer.after(seconds)
        await peer.settle()
    assert peer.closed


def test_sockets_are_all_closed_when_clients_have_sent_on(serve: Any) -> None:
    site = serve(app)
    before = open_sockets()
    assert [send_on(site, "/close") for _ in range(20)] == ["answered"] * 20
    until = time.monotonic() + 60
    while open_sockets() > before:
        assert time.monotonic() < until, "sockets stay open"
        time.sleep(0.05)


def open_sockets() -> int:
    count = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
        except OSError:
            pass
    return count
