"""What is no ASGI 3 application is told by its arguments, and what may be one is let pass."""

import functools
from collections.abc import Callable
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from pounce import AppImportError, ServerConfig
from pounce.importer import adapted, called
from pounce.interface import check_interface


async def app(scope: Any, receive: Any, send: Any) -> None: ...


class Application:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    async def method(self, scope: Any, receive: Any, send: Any) -> None: ...


class Endpoint:
    """One instance for each request."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None: ...

    def __await__(self) -> Any: ...


class Unreadable:
    """As a compiled callable is: it has no signature."""

    __signature__ = 3

    def __call__(self) -> None: ...


def passes_on(*arguments: Any, **named: Any) -> Any:
    return app(*arguments, **named)


def returns_what_is_awaited(scope: Any, receive: Any, send: Any) -> Any:
    return app(scope, receive, send)


def with_more(scope: Any, receive: Any, send: Any, more: Any = None) -> Any: ...


async def all_optional(scope: Any = None, receive: Any = None, send: Any = None) -> None: ...


@functools.wraps(lambda request: None)
async def wraps_a_handler(scope: Any, receive: Any, send: Any) -> None: ...


@functools.wraps(lambda: None)
def wraps_anything(*arguments: Any) -> Any: ...


@pytest.mark.parametrize(
    "candidate",
    [
        app, Application(), Application().method, Endpoint, Unreadable(), passes_on, returns_what_is_awaited, with_more,
        all_optional, wraps_a_handler, wraps_anything, functools.partial(with_more, more=1), Mock(), AsyncMock(),
        lambda s, r, t: None,
    ],
)  # fmt: skip
def test_what_may_be_an_application_is_let_pass(candidate: Any) -> None:
    check_interface(candidate)


def wsgi(environ: Any, start_response: Any) -> Any: ...


class WSGI:
    def __call__(self, environ: Any, start_response: Any) -> Any: ...


def asgi2(scope: Any) -> Callable[..., Any]: ...


class ASGI2:
    def __init__(self, scope: Any) -> None: ...

    async def __call__(self, receive: Any, send: Any) -> None: ...


def create_app() -> Any: ...


def create_with_settings(settings: Any = None, debug: bool = False, database: Any = None) -> Any: ...


def create_with(config: Any) -> Any: ...


class NeedsSettings:
    def __init__(self, settings: Any) -> None: ...

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


async def create_later() -> Any: ...


async def endpoint(request: Any) -> Any: ...


async def asgi_without_send(scope: Any, receive: Any) -> None: ...


def without_send(scope: Any, receive: Any) -> Any: ...


async def events(request: Any) -> Any:
    yield


class Endpoints:
    async def __call__(self, request: Any, response: Any) -> None: ...


def too_many(self: Any, scope: Any, receive: Any, send: Any) -> Any: ...


@pytest.mark.parametrize(
    ("candidate", "what", "hint"),
    [
        (wsgi, "a WSGI application", "Leave interface at auto, or set it to wsgi"),
        (WSGI(), "a WSGI application", "Leave interface at auto, or set it to wsgi"),
        (asgi2, "an ASGI 2 application", "guarantee_single_callable"),
        (ASGI2, "an ASGI 2 application", "guarantee_single_callable"),
        (create_app, "a factory", "Write main:x() to have it called, or give --factory"),
        (create_with_settings, "a factory", "Write main:x() to have it called, or give --factory"),
        (create_with, "a factory that needs an argument, (config", "functools.partial(create_with, ...)"),
        (create_with, "or an ASGI 2 application", "guarantee_single_callable"),
        (create_later, "a factory that is an async function", "Make it def, and write main:x()"),
        (endpoint, "an async function that takes other arguments, (request", "async def app(scope, receive, send)"),
        (events, "an async function that takes other arguments, (request", "async def app(scope, receive, send)"),
        (Endpoints(), "takes other arguments, (request", "async def app(scope, receive, send)"),
        (asgi_without_send, "takes other arguments, (scope", "async def app(scope, receive, send)"),
        (without_send, "takes other arguments, (scope", "async def app(scope, receive, send)"),
        (too_many, "takes other arguments, (self", "async def app(scope, receive, send)"),
    ],
)
def test_what_is_no_application_is_told_what_it_seems_to_be_and_what_to_do(
    candidate: Any, what: str, hint: str
) -> None:
    with pytest.raises(AppImportError) as caught:
        check_interface(candidate, "main:x")
    assert (caught.value.code, caught.value.exit_code) == ("POUNCE_APP_NOT_ASGI", 4)
    assert str(caught.value).startswith("main:x is no ASGI 3 application: it seems to be ")
    assert what in str(caught.value)
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("candidate", [endpoint, Endpoints(), asgi_without_send, without_send])
def test_what_wsgi_cannot_be_is_not_taken_for_it(candidate: Any) -> None:
    with pytest.raises(AppImportError, match="no ASGI 3 application"):
        adapted(candidate, ServerConfig())


def test_class_whose_instances_are_applications_is_told_that_it_needs_its_arguments() -> None:
    with pytest.raises(AppImportError, match="NeedsSettings is a class") as caught:
        check_interface(NeedsSettings, "main:x")
    assert "app = NeedsSettings(...)" in (caught.value.hint or "")


@pytest.mark.parametrize("candidate", [app, Application(), Application().method, all_optional, wsgi, WSGI()])
def test_application_that_is_to_be_called_as_a_factory_is_told_to_be_one_already(candidate: Any) -> None:
    for path, hint in (("main:x()", "Leave out the (): write main:x."), ("main:x", "Leave out --factory")):
        with pytest.raises(AppImportError, match="main:x is an application already") as caught:
            called(candidate, path)
        assert caught.value.code == "POUNCE_APP_FACTORY_FAILED"
        assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("candidate", [create_with, asgi2, NeedsSettings, functools.partial(with_more, 1, 2)])
def test_factory_that_needs_arguments_is_told_that_it_gets_none(candidate: Any) -> None:
    with pytest.raises(AppImportError, match=r"the factory main:x\(\) needs arguments, \(") as caught:
        called(candidate, "main:x()")
    assert caught.value.code == "POUNCE_APP_FACTORY_FAILED"
    assert (caught.value.hint or "").startswith("A factory is called without arguments: write one that takes none, or ")
    assert "functools.partial(" in (caught.value.hint or "")


class Maker:
    def __call__(self, *arguments: Any) -> Any:
        return arguments


@pytest.mark.parametrize(
    "factory", [create_app, create_with_settings, Maker(), functools.partial(create_with, 1), dict]
)
def test_what_can_be_called_without_arguments_is_called(factory: Any) -> None:
    assert called(factory, "main:x()") in (None, (), {})


class Lazy:
    """Puts its middleware together at the first call, as Starlette does."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.middleware_stack: Any = None
        self.error = error
        self.built = 0

    def build_middleware_stack(self) -> Any:
        self.built += 1
        if self.error is not None:
            raise self.error
        return app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


