"""Which objects several workers touch for each request: `python -m benchmarks.micro.sharing [KIND]`.

KIND is curl, chrome, echo, chunked or h2.

A reference to an object of another thread is given back by `_Py_DecRefShared()`, so a debugger that stops there sees
every one of them. Two worker threads serve requests over sockets; what both of them touch is listed with how often they
do for a request. Needs gdb and a free-threaded Python. What timers touch shows too, for under a debugger they are often
due: `call_at` and what is called by it.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived

from benchmarks.micro.__main__ import CHROME, CURL
from pounce.testing import TestServer

WORKERS = 2
REQUESTS = 40
WARM_UP = 300
LEAST = 0.1
"""Touches for each request below which an object is not listed."""
SETTLING = 0.6
"""Seconds after which all modules have been seen to."""
ATTACHING = 8.0
"""Seconds that the debugger takes to be there."""

HEAD = b"POST /items HTTP/1.1\r\nHost: test\r\nContent-Type: application/octet-stream\r\n"
DATA = {
    "curl": CURL,
    "chrome": CHROME,
    "echo": HEAD + b"Content-Length: 1024\r\n\r\n" + b"x" * 1024,
    "chunked": HEAD + b"Transfer-Encoding: chunked\r\n\r\n400\r\n" + b"x" * 1024 + b"\r\n0\r\n\r\n",
}

SCRIPT = """
import gdb

THREADS = {threads!r}
log = open({log!r}, "w")

class Count(gdb.Breakpoint):
    def stop(self):
        thread = gdb.selected_thread().ptid[1]
        if thread in THREADS:
            try:
                # The argument is an object: its type is at 24, and the name of a type at 40.
                name = gdb.parse_and_eval("*(char **)(*(long *)($rdi + 24) + 40)").string()
            except (gdb.error, UnicodeDecodeError):
                name = "?"
            log.write(f"{{thread}} {{int(gdb.parse_and_eval('(long)$rdi'))}} {{name}}\\n")
            log.flush()
        return False

Count("_Py_DecRefShared")
gdb.execute("continue")
"""


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Says in its answer which thread it runs on."""
    assert scope["type"] == "http"
    more = True
    while more:
        more = (await receive())["more_body"]
    body = b"%d" % threading.get_native_id()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body})


class Client:
    """One connection, and what is sent on it."""

    def __init__(self, address: tuple[str, int], kind: str) -> None:
        self.socket = socket.create_connection(address)
        self._kind = kind
        if kind == "h2":
            self._h2 = H2Connection(H2Configuration(header_encoding="utf-8"))
            self._h2.initiate_connection()

    def send(self) -> None:
        """A request."""
        if self._kind != "h2":
            self.socket.sendall(DATA[self._kind])
            return
        stream = self._h2.get_next_available_stream_id()
        head = [(":method", "GET"), (":scheme", "http"), (":authority", "test"), (":path", "/"), ("user-agent", "x")]
        self._h2.send_headers(stream, head, end_stream=True)
        self.socket.sendall(self._h2.data_to_send())

    def thread(self) -> int:
        """The thread that has answered."""
        if self._kind != "h2":
            return int(self.socket.recv(65536).rpartition(b"\r\n\r\n")[2])
        while True:
            for event in self._h2.receive_data(self.socket.recv(65536)):
                if isinstance(event, DataReceived) and event.data:
                    return int(event.data)


def ask(clients: list[Client], count: int) -> set[int]:
    """The threads that have answered."""
    found: set[int] = set()
    for _ in range(count):
        for client in clients:
            client.send()
        found = {client.thread() for client in clients}
    return found


def main() -> None:
    kind = sys.argv[1] if len(sys.argv) > 1 else "curl"
    settings = {"workers": WORKERS, "worker_mode": "thread", "loop": "asyncio", "keep_alive_timeout": 600.0}
    with TestServer(app, **settings) as server, tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            # The second time: what the first connections keep was made before constants became immortal.
            clients = [Client((server.host, server.port), kind) for _ in range(WORKERS)]
            threads = ask(clients, WARM_UP)
            time.sleep(SETTLING)
        log, script = Path(folder, "log"), Path(folder, "script.py")
        script.write_text(SCRIPT.format(threads=threads, log=str(log)))
        command = ["gdb", "-q", "-batch", "-p", str(os.getpid()), "-ex", "set pagination off", "-x", str(script)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as debugger:
            time.sleep(ATTACHING)
            log.write_text("")
            ask(clients, REQUESTS)
            # Killed in any other way it would leave this process stopped.
            debugger.send_signal(signal.SIGINT)
        touches: Counter[int] = Counter()
        names: dict[int, str] = {}
        touched_by: dict[int, set[str]] = defaultdict(set)
        for line in log.read_text().splitlines():
            thread, address, name = line.replace("\0", "").split(" ", 2)
            touches[int(address)] += 1
            names[int(address)] = name
            touched_by[int(address)].add(thread)
        total = REQUESTS * len(clients)
        shared = {address: count for address, count in touches.items() if len(touched_by[address]) > 1}
        print(f"{sum(shared.values()) / total:.2f} touches of shared objects for each request")
        for address, count in sorted(shared.items(), key=lambda item: -item[1]):
            if count >= LEAST * total:
                # It is shared by all, so it is still there.
                found = ctypes.cast(address, ctypes.py_object).value
                print(f"{count / total:6.2f}  {names[address]}  {found!r:.120}")
        for client in clients:
            client.socket.close()


if __name__ == "__main__":
    main()
