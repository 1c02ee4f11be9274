"""Addresses that are for endpoints of the server alone."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from pounce import BindError, ConfigError, ServerConfig
from pounce.net.bind import binds_of
from pounce.testing import TestServer

PATHS = ["/metrics", "/_pounce/info", "/_pounce/"]


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"the application"})


@pytest.fixture(scope="module")
def urls() -> Iterator[tuple[str, ...]]:
    """Where the application is, the metrics, and the rest."""
    with TestServer(
        app,
        lifespan="off",
        max_connections=4,
        keep_alive_timeout=3600.0,
        metrics_enabled=True,
        introspection_enabled=True,
        status_page_enabled=True,
        metrics_bind="127.0.0.1:0",
        introspection_bind="localhost:0",
        ipv6="off",
    ) as server:
        yield server.info.urls


def get(url: str) -> tuple[int, bytes]:
    try:
        with urlopen(url, timeout=60) as answer:
            return answer.status, answer.read()
    except HTTPError as exc:
        with exc:
            return exc.code, exc.read()


def test_each_endpoint_is_at_its_own_address(urls: tuple[str, ...]) -> None:
    _, metrics, rest = urls
    assert b"pounce_workers 1" in get(metrics + "/metrics")[1]
    assert json.loads(get(rest + "/_pounce/info")[1])["worker"]["worker_id"] == 0
    assert b"<html" in get(rest + "/_pounce/")[1]


def test_nothing_else_is_there(urls: tuple[str, ...]) -> None:
    _, metrics, rest = urls
    found = {get(url + path)[0] for url, path in [(metrics, "/"), (metrics, PATHS[1]), (rest, "/"), (rest, PATHS[0])]}
    assert found == {404}


@pytest.mark.parametrize("path", PATHS)
def test_the_main_address_leaves_their_paths_to_the_application(urls: tuple[str, ...], path: str) -> None:
    assert get(urls[0] + path) == (200, b"the application")


def test_they_answer_where_clients_have_taken_all_connections(urls: tuple[str, ...]) -> None:
    host, _, port = urls[0].partition("://")[2].rpartition(":")
    deadline = time.monotonic() + 60
    with ExitStack() as clients:
        taken = 0
        while taken < 4:
            # Those of the tests before may not all be gone yet.
            assert time.monotonic() < deadline
            client = clients.enter_context(socket.create_connection((host, int(port)), 60))
            client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            taken += client.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert get(urls[0])[0] == 503
        assert get(urls[1] + "/metrics")[0] == 200


def test_an_address_that_is_taken_is_an_error_of_the_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(BindError, match=f"cannot listen on {taken}") as raised:
            TestServer(app, metrics_enabled=True, metrics_bind=taken).start()
    assert raised.value.code == "POUNCE_BIND_IN_USE"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metrics_bind": "9100"}, "metrics_bind: bind must be"),
        ({"metrics_bind": "127.0.0.1:8000"}, "metrics_bind is 127.0.0.1:8000, where the server itself listens"),
        ({"introspection_bind": "127.0.0.1:", "introspection_enabled": True}, "introspection_bind: bind must be"),
    ],
)
def test_an_address_that_cannot_be_is_named_with_its_setting(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        binds_of(ServerConfig(port=8000, metrics_enabled=True, **settings))


def test_both_may_have_the_same_address() -> None:
    where = "127.0.0.1:9100"
    config = ServerConfig(
        metrics_enabled=True, introspection_enabled=True, metrics_bind=where, introspection_bind=where
    )
    assert [bind.serves for bind in binds_of(config)] == [(), ("metrics", "info", "status_page")]


def test_an_address_for_what_is_off_is_not_opened() -> None:
    assert len(binds_of(ServerConfig(metrics_bind="127.0.0.1:9100", introspection_bind="127.0.0.1:9101"))) == 1
    assert len(binds_of(ServerConfig(introspection_enabled=True, introspection_bind="localhost"))) == 1
