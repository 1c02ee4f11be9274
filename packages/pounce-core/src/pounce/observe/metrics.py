"""Metrics: what one worker counts of its requests, for Prometheus; metrics_page.py shows those of all.

Kept as numbers in cells by version, method and status, so that a request costs three look-ups of what it has, and five
additions. They get their names when somebody adds up, which may be another thread that only reads them. A name here is
that of the sample with its labels, `http_requests_total{method=GET,status=200}`, and values have none of `{},=`:
methods come from a list.
"""

import gc
import os
import resource
import sys
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from math import inf
from time import monotonic, time
from typing import TYPE_CHECKING

from pounce.contract.totals import Totals
from pounce.net.not_after import not_after
from pounce.observe.losses import losses
from pounce.resident import resident_bytes

if TYPE_CHECKING:
    from pounce.contract.stream import Completed
    from pounce.contract.wire import Service

__all__ = ["BUCKETS", "Metrics", "sample"]

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, inf)
"""Upper bounds of the histograms of durations, in seconds."""
SIZES = (100.0, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, inf)
"""Upper bounds of those of sizes, in bytes."""
QUICK = BUCKETS[0]
SMALL = int(SIZES[0])
"""Most requests are within the first bounds: one comparison, where a search is four."""
LARGER = tuple(int(size) for size in SIZES[:-1])
"""Bounds that are searched: a whole number is compared with a float in several times as long."""
METHODS = frozenset(
    (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"QUERY")
)
"""What has a label of its own; others are `unknown`, for a client can make up as many as it likes."""
INTERVAL = 0.25
"""Seconds between two ticks, as `pounce.worker.ticker` has them."""
PROCESS_EVERY = 1.0
"""Seconds between two looks at the process."""


def sample(name: str, **labels: object) -> str:
    """The name of a number, with its labels."""
    return f"{name}{{{','.join(f'{label}={value}' for label, value in labels.items())}}}"


class Histogram:
    """How often a value was within which bound."""

    __slots__ = ("bounds", "buckets", "total")

    def __init__(self, bounds: tuple[float, ...] = BUCKETS) -> None:
        self.bounds = bounds
        self.buckets = [0] * len(bounds)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.buckets[bisect_left(self.bounds, value)] += 1
        self.total += value

    def plus(self, other: Histogram) -> None:
        """Take on what another one has counted."""
        self.buckets = [a + b for a, b in zip(self.buckets, other.buckets.copy(), strict=True)]
        self.total += other.total


class Cell(Histogram):
    """What requests have in common that have one method, status and version: what was sent, and how long those took
    whose answer was over when it began. Nothing is counted twice, so that no sum of it ever falls."""

    __slots__ = ("sent", "sizes", "streamed")

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0
        self.streamed = 0
        self.sizes = [0] * len(SIZES)


