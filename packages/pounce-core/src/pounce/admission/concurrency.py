"""Concurrency: how many requests run at once, and who waits for a place.

    Service.open ──▶ Concurrency.start ──▶ Gate: a place is free ──▶ the application starts
                                             │ none is             ▲
                                             ├──▶ a Ticket in line ┘ when it is the oldest and somebody leaves
                                             └──▶ 503: the line is full, or nobody may wait

There is one gate for each process, so that the bound is exact over its threads and the line is one for all of them:
the oldest is next, whichever worker has it, and while there is a line nobody takes a place past it. A worker's
`Concurrency` gives up who waits too long, which its ticker tells, and knows which exchanges are its own.

A request in line is an exchange whose application starts later, and no task. What comes of its body meanwhile is held
back by its wire, as with any application that does not ask for it.
"""

import asyncio
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any

from pounce.errors import BadRequest, PounceError
from pounce.exchange.crossing import running_loop
from pounce.exchange.error_pages import shutting_down
from pounce.exchange.http import HttpExchange

if TYPE_CHECKING:
    from pounce.config import ServerConfig
    from pounce.contract.head import RequestHead
    from pounce.contract.stream import Stream
    from pounce.contract.wire import ASGIApp
    from pounce.exchange.host import Host
    from pounce.exchange.service import Service

__all__ = ["Concurrency", "Gate", "LimitedExchange"]

FULL = BadRequest(
    "There are too many requests",
    status=503,
    code="POUNCE_LIMIT_REQUESTS",
    hint="limit_concurrency of them run, and request_queue_max_depth wait where request_queue_enabled is on.",
)
WAITED = BadRequest(
    "The request has waited too long for others to end",
    status=503,
    code="POUNCE_TIMEOUT_QUEUE",
    hint="request_queue_timeout says how long requests wait for one of limit_concurrency places.",
)


class Ticket:
    """A request in line."""

    __slots__ = ("app", "due", "exchange", "since", "worker")

    def __init__(self, worker: Concurrency, exchange: Any, app: ASGIApp, since: float, due: float) -> None:
        self.worker = worker
        self.exchange = exchange
        """A `LimitedExchange`; None once it does not want to start any more."""
        self.app = app
        self.since = since
        self.due = due


class Gate:
    """The places of one process. May be used from any thread.

    Free places are items of a deque, which are taken and put back without a lock: that costs a request less than half
    of what a lock does. Nobody is forgotten over that: who leaves puts its place back and then looks whether there is a
    line, and who joins the line then looks whether there is a place.
    """

    def __init__(self, limit: int, depth: int | None) -> None:
        """`limit` requests at once; `depth` may wait, 0 sets no limit, and with None nobody waits."""
        self._lock = threading.Lock()
        """Protects the line and the limits."""
        self._limit = limit
        self._debt = 0
        """Places that are taken, and that are to go when they come back."""
        self._free: deque[None] = deque([None] * limit)
        self._depth = 0 if depth is None else depth or inf
        self._waits = depth is not None
        self._line: OrderedDict[Ticket, None] = OrderedDict()

    @property
    def running(self) -> int:
        """Places that are taken."""
        return self._limit + self._debt - len(self._free)

    @property
    def waiting(self) -> int:
        """Requests in line."""
        return len(self._line)

    def enter(self) -> bool:
        """Take a place; False when there is none, or others wait for it."""
        if self._line:
            return False
        try:
            self._free.pop()
        except IndexError:
            return False
        return True

    def join(self, ticket: Ticket) -> bool | None:
        """Take a place, or one in the line: whether it was one of the former; None when there is neither."""
        with self._lock:
            if self.enter():
                return True
            if len(self._line) >= self._depth:
                return None
            self._line[ticket] = None
        self._hand_on()
        return False

    def quit(self, ticket: Ticket) -> None:
        """Leave the line. Who was called meanwhile comes to `Concurrency.called()` all the same."""
        with self._lock:
            self._line.pop(ticket, None)

    def leave(self) -> None:
        """A place is free: the oldest in line gets it."""
        if self._debt:
            with self._lock:
                if self._debt:
                    self._debt -= 1
                    return
        self._free.append(None)
        if self._line:
            self._hand_on()

    def _hand_on(self) -> None:
        """Give what is free to the oldest in line."""
        while self._line:
            with self._lock:
                if not self._line or not self._free:
                    return
                try:
                    self._free.pop()
                except IndexError:
                    return
                ticket, _ = self._line.popitem(last=False)
            if not ticket.worker.call(ticket):
                self._free.append(None)

    def resize(self, limit: int, depth: int) -> None:
        """The process may have more or fewer from now on; who runs or waits already may go on."""
        with self._lock:
            if self._waits:
                self._depth = depth or inf
            more, self._limit = limit - self._limit, limit
            for _ in range(more):
                if self._debt:
                    self._debt -= 1
                else:
                    self._free.append(None)
            for _ in range(-more):
                try:
                    self._free.pop()
                except IndexError:
                    self._debt += 1
        self._hand_on()


