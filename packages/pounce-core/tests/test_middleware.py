"""CORS, security headers, redirects, allowed hosts and mounts as plain ASGI, without a server."""

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pounce import ConfigError, CORSMiddleware, SecurityHeadersMiddleware
from pounce.middleware import AllowedHosts, Dispatch, HTTPSRedirect, ProxyHeaders

ORIGIN = "https://app.example"


class Answer:
    def __init__(self, messages: list[Any]) -> None:
        self.messages = messages
        start = messages[0] if messages and messages[0]["type"] == "http.response.start" else None
        self.status = start["status"] if start else None
        self.headers = {name.decode(): value.decode() for name, value in (start or {}).get("headers", ())}
        self.body = b"".join(message.get("body", b"") for message in messages[1:])


type Ask = Callable[..., Answer]


@pytest.fixture
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def ask(loop: asyncio.Runner) -> Ask:
    def ask(
        app: Any,
        method: str = "GET",
        path: str = "/",
        kind: str = "http",
        scheme: str = "",
        state: Any = (),
        **headers: str,
    ) -> Answer:
        target, _, query = path.partition("?")
        scope = {
            "type": kind,
            "method": method,
            "scheme": scheme or ("http" if kind == "http" else "ws"),
            "path": target,
            "raw_path": target.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "state": dict(state),
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        }
        messages: list[Any] = []

        async def send(message: Any) -> None:
            messages.append(message)

        async def run() -> None:
            await app(scope, None, send)

        loop.run(run())
        return Answer(messages)

    return ask


def says(body: bytes = b"app", **fields: str) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        headers = [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


# CORS


def preflight(ask: Ask, app: Any, origin: str = ORIGIN, method: str = "PUT", **more: str) -> Answer:
    return ask(app, "OPTIONS", origin=origin, access_control_request_method=method, **more)


def test_any_origin_may_read_where_all_may(ask: Ask) -> None:
    answer = ask(CORSMiddleware(says()), origin=ORIGIN)
    assert answer.headers == {"access-control-allow-origin": "*"}
    assert ask(CORSMiddleware(says())).headers == {}


def test_named_origin_may_read_and_caches_are_told(ask: Ask) -> None:
    cors = CORSMiddleware(says(), allow_origins=[ORIGIN, "https://other.example"])
    assert ask(cors, origin=ORIGIN).headers == {"vary": "origin", "access-control-allow-origin": ORIGIN}
    assert ask(cors, origin="https://evil.example").headers == {"vary": "origin"}
    assert ask(cors).headers == {"vary": "origin"}


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://a.example.org", True),
        ("https://a.b.example.org", True),
        ("https://example.org", False),
        ("https://evilexample.org", False),
        ("https://example.org.evil.com", False),
        ("http://a.example.org", False),
        ("https://a.example.org:8443", False),
        ("https://evil.com/.example.org", False),
        ("null", False),
    ],
)
def test_pattern_is_for_names_below_one(ask: Ask, origin: str, allowed: bool) -> None:
    answer = ask(CORSMiddleware(says(), allow_origins="https://*.example.org"), origin=origin)
    assert ("access-control-allow-origin" in answer.headers) is allowed


def test_regular_expression_is_matched_with_the_whole_origin(ask: Ask) -> None:
    cors = CORSMiddleware(says(), allow_origin_regex=r"https://[a-z]+\.example")
    assert "access-control-allow-origin" in ask(cors, origin="https://x.example").headers
    assert "access-control-allow-origin" not in ask(cors, origin="https://x.example.evil").headers


def test_preflight_is_answered_here(ask: Ask) -> None:
    cors = CORSMiddleware(says(), allow_origins=ORIGIN, allow_methods="GET, PUT", allow_headers=["X-A"], max_age=60)
    answer = preflight(ask, cors, access_control_request_headers="x-a")
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers == {
        "vary": "origin, access-control-request-method, access-control-request-headers",
        "access-control-allow-origin": ORIGIN,
        "access-control-allow-methods": "GET, PUT",
        "access-control-allow-headers": "X-A",
        "access-control-max-age": "60",
    }


