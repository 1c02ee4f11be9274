"""The user's own middleware: from what the setting `middleware` holds to factories `app -> app`.

An item is one of these, or an import string (`module:attribute`) of one of the first three:

- a factory: a class or function that is called with the application and returns one;
- `(factory, settings)`: the same with keyword arguments, for example `(GZipMiddleware, {"minimum_size": 500})`;
- a middleware of ours that has its settings and waits for its application: `CORSMiddleware(allow_origin="*")`;
- a hook, told by its parameters: `scope` (before the request; returns the scope or a `Response`), `scope, exc` (where
  the application raised; returns a `Response` or None), `scope, status, headers` (before the answer; returns status and
  headers). See `pounce.middleware.hooks`.

The first of the list is the outermost.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pounce.app_failure import in_words, is_from_outside
from pounce.config import ServerConfig
from pounce.contract.pieces import MiddlewareChoice
from pounce.contract.wire import ASGIApp, Service
from pounce.errors import AppImportError, ConfigError
from pounce.importer import import_object
from pounce.middleware.hooks import AfterException, BeforeAnswer, BeforeRequest
from pounce.middleware_failure import defined_at

__all__ = ["Middleware", "middleware_of"]

type Middleware = Callable[..., Any]
"""A middleware or a hook: an item of the setting `middleware` that is neither an import string nor a pair."""

type Factory = Callable[[ASGIApp], ASGIApp]


def middleware_of(config: ServerConfig) -> tuple[MiddlewareChoice, ...]:
    """The user's middleware, outermost first, and the `sync_app` within. Raises `ConfigError`, `AppImportError`."""
    found = [_choice(item, config) for item in config.middleware]
    if config.sync_app is not None:
        found.append(_sync_app(config))
    return tuple(found)


def _sync_app(config: ServerConfig) -> MiddlewareChoice:
    from pounce.sync_protocol import SyncApp, answered_first_by

    given = config.sync_app
    sync_app = import_object(given, config, "sync_app") if isinstance(given, str) else given
    if not isinstance(sync_app, SyncApp):
        raise ConfigError(f"sync_app must have a method handle_sync (got {type(sync_app).__name__})")
    return MiddlewareChoice(
        name="sync_app", create=lambda service, app: answered_first_by(sync_app, app), where="inner"
    )


def _choice(item: Any, config: ServerConfig) -> MiddlewareChoice:
    factory, settings = item if _is_pair(item) else (item, {})
    name = factory if isinstance(factory, str) else getattr(factory, "__qualname__", type(factory).__qualname__)
    if isinstance(factory, str):
        factory = import_object(factory, config, "middleware")
    make = _factory(factory, name, settings)

    def create(service: Service, app: ASGIApp) -> ASGIApp:
        try:
            outer = make(app)
        except BaseException as exc:
            if is_from_outside(exc):
                raise
            place = defined_at(factory)
            raise AppImportError(
                f"the middleware {name}{f' ({place})' if place else ''} could not be made: {in_words(exc)}",
                code="POUNCE_APP_MIDDLEWARE_FAILED",
            ) from exc
        if not callable(outer):
            raise AppImportError(
                f"the middleware {name} did not return an application (got {type(outer).__name__})",
                code="POUNCE_APP_MIDDLEWARE_FAILED",
                hint="A middleware is called with the application once, and returns the one that wraps it.",
            )
        return outer

    return MiddlewareChoice(name=name, create=create, where="inner")


def _is_pair(item: Any) -> bool:
    return isinstance(item, (tuple, list)) and len(item) == 2 and isinstance(item[1], Mapping)


def _factory(item: Any, name: str, settings: Mapping[str, Any]) -> Factory:
    """What is called with the application, for any of the forms above."""
    wrap = getattr(item, "wrap", None)
    if wrap is not None and not inspect.isclass(item):
        if settings:
            raise ConfigError(f"middleware: {name} has its settings already, and is given more of them")
        made: Factory = wrap
        return made
    if not callable(item):
        raise ConfigError(f"middleware: {name} cannot be called", hint="Give a factory that takes the application.")
    if settings or inspect.isclass(item):
        return partial(item, **settings)
    parameters = _required(item)
    match parameters:
        case ("scope", "receive", "send"):
            raise ConfigError(
                f"middleware: {name} is an application, not a middleware",
                hint="A middleware is a factory: it is called with the application and returns the one that wraps it.",
            )
        case (only,):
            if only == "scope" or inspect.iscoroutinefunction(item):
                return partial(BeforeRequest, hook=item)
            return partial(item)
        case (_, _):
            return partial(AfterException, hook=item)
        case (_, _, _):
            return partial(BeforeAnswer, hook=item)
        case _:
            raise ConfigError(
                f"middleware: {name} takes {len(parameters)} arguments",
                hint="A factory takes the application; a hook takes scope, or scope and exc, or scope, status and"
                " headers.",
            )


def _required(item: Callable[..., Any]) -> tuple[str, ...]:
    """Names of the positional parameters without a default."""
    try:
        parameters = inspect.signature(item).parameters.values()
    except TypeError, ValueError:
        return ("app",)
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(each.name for each in parameters if each.kind in kinds and each.default is each.empty)
