"""What one hostile connection does to the latency of another client: `python -m benchmarks.neighbour`.

For each loop, parser and kind of hostility a server is started on core 0. On core 1 a neighbour asks for one small
answer after the other: first alone, then while a hostile client floods the same worker. The table has its 50th and
99th percentiles and the longest time in milliseconds, and the ratio of the 99th ones. Beside them stands how much
processor time the turn of the server's loop took into which a moment fell, the 99th percentile of all moments and the
longest: what a neighbour has to wait for, also where the machine is too busy for its own times to say anything.
"""

import argparse
import bisect
import itertools
import json
import math
import os
import select
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.h3 import client as h3
from benchmarks.load.certificate import certificate_files
from benchmarks.load.measure import LOAD_CORE
from benchmarks.load.servers import ROOT, SERVER_CORE, environment, free_port
from benchmarks.neighbour.hostile import DATAGRAMS, KINDS

LOOPS = ("asyncio", "uvloop")
PARSERS = ("h1fast", "h11")
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
SETTLE = 0.5
"""Seconds of hostility before the neighbour is timed."""
PATIENCE = 20.0
"""Seconds after which a neighbour gives up."""


class Times(NamedTuple):
    """Milliseconds."""

    p50: float
    p99: float
    longest: float


@contextmanager
def server(loop: str, parser: str, kind: str, files: tuple[Path, Path]) -> Iterator[int]:
    """A server of one worker; its port."""
    port = free_port()
    command = [
        *("taskset", "-c", SERVER_CORE, sys.executable, "-m", "pounce_cli", "serve", "benchmarks.neighbour.app:app"),
        *("--port", str(port), "--loop", loop, "--http-parser", parser, "--no-access-log", "--log-level", "error"),
        *("--max-request-size", "0"),
    ]
    if kind in DATAGRAMS or kind.endswith("TLS"):
        command += ["--ssl-certfile", str(files[0]), "--ssl-keyfile", str(files[1])]
    if kind in DATAGRAMS:
        command += ["--http3"]
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(command, cwd=folder, env=environment(), start_new_session=True)
        try:
            deadline = time.monotonic() + 20
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise SystemExit("a server did not start") from None
                    time.sleep(0.05)
            yield port
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def hostile(port: int, kind: str) -> Iterator[None]:
    command = ["taskset", "-c", LOAD_CORE, sys.executable, "-m", "benchmarks.neighbour.hostile", str(port), kind]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise SystemExit("the hostile client did not come to anything")
        time.sleep(SETTLE)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def over_tcp(port: int, tls: bool) -> Callable[[], None]:
    """What asks for one answer."""
    sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
    if tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        sock = context.wrap_socket(sock)

    def ask() -> None:
        sock.sendall(REQUEST)
        received = b""
        while not received.endswith(b"Hello, world!"):
            more = sock.recv(65536)
            if not more:
                raise SystemExit("the neighbour was thrown out")
            received += more

    return ask


def over_quic(port: int) -> Callable[[], None]:
    client = h3.Connection(port, "hello", 1)

    def ask() -> None:
        before, end = client.answered, time.monotonic() + PATIENCE
        while client.answered == before:
            timer = client.quic.get_timer()
            if time.monotonic() > end:
                raise TimeoutError
            wait = 1.0 if timer is None else max(0.0, timer - time.monotonic())
            client.turn(bool(select.select([client.sock], [], [], wait)[0]))

    return ask


def timed(ask: Callable[[], None], seconds: float) -> Times:
    clock = time.perf_counter
    times: list[float] = []
    end = clock() + seconds
    while (began := clock()) < end:
        try:
            ask()
        except TimeoutError:
            return Times(math.inf, math.inf, math.inf)
        times.append((clock() - began) * 1000)
    times.sort()
    return Times(times[len(times) // 2], times[len(times) * 99 // 100], times[-1])


def turns(port: int, tls: bool, seconds: float) -> Times:
    """How long the turns of the server's loop are into which moments fall."""
    context = None
    if tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    url = f"http{'s' if tls else ''}://127.0.0.1:{port}"
    try:
        urllib.request.urlopen(f"{url}/watch?{seconds}", context=context, timeout=PATIENCE).read()
        time.sleep(seconds)
        times = json.load(urllib.request.urlopen(f"{url}/turns", context=context, timeout=PATIENCE))
    except OSError:
        return Times(math.inf, math.inf, math.inf)
    until = list(itertools.accumulate(times))
    return Times(*(times[bisect.bisect_left(until, share * until[-1])] for share in (0.5, 0.99)), times[-1])


def measure(
    loop: str, parser: str, kind: str, seconds: float, files: tuple[Path, Path]
) -> tuple[Times, Times, Times]:
    with server(loop, parser, kind, files) as port:
        tls = kind in DATAGRAMS or kind.endswith("TLS")
        ask = over_quic(port) if kind in DATAGRAMS else over_tcp(port, tls)
        timed(ask, 0.5)
        quiet = timed(ask, seconds)
        with hostile(port, kind):
            return quiet, timed(ask, seconds), turns(port, tls, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.neighbour", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--loops", default=",".join(LOOPS))
    parser.add_argument("--kinds", default="", help="parts of their names, separated by commas; all without")
    options = parser.parse_args()
    # So that nothing that was started is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    os.sched_setaffinity(0, {int(LOAD_CORE)})
    wanted = options.kinds.split(",")
    print(f"load average {os.getloadavg()[0]:.1f}\n")
    columns = "hostility | loop | parser | quiet p50 | p99 | beside it p50 | p99 | longest | ratio | turn p99 | longest"
    print(f"| {columns} |\n|" + " --- |" * 11)
    with tempfile.TemporaryDirectory() as folder:
        files = certificate_files(Path(folder))
        for kind in KINDS:
            if not any(part in kind for part in wanted):
                continue
            for loop in options.loops.split(","):
                for name in PARSERS if kind.startswith("h1") else PARSERS[:1]:
                    quiet, beside, turn = measure(loop, name, kind, options.seconds, files)
                    print(
                        f"| {kind} | {loop} | {name} | {quiet.p50:.2f} | {quiet.p99:.2f} | {beside.p50:.2f} |"
                        f" {beside.p99:.2f} | {beside.longest:.1f} | {beside.p99 / quiet.p99:.1f} |"
                        f" {turn.p99:.2f} | {turn.longest:.2f} |",
                        flush=True,
                    )
    print(f"\nload average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
