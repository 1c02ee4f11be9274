"""The opening handshake: who may open a WebSocket, and what was agreed on (RFC 6455 4.2, RFC 8441 5)."""

import base64
import binascii
import hashlib
import re
from typing import NamedTuple

from pounce.errors import BadRequest
from pounce.plugin import Headers, RequestHead, Service
from pounce_ws.deflate import Agreement, negotiate, parse_extensions

__all__ = ["Handshake", "read_handshake"]

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_token = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch


class Handshake(NamedTuple):
    """What a client asked for, checked."""

    accept: bytes | None
    """The value of Sec-WebSocket-Accept; None over HTTP/2 and later, where there is none (RFC 8441 5)."""
    subprotocols: list[str]
    deflate: Agreement | None

    def answer(self, subprotocol: str | None) -> Headers:
        """The fields that accept it (RFC 6455 4.2.2; RFC 8441 5)."""
        fields: Headers = []
        if self.accept is not None:
            fields.append((b"sec-websocket-accept", self.accept))
        if subprotocol is not None:
            fields.append((b"sec-websocket-protocol", subprotocol.encode()))
        if self.deflate is not None:
            fields.append((b"sec-websocket-extensions", self.deflate.header()))
        return fields


def read_handshake(service: Service, head: RequestHead) -> Handshake:
    """Judge a handshake. Raises `BadRequest`."""
    config = service.config
    fields = _Fields(head.headers)
    is_connect = head.method == b"CONNECT"
    if not is_connect and head.method != b"GET":
        raise BadRequest("a WebSocket handshake must be a GET", code="POUNCE_WS_BAD_METHOD")
    version = fields.only(b"sec-websocket-version")
    if version != b"13":
        raise BadRequest(
            "this version of WebSocket is not supported",
            status=426 if version is not None else 400,
            code="POUNCE_WS_BAD_VERSION",
            hint="Sec-WebSocket-Version must be 13.",
        )
    accept = None if is_connect else _accept_key(fields.only(b"sec-websocket-key"))
    _check_origin(config.websocket_origins, fields)
    offers = parse_extensions(fields.all(b"sec-websocket-extensions"))
    deflate = None
    if config.websocket_compression:
        deflate = negotiate(
            offers, config.websocket_compression_window_bits, config.websocket_compression_context_takeover
        )
    return Handshake(accept, _subprotocols(fields.all(b"sec-websocket-protocol")), deflate)


class _Fields:
    def __init__(self, headers: Headers) -> None:
        self._headers = headers

    def all(self, name: bytes) -> list[bytes]:
        return [value for found, value in self._headers if found == name]

    def only(self, name: bytes) -> bytes | None:
        """The value of a field that may be there once (RFC 6455 11.3)."""
        values = self.all(name)
        if len(values) > 1:
            raise BadRequest(f"{name.decode()} is given twice", code="POUNCE_WS_DUPLICATE_FIELD")
        return values[0] if values else None


def _accept_key(key: bytes | None) -> bytes:
    """RFC 6455 4.2.2: the answer to Sec-WebSocket-Key, "a base64-encoded value that, when decoded, is 16 bytes"."""
    try:
        if key is None or len(base64.b64decode(key, validate=True)) != 16:
            raise ValueError
    except ValueError, binascii.Error:
        raise BadRequest("Sec-WebSocket-Key must be 16 bytes in base64", code="POUNCE_WS_BAD_KEY") from None
    return base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest())


def _check_origin(allowed: tuple[str, ...], fields: _Fields) -> None:
    """RFC 6455 10.2: browsers say which page opens the WebSocket; other clients need not say anything."""
    if not allowed:
        return
    origin = fields.only(b"origin")
    if origin is not None and origin.decode("latin-1").lower() not in {item.lower() for item in allowed}:
        raise BadRequest(
            "this origin may not connect",
            status=403,
            code="POUNCE_WS_ORIGIN_REFUSED",
            hint="websocket_origins lists those that may.",
        )


def _subprotocols(values: list[bytes]) -> list[str]:
    """RFC 6455 4.1: tokens, all different."""
    names = [name for value in values for part in value.split(b",") if (name := part.strip(b" \t"))]
    if not all(map(_token, names)) or len(set(names)) < len(names):
        raise BadRequest("Sec-WebSocket-Protocol is malformed", code="POUNCE_WS_BAD_SUBPROTOCOL")
    return [name.decode("ascii") for name in names]
