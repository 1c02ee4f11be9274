"""Middleware: ASGI applications around ASGI applications, each usable under any server.

What the setting `middleware` may hold is read by `pounce.middleware.factories`. Names are imported when first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pounce.middleware.compression import Compression
    from pounce.middleware.cors import CORSMiddleware
    from pounce.middleware.dispatch import Dispatch
    from pounce.middleware.hosts import AllowedHosts
    from pounce.middleware.https_redirect import HTTPSRedirect
    from pounce.middleware.proxy_headers import ProxyHeaders
    from pounce.middleware.security_headers import SecurityHeadersMiddleware
    from pounce.middleware.static import StaticFiles

__all__ = [
    "AllowedHosts",
    "CORSMiddleware",
    "Compression",
    "Dispatch",
    "HTTPSRedirect",
    "ProxyHeaders",
    "SecurityHeadersMiddleware",
    "StaticFiles",
]

_HOMES = {
    "AllowedHosts": "hosts",
    "CORSMiddleware": "cors",
    "Compression": "compression",
    "Dispatch": "dispatch",
    "HTTPSRedirect": "https_redirect",
    "ProxyHeaders": "proxy_headers",
    "SecurityHeadersMiddleware": "security_headers",
    "StaticFiles": "static",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"pounce.middleware.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"Any", "TYPE_CHECKING"})