@pytest.mark.parametrize("error", [TypeError("__init__() got an unexpected keyword argument 'x'"), SystemExit(0)])
def test_middleware_that_cannot_be_put_together_is_an_error_of_the_start(error: BaseException) -> None:
    with pytest.raises(AppImportError, match="middleware") as caught:
        adapted(Lazy(error), ServerConfig())
    assert (caught.value.code, caught.value.exit_code) == ("POUNCE_APP_MIDDLEWARE_FAILED", 4)
    assert caught.value.__cause__ is error


def test_middleware_is_put_together_once() -> None:
    lazy = Lazy()
    assert adapted(adapted(lazy, ServerConfig()), ServerConfig()).middleware_stack is app
    assert lazy.built == 1


@pytest.mark.parametrize(
    ("candidate", "said", "hint"),
    [
        (app, "an ASGI application", "Leave interface at auto"),
        (Application(), "an ASGI application", "Leave interface at auto"),
        (lambda: wsgi, "something that takes other arguments, ()", "def app(environ, start_response)"),
    ],
)
def test_what_is_no_wsgi_application_is_refused_where_it_is_to_be_one(candidate: Any, said: str, hint: str) -> None:
    with pytest.raises(AppImportError, match="main:app is no WSGI application") as caught:
        adapted(candidate, ServerConfig(interface="wsgi"), "main:app")
    assert said in caught.value.message
    assert hint in (caught.value.hint or "")
    assert caught.value.code == "POUNCE_APP_NOT_WSGI"


@pytest.mark.parametrize("candidate", [Mock(), passes_on, type("AsClass", (), {"__init__": lambda self, e, s: None})])
def test_what_may_be_a_wsgi_application_is_let_pass(candidate: Any) -> None:
    assert adapted(candidate, ServerConfig(interface="wsgi")).app is candidate


@pytest.mark.parametrize(("interface", "wrapped"), [("auto", True), ("wsgi", True), ("asgi", False)])
@pytest.mark.parametrize("candidate", [wsgi, WSGI()])
def test_wsgi_application_is_served_unless_it_is_to_be_asgi(candidate: Any, interface: Any, wrapped: bool) -> None:
    config = ServerConfig(interface=interface)
    if wrapped:
        assert adapted(candidate, config).app is candidate
    else:
        with pytest.raises(AppImportError, match="a WSGI application"):
            adapted(candidate, config)
