"""CORS: which pages of other origins may read the answers (Fetch Standard 3.2)."""

import re
from collections.abc import Awaitable, Iterable
from typing import Any

from pounce.errors import ConfigError
from pounce.middleware.base import App, Headers, Middleware, Scope, Send, add_vary, refuse

__all__ = ["CORSMiddleware"]

_token = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
# An origin as browsers send it (RFC 6454 6.2), or "null".
_origin = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s,*?#]+|null").fullmatch
_names = re.compile(
    rb"[ \t]*[!#$%&'*+\-.^_`|~0-9A-Za-z]+[ \t]*(?:,[ \t]*[!#$%&'*+\-.^_`|~0-9A-Za-z]+[ \t]*)*"
).fullmatch
METHODS = "GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"


class CORSMiddleware(Middleware):
    """An ASGI middleware for the CORS protocol. It works under any server.

    `allow_origins` (or `allow_origin`): origins such as `"https://app.example"`, `"https://*.example"` for all names
    below one, `"*"` for all, `"null"`. `allow_origin_regex` is matched with the whole origin. `allow_methods` and
    `allow_headers`: names, or `"*"` for whatever is asked for. `allow_credentials`: pages may send cookies; not for all
    origins. `expose_headers`: fields that pages may read beyond the usual ones. `max_age`: seconds that a browser may
    keep the answer to a preflight. `allow_private_network`: pages of public sites may ask this server in a private
    network. `websockets`: handshakes of other origins are refused. Raises `ConfigError`.

    A preflight is answered here and does not reach the application. Fields that the application sets itself stay.
    """

    def __init__(
        self,
        app: App | str | None = None,
        allow_methods: str | Iterable[str] = METHODS,
        allow_headers: str | Iterable[str] = "*",
        max_age: int = 3600,
        *,
        allow_origin: str | Iterable[str] | None = None,
        allow_origins: str | Iterable[str] | None = None,
        allow_origin_regex: str | None = None,
        allow_credentials: bool = False,
        expose_headers: str | Iterable[str] = (),
        allow_private_network: bool = False,
        websockets: bool = False,
    ) -> None:
        if isinstance(app, str):
            # The first argument may be the origin, as `CORSMiddleware("https://app.example")`.
            app, allow_origin = None, app
        given = allow_origin if allow_origins is None else allow_origins
        if given is None:
            given = () if allow_origin_regex is not None else "*"
        origins = _list(given)
        self._remember(
            app,
            allow_methods=allow_methods,
            allow_headers=allow_headers,
            max_age=max_age,
            allow_origins=origins,
            allow_origin_regex=allow_origin_regex,
            allow_credentials=allow_credentials,
            expose_headers=expose_headers,
            allow_private_network=allow_private_network,
            websockets=websockets,
        )
        self._everybody = "*" in origins
        if self._everybody and allow_credentials:
            raise ConfigError(
                "allow_credentials and allow_origins * exclude each other",
                hint="Any page could then act with the cookies of whoever looks at it; name the origins.",
            )
        self._origins = {origin.lower().encode() for origin in origins}
        self._patterns = [_pattern(origin) for origin in origins if "*" in origin and origin != "*"]
        for origin in origins:
            if origin != "*" and _origin(origin.lower().replace("://*.", "://x.")) is None:
                raise ConfigError(
                    f"{origin!r} is not an origin", hint="For example https://app.example:8443, without a path."
                )
        if allow_origin_regex is not None:
            try:
                self._patterns.append(re.compile(allow_origin_regex))
            except re.error as exc:
                raise ConfigError(f"allow_origin_regex is no regular expression: {exc}") from exc
        self._methods = _tokens(allow_methods, "allow_methods")
        self._headers = _tokens(allow_headers, "allow_headers")
        exposed = _tokens(expose_headers, "expose_headers")
        self._max_age = b"%d" % max_age
        self._credentials = allow_credentials
        self._private_network = allow_private_network
        self._websockets = websockets
        self._always: Headers = []
        if allow_credentials:
            self._always.append((b"access-control-allow-credentials", b"true"))
        if exposed:
            self._always.append((b"access-control-expose-headers", ", ".join(exposed).encode()))

    def __call__(self, scope: Scope, receive: Any, send: Send) -> Awaitable[None]:
        kind = scope["type"]
        if kind == "http":
            origin = wanted = None
            for name, value in scope["headers"]:
                if name == b"origin":
                    origin = value
                elif name == b"access-control-request-method":
                    wanted = value
            if origin is None and self._everybody:
                return self.app(scope, receive, send)
            if origin is not None and wanted is not None and scope["method"] == "OPTIONS":
                return self._preflight(scope, send, origin, wanted)
            return self.app(scope, receive, _Shared(self, send, origin))
        if kind == "websocket" and self._websockets:
            origins = [value for name, value in scope["headers"] if name == b"origin"]
            if origins and not (len(origins) == 1 and self._allows(origins[0])):
                return refuse(scope, send, 403, b"")
        return self.app(scope, receive, send)

    def _allows(self, origin: bytes) -> bool:
        if self._everybody or origin.lower() in self._origins:
            return True
        text = origin.decode("latin-1")
        return any(pattern.fullmatch(text) for pattern in self._patterns)

    async def _preflight(self, scope: Scope, send: Send, origin: bytes, wanted: bytes) -> None:
        """Answer a preflight (Fetch Standard 4.8)."""
        headers: Headers = []
        add_vary(headers, b"origin", b"access-control-request-method", b"access-control-request-headers")
        if not self._allows(origin):
            await refuse(scope, send, 403, b"Origin is not allowed", headers)
            return
        asked = b",".join(value for name, value in scope["headers"] if name == b"access-control-request-headers")
        headers.append((b"access-control-allow-origin", b"*" if self._everybody else origin))
        # With credentials "*" is a name like any other, so what is asked for is named.
        methods = wanted if "*" in self._methods and _names(wanted) else ", ".join(self._methods).encode()
        headers.append((b"access-control-allow-methods", methods))
        names = asked if "*" in self._headers and _names(asked) else ", ".join(self._headers).encode()
        if asked and names:
            headers.append((b"access-control-allow-headers", names))
        if self._credentials:
            headers.append((b"access-control-allow-credentials", b"true"))
        if self._private_network and (b"access-control-request-private-network", b"true") in scope["headers"]:
            headers.append((b"access-control-allow-private-network", b"true"))
        headers.append((b"access-control-max-age", self._max_age))
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body"})

    def answered(self, message: dict[str, Any], origin: bytes | None) -> dict[str, Any]:
        """The head of an answer, with what it says of the origin that asked."""
        headers = list(message.get("headers", ()))
        if not self._everybody:
            add_vary(headers, b"origin")
        if origin is not None and self._allows(origin):
            present = {name.lower() for name, _ in headers}
            if b"access-control-allow-origin" not in present:
                headers.append((b"access-control-allow-origin", b"*" if self._everybody else origin))
                headers += [field for field in self._always if field[0] not in present]
        return message | {"headers": headers}


class _Shared:
    """The `send` of one request."""

    __slots__ = ("_cors", "_origin", "_send")

    def __init__(self, cors: CORSMiddleware, send: Send, origin: bytes | None) -> None:
        self._cors = cors
        self._send = send
        self._origin = origin

    def __call__(self, message: dict[str, Any]) -> Awaitable[None]:
        if message["type"] == "http.response.start" and message["status"] >= 200:
            message = self._cors.answered(message, self._origin)
        return self._send(message)


def _list(value: str | Iterable[str]) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    return tuple(part.strip() for part in parts if part.strip())


def _tokens(value: str | Iterable[str], what: str) -> tuple[str, ...]:
    names = _list(value)
    for name in names:
        if _token(name) is None:
            raise ConfigError(f"{what} has {name!r}, which is no name")
    return names


def _pattern(origin: str) -> re.Pattern[str]:
    """`https://*.example`: any name below it, of any depth."""
    return re.compile(r"[A-Za-z0-9.-]+".join(re.escape(part) for part in origin.split("*")), re.IGNORECASE)
