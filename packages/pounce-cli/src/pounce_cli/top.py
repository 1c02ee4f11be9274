"""`pounce top`: a running server, looked at again and again."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from pounce.contract.totals import METRICS
from pounce.observe.logs import escaped_line
from pounce_cli.control import found_status

__all__ = ["look", "top"]

LATENCY = "http_request_duration_seconds_bucket{le="
WIRE = "pounce_connections{wire="
LAG = "pounce_event_loop_lag_seconds{worker="
MEMORY = "process_resident_memory_bytes{pid="
EVENTS_MAX = 12
BAR = 30
"""Characters of the longest bar."""


def top(path: str, *, interval: float, once: bool, as_json: bool) -> None:
    """Show the server at `path` every `interval` seconds until the user interrupts, or once, or as lines of JSON.

    Raises `ConfigError` when none answers at `path`.
    """
    console = Console()
    before = _status(path)
    since = time.monotonic()
    live = None if once or as_json else Live(console=console, screen=console.is_terminal, auto_refresh=False)
    try:
        if live is not None:
            live.start()
        while True:
            time.sleep(interval)
            found, now = _status(path), time.monotonic()
            seen = look(before, found, now - since)
            before, since = found, now
            if as_json:
                print(json.dumps(seen), flush=True)
            elif live is not None:
                live.update(_page(seen), refresh=True)
            else:
                console.print(_page(seen))
            if once:
                return
    except KeyboardInterrupt:
        sys.stdout.flush()
    finally:
        if live is not None:
            live.stop()


def _status(path: str) -> dict[str, Any]:
    def known(found: dict[str, Any]) -> Iterator[None]:
        look(found, found, 1.0)
        yield None

    return found_status(path, known)[0]


def look(before: Mapping[str, Any], found: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """What is to be seen of a server by two of its statuses, so many seconds apart.

    Latencies, wires, memory and the lag of loops are there where `metrics_enabled` is on.
    """
    earlier, counts, gauges = before["counts"], found["counts"], found["gauges"]

    def rate(name: str) -> float:
        # A server that was upgraded counts anew.
        return max(0.0, float(counts.get(name, 0)) - float(earlier.get(name, 0))) / seconds

    buckets = [(name.removeprefix(LATENCY).rstrip("}"), name) for name in counts if name.startswith(LATENCY)]
    upto = [(bound, counts[name] - earlier.get(name, 0)) for bound, name in buckets]
    latencies = {}
    reached = 0.0
    for bound, count in upto:
        latencies[bound] = max(0.0, count - reached)
        reached = max(reached, count)
    events = {name: rate(name) for name in counts if not name.startswith(METRICS) and name != "requests"}
    workers = [
        {
            "process": process["pid"],
            "state": str(process["state"]),
            **worker,
            "lag": gauges.get(f"{LAG}{worker['number']}}}"),
        }
        for process in found["processes"]
        for worker in process["workers"]
    ]
    return {
        "version": str(found["version"]),
        "pid": int(found["pid"]),
        "state": str(found["state"]),
        "urls": [str(url) for url in found["urls"]],
        "uptime_seconds": float(found["uptime_seconds"]),
        "requests_per_second": round(rate("requests"), 1),
        "running": gauges["running"],
        "connections": gauges["connections"],
        "wires": {name[len(WIRE) : -1]: value for name, value in gauges.items() if name.startswith(WIRE)},
        "memory_bytes": sum(value for name, value in gauges.items() if name.startswith(MEMORY)) or None,
        "latencies": latencies,
        "events_per_second": {name: round(value, 2) for name, value in events.items() if value},
        "workers": workers,
    }


def _page(seen: Mapping[str, Any]) -> Group:
    urls = ", ".join(seen["urls"])
    head = Text(escaped_line(f"pounce {seen['version']}  pid {seen['pid']}  {seen['state']}  {urls}"))
    memory = f"   memory {seen['memory_bytes'] / 1048576:.0f} MiB" if seen["memory_bytes"] else ""
    wires = ", ".join(f"{name} {count:.0f}" for name, count in seen["wires"].items() if count)
    line = Text(
        escaped_line(
            f"{seen['requests_per_second']:.1f} requests/s   running {seen['running']:.0f}"
            f"   connections {seen['connections']:.0f}{f' ({wires})' if wires else ''}{memory}"
        ),
        style="bold",
    )
    table = Table(box=None, pad_edge=False)
    for title in ("process", "state", "worker", "connections", "running", "served", "silent", "lag"):
        table.add_column(title, justify="left" if title == "state" else "right")
    for worker in seen["workers"]:
        lag = worker["lag"]
        table.add_row(
            str(worker["process"]),
            escaped_line(worker["state"]),
            str(worker["number"]),
            str(worker["connections"]),
            str(worker["requests"]),
            str(worker["served"]),
            f"{worker['silence']:.1f} s",
            f"{lag * 1000:.0f} ms" if lag is not None else "",
        )
    parts: list[Any] = [head, line, Panel(table, title="workers", title_align="left")]
    if seen["latencies"]:
        parts.append(Panel(_histogram(seen["latencies"]), title="answers within seconds", title_align="left"))
    if seen["events_per_second"]:
        ordered = sorted(seen["events_per_second"].items(), key=lambda item: -item[1])[:EVENTS_MAX]
        events = "\n".join(escaped_line(f"{value:>10.2f}  {name}") for name, value in ordered)
        parts.append(Panel(Text(events), title="per second", title_align="left"))
    return Group(*parts)


def _histogram(latencies: Mapping[str, float]) -> Text:
    most = max(latencies.values()) or 1
    lines = [
        f"{bound:>6}  {'█' * round(BAR * count / most):<{BAR}} {count:.0f}" for bound, count in latencies.items()
    ]
    return Text("\n".join(map(escaped_line, lines)))
