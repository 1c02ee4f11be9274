"""StaticFiles: serves files below directories, and leaves everything else to the application.

Small files are answered from memory. What is larger is sent by the server where it can send files, else piece by piece.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping
from typing import Any, Self
from urllib.parse import quote

from pounce.errors import AppError
from pounce.exchange.accept import qualities
from pounce.middleware.base import App, Scope, Send, add_vary, refuse
from pounce.middleware.static import files
from pounce.middleware.static.conditions import Fields, Span, Validators, judge
from pounce.middleware.static.mounts import StaticMount, ordered
from pounce.middleware.static.served import SIBLINGS, Entry, Served, Variant

__all__ = ["StaticFiles", "create_static_handler", "no_application"]

type Receive = Callable[[], Awaitable[Any]]

CHUNK = 262_144
"""Bytes that are read at once of a file which the server cannot send itself."""


async def no_application(scope: Scope, receive: Receive, send: Send) -> None:
    """What is behind files that are served alone: 404, and 405 to methods that files do not have."""
    if scope["type"] == "lifespan":
        raise NotImplementedError
    if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD"):
        await refuse(scope, send, 405, b"Method Not Allowed", [(b"allow", b"GET, HEAD")])
        return
    await refuse(scope, send, 404, b"Not Found")


class StaticFiles:
    """An ASGI application, or a middleware around one, that serves the files of its mounts.

    GET and HEAD of what is there; all else goes to `app`, and is 404 without one. See `StaticMount` for what a mount
    can say. Raises `ConfigError` for mounts that cannot be served.
    """

    def __init__(self, app: App | None = None, *, mounts: Iterable[StaticMount], sends_files: bool = False) -> None:
        """`sends_files`: messages `http.response.zerocopysend` may be sent though the scope does not announce them."""
        self._app = app
        self._mounts = ordered(mounts)
        self._sends_files = sends_files
        self._served = [(mount.url_path, Served(mount)) for mount in self._mounts]

    def wrap(self, app: App) -> Self:
        """The same mounts around an application."""
        return type(self)(app, mounts=self._mounts, sends_files=self._sends_files)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._not_http(scope, receive, send)
            return
        path: str = scope["path"]
        root = scope.get("root_path", "")
        if root and path.startswith(root):
            path = path[len(root) :]
        served = self._mount_of(path)
        if served is None:
            await self._miss(scope, receive, send)
        elif scope["method"] not in ("GET", "HEAD"):
            await (self._app or no_application)(scope, receive, send)
        else:
            await self._serve(scope, receive, send, served, path[len(served.mount.url_path) :])

    def _mount_of(self, path: str) -> Served | None:
        for prefix, served in self._served:
            if path.startswith(prefix) and (len(path) == len(prefix) or path[len(prefix)] == "/"):
                return served
        return None

    async def _serve(self, scope: Scope, receive: Receive, send: Send, served: Served, rest: str) -> None:
        """`rest` is the path below the mount, with its first slash; empty for the mount itself."""
        raw = scope.get("raw_path") or b""
        if b"%" in raw and (b"%2f" in raw or b"%2F" in raw):
            # A slash in a name is none in a path (RFC 3986 2.2), and no file has one.
            parts = None
        else:
            parts = files.components(rest[1:].removesuffix("/"))
        if parts is None or rest.endswith("//"):
            await self._miss(scope, receive, send, served)
            return
        index = served.mount.index_file
        if rest.endswith("/"):
            if index is None:
                await self._miss(scope, receive, send, served)
                return
            name = (*parts, *index.split("/"))
        elif parts:
            name = tuple(parts)
        else:
            await self._directory(scope, receive, send, served, ())
            return
        entry = served.known(name)
        if entry is not None:
            await self._answer(scope, send, entry)
            return
        entry = await served.entry(name)
        if entry is not None:
            try:
                await self._answer(scope, send, entry)
            finally:
                entry.close()
        elif rest.endswith("/"):
            await self._miss(scope, receive, send, served)
        else:
            await self._directory(scope, receive, send, served, name)

    async def _directory(
        self, scope: Scope, receive: Receive, send: Send, served: Served, parts: tuple[str, ...]
    ) -> None:
        """No file, and no slash at the end: a directory has its page one step further."""
        if await served.has_index(parts):
            await _redirect(scope, send)
        else:
            await self._miss(scope, receive, send, served)

    async def _not_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._app is not None:
            await self._app(scope, receive, send)
        elif scope["type"] == "lifespan":
            while (message := await receive())["type"] != "lifespan.shutdown":
                await send({"type": message["type"] + ".complete"})
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})

    # Answers

    async def _answer(self, scope: Scope, send: Send, entry: Entry) -> None:
        variant = entry.plain
        if entry.coded:
            variant = _chosen(entry, scope["headers"])
        file, headers = variant.file, variant.headers
        method = scope["method"]
        validators = Validators(file.etag, file.modified)
        verdict = judge(Fields.of(scope["headers"]), validators, file.size, method, time.time())
        status = verdict.status
        if status == 206:
            await self._partial(scope, send, variant, verdict.spans)
            return
        body: bytes | None = b""
        if status == 304:
            # RFC 9110 15.4.5: what a 200 would have had, of those that tell caches something.
            headers = [field for field in headers if field[0] not in _OF_CONTENT]
        elif status == 412:
            headers = [(b"content-length", b"0")]
        elif status == 416:
            headers = [(b"content-length", b"0"), (b"content-range", b"bytes */%d" % file.size)]
        elif method == "GET":
            body = file.content
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if body is None:
            await self._send_span(scope, send, variant, (0, file.size), more=False)
        else:
            await send({"type": "http.response.body", "body": body})

    async def _partial(self, scope: Scope, send: Send, variant: Variant, spans: tuple[Span, ...]) -> None:
        file = variant.file
        headers = [field for field in variant.headers if field[0] != b"content-length"]
        if len(spans) == 1:
            begin, end = spans[0]
            headers.append((b"content-range", b"bytes %d-%d/%d" % (begin, end - 1, file.size)))
            headers.append((b"content-length", b"%d" % (end - begin)))
            await send({"type": "http.response.start", "status": 206, "headers": headers})
            await self._send_span(scope, send, variant, spans[0], more=False)
            return
        # RFC 9110 14.6
        boundary = secrets.token_hex(12).encode()
        kind = next(value for name, value in headers if name == b"content-type")
        heads = [
            b"%b--%b\r\ncontent-type: %b\r\ncontent-range: bytes %d-%d/%d\r\n\r\n"
            % (b"\r\n" if index else b"", boundary, kind, begin, end - 1, file.size)
            for index, (begin, end) in enumerate(spans)
        ]
        last = b"\r\n--%b--\r\n" % boundary
        length = sum(map(len, heads)) + sum(end - begin for begin, end in spans) + len(last)
        headers = [field for field in headers if field[0] != b"content-type"]
        headers.append((b"content-type", b"multipart/byteranges; boundary=" + boundary))
        headers.append((b"content-length", b"%d" % length))
        await send({"type": "http.response.start", "status": 206, "headers": headers})
        for part, span in zip(heads, spans, strict=True):
            await send({"type": "http.response.body", "body": part, "more_body": True})
            await self._send_span(scope, send, variant, span, more=True)
        await send({"type": "http.response.body", "body": last})

    async def _send_span(self, scope: Scope, send: Send, variant: Variant, span: Span, *, more: bool) -> None:
        begin, end = span
        file = variant.file
        if file.content is not None:
            await send({"type": "http.response.body", "body": file.content[begin:end], "more_body": more})
            return
        if self._sends_files or "http.response.zerocopysend" in scope.get("extensions", ()):
            await send(
                {
                    "type": "http.response.zerocopysend",
                    "file": file.fd,
                    "offset": begin,
                    "count": end - begin,
                    "more_body": more,
                }
            )
            return
        loop = asyncio.get_running_loop()
        while begin < end:
            piece = await loop.run_in_executor(None, files.read, file.fd, begin, min(CHUNK, end - begin))
            if not piece:
                raise AppError("the file became shorter while it was sent", code="POUNCE_APP_BAD_LENGTH")
            begin += len(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": more or begin < end})

    async def _miss(self, scope: Scope, receive: Receive, send: Send, served: Served | None = None) -> None:
        """Nothing is there: the application's turn, and then, for a page of a browser, the fallback's."""
        fallback = served.mount.fallback if served is not None else None
        if fallback is not None:
            plain, send = send, _varying(send, (404,))
        if served is None or fallback is None or not _is_navigation(scope):
            if self._app is not None:
                await self._app(scope, receive, send)
            else:
                await refuse(scope, send, 404, b"Not Found")
            return
        if self._app is not None:
            unless_not_found = _UnlessNotFound(send)
            await self._app(scope, receive, unless_not_found)
            if not unless_not_found.not_found:
                return
        entry = await served.entry(tuple(fallback.split("/")))
        if entry is None:
            await refuse(scope, send, 404, b"Not Found")
            return
        try:
            await self._answer(scope, _varying(plain), entry)
        finally:
            entry.close()


_OF_CONTENT = (b"content-length", b"content-type", b"content-encoding", b"accept-ranges")


class _UnlessNotFound:
    """A `send` that keeps an answer with status 404 to itself."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.not_found = False

    async def __call__(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start" and message["status"] == 404:
            self.not_found = True
        if not self.not_found:
            await self._send(message)


def create_static_handler(
    mounts: Mapping[str, str],
    cache_control: str = "public, max-age=3600",
    precompressed: bool = True,
    follow_symlinks: bool = False,
    index_file: str | None = "index.html",
) -> StaticFiles:
    """An application that serves directories by the path they are under, and answers 404 for all else."""
    return StaticFiles(
        mounts=[
            StaticMount(
                path,
                directory,
                cache_control=cache_control,
                precompressed=precompressed,
                follow_symlinks=follow_symlinks,
                index_file=index_file,
            )
            for path, directory in mounts.items()
        ]
    )


def _chosen(entry: Entry, headers: Iterable[tuple[bytes, bytes]]) -> Variant:
    """The representation that the client likes best (RFC 9110 12.5.3); between equals the order of `SIBLINGS`."""
    accepted = qualities(headers, b"accept-encoding")
    chosen = entry.plain
    if accepted is not None:
        best = 0.0
        for coding, _ in SIBLINGS:
            variant = entry.coded.get(coding)
            if variant is not None and (quality := accepted.of(coding)) > best:
                best, chosen = quality, variant
        if accepted.names(b"identity") and accepted.of(b"identity") > best:
            chosen = entry.plain
    return chosen


def _varying(send: Send, statuses: Container[int] = range(200, 1000)) -> Send:
    """A `send` for answers with one of these, which depend on whether a browser goes to a page: caches are told."""

    async def varying(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start" and message["status"] in statuses:
            headers = list(message.get("headers", ()))
            add_vary(headers, b"accept", b"sec-fetch-mode")
            # In one field.
            said = [value for name, value in headers if name.lower() == b"vary"]
            others = [field for field in headers if field[0].lower() != b"vary"]
            message = {**message, "headers": [*others, (b"vary", b", ".join(said))]}
        await send(message)

    return varying


def _is_navigation(scope: Scope) -> bool:
    """A browser goes to a page, and does not fetch a part of one."""
    accept = b""
    for name, value in scope["headers"]:
        if name == b"sec-fetch-mode":
            return bool(value == b"navigate")
        if name == b"accept":
            accept += value
    return b"text/html" in accept


async def _redirect(scope: Scope, send: Send) -> None:
    """To the same path with a slash, so that relative links on the page are right."""
    raw = scope.get("raw_path") or quote(scope["path"]).encode()
    # Two slashes at the beginning would name another host (RFC 3986 4.2).
    location = b"/" + raw.lstrip(b"/") + b"/"
    if scope.get("query_string"):
        location += b"?" + scope["query_string"]
    headers = [(b"location", location), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 307, "headers": headers})
    await send({"type": "http.response.body"})
