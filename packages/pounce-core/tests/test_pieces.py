"""Pieces that are written together: whole and in their order, however much the peer takes at once."""

import os
import socket
import ssl
import threading
from typing import Any

import pytest

from pounce.h1.plugin import plugin as h1
from pounce.net.connection import Connection
from pounce.plugin import API_VERSION, Plugin, Wire
from pounce.registry import Registry
from pounce.testing import TestServer

PATIENCE = 60.0
MANY = os.sysconf("SC_IOV_MAX") + 100
PIECES = {
    "head and body": [b"h" * 150, bytes(range(256)) * 80],
    "long ones": [b"%d" % number * 40_000 for number in range(9)],
    "short ones": [b"%d," % number for number in range(9)],
    "too many for the kernel": [b"%06d" % number for number in range(MANY)],
    "some that are empty": [b"", b"a" * 9000, b"", b"b" * 9000, b""],
    "views": [memoryview(b"c" * 9000), b"d"],
}


async def app(scope: Any, receive: Any, send: Any) -> None:
    raise NotImplementedError


class Sends(Connection):
    """Sends pieces again and again, until the peer is behind, and then once more."""

    def __init__(self, service: Any, pieces: Any, corked: bool, written: list[bytes], done: threading.Event) -> None:
        super().__init__(service, "sends")
        self._pieces = pieces
        self._corked = corked
        self._written = written
        self._done = done

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.write_past_transport()

    def data_received(self, data: bytes) -> None:
        count = 0
        while self.writable and count < 5000:
            self._send()
            count += 1
        self._send()
        self._done.set()
        self.close()

    def _send(self) -> None:
        self.corked = self._corked
        self.send_pieces(*self._pieces)
        self._written.extend(map(bytes, self._pieces))
        self.send(b".")
        self._written.append(b".")
        self.uncork()


@pytest.mark.parametrize("pieces", PIECES.values(), ids=PIECES)
@pytest.mark.parametrize("corked", [False, True], ids=["at once", "corked"])
@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_pieces_arrive_whole_and_in_their_order_at_a_peer_that_is_slow(
    loop: str, tls: bool, corked: bool, pieces: Any, tls_files: tuple[str, str]
) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    written: list[bytes] = []
    done = threading.Event()
    wire = Wire(name="sends", connect=lambda service: Sends(service, pieces, corked, written, done))
    registry = Registry.of(h1, Plugin(name="sends", api=API_VERSION, wires=(wire,)))
    settings: dict[str, Any] = {"ssl_certfile": tls_files[0], "ssl_keyfile": tls_files[1]} if tls else {}
    with TestServer(app, registry=registry, bind=("sends://127.0.0.1:0",), loop=loop, **settings) as server:
        client: socket.socket = socket.create_connection((server.host, server.port), PATIENCE)
        if tls:
            context = ssl.create_default_context(cafile=tls_files[0])
            client = context.wrap_socket(client, server_hostname="localhost")
        with client:
            client.sendall(b"go")
            # Not before: so the kernel's buffers are full, and of some write it takes a part only.
            assert done.wait(PATIENCE)
            found = bytearray()
            while piece := client.recv(1_000_000):
                found += piece
    assert found == b"".join(written)
