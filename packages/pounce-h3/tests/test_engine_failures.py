"""An engine that fails in the midst of a stream's answer: that costs the stream, and the client sees it."""

import asyncio
from typing import Any

import pytest
from tests.conformance.h3 import literal_section
from tests.conformance.wires import answer

from .scripted import ScriptedConnection

REQUEST = literal_section([(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", b"/")])


class Panic(BaseException):
    """As engines written in Rust raise it."""


async def app(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"done")


async def asked(connection: ScriptedConnection) -> int:
    stream = connection.ask(REQUEST)
    for _ in range(20):
        await asyncio.sleep(0)
    return stream


@pytest.mark.parametrize("exc", [RuntimeError("engine"), Panic("engine")], ids=["exception", "panic"])
def test_write_that_fails_resets_its_stream_and_the_next_is_served(exc: BaseException) -> None:
    async def run() -> None:
        connection = ScriptedConnection(app)
        connection.quic.fails["write"] = exc
        failed = await asked(connection)
        connection.quic.fails.clear()
        served = await asked(connection)
        assert set(connection.quic.resets) == {failed}
        assert connection.quic.closed is None
        assert connection.answer(served)[1] == b"done"
        assert not connection.service.tasks

    asyncio.run(run())


@pytest.mark.parametrize("trailers", [False, True])
def test_end_of_an_answer_is_never_by_itself(trailers: bool) -> None:
    """qh3 forgets it when it is lost together with bytes before it."""

    async def piecewise(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": trailers})
        await send({"type": "http.response.body", "body": b"piece", "more_body": True})
        await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b""})
        if trailers:
            await send({"type": "http.response.trailers", "headers": []})

    async def run() -> None:
        connection = ScriptedConnection(piecewise)
        written: list[tuple[bytes, bool]] = []
        write = connection.quic.write

        def seen(stream_id: int, data: bytes, end: bool) -> None:
            written.append((data, end))
            write(stream_id, data, end)

        connection.quic.write = seen  # type: ignore[method-assign]
        stream = await asked(connection)
        assert connection.answer(stream)[1] == b"piece"
        assert [data for data, end in written if end] == [b"\0\0"]

    asyncio.run(run())
