"""From http to https."""

import re
from collections.abc import Awaitable, Iterable
from typing import Any

from pounce.errors import ConfigError
from pounce.middleware.base import App, Middleware, Scope, Send, refuse
from pounce.middleware.security_headers import SecurityHeadersMiddleware

__all__ = ["HTTPSRedirect", "hsts_around"]

ACME = "/.well-known/acme-challenge/"
"""RFC 8555 8.3: a certificate is asked for over http."""
_authority = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~]+)(?::[0-9]{0,5})?").fullmatch


class HTTPSRedirect(Middleware):
    """An ASGI middleware that sends requests over http on to https (308), and closes WebSockets without TLS.

    `port` is that of https. `hsts` is the value of Strict-Transport-Security for answers over https, empty for none.
    `exempt`: paths that begin with one of these stay. It works under any server. Raises `ConfigError`.
    """

    def __init__(
        self, app: App | None = None, *, port: int = 443, hsts: str = "", exempt: Iterable[str] = (ACME,)
    ) -> None:
        exempt = tuple(exempt)
        self._remember(app, port=port, hsts=hsts, exempt=exempt)
        if not 0 < port < 65536:
            raise ConfigError(f"port must be from 1 to 65535 (got {port})")
        self._port = b"" if port == 443 else b":%d" % port
        self._exempt = exempt
        self._inner = hsts_around(self.app, hsts) if hsts else self.app

    def __call__(self, scope: Scope, receive: Any, send: Send) -> Awaitable[None]:
        kind = scope["type"]
        if kind == "http":
            if scope.get("scheme", "http") != "http" or scope["path"].startswith(self._exempt):
                return self._inner(scope, receive, send)
            return self._redirect(scope, send)
        if kind == "websocket" and scope.get("scheme", "ws") == "ws":
            return refuse(scope, send, 403, b"")
        return self._inner(scope, receive, send)

    async def _redirect(self, scope: Scope, send: Send) -> None:
        host = next((value for name, value in scope["headers"] if name == b"host"), b"")
        match = _authority(host)
        if match is None:
            await refuse(scope, send, 400, b"There is no host to go to")
            return
        raw = scope.get("raw_path") or scope["path"].encode()
        location = b"https://" + match[1] + self._port + (raw if raw.startswith(b"/") else b"/")
        if scope.get("query_string"):
            location += b"?" + scope["query_string"]
        await refuse(scope, send, 308, b"Permanent Redirect", [(b"location", location)])


def hsts_around(app: App, value: str) -> App:
    """A middleware that sends Strict-Transport-Security over https, and nothing else."""
    return SecurityHeadersMiddleware(
        app,
        x_frame_options="",
        x_content_type_options="",
        x_xss_protection="",
        csp="",
        referrer_policy="",
        permissions_policy="",
        hsts=value,
    )
