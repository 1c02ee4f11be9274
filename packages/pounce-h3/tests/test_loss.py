"""Requests get through a network that loses and reorders packets."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from tests.conformance.h3 import H3Client
from tests.conformance.wires import Started, answer, read_body

from .relay import Relay

Start = Callable[..., Started]


async def app(scope: Any, receive: Any, send: Any) -> None:
    body = await read_body(receive)
    await answer(send, body or b"x" * 400_000)


@pytest.mark.parametrize(("loss", "reordering"), [(0, 0), (0.01, 0), (0.05, 0), (0, 0.1), (0.02, 0.05)])
def test_bodies_arrive_whole(start: Start, loss: float, reordering: float) -> None:
    server = start(app)
    relay = Relay((server.server.host, server.server.port), loss, reordering, seed=7)
    with relay.running(), H3Client("127.0.0.1", relay.port, server.certificate.certfile) as client:
        assert client.request("GET", "/").body == b"x" * 400_000
        body = random.Random(1).randbytes(400_000)
        assert client.request("POST", "/", body=body).body == body
        for _ in range(20):
            assert client.request("POST", "/", body=b"abc").body == b"abc"
    assert (relay.lost > 0, relay.reordered > 0) == (loss > 0, reordering > 0)
