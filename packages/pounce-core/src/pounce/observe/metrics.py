"""Metrics: what one worker counts of its requests, for Prometheus; metrics_page.py shows those of all.

Kept as numbers in cells by method, status and version, so that a request costs a look-up and five additions. They get
their names when somebody adds up, which may be another thread that only reads them. A name here is that of the sample
with its labels, `http_requests_total{method=GET,status=200}`, and values have none of `{},=`: methods come from a list.
"""

import gc
import os
import resource
import sys
from bisect import bisect_left
from collections import Counter
from itertools import accumulate
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from pounce.contract.totals import Totals
from pounce.net.not_after import not_after

if TYPE_CHECKING:
    from pounce.contract.stream import Completed
    from pounce.contract.wire import Service

__all__ = ["BUCKETS", "Metrics", "sample"]

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, inf)
"""Upper bounds of the histograms, in seconds."""
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


class Durations:
    """A histogram."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * len(BUCKETS)
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        self.buckets[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds


class Cell(Durations):
    """What requests have in common that have one method, status and version."""

    __slots__ = ("sent",)

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0


class Metrics:
    """Observer of one worker."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._cells: dict[tuple[bytes, int, str], Cell] = {}
        self._streams: set[object] = set()
        """What upgrades have opened, and has not ended."""
        self._stream_durations = Durations()
        self._stream_bytes = 0
        self._ticked = service.loop.time()
        self._process: dict[str, float] = {}
        self._process_due = 0.0
        self._certificate: str | None = None
        """The last one whose end was looked up."""
        service.on_tick.add(self._tick)
        service.on_totals.add(self._fill)

    def completed(self, exchange: Completed) -> None:
        """Count a request, or the end of what an upgrade had opened."""
        head = exchange.head
        if self._streams and exchange in self._streams:
            self._streams.discard(exchange)
            self._stream_durations.add(monotonic() - exchange.started)
            self._stream_bytes += exchange.bytes_sent
            return
        cell = self._cells.get((head.method, exchange.status, head.version))
        if cell is None:
            cell = self._cell(head.method, exchange.status, head.version)
        seconds = monotonic() - exchange.started
        cell.buckets[bisect_left(BUCKETS, seconds)] += 1
        cell.seconds += seconds
        cell.sent += exchange.bytes_sent

    def upgraded(self, exchange: Completed) -> None:
        """The handshake is a request that was answered; what it has opened is counted at its end."""
        head = exchange.head
        self._cell(head.method, exchange.status, head.version).add(monotonic() - exchange.started)
        self._streams.add(exchange)

    def _cell(self, method: bytes, status: int, version: str) -> Cell:
        return self._cells.setdefault((method if method in METHODS else b"unknown", status, version), Cell())

    def _tick(self, now: float) -> None:
        gauges = self._service.gauges
        gauges[sample("pounce_event_loop_lag_seconds", worker=self._service.worker_id)] = self._lag(now)
        wires = Counter(connection.wire for connection in self._service.connections)
        for name in [name for name in gauges if name.startswith("pounce_connections{")]:
            gauges[name] = 0
        for wire, count in wires.items():
            gauges[sample("pounce_connections", wire=wire)] = count
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
        process[sample("process_resident_memory_bytes", pid=pid)] = _resident(used.ru_maxrss)
        if self._service.tls is not None:
            certificate = self._service.tls.context(self._service.loop.time()).certificate
            if certificate is not None and certificate != self._certificate:
                self._certificate = certificate
                process[sample("pounce_certificate_expiry_timestamp_seconds", pid=pid)] = not_after(certificate)
        for generation, found in enumerate(gc.get_stats()):
            process[sample("python_gc_collections_total", pid=pid, generation=generation)] = found["collections"]

    def _fill(self, totals: Totals) -> None:
        """See `Service.on_totals`: on any thread."""
        counts, gauges = totals.counts, totals.gauges
        requests, streams = Durations(), self._stream_durations
        sent = self._stream_bytes
        for (method, status, version), cell in self._cells.copy().items():
            buckets = cell.buckets.copy()
            name = sample("http_requests_total", method=method.decode(), status=status)
            counts[name] = counts.get(name, 0) + sum(buckets)
            name = sample("pounce_requests_total", protocol=version)
            counts[name] = counts.get(name, 0) + sum(buckets)
            requests.buckets = [a + b for a, b in zip(requests.buckets, buckets, strict=True)]
            requests.seconds += cell.seconds
            sent += cell.sent
        counts["http_bytes_sent_total"] = sent
        _put(counts, "http_request_duration_seconds", requests)
        _put(counts, "http_stream_duration_seconds", streams)
        open_streams = len(self._streams)
        gauges["http_streams_active"] = open_streams
        gauges["http_requests_in_flight"] = max(0, gauges["running"] - open_streams)
        gauges["http_connections_active"] = gauges["connections"]
        gauges["pounce_workers"] = 1
        totals.processes.update(self._process.copy())


def _put(counts: dict[str, float], name: str, found: Durations) -> None:
    for bound, count in zip(BUCKETS, accumulate(found.buckets.copy()), strict=True):
        counts[sample(f"{name}_bucket", le="+Inf" if bound == inf else bound)] = count
    counts[f"{name}_sum"] = found.seconds


def _resident(most: int) -> int:
    """Bytes of memory that the process has now; where the system does not tell, the most that it had (`ru_maxrss`)."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return most if sys.platform == "darwin" else most * 1024
