"""In which order things are measured, and what is known of each server at the end.

Every server is measured twice. First as fast as it goes, which says how much it can do. Then at a constant rate, the
same for all: half of what the slowest of them could do, unless one is given. Latencies are compared there: at its limit
a server only says how long its queue is.
"""

import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pounce.gil import gil_enabled
from pounce_cli.bench.client import Request
from pounce_cli.bench.load import Plan, Seen, Target, run_load
from pounce_cli.bench.servers import serving, version_of

__all__ = ["PERCENTILES", "Measured", "Order", "Outcome", "measure", "measure_url", "of_outcome"]

PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99)
CROWDED = 0.85
"""Share of its time from which the load itself may be what is slow."""

type Progress = Callable[[str], Callable[[float, int], object] | None]


class Order(NamedTuple):
    """What is to be measured."""

    request: Request
    plan: Plan
    protocol: str = "h1"
    workers: int = 1


@dataclass(frozen=True)
class Measured:
    """One server."""

    name: str
    version: str
    command: tuple[str, ...]
    full: Seen | None
    """As fast as it goes; None where a rate was given."""
    steady: Seen | None
    """At the constant rate."""
    memory: int | None
    """Bytes, after the load."""


@dataclass(frozen=True)
class Outcome:
    """Everything that was measured."""

    order: Order
    rate: float
    """The constant rate."""
    servers: tuple[Measured, ...]
    began: str
    machine: dict[str, Any]


def measure(order: Order, app: str, servers: Sequence[tuple[str, str]], progress: Progress) -> Outcome:
    """Start each of the servers, by name and interpreter, on the application, and measure it.

    `progress` is called with what comes next, and gives what is told how far it is. Raises `ConfigError` and
    `LoadError`, the former before anything is started.
    """
    versions = [version_of(name, python) for name, python in servers]
    began = datetime.now(UTC).isoformat(timespec="seconds")
    full: dict[str, Seen] = {}
    if not order.plan.rate:
        for name, python in servers:
            with serving(name, app, order.workers, python) as running:
                full[name] = run_load(_target(order, running.port), order.plan, progress(f"{name}, as fast as it goes"))
    rate = order.plan.rate or _half_of_the_slowest(full.values())
    measured = []
    for (name, python), version in zip(servers, versions, strict=True):
        with serving(name, app, order.workers, python) as running:
            steady = _steady(order, running.port, rate, progress, name)
            measured.append(
                Measured(name, version, tuple(running.command), full.get(name), steady, running.memory())
            )
    return Outcome(order, rate, tuple(measured), began, _machine())


def measure_url(order: Order, host: str, port: int, progress: Progress) -> Outcome:
    """Measure a server that is there. Raises `LoadError`."""
    began = datetime.now(UTC).isoformat(timespec="seconds")
    name = order.request.authority
    full = None
    if not order.plan.rate:
        full = run_load(_target(order, port, host), order.plan, progress(f"{name}, as fast as it goes"))
    rate = order.plan.rate or _half_of_the_slowest([full] if full is not None else [])
    steady = _steady(order, port, rate, progress, name, host)
    return Outcome(order, rate, (Measured(name, "", (), full, steady, None),), began, _machine())


def _steady(
    order: Order, port: int, rate: float, progress: Progress, name: str, host: str = "127.0.0.1"
) -> Seen | None:
    if rate < 1:
        return None
    plan = order.plan._replace(rate=rate)
    return run_load(_target(order, port, host), plan, progress(f"{name}, {rate:,.0f} in a second"))


def _target(order: Order, port: int, host: str = "127.0.0.1") -> Target:
    request = order.request
    if not request.authority:
        request = request._replace(authority=f"{host}:{port}")
    return Target(host, port, request, order.protocol)


def _half_of_the_slowest(all_seen: Any) -> float:
    return float(int(min((seen.rate for seen in all_seen), default=0.0) / 2))


def _machine() -> dict[str, Any]:
    return {
        "python": platform.python_version() + ("t" if "t" in sys.abiflags else ""),
        "gil": "on" if gil_enabled() else "off",
        "system": platform.platform(),
        "cpus": os.cpu_count(),
    }


def of_outcome(outcome: Outcome) -> dict[str, Any]:
    """All of it, for programs: times in milliseconds, sizes in bytes."""
    order = outcome.order
    return {
        "began": outcome.began,
        "machine": outcome.machine,
        "load": {
            "protocol": order.protocol,
            "method": order.request.method,
            "path": order.request.path,
            "body": len(order.request.body),
            "workers": order.workers,
            **order.plan._asdict(),
            "rate": outcome.rate,
        },
        "servers": [
            {
                "name": each.name,
                "version": each.version,
                "command": list(each.command),
                "memory": each.memory,
                "full": _seen(each.full),
                "steady": _seen(each.steady),
            }
            for each in outcome.servers
        ],
    }


def _seen(seen: Seen | None) -> dict[str, Any] | None:
    if seen is None:
        return None
    latencies = seen.latencies
    return {
        "rate": round(seen.rate, 1),
        "answers": seen.answers,
        "failed": seen.failed,
        "errors": seen.errors,
        "late": seen.late,
        "statuses": {str(status): count for status, count in sorted(seen.statuses.items())},
        "received": seen.received,
        "load_busy": round(seen.busy, 3),
        "seconds": seen.seconds,
        "latency_ms": {
            "mean": round(latencies.mean / 1000, 3),
            "max": latencies.longest / 1000,
            **{f"p{percent:g}": latencies.percentile(percent) / 1000 for percent in PERCENTILES},
        },
        "histogram_us": list(latencies.buckets()),
    }


