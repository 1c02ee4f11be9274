"""Status: what a server tells over its control socket of how it does."""

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from pounce.contract.totals import Totals
from pounce.worker.state import WorkerState

__all__ = ["status_of"]


def status_of(
    state: str,
    *,
    urls: Sequence[str],
    started_at: float,
    workers: int,
    mode: str,
    processes: Iterable[tuple[int, str, Iterable[WorkerState]]],
    totals: Totals,
) -> dict[str, Any]:
    """What `pounce status` shows. `started_at` is by `time.time()`; of each process its id, its state and its workers.

    `state` is starting, serving, reloading or ending.
    """
    from pounce import __version__

    return {
        "version": __version__,
        "pid": os.getpid(),
        "state": state,
        "urls": list(urls),
        "uptime_seconds": round(time.time() - started_at, 1),
        "workers": workers,
        "worker_mode": mode,
        "processes": [
            {"pid": pid, "state": how, "workers": [asdict(worker) for worker in its_own]}
            for pid, how, its_own in processes
        ],
        "counts": totals.counts,
        "gauges": totals.gauges | totals.processes,
    }
