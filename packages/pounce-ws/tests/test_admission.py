"""Handshakes that may not start, or not yet."""

import asyncio
from typing import Any

import pytest
from peer import App, Echo, chosen, in_loop, masked

from pounce.admission.rate_limit import RateLimits
from pounce.config import ServerConfig
from pounce.exchange.waiting import Verdict, WaitingExchange

pytestmark = pytest.mark.usefixtures("wire")


def peer(app: Any, admission: Any, **settings: Any) -> Any:
    return chosen[0](app, admission=(admission,), **settings)


@in_loop
async def test_handshake_beyond_the_rate_limit_is_refused() -> None:
    settings = {"rate_limit_enabled": True, "rate_limit_burst": 1, "rate_limit_routes": ("GET /chat 1/h",)}
    limits = RateLimits(ServerConfig.of(settings), clock=lambda: 0.0)
    first, second = (peer(App(), limits, **settings) for _ in range(2))
    await first.open(path=b"/chat")
    answer = await second.handshake(path=b"/chat")
    assert (answer.status, answer[b"retry-after"]) == (429, b"3600")
    assert answer[b"x-pounce-error-code"] == b"POUNCE_LIMIT_RATE"


class Promises:
    """A step of admission that lets every request wait; the test keeps the promises."""

    def __init__(self) -> None:
        self.made: list[asyncio.Future[Verdict]] = []

    def __call__(self, service: Any) -> Any:
        def admit(head: Any, stream: Any) -> WaitingExchange:
            self.made.append(asyncio.get_running_loop().create_future())
            return WaitingExchange(service, head, stream, self.made[-1])

        return admit


@in_loop
async def test_websocket_opens_when_it_is_admitted() -> None:
    step = Promises()
    client = peer(Echo(), step)
    handshake = asyncio.ensure_future(client.handshake())
    while not step.made:
        await asyncio.sleep(0)
    await client.settle()
    assert not handshake.done()
    step.made[0].set_result(None)
    assert (await handshake).status == client.accepted
    client.send(masked(0x1, b"hello"))
    assert (await client.one()).payload == b"hello"


@in_loop
async def test_client_that_leaves_before_it_is_admitted_opens_nothing() -> None:
    app, step = App(), Promises()
    client = peer(app, step)
    handshake = asyncio.ensure_future(client.handshake())
    while not step.made:
        await asyncio.sleep(0)
    client.connection.lose()
    await client.settle()
    handshake.cancel()
    assert step.made[0].cancelled()
    assert app.scope is None
