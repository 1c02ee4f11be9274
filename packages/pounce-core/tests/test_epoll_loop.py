"""The server's own loop: asyncio's contract where it differs from asyncio, and connections that are read directly."""

import asyncio
import contextvars
import errno
import importlib.util
import os
import select
import signal
import socket
import sys
import threading
import unittest
from collections.abc import Iterator
from contextlib import ExitStack
from math import inf
from pathlib import Path
from typing import Any

import pytest

from pounce.h1.connection import BODY, DONE, IDLE, H1Connection
from pounce.net.body_connection import BUFFER_HIGH
from pounce.net.connection import RECV_MAX, Connection
from pounce.testing.memory import memory_service
from pounce.worker.loop import HAS_OWN

if not HAS_OWN:
    pytest.skip("this system has no epoll", allow_module_level=True)

from pounce.net.epoll_loop import BATCH, EpollLoop

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(params=[False, True], ids=["normal", "debug"])
def loop(request: pytest.FixtureRequest) -> Iterator[EpollLoop]:
    made = EpollLoop()
    made.set_debug(request.param)
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(60)
    with ours, theirs:
        yield ours, theirs


def test_callbacks_run_in_the_order_in_which_they_were_asked_for(loop: EpollLoop) -> None:
    seen: list[int] = []
    for number in range(5):
        loop.call_soon(seen.append, number)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == [0, 1, 2, 3, 4]


def test_what_a_callback_asks_for_waits_for_the_next_turn(loop: EpollLoop) -> None:
    seen: list[str] = []
    loop.call_soon(lambda: loop.call_soon(seen.append, "later"))
    loop.call_soon(seen.append, "now")
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == ["now"]


def test_cancelled_callback_is_not_called(loop: EpollLoop) -> None:
    seen: list[int] = []
    loop.call_soon(seen.append, 1).cancel()
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == []


def test_callback_runs_in_the_context_that_it_was_given(loop: EpollLoop) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
    context = contextvars.copy_context()
    context.run(variable.set, 7)
    seen: list[int] = []
    loop.call_soon(lambda: seen.append(variable.get()), context=context)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == [7]


def test_callback_that_raises_is_reported_and_the_loop_goes_on(loop: EpollLoop) -> None:
    reported: list[Any] = []
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    error = ValueError("its own")

    def fail() -> None:
        raise error

    loop.call_soon(fail)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert reported == [error]


def test_timers_come_in_the_order_of_their_times(loop: EpollLoop) -> None:
    seen: list[str] = []
    now = loop.time()
    loop.call_at(now + 0.002, seen.append, "second")
    loop.call_at(now + 0.001, seen.append, "first")
    loop.call_at(now + 0.003, loop.stop)
    loop.run_forever()
    assert seen == ["first", "second"]


def test_many_cancelled_timers_are_forgotten_before_their_time(loop: EpollLoop) -> None:
    for _ in range(300):
        loop.call_later(3600, print).cancel()
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert not loop._scheduled


def test_another_thread_wakes_the_loop(loop: EpollLoop) -> None:
    thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(loop.stop))
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join()


def test_signal_is_handled_on_the_loop(loop: EpollLoop) -> None:
    loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
    loop.run_forever()
    assert loop.remove_signal_handler(signal.SIGUSR1)


def test_subprocess_is_run_and_its_end_seen(loop: EpollLoop) -> None:
    async def run() -> bytes:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(sys.executable, "-Sc", "print(7)", stdout=pipe)
        return (await process.communicate())[0]

    assert loop.run_until_complete(run()) == b"7\n"


def test_callback_on_a_closed_loop_is_refused() -> None:
    closed = EpollLoop()
    closed.close()
    with pytest.raises(RuntimeError, match="closed"):
        closed.call_soon(print)


