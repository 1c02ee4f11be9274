"""The ASGI scope of a request."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from pounce.contract.head import GET

if TYPE_CHECKING:
    from pounce.contract.head import RequestHead
    from pounce.contract.stream import ConnectionInfo, Stream
    from pounce.exchange.host import Host

__all__ = ["METHODS", "http_scope", "offered_extensions", "split_target", "websocket_scope"]

HTTP_VERSION = "2.3"
"""Of the ASGI specification for HTTP. We do what 2.5 says; but where 2.4 or more is announced, Starlette and what is
built on it no longer listen for `http.disconnect` while they stream. They wait for `send()` to raise, which a source
of pieces that has nothing to give never calls: it would go on for ever after its client has left."""
WEBSOCKET_VERSION = "2.5"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY")


def offered_extensions(names: Iterable[str]) -> tuple[tuple[str, str], ...] | None:
    """What scopes offer of these extensions for answers, beside early hints; with each the attribute of a stream that
    says whether it can, empty where all can. None where there are none."""
    needs = {"trailers": "has_trailers", "zerocopysend": "sends_files", "sendfile": "sends_files"}
    offered = tuple(
        (f"http.response.{name}" if name != "sendfile" else "pounce.sendfile", needs.get(name, ""))
        for name in names
        if name != "early_hint"
    )
    return offered or None


def http_scope(service: Host, head: RequestHead, stream: Stream) -> dict[str, Any]:
    """The `http` connection scope (ASGI HTTP 2.5, but for what it announces); containers are fresh for each request."""
    connection = stream.connection
    target = head.target
    if target[0] == 47:  # /
        if 63 in target:  # ?
            path, _, query = target.partition(b"?")
        else:
            path, query = target, b""
    else:
        path, query = split_target(target)
    # As UTF-8, what is escaped, too; what is not becomes U+FFFD.
    try:
        text = path.decode()
    except UnicodeDecodeError:
        text = path.decode("utf-8", "replace")
    if "%" in text:
        text = unquote(text)
    template = connection.scope
    if template is None:
        template = connection.scope = _template(connection)
    scope = template.copy()
    scope["asgi"] = scope["asgi"].copy()
    if head.version != "1.1":
        scope["http_version"] = head.version
    method = head.method
    if method is not GET and method != GET:
        scope["method"] = service.methods.get(method) or method.decode("ascii")
    if head.scheme != connection.scheme:
        scope["scheme"] = head.scheme
    origin = head.origin
    if origin is None:
        root_path: str = service.config.root_path
    else:
        root_path = origin.root_path
        scope["client"], scope["server"] = origin.peer, origin.local
    if root_path:
        if path == b"*":
            # It is no path, so nothing is mounted above it.
            root_path = ""
        else:
            text, path = root_path + text, quote(root_path).encode() + path
        scope["root_path"] = root_path
    scope["path"] = text
    scope["raw_path"] = path
    if query:
        scope["query_string"] = query
    scope["headers"] = head.headers
    scope["state"] = service.state.copy()
    extensions: dict[str, Any] = {
        "pounce.worker.draining": service.drain_notice,
        "pounce.worker": service.described.copy(),
    }
    if service.offers_hints:
        extensions["http.response.early_hint"] = {}
    if service.offered is not None:
        for name, needs in service.offered:
            if not needs or getattr(stream, needs):
                extensions[name] = {}
    if connection.tls is not None:
        chain: Any = connection.tls.get("client_cert_chain", ())
        extensions["tls"] = connection.tls | {"client_cert_chain": list(chain)}
    if connection.proxy is not None:
        extensions["pounce.proxy"] = connection.proxy.copy()
    if head.extensions is not None:
        extensions.update(head.extensions)
    scope["extensions"] = extensions
    return scope


def _template(connection: ConnectionInfo) -> dict[str, Any]:
    """What the scopes of a connection's requests have in common, with the values that most have of what they have not:
    a copy of it takes less than half of the time. What is None is given to each; what is a dictionary, as a copy."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": HTTP_VERSION},
        "http_version": "1.1",
        "method": "GET",
        "scheme": connection.scheme,
        "path": None,
        "raw_path": None,
        "query_string": b"",
        "root_path": "",
        "headers": None,
        "client": connection.peer,
        "server": connection.local,
        "state": None,
        "extensions": None,
    }


def websocket_scope(service: Host, head: RequestHead, stream: Stream, subprotocols: list[str]) -> dict[str, Any]:
    """The `websocket` connection scope (ASGI WebSocket 2.5): that of its handshake, but for what only HTTP has."""
    scope = http_scope(service, head, stream)
    scope["type"] = "websocket"
    scope["asgi"]["spec_version"] = WEBSOCKET_VERSION
    scope["scheme"] = "wss" if scope["scheme"] in ("https", "wss") else "ws"
    scope["subprotocols"] = subprotocols
    del scope["method"]
    extensions = scope["extensions"]
    for name in [name for name in extensions if name.startswith("http.")]:
        del extensions[name]
    extensions["websocket.http.response"] = {}
    return scope


def split_target(target: bytes) -> tuple[bytes, bytes]:
    """Path and query of a request target (RFC 9112 3.2); the authority of an absolute-form is left out."""
    path, _, query = target.partition(b"?")
    if not path.startswith(b"/"):
        _, scheme, rest = path.partition(b"://")
        if scheme:
            path = b"/" + rest.partition(b"/")[2]
    return path, query
