"""SCGI as a wire: variables and a body in, the head and the body of an answer out, and the connection ends."""

import re
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

from pounce.plugin import (
    API_VERSION,
    BadRequest,
    Headers,
    Origin,
    Plugin,
    Preface,
    RequestConnection,
    RequestHead,
    Service,
    Wire,
    option,
)

TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
VALUE = re.compile(rb"[^\0\r\n]*")
REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


@dataclass(frozen=True)
class Settings:
    root_path: bool = option(True, "Take SCRIPT_NAME for the path that the application is mounted under.")


def bad(message: str, status: int = 400) -> BadRequest:
    return BadRequest(f"SCGI: {message}", status=status, code="SCGI_BAD_REQUEST")


def variables(block: bytes) -> dict[bytes, bytes]:
    """The variables of a request. Raises `BadRequest`."""
    parts = block.split(b"\0")
    if len(parts) % 2 == 0 or parts[-1]:
        raise bad("a variable without a value")
    found = dict(zip(parts[::2], parts[1::2], strict=False))
    if len(found) != len(parts) // 2:
        raise bad("a variable is there twice")
    if not block.startswith(b"CONTENT_LENGTH\0") or not re.fullmatch(rb"\d{1,18}", found[b"CONTENT_LENGTH"]):
        raise bad("CONTENT_LENGTH is not the first variable, or no number")
    return found


def request_head(found: dict[bytes, bytes], mounted: bool, max_headers: int) -> RequestHead:
    """The request that the variables describe. Raises `BadRequest`."""
    method, target = found.get(b"REQUEST_METHOD", b""), found.get(b"REQUEST_URI", b"")
    if not TOKEN.fullmatch(method) or not re.fullmatch(rb"/[!-~]*", target):
        raise bad("REQUEST_METHOD or REQUEST_URI is missing or malformed")
    headers: Headers = []
    for name, value in found.items():
        field = b"content-type" if name == b"CONTENT_TYPE" else name.removeprefix(b"HTTP_").lower().replace(b"_", b"-")
        if value and (name.startswith(b"HTTP_") or name == b"CONTENT_TYPE"):
            if not TOKEN.fullmatch(field) or not VALUE.fullmatch(value):
                raise bad("a field is malformed")
            headers.append((field, value))
    if len(headers) > max_headers:
        raise bad("too many fields", 431)
    length = int(found[b"CONTENT_LENGTH"])
    if length:
        headers.append((b"content-length", b"%d" % length))
    scheme = "https" if found.get(b"HTTPS", b"").lower() in (b"on", b"1") else "http"
    root = unquote_to_bytes(found.get(b"SCRIPT_NAME", b"")).decode("utf-8", "replace").rstrip("/") if mounted else ""
    if root and target.partition(b"?")[0].startswith(found[b"SCRIPT_NAME"].rstrip(b"/")):
        # The core puts it in front of the path again.
        target = target[len(found[b"SCRIPT_NAME"].rstrip(b"/")) :]
        target = target if target.startswith(b"/") else b"/" + target
    peer = found.get(b"REMOTE_ADDR", b"").decode("ascii", "replace"), port(found.get(b"REMOTE_PORT"))
    local = found.get(b"SERVER_NAME", b"").decode("ascii", "replace"), port(found.get(b"SERVER_PORT"))
    origin = Origin(peer if peer[0] else None, local if local[0] else None, root)
    return RequestHead(method, target, headers, "1.1", scheme, content_length=length, keep_alive=False, origin=origin)


def port(text: bytes | None) -> int:
    return int(text) if text and text.isdigit() and len(text) < 6 else 0


def is_scgi(first: bytes) -> bool | None:
    """Whether a connection begins like SCGI: only a netstring begins with digits."""
    match = re.match(rb"\d{1,7}:", first)
    if match is None:
        return None if re.fullmatch(rb"\d{1,7}", first) else False
    rest, wanted = first[match.end() :], b"CONTENT_LENGTH\0"
    return rest.startswith(wanted) or (None if wanted.startswith(rest) else False)


class ScgiConnection(RequestConnection):
    """A connection, which carries one request."""

    def read_head(self, data: bytes) -> tuple[RequestHead, bytes] | None:
        config = self.service.config
        match = re.match(rb"(\d{1,7}):", data)
        if match is None:
            if re.fullmatch(rb"\d{1,7}", data):
                return None
            raise bad("the request begins with no length")
        begin = match.end()
        end = begin + int(match[1])
        if end > config.max_header_size:
            raise bad("the head is too large", 431)
        if len(data) <= end:
            return None
        if data[end : end + 1] != b",":
            raise bad("the netstring does not end where it says")
        settings: Settings = self.settings
        return request_head(variables(data[begin:end]), settings.root_path, config.max_headers), data[end + 1 :]

    def encode_head(self, status: int, headers: Headers) -> bytes:
        lines = [b"Status: %d %b\r\n" % (status, REASONS.get(status, b"-"))]
        lines += [b"%b: %b\r\n" % field for field in headers if field[0] not in (b"connection", b"transfer-encoding")]
        return b"".join(lines) + b"\r\n"


def connect(service: Service) -> ScgiConnection:
    return ScgiConnection(service, "scgi")


plugin = Plugin(
    name="scgi",
    api=API_VERSION,
    wires=(Wire(name="scgi", connect=connect, preface=Preface(is_scgi, 32)),),
    settings=Settings,
)
