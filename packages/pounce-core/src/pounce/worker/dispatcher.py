"""Dispatcher: accepts for the workers of one process and gives each connection to the least loaded of them.

    listening sockets ──▶ dispatcher (a thread) ──▶ inbox of a worker ──▶ Worker.take() on the worker's own loop

The kernel hands connections to whoever asks first, and that is a worker with nothing to do only by chance: one that has
just taken sixty asks again as eagerly as the others. One accepting thread that sees the load of all of them spreads
connections evenly. TLS handshakes, which a peer can stretch, are the worker's affair.

A connection in an inbox belongs to nobody yet. When its worker stands still, the dispatcher takes it back out and gives
it to another one: whoever pops it from the inbox owns it.
"""

import asyncio
import collections
import functools
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable

from pounce.net.bind import Listener
from pounce.worker.acceptor import BATCH, PAUSE, Listening, report_failure
from pounce.worker.worker import Worker

__all__ = ["BEAT", "Dispatcher", "Inbox"]

log = logging.getLogger("pounce.net")

BEAT = 0.25
"""Seconds between two signs of life of a worker's loop."""
LATE = 1.0
"""Seconds without a sign of life after which a worker gets connections only where no other can take them."""


class Inbox:
    """What one worker is given by the dispatcher, and what the dispatcher knows of it.

    `load`, `put`, `take_back` and `late` may be used from any thread.
    """

    def __init__(self, worker: Worker, loop: asyncio.AbstractEventLoop) -> None:
        self._worker = worker
        self._loop = loop
        self._waiting: collections.deque[tuple[int, socket.socket]] = collections.deque()
        self.given = 0
        """Connections that it was handed, in all."""
        self.beat = time.monotonic()
        """When the loop last showed a sign of life."""

    def show_life(self) -> None:
        """Set `beat` now and again, as long as the loop runs; call on the loop."""
        self.beat = time.monotonic()
        self._loop.call_later(BEAT, self.show_life)

    @property
    def late(self) -> bool:
        """The worker's loop stands still, at least for a moment."""
        return time.monotonic() - self.beat > LATE

    @property
    def waiting(self) -> bool:
        """There are connections that the worker has not taken yet."""
        return bool(self._waiting)

    @property
    def load(self) -> tuple[int, int]:
        """Connections, with those that wait here, and running requests."""
        connections, requests = self._worker.load
        return connections + len(self._waiting), requests

    def put(self, listener: int, sock: socket.socket) -> bool:
        """Hand over a connection; False when the worker has ended, and the connection is still the caller's."""
        self.given += 1
        self._waiting.append((listener, sock))
        try:
            self._loop.call_soon_threadsafe(self._take)
        except RuntimeError:
            # Its loop is closed.
            try:
                self._waiting.remove((listener, sock))
            except ValueError:
                # Another thread has taken it back in the meantime, and owns it.
                return True
            return False
        return True

    def take_back(self) -> list[tuple[int, socket.socket]]:
        """The connections that the worker has not taken yet; they are the caller's now."""
        found: list[tuple[int, socket.socket]] = []
        while self._waiting:
            try:
                found.append(self._waiting.popleft())
            except IndexError:
                break
        return found

    def _take(self) -> None:
        try:
            listener, sock = self._waiting.popleft()
        except IndexError:
            # It was taken back.
            return
        self._worker.take(listener, sock)


