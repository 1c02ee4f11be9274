"""One connection gets a bounded share of a turn of the loop, whatever it sends, and loses nothing by it.

What is counted here is work between two turns of the loop, so that no outcome depends on how fast the machine is.
"""

import asyncio
import itertools
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from tests.conformance.client import PATIENCE
from tests.conformance.rfc9112_support import Peer, connect, get, in_loop, parser, path_app, read_answers, reply
from tests.conformance.wires import Wire, answer

from pounce.exchange.turns import STEPS
from pounce.net.connection import LONG_READ
from pounce.testing import MemoryConnection

__all__ = ["parser"]

FEW = 32
"""Requests that one connection may have served while another waits; far fewer than are sent."""
MANY = 500


async def work_of_turns(peer: MemoryConnection, done: Callable[[], int]) -> list[int]:
    """How much more was done in each turn, from now until all that was fed has been looked at."""
    seen = [done()]
    for _ in range(20_000):
        if not peer.transport.unread and not peer.protocol.held_since:
            return [after - before for before, after in itertools.pairwise(seen)]
        await asyncio.sleep(0)
        seen.append(done())
    raise AssertionError("what was fed was not looked at")


# Every wire, over sockets


class Flooded:
    """Its first request blocks the loop until everything else has been sent."""

    def __init__(self) -> None:
        self.blocked = threading.Event()
        self.go_on = threading.Event()
        self.served = 0
        self.before_neighbour = -1

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/block":
            self.blocked.set()
            assert self.go_on.wait(PATIENCE)
        elif scope["path"] == "/neighbour":
            self.before_neighbour = self.served
        else:
            self.served += 1
        await answer(send, b"done")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_neighbour_has_its_turn_in_the_midst_of_a_flood_of_requests(wire: Wire, loop: str) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    app = Flooded()
    server = wire.start(app, loop=loop)
    neighbour, hostile = server.connect(), server.connect()
    if wire.case.transport in ("tcp", "tls"):
        # Else its kernel keeps what it asks until the one before is acknowledged.
        neighbour.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # type: ignore[attr-defined]
    assert neighbour.request("GET", "/neighbour").status == 200
    pipelines = wire.case.wire.startswith("h1")
    first = hostile.open("GET", "/block")
    assert app.blocked.wait(PATIENCE)
    try:
        if pipelines:
            count, flood = MANY, []
            hostile.sock.sendall(b"GET /flood HTTP/1.1\r\nHost: a\r\n\r\n" * count)  # type: ignore[attr-defined]
        else:
            flush, hostile.flush = hostile.flush, lambda: None  # type: ignore[attr-defined]
            flood = [hostile.open("GET", "/flood") for _ in range(90)]
            count = len(flood)
            hostile.flush = flush  # type: ignore[attr-defined]
            flush()
        asked = neighbour.open("GET", "/neighbour")
    finally:
        app.go_on.set()
    assert asked.response().status == 200
    assert app.before_neighbour <= FEW
    if pipelines:
        received = b""
        while received.count(b"\r\n\r\ndone") < count + 1:
            more = hostile.sock.recv(65536)  # type: ignore[attr-defined]
            assert more, "the server closed the connection"
            received += more
    else:
        assert [request.response().status for request in (first, *flood)] == [200] * (count + 1)
    assert app.served == count


# HTTP/1.1, in memory


@in_loop
async def test_pipelined_requests_are_served_a_few_in_each_turn(parser: str) -> None:
    served = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal served
        served += 1
        await reply(send, scope["raw_path"])

    peer = connect(app, parser)
    peer.feed(b"".join(get(f"/{number}") for number in range(MANY)))
    assert 1 < served <= 9
    assert peer.paused
    work = await work_of_turns(peer, lambda: served)
    assert max(work) <= 8
    assert not peer.paused
    assert [found.body for found in read_answers(peer.received)] == [b"/%d" % number for number in range(MANY)]


