"""What runs here, and who is told, whatever the wire."""

import json
from typing import Any

import pytest
from tests.conformance.wires import Started, Wire, answer

PATH = "/_pounce/info"
HERE = (b"host", b"localhost")


async def app(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"the application")


@pytest.fixture
def started(wire: Wire) -> Started:
    return wire.share(app, introspection_enabled=True, introspection_token="a-token", server_header="hidden")


def test_on_this_machine_it_is_told_what_runs_here(started: Started) -> None:
    found = started.request("GET", PATH, [HERE])
    told = json.loads(found.body)
    assert found.status == 200
    assert told["server"]["counts"]["requests"] == 1
    assert told["worker"]["worker_id"] == 0
    assert told["config"]["access_log"] is False
    assert told["config"]["server_header_set"] is True


def test_no_secret_and_no_text_of_the_configuration_is_told(started: Started) -> None:
    body = started.request("GET", PATH, [HERE]).body
    assert b"a-token" not in body
    assert b"hidden" not in body
    assert json.loads(body)["config"]["introspection_token_set"] is True


def test_who_is_spoken_for_by_a_proxy_that_nobody_trusts_needs_the_token(started: Started) -> None:
    relayed = [HERE, (b"x-forwarded-for", b"192.0.2.1")]
    refused = started.request("GET", PATH, relayed)
    assert (refused.status, b"runtime" in refused.body) == (403, False)
    assert started.request("GET", PATH, [*relayed, (b"authorization", b"Bearer wrong")]).status == 403
    assert started.request("GET", PATH, [*relayed, (b"authorization", b"Bearer a-token")]).status == 200


@pytest.mark.parametrize("trusted", [["127.0.0.1", "unix"], ["*", "unix"]], ids=["the proxy", "all"])
def test_no_word_of_a_proxy_stands_for_the_token_however_trusted(wire: Wire, trusted: list[str]) -> None:
    started = wire.share(app, introspection_enabled=True, introspection_token="a-token", trusted_hosts=trusted)
    for said in (
        (b"x-forwarded-for", b"192.0.2.1"),
        # As the client itself may have written it.
        (b"x-forwarded-for", b"127.0.0.1"),
        (b"x-forwarded-for", b"::1, 127.0.0.1"),
        # Of whom nothing is said.
        (b"x-forwarded-proto", b"https"),
    ):
        assert started.request("GET", PATH, [HERE, said]).status == 403
        assert started.request("GET", PATH, [HERE, said, (b"authorization", b"Bearer a-token")]).status == 200


def test_name_that_may_be_of_another_site_is_not_this_machine_s(
    started: Started, wire: Wire
) -> None:
    if wire.case.unix:
        pytest.skip("no page of a browser gets there")
    for host, status in {
        b"rebound.example": 403, b"localhost.example:80": 403, b"127.0.0.1.example": 403,
        b"localhost:80": 200, b"app.localhost": 200, b"127.0.0.1:8000": 200, b"[::1]:8000": 200,
    }.items():  # fmt: skip
        assert started.request("GET", PATH, [(b"host", host)]).status == status
    with_token = [(b"host", b"rebound.example"), (b"authorization", b"Bearer a-token")]
    assert started.request("GET", PATH, with_token).status == 200


def test_other_methods_and_servers_without_it_leave_the_path_to_the_application(started: Started, wire: Wire) -> None:
    assert started.request("POST", PATH, body=b"").body == b"the application"
    assert wire.share(app).request("GET", PATH).body == b"the application"