def test_direct_reader_is_called_while_there_is_something_to_read(
    loop: EpollLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    seen: list[bytes] = []

    def read() -> None:
        seen.append(ours.recv(1))
        if len(seen) == 3:
            loop.stop()

    loop.read_directly(ours.fileno(), read)
    theirs.send(b"abc")
    loop.run_forever()
    assert seen == [b"a", b"b", b"c"]


def test_reader_that_a_callback_of_the_same_turn_takes_away_is_not_called(
    loop: EpollLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    seen: list[bytes] = []
    loop.read_directly(ours.fileno(), lambda: seen.append(ours.recv(1)))
    theirs.send(b"a")
    loop.call_soon(loop.stop_reading, ours.fileno())
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == []


def test_reader_of_asyncio_takes_the_place_of_a_direct_one(
    loop: EpollLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    loop.read_directly(ours.fileno(), pytest.fail)
    loop.add_reader(ours, loop.stop)
    theirs.send(b"a")
    loop.run_forever()
    assert loop.remove_reader(ours)


def test_direct_reader_and_a_writer_share_a_descriptor(
    loop: EpollLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    seen: list[object] = []

    def write() -> None:
        seen.append("written")
        loop.remove_writer(ours)
        theirs.send(b"a")

    def read() -> None:
        seen.append(ours.recv(1))
        loop.stop()

    loop.read_directly(ours.fileno(), read)
    loop.add_writer(ours, write)
    loop.run_forever()
    assert seen == ["written", b"a"]


def test_whoever_waits_for_a_single_reader_goes_on_before_the_loop_looks_for_more(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    loop = EpollLoop()
    ours, theirs = pair
    came = loop.create_future()
    looks = 0
    poll = loop._poll

    def counted(wait: float, most: int) -> Any:
        nonlocal looks
        looks += 1
        return poll(wait, most)

    def read() -> None:
        came.set_result((ours.recv(100), looks))

    async def wait() -> tuple[bytes, int, int]:
        await asyncio.sleep(0)
        theirs.send(b"a")
        data, then = await came
        return data, then, looks

    loop._poll = counted
    loop.read_directly(ours.fileno(), read)
    data, then, after = loop.run_until_complete(wait())
    loop.close()
    assert (data, after - then) == (b"a", 0)


@pytest.mark.parametrize("count", [1, 3])
def test_timer_is_not_put_off_by_what_there_always_is_to_read(loop: EpollLoop, count: int) -> None:
    given_up = loop.time() + 60.0
    seen: list[str] = []

    def read() -> None:
        if loop.time() > given_up:
            loop.stop()

    def due(name: str) -> None:
        seen.append(name)
        if len(seen) == 3:
            loop.stop()

    with ExitStack() as stack:
        for _ in range(count):
            ours, theirs = map(stack.enter_context, socket.socketpair())
            theirs.send(b"a")
            loop.read_directly(ours.fileno(), read)
        for after, name in ((0.09, "third"), (0.03, "first"), (0.06, "second")):
            loop.call_later(after, due, name)
        loop.run_forever()
    assert seen == ["first", "second", "third"]


def test_timer_that_is_made_while_the_loop_waits_for_a_later_one_comes_first(
    loop: EpollLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    seen: list[str] = []

    def read() -> None:
        seen.append(ours.recv(1).decode())
        if len(seen) < 4:
            # By then the loop waits for the other one.
            theirs.send(b"r")
        else:
            loop.call_later(0.01, due, "early")

    def due(name: str) -> None:
        seen.append(name)
        loop.stop()

    loop.read_directly(ours.fileno(), read)
    theirs.send(b"r")
    late = loop.call_later(60.0, due, "late")
    loop.run_forever()
    late.cancel()
    assert seen == ["r", "r", "r", "r", "early"]


def test_timer_behind_one_that_was_cancelled_while_the_loop_waited_for_it_comes_in_time(
    loop: EpollLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    seen: list[str] = []

    def read() -> None:
        seen.append(ours.recv(1).decode())
        if len(seen) < 4:
            theirs.send(b"r")
        else:
            cancelled.cancel()

    def due() -> None:
        seen.append("due")
        loop.stop()

    loop.read_directly(ours.fileno(), read)
    theirs.send(b"r")
    cancelled = loop.call_later(0.05, pytest.fail)
    loop.call_later(0.1, due)
    loop.run_forever()
    assert seen == ["r", "r", "r", "r", "due"]


def test_timer_comes_after_debug_mode_was_switched_on_and_off_while_the_loop_waited_for_it(
    loop: EpollLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    debug = [True, False]

    def read() -> None:
        ours.recv(1)
        if len(debug) == 1:
            # It expires while nobody looks for it.
            while loop.time() < due:
                pass
        if debug:
            loop.set_debug(debug.pop(0))
            theirs.send(b"rr")

    loop.read_directly(ours.fileno(), read)
    theirs.send(b"rrr")
    due = loop.time() + 0.05
    loop.call_at(due, loop.stop)
    loop.run_forever()
    assert not debug


def test_loop_that_is_closed_leaves_no_descriptor() -> None:
    before = set(os.listdir("/proc/self/fd"))
    made = EpollLoop()
    made.run_until_complete(asyncio.sleep(0.002))
    made.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_loop_runs_where_the_kernel_has_no_timer_left_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object, **__: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "timerfd_create", none)
    made = EpollLoop()
    ours, theirs = socket.socketpair()
    theirs.send(b"a")
    made.read_directly(ours.fileno(), lambda: None)
    made.call_later(0.01, made.stop)
    made.run_forever()
    made.close()
    ours.close()
    theirs.close()


def test_nothing_runs_once_a_reader_has_stopped_the_loop(
    loop: EpollLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    seen: list[str] = []

    def read() -> None:
        loop.call_soon(seen.append, "later")
        loop.stop()

    loop.read_directly(ours.fileno(), read)
    theirs.send(b"a")
    loop.run_forever()
    assert seen == []
    ours.recv(100)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == ["later"]


def test_no_more_than_a_batch_of_readers_is_called_in_one_turn(loop: EpollLoop) -> None:
    pairs = [socket.socketpair() for _ in range(BATCH + 5)]
    seen: list[int] = []
    for ours, theirs in pairs:
        loop.read_directly(ours.fileno(), lambda ours=ours: seen.append(len(ours.recv(1))))  # type: ignore[misc]
        theirs.send(b"x")
    loop.call_soon(loop.stop)
    loop.run_forever()
    for ours, theirs in pairs:
        ours.close()
        theirs.close()
    assert len(seen) == BATCH


# Connections


async def hello(scope: Any, receive: Any, send: Any) -> None:
    while (await receive())["more_body"]:
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"Hello"})


def connected(loop: EpollLoop, ours: socket.socket, app: Any = hello, **settings: Any) -> H1Connection:
    """An HTTP/1.1 connection on the loop."""

    async def connect() -> H1Connection:
        service = memory_service(app, **settings)
        _, protocol = await loop.connect_accepted_socket(lambda: H1Connection(service), ours)
        return protocol

    return loop.run_until_complete(connect())


def run_until(loop: EpollLoop, true: Any) -> None:
    async def wait() -> None:
        async with asyncio.timeout(30):
            while not true():
                await asyncio.sleep(0)

    loop.run_until_complete(wait())


def readable(sock: socket.socket) -> bool:
    return bool(select.select([sock], [], [], 0)[0])


def test_connection_is_read_past_its_transport(loop: EpollLoop, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    connection = connected(loop, ours)
    assert not connection.transport.is_reading()
    theirs.send(REQUEST)
    run_until(loop, lambda: readable(theirs))
    assert theirs.recv(4096).endswith(b"Hello")
    connection.abort()
    run_until(loop, lambda: not connection.service.connections)


def test_end_of_the_peer_ends_an_idle_connection(loop: EpollLoop, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    connection = connected(loop, ours)
    theirs.close()
    run_until(loop, lambda: not connection.service.connections)
    assert connection.transport.is_closing()


def test_answer_follows_the_end_of_the_peers_half(loop: EpollLoop, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    go_on = asyncio.Event()

    async def waits(scope: Any, receive: Any, send: Any) -> None:
        await go_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"Hello"})

    connection = connected(loop, ours, waits)
    theirs.send(REQUEST)
    theirs.shutdown(socket.SHUT_WR)
    run_until(loop, lambda: connection._ended_by_peer)
    go_on.set()
    run_until(loop, lambda: not connection.service.connections)
    assert theirs.recv(4096).endswith(b"Hello")


def test_reset_by_the_peer_ends_the_connection(loop: EpollLoop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    ours.setblocking(False)
    connection = connected(loop, ours)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    theirs.close()
    run_until(loop, lambda: not connection.service.connections)
    assert connection.transport.is_closing()


def test_body_that_nobody_takes_is_left_in_the_socket(
    loop: EpollLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    go_on = asyncio.Event()
    size = 4_000_000

    async def late(scope: Any, receive: Any, send: Any) -> None:
        await go_on.wait()
        await hello(scope, receive, send)

    connection = connected(loop, ours, late, max_request_size=0)
    sender = threading.Thread(
        target=theirs.sendall, args=(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + bytes(size),)
    )
    sender.start()
    run_until(loop, lambda: connection._paused)
    held = connection._unconsumed
    go_on.set()
    run_until(loop, lambda: readable(theirs))
    sender.join()
    assert theirs.recv(4096).endswith(b"Hello")
    assert held < 300_000
    connection.abort()
    run_until(loop, lambda: not connection.service.connections)


def test_connection_whose_reading_fails_costs_itself_and_is_reported(
    loop: EpollLoop, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pair
    connection = connected(loop, ours)
    reported: list[Any] = []
    loop.set_exception_handler(lambda _, context: reported.append((context["protocol"], str(context["exception"]))))

    def fail(data: bytes) -> None:
        raise ValueError("broken")

    monkeypatch.setattr(connection.parser.__class__, "receive_data", lambda self, data: fail(data))
    theirs.send(REQUEST)
    run_until(loop, lambda: not connection.service.connections)
    assert reported == [(connection, "broken")]


# Long bodies

LONG = 1_000_000


def upload(sock: socket.socket, size: int = LONG) -> threading.Thread:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size
    thread = threading.Thread(target=sock.sendall, args=(head + bytes(size),))
    thread.start()
    return thread


class Takes:
    """Takes bodies when it may, and answers with their sizes."""

    def __init__(self, go: bool) -> None:
        self.go = asyncio.Event()
        if go:
            self.go.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.go.wait()
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"%d" % size})


def test_body_of_which_the_application_takes_each_piece_is_never_held_up(
    loop: EpollLoop, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pair
    connection = connected(loop, ours, Takes(True))
    paused: list[object] = []
    monkeypatch.setattr(H1Connection, "pause_reading", paused.append)
    thread = upload(theirs)
    run_until(loop, lambda: readable(theirs))
    thread.join()
    assert theirs.recv(4096).endswith(b"\r\n%d" % LONG)
    assert not paused
    connection.abort()
    run_until(loop, lambda: not connection.service.connections)


def test_body_that_nobody_takes_is_read_up_to_a_bound_and_goes_on_when_somebody_does(
    loop: EpollLoop, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pair
    app = Takes(False)
    connection = connected(loop, ours, app)
    paused: list[int] = []

    def pause(connection: H1Connection) -> None:
        paused.append(connection.buffered)
        Connection.pause_reading(connection)

    monkeypatch.setattr(H1Connection, "pause_reading", pause)
    thread = upload(theirs)
    run_until(loop, lambda: bool(paused))
    assert BUFFER_HIGH < paused[0] <= BUFFER_HIGH + RECV_MAX
    app.go.set()
    run_until(loop, lambda: readable(theirs))
    thread.join()
    assert theirs.recv(4096).endswith(b"\r\n%d" % LONG)
    connection.abort()
    run_until(loop, lambda: not connection.service.connections)


def test_body_that_was_left_alone_is_not_in_the_way_of_the_next_request(
    loop: EpollLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    go = asyncio.Event()

    async def leaves_alone(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"Hello"})

    connection = connected(loop, ours, leaves_alone)
    thread = upload(theirs, BUFFER_HIGH * 3 // 2)
    run_until(loop, lambda: connection.reading == DONE)
    thread.join()
    go.set()
    for _ in range(2):
        run_until(loop, lambda: readable(theirs))
        assert theirs.recv(4096).startswith(b"HTTP/1.1 200")
        theirs.send(REQUEST)
    connection.abort()
    run_until(loop, lambda: not connection.service.connections)


def test_end_of_the_peer_is_met_by_a_request_that_follows_a_body_that_was_left_alone(
    loop: EpollLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    told: list[str] = []
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "POST":
            await go.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"Hello"})
        else:
            while not told or told[-1] != "http.disconnect":
                told.append((await receive())["type"])

    connection = connected(loop, ours, app)
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (BUFFER_HIGH + 2000)
    theirs.sendall(head + bytes(BUFFER_HIGH))
    run_until(loop, lambda: connection.reading == BODY and not readable(ours))
    theirs.sendall(bytes(2000) + REQUEST)
    run_until(loop, lambda: connection.reading == DONE)
    go.set()
    run_until(loop, lambda: bool(told))
    theirs.close()
    run_until(loop, lambda: "http.disconnect" in told)
    run_until(loop, lambda: not connection.service.connections)


# Files, of which the peer takes so little that the loop sends them

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"
FILE_SIZE = 3_000_000


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "file"
    file.write_bytes(b"f" * FILE_SIZE)
    return str(file)


def sends_file(path: str) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/":
            await send({"type": "http.response.pathsend", "path": path})
        else:
            await send({"type": "http.response.body", "body": b"Hello"})

    return app


def read_to_end(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(1_000_000), b""))


def test_descriptor_of_a_connection_that_was_broken_off_in_a_file_serves_the_next_one(
    loop: EpollLoop, pair: tuple[socket.socket, socket.socket], path: str
) -> None:
    ours, theirs = pair
    number = ours.fileno()
    connection = connected(loop, ours, sends_file(path))
    theirs.send(REQUEST)
    run_until(loop, lambda: readable(theirs) and not connection.writable)
    connection.abort()
    run_until(loop, lambda: not connection.service.connections)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        if ours.fileno() != number:
            os.dup2(ours.fileno(), number)
            ours = socket.socket(fileno=number)
        with ours:
            second = connected(loop, ours, sends_file(path))
            theirs.send(REQUEST.replace(b"/", b"/hello", 1))
            run_until(loop, lambda: readable(theirs))
            assert theirs.recv(4096).endswith(b"Hello")
            second.abort()
            run_until(loop, lambda: not second.service.connections)


def test_body_that_is_not_read_while_a_file_leaves_is_not_overdue(
    loop: EpollLoop, pair: tuple[socket.socket, socket.socket], path: str
) -> None:
    ours, theirs = pair
    connection = connected(loop, ours, sends_file(path))
    theirs.send(POST + b"bo")
    run_until(loop, lambda: readable(theirs) and not connection.writable)
    theirs.send(b"dy")
    deadline = connection.deadline
    thread_read: list[bytes] = []
    reader = threading.Thread(target=lambda: thread_read.append(read_to_end(theirs)))
    reader.start()
    run_until(loop, lambda: connection.reading == IDLE)
    theirs.shutdown(socket.SHUT_WR)
    run_until(loop, lambda: not connection.service.connections)
    reader.join()
    assert deadline == inf
    assert thread_read[0].endswith(b"f" * FILE_SIZE)


def test_piece_that_does_not_wait_for_the_file_before_it_breaks_the_answer_off(
    loop: EpollLoop, pair: tuple[socket.socket, socket.socket], path: str
) -> None:
    """It must not come to stand in the midst of the file."""
    ours, theirs = pair

    async def hasty(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with open(path, "rb") as file:
            part = {"type": "http.response.zerocopysend", "file": file, "more_body": True}
            piece = {"type": "http.response.body", "body": b"piece"}
            await asyncio.gather(send(part), send(piece), return_exceptions=True)

    connection = connected(loop, ours, hasty)
    theirs.send(REQUEST)
    run_until(loop, lambda: not connection.service.connections)
    head, _, body = read_to_end(theirs).partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    assert set(body.partition(b"\r\n")[2]) == set(b"f")


@pytest.mark.soak
@pytest.mark.parametrize("module", ["test_sock_lowlevel", "test_server", "test_sendfile", "test_streams"])
def test_loop_passes_the_tests_of_asyncio(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("test") is None or importlib.util.find_spec("test.test_asyncio") is None:
        pytest.skip("this interpreter has no tests")

    class Loop(EpollLoop):
        def __init__(self, selector: Any = None) -> None:
            if selector is not None:
                selector.close()
            super().__init__()

    monkeypatch.setattr(asyncio, "SelectorEventLoop", Loop)
    monkeypatch.setattr(asyncio, "EventLoop", Loop)
    suite = unittest.defaultTestLoader.loadTestsFromName(f"test.test_asyncio.{module}")
    result = unittest.TextTestRunner(verbosity=0).run(suite)
    assert result.wasSuccessful()
