"""Counts bytecodes for each request, by function: `python -m benchmarks.micro.bytecodes [LOAD ...]`.

A connection over a socket pair sends one request after the other to a service on the loop that a worker has. What is
counted is what the interpreter does between two calls of the application, so the figures are the same on whatever
machine, however busy it is. They say nothing of what is done in C: `benchmarks.micro.instructions` does.
"""

import asyncio
import importlib
import socket
import sys
import threading
from collections import Counter
from types import CodeType
from typing import Any

from benchmarks.micro.requests import LOADS
from pounce.config import ServerConfig
from pounce.contract.parser import ParserLimits
from pounce.exchange.service import Service
from pounce.h1.connection import H1Connection
from pounce.identity.identity import Identity
from pounce.registry import Registry
from pounce.worker.loop import loop_factory

WARM_UP = 24
REQUESTS = 12
"""A multiple of 3, so that each kind of a mixed load is there as often."""
SHOWN = 30

monitoring = sys.monitoring


def count(load: str, loop: str = "asyncio", parser: str = "h1fast") -> Counter[CodeType]:
    """Bytecodes of `REQUESTS` requests by function. Those of the loads whose application uses threads are not all of
    them: only what runs on the loop is counted."""
    app, request = LOADS[load]
    module, _, name = app.partition(":")
    counting = _Counting(getattr(importlib.import_module(module), name))
    made = loop_factory(loop)()
    try:
        made.run_until_complete(_serve(counting, request, parser))
    finally:
        made.close()
    return counting.found


def each(found: Counter[CodeType]) -> int:
    """Bytecodes of one request."""
    return round(found.total() / REQUESTS)


class _Counting:
    """An application around another one: from one of its calls to another one bytecodes are counted."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._calls = 0
        self._counts: Counter[CodeType] = Counter()
        self._thread = threading.get_ident()
        self.found: Counter[CodeType] = Counter()

    def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        # No coroutine function: it is here that counting begins and ends.
        self._calls += 1
        if self._calls == WARM_UP:
            monitoring.use_tool_id(monitoring.PROFILER_ID, "bytecodes")
            monitoring.register_callback(monitoring.PROFILER_ID, monitoring.events.INSTRUCTION, self._count)
            monitoring.set_events(monitoring.PROFILER_ID, monitoring.events.INSTRUCTION)
        elif self._calls == WARM_UP + REQUESTS:
            monitoring.set_events(monitoring.PROFILER_ID, 0)
            monitoring.register_callback(monitoring.PROFILER_ID, monitoring.events.INSTRUCTION, None)
            monitoring.free_tool_id(monitoring.PROFILER_ID)
            own = {self.__call__.__func__.__code__}  # type: ignore[attr-defined]
            self.found = Counter({code: number for code, number in self._counts.items() if code not in own})
        return self._app(scope, receive, send)

    def _count(self, code: CodeType, offset: int) -> None:
        if threading.get_ident() == self._thread:
            self._counts[code] += 1


async def _serve(app: _Counting, request: Any, parser: str) -> None:
    loop = asyncio.get_running_loop()
    config = ServerConfig.of({"access_log": False, "http_parser": parser})
    registry = Registry.discover(config)
    limits = ParserLimits(max_header_size=config.max_header_size, max_headers=config.max_headers)
    create = registry.parser(parser).create
    service = Service(config, app, loop, create_parser=lambda: create(limits), identity=Identity(config))
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    await loop.connect_accepted_socket(lambda: H1Connection(service), ours)
    client = threading.Thread(target=_ask, args=(theirs, request))
    client.start()
    while client.is_alive():
        ended = loop.create_future()
        waiting = threading.Thread(target=_wait, args=(client, loop, ended))
        waiting.start()
        await ended
        waiting.join()
    theirs.close()
    while service.connections:
        await asyncio.sleep(0)


def _wait(client: threading.Thread, loop: asyncio.AbstractEventLoop, ended: asyncio.Future[None]) -> None:
    client.join()
    loop.call_soon_threadsafe(ended.set_result, None)


def _ask(sock: socket.socket, request: Any) -> None:
    """Send as many requests as are counted, and one more; each when the one before is answered."""
    for number in range(WARM_UP + REQUESTS + 1):
        sock.sendall(request(1000 + number))
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += sock.recv(65536)
        head, _, body = answer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise AssertionError(head)
        rest = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]) - len(body)
        while rest:
            rest -= len(sock.recv(rest))


def main() -> None:
    for load in sys.argv[1:] or LOADS:
        found = count(load)
        print(f"{load}: {each(found):,} bytecodes for each request")
        for code, number in found.most_common(SHOWN):
            print(f"{number / REQUESTS:8.1f}  {code.co_qualname}")


if __name__ == "__main__":
    main()
