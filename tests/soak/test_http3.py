"""Ten thousand requests on one connection, and a thousand connections, leave a server of HTTP/3 as they found it.

As in test_soak.py, but with a client of qh3, which is slower.
"""

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from math import inf

import pytest
from tests.conformance.h3 import H3Client
from tests.soak.running import COUNTS, check, server

pytestmark = pytest.mark.soak

PARTS = 10
REQUESTS = 10_000
CONNECTIONS = 1_000
SETTLING = 10.0
MEMORY_GROWTH = 1024
"""KiB of resident memory between the lowest of the first half of the run and of the second."""
BODY = bytes(range(256)) * 16

type Connect = Callable[[], H3Client]


def census(connect: Connect, start: dict[str, float]) -> dict[str, float]:
    """What the server says of itself, once it is back at `start`, or `SETTLING` seconds have not brought it there."""
    deadline = time.monotonic() + SETTLING
    with connect() as client:
        while True:
            found: dict[str, float] = json.loads(client.request("GET", "/census").body)
            if time.monotonic() > deadline or all(found[name] <= start[name] for name in COUNTS):
                return found
            time.sleep(0.1)


def requests(client: H3Client, count: int) -> None:
    """A mix of them, most with an answer."""
    for number in range(count):
        kind = number % 10
        if kind < 6:
            assert client.request("GET", "/").body == b"hello"
        elif kind < 8:
            assert client.request("POST", "/", body=BODY).body == BODY
        elif kind < 9:
            assert client.request("GET", "/stream").body == b"x" * 10_000
        elif number % 100 == 9:
            client.open("GET", "/wait").abort()
        client.requests.clear()


def test_ten_thousand_requests_on_one_connection_leave_nothing_behind(
    tls_files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    def one_part(client: H3Client, connect: Connect) -> None:
        requests(client, REQUESTS // PARTS)

    soak(tls_files, one_part, capsys, f"{REQUESTS:,} requests")


def test_a_thousand_connections_leave_nothing_behind(
    tls_files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    def one_part(client: H3Client, connect: Connect) -> None:
        with ExitStack() as stack:
            for other in [stack.enter_context(connect()) for _ in range(CONNECTIONS // PARTS)]:
                assert other.request("GET", "/").body == b"hello"

    soak(tls_files, one_part, capsys, f"{CONNECTIONS:,} connections")


def soak(
    tls_files: tuple[str, str],
    one_part: Callable[[H3Client, Connect], None],
    capsys: pytest.CaptureFixture[str],
    what: str,
) -> None:
    certfile, keyfile = tls_files
    began = time.monotonic()
    with server(http3_enabled=True, ssl_certfile=certfile, ssl_keyfile=keyfile) as port:

        def connect() -> H3Client:
            return H3Client("127.0.0.1", port, certfile)

        with connect() as client:
            one_part(client, connect)
            # That client and the one that asks. Of others that have closed the server keeps a trace for a moment.
            start = census(connect, dict.fromkeys(COUNTS, inf) | {"connections": 2})
            found = []
            for _ in range(PARTS):
                one_part(client, connect)
                found.append(census(connect, start))

    check(f"HTTP/3: {what} in {time.monotonic() - began:.0f} s", start, found, MEMORY_GROWTH, capsys)
