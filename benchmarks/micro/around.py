"""Counts what each thing around a request costs, in instructions: `python -m benchmarks.micro.around [NAME ...]`.

Our server under callgrind, as in `benchmarks.micro.instructions`, answers a small request with all of them off, then
with one of them on. What it does when nobody asks is left out. What its loop does more is what a client waits for; what
other threads do, such as the one that writes the log, is told beside it.
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks.micro.instructions import measure

OFF = "--no-compression"
LINES = "--access-log --access-log-format"


class Feature(NamedTuple):
    """What is switched on, and the load that it is measured by."""

    flags: str
    load: str = "hello"
    off: str = OFF
    """What is given where it is off."""
    also: str = OFF
    """What is given beside it."""


FEATURES = {
    "metrics": Feature("--metrics-enabled"),
    "request id": Feature("--request-id"),
    "access line, text": Feature(f"{LINES} text"),
    "access line, json": Feature(f"{LINES} json"),
    "access line, common": Feature(f"{LINES} common"),
    "access line, combined": Feature(f"{LINES} combined"),
    "compression, small answer": Feature("--compression", "accepts-encodings", also=""),
    "compression for nobody": Feature("--compression", also=""),
    "limit of concurrency": Feature("--limit-concurrency 100"),
    "limit of concurrency, queue": Feature("--limit-concurrency 100 --request-queue-enabled"),
    "server-timing": Feature("--server-timing"),
    "rate limit": Feature("--rate-limit-enabled --rate-limit-requests-per-second 1000000"),
    "trusted proxy": Feature("--trusted-hosts 127.0.0.1", "proxied", OFF + " --no-proxy-headers"),
    "fields of others": Feature("", "proxied", OFF + " --no-proxy-headers"),
    "time limit of applications": Feature("--app-timeout 60"),
    "metrics, request id, access line": Feature(f"--metrics-enabled --request-id {LINES} auto"),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.micro.around", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"begins one of: {', '.join(FEATURES)}")
    options = parser.parse_args()
    names = tuple(options.names) or ("",)
    chosen = {name: feature for name, feature in FEATURES.items() if name.startswith(names)}
    if not chosen:
        parser.error(f"unknown; known: {', '.join(FEATURES)}")
    without: dict[tuple[str, str], int] = {}
    print("| instructions for a request | off | more on the loop | on other threads |")
    print("| --- | ---: | ---: | ---: |")
    for name, feature in chosen.items():
        key = feature.load, feature.off
        if key not in without:
            without[key] = _count(feature.load, feature.off)[0]
        on_loop, *elsewhere = _count(feature.load, f"{feature.also} {feature.flags}")
        off = without[key]
        print(f"| {name} | {off:,} | {on_loop - off:+,} | {sum(elsewhere):,} |", flush=True)


def _count(load: str, flags: str) -> list[int]:
    return measure("pounce", load, Path(sys.executable), flags, idle=False)


if __name__ == "__main__":
    main()
