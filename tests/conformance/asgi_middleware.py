"""Middleware around the application: of plugins and of the user, over every wire."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
from tests.conformance.wires import Started, Wire, answer, read_body

from pounce import AppImportError, ConfigError, PluginError, Response
from pounce.plugin import API_VERSION, ASGIApp, MiddlewareChoice, Plugin, RequestHead, Responder, Service
from pounce.registry import Registry
from pounce.testing import TestServer

FIELD = b"x-way"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Tells which middleware the request has come through."""
    if scope["type"] != "http":
        return
    if scope["path"] == "/fails":
        raise RuntimeError("as asked")
    await answer(send, scope.get("way", b""), headers=[(FIELD, b"app")])


def leaves_trace(name: bytes) -> Callable[[ASGIApp], ASGIApp]:
    """A middleware that writes its name on the way in and on the way back."""

    def factory(app: ASGIApp) -> ASGIApp:
        async def wrapped(scope: Any, receive: Any, send: Any) -> None:
            async def back(message: Any) -> None:
                if message["type"] == "http.response.start":
                    message = message | {"headers": [*message["headers"], (FIELD, name)]}
                await send(message)

            await app(scope | {"way": scope.get("way", b"") + name}, receive, back)

        return wrapped

    return factory


class Named:
    """A middleware in the usual form of a class with settings."""

    def __init__(self, app: ASGIApp, name: str = "-") -> None:
        self.app = leaves_trace(name.encode())(app)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


def choice(name: str, where: Any) -> MiddlewareChoice:
    return MiddlewareChoice(name=name, create=lambda service, inner: leaves_trace(name.encode())(inner), where=where)


def plugin(*choices: MiddlewareChoice, **more: Any) -> Plugin:
    return Plugin(name="around", api=API_VERSION, middleware=choices, **more)


def installed(*more: Plugin) -> Registry:
    from pounce import ServerConfig

    found = Registry.discover(ServerConfig())
    return Registry((*found.loaded, *Registry.of(*more).loaded))


def way(server: Started, path: str = "/") -> tuple[bytes, list[bytes]]:
    response = server.request("GET", path)
    return response.body, [value for name, value in response.headers if name == FIELD]


def test_first_of_the_list_is_outermost(wire: Wire) -> None:
    server = wire.start(app, middleware=[leaves_trace(b"a"), leaves_trace(b"b")])
    assert way(server) == (b"ab", [b"app", b"b", b"a"])


def test_settings_may_be_given_beside_a_factory(wire: Wire) -> None:
    assert way(wire.start(app, middleware=[(Named, {"name": "n"})])) == (b"n", [b"app", b"n"])


def test_those_of_plugins_stand_where_they_ask_to_and_the_users_inside(wire: Wire) -> None:
    around = plugin(choice("i", "inner"), choice("c", "content"), choice("e", "encoding"), choice("o", "outer"))
    server = wire.start(app, registry=installed(around), middleware=[leaves_trace(b"u")])
    assert way(server)[0] == b"oeciu"


def test_one_that_declines_is_not_there(wire: Wire) -> None:
    declines = MiddlewareChoice(name="none", create=lambda service, app: None)
    assert way(wire.start(app, registry=installed(plugin(declines)))) == (b"", [b"app"])


def test_is_made_once_for_each_worker_with_its_service(wire: Wire) -> None:
    seen: list[Service] = []

    def create(service: Service, app: ASGIApp) -> ASGIApp:
        seen.append(service)
        return app

    server = wire.start(app, registry=installed(plugin(MiddlewareChoice(name="once", create=create))))
    for _ in range(3):
        server.request("GET", "/")
    assert [service.worker_id for service in seen] == [0]


def test_application_that_fails_is_seen_failing_by_its_middleware(wire: Wire) -> None:
    caught: list[str] = []

    def factory(app: ASGIApp) -> ASGIApp:
        async def wrapped(scope: Any, receive: Any, send: Any) -> None:
            try:
                await app(scope, receive, send)
            except RuntimeError as exc:
                caught.append(str(exc))
                await answer(send, b"instead", 418)

        return wrapped

    response = wire.start(app, middleware=[factory]).request("GET", "/fails")
    assert (response.status, response.body, caught) == (418, b"instead", ["as asked"])


# Hooks


def hello_scope(scope: Any) -> Any:
    return scope | {"way": scope.get("way", b"") + b"hook"}


async def refuses(scope: Any) -> Any:
    return Response(403, [(b"x-why", b"hook")], b"no")


def on_error(scope: Any, exc: Exception) -> Any:
    return Response(503, [], str(exc).encode())