def test_preflight_of_another_origin_is_refused(ask: Ask) -> None:
    answer = preflight(ask, CORSMiddleware(says(), allow_origins=ORIGIN), "https://evil.example")
    assert answer.status == 403
    assert "access-control-allow-origin" not in answer.headers


def test_whatever_is_asked_for_is_named_where_all_is_allowed(ask: Ask) -> None:
    cors = CORSMiddleware(says(), allow_origins=ORIGIN, allow_methods="*", allow_credentials=True)
    answer = preflight(ask, cors, method="PURGE", access_control_request_headers="authorization, x-b")
    assert answer.headers["access-control-allow-methods"] == "PURGE"
    assert answer.headers["access-control-allow-headers"] == "authorization, x-b"
    assert answer.headers["access-control-allow-credentials"] == "true"


def test_names_that_are_none_do_not_come_back(ask: Ask) -> None:
    answer = preflight(
        ask, CORSMiddleware(says(), allow_methods="*"), method="<script>", access_control_request_headers="<x>"
    )
    assert "<" not in repr(answer.headers)


def test_options_without_a_wanted_method_is_the_applications(ask: Ask) -> None:
    assert ask(CORSMiddleware(says()), "OPTIONS", origin=ORIGIN).body == b"app"


def test_fields_to_expose_and_credentials_go_with_an_answer(ask: Ask) -> None:
    cors = CORSMiddleware(says(), allow_origins=ORIGIN, allow_credentials=True, expose_headers=["X-A", "X-B"])
    headers = ask(cors, origin=ORIGIN).headers
    assert headers["access-control-allow-credentials"] == "true"
    assert headers["access-control-expose-headers"] == "X-A, X-B"


def test_private_network_is_allowed_where_asked_and_wanted(ask: Ask) -> None:
    wanted = {"access_control_request_private_network": "true"}
    allows = preflight(ask, CORSMiddleware(says(), allow_private_network=True), **wanted)
    assert allows.headers["access-control-allow-private-network"] == "true"
    assert "access-control-allow-private-network" not in preflight(ask, CORSMiddleware(says()), **wanted).headers


def test_what_the_application_says_itself_stays(ask: Ask) -> None:
    app = says(access_control_allow_origin="https://x.example", vary="cookie")
    answer = ask(CORSMiddleware(app, allow_origins=ORIGIN), origin=ORIGIN)
    assert answer.headers["access-control-allow-origin"] == "https://x.example"


def test_handshake_of_another_origin_is_refused_where_asked_for(ask: Ask) -> None:
    cors = CORSMiddleware(says(), allow_origins=ORIGIN, websockets=True)
    refused = ask(cors, kind="websocket", origin="https://evil.example").messages
    assert [message["type"] for message in refused] == ["websocket.close"]
    for headers in ({"origin": ORIGIN}, {}):
        accepted = ask(cors, kind="websocket", **headers).messages
        assert [message["type"] for message in accepted] == ["websocket.accept"]


def test_origin_may_be_the_first_argument_and_the_application_come_later(ask: Ask) -> None:
    cors = CORSMiddleware(ORIGIN, max_age=5).wrap(says())
    assert preflight(ask, cors).headers["access-control-max-age"] == "5"
    assert "access-control-allow-origin" not in ask(cors, origin="https://evil.example").headers


@pytest.mark.parametrize(
    "settings",
    [
        {"allow_origins": "*", "allow_credentials": True},
        {"allow_origins": "app.example"},
        {"allow_origins": "https://app.example/"},
        {"allow_methods": "GET PUT"},
        {"expose_headers": "a:b"},
        {"allow_origin_regex": "("},
    ],
)
def test_setting_of_cors_that_makes_no_sense_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        CORSMiddleware(says(), **settings)


# Security headers


