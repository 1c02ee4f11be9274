"""Compression dictionaries: bodies coded as their difference to something that the client has (RFC 9842).

A dictionary is a file: an earlier version of a resource, or text that many answers have in common. A client learns of
it in one of two ways. Where the file is itself a resource of the site (`url`), its answer says what it is good for
(Use-As-Dictionary). Else it has an address of its own below `/.well-known/compression-dictionary/`, and the answers
that it would help link to it. From then on the client sends the hash of what it has (Available-Dictionary) and accepts
`dcz`: a header that names the hash again, then a zstd frame (5).
"""

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pounce.errors import ConfigError
from pounce.middleware.base import App, Scope, refuse

__all__ = ["CompressionDictionary", "Dictionaries", "load_dictionary"]

PREFIX = "/.well-known/compression-dictionary/"
# RFC 9842 5: Skippable frame of 32 bytes, which holds the hash.
MAGIC = b"\x5e\x2a\x4d\x18\x20\x00\x00\x00"
SIZE_MAX = 100 * 1024 * 1024
WINDOW_MAX_LOG = 23
"""RFC 9842 5: clients need not keep more than 8 MiB for a window, or 1.25 times the dictionary."""
CACHE = b"public, max-age=604800, immutable"
_forbidden = re.compile(r'[^\x20-\x7e]|["\\]').search


@dataclass(frozen=True, slots=True)
class CompressionDictionary:
    """The bytes of a dictionary, and the paths that it is for; made by `load_dictionary()`."""

    content: bytes = field(repr=False)
    match: str
    url: str | None = None
    id: str = ""
    digest: bytes = field(init=False)

    def __post_init__(self) -> None:
        if not self.content or len(self.content) > SIZE_MAX:
            raise ConfigError(f"a compression dictionary has from 1 to {SIZE_MAX} bytes (got {len(self.content)})")
        if not self.match.startswith("/") or _forbidden(self.match) or "(" in self.match or "?" in self.match:
            # RFC 9842 2.1.1: a URL pattern without regular expressions; the path of the same origin.
            raise ConfigError(
                f"match must be a path, in which * stands for anything (got {self.match!r})",
                hint='For example "/static/app.*.js".',
            )
        if _forbidden(self.id) or len(self.id) > 1024:
            raise ConfigError(f"the id of a dictionary must be printable, without quotes (got {self.id!r})")
        object.__setattr__(self, "digest", hashlib.sha256(self.content).digest())


def load_dictionary(
    path: str | os.PathLike[str], match: str, *, url: str | None = None, id: str = ""
) -> CompressionDictionary:
    """Read a dictionary. Raises `ConfigError`.

    `match` is the path of what it is for; `*` stands for anything. `url` is the path at which the site serves this very
    file; without it the server offers it at an address of its own. `id` comes back in Dictionary-ID (RFC 9842 2.3).
    """
    try:
        with open(path, "rb") as file:
            content = file.read(SIZE_MAX + 1)
    except OSError as exc:
        raise ConfigError(f"the compression dictionary {os.fspath(path)} cannot be read: {exc.strerror}") from exc
    return CompressionDictionary(content, match, url, id)


