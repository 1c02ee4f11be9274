"""`receive()` and `send()` from another event loop than the one that a request came on, on every wire."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tests.conformance.wires import Wire, answer, read_body
from tests.threads.elsewhere import PATIENCE, Elsewhere

from pounce import AppError, ClientGone

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    with Elsewhere() as started:
        yield started


def piece(data: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def test_request_is_read_and_answered_elsewhere(wire: Wire, elsewhere: Elsewhere) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def serve() -> None:
            await answer(send, await read_body(receive), 201, [(b"x-from", b"elsewhere")])

        await elsewhere.wait(serve())

    data = b"0123456789abcdef" * 8192
    response = wire.share(app, lifespan="off").request("POST", "/", body=data)
    assert (response.status, response.headers[b"x-from"]) == (201, b"elsewhere")
    assert (response.body, response.complete) == (data, True)


def test_stream_of_several_loops_arrives_whole_and_each_loops_pieces_in_their_order(
    wire: Wire, elsewhere: Elsewhere
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def stream(who: bytes) -> None:
            for number in range(60):
                await send(piece(b"data: %b%d\n\n" % (who, number)))

        await send(START)
        with Elsewhere() as another:
            await asyncio.gather(elsewhere.wait(stream(b"a")), another.wait(stream(b"b")), stream(b"c"))
        await send(piece(b"", False))

    response = wire.share(app).request("GET", "/")
    assert response.complete
    *events, last = response.body.split(b"\n\n")
    assert (len(events), last) == (180, b"")
    for who in (b"a", b"b", b"c"):
        of_one = [event for event in events if event.startswith(b"data: " + who)]
        assert of_one == [b"data: %b%d" % (who, number) for number in range(60)]


def test_answer_larger_than_any_buffer_is_sent_elsewhere(wire: Wire, elsewhere: Elsewhere) -> None:
    pieces = [bytes([number]) * 65536 for number in range(32)]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def stream() -> None:
            await send(START)
            for each in pieces:
                await send(piece(each))
            await send(piece(b"", False))

        await elsewhere.wait(stream())

    response = wire.share(app).request("GET", "/")
    assert (response.body, response.complete) == (b"".join(pieces), True)


def test_client_that_leaves_ends_a_stream_from_elsewhere(wire: Wire, elsewhere: Elsewhere) -> None:
    raised = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def stream() -> None:
            while True:
                await send(piece(b"x" * 16384))

        await send(START)
        with pytest.raises(ClientGone):
            await elsewhere.wait(stream())
        raised.set()

    request = wire.share(app).connect().open("GET", "/")
    request.read_piece()
    request.abort()
    assert raised.wait(PATIENCE)


def test_message_out_of_order_is_an_error_elsewhere_and_the_answer_goes_on(wire: Wire, elsewhere: Elsewhere) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        with pytest.raises(AppError, match="out of order"):
            await elsewhere.wait(send(START))
        await send(piece(b"whole", False))

    response = wire.share(app).request("GET", "/")
    assert (response.body, response.complete) == (b"whole", True)


def test_drain_notice_ends_a_stream_from_elsewhere(wire: Wire, elsewhere: Elsewhere) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def stream() -> None:
            await send(START)
            await send(piece(b"begun"))
            await scope["extensions"]["pounce.worker.draining"].wait()
            await send(piece(b", ended", False))

        await elsewhere.wait(stream())

    started = wire.start(app, shutdown_timeout=PATIENCE)
    request = started.connect().open("GET", "/")
    assert request.read_piece() == b"begun"
    started.server.shutdown()
    assert request.read_piece() == b", ended"
    assert request.read_piece() == b""