def test_fields_are_added_but_for_those_of_the_application(ask: Ask) -> None:
    answer = ask(SecurityHeadersMiddleware(says(x_frame_options="SAMEORIGIN"), csp=""))
    assert answer.headers == {
        "x-frame-options": "SAMEORIGIN",
        "x-content-type-options": "nosniff",
        "x-xss-protection": "0",
        "referrer-policy": "strict-origin-when-cross-origin",
        "permissions-policy": "camera=(), microphone=(), geolocation=()",
    }


def test_hsts_is_sent_over_https_alone(ask: Ask) -> None:
    secure = SecurityHeadersMiddleware(says(), hsts="max-age=60")
    assert "strict-transport-security" not in ask(secure).headers
    assert ask(secure, scheme="https").headers["strict-transport-security"] == "max-age=60"


def test_value_with_a_line_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="csp"):
        SecurityHeadersMiddleware(csp="a\r\nb")


# From http to https


def test_request_over_http_goes_on_to_https(ask: Ask) -> None:
    answer = ask(HTTPSRedirect(says()), "POST", "/a%20b?c=d", host="example.org:80")
    assert (answer.status, answer.headers["location"]) == (308, "https://example.org/a%20b?c=d")
    other = ask(HTTPSRedirect(says(), port=8443), host="[::1]:8000")
    assert other.headers["location"] == "https://[::1]:8443/"


def test_request_over_https_is_the_applications(ask: Ask) -> None:
    answer = ask(HTTPSRedirect(says(), hsts="max-age=60"), scheme="https", host="example.org")
    assert (answer.body, answer.headers["strict-transport-security"]) == (b"app", "max-age=60")


def test_certificates_can_be_renewed_over_http(ask: Ask) -> None:
    assert ask(HTTPSRedirect(says()), path="/.well-known/acme-challenge/x", host="a").body == b"app"


@pytest.mark.parametrize("host", ["evil.example/x", "a b", "a@b", ""])
def test_host_that_is_none_leads_nowhere(ask: Ask, host: str) -> None:
    assert ask(HTTPSRedirect(says()), host=host).status == 400


def test_websocket_without_tls_is_refused(ask: Ask) -> None:
    types = [message["type"] for message in ask(HTTPSRedirect(says()), kind="websocket", host="a").messages]
    assert types == ["websocket.close"]
    types = [
        message["type"] for message in ask(HTTPSRedirect(says()), kind="websocket", scheme="wss", host="a").messages
    ]
    assert types == ["websocket.accept"]


# Hosts


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("example.org", 200),
        ("EXAMPLE.org:8000", 200),
        ("example.org.", 200),
        ("a.example.net", 200),
        ("example.net", 421),
        ("evilexample.net", 421),
        ("other.example", 421),
        ("", 400),
        ("[::1]:80", 200),
        ("a:b:c", 400),
    ],
)
def test_hosts_that_are_not_ours_are_sent_away(ask: Ask, host: str, status: int) -> None:
    assert ask(AllowedHosts(says(), names=["example.org", "*.example.net", "[::1]"]), host=host).status == status


def test_host_that_is_no_name_is_refused() -> None:
    with pytest.raises(ConfigError):
        AllowedHosts(names=["http://a"])


# Several applications


def shows(name: str) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["name"] = name
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return
        text = f"{name} {scope['root_path']} {scope['path']} {scope['state'].get('name')}"
        await says(text.encode())(scope, receive, send)

    return app


@pytest.mark.parametrize(
    ("path", "host", "answered"),
    [
        ("/", "x", b"site  / None"),
        ("/api", "x", b"api /api /api None"),
        ("/api/v1", "x:80", b"api /api /api/v1 None"),
        ("/apis", "x", b"site  /apis None"),
        ("/api/deep/x", "x", b"deep /api/deep /api/deep/x None"),
        ("/", "Own.example:8000", b"own  / None"),
        ("/", "own.example.:8000", b"own  / None"),
        ("/", "own.example.", b"own  / None"),
        ("/", "dotted.example", b"dotted  / None"),
    ],
)
def test_nearest_mount_answers(ask: Ask, path: str, host: str, answered: bytes) -> None:
    site = Dispatch(
        {
            "/": shows("site"),
            "/api": shows("api"),
            "/api/deep": shows("deep"),
            "own.example/": shows("own"),
            "dotted.example./": shows("dotted"),
        }
    )
    assert ask(site, path=path, host=host).body == answered