class Metrics:
    """Observer of one worker."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._cells: dict[str, dict[bytes, dict[int, Cell]]] = {}
        self._streams: set[object] = set()
        """What upgrades have opened, and has not ended."""
        self._stream_durations = Histogram()
        self._stream_bytes = 0
        self._streamed, self._first_bytes = Histogram(), Histogram()
        """How long the answers took that were not over when they began, and how long it took until they began."""
        self._received = Histogram(SIZES)
        self._queued = Histogram()
        self._exemplars: dict[int, tuple[str, float, float]] | None = {} if service.config.otel_endpoint else None
        """The last trace in each bucket of durations; None where there are none."""
        self._looks_closer = self._exemplars is not None or service.config.limit_concurrency > 0
        """Requests may have traces, or may have waited."""
        self._ticked = service.loop.time()
        self._lag_name = sample("pounce_event_loop_lag_seconds", worker=service.worker_id)
        self._wires: dict[str, str] = {}
        """The gauges of connections, by their wires."""
        self._process: dict[str, float] = {}
        self._process_due = 0.0
        self._certificate: str | None = None
        """The last one whose end was looked up."""
        service.on_tick.add(self._tick)
        service.on_totals.add(self._fill)

    def completed(self, exchange: Completed) -> None:
        """Count a request, or the end of what an upgrade had opened."""
        if self._streams and exchange in self._streams:
            self._streams.discard(exchange)
            self._stream_durations.add(monotonic() - exchange.started)
            self._stream_bytes += exchange.bytes_sent
            return
        head = exchange.head
        try:
            cell = self._cells[head.version][head.method][exchange.status]
        except KeyError:
            cell = self._cell(head.version, head.method, exchange.status)
        seconds, sent = monotonic() - exchange.started, exchange.bytes_sent
        bucket = 0 if seconds <= QUICK else bisect_left(BUCKETS, seconds)
        cell.sizes[0 if sent <= SMALL else bisect_left(LARGER, sent)] += 1
        cell.sent += sent
        try:
            first_byte, received = exchange.first_byte, exchange.bytes_received  # type: ignore[attr-defined]
        except AttributeError:
            # What an upgrade has opened, and has neither accepted nor answered.
            first_byte, received = None, 0
        if first_byte is None:
            cell.buckets[bucket] += 1
            cell.total += seconds
        else:
            cell.streamed += 1
            self._streamed.add(seconds)
            self._first_bytes.add(first_byte - exchange.started)
        if received:
            self._received.add(received)
        if self._looks_closer:
            self._look_closer(exchange, bucket, seconds)

    def _look_closer(self, exchange: Completed, bucket: int, seconds: float) -> None:
        if exchange.queued:
            self._queued.add(exchange.queued)
        if self._exemplars is not None:
            trace_id = getattr(exchange, "trace_id", None)
            if trace_id is not None:
                self._exemplars[bucket] = trace_id, seconds, time()

    def upgraded(self, exchange: Completed) -> None:
        """The handshake is a request that was answered; what it has opened is counted at its end."""
        head = exchange.head
        self._cell(head.version, head.method, exchange.status).add(monotonic() - exchange.started)
        self._streams.add(exchange)

    def _cell(self, version: str, method: bytes, status: int) -> Cell:
        methods = self._cells.setdefault(version, {})
        return methods.setdefault(method if method in METHODS else b"unknown", {}).setdefault(status, Cell())

    def _tick(self, now: float) -> None:
        gauges, names = self._service.gauges, self._wires
        gauges[self._lag_name] = self._lag(now)
        wires = Counter([connection.wire for connection in self._service.connections])
        for wire in wires:
            if wire not in names:
                names[wire] = sample("pounce_connections", wire=wire)
        for wire, name in names.items():
            gauges[name] = wires[wire]
        if self._service.place == 0 and now >= self._process_due:
            self._process_due = now + PROCESS_EVERY
            self._look_at_process()

    def _lag(self, now: float) -> float:
        """Seconds by which the loop comes round later than it was asked to."""
        late, self._ticked = now - self._ticked - INTERVAL, now
        return max(0.0, late)

    def _look_at_process(self) -> None:
        process, pid = self._process, os.getpid()
        used = resource.getrusage(resource.RUSAGE_SELF)
        process[sample("process_cpu_seconds_total", pid=pid)] = used.ru_utime + used.ru_stime
        process[sample("process_resident_memory_bytes", pid=pid)] = resident_bytes() or _most_resident(used.ru_maxrss)
        if lost := losses.take():
            counts = self._service.counts
            counts["log_lines_dropped"] = counts.get("log_lines_dropped", 0) + lost
        if self._service.tls is not None:
            certificate = self._service.tls.context(self._service.loop.time()).certificate
            if certificate is not None and certificate != self._certificate:
                self._certificate = certificate
                process[sample("pounce_certificate_expiry_timestamp_seconds", pid=pid)] = not_after(certificate)
        for generation, found in enumerate(gc.get_stats()):
            process[sample("python_gc_collections_total", pid=pid, generation=generation)] = found["collections"]

    def _all_cells(self) -> Iterator[tuple[str, bytes, int, Cell]]:
        for version, methods in self._cells.copy().items():
            for method, statuses in methods.copy().items():
                for status, cell in statuses.copy().items():
                    yield version, method, status, cell

    def _fill(self, totals: Totals) -> None:
        """See `Service.on_totals`: on any thread."""
        counts, gauges = totals.counts, totals.gauges
        requests, answers = Histogram(), Histogram(SIZES)
        answers.total = self._stream_bytes
        for version, method, status, cell in self._all_cells():
            count = sum(cell.buckets) + cell.streamed
            name = sample("http_requests_total", method=method.decode(), status=status)
            counts[name] = counts.get(name, 0) + count
            name = sample("pounce_requests_total", protocol=version)
            counts[name] = counts.get(name, 0) + count
            requests.plus(cell)
            answers.buckets = [a + b for a, b in zip(answers.buckets, cell.sizes.copy(), strict=True)]
            answers.total += cell.sent
        counts["http_bytes_sent_total"] = answers.total
        answers.total -= self._stream_bytes
        first_bytes = Histogram()
        first_bytes.plus(requests)
        first_bytes.plus(self._first_bytes)
        requests.plus(self._streamed)
        _put(counts, "http_request_duration_seconds", requests)
        _put(counts, "http_response_first_byte_seconds", first_bytes)
        _put(counts, "http_stream_duration_seconds", self._stream_durations)
        _put(counts, "http_response_size_bytes", answers)
        _put(counts, "http_request_size_bytes", self._received)
        if self._service.config.limit_concurrency:
            _put(counts, "pounce_request_queue_wait_seconds", self._queued)
        open_streams = len(self._streams)
        gauges["http_streams_active"] = open_streams
        gauges["http_requests_in_flight"] = max(0, gauges["running"] - open_streams)
        gauges["http_connections_active"] = gauges["connections"]
        gauges["pounce_workers"] = 1
        totals.processes.update(self._process.copy())
        for bucket, exemplar in (self._exemplars or {}).copy().items():
            totals.exemplars[_bucket("http_request_duration_seconds", BUCKETS[bucket])] = exemplar


def _bucket(name: str, bound: float) -> str:
    return sample(f"{name}_bucket", le="+Inf" if bound == inf else bound)


def _put(counts: dict[str, float], name: str, found: Histogram) -> None:
    for bound, count in zip(found.bounds, accumulate(found.buckets.copy()), strict=True):
        counts[_bucket(name, bound)] = count
    counts[f"{name}_sum"] = found.total


def _most_resident(found: int) -> int:
    """Bytes, of what `ru_maxrss` says."""
    return found if sys.platform == "darwin" else found * 1024
