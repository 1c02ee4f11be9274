"""WSGI applications (PEP 3333) as ASGI applications, each request on a thread of a bounded pool.

Neither body is held in memory, but for one of a request that says that it is short: that is here before the application
starts. Of others the thread asks the loop for the next piece of the request when the application reads it, and hands
every piece of the answer to the loop, waiting until the client has room for it; so it is the client's pace and the
application's that decide, as everywhere else. An answer that is a list of one piece goes back in one step.

A client that leaves is noticed when the next piece is sent or read: the iteration stops and `close()` is called. A
request that is cancelled lets its thread go in the same way.
"""

import asyncio
import contextvars
import logging
import os
import stat
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote_to_bytes

from pounce.errors import AppError, ClientGone
from pounce.exchange.values import plain_bytes

__all__ = ["WSGI"]

type Scope = MutableMapping[str, Any]
type Message = dict[str, Any]
type WSGIApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

log = logging.getLogger("pounce")

# RFC 9110 7.6.1. PEP 3333 calls it an error of an application to use them, but applications do, and the servers that
# they come from leave them out. Connection goes on: what its `close` asks for is the connection's to do.
HOP_BY_HOP = ("keep-alive", "proxy-authenticate", "te", "trailer", "transfer-encoding", "upgrade")
CHUNK = 65_536


