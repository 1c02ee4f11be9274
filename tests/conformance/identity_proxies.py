"""Who a request is from, over every wire: proxies that are trusted and others, request ids."""

import json
import re
from typing import Any

import pytest
from tests.conformance.wires import Started, Wire, answer

from pounce import AppImportError, ConfigError
from pounce.testing import TestServer


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    names = [name.decode() for name, _ in scope["headers"] if name.startswith((b"x", b"f"))]
    shown = (scope["client"], scope["server"], scope["scheme"], scope["root_path"], names)
    number = scope["extensions"].get("request_id", "")
    await answer(send, repr(shown).encode(), headers=[(b"x-seen", number.encode())])


def told(server: Started, *fields: tuple[bytes, bytes]) -> Any:
    response = server.request("GET", "/", fields)
    assert response.status == 200
    return eval(response.body)


def trusted(wire: Wire) -> dict[str, Any]:
    return {"trusted_hosts": ["unix" if wire.case.unix else "127.0.0.1"]}


FORWARDED = [(b"x-forwarded-for", b"1.1.1.1, 192.0.2.7"), (b"x-forwarded-proto", b"https"), (b"x-real-ip", b"2.2.2.2")]


def test_client_is_who_the_trusted_proxy_says(wire: Wire) -> None:
    client, _, scheme, _, names = told(wire.share(app, **trusted(wire)), *FORWARDED)
    assert (client, scheme) == (("192.0.2.7", 0), "https")
    assert "x-forwarded-for" in names


def test_request_after_request_of_one_connection_is_told_apart(wire: Wire) -> None:
    server = wire.share(app, **trusted(wire))
    with server.connect() as connection:
        for number in (1, 2, 3, 4):
            fields = [(b"x-forwarded-for", b"192.0.2.%d" % number)] if number % 2 else []
            client = eval(connection.request("GET", "/", fields).body)[0]
            assert (client == (f"192.0.2.{number}", 0)) is bool(number % 2)


def test_others_are_not_believed_and_their_fields_are_taken_away(wire: Wire) -> None:
    for settings in ({}, {"trusted_hosts": ["203.0.113.0/24"]}):
        server = wire.share(app, **settings)
        fields = [*FORWARDED, (b"forwarded", b"for=3.3.3.3"), (b"x-request-id", b"forged"), (b"x-forwarded-new", b"x")]
        fields += [(b"x_forwarded_for", b"3.3.3.3"), (b"x-real_ip", b"3.3.3.3"), (b"x-request_id", b"forged")]
        client, _, scheme, _, names = told(server, *fields, (b"x-other", b"stays"), (b"x_other", b"stays"))
        assert client is None if wire.case.unix else client[0] == "127.0.0.1"
        assert scheme == ("https" if wire.case.tls else "http")
        assert names == ["x-other", "x_other"]


def test_fields_stay_as_they_are_where_nobody_is_to_judge_them(wire: Wire) -> None:
    server = wire.share(app, proxy_headers=False)
    names = told(server, *FORWARDED)[4]
    assert names == ["x-forwarded-for", "x-forwarded-proto", "x-real-ip"]


def test_host_and_prefix_are_those_of_the_proxy(wire: Wire) -> None:
    server = wire.share(app, root_path="/own", forwarded_prefix=True, **trusted(wire))
    fields = [(b"x-forwarded-host", b"example.org:8443"), (b"x-forwarded-prefix", b"/app")]
    _, local, _, root_path, _ = told(server, *fields)
    assert (local, root_path) == (("example.org", 8443), "/app/own")


def test_forwarded_is_read_where_proxies_write_it(wire: Wire) -> None:
    server = wire.share(app, forwarded_family="forwarded", **trusted(wire))
    client, _, scheme, _, names = told(server, (b"forwarded", b"for=192.0.2.7;proto=https"), *FORWARDED)
    assert (client, scheme, names) == (("192.0.2.7", 0), "https", ["forwarded"])


def test_forwarded_that_cannot_be_read_is_refused(wire: Wire) -> None:
    server = wire.share(app, forwarded_family="forwarded", **trusted(wire))
    response = server.request("GET", "/", [(b"forwarded", b'for="192.0.2.7')])
    assert (response.status, dict(response.headers)[b"x-pounce-error-code"]) == (400, b"POUNCE_PARSE_BAD_FORWARDED")


def test_access_log_has_the_client(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "pounce.access")
    server = wire.share(app, access_log=True, request_id=True, **trusted(wire))
    told(server, *FORWARDED, (b"x-request-id", b"abc-123"))
    server.stop()
    lines = [record.getMessage() for record in caplog.records if record.name == "pounce.access"]
    assert len(lines) == 1
    assert lines[0].startswith("192.0.2.7:0 - ")
    assert lines[0].endswith("[abc-123]")


# Request ids


def ids(server: Started, *fields: tuple[bytes, bytes], path: str = "/") -> tuple[str, str]:
    """The id that the answer has, and the one that the application was told."""
    response = server.request("GET", path, fields)
    found = dict(response.headers)
    return found.get(b"x-request-id", b"").decode(), found.get(b"x-seen", b"").decode()


