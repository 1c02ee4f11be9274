"""What workers make of packets that another one should have got."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.conformance.wires import Started, answer

from pounce_h3.endpoint import ASKED_PER_TURN, CLAIMS_MAX, Endpoint
from pounce_h3.packets import INITIAL, long_header

from .endpoints import SECRET, endpoints_of, keys_of
from .forged import initial_packet

Start = Callable[..., Started]
UNFINISHED = b"\x06\0\x04\x01\0\0\xff"
"""The beginning of a ClientHello."""


async def app(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"here")


@pytest.fixture
def stranger() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(60)
        yield sock


@pytest.fixture
def server(start: Start) -> Started:
    return start(app, workers=2, plugin_settings={"h3": {"secret": SECRET}})


@pytest.fixture
def endpoints(server: Started) -> list[Endpoint]:
    return endpoints_of(server)


def call(endpoint: Endpoint, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call on the loop of the endpoint, and wait for the result."""
    done = threading.Event()
    results = []

    def run() -> None:
        results.append(function(*arguments))
        done.set()

    endpoint._service.loop.call_soon_threadsafe(run)
    assert done.wait(60)
    return results[0]


def wait_until(endpoint: Endpoint, true: Callable[[], bool]) -> None:
    """A turn of its loop after the other, until something has come true."""
    for _ in range(10_000):
        if call(endpoint, true):
            return
    raise AssertionError("it did not come to that")


def receive(endpoint: Endpoint, data: bytes, address: tuple[str, int]) -> None:
    call(endpoint, endpoint.datagrams_received, [(data, address)])


def test_packet_that_names_a_worker_which_is_gone_is_answered_by_a_reset(
    server: Started, stranger: socket.socket
) -> None:
    name = keys_of(server).new_id(77 << 8)
    stranger.sendto(b"\x40" + name + os.urandom(91), (server.server.host, server.server.port))
    assert stranger.recv(100)[-16:] == keys_of(server).reset_token(name)


def test_handshake_goes_on_where_it_began_when_the_socket_has_another_reader(
    endpoints: list[Endpoint], stranger: socket.socket
) -> None:
    old, new = endpoints
    packet = initial_packet(UNFINISHED, destination=b"its choice")
    receive(old, packet, stranger.getsockname())
    call(old, old.sockets_moved)
    wait_until(new, lambda: b"its choice" in new._claimed)
    assert call(old, lambda: len(old._open)) == 1
    [connection] = old._open
    received = []
    old._deliver = lambda *args: received.append(args)  # type: ignore[method-assign]
    receive(new, packet, ("192.0.2.1", 4433))
    wait_until(old, lambda: received == [(connection, [packet], ("192.0.2.1", 4433))])
    assert not new._open


def test_handshake_of_a_worker_that_is_gone_begins_anew(endpoints: list[Endpoint], stranger: socket.socket) -> None:
    _, new = endpoints
    call(new, new.claimed, b"its choice", 77 << 8)
    receive(new, initial_packet(UNFINISHED, destination=b"its choice"), stranger.getsockname())
    assert len(new._open) == 1
    assert new._claimed == {}


def test_client_that_proves_its_address_may_do_so_to_any_worker(
    endpoints: list[Endpoint], stranger: socket.socket
) -> None:
    keys = endpoints[0]._keys
    name = keys.new_id(0)
    token = keys.retry_token(stranger.getsockname(), b"original", name)
    for endpoint in endpoints:
        packet = initial_packet(UNFINISHED, destination=name, token=token)
        receive(endpoint, packet, stranger.getsockname())
        header = long_header(stranger.recv(2000))
        assert header is not None
        assert header.kind == INITIAL
        assert keys.worker_of(header.source) == endpoint._worker


def test_draining_worker_takes_on_no_client(endpoints: list[Endpoint], stranger: socket.socket) -> None:
    endpoint = endpoints[0]
    call(endpoint, endpoint.drain)
    for handed_on in (endpoint.datagrams_received, endpoint.handed_on):
        call(endpoint, handed_on, [(initial_packet(UNFINISHED, destination=b"its choice"), stranger.getsockname())])
    assert not endpoint._open


def test_packet_that_was_handed_on_goes_no_further(endpoints: list[Endpoint], stranger: socket.socket) -> None:
    one, two = endpoints
    keys = one._keys
    one._transport.hand_on = lambda *args: pytest.fail("handed on again")  # type: ignore[method-assign]
    one._transport.ask = lambda *args: pytest.fail("asked about")  # type: ignore[method-assign]
    for name in (keys.new_id(two._worker), keys.new_id(0), os.urandom(8)):
        for data in (b"\x40" + name + os.urandom(20), initial_packet(UNFINISHED, destination=name)):
            call(one, one.handed_on, [(data, stranger.getsockname())])
            call(one, one.asked, data, stranger.getsockname(), two._worker)


def test_few_packets_of_a_batch_are_asked_about(endpoints: list[Endpoint], stranger: socket.socket) -> None:
    endpoint = endpoints[0]
    asked = []
    endpoint._transport.ask = lambda *args: asked.append(args)  # type: ignore[method-assign]
    names = [endpoint._keys.new_id(0) for _ in range(5 * ASKED_PER_TURN)]
    noise = [(b"\x40" + name + os.urandom(20), stranger.getsockname()) for name in names]
    call(endpoint, endpoint.datagrams_received, noise)
    assert len(asked) == ASKED_PER_TURN


def test_claims_that_are_kept_are_bounded(endpoints: list[Endpoint]) -> None:
    endpoint = endpoints[0]

    def claim() -> None:
        for number in range(2 * CLAIMS_MAX):
            endpoint.claimed(number.to_bytes(8), 256)

    call(endpoint, claim)
    assert list(endpoint._claimed) == [number.to_bytes(8) for number in range(CLAIMS_MAX, 2 * CLAIMS_MAX)]
