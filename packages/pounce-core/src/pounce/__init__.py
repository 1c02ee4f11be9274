"""pounce: an ASGI server for free-threaded Python.

    import pounce
    pounce.run("main:app", port=8000)

Names are imported when they are first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pounce.config import ServerConfig
    from pounce.config_kwargs import ServerConfigKwargs
    from pounce.contract.pieces import Response
    from pounce.contract.wire import ASGIApp, Receive, Scope, Send
    from pounce.display import DisplayConfig
    from pounce.errors import (
        AppError,
        AppImportError,
        BadRequest,
        BindError,
        ClientGone,
        ConfigError,
        LifespanError,
        LimitError,
        ParseError,
        PluginError,
        PounceError,
        ReloadError,
        RequestTimeoutError,
        SupervisorError,
        TLSError,
        WorkerError,
    )
    from pounce.lifecycle import (
        BufferedCollector,
        ClientDisconnected,
        ConnectionCompleted,
        ConnectionOpened,
        LifecycleCollector,
        LifecycleEvent,
        LoggingCollector,
        NoopCollector,
        RequestStarted,
        ResponseCompleted,
        StreamClosed,
        StreamOpened,
    )
    from pounce.middleware.cors import CORSMiddleware
    from pounce.middleware.dictionaries import load_dictionary
    from pounce.middleware.factories import Middleware
    from pounce.middleware.security_headers import SecurityHeadersMiddleware
    from pounce.middleware.static import StaticFiles, create_static_handler
    from pounce.server import Server, StartInfo, run
    from pounce.supervisor.server_hooks import ServerEvent

    __version__: str

__all__ = [
    "ASGIApp",
    "AppError",
    "AppImportError",
    "BadRequest",
    "BindError",
    "BufferedCollector",
    "CORSMiddleware",
    "ClientDisconnected",
    "ClientGone",
    "ConfigError",
    "ConnectionCompleted",
    "ConnectionOpened",
    "DisplayConfig",
    "LifecycleCollector",
    "LifecycleEvent",
    "LifespanError",
    "LimitError",
    "LoggingCollector",
    "Middleware",
    "NoopCollector",
    "ParseError",
    "PluginError",
    "PounceError",
    "Receive",
    "ReloadError",
    "RequestStarted",
    "RequestTimeoutError",
    "Response",
    "ResponseCompleted",
    "Scope",
    "SecurityHeadersMiddleware",
    "Send",
    "Server",
    "ServerConfig",
    "ServerConfigKwargs",
    "ServerEvent",
    "StartInfo",
    "StaticFiles",
    "StreamClosed",
    "StreamOpened",
    "SupervisorError",
    "TLSError",
    "WorkerError",
    "__version__",
    "create_static_handler",
    "load_dictionary",
    "run",
]

_HOMES = {
    "Server": "pounce.server",
    "StartInfo": "pounce.server",
    "run": "pounce.server",
    "ServerConfig": "pounce.config",
    "ServerConfigKwargs": "pounce.config_kwargs",
    "ServerEvent": "pounce.supervisor.server_hooks",
    "DisplayConfig": "pounce.display",
    "ASGIApp": "pounce.contract.wire",
    "Receive": "pounce.contract.wire",
    "Scope": "pounce.contract.wire",
    "Send": "pounce.contract.wire",
    "Response": "pounce.contract.pieces",
    "CORSMiddleware": "pounce.middleware.cors",
    "Middleware": "pounce.middleware.factories",
    "SecurityHeadersMiddleware": "pounce.middleware.security_headers",
    "StaticFiles": "pounce.middleware.static",
    "create_static_handler": "pounce.middleware.static",
    "load_dictionary": "pounce.middleware.dictionaries",
    "BufferedCollector": "pounce.lifecycle",
    "ClientDisconnected": "pounce.lifecycle",
    "ConnectionCompleted": "pounce.lifecycle",
    "ConnectionOpened": "pounce.lifecycle",
    "LifecycleCollector": "pounce.lifecycle",
    "LifecycleEvent": "pounce.lifecycle",
    "LoggingCollector": "pounce.lifecycle",
    "NoopCollector": "pounce.lifecycle",
    "RequestStarted": "pounce.lifecycle",
    "ResponseCompleted": "pounce.lifecycle",
    "StreamClosed": "pounce.lifecycle",
    "StreamOpened": "pounce.lifecycle",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        # It is read from a file: once.
        return globals().setdefault(name, version("pounce-core"))
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES.get(name, "pounce.errors")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"Any", "TYPE_CHECKING"})
