"""EpollLoop: asyncio's loop, with a shorter way from the kernel to a connection.

Theory of operation. Between epoll and a protocol asyncio has a list of keys, a handle, a context to run it in and a
transport, each with its own look at what has come. Nearly all that a server waits for are bytes on connections that it
has made. So a connection may have its descriptor read by itself (`read_directly`): while that has nothing but bytes to
read, its reader is called as it is. Everything else goes the way of asyncio, of which this loop is one: other
descriptors, a connection that is to be written to, has an error or was hung up, and everything in debug mode.

One turn of the loop: look for events, make ready what timers are due, run what is ready, then the readers; one that was
taken away in the meantime is not called. In asyncio a reader comes before the timers of its turn. Nothing can rely on
that, since it is the network that decides in which turn bytes come. Where there is one reader to call and nothing else,
what it makes ready is run at once: in the next turn it would come first, whatever the loop had found before it. Where
it makes nothing ready, the next turn begins without a way through asyncio.

For how long to wait is the time of the next timer less that of the clock, and whoever serves many short requests would
ask for both each time. So a timer that is the next one in two turns is given to the kernel, as one more descriptor that
becomes readable: until another one is the next, the loop waits without an end of its own.

At most `BATCH` events are taken at a time. asyncio takes all there are, and looks for new ones only when it is through
with them. A request that comes in just too late then waits for two rounds over all busy connections instead of one:
that is the 99th percentile.

It stands on what asyncio has below its documented surface in CPython 3.14; elsewhere `worker.loop` takes asyncio's own.
"""

import asyncio
import contextvars
import heapq
import os
import selectors
import socket
import time
from collections.abc import Callable, Sized
from math import inf
from select import EPOLLIN, EPOLLOUT
from typing import Any, cast

from pounce.net.connection import Connection
from pounce.net.direct_transport import DirectTransport

__all__ = ["BATCH", "EpollLoop", "FairSelector"]

BATCH = 16
"""Events that are handled before the loop looks for new ones."""
LONGEST_WAIT = 86_400.0
"""Seconds that epoll waits at most; asyncio has the same bound."""
SHORT_WAIT = 0.001
"""Seconds for which the kernel's timer is not worth setting."""
CANCELLED_MIN = 100
CANCELLED_SHARE = 0.5
"""So many timers, and this share of them cancelled, are thrown out before their time."""
WAKE_BYTES = 4096

READ = selectors.EVENT_READ