def marks(name: bytes) -> Callable[[Any, int, Any], Any]:
    def hook(scope: Any, status: int, headers: Any) -> Any:
        return status, [*headers, (FIELD, name)]

    return hook


def test_hook_before_the_request_changes_the_scope(wire: Wire) -> None:
    assert way(wire.start(app, middleware=[hello_scope]))[0] == b"hook"


def test_hook_before_the_request_may_answer_it_and_the_outer_ones_see_that(wire: Wire) -> None:
    response = wire.start(app, middleware=[marks(b"outer"), refuses, marks(b"inner")]).request("GET", "/")
    assert (response.status, response.body) == (403, b"no")
    assert [value for name, value in response.headers if name == FIELD] == [b"outer"]


def test_hook_answers_for_an_application_that_raised(wire: Wire) -> None:
    response = wire.start(app, middleware=[on_error]).request("GET", "/fails")
    assert (response.status, response.body) == (503, b"as asked")


def test_hooks_before_the_answer_run_from_the_inside_out(wire: Wire) -> None:
    assert way(wire.start(app, middleware=[marks(b"1"), marks(b"2")]))[1] == [b"app", b"2", b"1"]


def test_interim_answer_does_not_use_up_a_hook(wire: Wire) -> None:
    async def hints(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 103, "headers": [(b"link", b"</a>; rel=preload")]})
        await answer(send, b"body")

    response = wire.start(hints, middleware=[marks(b"1")]).request("GET", "/")
    assert [value for name, value in response.headers if name == FIELD] == [b"1"]


# What the server answers by an application


def endpoint(service: Service) -> Callable[[RequestHead], Response | ASGIApp | None]:
    async def repeats(scope: Any, receive: Any, send: Any) -> None:
        body = await read_body(receive)
        await send({"type": "http.response.start", "status": 200})
        for piece in (body, body):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": repr(scope["client"] is not None).encode()})

    return lambda head: repeats if head.target == b"/endpoint" else None


def test_responder_may_answer_with_an_application_that_reads_the_body_and_streams(wire: Wire) -> None:
    around = plugin(responders=(Responder(name="endpoint", create=endpoint),))
    server = wire.start(app, registry=installed(around), middleware=[leaves_trace(b"u")])
    response = server.request("POST", "/endpoint", [(b"content-length", b"4")], b"abcd")
    assert response.body == b"abcdabcd" + repr(not wire.case.unix).encode()
    assert way(server) == (b"u", [b"app", b"u"])


# What cannot be made


def not_an_app(app: ASGIApp) -> Any:
    return None


def fails(app: ASGIApp) -> Any:
    raise ValueError("no good")


def leaves(app: ASGIApp) -> Any:
    sys.exit()


@pytest.mark.parametrize(
    ("item", "error", "code"),
    [
        (fails, AppImportError, "POUNCE_APP_MIDDLEWARE_FAILED"),
        (leaves, AppImportError, "POUNCE_APP_MIDDLEWARE_FAILED"),
        (not_an_app, AppImportError, "POUNCE_APP_MIDDLEWARE_FAILED"),
        ((Named, {"nmae": "x"}), AppImportError, "POUNCE_APP_MIDDLEWARE_FAILED"),
        ("no_such_module_at_all:thing", AppImportError, "POUNCE_APP_MODULE_NOT_FOUND"),
        ("tests.conformance.wires", AppImportError, "POUNCE_APP_PATH"),
        (app, ConfigError, "POUNCE_CONFIG_INVALID"),
        (lambda a, b, c, d: None, ConfigError, "POUNCE_CONFIG_INVALID"),
        (7, ConfigError, "POUNCE_CONFIG_INVALID"),
    ],
)
def test_middleware_that_cannot_be_made_ends_the_start(item: Any, error: type[Exception], code: str) -> None:
    with pytest.raises(error) as caught, TestServer(app, middleware=[item]):
        pass
    assert getattr(caught.value, "code", None) == code


def test_middleware_that_cannot_be_made_is_named_with_its_place() -> None:
    with pytest.raises(AppImportError, match=rf"Named \({__file__}:\d+\) could not .*: TypeError: .*nmae.[^()]*$"):
        TestServer(app, middleware=[(Named, {"nmae": "x"})]).start()
    with pytest.raises(AppImportError, match=rf"fails \({__file__}:\d+\) could not be .*: no good \({__file__}:\d+\)$"):
        TestServer(app, middleware=[fails]).start()


def test_middleware_of_a_plugin_that_fails_names_it() -> None:
    broken = MiddlewareChoice(name="broken", create=lambda service, app: fails(app))
    with pytest.raises(PluginError, match="broken"), TestServer(app, registry=installed(plugin(broken))):
        pass
