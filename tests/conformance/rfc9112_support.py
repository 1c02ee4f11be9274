"""What the HTTP/1.1 suites share: the parsers they run over, small applications, and clients that read strictly.

`connect` gives a connection in memory, where the test is the peer and time is an argument. `Client` is the same over
a socket, for what only a socket shows. `read_answers` takes an answer apart as RFC 9112 6 says, and fails on anything
that two clients could delimit differently.
"""

import asyncio
import functools
import re
import socket
import ssl
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from pounce.config import ServerConfig
from pounce.h1.plugin import plugin as h1
from pounce.plugin import API_VERSION, Plugin
from pounce.registry import Registry
from pounce.testing import MemoryConnection, TestServer

PARSERS = Registry.discover(ServerConfig()).parsers

type Send = Callable[[dict[str, Any]], Awaitable[None]]
type Receive = Callable[[], Awaitable[dict[str, Any]]]


@pytest.fixture(params=list(PARSERS), ids=["h1-fast" if name == "h1fast" else "h1-" + name for name in PARSERS])
def parser(request: pytest.FixtureRequest) -> str:
    """The name of each HTTP/1.1 parser that is installed."""
    return request.param


def in_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an `async def` test on an event loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))  # type: ignore[arg-type]

    return run


def registry_of(parser: str, *plugins: Plugin) -> Registry:
    """The HTTP/1.1 wire with that parser, and nothing that happens to be installed beside it."""
    choice = PARSERS[parser]
    if choice not in h1.parsers:
        plugins = (Plugin(name="chosen-parser", api=API_VERSION, parsers=(choice,)), *plugins)
    return Registry.of(h1, *plugins)


class Peer(MemoryConnection):
    """A connection in memory that also notes each write of the server."""

    def __init__(self, app: Any, parser: str, *plugins: Plugin, **settings: Any) -> None:
        settings = {"http_parser": parser, "date_header": False, "server_header": ""} | settings
        super().__init__(app, registry=registry_of(parser, *plugins), **settings)
        self.writes: list[bytes] = []
        write = self.transport.write

        def noting(data: bytes) -> None:
            self.writes.append(bytes(data))
            write(data)

        self.transport.write = noting  # type: ignore[method-assign, assignment]

    @property
    def paused(self) -> bool:
        """The server has stopped to read."""
        return not self.transport.reading

    async def answers(self, *methods: str) -> list[Answer]:
        """What has been answered so far."""
        await self.settle()
        return read_answers(self.received, *methods, ended=self.transport.ended or self.closed)

    async def answer(self, method: str = "GET") -> Answer:
        """The one answer that has come."""
        answers = await self.answers(method)
        assert len(answers) == 1, f"{len(answers)} answers: {self.received!r}"
        return answers[0]


connect = Peer


# Reading answers


