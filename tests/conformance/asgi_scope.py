"""The `http` connection scope (ASGI HTTP 2.5, but for the version that is announced)."""

import queue
from typing import Any

import pytest
from tests.conformance.client import PATIENCE
from tests.conformance.wires import Started, Wire, answer


class ShowScope:
    """Answers 200 and keeps the scope."""

    def __init__(self) -> None:
        self.scopes: queue.Queue[dict[str, Any]] = queue.Queue()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        self.scopes.put(scope)
        await answer(send, b"ok")


def scope_of(wire: Wire, path: str, headers: Any = (), *, method: str = "GET", **settings: Any) -> dict[str, Any]:
    app = ShowScope()
    response = wire.share(app, **settings).request(method, path, headers)
    assert response.status == 200
    return app.scopes.get(timeout=PATIENCE)


def test_has_the_keys_of_the_specification(wire: Wire) -> None:
    scope = scope_of(wire, "/")
    assert set(scope) == {
        "type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string", "root_path", "headers",
        "client", "server", "state", "extensions",
    }  # fmt: skip
    assert scope["type"] == "http"
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.3"}


def test_values_have_the_types_of_the_specification(wire: Wire) -> None:
    scope = scope_of(wire, "/a?b")
    types = {key: type(value) for key, value in scope.items()}
    assert types["method"] is types["path"] is types["root_path"] is types["scheme"] is types["http_version"] is str
    assert types["raw_path"] is types["query_string"] is bytes
    assert types["state"] is types["extensions"] is types["asgi"] is dict
    assert all(type(part) is bytes for pair in scope["headers"] for part in pair)


def test_names_the_protocol_version(wire: Wire) -> None:
    assert scope_of(wire, "/")["http_version"] == wire.case.version


def test_scheme_tells_whether_tls_is_used(wire: Wire) -> None:
    assert scope_of(wire, "/")["scheme"] == ("https" if wire.case.tls else "http")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_addresses_are_those_that_the_client_has_whatever_the_socket(wire: Wire, host: str) -> None:
    """IPv4 clients of a socket for both families have addresses that are mapped into IPv6."""
    if wire.case.unix:
        pytest.skip("it has no addresses")
    app = ShowScope()
    started = wire.share(app, host="::")
    with started.connect(host=host) as client:
        client.request("GET", "/")
        scope = app.scopes.get(timeout=PATIENCE)
        assert scope["client"][0] == host
        # A UDP socket does not know where its datagrams were sent.
        assert scope["server"] == ("::" if wire.case.quic else host, started.server.port)


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "M-SEARCH"])
def test_method_is_the_one_sent(wire: Wire, method: str) -> None:
    assert scope_of(wire, "/", method=method)["method"] == method


@pytest.mark.parametrize(
    ("sent", "path"),
    [
        ("/", "/"),
        ("/plain/path", "/plain/path"),
        ("/a%20b", "/a b"),
        ("/caf%C3%A9", "/café"),
        ("/%F0%9F%8E%89", "/🎉"),
        ("/a%2Fb", "/a/b"),
        ("/a+b", "/a+b"),
        ("/100%", "/100%"),
        ("/%zz", "/%zz"),
        ("/%2561", "/%61"),
        ("//double//slash", "//double//slash"),
        ("/a/../b/./c", "/a/../b/./c"),
        ("/%2e%2e/x", "/../x"),
        ("/x;y=z", "/x;y=z"),
        ("/http://inside", "/http://inside"),
    ],
)
def test_path_is_decoded_once_and_raw_path_is_as_sent(wire: Wire, sent: str, path: str) -> None:
    scope = scope_of(wire, sent)
    assert (scope["path"], scope["raw_path"]) == (path, sent.encode())


def test_path_that_is_not_utf8_has_replacement_characters(wire: Wire) -> None:
    scope = scope_of(wire, "/%ff%fe")
    assert (scope["path"], scope["raw_path"]) == ("/��", b"/%ff%fe")