class FairSelector(selectors.EpollSelector):
    """Gives out at most `BATCH` events at a time, those first that have waited longest."""

    make_key: Callable[[int], object]
    """Called for a descriptor that has no key, which may be made then."""

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
            self.make_key(fd)
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

    # What is looked up in each turn: asyncio's attributes are too many for CPython to find by their place.
    __slots__ = (
        "_armed",
        "_context",
        "_direct",
        "_key_of",
        "_keys",
        "_poll",
        "_readers",
        "_register",
        "_seen",
        "_timer",
        "_unregister",
        "get_debug",
        "is_running",
        "time",
    )

    transport = DirectTransport
    """What connections have that it has accepted; see `pounce.net.opening`."""

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
    _transports: Any

    def __init__(self) -> None:
        self.time = time.monotonic  # type: ignore[method-assign]
        """As asyncio's method, by one call less."""
        # Each task asks for both. What C calls without a way through Python takes a third.
        self.get_debug = self.is_running = False.__bool__  # type: ignore[method-assign]
        self._readers: dict[int, Callable[[], object]] = {}
        """Of descriptors that are read directly. Without a key of asyncio's they are registered for reading alone."""
        self._direct: dict[int, DirectTransport] = {}
        """As asyncio's `_transports`, which takes far longer to keep references that do not count. Transports enter and
        leave it themselves."""
        selector: Any = FairSelector()
        selector.make_key = self._make_key
        self._key_of = selector.key_of
        self._keys: dict[int, selectors.SelectorKey] = selector._fd_to_key
        self._poll = selector._selector.poll
        self._register = selector._selector.register
        self._unregister = selector._selector.unregister
        self._context = contextvars.copy_context()
        """Of readers that are called in asyncio's way after all."""
        self._seen = self._armed = -inf
        """When the timer is due that was the next one in the last turn, and the one that the kernel has."""
        self._timer = -1
        super().__init__(selector)
        try:
            self._timer = os.timerfd_create(time.CLOCK_MONOTONIC, flags=os.TFD_NONBLOCK | os.TFD_CLOEXEC)
        except OSError:
            # It goes without.
            return
        self.read_directly(self._timer, self._timer_expired)

    @property
    def waiting(self) -> tuple[Sized, int]:
        """The callbacks that wait, and how many events the loop takes at a time: while more wait than that, whatever is
        new should get in line."""
        return self._ready, BATCH

    def read_directly(self, fd: int, reader: Callable[[], object]) -> None:
        """Call `reader` while there is something to read. It sees to what it raises itself.

        In the place of a transport's own reader: whoever calls this has told the transport to pause.
        """
        key = self._keys.get(fd)
        if key is None:
            if fd not in self._readers:
                self._register(fd, EPOLLIN)
        elif key.events == READ:
            key.data[0].cancel()
            del self._keys[fd]
        else:
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

    def _make_key(self, fd: int) -> None:
        """Have asyncio know of a descriptor that is read directly: it is about to do something with it."""
        reader = self._readers.get(fd)
        if reader is not None and fd not in self._keys:
            data = Handle(reader, (), self, self._context), None
            self._keys[fd] = selectors.SelectorKey(fd, fd, READ, data)

    def _add_reader(self, fd: Any, callback: Callable[..., object], *args: Any) -> asyncio.Handle:
        number = fd if type(fd) is int else fd.fileno()
        self._make_key(number)
        self._readers.pop(number, None)
        handle: asyncio.Handle = super()._add_reader(fd, callback, *args)  # type: ignore[misc]
        return handle

    def _remove_reader(self, fd: Any) -> bool:
        if type(fd) is not int:
            fd = fd.fileno()
        reader = self._readers.pop(fd, None)
        key = self._keys.get(fd)
        if key is not None:
            if key.events != READ:
                removed: bool = super()._remove_reader(fd)  # type: ignore[misc]
                return removed
            # As asyncio and its selector do.
            del self._keys[fd]
            key.data[0].cancel()
        elif reader is None:
            return False
        try:
            self._unregister(fd)
        except OSError:
            # It was closed already.
            pass
        return True

    def _add_writer(self, fd: Any, callback: Callable[..., object], *args: Any) -> asyncio.Handle:
        self._make_key(fd if type(fd) is int else fd.fileno())
        handle: asyncio.Handle = super()._add_writer(fd, callback, *args)  # type: ignore[misc]
        return handle

    def _remove_writer(self, fd: Any) -> bool:
        if type(fd) is int and fd not in self._keys:
            return False
        removed: bool = super()._remove_writer(fd)  # type: ignore[misc]
        return removed

    def close(self) -> None:
        super().close()
        self._readers.clear()
        timer, self._timer = self._timer, -1
        if timer >= 0:
            os.close(timer)

    def _ensure_fd_no_transport(self, fd: Any) -> None:
        if self._direct:
            number = fd if type(fd) is int else fd.fileno()
            if number in self._direct and not self._direct[number].is_closing():
                raise RuntimeError(f"File descriptor {fd!r} is used by transport {self._direct[number]!r}")
        super()._ensure_fd_no_transport(fd)  # type: ignore[misc]

    def _make_ssl_transport(
        self,
        rawsock: socket.socket,
        protocol: Any,
        sslcontext: Any,
        waiter: Any = None,
        *,
        server_side: bool = False,
        server_hostname: Any = None,
        extra: Any = None,
        server: Any = None,
        **timeouts: Any,
    ) -> Any:
        if not server_side or not isinstance(protocol, Connection):
            names = {"server_side": server_side, "server_hostname": server_hostname, "extra": extra, "server": server}
            return super()._make_ssl_transport(rawsock, protocol, sslcontext, waiter, **names, **timeouts)  # type: ignore[misc]
        from pounce.net.direct_tls import Below, DirectTLS

        tls = DirectTLS(self, protocol, sslcontext, waiter, timeouts)
        try:
            peer = rawsock.getpeername()
        except OSError:
            peer = None
        below = Below(self, rawsock, cast(Any, tls), peer)
        tls.begin(below)
        return tls._app_transport

    async def _sendfile_native(self, transp: Any, file: Any, offset: int, count: int) -> int:
        if self._direct.pop(transp._sock_fd, None) is not None:
            # Where those that asyncio has made are from the beginning.
            self._transports[transp._sock_fd] = transp
        sent: int = await super()._sendfile_native(transp, file, offset, count)  # type: ignore[misc]
        return sent

    def _read_from_self(self) -> None:
        # Once: what is left makes it readable again.
        try:
            self._process_self_data(self._ssock.recv(WAKE_BYTES))
        except BlockingIOError, InterruptedError:
            pass

    def set_debug(self, enabled: bool) -> None:
        super().set_debug(enabled)
        # In debug mode nobody looks whether it has expired.
        self._seen = self._armed = -inf
        self.get_debug = bool(enabled).__bool__  # type: ignore[method-assign]

    def _run_forever_setup(self) -> None:
        super()._run_forever_setup()  # type: ignore[misc]
        self.is_running = True.__bool__  # type: ignore[method-assign]

    def _run_forever_cleanup(self) -> None:
        self.is_running = False.__bool__  # type: ignore[method-assign]
        super()._run_forever_cleanup()  # type: ignore[misc]

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
        readers = self._readers
        while True:
            scheduled = self._scheduled
            if scheduled and (scheduled[0]._cancelled or len(scheduled) > CANCELLED_MIN):
                self._forget_cancelled()
                scheduled = self._scheduled
            if ready or self._stopping:
                wait = 0.0
            elif scheduled:
                when = scheduled[0]._when
                wait = -1.0 if when == self._armed else self._wait_until(when)
            else:
                wait = -1.0
            try:
                found = self._poll(wait, BATCH)
            except InterruptedError:
                found = []
            if not wait or len(found) != 1:
                break
            # Nearly always there is nothing else to be done. A timer that has become due meanwhile comes next, before
            # what is found then.
            fd, event = found[0]
            if event != EPOLLIN:
                break
            reader = readers.get(fd)
            if reader is None:
                break
            try:
                reader()
            except SystemExit, KeyboardInterrupt:
                raise
            except BaseException as exc:  # noqa: BLE001 - as asyncio's handles do
                self._reader_failed(exc)
            if self._stopping or self._debug:
                return
            if ready:
                # Whoever waited for what has come goes on before the loop looks for more.
                found = []
                break
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
                try:
                    reader()
                except SystemExit, KeyboardInterrupt:
                    raise
                except BaseException as exc:  # noqa: BLE001 - as asyncio's handles do
                    self._reader_failed(exc)

    def _wait_until(self, when: float) -> float:
        """Seconds to wait for a timer that the kernel has not yet; -1 where it has it now."""
        wait = when - self.time()
        if wait <= 0.0:
            return 0.0
        if wait > LONGEST_WAIT:
            return LONGEST_WAIT
        if when == self._seen and self._timer >= 0 and wait >= SHORT_WAIT:
            os.timerfd_settime(self._timer, initial=wait)
            self._armed = when
            return -1.0
        self._seen = when
        return wait

    def _timer_expired(self) -> None:
        self._armed = -inf
        try:
            os.read(self._timer, 8)
        except BlockingIOError:
            # Another time was set meanwhile.
            pass

    def _reader_failed(self, exc: BaseException) -> None:
        self.call_exception_handler({"message": "Exception in a reader", "exception": exc})

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
