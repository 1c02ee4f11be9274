"""app_timeout, over every wire."""

import asyncio
import queue
import threading
from typing import Any

import pytest
from tests.conformance.client import PATIENCE
from tests.conformance.wires import Wire


@pytest.mark.parametrize("begun", [False, True], ids=["nothing was sent", "the answer has begun"])
def test_application_that_takes_too_long_is_cancelled_and_its_client_told(wire: Wire, begun: bool) -> None:
    loops: queue.Queue[Any] = queue.Queue()
    cancelled = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        loops.put(asyncio.get_running_loop())
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    server = wire.start(app, app_timeout=5, lifespan="off", loop="tests.clock:HeldLoop")
    request = server.connect().open("GET", "/")
    loop = loops.get(timeout=PATIENCE)
    if begun:
        assert request.read_piece() == b"begun"
    asyncio.run_coroutine_threadsafe(loop.advance(6), loop)
    response = request.response()
    assert cancelled.wait(PATIENCE)
    assert (response.status, response.complete) == ((200, False) if begun else (504, True))
