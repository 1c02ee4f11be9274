"""max_connections_per_peer, over every wire."""

from typing import Any

import pytest
from tests.conformance.client import Broken, Client
from tests.conformance.wires import CASES, Started, Wire, answer
from tests.workers.running import eventually

PER_PEER = {"max_connections_per_peer": 2}


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await answer(send, b"served")


def served(server: Started, first: bytes = b"") -> Client | None:
    """A new connection, if it is served."""
    try:
        client = server.connect(first)
        response = client.request("GET", "/")
    except OSError, EOFError, Broken:
        return None
    if response.status == 503:
        assert response.headers[b"x-pounce-error-code"] == b"POUNCE_LIMIT_PEER"
        assert response.headers[b"retry-after"] == b"5"
    return client if response.status == 200 else None


@pytest.mark.parametrize("workers", [1, 2])
def test_address_has_so_many_connections_and_another_one_when_one_is_closed(wire: Wire, workers: int) -> None:
    server = wire.start(app, **PER_PEER, workers=workers, worker_mode="thread")
    clients = [served(server) for _ in range(2)]
    assert all(clients)
    third = served(server)
    if wire.case.unix:
        # They have no address.
        assert third
    else:
        assert third is None
        clients[0].close()  # type: ignore[union-attr]
        eventually(lambda: served(server) is not None)


def test_exempt_addresses_have_more(wire: Wire) -> None:
    server = wire.start(app, **PER_PEER, max_connections_per_peer_exempt=["127.0.0.0/8"])
    assert [served(server) is not None for _ in range(3)] == [True] * 3


@pytest.mark.parametrize("wire", [case for case in CASES if not case.quic], indirect=True, ids=str)
def test_what_counts_behind_a_proxy_is_the_client(wire: Wire) -> None:
    server = wire.start(app, **PER_PEER, proxy_protocol=True, proxy_protocol_from=("127.0.0.1", "unix"))
    one, other = (b"PROXY TCP4 192.0.2.%d 192.0.2.9 50000 443\r\n" % number for number in (1, 2))
    assert [served(server, first) is not None for first in (one, one, one, other, one)] == [
        True, True, False, True, False,
    ]  # fmt: skip
