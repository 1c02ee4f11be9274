"""`send()`: answers, the order of messages, their types, and what a broken application leaves behind."""

import asyncio
import logging
import threading
from contextvars import ContextVar
from typing import Any

import anyio
import pytest
from tests.conformance.asgi_receive import Script
from tests.conformance.client import PATIENCE
from tests.conformance.wires import Started, Wire, answer, read_body

from pounce import AppError, ClientGone

START = {"type": "http.response.start", "status": 200, "headers": []}


def body(data: bytes = b"", more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


class Send(Script):
    """Sends the messages it was made with; what `send` raises becomes an event."""

    def __init__(self, *messages: Any) -> None:
        super().__init__()
        self.messages = messages

    async def serve(self, scope: Any, receive: Any, send: Any) -> None:
        for message in self.messages:
            try:
                await send(message)
            except BaseException as exc:
                self.events.put(exc)
                raise


def start(headers: Any = (), status: int = 200, **more: Any) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers, **more}


# Answers


def test_answer_in_one_piece_arrives(wire: Wire) -> None:
    response = wire.share(Send(start([(b"X-A", b"1"), (b"x-a", b"2")], 201), body(b"hello"))).request("GET", "/")
    assert (response.status, response.body, response.complete) == (201, b"hello", True)
    assert response.headers.all(b"x-a") == [b"1", b"2"]


def test_answer_in_pieces_arrives_in_order(wire: Wire) -> None:
    pieces = [b"%d;" % number for number in range(200)]
    app = Send(START, *(body(piece, True) for piece in pieces), body())
    response = wire.share(app).request("GET", "/")
    assert (response.body, response.complete) == (b"".join(pieces), True)


def test_large_answer_arrives_whole(wire: Wire) -> None:
    data = bytes(range(256)) * 16384
    response = wire.share(Send(START, body(data))).request("GET", "/")
    assert response.body == data
    assert response.complete


