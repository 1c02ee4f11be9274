"""max_buffered, over every wire: many slow clients hold no more than the bound, and others are served."""

import asyncio
import threading
from typing import Any

import pytest
from tests.conformance.client import PATIENCE, Broken, Request
from tests.conformance.wires import Wire, answer, read_body
from tests.workers.running import eventually

from pounce.admission import buffers
from pounce.admission.buffers import BufferBudget

SLOW = 12
ANSWER = b"a" * 16_777_216
"""More than the kernel keeps of it."""


class Watched:
    """What the budget of the server has done."""

    def __init__(self) -> None:
        self.budget: BufferBudget | None = None
        self.closed: list[int] = []

    def is_relieved(self, limit: int) -> bool:
        """Somebody was closed, and the rest is within the bound."""
        return bool(self.closed) and self.budget is not None and self.budget.held <= limit


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    found = Watched()
    look, close = BufferBudget.look, BufferBudget._close

    def looks(budget: BufferBudget, now: float) -> None:
        look(budget, now)
        found.budget = budget

    def closes(budget: BufferBudget, connection: Any, size: int) -> None:
        found.closed.append(size)
        close(budget, connection, size)

    monkeypatch.setattr(BufferBudget, "look", looks)
    monkeypatch.setattr(BufferBudget, "_close", closes)
    # Who is paused is closed with the next look.
    monkeypatch.setattr(buffers, "PATIENCE", 0.0)
    return found


def is_cut(request: Request) -> bool:
    """Whether the server has broken a request off."""
    try:
        request.end()
        return not request.response().complete
    except OSError, Broken:
        return True


def test_bodies_that_nobody_takes_are_held_up_to_the_bound(wire: Wire, watched: Watched) -> None:
    limit = 120_000
    go_on = threading.Event()
    seen = threading.Semaphore(0)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            seen.release()
            await asyncio.to_thread(go_on.wait, PATIENCE)
            await read_body(receive)
        await answer(send, b"served")

    server = wire.start(app, max_buffered=limit, lifespan="off", executor_threads_per_worker=SLOW)
    slow = [server.connect().open("POST", "/slow", body=True) for _ in range(SLOW)]
    for _ in slow:
        assert seen.acquire(timeout=PATIENCE)
    for request in slow:
        request.send_body(b"a" * 40_000)
    eventually(lambda: watched.is_relieved(limit))
    assert server.request("POST", "/", body=b"small").body == b"served"
    go_on.set()
    cut = [is_cut(request) for request in slow]
    assert cut.count(True) == len(watched.closed)
    assert cut.count(False) > 0


def test_answers_that_nobody_reads_are_held_up_to_the_bound(wire: Wire, watched: Watched) -> None:
    limit = 8_388_608

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, ANSWER if scope["path"] == "/slow" else b"served")

    server = wire.start(app, max_buffered=limit, lifespan="off")
    slow = [server.connect().open("GET", "/slow") for _ in range(3)]
    eventually(lambda: watched.is_relieved(limit))
    assert server.request("GET", "/").body == b"served"
    assert min(watched.closed) > 1_000_000
    server.hang_up()
    assert slow
