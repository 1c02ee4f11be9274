"""HTTP/3 beside others: `python -m benchmarks.h3 [--rounds 3] [--seconds 3] [--loads hello,down,up]`.

The servers are ours, and Hypercorn with aioquic in an environment of an ordinary Python, which is built on first use
and left out where there is no such interpreter. Each is started fresh on core 0, the generator runs on core 1; servers
take turns within a round. Medians, and the ratio to Hypercorn of the same round.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

from tests.clients.ordinary import python_with

from benchmarks.load.apps import HELLO
from benchmarks.load.certificate import certificate_files
from benchmarks.load.servers import ROOT, SERVER_CORE, environment, free_port

APPS = {"hello": "hello", "down": "mebibyte", "up": "swallow"}
LEAST = {"hello": len(HELLO), "down": 2**20, "up": 7}
"""Bytes that an answer has at the least."""
SHAPES = {
    "hello 1x16": ("hello", 1, 16),
    "hello 8x4": ("hello", 8, 4),
    "down 1x4": ("down", 1, 4),
    "up 1x4": ("up", 1, 4),
}
HYPERCORN = ("hypercorn[h3]==0.18.0", "aioquic==1.7.2")
LOAD_CORE = "1"


def commands(port: int, load: str, certificate: Path, key: Path) -> dict[str, list[str]]:
    app = f"benchmarks.load.apps:{APPS[load]}"
    files = ["--ssl-certfile", str(certificate), "--ssl-keyfile", str(key)]
    found = {
        "pounce": [
            *(sys.executable, "-m", "pounce_cli", "serve", app, "--port", str(port), "--http3", *files),
            *("--no-access-log", "--log-level", "warning", "--loop", "asyncio", "--max-request-size", "0"),
        ]
    }
    python, reason = python_with(*HYPERCORN)
    if python is None:
        print(f"without hypercorn: {reason}", file=sys.stderr)
    else:
        bind = f"127.0.0.1:{port}"
        found["hypercorn"] = [
            *(str(python), "-m", "hypercorn", app, "--bind", bind, "--quic-bind", bind),
            *("--certfile", str(certificate), "--keyfile", str(key), "--log-level", "warning"),
        ]
    return found


def measure(command: list[str], port: int, shape: tuple[str, int, int], seconds: int) -> float | str:
    load, connections, streams = shape
    with tempfile.TemporaryDirectory() as folder, open(Path(folder, "log"), "w+") as log:
        server = subprocess.Popen(
            ["taskset", "-c", SERVER_CORE, *command],
            cwd=folder,
            env=environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            wait_for_port(port, server)
            numbers = map(str, (connections, streams, seconds))
            client = [sys.executable, "-m", "benchmarks.h3.client", str(port), load, *numbers]
            done = subprocess.run(
                ["taskset", "-c", LOAD_CORE, *client], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
            )
        finally:
            # With its processes: its clients are gone without a word, and it would wait for their requests.
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        if done.returncode:
            return f"FAILED: {done.stderr.strip()[-200:]}"
    found = json.loads(done.stdout)
    # Part of the first and the last answers lies outside the time.
    if found["size"] < 0.95 * LEAST[load]:
        return f"FAILED: answers of {found['size']:.0f} bytes"
    if found["busy"] > 0.9:
        print(f"the generator was busy {found['busy']:.0%} of the time: it may be the limit", file=sys.stderr)
    rate: float = found["rate"]
    return rate


def wait_for_port(port: int, server: subprocess.Popen[bytes], patience: float = 20.0) -> None:
    """Until somebody has the UDP port."""
    deadline = time.monotonic() + patience
    while server.poll() is None and time.monotonic() < deadline:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                time.sleep(0.3)
                return
        time.sleep(0.05)
    raise SystemExit("a server did not start")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.h3", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--loads", default="hello,down,up")
    options = parser.parse_args()
    rates: dict[tuple[str, str], list[float]] = defaultdict(list)
    ratios: dict[tuple[str, str], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = certificate_files(Path(folder))
        for number in range(options.rounds):
            for name, shape in SHAPES.items():
                if shape[0] not in options.loads.split(","):
                    continue
                port = free_port()
                of_round: dict[str, float] = {}
                for server, command in commands(port, shape[0], certificate, key).items():
                    rate = measure(command, port, shape, options.seconds)
                    print(f"round {number + 1}, {name}, {server}: {rate}", file=sys.stderr, flush=True)
                    if isinstance(rate, float):
                        of_round[server] = rate
                for server, rate in of_round.items():
                    rates[name, server].append(rate)
                    if "hypercorn" in of_round:
                        ratios[name, server].append(rate / of_round["hypercorn"])
    print("| load | server | requests per second (ratio to hypercorn) |\n| --- | --- | --- |")
    for (name, server), found in rates.items():
        ratio = f" ({median(ratios[name, server]):.2f})" if ratios[name, server] else ""
        print(f"| {name} | {server} | {median(found):,.0f}{ratio} |")


if __name__ == "__main__":
    main()