class _Ready:
    """A dictionary as it is used."""

    def __init__(self, dictionary: CompressionDictionary, level: int) -> None:
        from compression.zstd import CompressionParameter, ZstdDict

        self.dictionary = dictionary
        self.hash = b":" + base64.b64encode(dictionary.digest) + b":"
        self.path = PREFIX + dictionary.digest.hex()
        parts = [re.escape(part) for part in dictionary.match.split("*")]
        self.matches = re.compile(".*".join(parts), re.DOTALL).fullmatch
        self._zstd = ZstdDict(dictionary.content, is_raw=True)
        window = min(max((len(dictionary.content) * 5 // 4).bit_length(), 19), WINDOW_MAX_LOG)
        self._options: dict[int, int] = {
            CompressionParameter.compression_level: level,
            CompressionParameter.window_log: window,
        }
        use = f'match="{dictionary.match}"' + (f', id="{dictionary.id}"' if dictionary.id else "")
        self.use_as = (b"use-as-dictionary", use.encode())
        self.link = (b"link", f'<{self.path}>; rel="compression-dictionary"'.encode())

    def coder(self) -> _Dcz:
        from compression.zstd import ZstdCompressor

        return _Dcz(ZstdCompressor(options=self._options, zstd_dict=self._zstd), MAGIC + self.dictionary.digest)


class _Dcz:
    """The content coding `dcz` (RFC 9842 5)."""

    def __init__(self, compressor: Any, head: bytes) -> None:
        self._compressor = compressor
        self._head = head

    def compress(self, data: bytes) -> bytes:
        head, self._head = self._head, b""
        return head + bytes(self._compressor.compress(data))

    def flush(self) -> bytes:
        return bytes(self._compressor.flush(self._compressor.FLUSH_BLOCK))

    def finish(self) -> bytes:
        return bytes(self._compressor.flush(self._compressor.FLUSH_FRAME))


class Dictionaries:
    """The dictionaries of a site."""

    def __init__(self, dictionaries: Iterable[CompressionDictionary], level: int) -> None:
        """Raises `ConfigError` where Python has no zstd."""
        try:
            ready = [_Ready(each, level) for each in dictionaries]
        except ImportError as exc:
            raise ConfigError("compression dictionaries need Python's compression.zstd, which is missing") from exc
        self._ready = ready
        self._by_hash = {each.dictionary.digest: each for each in ready}
        self._by_path = {each.path: each for each in ready if each.dictionary.url is None}

    def endpoint(self, scope: Scope) -> App | None:
        """What serves a dictionary, if that is what is asked for."""
        path: str = scope["path"]
        if not path.startswith(PREFIX) or scope["method"] not in ("GET", "HEAD"):
            return None
        found = self._by_path.get(path)
        return _missing if found is None else _serving(found)

    def usable(self, scope: Scope, accepted: bytes, available: bytes, start: dict[str, Any]) -> _Ready | None:
        """The dictionary that the client has and that may be used for this answer."""
        if not any(member.partition(b";")[0].strip().lower() == b"dcz" for member in accepted.split(b",")):
            return None
        from pounce.exchange.accept import qualities

        quality = qualities([(b"", accepted)], b"")
        digest = _digest(available)
        found = self._by_hash.get(digest) if digest is not None else None
        if found is None or quality is None or not quality.of(b"dcz") or found.matches(_path(scope)) is None:
            return None
        return found if _may_be_read(scope, start) else None

    def advertised(self, scope: Scope, start: dict[str, Any]) -> dict[str, Any]:
        """The head of an answer, with what it says of dictionaries."""
        if not 200 <= start["status"] < 300:
            return start
        path = _path(scope)
        more = [each.use_as for each in self._ready if each.dictionary.url == path]
        more += [each.link for each in self._ready if each.dictionary.url is None and each.matches(path)]
        return start | {"headers": [*start.get("headers", ()), *more]} if more else start


def _path(scope: Scope) -> str:
    raw = scope.get("raw_path")
    return raw.decode("latin-1") if raw else str(scope["path"])


def _digest(value: bytes) -> bytes | None:
    """RFC 9842 2.2: Available-Dictionary is a byte sequence (RFC 9651 3.3.5) that holds a SHA-256."""
    value = value.strip(b" ")
    if len(value) < 2 or value[:1] != b":" or value[-1:] != b":":
        return None
    try:
        digest = base64.b64decode(value[1:-1], validate=True)
    except binascii.Error:
        return None
    return digest if len(digest) == 32 else None


def _may_be_read(scope: Scope, start: dict[str, Any]) -> bool:
    """RFC 9842 9.3: only where the page that asks may read the answer; the size of a difference would tell of both."""
    sent = {
        name: value for name, value in scope["headers"] if name in (b"sec-fetch-site", b"sec-fetch-mode", b"origin")
    }
    site, mode = sent.get(b"sec-fetch-site"), sent.get(b"sec-fetch-mode")
    if site in (None, b"same-origin", b"none") or mode in (b"navigate", b"same-origin"):
        return True
    if mode != b"cors":
        return False
    allowed = [value for name, value in start.get("headers", ()) if name.lower() == b"access-control-allow-origin"]
    return allowed in ([b"*"], [sent.get(b"origin")])


def _serving(ready: _Ready) -> App:
    async def serve(scope: Scope, receive: Any, send: Any) -> None:
        content = ready.dictionary.content
        headers = [
            (b"content-type", b"application/octet-stream"),
            (b"content-length", b"%d" % len(content)),
            (b"cache-control", CACHE),
            (b"vary", b"accept-encoding, available-dictionary"),
            ready.use_as,
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content if scope["method"] == "GET" else b""})

    return serve


async def _missing(scope: Scope, receive: Any, send: Any) -> None:
    await refuse(scope, send, 404, b"Not Found")
