"""EpollLoop: asyncio's loop, with a shorter way from the kernel to a connection.

Theory of operation. Between epoll and a protocol asyncio has a list of keys, a handle, a context to run it in and a
transport, each with its own look at what has come. Nearly all that a server waits for are bytes on connections that it
has made. So a connection may have its descriptor read by itself (`read_directly`): while that has nothing but bytes to
read, its reader is called as it is. Everything else goes the way of asyncio, of which this loop is one: other
descriptors, a connection that is to be written to, has an error or was hung up, and everything in debug mode.

One turn of the loop: look for events, make ready what timers are due, run what is ready, then the readers; one that was
taken away in the meantime is not called. In asyncio a reader comes before the timers of its turn. Nothing can rely on
that, since it is the network that decides in which turn bytes come.

At most `BATCH` events are taken at a time. asyncio takes all there are, and looks for new ones only when it is through
with them. A request that comes in just too late then waits for two rounds over all busy connections instead of one:
that is the 99th percentile.

It stands on what asyncio has below its documented surface in CPython 3.14; elsewhere `worker.loop` takes asyncio's own.
"""

import asyncio
import contextvars
import heapq
import selectors
from collections.abc import Callable
from select import EPOLLIN, EPOLLOUT
from typing import Any

__all__ = ["BATCH", "EpollLoop", "FairSelector"]

BATCH = 16
"""Events that are handled before the loop looks for new ones."""
LONGEST_WAIT = 86_400.0
"""Seconds that epoll waits at most; asyncio has the same bound."""
CANCELLED_MIN = 100
CANCELLED_SHARE = 0.5
"""So many timers, and this share of them cancelled, are thrown out before their time."""
WAKE_BYTES = 4096


class FairSelector(selectors.EpollSelector):
    """Gives out at most `BATCH` events at a time, those first that have waited longest."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        try:
            found = self._selector.poll(-1.0 if timeout is None else max(timeout, 0.0), BATCH)  # type: ignore[attr-defined]
        except InterruptedError:
            return []
        ready = []
        for fd, event in found:
            key = self.key_of(fd, event)
            if key is not None:
                ready.append(key)
        return ready

    def key_of(self, fd: int, event: int) -> tuple[selectors.SelectorKey, int] | None:
        """What `select()` gives out for what epoll has said; None for what is no longer registered."""
        key = self._fd_to_key.get(fd)  # type: ignore[attr-defined]
        if key is None:
            return None
        # As in the base class: an error or a hang-up makes a descriptor readable and writable.
        events = (event & ~EPOLLIN and selectors.EVENT_WRITE) | (event & ~EPOLLOUT and selectors.EVENT_READ)
        return key, events & key.events


class Handle(asyncio.Handle):
    """asyncio's, made with less ado where there is no debug mode to look at."""

    __slots__ = ()

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: EpollLoop,
        context: contextvars.Context | None,
    ) -> None:
        self._context = contextvars.copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None


class EpollLoop(asyncio.SelectorEventLoop):
    """The loop of a worker where there is epoll."""

    # Of asyncio's.
    _clock_resolution: float
    _closed: bool
    _debug: bool
    _process_events: Any
    _process_self_data: Any
    _ready: Any
    _scheduled: list[Any]
    _ssock: Any
    _stopping: bool
    _timer_cancelled_count: int

    def __init__(self) -> None:
        self._readers: dict[int, Callable[[], object]] = {}
        selector = FairSelector()
        self._key_of = selector.key_of
        self._poll = selector._selector.poll  # type: ignore[attr-defined]
        super().__init__(selector)

    def read_directly(self, fd: int, reader: Callable[[], object]) -> None:
        """Call `reader` while there is something to read. It sees to what it raises itself.

        In the place of a transport's own reader: whoever calls this has told the transport to pause.
        """
        self._add_reader(fd, reader)
        self._readers[fd] = reader

    def take_reading(self, transport: Any, fd: int, reader: Callable[[], object]) -> None:
        """The same for the descriptor of a transport that reads, or is about to: it is told to pause, without a word to
        the kernel, for which nothing changes."""
        transport._paused = True
        self.read_directly(fd, reader)

    def stop_reading(self, fd: int) -> None:
        """Call the reader of this descriptor no more."""
        self._remove_reader(fd)

    # What asyncio's transports and `add_reader()` call, too

    def _add_reader(self, fd: Any, callback: Callable[..., object], *args: Any) -> asyncio.Handle:
        self._readers.pop(fd if type(fd) is int else fd.fileno(), None)
        handle: asyncio.Handle = super()._add_reader(fd, callback, *args)  # type: ignore[misc]
        return handle

    def _remove_reader(self, fd: Any) -> bool:
        self._readers.pop(fd if type(fd) is int else fd.fileno(), None)
        removed: bool = super()._remove_reader(fd)  # type: ignore[misc]
        return removed

    def _read_from_self(self) -> None:
        # Once: what is left makes it readable again.
        try:
            self._process_self_data(self._ssock.recv(WAKE_BYTES))
        except BlockingIOError, InterruptedError:
            pass

    def call_soon[*Ts](
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        if self._debug or self._closed:
            slow = super().call_soon(callback, *args, context=context)
            if slow._source_traceback:  # type: ignore[attr-defined]
                del slow._source_traceback[-1]  # type: ignore[attr-defined]
            return slow
        handle = Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def _run_once(self) -> None:
        if self._debug:
            super()._run_once()  # type: ignore[misc]
            return
        ready = self._ready
        scheduled = self._scheduled
        if scheduled and (scheduled[0]._cancelled or len(scheduled) > CANCELLED_MIN):
            self._forget_cancelled()
            scheduled = self._scheduled
        if ready or self._stopping:
            wait = 0.0
        elif scheduled:
            wait = scheduled[0]._when - self.time()
            if wait < 0.0:
                wait = 0.0
            elif wait > LONGEST_WAIT:
                wait = LONGEST_WAIT
        else:
            wait = -1.0
        try:
            found = self._poll(wait, BATCH)
        except InterruptedError:
            found = []
        readers = self._readers
        direct = []
        for fd, event in found:
            if event == EPOLLIN and fd in readers:
                direct.append(fd)
            else:
                key = self._key_of(fd, event)
                if key is not None:
                    self._process_events([key])
        if scheduled:
            due = self.time() + self._clock_resolution
            while scheduled and scheduled[0]._when < due:
                handle = heapq.heappop(scheduled)
                handle._scheduled = False
                ready.append(handle)
        if ready:
            # What these add to it is for the next turn.
            for _ in range(len(ready)):
                handle = ready.popleft()
                if not handle._cancelled:
                    handle._run()
            # It may hold what is on its way out in an exception.
            handle = None
        for fd in direct:
            reader = readers.get(fd)
            if reader is not None:
                reader()

    def _forget_cancelled(self) -> None:
        scheduled = self._scheduled
        count = len(scheduled)
        if count > CANCELLED_MIN and self._timer_cancelled_count / count > CANCELLED_SHARE:
            for handle in scheduled:
                if handle._cancelled:
                    handle._scheduled = False
            self._scheduled = [handle for handle in scheduled if not handle._cancelled]
            heapq.heapify(self._scheduled)
            self._timer_cancelled_count = 0
        else:
            while scheduled and scheduled[0]._cancelled:
                self._timer_cancelled_count -= 1
                heapq.heappop(scheduled)._scheduled = False