def test_path_of_nobody_is_404(ask: Ask) -> None:
    assert ask(Dispatch({"/api": shows("api")}), path="/x").status == 404


def lifespan(loop: asyncio.Runner, app: Any, state: Any = None) -> list[Any]:
    """What is sent in a lifespan whose state is this one."""
    sent: list[Any] = []

    async def run() -> None:
        questions = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

        async def receive() -> Any:
            return next(questions)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {} if state is None else state}
        await app(scope, receive, send)

    loop.run(run())
    return sent


def test_every_application_has_its_lifespan_and_state(loop: asyncio.Runner, ask: Ask) -> None:
    async def without(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await says(b"without")(scope, receive, send)

    site = Dispatch({"/a": shows("a"), "/b": shows("b"), "/c": without})
    state: dict[str, Any] = {}
    assert [message["type"] for message in lifespan(loop, site, state)] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    assert ask(site, path="/a", host="x", state=state).body == b"a /a /a a"
    assert ask(site, path="/b", host="x", state=state).body == b"b /b /b b"
    assert ask(site, path="/c", host="x", state=state).body == b"without"


def test_nothing_is_logged_of_an_application_without_a_lifespan(
    loop: asyncio.Runner, caplog: pytest.LogCaptureFixture
) -> None:
    async def without(scope: Any, receive: Any, send: Any) -> None:
        raise NotImplementedError

    lifespan(loop, Dispatch({"/": without}))
    gc.collect()
    assert caplog.records == []


def test_loops_have_their_own_lifespans_of_every_application(loop: asyncio.Runner, ask: Ask) -> None:
    """As workers on threads have, which share the application."""
    started: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["name"] = len(started)
            started.append(scope["state"])
        await shows("app")(scope | {"state": {}} if scope["type"] == "lifespan" else scope, receive, send)

    site = Dispatch({"/": Dispatch({"/": app})})
    first: dict[str, Any] = {"of": 1}
    second: dict[str, Any] = {"of": 2}
    lifespan(loop, site, first)
    lifespan(loop, site, second)
    assert [state["of"] for state in started] == [1, 2]
    assert [ask(site, host="x", state=state).body for state in (first, second)] == [b"app  / 0", b"app  / 1"]


def test_applications_see_nothing_in_their_state_but_theirs(loop: asyncio.Runner, ask: Ask) -> None:
    seen: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            seen.append(scope["state"])
        await shows("a")(scope, receive, send)

    site = Dispatch({"/": app})
    state: dict[str, Any] = {"of": 1}
    lifespan(loop, site, state)
    ask(site, host="x", state=state)
    assert seen == [{"of": 1, "name": "a"}]


def test_hooks_of_a_worker_call_every_application_with_its_state(loop: asyncio.Runner, ask: Ask) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "pounce.worker.startup":
            assert scope["worker_id"] == 3
            scope["state"]["name"] += " begun"
            return
        await shows("a")(scope, receive, send)

    site = Dispatch({"/a": app, "/b": app})
    state: dict[str, Any] = {}
    lifespan(loop, site, state)
    # The lifespan of workers on threads may be one, of whose state each has a copy.
    copies = [dict(state), dict(state)]
    for each in copies:
        loop.run(site({"type": "pounce.worker.startup", "worker_id": 3, "state": each}, None, None))
    for each in copies:
        assert ask(site, path="/a", host="x", state=each).body == b"a /a /a a begun"
        assert ask(site, path="/b", host="x", state=each).body == b"a /b /b a begun"


def test_mounts_serve_webtransport(ask: Ask) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "webtransport.accept", "mounted": scope["root_path"]})

    site = Dispatch({"/a": app})
    assert ask(site, path="/a/b", kind="webtransport", host="x").messages[0]["mounted"] == "/a"
    assert ask(site, path="/b", kind="webtransport", host="x").messages == [{"type": "webtransport.close"}]


