"""Reports to Sentry: its own ASGI middleware around the application, outermost.

The client belongs to the process, as all of the SDK does: the first worker makes it, in the process in which it serves,
and the others use the same. Where the application has one of its own, that is used and none is made.

Nothing personal is sent unless that was asked for: beside what the SDK leaves out then, no query strings, no bodies and
no values of variables. The command line is not sent at all, for it may hold secrets.
"""

import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import sentry_sdk
from sentry_sdk.integrations.argv import ArgvIntegration
from sentry_sdk.integrations.asgi import SentryAsgiMiddleware
from sentry_sdk.integrations.logging import ignore_logger
from sentry_sdk.utils import BadDsn, Dsn

from pounce.errors import ConfigError, comes_from_client_gone
from pounce.gil import gil_enabled
from pounce.observe.flushing import FLUSH_TIMEOUT, flushed

if TYPE_CHECKING:
    from pounce.config import ServerConfig
    from pounce.contract.wire import ASGIApp

__all__ = ["reported"]

_making = threading.Lock()
"""Held while the client of this process is made, for whichever worker comes first."""


def reported(service: Any, app: ASGIApp) -> ASGIApp:
    """`app`, with what it raises for a request or WebSocket reported, and a share of its requests traced.

    Raises `ConfigError` for a DSN that is none, and for a profiler that cannot work here.
    """
    with _making:
        if not sentry_sdk.get_client().is_active():
            _make_client(service.config)
    service.on_end.add(partial(flushed, partial(sentry_sdk.flush, FLUSH_TIMEOUT)))
    # Any kind of its own keeps the middleware from advising against itself where a framework is installed.
    middleware: Any = SentryAsgiMiddleware(_with_route(app), mechanism_type="pounce", asgi_version=3)

    async def reporting(scope: Any, receive: Any, send: Any) -> None:
        # An application may refuse a lifespan by an exception: that is no error.
        await (middleware if scope["type"] in ("http", "websocket") else app)(scope, receive, send)

    return reporting


def _make_client(config: ServerConfig) -> None:
    if config.sentry_profiles_sample_rate and not gil_enabled():
        raise ConfigError(
            "sentry_profiles_sample_rate needs the GIL: the profiler reads the frames of threads that run",
            hint="Leave it out; sentry_traces_sample_rate works.",
        )
    dsn = config.secret("sentry_dsn")
    try:
        # Before the SDK begins to change what it instruments.
        Dsn(dsn or "")
    except BadDsn as exc:
        hint = "The settings of the project in Sentry show it."
        raise ConfigError(f"sentry_dsn must be that of a project, https://KEY@HOST/NUMBER: {exc}", hint=hint) from exc
    personal = config.sentry_send_default_pii
    # Without it is the same as False, and what later versions of the SDK prefer.
    asked: dict[str, Any] = {"send_default_pii": True} if personal else {}
    sentry_sdk.init(
        dsn=dsn,
        environment=config.sentry_environment,
        release=config.sentry_release,
        traces_sample_rate=config.sentry_traces_sample_rate,
        profiles_sample_rate=config.sentry_profiles_sample_rate or None,
        include_local_variables=personal,
        max_request_body_size="medium" if personal else "never",
        before_send=partial(_cleaned, personal),
        before_send_transaction=partial(_cleaned, personal),
        disabled_integrations=[ArgvIntegration()],
        # Else what the application has raised loses its cause, for the log and for error pages too.
        _experiments={"suppress_asgi_chained_exceptions": False},
        **asked,
    )
    # Each request would be a breadcrumb, with its query.
    ignore_logger("pounce.access")


def _cleaned(personal: bool, event: Any, hint: Any) -> Any:
    """The event as it may be sent; None for one that tells of a client that has left, which is no error."""
    exc_info = hint.get("exc_info")
    if exc_info is not None and comes_from_client_gone(exc_info[1]):
        return None
    if not personal and "request" in event:
        event["request"].pop("query_string", None)
        fields = event["request"].get("headers") or {}
        for name in fields:
            if name.lower() == "referer":
                # The page before has a query as well.
                fields[name] = str(fields[name]).partition("?")[0]
    return event


def _with_route(app: ASGIApp) -> ASGIApp:
    """`app`, with `scope["pounce.route"]` as the name of its transaction where it has set that."""

    async def routed(scope: Any, receive: Any, send: Any) -> None:
        try:
            await app(scope, receive, send)
        finally:
            route = scope.get("pounce.route")
            if route is not None:
                sentry_sdk.get_current_scope().set_transaction_name(route, source="route")

    return routed
