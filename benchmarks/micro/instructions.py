"""Counts the instructions of a request in whole servers: `python -m benchmarks.micro.instructions`.

Each server runs under callgrind, in a process and an environment as `benchmarks.load` has them, and answers requests
one after the other on one connection. What is counted are the instructions of its user space in all its threads,
between two dumps; the kernel's work is not among them. Unlike requests per second this does not bend with the machine.
`bare` is the least that can be built, for the loads without a body (`micro/bare.py`).
With `connections` in place of a load each request comes on a connection of its own. `upload-20m` has a body of 20 MB,
`websocket-64` and `websocket-16k` are messages that come back, and `file` and `tls-file` are sent by their path, which
the application of `file-read` does not do.
"""

import argparse
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from benchmarks.load import websocket_client
from benchmarks.load.peers import peers_python
from benchmarks.load.servers import SERVERS, Running, Server
from benchmarks.micro.requests import LOADS, MORE
from benchmarks.micro.requests import Counted as Load

WARM_UP = 300
SETTLING = 30
PATIENCE = 300.0
"""Seconds that a server may take to start under callgrind."""
KNOWN = LOADS | MORE
COUNTED = SERVERS | {"bare": Server("bare", "benchmarks.micro.bare {app} {port}", peer=False)}
DEFAULT = ("pounce", "pounce-uvloop", "uvicorn", "granian")


class Counted(Running):
    """A server under callgrind."""

    def _command(self, cores: str, arguments: list[str]) -> list[str]:
        return [
            "valgrind",
            "-q",
            "--tool=callgrind",
            f"--callgrind-out-file={self.folder.name}/out.%p",
            "--trace-children=yes",
            "--separate-threads=yes",
            # Until it has started it need not be that slow.
            "--instr-atstart=no",
            str(self.python),
            "-m",
            *arguments,
        ]

    def instructions(self) -> Counter[str]:
        """Those since the last time, by the process and the thread."""
        before = set(Path(self.folder.name).glob("out*"))
        self.control("--dump")
        written = set(Path(self.folder.name).glob("out*")) - before
        # Named after the process, the number of the dump, and the thread: out.4711.2-01
        return Counter(
            {
                f"{file.name.split('.')[1]}-{file.name[-2:]}": int(found[1])
                for file in written
                if (found := _summary(file.read_text()))
            }
        )

    def control(self, *arguments: str) -> None:
        """Tell callgrind something, in all its processes."""
        for pid in self._pids():
            if _is_counted(pid):
                subprocess.run(["callgrind_control", *arguments, str(pid)], check=True, capture_output=True)


_summary = re.compile(r"^(?:summary|totals): (\d+)", re.MULTILINE).search


def _is_counted(pid: int) -> bool:
    return "callgrind" in os.readlink(f"/proc/{pid}/exe")


class Client:
    """Asks one request after the other; with `keep` on one connection."""

    def __init__(self, port: int, load: Load, keep: bool) -> None:
        self._port = port
        self._request = load.request
        self._keep = keep
        self._websocket = load.websocket
        self._tls: ssl.SSLContext | None = None
        if load.tls:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self._tls.check_hostname = False
            self._tls.verify_mode = ssl.CERT_NONE
        self._socket: socket.socket | None = None
        self._number = 1000

    def ask(self, count: int) -> None:
        for _ in range(count):
            if self._socket is None:
                self._socket = self._connect()
            self._number += 1
            request = self._request(self._number)
            self._socket.sendall(request)
            if self._websocket:
                # The same without its mask.
                websocket_client.read(self._socket, len(request) - 4)
            else:
                self._read(self._socket)
            if not self._keep:
                self.close()

    def _connect(self) -> socket.socket:
        if self._websocket:
            return websocket_client.connect(self._port)
        sock = socket.create_connection(("127.0.0.1", self._port), 60)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock if self._tls is None else self._tls.wrap_socket(sock)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _read(self, sock: socket.socket) -> None:
        answer = b""
        while b"\r\n\r\n" not in answer:
            piece = sock.recv(65536)
            if not piece:
                raise ConnectionError("no answer")
            answer += piece
        head, _, body = answer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(f"answered with {head!r}")
        rest = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]) - len(body)
        while rest > 0:
            rest -= len(sock.recv(rest))


def measure(server: str, load: str, python: Path, flags: str = "", idle: bool = True) -> list[int]:
    """Instructions of one request, those of the busiest thread first; `flags` are added to what our own server is
    started with. Without `idle` what a server does in the same time when nobody asks is not counted: under callgrind
    that comes fifty times as often for each request."""
    asked = KNOWN["hello" if load == "connections" else load]
    count = asked.count
    chosen = COUNTED[server]
    if flags and not chosen.peer:
        arguments = chosen.arguments
        if "--access-log" in flags.split():
            # The command line says the contrary of both, and each may be said once.
            arguments = arguments.replace("--no-access-log --log-level warning", "")
        chosen = replace(chosen, arguments=f"{arguments} {flags}")
    with Counted(chosen, python, asked.app, tls=asked.tls, kind=asked.kind) as running:
        client = Client(running.port, asked, load != "connections")
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                client.ask(1)
                break
            except OSError:
                client.close()
                if time.monotonic() > deadline or running.process.poll() is not None:
                    raise SystemExit(f"{server} does not answer:\n{running.log()}") from None
                time.sleep(0.2)
        client.ask(min(WARM_UP, count))
        running.control("--instr=on")
        client.ask(min(SETTLING, count))
        running.instructions()
        started = time.monotonic()
        client.ask(count)
        found = running.instructions()
        if not idle:
            time.sleep(time.monotonic() - started)
            found.subtract(running.instructions())
        client.close()
        return sorted((round(each / count) for each in found.values()), reverse=True)


def main() -> None:
    known = [*KNOWN, "connections"]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.micro.instructions", description=__doc__)

    def names(known: Iterable[str]) -> Callable[[str], list[str]]:
        def parse(text: str) -> list[str]:
            chosen = text.split(",")
            if unknown := [name for name in chosen if name not in known]:
                raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
            return chosen

        return parse

    parser.add_argument("--servers", type=names(COUNTED), default=list(DEFAULT), help=", ".join(COUNTED))
    parser.add_argument("--loads", type=names(known), default=known, help=", ".join(known))
    parser.add_argument("--flags", default="", help="added to the command line of ours: --flags=--metrics-enabled")
    options = parser.parse_args()
    if missing := [tool for tool in ("valgrind", "callgrind_control") if shutil.which(tool) is None]:
        parser.error(f"needs {' and '.join(missing)}")
    print(f"| instructions for a request | {' | '.join(options.servers)} |")
    print("| --- |" + " ---: |" * len(options.servers))
    for load in options.loads:
        row = [
            sum(measure(name, load, peers_python() if COUNTED[name].peer else Path(sys.executable), options.flags))
            for name in options.servers
        ]
        print(f"| {load} | {' | '.join(f'{each:,}' for each in row)} |", flush=True)


if __name__ == "__main__":
    main()
