"""AppTimeout: applications that take longer than `app_timeout` for a complete answer.

Only those that are not done at once are kept here, in the order of their start, and the worker's ticker looks at the
oldest: a request costs no timer. Not here are upgrades, which may stay, and what the server answers itself.
"""

import asyncio
from typing import TYPE_CHECKING

from pounce.errors import AppError
from pounce.exchange.http import DONE, HttpExchange

if TYPE_CHECKING:
    from pounce.contract.wire import ASGIApp
    from pounce.exchange.host import Host

__all__ = ["AppTimeout"]

TOO_LATE = AppError(
    "The application took too long to answer",
    status=504,
    code="POUNCE_TIMEOUT_APP",
    hint="app_timeout says how long it may take.",
)


class AppTimeout:
    """The applications of one worker that run, and when they are too late."""

    def __init__(self, service: Host, seconds: float) -> None:
        self._service = service
        self._seconds = seconds
        self._running: dict[asyncio.Task[None], tuple[HttpExchange, float]] = {}
        service.on_tick.add(self._tick)

    def start(self, exchange: HttpExchange, app: ASGIApp) -> asyncio.Task[None]:
        """Start an application, whose time begins now."""
        task = self._service.start_app(exchange, app)
        if not task.done():
            self._running[task] = exchange, self._service.loop.time() + self._seconds
            task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)

    def _tick(self, now: float) -> None:
        late = []
        for task, (exchange, due) in self._running.items():
            if due > now:
                break
            late.append((task, exchange))
        for task, exchange in late:
            del self._running[task]
            # After its answer it may go on.
            if exchange.answer != DONE:
                self._end(task, exchange)

    def _end(self, task: asyncio.Task[None], exchange: HttpExchange) -> None:
        service, head = self._service, exchange.head
        service.count(TOO_LATE.code)
        service.log.error(
            "ASGI application did not complete its answer within app_timeout (%g s) and is cancelled: %r %r",
            self._seconds,
            head.method,
            head.target,
        )
        # First the answer, which the application would find another error for.
        exchange.settle(TOO_LATE)
        task.cancel()