class WSGI:
    """An ASGI application that calls a WSGI application. It works under any server on asyncio.

    `threads` is how many requests run at once in each worker; the others wait for a thread, their bodies with the
    client. 0 is as many as Python's executors have. `sends_files`: messages `http.response.zerocopysend` may be sent
    though the scope does not announce them, for what the application wraps in `wsgi.file_wrapper`.
    """

    def __init__(self, app: WSGIApp, *, threads: int = 0, sends_files: bool = False) -> None:
        self.app = app
        self._threads = threads or min(32, (os.process_cpu_count() or 1) + 4)
        self._sends_files = sends_files
        self._pool: ThreadPoolExecutor | None = None
        self._told: set[str] = set()
        """Fields that were left out, and the log has said so."""

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        kind = scope["type"]
        if kind == "websocket":
            await send({"type": "websocket.close"})
            return
        if kind != "http":
            raise NotImplementedError(f"a WSGI application knows no scope of type {kind!r}")
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="pounce-wsgi")
        files = self._sends_files or "http.response.zerocopysend" in scope.get("extensions", ())
        request = _Request(self, scope, receive, send, files)
        await request.run(self._pool)

    def leave_out(self, name: str) -> None:
        """A field of the next hop is not sent; the log says so once. From any thread."""
        if name not in self._told:
            self._told.add(name)
            log.warning("The WSGI application sets %s, which is the server's to say: it is not sent (PEP 3333)", name)

    def close(self) -> None:
        """Take no more requests; threads end when theirs do."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)


class _Request:
    """One request: what its thread does, and what it asks of the loop."""

    def __init__(self, bridge: WSGI, scope: Scope, receive: Any, send: Any, sends_files: bool) -> None:
        self._bridge = bridge
        self._scope = scope
        self._receive = receive
        self._send = send
        self._sends_files = sends_files
        self._loop = asyncio.get_running_loop()
        self._asked: Future[Any] | None = None
        self._gone = False
        self._start: Message | None = None
        self._begun = False
        self._length: int | None = None
        self._written = 0
        """Bytes of the body that have been sent."""
        self._fetched = b"", False
        """What was received of the body before the application started, and whether that is all."""

    async def run(self, pool: ThreadPoolExecutor) -> None:
        if self._is_short():
            # Cheaper than that the thread asks for it, and no thread waits for a slow client.
            if not await self._fetch():
                # The client has left: there is nobody to answer, and only half a request.
                return
        context = contextvars.copy_context()
        running = pool.submit(context.run, self._call)
        try:
            last = await asyncio.wrap_future(running)
        except asyncio.CancelledError:
            self._gone = True
            running.cancel()
            asked = self._asked
            if asked is not None:
                asked.cancel()
            raise
        for message in last:
            await self._send(message)

    def _is_short(self) -> bool:
        """The request has a body, and says that it is short."""
        length = None
        for name, value in self._scope["headers"]:
            if name == b"content-length":
                length = value
            elif name == b"expect":
                # It may be refused before it is sent.
                return False
        return length is not None and length.isdigit() and 0 < int(length) <= CHUNK

    async def _fetch(self) -> bool:
        body = bytearray()
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return False
            body += message.get("body", b"")
            if not message.get("more_body", False):
                self._fetched = bytes(body), True
                return True

    # On the thread

    def _call(self) -> list[Message]:
        """Run the application; what is left to send is returned."""
        body = _Body(self, *self._fetched)
        errors = _Errors()
        environ = _environ(self._scope, body, errors)
        try:
            result: Any = self._bridge.app(environ, self._start_response)
            try:
                return self._answer(result)
            except CancelledError as exc:
                raise ClientGone("the request was given up") from exc
            finally:
                close = getattr(result, "close", None)
                if close is not None:
                    close()
        finally:
            # A last line without an end, too.
            errors.flush()

    def _answer(self, result: Any) -> list[Message]:
        if isinstance(result, (list, tuple)) and len(result) <= 1 and not self._begun:
            body = _bytes(result[0]) if result else b""
            start = self._head()
            return [start, *self._only(body)]
        if isinstance(result, FileWrapper) and self._sends_files and (file := result.regular_file()) is not None:
            return self._file(*file)
        if isinstance(result, FileWrapper) and self._length is not None:
            result = _first(result, self._length - self._written)
        for piece in result:
            # PEP 3333: headers are sent with the first piece that is not empty.
            if piece:
                self._write(_bytes(piece))
        if not self._begun:
            return [self._head(), *self._only(b"")]
        return [{"type": "http.response.body"}]

    def _only(self, body: bytes) -> list[Message]:
        if self._scope["method"] == "HEAD":
            # What there is of a body is no measure of that of a GET.
            return [{"type": "http.response.body", "more_body": True}, {"type": "http.response.body"}]
        return [{"type": "http.response.body", "body": body}]

    def _file(self, fd: int, offset: int, count: int) -> list[Message]:
        if self._length is not None:
            count = max(min(count, self._length - self._written), 0)
        if not self._begun:
            start = self._head()
            self._begun = True
            if self._length is None and self._scope["method"] != "HEAD":
                start["headers"].append((b"content-length", b"%d" % count))
            self.ask(self._send(start))
        message = {"type": "http.response.zerocopysend", "file": fd, "offset": offset, "count": count}
        self.ask(self._send(message))
        return []

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        if exc_info is not None:
            try:
                if self._begun:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self._start is not None:
            raise AppError("start_response() is called twice without exc_info", code="POUNCE_APP_BAD_MESSAGE")
        code, _, _ = str(status).partition(" ")
        if not (code.isascii() and code.isdigit() and len(code) == 3):
            raise AppError(f"{status!r} is no status, such as '200 OK'", code="POUNCE_APP_BAD_MESSAGE")
        fields = []
        self._length = None
        for name, value in headers:
            lower = name.lower()
            if lower in HOP_BY_HOP:
                self._bridge.leave_out(lower)
                continue
            if lower == "content-length" and value.isascii() and value.isdigit():
                self._length = int(value)
            fields.append((lower.encode("latin-1"), value.encode("latin-1")))
        self._start = {"type": "http.response.start", "status": int(code), "headers": fields}
        return self._write

    def _head(self) -> Message:
        if self._start is None:
            raise AppError("the WSGI application did not call start_response()", code="POUNCE_APP_BAD_MESSAGE")
        return self._start

    def _write(self, data: bytes) -> None:
        self._written += len(data)
        if not self._begun:
            start = self._head()
            self._begun = True
            self.ask(self._send_both(start, data))
        else:
            self.ask(self._send({"type": "http.response.body", "body": data, "more_body": True}))

    async def _send_both(self, start: Message, data: bytes) -> None:
        await self._send(start)
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    def ask(self, what: Awaitable[Any]) -> Any:
        """Have the loop do something, and wait for it. Raises `ClientGone` once the request is given up."""
        if self._gone:
            _drop(what)
            raise ClientGone("the request was given up")
        try:
            asked = self._asked = asyncio.run_coroutine_threadsafe(_awaited(what), self._loop)
        except RuntimeError as exc:
            # The loop is closed.
            raise ClientGone("the worker has ended") from exc
        if self._gone:
            asked.cancel()
        return asked.result()

    def next_message(self) -> Message:
        message: Message = self.ask(self._receive())
        return message


async def _awaited(what: Awaitable[Any]) -> Any:
    return await what


def _drop(what: Awaitable[Any]) -> None:
    close = getattr(what, "close", None)
    if close is not None:
        close()


class _Body:
    """`wsgi.input`: the request body, fetched as far as it is read."""

    def __init__(self, request: _Request, fetched: bytes = b"", ended: bool = False) -> None:
        self._request = request
        self._kept = bytearray(fetched)
        self._ended = ended

    def _more(self) -> bool:
        """Fetch another piece; False at the end."""
        if self._ended:
            return False
        message = self._request.next_message()
        if message["type"] == "http.disconnect":
            raise ClientGone("the client left before its body was complete")
        self._kept += message.get("body", b"")
        self._ended = not message.get("more_body", False)
        return True

    def read(self, size: int | None = -1) -> bytes:
        """Up to `size` bytes, fewer at the end only; everything without a size."""
        if size is None or size < 0:
            while self._more():
                pass
            return self._take(len(self._kept))
        while len(self._kept) < size and self._more():
            pass
        return self._take(size)

    def readline(self, size: int | None = -1) -> bytes:
        at = 0
        while (end := self._kept.find(b"\n", at)) < 0:
            at = len(self._kept)
            if (size is not None and 0 <= size <= at) or not self._more():
                end = len(self._kept) - 1
                break
        count = end + 1
        return self._take(count if size is None or size < 0 else min(count, size))

    def readlines(self, hint: int | None = -1) -> list[bytes]:
        lines: list[bytes] = []
        total = 0
        while line := self.readline():
            lines.append(line)
            total += len(line)
            if hint is not None and 0 < hint <= total:
                break
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def _take(self, count: int) -> bytes:
        taken = bytes(self._kept[:count])
        del self._kept[:count]
        return taken


def _first(pieces: Iterable[bytes], count: int) -> Iterator[bytes]:
    """So many bytes of them, if there are, as of a file that the server sends itself."""
    for piece in pieces:
        yield piece[:count]
        count -= len(piece)
        if count <= 0:
            return


class _Errors:
    """`wsgi.errors`: text for the log, a record for each line."""

    def __init__(self) -> None:
        self._line = ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            log.error("%s", line)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if self._line:
            self.write("\n")


class FileWrapper:
    """`wsgi.file_wrapper`: the pieces of a file, which the server may send in its own way."""

    def __init__(self, filelike: Any, block_size: int = CHUNK) -> None:
        self._file = filelike
        self._block_size = block_size
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self._file.read(self._block_size), b"")

    def regular_file(self) -> tuple[int, int, int] | None:
        """Descriptor, offset and count of what is left of it; None where it is no regular file."""
        try:
            fd, offset = self._file.fileno(), self._file.tell()
            status = os.fstat(fd)
        except AttributeError, OSError, ValueError:
            return None
        return (fd, offset, max(status.st_size - offset, 0)) if stat.S_ISREG(status.st_mode) else None


def _bytes(piece: Any) -> bytes:
    plain = plain_bytes(piece)
    if plain is None:
        raise AppError(
            f"a WSGI application must give bytes (got {type(piece).__name__})", code="POUNCE_APP_BAD_MESSAGE"
        )
    return plain


def _environ(scope: Scope, body: _Body, errors: _Errors) -> dict[str, Any]:
    """The environment of a request (PEP 3333, RFC 3875 4.1)."""
    root = scope.get("root_path", "")
    raw = scope.get("raw_path")
    path = scope["path"].encode() if raw is None else unquote_to_bytes(raw)
    script = root.encode()
    path = path.removeprefix(script)
    server = scope.get("server") or ("localhost", None)
    client = scope.get("client")
    secure = scope.get("scheme") == "https"
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        # PEP 3333: bytes as text, each of them a character.
        "SCRIPT_NAME": script.decode("latin-1"),
        "PATH_INFO": path.decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": server[0] if server[1] is not None else "localhost",
        "SERVER_PORT": str(server[1] if server[1] is not None else 443 if secure else 80),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.input": body,
        "wsgi.input_terminated": True,
        "wsgi.errors": errors,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
    }
    if client is not None:
        environ["REMOTE_ADDR"] = client[0]
        environ["REMOTE_PORT"] = str(client[1])
    for name, value in scope["headers"]:
        if name.find(b"_") >= 0:
            # It would be one variable with the name that has hyphens.
            continue
        key = name.decode("latin-1").upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = "HTTP_" + key
        text = value.decode("latin-1")
        if key in environ:
            text = environ[key] + ("; " if key == "HTTP_COOKIE" else ",") + text
        environ[key] = text
    return environ
