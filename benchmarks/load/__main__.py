"""Run the servers side by side and print what they did."""

import argparse
import json
import os
import shutil
import signal
import sys
import sysconfig
from collections.abc import Callable, Iterable
from dataclasses import asdict
from importlib import metadata
from itertools import product
from pathlib import Path

from benchmarks.load.loads import LOADS
from benchmarks.load.measure import LOAD_CORE, Sample, import_milliseconds, label, measure
from benchmarks.load.peers import PINNED, peers_python
from benchmarks.load.servers import SERVERS, Server
from benchmarks.load.table import report


def main() -> int:
    options = parse_arguments()
    for terminator in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(terminator, lambda number, _: sys.exit(128 + number))
    servers = [SERVERS[name] for name in dict.fromkeys([*options.servers, options.baseline])]
    peers = peers_python() if any(server.peer for server in servers) else Path(sys.executable)
    pythons = {server.name: peers if server.peer else Path(sys.executable) for server in servers}
    title = heading()
    print(title, flush=True)
    # This process polls and waits: it must not do so on the core of the server.
    os.sched_setaffinity(0, {int(LOAD_CORE)})

    samples: list[Sample] = []
    imports: dict[str, list[float]] = {label(*each): [] for each in product(servers, options.workers)}
    try:
        for number in range(1, options.rounds + 1):
            for load in options.loads:
                for server, workers in product(able(servers, load), options.workers):
                    sample = measure(server, workers, pythons[server.name], LOADS[load], options.seconds, number)
                    samples.append(sample)
                    result = "; ".join(sample.flags) or f"{sample.rate:,.0f}/s"
                    print(f"round {number}, {load}, {sample.server}: {result}", file=sys.stderr, flush=True)
            for server in servers:
                milliseconds = import_milliseconds(server, pythons[server.name])
                for workers in options.workers:
                    imports[label(server, workers)].append(milliseconds)
            # The next round begins with another server.
            servers = servers[1:] + servers[:1]
    except KeyboardInterrupt:
        print("interrupted; what there is so far:", file=sys.stderr)
    baseline = label(SERVERS[options.baseline], options.workers[0])
    print(report(samples, imports, list(imports), options.loads, baseline))
    print(f"\nLoad average afterwards: {load_average()}")
    if options.json:
        document = {"heading": title, "samples": list(map(asdict, samples)), "import_milliseconds": imports}
        options.json.write_text(json.dumps(document, indent=1))
    count = sum(len(able(servers, load)) for load in options.loads) * len(options.workers)
    complete = len(samples) == options.rounds * count
    return 0 if complete and not any(sample.flags for sample in samples) else 1


def able(servers: list[Server], load: str) -> list[Server]:
    """Those that speak the load's protocol, and have what it is about."""
    return [
        server
        for server in servers
        if (server.h2 or not LOADS[load].streams) and server.command(LOADS[load].kind)
    ]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)

    def names(known: Iterable[str]) -> Callable[[str], list[str]]:
        def parse(text: str) -> list[str]:
            chosen = text.split(",")
            if unknown := [name for name in chosen if name not in known]:
                raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
            return chosen

        return parse

    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--seconds", type=int, default=5, help="per load, default: %(default)s")
    parser.add_argument("--servers", type=names(SERVERS), default=list(SERVERS), help=", ".join(SERVERS))
    parser.add_argument("--loads", type=names(LOADS), default=list(LOADS), help=", ".join(LOADS))
    parser.add_argument("--baseline", choices=SERVERS, default="uvicorn", help="always runs, default: %(default)s")
    parser.add_argument("--workers", type=numbers, default=[1], help="of each server, for example 1,2; default: 1")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    options = parser.parse_args()
    tools = {"taskset"} | {"h2load" if LOADS[load].streams else "wrk" for load in options.loads}
    if missing := [tool for tool in sorted(tools) if shutil.which(tool) is None]:
        parser.error(f"needs {' and '.join(missing)}")
    if (os.cpu_count() or 1) < 2:
        parser.error("needs two cores: one for the server, one for the load")
    return options


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def heading() -> str:
    optimised = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    build = "optimised build" if optimised else "NOT AN OPTIMISED BUILD: the figures say little"
    versions = ", ".join([f"pounce-core=={metadata.version('pounce-core')}", *PINNED])
    return f"Python {sys.version.split(' [')[0]}, {build}\n\n{versions}\n\nLoad average before: {load_average()}"


def load_average() -> str:
    return " ".join(f"{load:.2f}" for load in os.getloadavg())


if __name__ == "__main__":
    sys.exit(main())
