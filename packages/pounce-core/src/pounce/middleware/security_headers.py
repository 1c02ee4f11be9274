"""Fields that tell browsers what a page may do."""

import re
from collections.abc import Awaitable
from typing import Any

from pounce.errors import ConfigError
from pounce.middleware.base import App, Headers, Middleware, Scope, Send

__all__ = ["SecurityHeadersMiddleware"]

_bad_value = re.compile(r"[^\x20-\x7e]").search


class SecurityHeadersMiddleware(Middleware):
    """An ASGI middleware that adds these fields to answers that have none of the same name. It works under any server.

    An empty string leaves a field out. `hsts` (Strict-Transport-Security) is sent over https alone (RFC 6797 7.2).
    Raises `ConfigError`.
    """

    def __init__(
        self,
        app: App | None = None,
        *,
        x_frame_options: str = "DENY",
        x_content_type_options: str = "nosniff",
        x_xss_protection: str = "0",
        hsts: str = "",
        csp: str = "default-src 'self'",
        referrer_policy: str = "strict-origin-when-cross-origin",
        permissions_policy: str = "camera=(), microphone=(), geolocation=()",
        cross_origin_opener_policy: str = "",
        cross_origin_resource_policy: str = "",
        cross_origin_embedder_policy: str = "",
    ) -> None:
        fields = {
            "x_frame_options": x_frame_options,
            "x_content_type_options": x_content_type_options,
            "x_xss_protection": x_xss_protection,
            "referrer_policy": referrer_policy,
            "permissions_policy": permissions_policy,
            "cross_origin_opener_policy": cross_origin_opener_policy,
            "cross_origin_resource_policy": cross_origin_resource_policy,
            "cross_origin_embedder_policy": cross_origin_embedder_policy,
        }
        self._remember(app, hsts=hsts, csp=csp, **fields)
        for name, value in (*fields.items(), ("hsts", hsts), ("csp", csp)):
            if _bad_value(value):
                raise ConfigError(f"{name} must be printable ASCII (got {value!r})")
        named = [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items() if value]
        if csp:
            named.append((b"content-security-policy", csp.encode()))
        self._plain: Headers = named
        self._secure = [*named, (b"strict-transport-security", hsts.encode())] if hsts else named

    def __call__(self, scope: Scope, receive: Any, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return self.app(scope, receive, send)
        fields = self._secure if scope.get("scheme") == "https" else self._plain
        return self.app(scope, receive, _Added(send, fields))


class _Added:
    """The `send` of one request."""

    __slots__ = ("_fields", "_send")

    def __init__(self, send: Send, fields: Headers) -> None:
        self._send = send
        self._fields = fields

    def __call__(self, message: dict[str, Any]) -> Awaitable[None]:
        if message["type"] == "http.response.start" and message["status"] >= 200:
            headers = list(message.get("headers", ()))
            present = {name.lower() for name, _ in headers}
            headers += [field for field in self._fields if field[0] not in present]
            message = message | {"headers": headers}
        return self._send(message)
