"""HttpExchange against a stream that records: what a wire is told, and what is left behind."""

import asyncio
import gc
import os
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from pounce import AppError, BadRequest, ClientGone
from pounce.contract.head import RequestHead
from pounce.contract.stream import FileRange
from pounce.exchange.http import HttpExchange
from pounce.exchange.service import Service
from pounce.plugin import API_VERSION, Plugin, Responder, Response, Upgrade
from pounce.registry import Registry
from pounce.testing import MemoryConnection, RecordingStream
from pounce.testing.memory import memory_service, observe

START = {"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"1")]}


def body(data: bytes = b"", more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def head(method: bytes = b"GET", length: int | None = 0, **more: Any) -> RequestHead:
    return RequestHead(method, b"/", [(b"host", b"example.org")], "1.1", content_length=length, **more)


class Opened:
    """A request that was opened on a recording stream."""

    def __init__(self, service: Service, stream: RecordingStream, request: RequestHead) -> None:
        self.service = service
        self.stream = stream
        self.exchange = service.open(request, stream)

    async def settle(self, turns: int = 20) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)


def opened(app: Any, request: RequestHead | None = None, *, stream: Any = None, **settings: Any) -> Opened:
    settings = {"server_header": "", "date_header": False} | settings
    return Opened(memory_service(app, **settings), stream or RecordingStream(), request or head())


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))  # type: ignore[arg-type]


def test_application_that_need_not_wait_has_answered_when_open_returns() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(START)
        await send(body(b"at once"))

    async def test() -> None:
        request = opened(app)
        assert (request.stream.status, request.stream.body, request.stream.ended) == (200, b"at once", True)
        assert not request.service.tasks

    run(test)


def test_observer_finds_no_fields_of_an_answer_that_never_began() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()

    async def test() -> None:
        request = opened(app, head(b"POST", 5))
        found: list[Any] = []

        class Observer:
            def completed(self, exchange: Any) -> None:
                found.append((exchange.status, exchange.answer_fields))

        observe(request.service, Observer())
        request.exchange.stream_lost(None)
        assert found == [(0, [])]
        await request.settle()

    run(test)


def test_file_without_a_head_before_it_is_out_of_order(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"of a file")
    raised: list[AppError] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with path.open("rb") as file, pytest.raises(AppError) as caught:
            await send({"type": "http.response.zerocopysend", "file": file})
        raised.append(caught.value)

    async def test() -> None:
        request = opened(app)
        while request.service.tasks:
            await asyncio.wait(request.service.tasks)
        assert [error.code for error in raised] == ["POUNCE_APP_BAD_MESSAGE"]

    run(test)


def test_head_is_held_until_the_first_piece_of_the_body() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await receive()
        await receive()

    async def test() -> None:
        request = opened(app)
        await request.settle()
        assert request.stream.status is None
        request.service.tick(0.0)
        assert (request.stream.status, request.stream.pieces, request.stream.ended) == (200, [b""], False)
        request.service.tick(0.0)
        assert request.stream.pieces == [b""]
        request.exchange.stream_lost(None)
        await request.settle()

    run(test)


def test_one_piece_is_one_call_of_the_stream() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(body(b"whole"))

    async def test() -> None:
        assert opened(app).stream.pieces == [b"whole"]

    run(test)