@dataclass
class Answer:
    """One answer, with the interim ones before it."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict)
    interim: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    complete: bool = True
    """Its framing says that the body has ended."""
    chunks: list[bytes] | None = None
    """The chunks of a chunked body."""
    raw_head: bytes = b""

    @property
    def closes(self) -> bool:
        """It announces that it is the last one."""
        return "close" in [option.strip().lower() for option in self.headers.get("connection", "").split(",")]


_status_line = re.compile(rb"HTTP/1\.1 ([1-9][0-9]{2}) [\t \x21-\x7e\x80-\xff]*").fullmatch
_field_line = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ?([^\x00-\x08\x0a-\x1f\x7f]*)").fullmatch


def read_answers(data: bytes, *methods: str, ended: bool = False) -> list[Answer]:
    """Every answer in `data`, which must hold nothing else.

    `methods` are those of the requests, in order (the last one stands for all that follow); `ended` says that the
    server has ended its half.
    """
    answers: list[Answer] = []
    while data:
        method = (methods[min(len(answers), len(methods) - 1)] if methods else "GET").upper()
        answer, data = _read_answer(data, method, ended)
        answers.append(answer)
    return answers


def _read_answer(data: bytes, method: str, ended: bool) -> tuple[Answer, bytes]:
    interim: list[tuple[int, dict[str, str]]] = []
    while True:
        head, found, rest = data.partition(b"\r\n\r\n")
        assert found, f"the head of an answer has no end: {data[:200]!r}"
        lines = head.split(b"\r\n")
        matched = _status_line(lines[0])
        assert matched, f"not a status line: {lines[0]!r}"
        status, headers = int(matched[1]), _fields(lines[1:])
        if status >= 200 or status == 101:
            break
        assert "content-length" not in headers and "transfer-encoding" not in headers, "an interim answer has a body"
        interim.append((status, headers))
        data = rest
        if not data:
            return Answer(0, {}, interim=interim, complete=False), b""
    answer = Answer(status, headers, interim=interim, raw_head=head)
    length, coding = headers.get("content-length"), headers.get("transfer-encoding")
    assert length is None or coding is None, "both Content-Length and Transfer-Encoding (RFC 9112 6.2)"
    if status in (101, 204):
        assert length is None and coding is None, f"framing fields in a {status} answer (RFC 9110 8.6, RFC 9112 6.1)"
    if status == 101:
        answer.body, rest = rest, b""
    elif method == "HEAD" or status in (204, 304):
        pass
    elif coding is not None:
        assert coding == "chunked"
        rest = _read_chunked(answer, rest)
    elif length is not None:
        answer.body, rest = rest[: int(length)], rest[int(length) :]
        answer.complete = len(answer.body) == int(length)
    else:
        answer.body, rest, answer.complete = rest, b"", ended
    return answer, rest


def _fields(lines: Sequence[bytes]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in lines:
        matched = _field_line(line)
        assert matched, f"not a field line: {line!r}"
        name = matched[1].decode().lower()
        value = matched[2].decode("latin-1")
        if name in ("connection", "link") and name in fields:
            value = fields[name] + ", " + value  # lists, RFC 9110 5.3
        else:
            assert name == "set-cookie" or name not in fields, f"{name} is given twice"
        fields[name] = value
    return fields


def _read_chunked(answer: Answer, data: bytes) -> bytes:
    chunks = answer.chunks = []
    while True:
        line, found, rest = data.partition(b"\r\n")
        if not found:
            answer.complete = False
            break
        assert re.fullmatch(rb"[0-9a-fA-F]+", line), f"not a chunk size: {line!r}"
        size = int(line, 16)
        if size == 0:
            if rest.startswith(b"\r\n"):
                data = rest[2:]
            else:
                section, found, data = rest.partition(b"\r\n\r\n")
                answer.complete = bool(found)
                answer.trailers = _fields(section.split(b"\r\n")) if section else {}
            answer.body = b"".join(chunks)
            return data
        if len(rest) < size + 2:
            answer.complete = False
            chunks.append(rest[:size])
            break
        chunks.append(rest[:size])
        assert rest[size : size + 2] == b"\r\n", "a chunk has no CRLF after it"
        data = rest[size + 2 :]
    answer.body = b"".join(chunks)
    return b""


# Requests


def get(path: str = "/", *fields: str, method: str = "GET", version: str = "1.1") -> bytes:
    """A request without a body."""
    lines = [f"{method} {path} HTTP/{version}", "Host: example.org", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def post(body: bytes, path: str = "/", *fields: str, length: int | None = None, version: str = "1.1") -> bytes:
    """A request with a body of that Content-Length."""
    length = len(body) if length is None else length
    return get(path, f"Content-Length: {length}", *fields, method="POST", version=version) + body


def post_chunked(*chunks: bytes, path: str = "/", fields: Sequence[str] = (), trailers: bytes = b"") -> bytes:
    """A request with a chunked body."""
    head = get(path, "Transfer-Encoding: chunked", *fields, method="POST")
    return head + b"".join(map(chunk, chunks)) + b"0\r\n" + trailers + b"\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


# Applications


async def read_body(receive: Receive) -> bytes | None:
    """The whole body; None when the client went away before its end."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message["body"]
        more = message["more_body"]
    return body


