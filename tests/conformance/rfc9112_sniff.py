"""HTTP/1.1 beside a protocol that is known by its first bytes: neither may disturb the other, however they arrive."""

import asyncio
from typing import Any, ClassVar

import pytest
from tests.conformance.rfc9112_support import Noting, get, in_loop, parser, pieces_of, post, read_answers, registry_of

from pounce.net.sniff import WireChooser
from pounce.plugin import API_VERSION, Plugin, Service, Wire
from pounce.testing import MemoryConnection
from pounce.testing.memory import memory_service

__all__ = ["parser"]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Prefaced(asyncio.Protocol):
    """Stands for a protocol with a preface; notes what it gets."""

    opened: ClassVar[list[Any]] = []

    def __init__(self) -> None:
        self.received = b""
        self.opened.append(self)

    def data_received(self, data: bytes) -> None:
        self.received += data


def sniffing(app: Noting, parser: str, protocol: type[Prefaced] = Prefaced, **settings: float) -> MemoryConnection:
    """A connection in memory whose wire is still to be chosen."""
    Prefaced.opened = []
    prefaced = Wire(name="prefaced", connect=lambda service: protocol(), preface=PREFACE)
    registry = registry_of(parser, Plugin(name="prefaced", api=API_VERSION, wires=(prefaced,)))
    service = memory_service(app, registry, http_parser=parser, **settings)
    table = registry.wire_table()

    def choose(service: Service) -> asyncio.Protocol:
        return WireChooser(service, table, None)

    return MemoryConnection(wire=Wire(name="sniff", connect=choose), service=service)


@pytest.mark.parametrize("data", [get("/x"), get("/x", method="PRIVATE"), post(b"body", "/x"), get("/x", method="P")])
@in_loop
async def test_http_is_recognised_however_it_is_cut(data: bytes, parser: str) -> None:
    for how, pieces in pieces_of(data):
        app = Noting()
        peer = sniffing(app, parser)
        for piece in pieces:
            peer.feed(piece)
            await peer.settle(1)
        await peer.settle()
        assert [answer.status for answer in read_answers(peer.received)] == [200], how
        assert [path for _, path, _ in app.seen] == ["/x"], how
        assert Prefaced.opened == [], how


@in_loop
async def test_the_preface_is_recognised_however_it_is_cut(parser: str) -> None:
    for how, pieces in pieces_of(PREFACE + b"rest"):
        app = Noting()
        peer = sniffing(app, parser)
        for piece in pieces:
            peer.feed(piece)
        await peer.settle()
        assert [protocol.received for protocol in Prefaced.opened] == [PREFACE + b"rest"], how
        assert (peer.received, app.seen) == (b"", []), how


@in_loop
async def test_half_a_preface_and_then_something_else_is_refused_as_http(parser: str) -> None:
    peer = sniffing(Noting(), parser)
    peer.feed(PREFACE[:18])
    await peer.settle()
    assert peer.received == b""
    peer.feed(b"XX\r\n\r\n")
    await peer.settle()
    assert [answer.status for answer in read_answers(peer.received)] == [505]


@in_loop
async def test_the_time_that_choosing_took_counts_for_the_head(parser: str) -> None:
    peer = sniffing(Noting(), parser, header_timeout=10.0)
    deadline = peer.protocol.deadline
    peer.feed(b"P")
    await peer.settle()
    assert peer.protocol.deadline == deadline
    peer.feed(b"OST / HT")
    await peer.settle()
    (connection,) = peer.service.connections
    assert connection is not peer.protocol
    assert connection.deadline <= deadline


@pytest.mark.parametrize("sent", [b"", b"P", PREFACE[:-1]])
@in_loop
async def test_a_client_that_brings_nothing_whole_is_given_up(sent: bytes, parser: str) -> None:
    peer = sniffing(Noting(), parser, header_timeout=10.0)
    peer.feed(sent)
    peer.after(9.9)
    await peer.settle()
    assert not peer.closed
    peer.after(10.1)
    await peer.settle()
    assert peer.closed
    assert not peer.service.connections


class Unready(Prefaced):
    """Is there to read later only."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.pause_reading()


@pytest.mark.parametrize("then", ["tick", "bytes", "end"])
@in_loop
async def test_protocol_that_does_not_read_yet_gets_its_first_bytes_when_it_does(then: str, parser: str) -> None:
    peer = sniffing(Noting(), parser, Unready)
    peer.feed(PREFACE)
    await peer.settle()
    (protocol,) = Prefaced.opened
    peer.after(0.0)
    assert protocol.received == b""
    protocol.transport.resume_reading()
    if then == "tick":
        peer.after(0.0)
    elif then == "bytes":
        peer.feed(b"rest")
    else:
        foreign: Any = peer.transport.get_protocol()
        foreign.eof_received()
    await peer.settle()
    assert protocol.received == PREFACE + (b"rest" if then == "bytes" else b"")
    peer.after(0.0)
    assert not peer.service.on_tick


@in_loop
async def test_first_bytes_that_nobody_reads_are_forgotten_with_their_connection(parser: str) -> None:
    peer = sniffing(Noting(), parser, Unready)
    peer.feed(PREFACE)
    await peer.settle()
    peer.transport.abort()
    await peer.settle()
    peer.after(0.0)
    assert (Prefaced.opened[0].received, peer.service.on_tick) == (b"", set())
