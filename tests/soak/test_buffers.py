"""Ten thousand slow clients hold no more of a server's memory than `max_buffered` lets them.

Each opens a request and sends a part of its body, which the application leaves alone: 400 MB in all, where 64 MiB may
be held. What the connections themselves take is measured before the first byte of a body is sent. Handshakes of QUIC
take their time, so that there are fewer clients of HTTP/3, and the bound is lower.
"""

import json
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from tests.conformance.client import H1Client
from tests.conformance.h3 import H3Client
from tests.soak.running import server

pytestmark = pytest.mark.soak

CLIENTS, BOUND = 10_000, 67_108_864
QUIC_CLIENTS, QUIC_BOUND = 1_000, 8_388_608
PIECE = 10_000
PIECES = 4
SETTLING = 60.0
SETTINGS = {
    "max_connections": 0,
    "max_request_size": 0,
    "request_timeout": 600.0,
    "min_body_rate": 0,
    "shutdown_timeout": 0.0,
}
H1_HEAD = b"POST /leave HTTP/1.1\r\nHost: soak\r\nContent-Length: 1000000\r\n\r\n"
# Preface, SETTINGS, and HEADERS of stream 1 in literals of RFC 7541 6.2.2.
H2_BLOCK = b"\x83\x86\x04\x06/leave\x01\x04soak"
H2_HEAD = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    + bytes(3) + b"\4\0" + bytes(4)
    + len(H2_BLOCK).to_bytes(3) + b"\1\4" + (1).to_bytes(4) + H2_BLOCK
)  # fmt: skip
H2_PIECE = PIECE.to_bytes(3) + b"\0\0" + (1).to_bytes(4) + bytes(PIECE)


def memory(port: int) -> dict[str, int]:
    with H1Client(socket.create_connection(("127.0.0.1", port), 60)) as client:
        found: dict[str, int] = json.loads(client.request("GET", "/memory").body)
        return found


def settled(ask: Callable[[], dict[str, int]]) -> dict[str, int]:
    """What it is once the server has nothing more to do: it has answered at once twice."""
    deadline = time.monotonic() + SETTLING
    quick = 0
    while quick < 2:
        before = time.monotonic()
        found = ask()
        quick = quick + 1 if time.monotonic() - before < 0.5 else 0
        assert time.monotonic() < deadline, "the server does not come to rest"
        time.sleep(1.5)
    return found


def check(what: str, before: dict[str, int], after: dict[str, int], bound: int, capsys: Any) -> None:
    grown = after["most"] - before["most"]
    with capsys.disabled():
        print(f"\n{what}: {before['now'] / 1024:,.0f} MiB, then {grown / 1024:,.0f} more of {bound >> 20} that may be")
    # A quarter more may be there for a moment, and allocators keep some of what they have had.
    assert grown * 1024 < bound * 2


@pytest.mark.parametrize(
    ("what", "head", "piece"), [("h1", H1_HEAD, bytes(PIECE)), ("h2", H2_HEAD, H2_PIECE)], ids=["h1", "h2"]
)
def test_bodies_of_ten_thousand_clients_are_held_up_to_the_bound(
    what: str, head: bytes, piece: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    with ExitStack() as stack:
        port = stack.enter_context(server(**SETTINGS, max_buffered=BOUND))
        clients = []
        for _ in range(CLIENTS):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), 60))
            client.sendall(head)
            clients.append(client)
        before = settled(lambda: memory(port))
        for _ in range(PIECES):
            for client in clients:
                # Those that were closed are told so.
                with suppress(OSError):
                    client.sendall(piece)
        check(f"{CLIENTS:,} clients of {what}", before, settled(lambda: memory(port)), BOUND, capsys)


def test_bodies_of_a_thousand_clients_of_http3_are_held_up_to_the_bound(
    tls_files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    certificate, key = tls_files
    quic = {"http3_enabled": True, "http3_idle_timeout": 600.0, "ssl_certfile": certificate, "ssl_keyfile": key}
    with ExitStack() as stack:
        port = stack.enter_context(server(**SETTINGS, **quic, max_buffered=QUIC_BOUND))

        def connect() -> H3Client:
            return stack.enter_context(H3Client("127.0.0.1", port, certificate, idle_timeout=600.0))

        def ask() -> dict[str, int]:
            with H3Client("127.0.0.1", port, certificate) as client:
                found: dict[str, int] = json.loads(client.request("GET", "/memory").body)
                return found

        requests = [connect().open("POST", "/leave", body=True) for _ in range(QUIC_CLIENTS)]
        before = settled(ask)
        for _ in range(PIECES):
            for request in requests:
                with suppress(OSError):
                    request.send_body(bytes(PIECE))
        check(f"{QUIC_CLIENTS:,} clients of h3", before, settled(ask), QUIC_BOUND, capsys)