@in_loop
async def test_requests_that_wait_in_their_turn_are_answered_in_order_too(parser: str) -> None:
    """What an application does in a turn of its own and what the connection does in the next do not meet."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"].endswith("3"):
            await asyncio.sleep(0)
        await reply(send, scope["raw_path"])

    peer = connect(app, parser)
    for start in range(0, MANY, 100):
        peer.feed(b"".join(get(f"/{number}") for number in range(start, start + 100)))
    await peer.wait_until(lambda: peer.received.count(b"HTTP/1.1 200") == MANY)
    assert [found.body for found in read_answers(peer.received)] == [b"/%d" % number for number in range(MANY)]


@in_loop
async def test_slow_reader_of_many_answers_gets_all_of_them(parser: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await reply(send, scope["raw_path"] + b"." * 10_000)

    peer = connect(app, parser)
    peer.transport.stall()
    peer.feed(b"".join(get(f"/{number}") for number in range(100)))
    for _ in range(1000):
        await asyncio.sleep(0)
        assert len(peer.transport.waiting) < 200_000
        peer.transport.take(4096)
    peer.transport.unstall()
    await peer.wait_until(lambda: peer.received.count(b"HTTP/1.1 200") == 100)
    assert [found.body.rstrip(b".") for found in read_answers(peer.received)] == [b"/%d" % n for n in range(100)]


@in_loop
async def test_tiny_chunks_are_taken_a_few_in_each_turn(parser: str) -> None:
    taken = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal taken
        while (message := await receive())["more_body"]:
            taken += len(message["body"])
        await reply(send, b"%d" % (taken + len(message["body"])))

    peer = connect(app, parser)
    peer.feed(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 3000 + b"0\r\n\r\n")
    work = await work_of_turns(peer, lambda: taken)
    assert max(work) <= 2 * STEPS
    assert (await peer.answer()).body == b"3000"


@in_loop
async def test_rest_of_a_body_that_nobody_wants_is_read_a_little_in_each_turn(parser: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await reply(send, scope["raw_path"])

    peer = connect(app, parser)
    body = b"1\r\nx\r\n" * 3000 + b"0\r\n\r\n"
    peer.feed(b"POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body + get("/2"))
    assert peer.paused
    assert len(await work_of_turns(peer, lambda: 0)) >= 3000 // (2 * STEPS)
    assert [found.body for found in await peer.answers()] == [b"/1", b"/2"]


@in_loop
async def test_empty_lines_before_a_request_are_passed_over_however_many(parser: str) -> None:
    peer = connect(path_app, parser)
    peer.feed(b"\r\n" * (LONG_READ // 2 + 1) + get("/1"))
    # What a loop reads at once without end must not go on in the same turn.
    assert peer.paused
    assert (await peer.answer()).body == b"/1"
    assert not peer.paused


@in_loop
async def test_empty_lines_put_no_deadline_off(parser: str) -> None:
    peer = connect(path_app, parser)
    for _ in range(5):
        peer.feed(b"\r\n" * (LONG_READ // 2 + 1))
        peer.after(10.1)
        if peer.ended:
            break
        await peer.until_read()
    assert peer.ended


@in_loop
async def test_end_of_the_clients_half_is_met_behind_what_it_sent(parser: str) -> None:
    peer = connect(path_app, parser)
    peer.feed(b"".join(get(f"/{number}") for number in range(MANY)))
    peer.feed_eof()
    await peer.wait_until(lambda: peer.ended)
    assert [found.body for found in read_answers(peer.received)] == [b"/%d" % number for number in range(MANY)]


@in_loop
async def test_end_of_tls_gives_what_waits_one_more_share(parser: str) -> None:
    """asyncio's TLS ends when the peer has ended it; what can be answered by then is."""
    peer = connect(path_app, parser)
    peer.protocol.connection.tls = {}
    peer.feed(b"".join(get(f"/{number}") for number in range(30)))
    assert peer.received.count(b"HTTP/1.1 200") < 30
    peer.feed_eof()
    assert peer.received.count(b"HTTP/1.1 200") == 30
    peer.feed(b"never")
    await peer.settle()
    assert peer.closed


@in_loop
async def test_connection_that_is_lost_while_requests_wait_leaves_nothing_behind(parser: str) -> None:
    served = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal served
        served += 1
        await reply(send)

    peer = connect(app, parser)
    peer.feed(get() * MANY)
    before = served
    peer.lose()
    await peer.settle()
    assert served == before
    assert peer.closed and not peer.service.connections and not peer.service.tasks


