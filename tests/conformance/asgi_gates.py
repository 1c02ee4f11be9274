"""What stands in front of the application, over every wire: names, https, fields of all answers, CORS, mounts."""

from typing import Any

import pytest
from tests.conformance.client import Response
from tests.conformance.wires import Started, Wire, answer

from pounce import CORSMiddleware, SecurityHeadersMiddleware
from pounce.middleware import Dispatch

HOST = (b"host", b"example.org")


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await answer(send, f"{scope['root_path']}|{scope['path']}".encode(), headers=[(b"x-own", b"1")])


def ask(server: Started, path: str = "/", *fields: tuple[bytes, bytes], method: str = "GET") -> Response:
    return server.request(method, path, fields)


@pytest.mark.parametrize(
    ("host", "status"),
    [(b"example.org", 200), (b"EXAMPLE.org:8443", 200), (b"a.example.net", 200), (b"example.net", 421)],
)
def test_other_hosts_than_those_that_are_named_are_misdirected(wire: Wire, host: bytes, status: int) -> None:
    server = wire.share(app, server_names=["example.org", "*.example.net"])
    assert ask(server, "/", (b"host", host)).status == status


def test_requests_over_http_are_sent_on_and_those_over_https_are_told_to_stay(wire: Wire) -> None:
    server = wire.share(app, https_redirect=True, https_redirect_port=8443, hsts="max-age=60")
    response = ask(server, "/a%20b?c=d", HOST)
    if wire.case.tls:
        assert (response.status, response.headers[b"strict-transport-security"]) == (200, b"max-age=60")
    else:
        assert (response.status, response.headers[b"location"]) == (308, b"https://example.org:8443/a%20b?c=d")
        # RFC 6797 7.2: not over http.
        assert b"strict-transport-security" not in response.headers


def test_request_that_a_trusted_proxy_got_over_https_is_not_sent_on(wire: Wire) -> None:
    proxies = ["unix" if wire.case.unix else "127.0.0.1"]
    server = wire.share(app, https_redirect=True, hsts="max-age=60", trusted_hosts=proxies)
    response = ask(server, "/", HOST, (b"x-forwarded-proto", b"https"))
    assert (response.status, response.headers[b"strict-transport-security"]) == (200, b"max-age=60")


def test_fields_of_every_answer_are_added_unless_the_answer_has_them(wire: Wire) -> None:
    server = wire.share(app, headers=["X-Own: 2", "X-Added: 3"], probes=True, server_names=["example.org"])
    for path, host, status in (("/", b"example.org", 200), ("/livez", b"example.org", 200), ("/", b"other.org", 421)):
        response = ask(server, path, (b"host", host))
        assert (response.status, response.headers[b"x-added"]) == (status, b"3")
        assert [value for name, value in response.headers if name == b"x-own"] == [
            b"1" if (path, status) == ("/", 200) else b"2"
        ]


def test_pages_of_other_origins_are_told_what_they_may(wire: Wire) -> None:
    cors = CORSMiddleware(app, allow_origins=["https://app.example"], allow_methods=["PUT"], allow_credentials=True)
    server = wire.share(cors)
    origin = (b"origin", b"https://app.example")
    preflight = ask(server, "/", origin, (b"access-control-request-method", b"PUT"), method="OPTIONS")
    assert preflight.headers[b"access-control-allow-methods"] == b"PUT"
    plain = ask(server, "/", origin)
    assert (plain.headers[b"access-control-allow-origin"], plain.headers[b"access-control-allow-credentials"]) == (
        b"https://app.example",
        b"true",
    )
    other = ask(server, "/", (b"origin", b"https://evil.example"))
    assert (other.body, b"access-control-allow-origin" in other.headers) == (b"|/", False)


def test_applications_are_mounted_by_path_and_host_with_what_is_around_them(wire: Wire) -> None:
    mounted = Dispatch({"/api": app, "example.net/": app, "/only": app})
    server = wire.share(SecurityHeadersMiddleware(mounted), root_path="/root")
    for path, host, body in (
        ("/api/x", b"example.org", b"/root/api|/root/api/x"),
        ("/x", b"example.net", b"/root|/root/x"),
        ("/only", b"example.org", b"/root/only|/root/only"),
    ):
        response = ask(server, path, (b"host", host))
        assert (response.body, response.headers[b"x-content-type-options"]) == (body, b"nosniff")
    assert ask(server, "/x", HOST).status == 404
