"""Compression: content codings for what the application sends, by what the client accepts (RFC 9110 8.4, 12.5.3).

An answer goes through these states:

    WAITING ──start──▶ PASSING                                  not to be coded, as its fields say
               │
               └────▶ HELD ──first body──▶ PASSING               it is small
                                 └───────▶ CODING ──last body──▶ PASSING

HELD keeps the head until the first piece of the body tells whether this is all of it: then what is coded has a
Content-Length. Otherwise each piece is flushed, so that nobody waits for what was sent. Of what is to be coded no file
is left to the server to send: it is read here, piece by piece.

Nothing is coded that would lose by it or that somebody downstream relies on: parts of a whole (206), what is coded or
compressed already, bodies under `min_size`, `no-transform`, digests of the content, streams of events unless asked for.
"""

import asyncio
import importlib
import os
import re
import struct
import zlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol, cast

from pounce.errors import AppError, ConfigError, wrong_length
from pounce.exchange.accept import Qualities, qualities
from pounce.exchange.small_files import SMALL_FILE, read_at_once
from pounce.exchange.values import plain_bytes
from pounce.middleware.base import App, Headers, Middleware, Scope, Send, add_vary
from pounce.middleware.dictionaries import CompressionDictionary, Dictionaries

__all__ = ["TYPES", "Compression"]

LARGE = 65_536
"""Bytes of a piece from which it is coded on a thread of the loop's executor."""
CHUNK = 262_144
"""Bytes of a file that are read at once."""
WINDOW_LOG = 19
"""Size of the windows of streams as a power of 2: what a stream keeps in memory is a few times that."""
TYPES = (
    r"text/(?!event-stream)|application/(?:json|javascript|ecmascript|xml|xhtml\+xml|manifest\+json|graphql|wasm|yaml"
    r"|x-ndjson|x-javascript|rtf|vnd\.ms-fontobject)|image/(?:svg\+xml|bmp|x-icon|vnd\.microsoft\.icon)"
    r"|font/(?:otf|ttf|collection)|[a-z.-]+/[a-z0-9.+-]+\+(?:json|xml|yaml|text)(?![a-z])"
)
"""Regular expression for the beginning of media types that shrink, in lower case."""
GZIP_HEAD = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
"""RFC 1952 2.3: deflate, no flags, no time, from a system that is not told."""
BEST_FIRST = (b"zstd", b"br", b"gzip")

WAITING, HELD, CODING, PASSING = range(4)
_KNOWN_MAX = 512


class Coder(Protocol):
    """What `_Zstd` and the others have."""

    def compress(self, data: bytes) -> bytes: ...

    def flush(self) -> bytes:
        """All that is kept back, so that the reader can decode what was compressed so far."""

    def finish(self) -> bytes: ...