class Dispatcher:
    """Accepts on `listeners` in a thread of its own, as long as there is a worker."""

    def __init__(self, listeners: list[Listener]) -> None:
        self._listeners = listeners
        self._sockets = [listener.sock for listener in listeners]
        self._listening = [Listening(sock) for sock in self._sockets]
        self._lock = threading.Lock()
        """Protects `_inboxes`, `_left` and the giving to one of them: after `remove()` an inbox gets nothing more."""
        self._inboxes: list[Inbox] = []
        self._left: Inbox | None = None
        """The last one that was removed, while there is none."""
        self._stopping: Callable[[], None] | None = None
        """What to do last, once the thread is to end."""
        self._accepting = False
        self._paused_until = 0.0
        self._selector = selectors.DefaultSelector()
        self._wake, self._waker = socket.socketpair()
        for sock in (self._wake, self._waker):
            sock.setblocking(False)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="pounce acceptor", daemon=True)
        self._thread.start()

    def add(self, inbox: Inbox) -> None:
        """Give connections to this worker too."""
        with self._lock:
            self._inboxes.append(inbox)
            left, self._left = self._left, None
        self._notify()
        if left is not None:
            self._give(left.take_back())

    def remove(self, inbox: Inbox) -> None:
        """Give this worker nothing more. What it has not taken yet goes to the others, or else to the next one to come,
        unless it takes it before."""
        with self._lock:
            if inbox not in self._inboxes:
                return
            self._inboxes.remove(inbox)
            if not self._inboxes:
                self._left = inbox
                return
        self._give(inbox.take_back())

    def stop(self, *, empty: bool) -> None:
        """Close the listeners, with `empty` after accepting what clients have already opened.

        Returns when that is done.
        """
        self._stopping = functools.partial(self._close, empty=empty)
        self._notify()
        self._thread.join()

    def _notify(self) -> None:
        try:
            self._waker.send(b"\0")
        except OSError:
            # Full, then the thread wakes anyway; or closed, then it has ended.
            pass

    # The thread

    def _run(self) -> None:
        try:
            while self._stopping is None:
                pause = self._paused_until - time.monotonic()
                self._listen(on=bool(self._inboxes) and pause <= 0)
                self._turn(max(0.0, pause) if pause > 0 else None)
            self._listen(on=False)
            self._stopping()
        finally:
            self._selector.close()
            self._wake.close()
            self._waker.close()

    def _listen(self, *, on: bool) -> None:
        if on == self._accepting:
            return
        self._accepting = on
        for number, sock in enumerate(self._sockets):
            if on:
                self._selector.register(sock, selectors.EVENT_READ, number)
            else:
                self._selector.unregister(sock)

    def _turn(self, timeout: float | None) -> None:
        if timeout is None and any(inbox.waiting for inbox in tuple(self._inboxes)):
            timeout = LATE / 2
        for key, _ in self._selector.select(timeout):
            if key.data is None:
                self._wake.recv(4096)
                continue
            for _ in range(BATCH):
                if not self._accept_one(key.data) or not self._listening[key.data].more(0):
                    break
        self._redistribute()

    def _close(self, *, empty: bool) -> None:
        for number, listener in enumerate(self._listeners):
            while empty and self._inboxes and self._accept_one(number):
                pass
            # At once: who connects from now on must be refused, not left waiting for nobody.
            listener.close()

    def _accept_one(self, number: int) -> bool:
        """Take one connection; False when there is none, or none can be taken now."""
        try:
            found = self._listening[number].accept()
        except OSError as exc:
            report_failure(exc)
            self._paused_until = time.monotonic() + PAUSE
            return False
        if found is not None:
            self._give([(number, found[0])])
        return found is not None

    def _give(self, connections: list[tuple[int, socket.socket]]) -> None:
        """To each the worker with the least to do; one that stands still only where all do."""
        while connections:
            listener, sock = connections.pop()
            with self._lock:
                inbox = min(self._inboxes, key=lambda inbox: (inbox.late, inbox.load, inbox.given), default=None)
                if inbox is None:
                    # The last worker ended in this very moment.
                    sock.close()
                    continue
                if inbox.put(listener, sock):
                    continue
                self._inboxes.remove(inbox)
            connections += [(listener, sock), *inbox.take_back()]

    def _redistribute(self) -> None:
        """Take connections away from workers that stand still, where another one is there for them."""
        inboxes = tuple(self._inboxes)
        late = [inbox for inbox in inboxes if inbox.waiting and inbox.late]
        if late and not all(inbox.late for inbox in inboxes):
            for inbox in late:
                self._give(inbox.take_back())
