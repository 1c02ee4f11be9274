"""A hundred thousand requests of every kind leave a server as they found it.

The server runs in a process of its own. Its census (memory, descriptors, tasks, connections, requests) is taken at the
start and after each of `PARTS` equal parts of the run, each time with one connection open, the one that asks.
Connections, requests, tasks and descriptors must come back to where they were at the start. Memory comes and goes by
some MiB with what the allocator keeps, so the lowest figure of the first half of the run is compared with the lowest of
the second half: between them it may grow by `MEMORY_GROWTH`, which is 64 bytes, a small object, for each request. PSS
is only shown: it also changes when other processes that share pages come and go.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

import pytest
from tests.soak.running import COUNTS, check, server

from pounce.config import ServerConfig
from pounce.registry import Registry

pytestmark = pytest.mark.soak

REQUESTS = 100_000
PARTS = 10
CONNECTIONS = 16
TIME_LIMIT = 240.0
"""Seconds after which the clients give up, and the test with them."""
SETTLING = 10.0
MEMORY_GROWTH = 64 * REQUESTS // 2 // 1024
"""KiB of resident memory, and of the part of it that is no file."""
BODY = bytes(range(256)) * 16

GET = b"GET / HTTP/1.1\r\nHost: soak\r\nUser-Agent: soak/%d\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: soak\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
CHUNKED = (
    b"POST / HTTP/1.1\r\nHost: soak\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"".join(b"400\r\n" + BODY[at : at + 1024] + b"\r\n" for at in range(0, len(BODY), 1024))
    + b"0\r\n\r\n"
)
STREAM = b"GET /stream HTTP/1.1\r\nHost: soak\r\n\r\n"
WAIT = b"GET /wait HTTP/1.1\r\nHost: soak\r\n\r\n"
HALF = b"POST / HTTP/1.1\r\nHost: soak\r\nContent-Length: 1000\r\n\r\nhalf of it"
BROKEN = b"GET / HTTP/1.1\r\nHost: soak\r\nno colon here\r\n\r\n"
CENSUS = b"GET /census HTTP/1.1\r\nHost: soak\r\n\r\n"


class Client:
    """One connection at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None

    async def request(self, data: bytes) -> tuple[int, bytes]:
        """Send a request on the open connection, or on a new one, and read the answer."""
        await self.send(data)
        head = await self._reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        if b"content-length: " in head:
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            return status, await self._reader.readexactly(length)
        body = b""
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            body += (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readexactly(2)
        return status, body

    async def send(self, data: bytes) -> None:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(data)

    async def read_a_little(self) -> None:
        assert await self._reader.read(100)

    async def close(self, *, abort: bool = False) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        if abort:
            writer.transport.abort()
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionError:
            pass


async def get(client: Client, number: int) -> None:
    assert await client.request(GET % number) == (200, b"hello")


async def post(client: Client, number: int) -> None:
    assert await client.request(POST) == (200, BODY)


async def upload_chunked(client: Client, number: int) -> None:
    assert await client.request(CHUNKED) == (200, BODY)


async def stream(client: Client, number: int) -> None:
    assert await client.request(STREAM) == (200, b"x" * 10_000)


async def leave_while_the_server_works(client: Client, number: int) -> None:
    await client.send(WAIT)
    await client.close(abort=number % 2 == 0)


async def leave_in_mid_body(client: Client, number: int) -> None:
    await client.send(HALF)
    await client.close(abort=number % 2 == 0)


async def leave_in_mid_answer(client: Client, number: int) -> None:
    await client.send(STREAM * 5)
    await client.read_a_little()
    await client.close(abort=number % 2 == 0)


async def send_nonsense(client: Client, number: int) -> None:
    status, _ = await client.request(BROKEN)
    assert status == 400
    await client.close()


# What each of a hundred requests does; most leave the connection open.
MIX: list[Callable[[Client, int], Awaitable[None]]] = [
    *[get] * 45,
    *[post] * 20,
    *[upload_chunked] * 15,
    *[stream] * 12,
    *[leave_while_the_server_works] * 2,
    *[leave_in_mid_body] * 2,
    *[leave_in_mid_answer] * 2,
    *[send_nonsense] * 2,
]


async def run(port: int, numbers: range) -> None:
    """Requests with these numbers, spread over `CONNECTIONS` clients."""

    async def one(place: int) -> None:
        client = Client(port)
        for number in numbers[place::CONNECTIONS]:
            # 37 and 100 have no common factor: every behaviour comes up, next to changing neighbours.
            await MIX[number * 37 % len(MIX)](client, number)
        await client.close()

    async with asyncio.TaskGroup() as group:
        for place in range(CONNECTIONS):
            group.create_task(one(place))


async def census(port: int, start: dict[str, int] | None = None) -> dict[str, int]:
    """What the server says of itself, once it is back at `start`, or `SETTLING` seconds have not brought it there.

    A connection that was given up lingers for a moment, and only the server knows for how long.
    """
    client = Client(port)
    deadline = time.monotonic() + SETTLING
    try:
        while True:
            status, body = await client.request(CENSUS)
            assert status == 200
            found: dict[str, int] = json.loads(body)
            if start is None or time.monotonic() > deadline or all(found[name] <= start[name] for name in COUNTS):
                return found
            await asyncio.sleep(0.1)
    finally:
        await client.close()


@pytest.mark.parametrize("parser", sorted(Registry.discover(ServerConfig()).parsers))
def test_a_hundred_thousand_requests_leave_nothing_behind(parser: str, capsys: pytest.CaptureFixture[str]) -> None:
    async def soak(port: int) -> list[dict[str, int]]:
        part = REQUESTS // PARTS
        async with asyncio.timeout(TIME_LIMIT):
            found = [await census(port)]
            for number in range(0, REQUESTS, part):
                await run(port, range(number, number + part))
                found.append(await census(port, found[0]))
        return found

    began = time.monotonic()
    with server(http_parser=parser) as port:
        start, *found = asyncio.run(soak(port))
    took = time.monotonic() - began

    check(f"{parser}: {REQUESTS:,} requests in {took:.0f} s", start, found, MEMORY_GROWTH, capsys)
