"""Rate limits over every wire: in the memory of the process, and in a store that requests wait for."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.conformance.wires import Wire, answer, read_body
from tests.redis_server import RedisServer, needs_redis

LIMITED = {"rate_limit_enabled": True, "rate_limit_burst": 2, "rate_limit_requests_per_second": 0.001}


async def echo(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        return
    await answer(send, await read_body(receive))


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


def stored(redis: RedisServer, prefix: str) -> dict[str, Any]:
    return {"rate_limit_store": redis.url, "rate_limit_store_timeout": 60.0, "rate_limit_store_prefix": prefix}


def test_request_beyond_the_limit_is_refused_and_the_connection_goes_on(wire: Wire) -> None:
    server = wire.start(echo, **LIMITED, rate_limit_routes=("/free off",), probes=True)
    with server.connect() as client:
        statuses = [client.request("GET", "/").status for _ in range(2)]
        refused = client.request("POST", "/", body=b"x" * 1000)
        others = [client.request("GET", path).status for path in ("/free", "/livez")]
    assert (statuses, refused.status, others) == ([200, 200], 429, [200, 200])
    assert refused.headers[b"x-pounce-error-code"] == b"POUNCE_LIMIT_RATE"
    assert refused.headers[b"ratelimit-policy"] == b'"default";q=2;w=2000'
    wait = refused.headers[b"retry-after"]
    assert refused.headers[b"ratelimit"] == b'"default";r=0;t=' + wait
    assert 900 < int(wait) <= 1000


def test_admitted_answers_say_what_is_left(wire: Wire) -> None:
    server = wire.start(echo, **LIMITED, rate_limit_fields="all")
    with server.connect() as client:
        found = [client.request("GET", "/").headers for _ in range(2)]
    assert [fields[b"ratelimit"].partition(b";t=")[0] for fields in found] == [b'"default";r=1', b'"default";r=0']
    assert [fields[b"ratelimit-policy"] for fields in found] == [b'"default";q=2;w=2000'] * 2


async def sorry(scope: Any, receive: Any, send: Any) -> None:
    """In place of the error page."""
    await answer(send, b"sorry", headers=[(b"content-type", b"text/plain")])


def test_refusal_keeps_its_fields_where_an_application_answers_for_the_error_page(wire: Wire) -> None:
    server = wire.start(echo, **LIMITED, error_pages={"429": f"{__name__}:sorry"})
    with server.connect() as client:
        refused = [client.request("GET", "/") for _ in range(3)][2]
    assert (refused.status, refused.body) == (429, b"sorry")
    assert refused.headers[b"x-pounce-error-code"] == b"POUNCE_LIMIT_RATE"
    assert refused.headers[b"ratelimit"] == b'"default";r=0;t=' + refused.headers[b"retry-after"]


@needs_redis
def test_request_waits_for_the_store_with_its_body(wire: Wire, redis: RedisServer) -> None:
    server = wire.start(echo, **LIMITED, **stored(redis, f"waits {wire.case}:"))
    body = b"0123456789" * 30_000
    with server.connect() as client:
        answers = [client.request("POST", "/", body=body) for _ in range(3)]
    assert [each.status for each in answers] == [200, 200, 429]
    assert [each.body == body for each in answers] == [True, True, False]


@needs_redis
def test_requests_that_wait_while_the_store_is_paused_are_answered_when_it_goes_on(
    wire: Wire, redis: RedisServer
) -> None:
    server = wire.start(echo, rate_limit_enabled=True, **stored(redis, f"paused {wire.case}:"))
    with server.connect() as client:
        assert client.request("GET", "/").status == 200
        redis.pause()
        try:
            waiting = client.open("POST", "/", body=True)
            waiting.send_body(b"first ")
            gone = server.connect().open("GET", "/")
            gone.abort()
        finally:
            redis.resume()
        waiting.send_body(b"second")
        waiting.end()
        assert waiting.response().body == b"first second"
    assert server.request("GET", "/").status == 200
