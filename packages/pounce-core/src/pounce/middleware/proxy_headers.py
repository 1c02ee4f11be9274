"""Who a request is from, as trusted proxies say, for servers that do not see to it themselves."""

from collections.abc import Awaitable, Iterable
from typing import Any, Literal
from urllib.parse import quote

from pounce.config import ServerConfig
from pounce.contract.head import RequestHead
from pounce.contract.stream import ConnectionInfo
from pounce.contract.turns import Share, Turns
from pounce.errors import BadRequest
from pounce.identity.forwarded import Forwarding
from pounce.middleware.base import App, Middleware, Scope, Send, refuse

__all__ = ["ProxyHeaders"]

_WEBSOCKET = {"http": "ws", "https": "wss"}


class ProxyHeaders(Middleware):
    """An ASGI middleware that believes the forwarding fields of trusted proxies, and takes away those of others.

    It sets `client`, `server`, `scheme` and the Host field, and with `prefix` what the application is mounted under.
    The arguments are pounce's settings: `trusted_hosts` has addresses, networks, `localhost`, `unix` for clients
    without an address, and `*`; `hops` is `forwarded_for_trusted_hops`, `family` is `forwarded_family`, `prefix` and
    `real_ip` are `forwarded_prefix` and `forwarded_real_ip`. A field that cannot be read is answered 400. It is for
    other servers: under pounce the settings do it, before anything else. Raises `ConfigError`.
    """

    def __init__(
        self,
        app: App | None = None,
        *,
        trusted_hosts: Iterable[str] = ("localhost",),
        hops: int = 1,
        family: Literal["x-forwarded", "forwarded"] = "x-forwarded",
        prefix: bool = False,
        real_ip: bool = False,
    ) -> None:
        trusted_hosts = (trusted_hosts,) if isinstance(trusted_hosts, str) else tuple(trusted_hosts)
        self._remember(app, trusted_hosts=trusted_hosts, hops=hops, family=family, prefix=prefix, real_ip=real_ip)
        self._forwarding = Forwarding(
            ServerConfig(
                trusted_hosts=trusted_hosts,
                forwarded_for_trusted_hops=hops,
                forwarded_family=family,
                forwarded_prefix=prefix,
                forwarded_real_ip=real_ip,
            )
        )
        # Nothing takes from it here.
        self._share = Share(Turns())

    def __call__(self, scope: Scope, receive: Any, send: Send) -> Awaitable[None]:
        if scope["type"] not in ("http", "websocket"):
            return self.app(scope, receive, send)
        try:
            scope = self._told(scope)
        except BadRequest as error:
            return refuse(scope, send, 400, error.message.encode())
        return self.app(scope, receive, send)

    def _told(self, scope: Scope) -> Scope:
        given: str = scope.get("scheme", "http")
        scheme = "https" if given in ("https", "wss") else "http"
        # Servers may give an empty one for the peers of Unix sockets.
        client, server = scope.get("client"), scope.get("server")
        connection = ConnectionInfo(
            peer=(client[0], client[1]) if client and client[0] else None,
            local=(server[0], server[1]) if server else None,
            scheme=scheme,
            share=self._share,
        )
        fields = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
        head = RequestHead(b"GET", b"/", fields, "1.1", scheme)
        self._forwarding.identify(head, connection)
        scope = {**scope, "headers": head.headers}
        if head.origin is not None:
            scope["client"] = head.origin.peer
            scope["server"] = head.origin.local
            scope["scheme"] = _WEBSOCKET[head.scheme] if scope["type"] == "websocket" else head.scheme
            under = head.origin.root_path
            if under:
                scope["root_path"] = under + scope.get("root_path", "")
                scope["path"] = under + scope["path"]
                if scope.get("raw_path") is not None:
                    scope["raw_path"] = quote(under).encode() + scope["raw_path"]
        return scope
