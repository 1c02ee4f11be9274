"""pounce: an ASGI server for free-threaded Python.

    import pounce
    pounce.run("main:app", port=8000)

Names are imported when they are first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pounce.config import ServerConfig
    from pounce.errors import (
        AppError,
        AppImportError,
        BadRequest,
        BindError,
        ClientGone,
        ConfigError,
        LifespanError,
        PluginError,
        PounceError,
        SupervisorError,
        TLSError,
    )
    from pounce.server import Server, StartInfo, run

    __version__: str

__all__ = [
    "AppError",
    "AppImportError",
    "BadRequest",
    "BindError",
    "ClientGone",
    "ConfigError",
    "LifespanError",
    "PluginError",
    "PounceError",
    "Server",
    "ServerConfig",
    "StartInfo",
    "SupervisorError",
    "TLSError",
    "__version__",
    "run",
]

_HOMES = {
    "Server": "pounce.server",
    "StartInfo": "pounce.server",
    "run": "pounce.server",
    "ServerConfig": "pounce.config",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("pounce-core")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES.get(name, "pounce.errors")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"Any", "TYPE_CHECKING"})
