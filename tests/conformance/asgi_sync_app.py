"""An object that answers requests before the ASGI application is asked, over every wire."""

import logging
from typing import Any

import pytest
from tests.conformance.wires import Wire, answer

from pounce import ConfigError
from pounce.sync_protocol import RawRequest, RawResponse
from pounce.testing import TestServer


class Quick:
    def handle_sync(self, request: RawRequest) -> RawResponse | None:
        if request.path == "/raises":
            raise RuntimeError("on purpose")
        if request.path == "/quick":
            told = f"{request.method} {request.query_string.decode()} ".encode() + request.body
            return RawResponse(201, [(b"x-by", b"quick")], told)
        return None


QUICK = Quick()


async def app(scope: Any, receive: Any, send: Any) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        body += message["body"]
        more = message["more_body"]
    await answer(send, b"application: " + body)


def test_it_answers_with_the_whole_request_at_hand(wire: Wire) -> None:
    server = wire.share(app, sync_app=QUICK)
    response = server.request("POST", "/quick?a=b", body=b"what was sent" * 1000)
    assert (response.status, dict(response.headers)[b"x-by"]) == (201, b"quick")
    assert response.body == b"POST a=b " + b"what was sent" * 1000


def test_what_it_leaves_reaches_the_application_with_its_body(wire: Wire) -> None:
    server = wire.share(app, sync_app=QUICK)
    body = server.request("POST", "/other", body=b"what was sent" * 1000).body
    assert body == b"application: " + b"what was sent" * 1000


def test_what_it_raises_is_an_error_of_the_application(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        server = wire.share(app, sync_app=QUICK)
        assert server.request("GET", "/raises").status == 500
        assert server.request("GET", "/quick").status == 201
    assert "on purpose" in caplog.text


def test_the_pipeline_is_around_it_too(wire: Wire) -> None:
    server = wire.share(app, sync_app=QUICK, headers=["X-Always: yes"], request_id=True)
    found = dict(server.request("GET", "/quick").headers)
    assert found[b"x-always"] == b"yes"
    assert found[b"x-request-id"]


def test_something_else_is_refused() -> None:
    with pytest.raises(ConfigError, match="handle_sync"), TestServer(app, sync_app=object()):
        pass
