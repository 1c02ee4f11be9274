"""Which names the server answers to."""

import re
from collections.abc import Awaitable, Iterable
from typing import Any

from pounce.errors import ConfigError
from pounce.middleware.base import App, Middleware, Scope, Send, refuse

__all__ = ["AllowedHosts"]

_name = re.compile(r"(?:\*\.)?[A-Za-z0-9\-._~]+|\[[0-9A-Fa-f:.]+\]|\*").fullmatch
_authority = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]*)(?::[0-9]{0,5})?").fullmatch


class AllowedHosts(Middleware):
    """An ASGI middleware that answers for some hosts: others get 421 (RFC 9110 15.5.20), requests for none 400.

    `names`: hosts without a port, in any case; `*.example.org` is all names below, not itself. WebSocket handshakes for
    other hosts are refused. It works under any server. Raises `ConfigError`.
    """

    def __init__(self, app: App | None = None, *, names: Iterable[str]) -> None:
        names = tuple(names)
        self._remember(app, names=names)
        for name in names:
            if _name(name) is None:
                raise ConfigError(
                    f"names (server_names) must be names of hosts (got {name!r})",
                    hint="For example example.org or *.example.org.",
                )
        self._everybody = "*" in names
        self._names = {name.lower().encode() for name in names}
        self._below = tuple(name[1:].lower().encode() for name in names if name.startswith("*."))

    def __call__(self, scope: Scope, receive: Any, send: Send) -> Awaitable[None]:
        if scope["type"] not in ("http", "websocket") or self._everybody:
            return self.app(scope, receive, send)
        host = next((value for name, value in scope["headers"] if name == b"host"), b"")
        match = _authority(host)
        if match is None or not match[1]:
            return refuse(scope, send, 400, b"The request names no host")
        name = match[1].lower().removesuffix(b".")
        if name in self._names or (self._below and name.endswith(self._below)):
            return self.app(scope, receive, send)
        return refuse(scope, send, 421, b"This server does not answer for that host")