def test_head_leaves_within_a_quarter_of_a_second() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await asyncio.Event().wait()

    async def test() -> None:
        connection = MemoryConnection(app)
        connection.feed(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await connection.settle()
        assert connection.received == b""
        connection.after(0.25)
        assert connection.received.startswith(b"HTTP/1.1 200 OK\r\n")
        connection.lose()
        for task in connection.service.tasks:
            task.cancel()
        await connection.settle()

    run(test)


def test_body_that_the_application_takes_is_reported_to_the_stream() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await receive()
        await send(START)
        await send(body())

    async def test() -> None:
        request = opened(app, head(b"POST", None))
        request.exchange.data_received(b"12345")
        await request.settle()
        assert request.stream.consumed_bytes == 5
        request.exchange.data_received(b"678")
        request.exchange.eof_received()
        await request.settle()
        assert request.stream.consumed_bytes == 8

    run(test)


def test_body_that_comes_after_the_answer_is_consumed_unseen() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(body(b"early"))

    async def test() -> None:
        request = opened(app, head(b"POST", None))
        request.exchange.data_received(b"12345")
        assert request.stream.consumed_bytes == 5

    run(test)


def test_pieces_that_wait_are_given_out_as_one() -> None:
    received: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        received.append(await receive())
        await send(START)
        await send(body())

    async def test() -> None:
        request = opened(app, head(b"POST", None))
        request.exchange.data_received(b"one")
        request.exchange.data_received(b"two")
        request.exchange.eof_received([(b"x-sum", b"1")])
        await request.settle()
        assert received == [
            {"type": "http.request", "body": b"onetwo", "more_body": False, "trailers": [(b"x-sum", b"1")]}
        ]

    run(test)


def test_100_is_asked_for_by_the_first_receive_only() -> None:
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        while (await receive())["more_body"]:
            pass
        await send(START)
        await send(body())

    async def test() -> None:
        request = opened(app, head(b"POST", 10, expect_continue=True))
        await request.settle()
        assert request.stream.informed == []
        go.set()
        await request.settle()
        assert request.stream.informed == [(100, [])]
        request.exchange.data_received(b"12345")
        await request.settle()
        request.exchange.data_received(b"67890")
        request.exchange.eof_received()
        await request.settle()
        assert request.stream.informed == [(100, [])]
        assert request.stream.ended

    run(test)


def test_application_waits_while_the_stream_is_not_writable() -> None:
    sent: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        for number in range(3):
            await send(body(b"piece", number < 2))
            sent.append(number)

    async def test() -> None:
        request = opened(app, stream=(stream := RecordingStream()))
        del stream
        await request.settle()
        assert sent == [0, 1, 2]

    run(test)
    sent.clear()

    async def stalled() -> None:
        stream = RecordingStream()
        stream.writable = False
        request = opened(app, stream=stream)
        await request.settle()
        assert sent == []
        stream.writable = True
        request.exchange.resume_writing()
        await request.settle()
        assert sent == [0, 1, 2]

    run(stalled)


def test_polling_for_a_disconnect_leaves_nothing_behind() -> None:
    polls = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal polls
        await receive()
        while polls < 500:
            polls += 1
            try:
                async with asyncio.timeout(0):
                    await receive()
            except TimeoutError:
                pass
        await receive()

    def futures() -> int:
        gc.collect()
        return sum(type(thing) is asyncio.Future for thing in gc.get_objects())

    async def test() -> None:
        before = futures()
        request = opened(app)
        while polls < 500:
            await asyncio.sleep(0)
        await request.settle()
        assert futures() - before < 50
        request.exchange.stream_lost(None)
        await request.settle()
        assert not request.service.tasks

    run(test)


def test_finished_request_is_freed() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(START)
        await send(body(b"x"))

    class Stream(RecordingStream):
        pass

    async def test() -> None:
        stream = Stream()
        request = opened(app, stream=stream)
        await request.settle()
        gone = weakref.ref(stream)
        del stream, request
        gc.collect()
        assert gone() is None

    run(test)


def test_request_that_waits_for_a_slow_client_ends_although_the_next_one_is_slow_as_well() -> None:
    ended: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send(body(bytes(300_000)))
        ended.append(scope["path"])

    async def test() -> None:
        connection = MemoryConnection(app)
        connection.transport.stall()
        connection.feed(b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n")
        await connection.settle()
        assert ended == []
        # The client takes the first answer; the second one fills the buffer again at once.
        connection.transport.take(len(connection.transport.waiting))
        await connection.settle()
        assert ended == ["/1"]
        connection.lose()
        await connection.settle()
        assert not connection.service.tasks

    run(test)


def test_request_whose_answer_has_left_ends_although_its_stream_serves_another_by_then() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(body(b"whole"))

    async def test() -> None:
        stream = RecordingStream()
        stream.writable = False
        request = opened(app, stream=stream)
        stream.writable = True
        request.exchange.resume_writing()
        # Before the application can run: the next answer on the connection has filled the buffer.
        stream.writable = False
        await request.settle()
        assert not request.service.tasks

    run(test)


def test_context_of_one_request_does_not_reach_the_one_pipelined_behind_it() -> None:
    from contextvars import ContextVar

    mark: ContextVar[str] = ContextVar("mark", default="clean")
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(mark.get())
        mark.set("left behind")
        await asyncio.sleep(0)
        await send(START)
        await send(body())

    async def test() -> None:
        connection = MemoryConnection(app)
        connection.feed(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" * 3)
        await connection.wait_until(lambda: len(seen) == 3)
        assert seen == ["clean"] * 3
        connection.lose()
        await connection.settle()

    run(test)


# Limits and errors of the peer


def test_body_above_the_limit_is_answered_and_the_application_told() -> None:
    messages: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        messages.append((await receive())["type"])
        messages.append((await receive())["type"])
        with pytest.raises(ClientGone):
            await send(START)
        messages.append("raised")

    async def test() -> None:
        request = opened(app, head(b"POST", None), max_request_size=10)
        request.exchange.data_received(b"12345")
        await request.settle()
        request.exchange.data_received(b"678901")
        await request.settle()
        assert (request.stream.status, request.stream.ended) == (413, True)
        assert messages == ["http.request", "http.disconnect", "raised"]

    run(test)


def test_announced_body_above_the_limit_never_reaches_the_application() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("called")

    async def test() -> None:
        request = opened(app, head(b"POST", 11), max_request_size=10)
        assert request.stream.status == 413
        assert request.service.counts["POUNCE_LIMIT_REQUEST_TOO_LARGE"] == 1

    run(test)


@pytest.mark.parametrize("begun", [False, True], ids=["before-the-answer", "within-the-answer"])
def test_error_of_the_peer_is_answered_or_breaks_the_answer(begun: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        if begun:
            await send(body(b"half", True))
        while (await receive())["type"] != "http.disconnect":
            pass

    async def test() -> None:
        request = opened(app, head(b"POST", None))
        request.exchange.stream_lost(BadRequest("broken chunk"))
        await request.settle()
        assert request.stream.status == (200 if begun else 400)
        assert request.stream.was_reset is begun
        assert not request.service.tasks

    run(test)


def test_error_pages_repeat_no_input_and_explain_only_in_debug() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("secret")

    async def test() -> None:
        plain, debug = opened(app), opened(app, debug=True)
        assert plain.stream.body == b"Internal Server Error"
        assert b"POUNCE_APP_E" in debug.stream.body
        assert b"secret" not in debug.stream.body
        assert (b"x-pounce-error-code", b"POUNCE_APP_E") in plain.stream.headers

    run(test)


# Completed


class Count:
    def __init__(self) -> None:
        self.completed_exchanges: list[HttpExchange] = []

    def completed(self, exchange: HttpExchange) -> None:
        self.completed_exchanges.append(exchange)


@pytest.mark.parametrize("fails", [False, True])
def test_observers_see_each_request_once(fails: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(body(b"12345"))

    async def test() -> None:
        first, second = Count(), Count()
        if fails:
            first.completed = lambda exchange: 1 / 0  # type: ignore[assignment, method-assign, return-value]
        service = memory_service(app)
        observe(service, first, second)
        request = Opened(service, RecordingStream(), head())
        request.exchange.stream_lost(None)
        await request.settle()
        (exchange,) = second.completed_exchanges
        assert (exchange.status, exchange.bytes_sent, exchange.broken) == (200, 5, False)
        assert service.counts.get("observer_error", 0) == fails

    run(test)


def test_request_is_completed_when_its_last_byte_has_left() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(body(b"12345"))

    async def test() -> None:
        observer = Count()
        service = memory_service(app)
        observe(service, observer)
        stream = RecordingStream()
        stream.writable = False
        request = Opened(service, stream, head())
        await request.settle()
        assert observer.completed_exchanges == []
        stream.writable = True
        request.exchange.resume_writing()
        assert len(observer.completed_exchanges) == 1
        await request.settle()

    run(test)


# Files


def open_files(path: Path) -> int:
    return sum(os.path.realpath(f"/proc/self/fd/{fd}") == str(path) for fd in os.listdir("/proc/self/fd"))


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    path = tmp_path / "digits"
    path.write_bytes(b"0123456789")
    return path


@pytest.fixture
def nothing_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are sent, or read, as large ones are."""
    import pounce.exchange.http as module

    monkeypatch.setattr(module, "SMALL_FILE", 0)
    monkeypatch.setattr(module, "SMALLER_FILE", 0)


def sends(digits: Path, kind: str) -> Any:
    """An application that sends this file."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        with digits.open("rb") as file:
            message: dict[str, Any] = {"path": str(digits)} if kind == "pathsend" else {"file": file}
            await send({"type": f"http.response.{kind}"} | message)

    return app


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="the system cannot tell what is in the page cache")
@pytest.mark.parametrize("sends_files", [False, True])
@pytest.mark.parametrize("kind", ["pathsend", "zerocopysend"])
def test_small_file_leaves_with_its_head_and_without_a_thread(
    digits: Path, kind: str, sends_files: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_cache(fd: int, buffers: list[bytearray], offset: int, flags: int) -> int:
        # Which file systems can tell is not this test's concern.
        buffers[0][:] = data = os.pread(fd, len(buffers[0]), offset)
        return len(data)

    async def test() -> None:
        monkeypatch.setattr(os, "preadv", in_cache)
        stream = RecordingStream(sends_files=sends_files)
        opened(sends(digits, kind), stream=stream)
        assert (stream.pieces, stream.ended) == ([b"0123456789"], True)
        assert open_files(digits) == 0

    run(test)


@pytest.mark.parametrize("sends_files", [False, True])
def test_small_file_that_is_not_in_the_page_cache_goes_the_way_of_large_ones(
    digits: Path, sends_files: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send({"type": "http.response.pathsend", "path": str(digits)})

    def would_wait(*args: Any) -> int:
        raise BlockingIOError

    async def test() -> None:
        monkeypatch.setattr(os, "preadv", would_wait, raising=False)
        stream = RecordingStream(sends_files=sends_files)
        request = opened(app, stream=stream)
        while request.service.tasks:
            await asyncio.sleep(0)
        (piece,) = stream.pieces
        if sends_files:
            assert isinstance(piece, FileRange)
        else:
            assert piece == b"0123456789"
        assert (stream.ended, open_files(digits)) == (True, 0)

    run(test)


def test_application_that_sends_small_parts_of_files_lets_others_have_the_loop(digits: Path) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        with digits.open("rb") as file:
            while True:
                part = {"file": file, "offset": 0, "count": 3, "more_body": True}
                await send({"type": "http.response.zerocopysend"} | part)

    async def test() -> None:
        request = opened(app, stream=RecordingStream(sends_files=True))
        (task,) = request.service.tasks
        task.cancel()
        await request.settle()
        assert request.stream.was_reset

    run(test)


@pytest.mark.usefixtures("nothing_is_small")
@pytest.mark.parametrize("end", ["sent", "lost"])
@pytest.mark.parametrize("kind", ["pathsend", "zerocopysend"])
def test_file_stays_open_while_the_stream_sends_it_although_the_application_is_cancelled(
    digits: Path, kind: str, end: str
) -> None:
    async def test() -> None:
        stream = RecordingStream(sends_files=True)
        stream.writable = False
        request = opened(sends(digits, kind), stream=stream)
        await request.settle()
        (task,) = request.service.tasks
        task.cancel()
        await request.settle()
        (piece,) = stream.pieces
        assert isinstance(piece, FileRange)
        assert os.pread(piece.fd, piece.count, piece.offset) == b"0123456789"
        if end == "sent":
            stream.writable = True
            request.exchange.resume_writing()
        else:
            request.exchange.stream_lost(None)
        assert open_files(digits) == 0

    run(test)


@pytest.mark.usefixtures("nothing_is_small")
def test_application_may_close_its_file_while_the_stream_sends_it(digits: Path) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        file = digits.open("rb")
        sending = asyncio.ensure_future(send({"type": "http.response.zerocopysend", "file": file}))
        await asyncio.sleep(0)
        file.close()
        await sending

    async def test() -> None:
        stream = RecordingStream(sends_files=True)
        stream.writable = False
        request = opened(app, stream=stream)
        await request.settle()
        (piece,) = stream.pieces
        assert isinstance(piece, FileRange)
        assert os.pread(piece.fd, 10, 0) == b"0123456789"
        stream.writable = True
        request.exchange.resume_writing()
        await request.settle()
        assert open_files(digits) == 0

    run(test)


def test_file_that_is_missing_raises_in_the_application() -> None:
    raised: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        try:
            await send({"type": "http.response.pathsend", "path": "/does/not/exist"})
        except OSError as exc:
            raised.append(exc)
            raise

    async def test() -> None:
        request = opened(app)
        await request.settle()
        assert request.stream.status == 500
        assert isinstance(raised[0], FileNotFoundError)

    run(test)


@pytest.mark.usefixtures("nothing_is_small")
def test_file_that_shrinks_while_it_is_read_breaks_the_answer(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pounce.exchange.http as module

    monkeypatch.setattr(module, "FILE_CHUNK", 4)
    raised: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        try:
            await send({"type": "http.response.pathsend", "path": str(digits)})
        except AppError as exc:
            raised.append(exc)
            raise

    async def test() -> None:
        class Truncates(RecordingStream):
            def start(self, *args: Any) -> None:
                digits.write_bytes(b"0123")
                super().start(*args)

        stream = Truncates()
        request = opened(app, stream=stream)
        async with asyncio.timeout(5):
            while request.service.tasks:
                await asyncio.sleep(0)
        assert stream.was_reset
        assert raised

    run(test)


def nobody(service: Service) -> Any:
    """A step of admission that refuses everybody."""

    def admit(head: RequestHead, stream: Any) -> Any:
        return service.refuse(head, stream, BadRequest("Not now", status=429, code="POUNCE_TEST"))

    return admit


@pytest.mark.parametrize(("path", "status"), [(b"/", 429), (b"/own", 204)], ids=["application", "the server itself"])
def test_what_the_server_answers_itself_needs_no_admission(path: bytes, status: int) -> None:
    own = Responder(name="own", create=lambda service: lambda head: Response(204) if head.target == b"/own" else None)
    registry = Registry.of(Plugin(name="own", api=API_VERSION, responders=(own,)))

    async def test() -> None:
        calls: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            calls.append(scope)

        service = memory_service(app, registry, admission=(lambda service: lambda head, stream: None, nobody))
        stream = RecordingStream()
        service.open(RequestHead(b"GET", path, [(b"host", b"h")], "1.1"), stream)
        assert (stream.status, calls) == (status, [])

    run(test)


def test_upgrade_needs_admission_too() -> None:
    def opens(service: Any, head: RequestHead, stream: Any) -> Any:
        raise AssertionError("it was opened")

    registry = Registry.of(Plugin(name="own", api=API_VERSION, upgrades=(Upgrade(token=b"own", open=opens),)))

    async def test() -> None:
        service = memory_service(None, registry, admission=(nobody,))
        stream = RecordingStream()
        service.open(head(upgrade=b"own"), stream)
        assert stream.status == 429

    run(test)