@pytest.mark.parametrize(
    ("sent", "query"),
    [
        ("/", b""),
        ("/?", b""),
        ("/?a=1&b=2", b"a=1&b=2"),
        ("/?a=%20+%C3%A9", b"a=%20+%C3%A9"),
        ("/?a?b", b"a?b"),
        ("/p?x=/y/../z", b"x=/y/../z"),
    ],
)
def test_query_string_is_what_follows_the_first_question_mark_undecoded(wire: Wire, sent: str, query: bytes) -> None:
    scope = scope_of(wire, sent)
    assert scope["query_string"] == query
    assert scope["raw_path"] == sent.encode().partition(b"?")[0]


def test_root_path_is_empty_by_default(wire: Wire) -> None:
    assert scope_of(wire, "/")["root_path"] == ""


def test_root_path_is_put_before_path_and_raw_path(wire: Wire) -> None:
    scope = scope_of(wire, "/a%20b?c", root_path="/api/v1")
    assert scope["root_path"] == "/api/v1"
    assert scope["path"] == "/api/v1/a b"
    assert scope["raw_path"] == b"/api/v1/a%20b"
    assert scope["query_string"] == b"c"


@pytest.mark.parametrize("root_path", ["/straße", "/a%20b", "/100%"])
def test_path_starts_with_root_path_character_by_character(wire: Wire, root_path: str) -> None:
    scope = scope_of(wire, "/x%20y", root_path=root_path)
    assert scope["root_path"] == root_path
    assert scope["path"] == root_path + "/x y"


def test_header_names_are_lower_case_and_values_as_sent(wire: Wire) -> None:
    headers = scope_of(wire, "/", [(b"X-Mixed-Case", b"Value KEPT")])["headers"]
    assert (b"x-mixed-case", b"Value KEPT") in [tuple(pair) for pair in headers]


@pytest.mark.parametrize("value", ["café".encode(), b"caf\xe9", bytes(range(0x80, 0x100))])
def test_octets_above_ascii_are_opaque(wire: Wire, value: bytes) -> None:
    """RFC 9110 5.5: obs-text"""
    assert (b"x-coffee", value) in [tuple(pair) for pair in scope_of(wire, "/", [(b"x-coffee", value)])["headers"]]


def test_repeated_headers_stay_apart_and_in_order(wire: Wire) -> None:
    headers = scope_of(wire, "/", [(b"x-a", b"1"), (b"x-b", b"2"), (b"x-a", b"3")])["headers"]
    assert [value for name, value in headers if name in (b"x-a", b"x-b")] == [b"1", b"2", b"3"]


def test_has_the_host_once(wire: Wire) -> None:
    headers = scope_of(wire, "/", [(b"host", b"example.net:81")])["headers"]
    assert [value for name, value in headers if name == b"host"] == [b"example.net:81"]


def test_header_with_an_empty_value_is_kept(wire: Wire) -> None:
    assert [value for name, value in scope_of(wire, "/", [(b"x-empty", b"")])["headers"] if name == b"x-empty"] == [b""]


def test_client_and_server_are_the_addresses_of_the_connection(wire: Wire) -> None:
    app = ShowScope()
    server = wire.share(app)
    with server.connect() as client:
        client.request("GET", "/")
        scope = app.scopes.get(timeout=PATIENCE)
        if wire.case.unix:
            assert scope["client"] is None
            assert tuple(scope["server"]) == (client.server_address, None)
        else:
            assert tuple(scope["client"]) == client.address
            assert tuple(scope["server"]) == client.server_address