def test_application_that_raises_in_its_startup_ends_the_start(loop: asyncio.Runner) -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise RuntimeError("the database is down")

    (told,) = lifespan(loop, Dispatch({"/a": shows("a"), "/b": fails}))
    assert told["type"] == "lifespan.startup.failed"
    assert told["message"].endswith("RuntimeError: the database is down\n")


def test_application_that_ends_its_lifespan_with_an_error_is_told_of_at_the_end(loop: asyncio.Runner) -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        raise RuntimeError("too early")

    told = lifespan(loop, Dispatch({"/a": shows("a"), "/b": fails}))
    assert [message["type"] for message in told] == ["lifespan.startup.complete", "lifespan.shutdown.failed"]
    assert told[1]["message"].endswith("RuntimeError: too early\n")


def test_application_that_cannot_start_ends_the_start(loop: asyncio.Runner) -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    assert lifespan(loop, Dispatch({"/a": shows("a"), "/b": fails})) == [
        {"type": "lifespan.startup.failed", "message": "no database"}
    ]


def test_mount_without_a_path_is_refused() -> None:
    with pytest.raises(ConfigError):
        Dispatch({"api": says()})


# Proxies


def told(ask: Ask, *, kind: str = "http", settings: Any = None, **fields: str) -> dict[str, Any]:
    """What the application is told of a request from 10.0.0.1, or what the client is answered."""
    seen: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.update(scope)

    async def from_a_proxy(scope: Any, receive: Any, send: Any) -> None:
        given = scope | {"client": ("10.0.0.1", 50000), "server": ("10.0.0.9", 8000)}
        await ProxyHeaders(app, **(settings or {"trusted_hosts": "10.0.0.0/8"}))(given, receive, send)

    answer = ask(from_a_proxy, kind=kind, host="inside", **fields)
    return seen or {"status": answer.status}


FORWARDED = {"x_forwarded_for": "1.1.1.1, 192.0.2.7", "x_forwarded_proto": "https"}


def test_client_is_who_a_trusted_proxy_says(ask: Ask) -> None:
    scope = told(ask, **FORWARDED, x_forwarded_host="example.org")
    assert (scope["client"], scope["server"], scope["scheme"]) == (("192.0.2.7", 0), ("example.org", 443), "https")
    assert (b"host", b"example.org") in scope["headers"]
    assert told(ask, kind="websocket", **FORWARDED)["scheme"] == "wss"


def test_fields_of_others_are_taken_away(ask: Ask) -> None:
    scope = told(ask, settings={"trusted_hosts": ["192.0.2.0/24"]}, **FORWARDED, forwarded="for=3.3.3.3")
    assert (scope["client"], scope["scheme"]) == (("10.0.0.1", 50000), "http")
    assert scope["headers"] == [(b"host", b"inside")]


def test_prefix_is_where_the_application_is_mounted(ask: Ask) -> None:
    settings = {"trusted_hosts": ["*"], "prefix": True}
    scope = told(ask, settings=settings, x_forwarded_prefix="/app")
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == ("/app", "/app/", b"/app/")


def test_forwarded_that_cannot_be_read_is_answered_400(ask: Ask) -> None:
    settings = {"trusted_hosts": ["*"], "family": "forwarded"}
    assert told(ask, settings=settings, forwarded='for="192.0.2.7') == {"status": 400}
    assert told(ask, settings=settings, forwarded="for=192.0.2.7;proto=https")["client"] == ("192.0.2.7", 0)


def test_settings_of_proxies_are_checked() -> None:
    with pytest.raises(ConfigError, match="trusted_hosts"):
        ProxyHeaders(says(), trusted_hosts=["nowhere"])