async def reply(send: Send, body: bytes = b"", status: int = 200, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


async def path_app(scope: Any, receive: Receive, send: Send) -> None:
    """Answers with the path, at once and without looking at the body."""
    await reply(send, scope["raw_path"])


async def echo_app(scope: Any, receive: Receive, send: Send) -> None:
    """Answers with the body it read."""
    body = await read_body(receive)
    if body is not None:
        await reply(send, body)


class Noting:
    """Notes the requests it gets: method, path and body (None when it was cut off), and answers with the path."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bytes | None]] = []
        self.scopes: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        body = await read_body(receive)
        self.seen.append((scope["method"], scope["path"], body))
        if body is not None:
            await reply(send, scope["raw_path"])


class Gated:
    """Answers a request with its path once the test opens the gate; notes which requests have begun."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self._gates: dict[str, asyncio.Event] = {}

    def gate(self, path: str) -> asyncio.Event:
        return self._gates.setdefault(path, asyncio.Event())

    def open(self, *paths: str) -> None:
        for path in paths:
            self.gate(path).set()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        path = scope["path"]
        self.begun.append(path)
        try:
            await self.gate(path).wait()
            await reply(send, path.encode())
        finally:
            self.ended.append(path)


class Held:
    """Serves in a server's thread: a request waits there until the test, in its own thread, opens the gate."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        """Released for each request that has begun."""
        self.cancelled = threading.Semaphore(0)
        self._opened = False
        self._lock = threading.Lock()
        """Protects the two fields around it."""
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["path"] == "/now":
            await reply(send, b"/now")
            return
        event = asyncio.Event()
        with self._lock:
            if self._opened:
                event.set()
            self._waiting.append((asyncio.get_running_loop(), event))
        self.begun.release()
        try:
            await event.wait()
        except asyncio.CancelledError:
            self.cancelled.release()
            raise
        await reply(send, scope["raw_path"])

    def wait_until_begun(self) -> None:
        assert self.begun.acquire(timeout=PATIENCE), "no request has begun"

    def open(self) -> None:
        with self._lock:
            self._opened = True
            for loop, event in self._waiting:
                loop.call_soon_threadsafe(event.set)


# Sockets

PATIENCE = 60.0
"""Seconds after which a test gives up on a socket."""


class Client:
    """A blocking client on a socket of a `TestServer`; reads answers one by one, or all there is."""

    def __init__(self, server: Any, context: ssl.SSLContext | None = None, *, receive_buffer: int = 0) -> None:
        url = server.url
        if url.startswith("unix:"):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            address: Any = url.removeprefix("unix:")
        else:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            address = (server.host, server.port)
        sock.settimeout(PATIENCE)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            sock.connect(address)
            self.sock = context.wrap_socket(sock) if context is not None else sock
        except BaseException:
            sock.close()
            raise
        self._data = b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def end(self) -> None:
        """End our half."""
        self.sock.shutdown(socket.SHUT_WR)

    def answer(self, method: str = "GET") -> Answer:
        """The next complete answer; raises `EOFError` when the server ends before that."""
        while True:
            answer = self._complete_answer(method)
            if answer is not None:
                return answer
            data = self.sock.recv(1_000_000)
            if not data:
                raise EOFError(f"the server ended after {self._data[:200]!r}")
            self._data += data

    def _complete_answer(self, method: str) -> Answer | None:
        head_end = self._data.find(b"\r\n\r\n")
        if head_end < 0:
            return None
        answer, rest = _read_answer(self._data, method, False)
        if not answer.complete:
            return None
        self._data = rest
        return answer

    def rest(self) -> bytes:
        """Everything until the server ends its half; raises `ConnectionResetError` when it breaks off."""
        pieces = [self._data]
        self._data = b""
        while data := self.sock.recv(1_000_000):
            pieces.append(data)
        return b"".join(pieces)

    def answers(self, *methods: str) -> list[Answer]:
        """Every answer until the server ends its half."""
        return read_answers(self.rest(), *methods, ended=True)

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        """Disappear with a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.sock.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Site:
    """A server on one kind of socket, and clients for it."""

    def __init__(self, server: TestServer, context: ssl.SSLContext | None) -> None:
        self.server = server
        self._context = context

    def client(self, *, receive_buffer: int = 0) -> Client:
        return Client(self.server, self._context, receive_buffer=receive_buffer)


@pytest.fixture(params=["tcp", "tls", "unix"])
def socket_kind(request: pytest.FixtureRequest) -> str:
    """Each kind of socket a server can listen on."""
    return request.param


@pytest.fixture
def serve(
    socket_kind: str, parser: str, tls_files: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> Iterator[Callable[..., Site]]:
    """A function that serves an application with its settings on that kind of socket until the test is over.

    What asyncio has to report of the server fails the test: nothing should ever reach its loop.
    """
    with ExitStack() as stack:

        def start(app: Any, *plugins: Plugin, **settings: Any) -> Site:
            context = None
            if socket_kind == "tls":
                settings |= {"ssl_certfile": tls_files[0], "ssl_keyfile": tls_files[1]}
                context = ssl.create_default_context(cafile=tls_files[0])
                context.check_hostname = False
            elif socket_kind == "unix":
                # A path in the folder of a test can be too long for a socket.
                settings["uds"] = stack.enter_context(tempfile.TemporaryDirectory()) + "/socket"
            settings = {"http_parser": parser, "lifespan": "off"} | settings
            server = stack.enter_context(TestServer(app, registry=registry_of(parser, *plugins), **settings))
            return Site(server, context)

        yield start
    assert [record.getMessage() for record in caplog.get_records("call") if record.name == "asyncio"] == []


def pieces_of(data: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Every way of cutting `data` that a suite tries."""
    yield "in one piece", [data]
    yield "byte by byte", [data[at : at + 1] for at in range(len(data))]
    for at in range(1, len(data)):
        yield f"split at {at}", [data[:at], data[at:]]