@in_loop
async def test_deadline_stands_still_while_pieces_of_a_body_wait_here(parser: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass
        await reply(send)

    peer = connect(app, parser, request_timeout=30, min_body_rate=0)
    peer.feed(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 3000)
    assert peer.protocol.held_since
    peer.after(10_000)
    assert peer.received == b""
    await peer.until_read()
    peer.after(29)
    await peer.settle()
    assert peer.received == b""
    peer.after(31)
    assert (await peer.answer()).status == 408


@in_loop
async def test_time_in_which_bytes_waited_here_is_given_back(parser: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass
        await reply(send)

    peer = connect(app, parser, request_timeout=1000, min_body_rate=100)
    clock = peer.service.loop.time
    peer.feed(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 300)
    assert peer.protocol.held_since
    # The worker was busy with others for a minute.
    monkeypatch.setattr(peer.service.loop, "time", lambda: clock() + 60)
    await peer.until_read()
    # 5 seconds, and a second for each 100 bytes.
    assert peer.protocol.deadline == pytest.approx(clock() + 60 + 5 + 3, abs=4)


@in_loop
async def test_drain_answers_the_requests_that_wait(parser: str) -> None:
    peer = connect(path_app, parser)
    peer.feed(b"".join(get(f"/{number}") for number in range(100)))
    peer.service.draining = True
    peer.protocol.drain()
    peer.after(5)
    await peer.wait_until(lambda: peer.ended)
    answers = read_answers(peer.received)
    assert [found.body for found in answers] == [b"/%d" % number for number in range(100)]
    assert answers[-1].closes


@in_loop
async def test_reading_goes_on_when_application_and_turn_both_allow_it(parser: str) -> None:
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go_on.wait()
        size, more = 0, True
        while more:
            message = await receive()
            size += len(message["body"])
            more = message["more_body"]
        await reply(send, b"%d" % size)

    peer = connect(app, parser)
    chunk = b"100\r\n" + bytes(256) + b"\r\n"
    peer.feed(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 600)
    assert peer.protocol.held_since
    await peer.wait_until(lambda: not peer.protocol.held_since)
    assert peer.paused
    go_on.set()
    await peer.wait_until(lambda: not peer.paused)
    peer.feed(b"0\r\n\r\n")
    assert (await peer.answer()).body == b"153600"


@in_loop
async def test_of_many_busy_connections_one_goes_on_in_each_turn(parser: str) -> None:
    served = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal served
        served += 1
        await reply(send)

    first = connect(app, parser)
    peers = [first, *(_beside(first) for _ in range(9))]
    for peer in peers:
        peer.feed(get() * 100)
    turns = []
    while any(peer.protocol.held_since for peer in peers):
        before = served
        await asyncio.sleep(0)
        turns.append(served - before)
    assert max(turns) <= 8
    assert served == 1000


@in_loop
async def test_busy_connections_take_turns(parser: str) -> None:
    served: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        served.append(scope["raw_path"])
        await reply(send)

    first = connect(app, parser)
    second = _beside(first)
    first.feed(get("/1") * 100)
    second.feed(get("/2") * 100)
    await first.until_read()
    await second.until_read()
    half = served[:100]
    assert abs(half.count(b"/1") - half.count(b"/2")) <= 16


def _beside(peer: Peer) -> MemoryConnection:
    """Another connection of the same worker."""
    return MemoryConnection(service=peer.service)


@in_loop
async def test_client_that_sends_one_request_after_the_other_never_waits(
    parser: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = connect(path_app, parser)
    later: list[Any] = []
    with monkeypatch.context() as patched:
        patched.setattr(peer.service.loop, "call_soon", lambda *args, **named: later.append(args))
        for number in range(1000):
            peer.feed(get(f"/{number}"))
    assert peer.received.count(b"HTTP/1.1 200") == 1000
    assert not later


@in_loop
async def test_application_that_streams_without_end_leaves_others_their_turn(parser: str) -> None:
    sent = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200})
        while True:
            await send({"type": "http.response.body", "body": b".", "more_body": True})
            sent += 1

    peer = connect(app, parser)
    peer.feed(get())
    turns = []
    for _ in range(50):
        before = sent
        await asyncio.sleep(0)
        turns.append(sent - before)
    assert 0 < max(turns) <= STEPS + 16
    assert sent > STEPS
    peer.lose()
    await peer.wait_until(lambda: not peer.service.tasks)
