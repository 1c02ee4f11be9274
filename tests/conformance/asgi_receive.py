"""`receive()`: the request body, and how an application learns that its client is gone."""

import asyncio
import queue
import threading
from typing import Any

import pytest
from tests.conformance.client import PATIENCE
from tests.conformance.wires import Wire, answer, read_body

HTTP_REQUEST = "http.request"
HTTP_DISCONNECT = "http.disconnect"


class Script:
    """An application that puts what happens to it into a queue for the test."""

    def __init__(self) -> None:
        self.events: queue.Queue[Any] = queue.Queue()
        self.go = threading.Event()

    def next(self) -> Any:
        return self.events.get(timeout=PATIENCE)

    async def wait_for_the_test(self) -> None:
        """Wait until the test sets `go`, without blocking the loop."""
        try:
            assert await asyncio.to_thread(self.go.wait, PATIENCE)
        finally:
            # Where this is cancelled the thread is not, and nothing ends before it does.
            self.go.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await self.serve(scope, receive, send)

    async def serve(self, scope: Any, receive: Any, send: Any) -> None:
        raise NotImplementedError


class Listen(Script):
    """Receives until it is told that the client is gone."""

    async def serve(self, scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            self.events.put(message)
            if message["type"] == HTTP_DISCONNECT:
                return


async def echo(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise NotImplementedError
    await answer(send, await read_body(receive))


def test_request_without_a_body_is_one_empty_message(wire: Wire) -> None:
    app = Listen()
    with wire.share(app).connect() as client:
        client.open("GET", "/")
        assert app.next() == {"type": HTTP_REQUEST, "body": b"", "more_body": False}


@pytest.mark.parametrize("size", [1, 1000, 65536, 1_000_000])
def test_body_arrives_whole_and_in_order(wire: Wire, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"e" * (size % 256)
    assert wire.share(echo).request("POST", "/", body=body).body == body


def test_body_of_unknown_length_arrives_whole(wire: Wire) -> None:
    with wire.share(echo).connect() as client:
        request = client.open("POST", "/", body=True)
        for number in range(100):
            request.send_body(b"%d," % number)
        request.end()
        assert request.response().body == b"".join(b"%d," % number for number in range(100))


def test_pieces_are_given_out_as_they_arrive(wire: Wire) -> None:
    app = Listen()
    with wire.share(app).connect() as client:
        request = client.open("POST", "/", body=True)
        request.send_body(b"one")
        assert app.next() == {"type": HTTP_REQUEST, "body": b"one", "more_body": True}
        request.send_body(b"two")
        assert app.next() == {"type": HTTP_REQUEST, "body": b"two", "more_body": True}
        request.end()
        assert app.next() == {"type": HTTP_REQUEST, "body": b"", "more_body": False}


def test_waits_after_the_body_until_the_client_is_gone(wire: Wire) -> None:
    app = Listen()
    with wire.share(app).connect() as client:
        request = client.open("GET", "/")
        app.next()
        with pytest.raises(queue.Empty):
            app.events.get(timeout=0.05)
        request.abort()
        assert app.next() == {"type": HTTP_DISCONNECT}


def test_application_that_waits_is_told_at_once_that_the_client_is_gone(wire: Wire) -> None:
    app = Listen()
    with wire.share(app, keep_alive_timeout=60, request_timeout=60).connect() as client:
        request = client.open("POST", "/", body=True)
        request.send_body(b"x")
        app.next()
        request.abort()
        assert app.events.get(timeout=60) == {"type": HTTP_DISCONNECT}


def test_orderly_close_is_a_disconnect(wire: Wire) -> None:
    app = Listen()
    with wire.share(app).connect() as client:
        client.open("GET", "/")
        app.next()
        client.close()
        assert app.next() == {"type": HTTP_DISCONNECT}


def test_disconnect_is_repeated_as_often_as_it_is_asked_for(wire: Wire) -> None:
    class Ask(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            for _ in range(4):
                self.events.put((await receive())["type"])

    app = Ask()
    with wire.share(app).connect() as client:
        request = client.open("GET", "/")
        assert app.next() == HTTP_REQUEST
        request.abort()
        assert [app.next() for _ in range(3)] == [HTTP_DISCONNECT] * 3


@pytest.mark.parametrize("length", [[], [(b"content-length", b"10")]], ids=["unknown-length", "known-length"])
def test_truncated_body_ends_in_a_disconnect_and_never_completes(wire: Wire, length: Any) -> None:
    app = Listen()
    with wire.share(app).connect() as client:
        request = client.open("POST", "/", length, body=True)
        request.send_body(b"half")
        assert app.next() == {"type": HTTP_REQUEST, "body": b"half", "more_body": True}
        request.abort()
        assert app.next() == {"type": HTTP_DISCONNECT}


def test_truncated_body_is_a_disconnect_also_for_an_application_that_asks_late(wire: Wire) -> None:
    class Late(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            first = await receive()
            self.events.put(first)
            await self.wait_for_the_test()
            while (message := await receive())["type"] == HTTP_REQUEST:
                assert message["more_body"], "half a body passed for a whole one"
            self.events.put(message)

    app = Late()
    with wire.share(app).connect() as client:
        request = client.open("POST", "/", [(b"content-length", b"10")], body=True)
        request.send_body(b"one")
        app.next()
        request.send_body(b"two")
        request.abort()
        app.go.set()
    assert app.next() == {"type": HTTP_DISCONNECT}


def test_complete_body_is_still_given_out_when_the_client_has_gone(wire: Wire) -> None:
    class Late(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/first":
                await answer(send)
                return
            self.events.put(await receive())
            await self.wait_for_the_test()
            self.events.put(await receive())
            self.events.put(await receive())

    app = Late()
    with wire.share(app).connect() as client:
        # Whoever closes with bytes unread (session tickets, in TLS) resets the connection and what is on its way.
        client.request("GET", "/first")
        request = client.open("POST", "/", [(b"content-length", b"6")], body=True)
        request.send_body(b"one")
        app.next()
        request.send_body(b"two")
        request.end()
        client.close()
    app.go.set()
    assert app.next() == {"type": HTTP_REQUEST, "body": b"two", "more_body": False}
    assert app.next() == {"type": HTTP_DISCONNECT}


def test_receive_after_the_answer_is_a_disconnect(wire: Wire) -> None:
    class After(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            await answer(send, b"done")
            self.events.put(await receive())

    app = After()
    with wire.share(app).connect() as client:
        assert client.request("GET", "/").body == b"done"
        assert app.next() == {"type": HTTP_DISCONNECT}
        assert client.request("GET", "/").body == b"done"


def test_receive_that_waits_is_told_when_the_answer_is_complete(wire: Wire) -> None:
    class Both(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            await receive()
            waiting = asyncio.ensure_future(receive())
            await asyncio.sleep(0)
            await answer(send, b"done")
            self.events.put(await waiting)

    app = Both()
    with wire.share(app).connect() as client:
        assert client.request("GET", "/").body == b"done"
        assert app.events.get(timeout=60) == {"type": HTTP_DISCONNECT}


def test_unread_body_is_not_given_out_after_the_answer(wire: Wire) -> None:
    class Answer(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            await answer(send, b"early")
            self.events.put(await receive())

    app = Answer()
    with wire.share(app).connect() as client:
        assert client.request("POST", "/", body=b"ignored").body == b"early"
    assert app.next() == {"type": HTTP_DISCONNECT}


def test_one_of_several_receivers_is_cancelled_and_the_others_go_on(wire: Wire) -> None:
    class Several(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            waiting = [asyncio.ensure_future(receive()) for _ in range(3)]
            await asyncio.sleep(0)
            waiting[0].cancel()
            self.events.put("ready")
            done, pending = await asyncio.wait(waiting[1:], return_when=asyncio.FIRST_COMPLETED)
            assert waiting[0].cancelled()
            self.events.put([task.result()["body"] for task in done])
            await asyncio.wait(pending)
            await answer(send, b"ok")

    app = Several()
    with wire.share(app).connect() as client:
        request = client.open("POST", "/", body=True)
        assert app.next() == "ready"
        request.send_body(b"piece")
        assert app.next() == [b"piece"]
        request.end()
        assert request.response().body == b"ok"


def test_every_waiting_receiver_is_told_of_the_disconnect(wire: Wire) -> None:
    class Several(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            await receive()
            self.events.put("ready")
            waiting = [asyncio.ensure_future(receive()) for _ in range(3)]
            self.events.put([message["type"] for message in await asyncio.gather(*waiting)])

    app = Several()
    with wire.share(app).connect() as client:
        request = client.open("GET", "/")
        app.next()
        request.abort()
        assert app.next() == [HTTP_DISCONNECT] * 3


def test_receive_that_was_cancelled_loses_nothing(wire: Wire) -> None:
    class Impatient(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            try:
                async with asyncio.timeout(0):
                    await receive()
            except TimeoutError:
                self.events.put("timeout")
            await answer(send, await read_body(receive))

    app = Impatient()
    with wire.share(app).connect() as client:
        request = client.open("POST", "/", body=True)
        assert app.next() == "timeout"
        request.send_body(b"whole")
        request.end()
        assert request.response().body == b"whole"


def test_request_trailers_come_with_the_last_message(wire: Wire) -> None:
    class Trailers(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            while (message := await receive())["more_body"]:
                assert "trailers" not in message
            await answer(send, repr([tuple(pair) for pair in message["trailers"]]).encode())

    with wire.share(Trailers()).connect() as client:
        request = client.open("POST", "/", body=True)
        request.send_body(b"data")
        request.end([(b"x-checksum", b"abc"), (b"x-other", b"1")])
        assert request.response().body == b"[(b'x-checksum', b'abc'), (b'x-other', b'1')]"


def test_client_that_gives_up_leaves_other_requests_alone(wire: Wire) -> None:
    app = Listen()
    server = wire.share(app)
    with server.connect() as stays, server.connect() as goes:
        stays.open("GET", "/")
        app.next()
        given_up = goes.open("GET", "/")
        app.next()
        given_up.abort()
        assert app.next() == {"type": HTTP_DISCONNECT}
        with pytest.raises(queue.Empty):
            app.events.get(timeout=0.05)
