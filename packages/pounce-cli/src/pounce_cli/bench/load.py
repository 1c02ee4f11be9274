"""Many clients on several threads, and what they saw.

Each thread has its own connections, selector, histogram and counters, so nothing is shared while it runs. There are two
ways to send. As fast as it goes: whenever an answer is complete its connection sends the next request, and the latency
is from there on. At a constant rate: requests are due at fixed times, whatever the server does, and a latency counts
from when its request was due. So a server that stands still for a second is charged with all requests of that second,
not with the one per connection that was on its way (coordinated omission, as Gil Tene has named it).
"""

import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from pounce.errors import PounceError
from pounce_cli.bench.client import Answers, Client, Request
from pounce_cli.bench.h1 import H1
from pounce_cli.bench.h2 import H2
from pounce_cli.bench.histogram import Histogram

__all__ = ["LoadError", "Plan", "Seen", "Target", "run_load"]

READ_SIZE = 262144
PATIENCE = 5.0
"""Seconds that answers which are on their way at the end are waited for."""
RETRIES = 20
"""Failures of one thread to connect, one after the other, after which it gives up."""


class LoadError(PounceError):
    """No load can be put on the server."""

    default_code = "POUNCE_BENCH_NO_SERVER"


class Target(NamedTuple):
    """Where the load goes."""

    host: str
    port: int
    request: Request
    protocol: str = "h1"
    """`h1` or `h2`."""


class Plan(NamedTuple):
    """How the load is."""

    duration: float = 10.0
    connections: int = 50
    threads: int = 2
    depth: int = 1
    """Requests that are on their way at once on a connection."""
    rate: float = 0.0
    """Requests in a second; 0 is as fast as it goes."""
    warm_up: float = 1.0
    """Seconds before anything is counted."""


@dataclass
class Seen:
    """What was seen."""

    latencies: Histogram = field(default_factory=Histogram)
    """From when a request was due, where there is a rate, else from when it was sent."""
    service: Histogram = field(default_factory=Histogram)
    """From when it was sent."""
    answers: int = 0
    failed: int = 0
    """Answers whose status is 400 or above."""
    errors: int = 0
    """Requests without an answer: refused, reset, broken off."""
    received: int = 0
    """Bytes."""
    late: int = 0
    """Requests of a constant rate that were still not sent at the end."""
    seconds: list[int] = field(default_factory=list)
    """Answers in each second."""
    statuses: dict[int, int] = field(default_factory=dict)
    elapsed: float = 0.0
    busy: float = 0.0
    """Share of its time that the load itself was computing, of what its threads could have."""

    @property
    def rate(self) -> float:
        """Answers in a second."""
        return self.answers / self.elapsed if self.elapsed else 0.0

    def add(self, other: Seen) -> None:
        """Count what another thread has seen."""
        self.latencies.add(other.latencies)
        self.service.add(other.service)
        self.answers += other.answers
        self.failed += other.failed
        self.errors += other.errors
        self.received += other.received
        self.late += other.late
        for status, count in other.statuses.items():
            self.statuses[status] = self.statuses.get(status, 0) + count
        longer = max(len(self.seconds), len(other.seconds))
        both = (self.seconds + [0] * longer, other.seconds + [0] * longer)
        self.seconds = [one + more for one, more in zip(both[0][:longer], both[1][:longer], strict=True)]


