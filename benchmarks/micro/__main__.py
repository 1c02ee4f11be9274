"""Times the parts of a request in one process, without sockets: `python -m benchmarks.micro`.

Each figure is the best of several rounds, in microseconds: what a part costs when nothing else disturbs it.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from pounce.config import ServerConfig
from pounce.contract.head import RequestHead
from pounce.exchange.http import HttpExchange
from pounce.h1.encode import encode_fields, status_line
from pounce.plugin import Parser, ParserLimits
from pounce.registry import Registry
from pounce.testing import MemoryConnection, RecordingStream
from pounce.testing.memory import memory_service

ROUNDS = 7

CURL = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n"
CHROME = (
    b"GET /search?q=pounce&page=2 HTTP/1.1\r\nHost: www.example.org\r\nConnection: keep-alive\r\n"
    b'sec-ch-ua: "Chromium";v="130", "Not?A_Brand";v="99"\r\nsec-ch-ua-mobile: ?0\r\n'
    b'sec-ch-ua-platform: "Linux"\r\nUpgrade-Insecure-Requests: 1\r\n'
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n"
    b"Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-User: ?1\r\nSec-Fetch-Dest: document\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9\r\n"
    b"Cookie: session=8f14e45fceea167a5a36dedd4bea2543; theme=dark\r\n\r\n"
)
PROXY = CHROME[:-2] + b"".join(b"X-Proxy-Field-%d: value-%d\r\n" % (n, n) for n in range(9)) + b"\r\n"
ANSWER = [(b"content-type", b"text/plain"), (b"content-length", b"13"), (b"server", b"pounce")]


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"Hello, World!"})


def best(call: Callable[[], object], number: int = 2000) -> float:
    """Microseconds of one call, the best of `ROUNDS`."""
    fastest = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(number):
            call()
        fastest = min(fastest, time.perf_counter() - started)
    return fastest / number * 1e6


def parse(parser: Parser, data: bytes) -> None:
    parser.receive_data(data)
    if parser.next_event() is None:
        raise AssertionError("the head is not complete")


def one_request(connection: MemoryConnection, data: bytes) -> None:
    connection.transport.received.clear()
    connection.protocol.data_received(data)
    if not connection.transport.received.endswith(b"Hello, World!"):
        raise AssertionError("no answer")


async def main() -> None:
    print(f"{'part':44} {'µs':>8}")

    def show(name: str, call: Callable[[], object]) -> None:
        print(f"{name:44} {best(call):8.2f}")

    for choice in Registry.discover(ServerConfig()).parsers.values():
        for name, data in (("curl", CURL), ("Chrome", CHROME), ("proxy, 25 fields", PROXY)):
            parser = choice.create(ParserLimits())
            show(f"parse a head, {choice.name}, {name}", lambda parser=parser, data=data: parse(parser, data))  # type: ignore[misc]
    service = memory_service(hello)
    head = RequestHead(b"GET", b"/", [(b"host", b"example.org"), (b"accept", b"*/*")], "1.1")
    show("exchange: open, application, answer", lambda: service.open(head, RecordingStream()))
    show("exchange: construct", lambda: HttpExchange(service, head, RecordingStream()))
    info = RecordingStream().connection
    show("complete and check answer headers", lambda: service.response_headers.complete(ANSWER, info))
    show("encode an answer's head", lambda: status_line(200) + encode_fields(ANSWER) + b"\r\n")
    for name, data in (("curl", CURL), ("Chrome", CHROME)):
        connection = MemoryConnection(hello)
        show(f"whole request in memory, {name}", lambda connection=connection, data=data: one_request(connection, data))  # type: ignore[misc]


if __name__ == "__main__":
    asyncio.run(main())