def test_pieces_leave_while_the_application_is_still_working(wire: Wire) -> None:
    class Slow(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            await send(START)
            await send(body(b"first", True))
            await self.wait_for_the_test()
            await send(body(b"second"))

    app = Slow()
    with wire.share(app).connect() as client:
        request = client.open("GET", "/")
        assert request.read_piece() == b"first"
        app.go.set()
        assert request.read_piece() == b"second"
        assert request.read_piece() == b""


def test_head_alone_leaves_soon_when_the_body_is_slow(wire: Wire) -> None:
    class Slow(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            await send(start([(b"x-a", b"1")], 202))
            await self.wait_for_the_test()
            await send(body(b"late"))

    app = Slow()
    with wire.share(app).connect() as client:
        request = client.open("GET", "/")
        head = request.read_head()
        assert (head.status, head.headers[b"x-a"]) == (202, b"1")
        app.go.set()
        response = request.response()
        assert (response.body, response.complete) == (b"late", True)


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("status", [204, 304, 200])
def test_head_without_a_body_leaves_soon_when_the_application_is_slow(wire: Wire, status: int, method: str) -> None:
    class Slow(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            await send(start([], status))
            await self.wait_for_the_test()
            await send(body(b""))

    app = Slow()
    with wire.share(app).connect() as client:
        request = client.open(method, "/")
        assert request.read_head().status == status
        app.go.set()
        assert request.response().complete


@pytest.mark.parametrize(("method", "status"), [("GET", 204), ("GET", 304), ("HEAD", 200)])
def test_answer_without_a_body_is_complete_while_the_application_goes_on(wire: Wire, method: str, status: int) -> None:
    class Slow(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            await send(start([], status))
            await send(body(b"not wanted", True))
            await self.wait_for_the_test()
            await send(body(b"not wanted"))
            self.events.put("ended")

    app = Slow()
    with wire.share(app).connect() as client:
        response = client.open(method, "/").response()
        assert (response.status, response.body, response.complete) == (status, b"", True)
        app.go.set()
        assert app.next() == "ended"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_body_may_be_any_bytes_like_object(wire: Wire, kind: Any) -> None:
    app = Send(START, body(kind(b"one"), True), body(kind(b"two")))
    assert wire.share(app).request("GET", "/").body == b"onetwo"


def test_body_that_is_changed_after_sending_leaves_as_it_was(wire: Wire) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        buffer = bytearray(b"before")
        await send(START)
        await send({"type": "http.response.body", "body": buffer, "more_body": True})
        buffer[:] = b"AFTER!"
        await send(body())

    assert wire.share(app).request("GET", "/").body == b"before"


def test_body_and_headers_may_be_left_out(wire: Wire) -> None:
    app = Send({"type": "http.response.start", "status": 200}, {"type": "http.response.body"})
    response = wire.share(app).request("GET", "/")
    assert (response.status, response.body, response.complete) == (200, b"", True)


def test_headers_may_be_any_iterable_of_pairs(wire: Wire) -> None:
    app = Send(start(([name, value] for name, value in [(b"x-a", b"1")])), body())
    assert wire.share(app).request("GET", "/").headers[b"x-a"] == b"1"


def test_empty_pieces_do_not_end_the_answer(wire: Wire) -> None:
    app = Send(START, body(b"", True), body(b"a", True), body(b"", True), body(b"b", True), body())
    response = wire.share(app).request("GET", "/")
    assert (response.body, response.complete) == (b"ab", True)


# Header fields


def test_default_headers_are_server_and_date(wire: Wire) -> None:
    headers = wire.share(Send(START, body())).request("GET", "/").headers
    assert headers[b"server"] == b"pounce"
    assert headers[b"date"].endswith(b" GMT")


def test_headers_of_the_application_take_the_place_of_the_default_ones(wire: Wire) -> None:
    app = Send(start([(b"Server", b"mine"), (b"Date", b"Thu, 01 Jan 1970 00:00:00 GMT")]), body())
    headers = wire.share(app).request("GET", "/").headers
    assert headers[b"server"] == b"mine"
    assert headers[b"date"] == b"Thu, 01 Jan 1970 00:00:00 GMT"


def test_default_headers_can_be_switched_off_or_named(wire: Wire) -> None:
    headers = wire.share(Send(START, body()), server_header="", date_header=False).request("GET", "/").headers
    assert b"server" not in headers
    assert b"date" not in headers


def test_server_header_can_be_named(wire: Wire) -> None:
    server = wire.share(Send(START, body()), server_header="other/1.0")
    assert server.request("GET", "/").headers[b"server"] == b"other/1.0"


def test_cookies_stay_apart(wire: Wire) -> None:
    app = Send(start([(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]), body())
    assert wire.share(app).request("GET", "/").headers.all(b"set-cookie") == [b"a=1", b"b=2"]


def test_header_values_may_have_bytes_above_ascii(wire: Wire) -> None:
    assert wire.share(Send(start([(b"x-a", b"caf\xc3\xa9")]), body())).request("GET", "/").headers[b"x-a"] == (
        b"caf\xc3\xa9"
    )


INJECTIONS = [
    (b"x-a", b"1\r\nx-evil: 1"),
    (b"x-a", b"1\nx-evil: 1"),
    (b"x-a", b"1\rx-evil: 1"),
    (b"x-a", b"1\0"),
    (b"x-a", b"\x01"),
    (b"x-a", b"\x7f"),
    (b"x-a", b"trailing\r\n"),
    (b"x-a\r\nx-evil: 1\r\nx-b", b"1"),
    (b"x-a\n", b"1"),
    (b"x a", b"1"),
    (b"x-a:", b"1"),
    (b"x-\0a", b"1"),
    (b"x-\xe9", b"1"),
    (b"", b"1"),
    ("x-a", b"1"),
    (b"x-a", "1"),
    (b"x-a", None),
    (b"x-a", 1),
]


@pytest.mark.parametrize("pair", INJECTIONS, ids=repr)
def test_header_that_may_not_be_sent_fails_the_request(wire: Wire, pair: Any, caplog: pytest.LogCaptureFixture) -> None:
    app = Send(start([(b"x-good", b"1"), pair]), body(b"never seen"))
    server = wire.share(app)
    response = server.request("GET", "/")
    assert response.status == 500
    assert response.complete
    assert b"x-evil" not in response.headers
    assert b"x-good" not in response.headers
    assert b"never seen" not in response.body
    assert isinstance(app.next(), AppError)
    server.stop()
    assert "Exception in ASGI application" in caplog.text


@pytest.mark.parametrize("value", [b"x", b"-1", b"1.5", b"", b"1, 1", b"0x10", b"1" * 20, "²".encode()])
def test_content_length_that_is_no_number_fails_the_request(wire: Wire, value: bytes) -> None:
    assert wire.share(Send(start([(b"content-length", value)]), body(b"x"))).request("GET", "/").status == 500


def test_two_content_lengths_fail_the_request(wire: Wire) -> None:
    app = Send(start([(b"content-length", b"1"), (b"Content-Length", b"1")]), body(b"x"))
    assert wire.share(app).request("GET", "/").status == 500


def test_transfer_encoding_of_the_application_is_ignored(wire: Wire) -> None:
    app = Send(start([(b"transfer-encoding", b"gzip, chunked")]), body(b"plain"))
    response = wire.share(app).request("GET", "/")
    assert (response.body, response.complete) == (b"plain", True)
    assert response.headers.all(b"transfer-encoding") == []


# Content-Length


def test_content_length_is_added_to_an_answer_in_one_piece(wire: Wire) -> None:
    assert wire.share(Send(START, body(b"12345"))).request("GET", "/").headers[b"content-length"] == b"5"


def test_content_length_of_the_application_is_kept(wire: Wire) -> None:
    app = Send(start([(b"content-length", b"6")]), body(b"abc", True), body(b"def"))
    response = wire.share(app).request("GET", "/")
    assert response.headers[b"content-length"] == b"6"
    assert (response.body, response.complete) == (b"abcdef", True)


@pytest.mark.parametrize("data", [b"1234", b"123456"], ids=["short", "long"])
def test_wrong_content_length_of_one_piece_is_a_500(wire: Wire, data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    app = Send(start([(b"content-length", b"5")]), body(data))
    server = wire.share(app)
    response = server.request("GET", "/")
    assert (response.status, response.complete) == (500, True)
    assert isinstance(app.next(), AppError)
    server.stop()
    assert "Content-Length" in caplog.text


@pytest.mark.parametrize("last", [b"45", b"4567"], ids=["short", "long"])
def test_wrong_content_length_of_a_streamed_answer_breaks_it_visibly(wire: Wire, last: bytes) -> None:
    app = Send(start([(b"content-length", b"6")]), body(b"123", True), body(last))
    response = wire.share(app).request("GET", "/")
    assert response.status == 200
    assert not response.complete
    assert isinstance(app.next(), AppError)


def test_bytes_beyond_the_content_length_never_reach_the_client(wire: Wire) -> None:
    app = Send(start([(b"content-length", b"3")]), body(b"123", True), body(b"HTTP/1.1 200 OK", True))
    response = wire.share(app).request("GET", "/")
    assert response.body in (b"", b"123")
    assert isinstance(app.next(), AppError)


def test_application_that_hides_its_wrong_length_still_breaks_the_answer(wire: Wire) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await send(start([(b"content-length", b"10")]))
        await send(body(b"123", True))
        try:
            await send(body(b"4"))
        except AppError:
            pass

    assert not wire.share(app).request("GET", "/").complete


# Order and types


WRONG = {
    "body-first": [body(b"x")],
    "start-twice": [START, START],
    "unknown-type": [{"type": "http.response.nonsense"}],
    "request-type": [{"type": "http.request"}],
    "websocket-type": [{"type": "websocket.accept"}],
    "no-type": [{"status": 200}],
    "no-status": [{"type": "http.response.start"}],
    "status-is-no-number": [start(status="fine")],  # type: ignore[arg-type]
    "status-0": [start(status=0)],
    "status-negative": [start(status=-200)],
    "status-100": [start(status=100)],
    "status-101": [start(status=101)],
    "status-1000": [start(status=1000)],
    "body-is-str": [START, {"type": "http.response.body", "body": "text"}],
    "body-is-none": [START, {"type": "http.response.body", "body": None}],
    "body-is-a-list": [START, {"type": "http.response.body", "body": [1, 2]}],
    "body-is-an-int": [START, {"type": "http.response.body", "body": 5}],
    "headers-are-no-pairs": [start([b"x-a"])],
    "trailers-first": [{"type": "http.response.trailers", "headers": []}],
    "trailers-after-start": [START, {"type": "http.response.trailers", "headers": []}],
    "hint-after-start": [START, {"type": "http.response.early_hint", "links": [b"</a>"]}],
    "pathsend-first": [{"type": "http.response.pathsend", "path": "/dev/null"}],
}


@pytest.mark.parametrize("messages", WRONG.values(), ids=WRONG)
def test_wrong_message_raises_in_the_application_and_becomes_a_500(wire: Wire, messages: Any) -> None:
    app = Send(*messages)
    response = wire.share(app).request("GET", "/")
    assert (response.status, response.complete) == (500, True)
    assert isinstance(app.next(), Exception)


AFTER_THE_END = {
    "body": body(b"more"),
    "start": START,
    "trailers": {"type": "http.response.trailers", "headers": []},
    "hint": {"type": "http.response.early_hint", "links": []},
}


@pytest.mark.parametrize("message", AFTER_THE_END.values(), ids=AFTER_THE_END)
def test_message_after_the_end_raises_and_harms_nothing(wire: Wire, message: Any) -> None:
    app = Send(START, body(b"all"), message)
    with wire.share(app).connect() as client:
        for _ in range(2):
            response = client.request("GET", "/")
            assert (response.status, response.body, response.complete) == (200, b"all", True)
            assert isinstance(app.next(), (AppError, OSError))


# Applications that fail


def test_exception_before_the_start_is_a_500_that_repeats_nothing(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    class Fail(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            raise ValueError("secret-detail")

    server = wire.share(Fail())
    response = server.request("GET", "/secret-path")
    assert (response.status, response.complete) == (500, True)
    assert b"secret" not in response.body
    server.stop()
    assert "secret-detail" in caplog.text


def test_exception_after_the_start_and_before_the_body_is_a_500(wire: Wire) -> None:
    class Fail(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            await send(start([(b"x-never", b"1")]))
            raise ValueError

    response = wire.share(Fail()).request("GET", "/")
    assert (response.status, response.complete) == (500, True)
    assert b"x-never" not in response.headers


def test_exception_within_the_body_breaks_the_answer_visibly(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    class Fail(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            await send(START)
            await send(body(b"half", True))
            raise ValueError("within the body")

    server = wire.share(Fail())
    response = server.request("GET", "/")
    assert (response.status, response.body, response.complete) == (200, b"half", False)
    server.stop()
    assert "within the body" in caplog.text


def test_exception_after_the_answer_is_logged_and_harms_nothing(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    class Fail(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            await answer(send, b"fine")
            raise ValueError("after the answer")

    server = wire.share(Fail())
    with server.connect() as client:
        for _ in range(2):
            assert client.request("GET", "/").body == b"fine"
    server.stop()
    assert caplog.text.count("after the answer") >= 2


def test_return_without_an_answer_is_a_500(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    server = wire.share(Send())
    response = server.request("GET", "/")
    assert (response.status, response.complete) == (500, True)
    server.stop()
    assert "returned without completing its response" in caplog.text


def test_return_after_the_start_is_a_500(wire: Wire) -> None:
    response = wire.share(Send(START)).request("GET", "/")
    assert (response.status, response.complete) == (500, True)


def test_return_within_the_body_breaks_the_answer_visibly(wire: Wire) -> None:
    response = wire.share(Send(START, body(b"half", True))).request("GET", "/")
    assert (response.body, response.complete) == (b"half", False)


def test_failed_request_does_not_end_the_connection(wire: Wire) -> None:
    with wire.share(Send()).connect() as client:
        assert client.request("GET", "/").status == 500
        assert client.request("GET", "/").status == 500


class OddEnd(BaseException):
    """Neither an Exception nor one that means the end of the process."""


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        OddEnd(),
        BaseExceptionGroup("group", [SystemExit(3)]),
        ExceptionGroup("group", [ValueError()]),
    ],
    ids=["SystemExit", "KeyboardInterrupt", "GeneratorExit", "BaseException", "BaseExceptionGroup", "ExceptionGroup"],
)
@pytest.mark.parametrize("eager", [True, False], ids=["at-once", "later"])
def test_whatever_an_application_raises_is_a_500_and_the_worker_lives(
    wire: Wire, error: BaseException, eager: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Fail(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/good":
                await answer(send, b"alive")
                return
            if not eager:
                await receive()
                await self.wait_for_the_test()
            raise error

    app = Fail()
    app.go.set()
    server = wire.share(app)
    response = server.request("GET", "/")
    assert (response.status, response.complete) == (500, True)
    assert server.request("GET", "/good").body == b"alive"
    server.stop()
    assert "Exception in ASGI application" in caplog.text


def test_cancellation_from_within_is_an_answer_and_not_swallowed(wire: Wire) -> None:

    class Cancels(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            task = asyncio.current_task()
            assert task is not None
            task.add_done_callback(lambda task: self.events.put(task.cancelled()))
            task.cancel()
            await asyncio.sleep(PATIENCE)

    app = Cancels()
    response = wire.share(app).request("GET", "/")
    assert (response.status, response.complete) == (500, True)
    assert app.next() is True


# Clients that are gone


class SendUntilItRaises(Script):
    async def serve(self, scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        try:
            while True:
                await send(body(b"x" * 10_000, True))
                self.events.put("sent")
                await receive()
        except OSError as exc:
            self.events.put(exc)
            raise


def test_send_to_a_client_that_is_gone_raises_client_gone(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    app = SendUntilItRaises()
    server = wire.share(app)
    with server.connect() as client:
        request = client.open("POST", "/", body=True)
        assert app.next() == "sent"
        request.abort()
        assert isinstance(app.next(), ClientGone)
    server.stop()
    assert "Exception in ASGI application" not in caplog.text


def test_send_that_waits_for_a_slow_client_raises_when_it_goes(wire: Wire) -> None:
    class Flood(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            await send(START)
            self.events.put("begun")
            try:
                while True:
                    await send(body(bytes(100_000), True))
            except OSError as exc:
                self.events.put(exc)

    app = Flood()
    with wire.share(app).connect() as client:
        request = client.open("GET", "/")
        assert app.next() == "begun"
        request.read_head()
        request.abort()
        assert isinstance(app.next(), ClientGone)


def test_slow_client_holds_the_application_back(wire: Wire) -> None:
    class Flood(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            await send(START)
            self.sent = 0
            try:
                while self.sent < 200:
                    await send(body(bytes(1_000_000), True))
                    self.sent += 1
            except OSError:
                pass
            self.events.put(self.sent)

    app = Flood()
    with wire.share(app).connect() as client:
        request = client.open("GET", "/")
        request.read_head()
        request.abort()
        assert app.next() < 200


def test_endless_answer_to_a_client_that_is_gone_ends_also_when_it_never_waits(wire: Wire) -> None:
    class Endless(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            self.events.put("begun")
            # Blocks the loop on purpose: the client goes without the server having a chance to notice.
            self.go.wait(PATIENCE)
            await send(START)
            try:
                for _ in range(10_000):
                    await send(body(b"x" * 1000, True))
            except ClientGone as exc:
                self.events.put(exc)
                return
            self.events.put("nobody told me")

    app = Endless()
    with wire.share(app).connect() as client:
        request = client.open("GET", "/")
        assert app.next() == "begun"
        request.abort()
        app.go.set()
        assert isinstance(app.next(), ClientGone)


@pytest.mark.parametrize("status", [200, 204, 304])
def test_endless_answer_without_a_body_ends_when_the_client_is_gone(wire: Wire, status: int) -> None:
    class Endless(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send(start([], status))
            await send(body(b"event", True))
            self.events.put(await receive())
            try:
                await send(body(b"event", True))
            except OSError as exc:
                self.events.put(exc)

    app = Endless()
    with wire.share(app).connect() as client:
        request = client.open("HEAD", "/")
        assert request.read_head().status == status
        request.abort()
        assert app.next() == {"type": "http.disconnect"}
        assert isinstance(app.next(), ClientGone)


def test_client_that_never_stops_reading_does_not_keep_the_worker_from_others(wire: Wire) -> None:
    class Endless(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/other":
                await answer(send, b"served")
                return
            await send(START)
            try:
                while not self.go.is_set():
                    await send(body(b"x", True))
            except OSError:
                pass

    app = Endless()
    server = wire.share(app)
    with server.connect() as greedy:
        request = greedy.open("GET", "/endless")
        request.read_piece()
        reader = threading.Thread(target=request.response)
        reader.start()
        assert server.request("GET", "/other").body == b"served"
        app.go.set()
        reader.join(PATIENCE)


def test_application_that_ignores_the_disconnect_is_no_error(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    app = SendUntilItRaises()
    server = wire.share(app)
    with server.connect() as client:
        client.open("POST", "/", body=True).abort()
    server.stop()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


# Tasks


def test_background_work_after_the_answer_does_not_hold_up_the_next_request(wire: Wire) -> None:
    class Background(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            await answer(send, scope["path"].encode())
            if scope["path"] == "/first":
                await self.wait_for_the_test()
                self.events.put("background work is done")

    app = Background()
    with wire.share(app).connect() as client:
        assert client.request("GET", "/first").body == b"/first"
        assert client.request("GET", "/second").body == b"/second"
        assert client.request("GET", "/third").body == b"/third"
        assert app.events.empty()
        app.go.set()
        assert app.next() == "background work is done"


def test_requests_of_several_connections_run_at_the_same_time(wire: Wire) -> None:
    together = threading.Barrier(3)

    class Meet(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:

            await asyncio.to_thread(together.wait, PATIENCE)
            await answer(send, b"met")

    server: Started = wire.share(Meet())
    clients = [server.connect() for _ in range(3)]
    requests = [client.open("GET", "/") for client in clients]
    assert [request.response().body for request in requests] == [b"met"] * 3


def test_context_variables_do_not_leak_into_the_next_request(wire: Wire) -> None:

    mark: ContextVar[str] = ContextVar("mark", default="clean")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        before = mark.get()
        mark.set(f"left by {scope['path']}")
        await read_body(receive)
        await answer(send, before.encode())

    with wire.share(app).connect() as client:
        # Large enough that the server stops reading in between and begins again from within the application.
        assert client.request("POST", "/1", body=bytes(1_000_000)).body == b"clean"
        assert client.request("POST", "/2", body=bytes(1_000_000)).body == b"clean"
        assert client.request("GET", "/3").body == b"clean"


def test_context_variables_set_before_an_await_are_seen_after_it(wire: Wire) -> None:

    mark: ContextVar[str] = ContextVar("mark", default="lost")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        mark.set("kept")
        await asyncio.sleep(0)
        await answer(send, (await asyncio.to_thread(mark.get)).encode())

    assert wire.share(app).request("GET", "/").body == b"kept"


def test_asyncio_timeout_works_before_the_first_await(wire: Wire) -> None:

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            await answer(send, b"timed out")

    assert wire.share(app).request("GET", "/").body == b"timed out"


def test_anyio_task_groups_and_cancel_scopes_work(wire: Wire) -> None:

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        done: list[int] = []

        async def child(number: int) -> None:
            await anyio.lowlevel.checkpoint()
            done.append(number)

        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(child, number)
        with anyio.move_on_after(0.01) as cancelled:
            await anyio.sleep_forever()
        await answer(send, b"%d %s" % (len(done), str(cancelled.cancelled_caught).encode()))

    assert wire.share(app).request("GET", "/").body == b"3 True"


def test_exception_group_of_a_client_that_is_gone_is_no_error(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:

    class Grouped(SendUntilItRaises):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(super().serve, scope, receive, send)

    app = Grouped()
    server = wire.share(app)
    with server.connect() as client:
        request = client.open("POST", "/", body=True)
        assert app.next() == "sent"
        request.abort()
        assert isinstance(app.next(), ClientGone)
    server.stop()
    assert "Exception in ASGI application" not in caplog.text