class LimitedExchange(HttpExchange):
    """An exchange that may have to wait for its place."""

    __slots__ = ()
    OWN = ("queued", "ticket")

    ticket: Ticket | None
    """While it is in line."""

    def __init__(self, service: Host, head: RequestHead, stream: Stream) -> None:
        super().__init__(service, head, stream)
        own: Any = self
        own.ticket = None
        own.queued = 0.0

    def half_closed(self) -> None:
        super().half_closed()
        if self.ticket is not None:
            # It may only have ended its half. But where some have to wait, nobody is to wait for those who are gone.
            self.stream_lost(None)
            self._reset()

    def stream_lost(self, exc: Exception | None) -> None:
        ticket = self.ticket
        if ticket is not None:
            ticket.worker.give_up(ticket)
        super().stream_lost(exc)


class Concurrency:
    """What one worker has to do with the gate of its process."""

    def __init__(self, config: ServerConfig, gate: Gate) -> None:
        self.gate = gate
        self._patience = config.request_queue_timeout
        self._with_upgrades = config.limit_concurrency_websockets
        self._waiting: OrderedDict[Ticket, None] = OrderedDict()
        self._running: set[asyncio.Task[None]] = set()
        """Those that have a place."""

    def serve(
        self, service: Service, exchange_class: type[HttpExchange], run: Callable[[Any, ASGIApp], asyncio.Task[None]]
    ) -> type[HttpExchange]:
        """Begin to bound the requests of `service`, which `run` starts: the class of its exchanges from now on."""
        self._service = service
        self._run = run
        self._loop = service.loop
        service.on_tick.add(self.tick)
        limited: type[HttpExchange] = type(
            "LimitedExchange", (LimitedExchange, exchange_class), {"__slots__": LimitedExchange.OWN}
        )
        return limited

    def start(self, exchange: Any, app: ASGIApp) -> None:
        """Start the application of a request, now or when there is a place, or answer that there is none."""
        gate = self.gate
        if gate.enter():
            task = self._run(exchange, app)
            if task.done():
                gate.leave()
            else:
                self._keep(task)
        else:
            self._wait(exchange, app)

    def _wait(self, exchange: Any, app: ASGIApp) -> None:
        # What ends in this very turn of the loop may be what let this request come.
        self._look_who_ended()
        now = self._loop.time()
        ticket = Ticket(self, exchange, app, now, now + self._patience)
        free = self.gate.join(ticket)
        if free:
            self._keep(self._run(exchange, app))
        elif free is None:
            self._refuse(exchange, FULL)
        else:
            exchange.ticket = ticket
            self._waiting[ticket] = None

    def _keep(self, task: asyncio.Task[None]) -> None:
        """This has a place until it has ended."""
        if task.done():
            self.gate.leave()
        else:
            self._running.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task in self._running:
            self._running.discard(task)
            self.gate.leave()

    def _look_who_ended(self) -> None:
        for task in [task for task in self._running if task.done()]:
            self._ended(task)

    def start_upgraded(self, exchange: Any, app: ASGIApp) -> None:
        """The same for what an upgrade opens, such as a WebSocket. It waits for nobody, for it may stay for ever."""
        if not self._with_upgrades:
            self._service.start_app(exchange, app)
        elif self.gate.enter():
            self._keep(self._service.start_app(exchange, app))
        else:
            # It takes over the stream.
            self._service.refuse(exchange.head, exchange.stream, FULL)

    def _refuse(self, exchange: LimitedExchange, error: PounceError) -> None:
        self._service.count(error.code, "%s", error.message)
        exchange.settle(error)

    def call(self, ticket: Ticket) -> bool:
        """There is a place for this one; from any thread. False when its worker has ended."""
        try:
            if running_loop() is self._loop:
                # In a turn of its own: each of them would be called from within the one before.
                self._loop.call_soon(self.called, ticket)
            else:
                self._loop.call_soon_threadsafe(self.called, ticket)
        except RuntimeError:
            return False
        return True

    def called(self, ticket: Ticket) -> None:
        """Its place is here; on the worker's loop."""
        exchange = ticket.exchange
        if exchange is None:
            # It has gone since.
            self.gate.leave()
            return
        del self._waiting[ticket]
        exchange.ticket = None
        exchange.queued = waited = self._loop.time() - ticket.since
        counts = self._service.counts
        counts["request_queue_waits"] = counts.get("request_queue_waits", 0) + 1
        counts["request_queue_seconds"] = counts.get("request_queue_seconds", 0.0) + waited
        self._keep(self._run(exchange, ticket.app))

    def give_up(self, ticket: Ticket) -> None:
        """It does not want to start any more."""
        exchange, ticket.exchange = ticket.exchange, None
        if exchange is not None:
            exchange.ticket = None
            del self._waiting[ticket]
            self.gate.quit(ticket)

    def tick(self, now: float) -> None:
        """Answer those that have waited too long, and tell how many wait."""
        self._end(now, WAITED)
        self._service.gauges["request_queue"] = len(self._waiting)

    def end(self) -> None:
        """The worker ends: answer those that wait."""
        self._end(inf, shutting_down())

    def _end(self, now: float, error: PounceError) -> None:
        while self._waiting:
            ticket = next(iter(self._waiting))
            exchange = ticket.exchange
            if ticket.due > now or exchange is None:
                break
            self.give_up(ticket)
            self._refuse(exchange, error)