class Spoiler:
    """Changes every container it finds in the scope, and remembers how it was."""

    def __init__(self) -> None:
        self.seen: queue.Queue[Any] = queue.Queue()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["pool"] = ["shared"]
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        # It is another for each request.
        scope["extensions"].pop("pounce.h3.stream_id", None)
        self.seen.put({key: repr(scope[key]) for key in ("asgi", "state", "extensions")})
        for extension in [found for found in scope["extensions"].values() if isinstance(found, dict)]:
            for value in extension.values():
                if isinstance(value, list):
                    value.append("spoiled")
            extension["spoiled"] = True
        scope["extensions"]["spoiled"] = {}
        scope["asgi"]["spoiled"] = True
        scope["state"]["spoiled"] = True
        scope["headers"].append((b"spoiled", b""))
        await answer(send)


def test_what_one_request_changes_in_its_scope_the_next_does_not_see(wire: Wire) -> None:
    app = Spoiler()
    with wire.share(app).connect() as client:
        client.request("GET", "/")
        client.request("GET", "/")
    first, second = app.seen.get(timeout=PATIENCE), app.seen.get(timeout=PATIENCE)
    assert first == second


def test_state_is_a_shallow_copy_of_what_the_lifespan_left(wire: Wire) -> None:
    pool: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["pool"] = pool
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        scope["state"]["pool"].append(scope["path"])
        scope["state"]["own"] = True
        await answer(send, str(sorted(scope["state"])).encode())

    server = wire.start(app)
    server.request("GET", "/1")
    assert server.request("GET", "/2").body == b"['own', 'pool']"
    assert pool == ["/1", "/2"]


def extensions_of(wire: Wire, **settings: Any) -> dict[str, Any]:
    extensions: dict[str, Any] = scope_of(wire, "/", **settings)["extensions"]
    return extensions


def offered(wire: Wire, **settings: Any) -> set[str]:
    """What is offered to answer with, without its prefix."""
    extensions = extensions_of(wire, **settings)
    found = {name.removeprefix("http.response.") for name in extensions if name.startswith("http.response.")}
    assert all(extensions[f"http.response.{name}"] == {} for name in found)
    return found


def test_offers_no_extension_that_middlewares_break_on(wire: Wire) -> None:
    assert offered(wire) == {"early_hint"}


@pytest.mark.parametrize("names", [(), ("pathsend",), ("trailers", "pathsend"), ("http.response.pathsend",)], ids=str)
def test_offers_the_extensions_that_the_setting_names(wire: Wire, names: tuple[str, ...]) -> None:
    assert offered(wire, asgi_extensions=names) == {name.removeprefix("http.response.") for name in names}


def test_offers_zero_copy_only_where_bytes_are_not_encrypted(wire: Wire) -> None:
    assert ("zerocopysend" in offered(wire, asgi_extensions=["zerocopysend"])) is wire.case.sends_files


def test_offers_the_message_of_earlier_versions_where_that_is_asked_for(wire: Wire) -> None:
    offered = extensions_of(wire, asgi_extensions=["sendfile"])
    assert ("pounce.sendfile" in offered) is wire.case.sends_files


def test_tells_the_worker(wire: Wire) -> None:
    worker = extensions_of(wire)["pounce.worker"]
    assert (worker["worker_id"], worker["generation"]) == (0, 0)


def test_tls_extension_is_there_exactly_with_tls(wire: Wire) -> None:
    assert ("tls" in extensions_of(wire)) is wire.case.tls


def test_tls_extension_describes_the_connection(wire: Wire) -> None:
    if not wire.case.tls:
        pytest.skip("needs TLS")
    tls = extensions_of(wire)["tls"]
    with open(wire.certificate.certfile, encoding="ascii") as file:
        assert tls["server_cert"] == file.read()
    assert tls["client_cert_chain"] == []
    assert tls["client_cert_name"] is None
    assert tls["client_cert_error"] is None
    assert tls["tls_version"] == 0x0304
    assert tls["cipher_suite"] in (0x1301, 0x1302, 0x1303)


def test_a_wire_starts_without_an_application_that_knows_lifespan(wire: Wire) -> None:
    server: Started = wire.start(ShowScope())
    assert server.request("GET", "/").complete
