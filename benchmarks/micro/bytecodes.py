"""Counts bytecodes for each request, by function: `python -m benchmarks.micro.bytecodes [LOAD ...]`.

A connection over a socket pair sends one request after the other to a service on the loop that a worker has. What is
counted is what the interpreter does between two calls of the application, so the figures are the same on whatever
machine, however busy it is. They say nothing of what is done in C: `benchmarks.micro.instructions` does.
With `connections` each request comes on a connection of its own, which the client ends; for the server's own loop only.
With `h3` requests come over HTTP/3, one after the other, with `h3-12` twelve at once: figures that bend a little with
what comes together.
"""

import asyncio
import importlib
import re
import socket
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Generator
from pathlib import Path
from types import CodeType
from typing import Any

from benchmarks.micro.requests import LOADS
from pounce.config import ServerConfig
from pounce.contract.parser import ParserLimits
from pounce.exchange.service import Service
from pounce.h1.connection import H1Connection
from pounce.identity.identity import Identity
from pounce.net.bind import Bind, Listener
from pounce.net.tls import ServerTLS
from pounce.registry import Registry
from pounce.worker.acceptor import Acceptor
from pounce.worker.datagrams import DatagramTransport
from pounce.worker.loop import HAS_OWN, loop_factory

WARM_UP = 24
REQUESTS = 12
"""A multiple of 3, so that each kind of a mixed load is there as often."""
SHOWN = 30
PARTS = {
    "the loop: what is there to read": r"/asyncio/|/net/epoll_loop\.py|Connection\._read_ready$",
    "reading the head, strictly": r"/pounce_h1fast/|/h1/(?!.*\.(_open|start)$)",
    "opening the exchange, making the ASGI scope": (
        r"/exchange/(service|scope)\.py|/contract/|HttpExchange\.(__init__|run)$|H1Connection\._open$"
    ),
    "the application": r"/benchmarks/",
    "checking and writing the answer": "",
}
"""Of a request: what belongs to each, by file and function. The first that fits."""
CONNECTIONS = "connections"
HTTP3 = {"h3": 1, "h3-12": 12}
"""How many requests are sent at once."""

monitoring = sys.monitoring


def count(load: str, loop: str = "asyncio", parser: str = "h1fast") -> Counter[CodeType]:
    """Bytecodes of `REQUESTS` requests by function. Those of the loads whose application uses threads are not all of
    them: only what runs on the loop is counted."""
    app, request, *_ = LOADS["hello" if load == CONNECTIONS or load in HTTP3 else load]
    module, _, name = app.partition(":")
    counting = _Counting(getattr(importlib.import_module(module), name))
    made = loop_factory(loop)()
    served: Coroutine[Any, Any, None]
    if load in HTTP3:
        served = _serve_h3(counting, HTTP3[load])
    else:
        served = (_serve_connections if load == CONNECTIONS else _serve)(counting, request, parser)
    try:
        made.run_until_complete(served)
    finally:
        made.close()
    return counting.found


def each(found: Counter[CodeType]) -> int:
    """Bytecodes of one request."""
    return round(found.total() / REQUESTS)


def by_part(load: str) -> dict[str, int]:
    """Bytecodes of one request by the keys of `PARTS`, in their order."""
    found = Counter[str]()
    for code, number in count(load).items():
        place = f"{code.co_filename} {code.co_qualname}"
        found[next(part for part, pattern in PARTS.items() if re.search(pattern, place))] += number
    return {part: round(found[part] / REQUESTS) for part in PARTS}


class _Counting:
    """An application around another one: from one of its calls to another one bytecodes are counted."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._calls = 0
        self._counts: Counter[CodeType] = Counter()
        self._thread = threading.get_ident()
        self.paused = False
        """What runs at the moment is none of the server's work."""
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
            self.found = Counter({code: n for code, n in self._counts.items() if code.co_filename != __file__})
        return self._app(scope, receive, send)

    def _count(self, code: CodeType, offset: int) -> None:
        if threading.get_ident() == self._thread and not self.paused:
            self._counts[code] += 1


