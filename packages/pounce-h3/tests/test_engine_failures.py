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