def test_every_request_has_an_id_of_its_own(wire: Wire) -> None:
    server = wire.share(app, request_id=True)
    seen = [ids(server) for _ in range(3)]
    assert all(answered == told and re.fullmatch(r"[0-9a-f]{32}", answered) for answered, told in seen)
    assert len(set(seen)) == 3


def test_id_of_a_trusted_proxy_is_taken_on_and_that_of_others_is_not(wire: Wire) -> None:
    server = wire.share(app, request_id=True, **trusted(wire))
    assert ids(server, (b"x-request-id", b"abc-123")) == ("abc-123", "abc-123")
    assert ids(wire.share(app, request_id=True), (b"x-request-id", b"abc-123"))[0] != "abc-123"


@pytest.mark.parametrize("number", [b"a b", b"x" * 129, b'a"b', b"a\\b"])
def test_id_that_is_no_sane_token_is_replaced(wire: Wire, number: bytes) -> None:
    assert re.fullmatch(
        r"[0-9a-f]{32}", ids(wire.share(app, request_id=True, **trusted(wire)), (b"x-request-id", number))[0]
    )


def test_answers_of_the_server_have_an_id_too(wire: Wire) -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError

    server = wire.share(fails, request_id=True)
    assert re.fullmatch(r"[0-9a-f]{32}", ids(server)[0])


def test_id_that_the_application_sends_stays(wire: Wire) -> None:
    async def own(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, headers=[(b"x-request-id", b"own")])

    assert ids(wire.share(own, request_id=True))[0] == "own"


class Generator:
    def __init__(self) -> None:
        self.given: str | None = "made"

    def __call__(self) -> str:
        if self.given is None:
            raise LookupError("no id today")
        return self.given


GENERATOR = Generator()
"""Asked at the start of the server, too, which refuses it if that fails."""


def test_name_and_generator_can_be_chosen(wire: Wire) -> None:
    server = wire.share(app, request_id=True, request_id_header="X-Trace", request_id_generator=GENERATOR)
    GENERATOR.given = "made"
    assert dict(server.request("GET", "/").headers)[b"x-trace"] == b"made"


def test_chosen_field_is_believed_of_trusted_proxies_and_taken_away_from_others(wire: Wire) -> None:
    async def shows(scope: Any, receive: Any, send: Any) -> None:
        given = [value for name, value in scope["headers"] if name == b"trace"]
        await answer(send, repr((given, scope["extensions"]["request_id"])).encode())

    settings = {"request_id": True, "request_id_header": "Trace"}
    server = wire.share(shows, **settings, **trusted(wire))
    assert eval(server.request("GET", "/", [(b"trace", b"abc")]).body) == ([b"abc"], "abc")
    server = wire.share(shows, **settings)
    given, number = eval(server.request("GET", "/", [(b"trace", b"abc")]).body)
    assert (given, len(number)) == ([], 32)


def test_refused_requests_have_an_id_too(wire: Wire) -> None:
    server = wire.share(app, request_id=True, max_request_size=1)
    response = server.request("POST", "/", [(b"content-length", b"2"), (b"accept", b"application/json")], b"ab")
    number = dict(response.headers)[b"x-request-id"].decode()
    assert (response.status, json.loads(response.body)["request_id"]) == (413, number)


def test_there_is_none_where_it_is_off(wire: Wire) -> None:
    assert ids(wire.share(app)) == ("", "")


@pytest.mark.parametrize("later", ["a b", "a\r\nx-evil: 1", "", None], ids=repr)
def test_generator_that_fails_later_costs_no_request(wire: Wire, later: str | None, caplog: Any) -> None:
    server = wire.share(app, request_id=True, request_id_header="X-Trace", request_id_generator=GENERATOR)
    GENERATOR.given = later
    with server.connect() as client:
        for _ in range(2):
            response = client.request("GET", "/")
            assert (response.status, len(dict(response.headers)[b"x-trace"])) == (200, 32)
    GENERATOR.given = "made"
    assert "request_id_generator failed" in caplog.text


@pytest.mark.parametrize(
    ("generator", "error"), [("no_such_module:make", AppImportError), (7, ConfigError), (lambda: "a b", ConfigError)]
)
def test_generator_that_is_none_ends_the_start(generator: Any, error: type[Exception]) -> None:
    with pytest.raises(error), TestServer(app, request_id=True, request_id_generator=generator):
        pass


# Connections


def test_bind_may_have_proxies_of_its_own() -> None:
    import httpx

    binds = ["127.0.0.1:0?trusted_hosts=127.0.0.1", "127.0.0.1:0"]
    with TestServer(app, bind=binds) as server:
        clients = []
        for url in server.info.urls:
            shown = eval(httpx.get(url, headers={"x-forwarded-for": "192.0.2.7"}).text)
            clients.append(shown[0][0])
    assert clients == ["192.0.2.7", "127.0.0.1"]