class _Connection:
    """A socket, its client, and the requests that are on their way on it."""

    def __init__(self, target: Target, context: ssl.SSLContext | None) -> None:
        self.client: Client = H2(target.request) if target.protocol == "h2" else H1(target.request)
        sock = socket.create_connection((target.host, target.port), timeout=10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock: socket.socket = sock if context is None else context.wrap_socket(sock, server_hostname=target.host)
        self.is_tls = context is not None
        self.sock.setblocking(False)
        self.waiting: deque[tuple[float, float]] = deque()
        """When each was due, and when it was sent."""
        self.unsent = bytearray(self.client.begin)
        self.ends = False
        self.is_blocked = False
        """Bytes wait for the server to take them."""

    def send(self, dues: list[float], now: float) -> bool:
        """Send a request for each of these times; False where not all of it has left."""
        self.waiting.extend([(due, now) for due in dues])
        return self.write(self.client.requests(len(dues)))

    def write(self, data: bytes = b"") -> bool:
        if self.unsent:
            data = bytes(self.unsent) + data
            self.unsent.clear()
        try:
            sent = self.sock.send(data) if data else 0
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            sent = 0
        if sent < len(data):
            self.unsent += data[sent:]
        return not self.unsent

    def read(self) -> bytes | None:
        """What came; None at the end of the connection."""
        pieces: list[bytes] = []
        while True:
            try:
                data = self.sock.recv(READ_SIZE)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            if not data:
                return b"".join(pieces) or None
            pieces.append(data)
            # Over TLS more may be there than the socket shows.
            if not self.is_tls and len(data) < READ_SIZE:
                break
        return b"".join(pieces)


class _Thread:
    """One thread of the load."""

    def __init__(self, target: Target, plan: Plan, share: Plan, context: ssl.SSLContext | None) -> None:
        self.seen = Seen()
        self.error: BaseException | None = None
        self.cpu = 0.0
        self.began = threading.Event()
        self._target, self._plan, self._share = target, plan, share
        self._context = context
        self._selector = selectors.DefaultSelector()
        self._idle: deque[_Connection] = deque()
        """Those that may take a request of a constant rate; one may be in it several times."""
        self._start = self._end = 0.0
        self._failures = 0

    def run(self, barrier: threading.Barrier) -> None:
        try:
            connections = [self._connect() for _ in range(self._share.connections)]
            barrier.wait()
            began = time.thread_time()
            self._drive(connections)
            self.cpu = time.thread_time() - began
        except threading.BrokenBarrierError:
            pass
        except BaseException as exc:  # noqa: BLE001, it is raised where the threads are waited for
            self.error = exc
            barrier.abort()
        finally:
            for key in list(self._selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]
            self._selector.close()

    def _connect(self) -> _Connection:
        while True:
            try:
                connection = _Connection(self._target, self._context)
                break
            except OSError as exc:
                self._failures += 1
                if self._failures >= RETRIES:
                    raise LoadError(f"nobody answers at {self._target.host}:{self._target.port}: {exc}") from exc
                time.sleep(0.05)
        self._failures = 0
        self._selector.register(connection.sock, selectors.EVENT_READ, connection)
        self._watch(connection, connection.write())
        return connection

    def _drive(self, connections: list[_Connection]) -> None:
        now = time.perf_counter()
        self._start = now + self._plan.warm_up
        self._end = self._start + self._plan.duration
        if self._share.rate:
            self._at_a_rate(connections, now)
        else:
            self._as_fast_as_it_goes(connections, now)
        self._wait_for_the_last()

    def _as_fast_as_it_goes(self, connections: list[_Connection], now: float) -> None:
        for connection in connections:
            self._watch(connection, connection.send([now] * self._share.depth, now))
        while (now := time.perf_counter()) < self._end:
            for connection, done in self._events(self._end - now):
                if done and not connection.ends:
                    now = time.perf_counter()
                    self._watch(connection, connection.send([now] * done, now))

    def _at_a_rate(self, connections: list[_Connection], now: float) -> None:
        interval, due = 1 / self._share.rate, now
        for _ in range(self._share.depth):
            self._idle.extend(connections)
        while True:
            now = time.perf_counter()
            while due <= min(now, self._end) and self._idle:
                connection = self._idle.popleft()
                if connection.ends:
                    continue
                self._watch(connection, connection.send([due], now))
                due += interval
            if now >= self._end:
                break
            wait = due - now if due > now else self._end - now
            for connection, done in self._events(min(wait, self._end - now)):
                self._idle.extend([connection] * done)
        self.seen.late = max(0, int((self._end - due) / interval))

    def _wait_for_the_last(self) -> None:
        """Answers that are on their way count: a server that is slow at the end is slow."""
        until = time.perf_counter() + PATIENCE
        while (now := time.perf_counter()) < until:
            open_ones = [key.data for key in self._selector.get_map().values()]
            if not any(connection.waiting for connection in open_ones):
                return
            self._events(until - now)
        self.seen.errors += sum(len(key.data.waiting) for key in self._selector.get_map().values())

    def _events(self, timeout: float) -> list[tuple[_Connection, int]]:
        """Wait, read what is there, and give each connection with the number of its answers that are complete."""
        found = []
        for key, events in self._selector.select(max(timeout, 0)):
            connection: _Connection = key.data
            try:
                if events & selectors.EVENT_WRITE:
                    self._watch(connection, connection.write())
                if events & selectors.EVENT_READ:
                    found.append((connection, self._read(connection)))
            except (OSError, ValueError) as exc:
                found += self._lost(connection, exc)
        return found

    def _read(self, connection: _Connection) -> int:
        data = connection.read()
        if data is None:
            statuses = connection.client.closed()
            self._count(connection, statuses, 0)
            raise ConnectionResetError("the server has ended the connection")
        answers: Answers = connection.client.received(data)
        self._count(connection, answers.statuses, len(data))
        if answers.reply:
            self._watch(connection, connection.write(answers.reply))
        if answers.closes:
            connection.ends = True
            if not connection.waiting:
                raise ConnectionResetError("the server ends the connection")
        return len(answers.statuses)

    def _lost(self, connection: _Connection, error: Exception) -> list[tuple[_Connection, int]]:
        """Another connection in the place of one that is over."""
        self._selector.unregister(connection.sock)
        connection.sock.close()
        lost = len(connection.waiting)
        now = time.perf_counter()
        if now >= self._start:
            self.seen.errors += lost
        connection.waiting.clear()
        connection.ends = True
        if now >= self._end:
            return []
        if isinstance(error, ValueError):
            raise LoadError(f"{self._target.host}:{self._target.port} does not speak {self._target.protocol}: {error}")
        self._idle = deque(each for each in self._idle if each is not connection)
        return [(self._connect(), self._share.depth)]

    def _count(self, connection: _Connection, statuses: list[int], size: int) -> None:
        now = time.perf_counter()
        counted = now >= self._start
        seen = self.seen
        seen.received += size if counted else 0
        for status in statuses:
            due, sent = connection.waiting.popleft()
            if not counted:
                continue
            if not status:
                seen.errors += 1
                continue
            seen.latencies.record(int((now - due) * 1e6))
            if self._share.rate:
                seen.service.record(int((now - sent) * 1e6))
            seen.answers += 1
            seen.failed += status >= 400
            seen.statuses[status] = seen.statuses.get(status, 0) + 1
        if counted and statuses:
            second = int(now - self._start)
            if second >= len(seen.seconds):
                seen.seconds.extend([0] * (second + 1 - len(seen.seconds)))
            seen.seconds[second] += len(statuses)

    def _watch(self, connection: _Connection, all_sent: bool) -> None:
        if all_sent is connection.is_blocked:
            connection.is_blocked = not all_sent
            wanted = selectors.EVENT_READ if all_sent else selectors.EVENT_READ | selectors.EVENT_WRITE
            self._selector.modify(connection.sock, wanted, connection)


def run_load(target: Target, plan: Plan, progress: Callable[[float, int], object] | None = None) -> Seen:
    """Put the load on the server, and return what was seen.

    `progress` is called several times in a second, with the share of the time that is over and the answers so far.
    Raises `LoadError` where nobody answers, or not in that protocol.
    """
    context = _context(target) if target.request.scheme == "https" else None
    number = max(1, min(plan.threads, plan.connections))
    shares = [
        plan._replace(
            connections=plan.connections // number + (index < plan.connections % number), rate=plan.rate / number
        )
        for index in range(number)
    ]
    threads = [_Thread(target, plan, share, context) for share in shares]
    barrier = threading.Barrier(number)
    running = [threading.Thread(target=each.run, args=(barrier,), name="pounce bench", daemon=True) for each in threads]
    began = time.perf_counter()
    for thread in running:
        thread.start()
    whole = plan.warm_up + plan.duration
    while any(thread.is_alive() for thread in running):
        running[0].join(0.1)
        if not running[0].is_alive():
            for thread in running:
                thread.join()
        if progress is not None:
            progress(min(1.0, (time.perf_counter() - began) / whole), sum(each.seen.answers for each in threads))
    for each in threads:
        if each.error is not None:
            raise each.error
    total = Seen()
    for each in threads:
        total.add(each.seen)
    # What comes behind the end is counted with its latency, but in no second of its own.
    total.seconds = total.seconds[: max(1, int(plan.duration))]
    total.elapsed = plan.duration
    total.busy = sum(each.cpu for each in threads) / (whole * number)
    return total


def _context(target: Target) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # What is measured is how fast it is, not who it is.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"] if target.protocol == "h2" else ["http/1.1"])
    return context


