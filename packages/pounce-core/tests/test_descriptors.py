"""Whose a descriptor is: once a connection has ended, however badly its wire behaves, its number may be another's."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from pounce.h1.connection import H1Connection
from pounce.h1.plugin import plugin as h1
from pounce.net.connection import Connection
from pounce.plugin import API_VERSION, Plugin, Service, Wire
from pounce.registry import Registry
from pounce.testing import TestServer

PATIENCE = 60.0
SECRET = b"of client 1"
PROXY = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


class Watched(Connection):
    """A connection that the test knows, and that is asked once more when it is no more."""

    def __init__(self, service: Service, known: list[Watched], has_ended: threading.Event) -> None:
        super().__init__(service, "watched")
        self.has_ended = has_ended
        self.refused: list[str] = []
        known.append(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.write_past_transport()

    def late(self) -> None:
        self.send(SECRET)


class FailsToBegin(Watched):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.loop.call_soon(self.has_ended.set)
        raise RuntimeError("wire is broken")


class FailsToEnd(Watched):
    def connection_lost(self, exc: Exception | None) -> None:
        self.loop.call_soon(self.has_ended.set)
        raise RuntimeError("wire is broken")


class ForgetsTheBase(Watched):
    def connection_lost(self, exc: Exception | None) -> None:
        self.loop.call_soon(self.has_ended.set)


class HandsOverLate(Watched):
    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.loop.call_soon(self.has_ended.set)

    def late(self) -> None:
        try:
            self.hand_over(H1Connection(self.service), "h1").data_received(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        except RuntimeError as exc:
            self.refused.append(str(exc))


class Next(Connection):
    """That of another client, which has everybody before it speak once more."""

    def __init__(self, service: Service, known: list[Watched]) -> None:
        super().__init__(service, "next")
        self._known = known

    def data_received(self, data: bytes) -> None:
        for each in self._known:
            # What a loop makes of it is its own business: uvloop raises.
            with contextlib.suppress(RuntimeError):
                each.late()
        self.send(b"done")
        self.close()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("proxied", [False, True], ids=["plain", "proxied"])
@pytest.mark.parametrize("wire", [FailsToBegin, FailsToEnd, ForgetsTheBase, HandsOverLate])
def test_nothing_of_a_connection_goes_to_the_next_one(wire: Callable[..., Watched], proxied: bool, loop: str) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    known: list[Watched] = []
    has_ended = threading.Event()
    wires = (
        Wire(name="watched", connect=lambda service: wire(service, known, has_ended)),
        Wire(name="next", connect=lambda service: Next(service, known)),
    )
    registry = Registry.of(h1, Plugin(name="wires", api=API_VERSION, wires=wires))
    settings: dict[str, Any] = {"proxy_protocol": True, "proxy_protocol_from": ("127.0.0.1",)} if proxied else {}
    first = PROXY if proxied else b""
    bind = ("watched://127.0.0.1:0", "next://127.0.0.1:0")
    with TestServer(app, registry=registry, bind=bind, loop=loop, **settings) as server:
        watched, following = (int(url.rpartition(":")[2]) for url in server.info.urls)
        # Before the other, so that the number of that one's connection is the next free one.
        second = socket.socket()
        with socket.socket() as one, second as two:
            one.settimeout(PATIENCE)
            with contextlib.suppress(OSError):
                # The server may have broken it off already, where its wire has failed.
                one.connect(("127.0.0.1", watched))
                one.sendall(first + b"bytes")
                one.shutdown(socket.SHUT_WR)
            assert has_ended.wait(PATIENCE)
            two.settimeout(PATIENCE)
            two.connect(("127.0.0.1", following))
            two.sendall(first + b"bytes")
            received = b""
            while piece := two.recv(4096):
                received += piece
        assert received == b"done"
        assert [each.connection.local is not None for each in known] == [True]
        assert known[0].service.connections.isdisjoint(known)
        assert all(each.refused for each in known if isinstance(each, HandsOverLate))


class WithoutBase(Connection):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        pass


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("sent", [b"HELLO", b""], ids=["at once", "later"])
def test_wire_that_leaves_out_its_base_costs_its_connection_and_is_told(
    sent: bytes, loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    wires = (Wire(name="hello", connect=lambda service: WithoutBase(service, "hello"), preface=b"HELLO"),)
    registry = Registry.of(h1, Plugin(name="hello", api=API_VERSION, wires=wires))
    with TestServer(app, registry=registry, loop=loop) as server:
        for _ in range(2):
            with socket.create_connection((server.host, server.port), PATIENCE) as sock:
                if sent:
                    sock.sendall(sent)
                else:
                    for part in (b"HE", b"LLO"):
                        sock.sendall(part)
                try:
                    assert sock.recv(100) == b""
                except ConnectionResetError:
                    pass
        with socket.create_connection((server.host, server.port), PATIENCE) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")
    assert "does not call that of its base class" in caplog.text
