"""Counts what a request costs a server: `python -m benchmarks.h3.work [--servers pounce,bare] [--loads hello,down,up]`.

Ours beside the least that can be built on the same engine (`bare.py`). Requests come on one connection, each when all
of the one before, or of the burst before, were answered:

    instructions   of user space, under callgrind; they do not bend with the machine
    time           of processor, kernel included, in microseconds; only ratios say something
    sent, received datagrams for each system call, those that found nothing included, as strace counts them

The clock of the client stands nearly still, so that under callgrind it does not lose patience. The server's does not:
the figures of `down` and `up` bend by some percent with what a slow server does about its timers.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.h3.__main__ import APPS, wait_for_port
from benchmarks.h3.client import Connection
from benchmarks.load.certificate import certificate_files
from benchmarks.load.servers import environment, free_port

SHAPES = {"hello": ("hello", 1), "hello-16": ("hello", 16), "down": ("down", 1), "up": ("up", 1)}
"""What is asked for, and how many requests make a burst."""
COUNTS = {"hello": (300, 3000), "hello-16": (480, 8000), "down": (6, 60), "up": (6, 60)}
"""Requests under callgrind, and otherwise."""
WARM_UP = {"hello": 200, "hello-16": 320, "down": 3, "up": 3}
PATIENCE = 300.0
SLOWER = 50
"""How much slower than others the clock of the client is under callgrind."""
NO_REPETITION = {
    "GLIBC_TUNABLES": "glibc.cpu.x86_rep_stosb_threshold=1000000000:glibc.cpu.x86_rep_movsb_threshold=1000000000"
}
"""Callgrind counts an instruction that repeats itself once for each byte."""
PATIENT = "from pounce_cli import main; from pounce_h3 import qh3_engine as e; e.COST = e.COST_MAX = 60.0; main.main()"
"""Ours takes packets that cost it as much as they do under callgrind for an attack."""
CALLS = re.compile(r"^(?:\d+ +)?(recvmmsg|recvmsg|recvfrom|sendmsg|sendmmsg|sendto)\(", re.MULTILINE)


class Client(Connection):
    """A connection that asks when it is told to."""

    def __init__(self, port: int, load: str, slower: int = 1) -> None:
        began = time.monotonic()
        super().__init__(port, load, 0, lambda: began + (time.monotonic() - began) / slower)
        self.connected = False
        self._due = 0

    def begin(self) -> None:
        super().begin()
        self.connected = True

    def ask(self, count: int, at_once: int) -> None:
        """So many requests, in bursts; each of them when the one before was answered."""
        for _ in range(count // at_once):
            self._due = self.answered + at_once
            for _ in range(at_once):
                self.send_request()
            self.flush()
            self.wait(lambda: self.answered >= self._due)

    def wait(self, is_there: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not is_there():
            self.turn(self.readable(0.1))
            if time.monotonic() > deadline:
                raise SystemExit("a server does not answer")


def command(server: str, port: int, load: str, certificate: Path, key: Path) -> list[str]:
    if server == "bare":
        return ["-m", "benchmarks.h3.bare", "--port", str(port), str(certificate), str(key), load]
    app = f"benchmarks.load.apps:{APPS[load]}"
    return [
        *("-c", PATIENT, "serve", app, "--port", str(port), "--http3", "--no-access-log", "--loop", "asyncio"),
        *("--ssl-certfile", str(certificate), "--ssl-keyfile", str(key), "--log-level", "warning"),
    ]


@contextmanager
def running(server: str, load: str, *around: str) -> Iterator[tuple[subprocess.Popen[bytes], int, Path]]:
    """A server, its port and its folder; `around` is what its interpreter runs under, with FOLDER for the folder."""
    port = free_port()
    with tempfile.TemporaryDirectory() as name, Path(name, "log").open("wb") as log:
        folder = Path(name)
        certificate, key = certificate_files(folder)
        process = subprocess.Popen(
            [each.replace("FOLDER", name) for each in around]
            + [sys.executable, *command(server, port, load, certificate, key)],
            cwd=name,
            env=environment() | NO_REPETITION,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            wait_for_port(port, process, PATIENCE)
            yield process, port, folder
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def connected(port: int, load: str, slower: int = 1) -> Iterator[Client]:
    client = Client(port, load, slower)
    with client.sock:
        client.wait(lambda: client.connected)
        yield client


def instructions(server: str, shape: str) -> float:
    """Of one request."""
    load, at_once = SHAPES[shape]
    around = ("valgrind", "-q", "--tool=callgrind", "--callgrind-out-file=FOLDER/out.%p", "--instr-atstart=no")
    with running(server, load, *around) as (process, port, folder), connected(port, load, SLOWER) as client:

        def dumped() -> int:
            before = set(folder.glob("out*"))
            subprocess.run(["callgrind_control", "--dump", str(process.pid)], check=True, capture_output=True)
            texts = [file.read_text() for file in set(folder.glob("out*")) - before]
            return sum(int(found[1]) for text in texts if (found := _summary(text)))

        client.ask(WARM_UP[shape], at_once)
        subprocess.run(["callgrind_control", "--instr=on", str(process.pid)], check=True, capture_output=True)
        count = COUNTS[shape][0]
        client.ask(max(count // 10, at_once), at_once)
        dumped()
        client.ask(count, at_once)
        return dumped() / count


_summary = re.compile(r"^(?:summary|totals): (\d+)", re.MULTILINE).search


def seconds(server: str, shape: str) -> float:
    """Processor time of one request."""
    load, at_once = SHAPES[shape]
    with running(server, load) as (process, port, _), connected(port, load) as client:
        client.ask(WARM_UP[shape], at_once)
        before, count = _ran(process.pid), COUNTS[shape][1]
        client.ask(count, at_once)
        return (_ran(process.pid) - before) / count


def _ran(pid: int) -> float:
    """Seconds that all threads of a process have run."""
    files = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(file.read_text().split()[0]) for file in files) / 1e9


def calls(server: str, shape: str) -> tuple[float, float]:
    """Datagrams for each system call that sends, and for each that receives."""
    load, at_once = SHAPES[shape]
    around = ("strace", "-f", "-qq", "-s", "0", "-e", "trace=network", "-o", "FOLDER/calls")
    with running(server, load, *around) as (_, port, folder), connected(port, load) as client:
        client.ask(WARM_UP[shape], at_once)
        before = len(_calls(folder)), client.sent, client.arrived
        client.ask(COUNTS[shape][0], at_once)
        found = _calls(folder)[before[0] :]
        to_client = sum(name.startswith("send") for name in found)
        from_client = len(found) - to_client
        return (client.arrived - before[2]) / to_client, (client.sent - before[1]) / from_client


def _calls(folder: Path) -> list[str]:
    return [found[1] for found in CALLS.finditer(Path(folder, "calls").read_text())]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.h3.work", description=__doc__)
    parser.add_argument("--servers", default="pounce,bare")
    parser.add_argument("--loads", default=",".join(SHAPES), help=", ".join(SHAPES))
    parser.add_argument("--rounds", type=int, default=3, help="of the processor time, whose least is shown")
    options = parser.parse_args()
    if missing := [tool for tool in ("valgrind", "callgrind_control", "strace") if shutil.which(tool) is None]:
        parser.error(f"needs {', '.join(missing)}")
    print("| load | server | instructions | time, µs | sent | received |\n| --- | --- | ---: | ---: | ---: | ---: |")
    for shape in options.loads.split(","):
        for server in options.servers.split(","):
            taken = min(seconds(server, shape) for _ in range(options.rounds))
            sent, received = calls(server, shape)
            counted = instructions(server, shape)
            print(f"| {shape} | {server} | {counted:,.0f} | {taken * 1e6:,.0f} | {sent:.1f} | {received:.1f} |")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