def _service(app: _Counting, parser: str) -> tuple[Service, Registry]:
    config = ServerConfig.of({"access_log": False, "http_parser": parser})
    registry = Registry.discover(config)
    limits = ParserLimits(max_header_size=config.max_header_size, max_headers=config.max_headers)
    create = registry.parser(parser).create
    loop = asyncio.get_running_loop()
    service = Service(config, app, loop, create_parser=lambda: create(limits), identity=Identity(config))
    return service, registry


async def _serve(app: _Counting, request: Any, parser: str) -> None:
    loop = asyncio.get_running_loop()
    service, _ = _service(app, parser)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    await loop.connect_accepted_socket(lambda: H1Connection(service), ours)
    await _in_thread(_ask, theirs, request)
    theirs.close()
    while service.connections:
        await asyncio.sleep(0)


async def _serve_connections(app: _Counting, request: Any, parser: str) -> None:
    """The client does its next step whenever the loop would wait: so each turn is one that a server takes."""
    loop: Any = asyncio.get_running_loop()
    service, registry = _service(app, parser)
    poll, done = loop._poll, loop.create_future()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        acceptor = Acceptor(service, Listener(listening, Bind("127.0.0.1")), registry.wire_table(), None, None)
        acceptor.start()
        client = _connect(listening.getsockname(), request)

        def poll_or_go_on(wait: float, most: int) -> list[tuple[int, int]]:
            found: list[tuple[int, int]] = poll(0.0, most)
            if found or not wait:
                return found
            app.paused = True
            more = next(client, False)
            app.paused = False
            if not more:
                done.set_result(None)
                return []
            return poll(wait, most)  # type: ignore[no-any-return]

        loop._poll = poll_or_go_on
        try:
            await done
        finally:
            loop._poll = poll
        acceptor.stop()


def _connect(address: Any, request: Any) -> Generator[bool]:
    for number in range(WARM_UP + REQUESTS + 1):
        with socket.create_connection(address, 60) as client:
            client.sendall(request(1000 + number))
            yield True
            if not client.recv(65536).startswith(b"HTTP/1.1 200"):
                raise AssertionError("not answered")
        yield True


async def _in_thread(call: Callable[..., object], *args: Any) -> None:
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def run() -> None:
        try:
            call(*args)
        finally:
            loop.call_soon_threadsafe(ended.set_result, None)

    client = threading.Thread(target=run)
    client.start()
    await ended
    client.join()


async def _serve_h3(app: _Counting, at_once: int) -> None:
    # Not everybody has HTTP/3 installed.
    from benchmarks.h3.work import connected
    from benchmarks.load.certificate import certificate_files

    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        certificate, key = map(str, certificate_files(Path(folder)))
        config = ServerConfig.of(
            {"access_log": False, "http3_enabled": True, "ssl_certfile": certificate, "ssl_keyfile": key}
        )
        registry = Registry.discover(config)
        service = Service(
            config, app, loop, settings=registry.settings({}), tls=ServerTLS(config, ()), identity=Identity(config)
        )
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        wire, address = registry.datagrams["h3"], sock.getsockname()
        endpoint = wire.connect(service, address)
        transport = DatagramTransport(loop, address, endpoint, open_socket=wire.open_socket, secret=b"a secret")
        transport.start()
        transport.receive([sock])

        def ask() -> None:
            with connected(address[1], "hello") as client:
                # One more: counting ends with the last call of the application that is told of.
                client.ask(WARM_UP + REQUESTS + at_once, at_once)

        await _in_thread(ask)
        transport.close()


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
    for load in sys.argv[1:] or (*LOADS, *HTTP3, *((CONNECTIONS,) if HAS_OWN else ())):
        found = count(load)
        print(f"{load}: {each(found):,} bytecodes for each request")
        for code, number in found.most_common(SHOWN):
            print(f"{number / REQUESTS:8.1f}  {code.co_qualname}")


if __name__ == "__main__":
    main()