class Compression(Middleware):
    """An ASGI middleware that compresses. It works under any server.

    `min_size`: bytes from which a body is coded. `zstd_level`, `br_level` and `gzip_level` are those of the libraries;
    None leaves the coding out. zstd needs Python's `compression.zstd`, br the package brotlicffi; without it the coding
    is not offered. `types` is a regular expression, matched with the beginning of the media type. `event_streams`
    compresses text/event-stream. `dictionaries` are for clients that have them (RFC 9842). Raises `ConfigError`.
    """

    def __init__(
        self,
        app: App | None = None,
        *,
        min_size: int = 500,
        zstd_level: int | None = 3,
        br_level: int | None = 4,
        gzip_level: int | None = 6,
        types: str = TYPES,
        event_streams: bool = False,
        dictionaries: Iterable[CompressionDictionary] = (),
    ) -> None:
        given = tuple(dictionaries)
        self._remember(
            app,
            min_size=min_size,
            zstd_level=zstd_level,
            br_level=br_level,
            gzip_level=gzip_level,
            types=types,
            event_streams=event_streams,
            dictionaries=given,
        )
        self.min_size = min_size
        self.event_streams = event_streams
        try:
            self._is_type = re.compile(types).match
        except re.error as exc:
            raise ConfigError(
                f"types (compression_types) must be a regular expression: {exc} (got {types!r})"
            ) from exc
        self._coders = _coders({b"zstd": zstd_level, b"br": br_level, b"gzip": gzip_level})
        self.dictionaries = Dictionaries(given, zstd_level or 3) if given else None
        self.small = 0 if given else min_size
        """Below it an answer is passed on as it is, whatever else it says; 0 where it may be a dictionary."""
        # What was decided for a value of Accept-Encoding, or a media type: a function of the value and the settings
        # alone, so the same as deciding anew. Begins anew when full.
        self._chosen: dict[bytes, bytes | None] = {}
        self._types: dict[bytes, bool] = {}

    def __call__(self, scope: Scope, receive: Any, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return self.app(scope, receive, send)
        if self.dictionaries is not None:
            endpoint = self.dictionaries.endpoint(scope)
            if endpoint is not None:
                return endpoint(scope, receive, send)
        return self.app(scope, receive, self.sender(scope, send))

    def sender(self, scope: Scope, send: Send) -> Send:
        """The `send` for the application of this request; what it makes of an answer goes to `send`."""
        # What is accepted matters only if the answer is large enough.
        return _Answer(self, scope, scope["headers"], send).send

    def choose(self, accepted: bytes) -> bytes | None:
        """The coding that a client likes best, between equals the best one; None where it is to have none."""
        try:
            return self._chosen[accepted]
        except KeyError:
            pass
        found = self._choose(qualities([(b"", accepted)], b""))
        if len(self._chosen) >= _KNOWN_MAX or len(accepted) > 256:
            self._chosen.clear()
        self._chosen[accepted] = found
        return found

    def _choose(self, accepted: Qualities | None) -> bytes | None:
        if accepted is None:
            return None
        best, chosen = 0.0, None
        for coding in self._coders:
            if (quality := accepted.of(coding)) > best:
                best, chosen = quality, coding
        # "identity" that is named and liked better stays what it is.
        return None if accepted.names(b"identity") and accepted.of(b"identity") > best else chosen

    def shrinks(self, content_type: bytes) -> bool:
        """Whether a body of that type is worth it."""
        try:
            return self._types[content_type]
        except KeyError:
            pass
        media_type = content_type.partition(b";")[0].strip().lower().decode("latin-1")
        found = self._is_type(media_type) is not None
        if media_type == "text/event-stream":
            found = self.event_streams
        if len(self._types) >= _KNOWN_MAX or len(content_type) > 256:
            self._types.clear()
        self._types[content_type] = found
        return found

    def leaves(self, status: int, fields: Headers) -> bool:
        """Whether an answer with these fields is left as it is, whatever its client accepts. One of 304 is not."""
        if status == 304:
            return False
        kind = None
        for name, value in fields:
            name = name.lower()
            if name == b"content-length":
                if value.isdigit() and int(value) < self.min_size:
                    return True
            elif name == b"content-type":
                kind = value
            elif name in _FORBID or (name == b"cache-control" and b"no-transform" in value.lower()):
                if name != b"content-encoding" or value.lower() != b"identity":
                    return True
        return kind is None or status in _NEVER or not self.shrinks(kind)

    def coder(self, coding: bytes, size: int | None) -> Coder:
        """A new coder; `size` is that of the body, where it is known."""
        return self._coders[coding](size)


class _Answer:
    """The `send` of one request."""

    __slots__ = (
        "_coder",
        "_coding",
        "_compression",
        "_headers",
        "_length",
        "_scope",
        "_send",
        "_start",
        "_state",
        "_taken",
    )

    _coding: bytes | None
    """Set with the next two when the head has decided that there may be one."""
    _coder: Coder | None
    _start: dict[str, Any]
    _length: int | None
    """Of the body, where the application has said so; what is sent is no longer held to it by others."""
    _taken: int
    """How much of it there has been."""

    def __init__(self, compression: Compression, scope: Scope, headers: Headers, send: Send) -> None:
        self._compression = compression
        self._scope = scope
        self._headers = headers
        self._send = send
        self._state = WAITING

    def send(self, message: dict[str, Any]) -> Awaitable[None]:
        state = self._state
        if state == PASSING:
            return self._send(message)
        kind = message["type"]
        if state == WAITING:
            if kind != "http.response.start" or message["status"] < 200:
                return self._send(message)
            headers = message.get("headers", ())
            if type(headers) is not list:
                try:
                    # More than one looks at them, and they may be had only once.
                    headers = list(headers)
                    message = {**message, "headers": headers}
                except TypeError:
                    # Others find out.
                    pass
            small = self._compression.small
            if small:
                try:
                    length = dict(headers).get(b"content-length")
                    if length is not None and len(length) < 6 and length.isdigit() and int(length) < small:
                        # As most answers of programs are: nothing else of it matters.
                        self._state = PASSING
                        return self._send(message)
                except TypeError, ValueError, AttributeError:
                    # Something that cannot be hashed, or is no bytes, or no pairs: what follows finds out.
                    pass
            return self._begin(message)
        if kind == "http.response.body":
            body = message.get("body", b"")
            if state == CODING:
                return self._code(body, message.get("more_body", False))
            return self._first(message, body)
        if kind in _FILES:
            return self._file(message)
        if kind == "http.response.trailers" or state == CODING:
            return self._send(message)
        return self._release(message)

    def _begin(self, message: dict[str, Any]) -> Awaitable[None]:
        """Decide by the head; what is left to decide is the size."""
        compression = self._compression
        status = message["status"]
        fields = _plain(message.get("headers", ()))
        if fields is None:
            # Others find out.
            self._state = PASSING
            return self._send(message)
        message = message | {"headers": fields}
        if status == 304:
            self._state = PASSING
            return self._send(self._not_modified(message, fields))
        if compression.leaves(status, fields):
            self._state = PASSING
            return self._send(self._with_links(message))
        to_head = self._scope["method"] == "HEAD"
        has_length = to_head and any(name.lower() == b"content-length" for name, _ in fields)
        accepted = self._given(b"accept-encoding")
        self._coding = compression.choose(accepted) if accepted is not None else None
        self._coder = None
        dictionaries = compression.dictionaries
        if dictionaries is not None and accepted is not None and (available := self._given(b"available-dictionary")):
            found = dictionaries.usable(self._scope, accepted, available, message)
            if found is not None:
                self._coding = b"dcz"
                self._coder = found.coder()
        if self._coding is None:
            # Another client may get it coded: caches must be told what it depends on.
            self._state = PASSING
            return self._send(self._with_vary(self._with_links(message)))
        self._start = self._with_vary(self._with_links(message))
        self._state = HELD
        given = [value for name, value in fields if name.lower() == b"content-length" and value.isdigit()]
        self._length, self._taken = int(given[0]) if given else None, 0
        # Of an answer to HEAD its length tells whether GET would have it coded, else what the application gives.
        return self._head(True) if has_length else _nothing()

    def _not_modified(self, message: dict[str, Any], fields: Headers) -> dict[str, Any]:
        """With the ETag and the Vary of the answer that the client has (RFC 9110 15.4.5): its tag is weak if that was
        coded."""
        by_name = {name.lower(): value for name, value in fields}
        tag, kind = by_name.get(b"etag"), by_name.get(b"content-type")
        if tag and b"W/" + tag in (self._given(b"if-none-match") or b""):
            fields = [(name, b"W/" + value if name.lower() == b"etag" else value) for name, value in fields]
        elif kind is None or not self._compression.shrinks(kind):
            return message
        return self._with_vary(message | {"headers": fields})

    async def _head(self, more: bool) -> None:
        """Answer HEAD as GET, but for its length: that of the coded body, which nobody has made (RFC 9110 9.3.2)."""
        self._state = PASSING
        await self._send(self._coded_start(None))
        # Of a body that is all there the server would tell the length.
        await self._send({"type": "http.response.body", "body": b"", "more_body": True})
        if not more:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def _given(self, name: bytes) -> bytes | None:
        """What the request says in a field that is a list (RFC 9110 5.3)."""
        values = [value for given, value in self._headers if given == name]
        return b",".join(values) if values else None

    async def _first(self, message: dict[str, Any], body: bytes) -> None:
        """The first piece of the body; when it is all, its size decides."""
        more = message.get("more_body", False)
        to_head = self._scope["method"] == "HEAD"
        # Without a body and a length nobody knows what GET would get: most likely it is coded.
        if not more and len(body) < self._compression.min_size and (body or not to_head):
            await self._release(message)
            return
        if to_head:
            await self._head(more)
            return
        self._take(len(body), more)
        if not body and more:
            # The application wants its head to be seen.
            self._state = CODING
            self._coder = self._coder or self._compression.coder(self._coding or b"", None)
            await self._send(self._coded_start(None))
            await self._send(message)
            return
        coder = self._coder = self._coder or self._compression.coder(self._coding or b"", None if more else len(body))
        self._state = CODING
        coded = await _coded(coder, body, more)
        await self._send(self._coded_start(None if more or self._start.get("trailers") else len(coded)))
        if not more:
            self._state = PASSING
        await self._send({"type": "http.response.body", "body": coded, "more_body": more})

    async def _code(self, body: bytes, more: bool) -> None:
        coder = self._coder
        assert coder is not None
        if more and not body:
            return
        self._take(len(body), more)
        coded = await _coded(coder, body, more)
        if not more:
            self._state = PASSING
        if coded or not more:
            await self._send({"type": "http.response.body", "body": coded, "more_body": more})

    def _take(self, count: int, more: bool) -> None:
        """Hold the application to the Content-Length it gave, of which the coded body tells nothing."""
        self._taken += count
        length = self._length
        if length is not None and (self._taken > length or (not more and self._taken != length)):
            raise wrong_length(self._taken, length)

    async def _file(self, message: dict[str, Any]) -> None:
        """A file that the server would send in place of the body, or of a part of it."""
        if message["type"] == "pounce.response.sendfile":
            with open(message["path"], "rb", buffering=0) as file:
                await self._file({"offset": 0, **message, "type": "http.response.zerocopysend", "file": file})
            return
        if message["type"] == "http.response.pathsend":
            with open(message["path"], "rb", buffering=0) as file:
                await self._read(file.fileno(), 0, os.fstat(file.fileno()).st_size, False)
            return
        file, offset, count = message["file"], message.get("offset"), message.get("count")
        fd = file if isinstance(file, int) else file.fileno()
        start = os.lseek(fd, 0, os.SEEK_CUR) if offset is None else offset
        rest = max(os.fstat(fd).st_size - start, 0)
        count = rest if count is None else min(count, rest)
        if offset is None:
            # As the server does: the next one begins where this one ends.
            os.lseek(fd, start + count, os.SEEK_SET)
        await self._read(fd, start, count, message.get("more_body", False))

    async def _read(self, fd: int, offset: int, count: int, more: bool) -> None:
        if count <= SMALL_FILE and (small := read_at_once(fd, offset, count)) is not None:
            await self.send({"type": "http.response.body", "body": small, "more_body": more})
            return
        loop = asyncio.get_running_loop()
        while count > CHUNK:
            piece = await loop.run_in_executor(None, os.pread, fd, CHUNK, offset)
            if not piece:
                break
            offset += len(piece)
            count -= len(piece)
            await self.send({"type": "http.response.body", "body": piece, "more_body": True})
        piece = await loop.run_in_executor(None, os.pread, fd, count, offset)
        if len(piece) < count:
            raise AppError("the file became shorter while it was sent", code="POUNCE_APP_BAD_LENGTH")
        await self.send({"type": "http.response.body", "body": piece, "more_body": more})

    async def _release(self, message: dict[str, Any]) -> None:
        """Send what was held as it is."""
        self._state = PASSING
        await self._send(self._start)
        await self._send(message)

    def _coded_start(self, length: int | None) -> dict[str, Any]:
        """The head of a coded answer."""
        headers: Headers = []
        for name, value in self._start["headers"]:
            lower = name.lower()
            if lower in (b"content-length", b"accept-ranges", b"content-encoding"):
                continue
            if lower == b"etag" and not value.startswith(b"W/"):
                # RFC 9110 8.8.3.3: a strong one would have to differ from that of every other coding.
                value = b"W/" + value
            headers.append((name, value))
        headers.append((b"content-encoding", self._coding or b""))
        if length is not None:
            headers.append((b"content-length", b"%d" % length))
        return self._start | {"headers": headers}

    def _with_vary(self, message: dict[str, Any]) -> dict[str, Any]:
        headers = list(message.get("headers", ()))
        if self._compression.dictionaries is None:
            add_vary(headers, b"accept-encoding")
        else:
            # RFC 9842 6.2
            add_vary(headers, b"accept-encoding", b"available-dictionary")
        return message | {"headers": headers}

    def _with_links(self, message: dict[str, Any]) -> dict[str, Any]:
        dictionaries = self._compression.dictionaries
        return message if dictionaries is None else dictionaries.advertised(self._scope, message)


_FILES = ("http.response.zerocopysend", "http.response.pathsend", "pounce.response.sendfile")
_NEVER = (204, 205, 206)
_FORBID = frozenset(b"content-encoding content-range content-digest repr-digest content-md5 digest".split())


def _plain(given: Any) -> Headers | None:
    """Fields with names and values that are bytes, whatever holds them; None where something else is among them."""
    try:
        fields = [(plain_bytes(name), plain_bytes(value)) for name, value in given]
    except TypeError, ValueError:
        return None
    return None if any(None in field for field in fields) else cast(Headers, fields)


async def _nothing() -> None:
    pass


async def _coded(coder: Coder, body: bytes, more: bool) -> bytes:
    if len(body) < LARGE:
        return _code_now(coder, body, more)
    return await asyncio.get_running_loop().run_in_executor(None, _code_now, coder, body, more)


def _code_now(coder: Coder, body: bytes, more: bool) -> bytes:
    return coder.compress(body) + (coder.flush() if more else coder.finish())


class _Zstd:
    def __init__(self, level: int, size: int | None) -> None:
        from compression.zstd import CompressionParameter, ZstdCompressor

        options: dict[Any, int] = {CompressionParameter.compression_level: level}
        if size is None:
            options[CompressionParameter.window_log] = WINDOW_LOG
        self._compressor = ZstdCompressor(options=options)
        if size is not None:
            self._compressor.set_pledged_input_size(size)

    def compress(self, data: bytes) -> bytes:
        return self._compressor.compress(data)

    def flush(self) -> bytes:
        return self._compressor.flush(self._compressor.FLUSH_BLOCK)

    def finish(self) -> bytes:
        return self._compressor.flush(self._compressor.FLUSH_FRAME)


class _Gzip:
    """Deflate in the wrapper of RFC 1952, which is made here: zlib takes half as long again when it does that."""

    def __init__(self, level: int, size: int | None) -> None:
        self._compressor = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._head = GZIP_HEAD
        self._crc = self._size = 0

    def compress(self, data: bytes) -> bytes:
        head, self._head = self._head, b""
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        return head + self._compressor.compress(data)

    def flush(self) -> bytes:
        return self._compressor.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        end = struct.pack("<II", self._crc, self._size & 0xFFFFFFFF)
        return self._head + self._compressor.flush(zlib.Z_FINISH) + end


class _Brotli:
    def __init__(self, level: int, size: int | None) -> None:
        brotlicffi = importlib.import_module("brotlicffi")
        self._compressor = brotlicffi.Compressor(quality=level, lgwin=WINDOW_LOG)

    def compress(self, data: bytes) -> bytes:
        return bytes(self._compressor.process(data))

    def flush(self) -> bytes:
        return bytes(self._compressor.flush())

    def finish(self) -> bytes:
        return bytes(self._compressor.finish())


def _coders(levels: dict[bytes, int | None]) -> dict[bytes, Callable[[int | None], Coder]]:
    """How to make the coders that can be had, the best first. Raises `ConfigError` for a level that is none."""
    made: dict[bytes, Callable[[int | None], Coder]] = {}
    kinds: dict[bytes, tuple[type[Any], str, int, int]] = {
        b"zstd": (_Zstd, "compression.zstd", -7, 22),
        b"br": (_Brotli, "brotlicffi", 0, 11),
        b"gzip": (_Gzip, "zlib", 0, 9),
    }
    for coding in BEST_FIRST:
        level = levels[coding]
        kind, module, lowest, highest = kinds[coding]
        if level is None:
            continue
        if not lowest <= level <= highest:
            raise ConfigError(f"the level of {coding.decode()} must be from {lowest} to {highest} (got {level})")
        try:
            importlib.import_module(module)
        except ImportError:
            continue
        made[coding] = _maker(kind, level)
    return made


def _maker(kind: type[Any], level: int) -> Callable[[int | None], Coder]:
    def make(size: int | None) -> Coder:
        coder: Coder = kind(level, size)
        return coder

    return make
