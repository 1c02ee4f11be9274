"""The wires under test. A new one is a line in `CASES` and, where its protocol is new, a client in client.py."""

import asyncio
import os
import shutil
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Self

from tests.conformance.client import PATIENCE, Client, H1Client, H2Client, Response
from tests.conformance.h3 import H3Client

from pounce.registry import Registry
from pounce.testing import TestServer

__all__ = ["CASES", "Case", "Certificate", "Shared", "Started", "Wire", "answer", "read_body"]


class Certificate(NamedTuple):
    """Files of a certificate for localhost and 127.0.0.1 that signs itself."""

    certfile: str
    keyfile: str


@dataclass(frozen=True, kw_only=True)
class Case:
    """A wire, and the transport that it is spoken over."""

    wire: str
    transport: str
    version: str
    """What `scope["http_version"]` says."""
    client: Callable[[socket.socket], Client] = H1Client
    alpn: str
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def tls(self) -> bool:
        return self.transport in ("tls", "quic")

    @property
    def quic(self) -> bool:
        return self.transport == "quic"

    @property
    def unix(self) -> bool:
        return self.transport == "unix"

    @property
    def sends_files(self) -> bool:
        """`http.response.zerocopysend` is offered."""
        return self.wire.startswith("h1") and not self.tls

    @property
    def has_reasons(self) -> bool:
        """Status lines have a phrase."""
        return self.wire.startswith("h1")

    def __str__(self) -> str:
        return f"{self.wire}-{self.transport}"


CASES = [
    Case(wire=wire, transport=transport, version="1.1", alpn="http/1.1", settings={"http_parser": parser})
    for wire, parser in (("h1-h11", "h11"), ("h1-fast", "h1fast"))
    for transport in ("tcp", "tls", "unix")
] + [
    Case(wire="h2", transport=transport, version="2", client=H2Client, alpn="h2")
    for transport in ("tcp", "tls", "unix")
]
CASES.append(Case(wire="h3", transport="quic", version="3", alpn="h3", settings={"http3_enabled": True}))


SHARED_MAX = 60
"""So many servers are kept for the tests that follow: each has a ticker, which costs time as long as it runs."""


class Wire:
    """Starts servers that speak one wire, and ends them after the test."""

    def __init__(self, case: Case, shared: Shared) -> None:
        self.case = case
        self.certificate = shared.certificate
        self.contexts = shared.contexts
        self._shared = shared
        self._stack = ExitStack()

    def start(self, app: Any, *, registry: Registry | None = None, options: str = "", **settings: Any) -> Started:
        """A running server; settings are those of `ServerConfig`, and `options` what its bind has behind a question
        mark."""
        return self._start(self._stack, app, registry, options, settings)

    def share(self, app: Any, **settings: Any) -> Started:
        """A server with these settings that the tests of a file use one after the other, each with its application:
        for tests to which its start and its end do not matter. It has no lifespan."""
        key = (str(self.case), repr(sorted(settings.items())))
        server, apps = self._shared.take(key) or self._start_shared(key, settings)
        started = Borrowed(self, server, apps, app, partial(self._shared.give_up, key))
        self._stack.enter_context(started)
        return started

    def _start_shared(self, key: tuple[str, str], settings: dict[str, Any]) -> tuple[TestServer, OneAfterAnother]:
        apps = OneAfterAnother()
        with ExitStack() as stack:
            started = self._start(stack, apps, None, "", settings)
            self._shared.keep(key, started.server, apps, stack.pop_all())
        return started.server, apps

    def _start(
        self, stack: ExitStack, app: Any, registry: Registry | None, options: str, settings: dict[str, Any]
    ) -> Started:
        given = {"max_request_size": 0, **self.case.settings, **settings}
        if self.case.tls:
            given |= {"ssl_certfile": self.certificate.certfile, "ssl_keyfile": self.certificate.keyfile}
        if self.case.unix:
            # Not tmp_path: the address of a Unix socket has room for about a hundred bytes.
            folder = tempfile.mkdtemp(prefix="pounce-")
            stack.callback(shutil.rmtree, folder)
            given["uds"] = os.path.join(folder, "s")
        if options:
            path = given.pop("uds", None)
            given["bind"] = [f"{f'unix:{path}' if path else '127.0.0.1:0'}?{options}"]
        return stack.enter_context(Started(self, TestServer(app, registry=registry, **given)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()


class Started:
    """A running server and the connections to it."""

    def __init__(self, wire: Wire, server: TestServer) -> None:
        self.case = wire.case
        self.certificate = wire.certificate
        self._contexts = wire.contexts
        self.server = server
        self._clients = ExitStack()

    def connect(self, first: bytes = b"", *, host: str | None = None) -> Client:
        """A new connection; `first` is sent before all else, TLS included. `host` is one of several that lead to the
        server."""
        case = self.case
        if case.quic:
            return self._clients.enter_context(
                H3Client(host or self.server.host, self.server.port, self.certificate.certfile)
            )
        if case.unix:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(PATIENCE)
            try:
                sock.connect(self.server.url.removeprefix("unix:"))
            except OSError:
                sock.close()
                raise
        else:
            sock = socket.create_connection((host or self.server.host, self.server.port), PATIENCE)
        if first:
            sock.sendall(first)
        if case.tls:
            context = self._contexts.get(case.alpn)
            if context is None:
                context = ssl.create_default_context(cafile=self.certificate.certfile)
                context.set_alpn_protocols([case.alpn])
                self._contexts[case.alpn] = context
            sock = context.wrap_socket(sock, server_hostname="localhost")
            assert sock.selected_alpn_protocol() == case.alpn
        return self._clients.enter_context(case.client(sock))

    def request(self, method: str, path: str, headers: Any = (), body: bytes = b"") -> Response:
        """One request on a connection of its own."""
        with self.connect() as client:
            return client.request(method, path, headers, body)

    def hang_up(self) -> None:
        """Close every connection."""
        self._clients.close()

    def stop(self) -> None:
        """Close every connection and end the server, which has no reason to wait then; whatever it had to log is
        logged after that."""
        self.hang_up()
        self.server.stop(timeout=PATIENCE)

    def __enter__(self) -> Self:
        self.server.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


class Shared:
    """The servers that the tests of a file share, by wire and settings; the end of this is theirs."""

    def __init__(self, certificate: Certificate) -> None:
        self.certificate = certificate
        self.contexts: dict[str, ssl.SSLContext] = {}
        """Those of clients, by what they speak."""
        self.strays: list[str] = []
        """Errors that reached a loop during the test."""
        self._servers: dict[tuple[str, str], tuple[TestServer, OneAfterAnother, ExitStack]] = {}
        """The one that was used last is the last."""

    def take(self, key: tuple[str, str]) -> tuple[TestServer, OneAfterAnother] | None:
        found = self._servers.pop(key, None)
        if found is None:
            return None
        self._servers[key] = found
        return found[:2]

    def keep(self, key: tuple[str, str], server: TestServer, apps: OneAfterAnother, stack: ExitStack) -> None:
        """`stack` ends the server."""
        self._servers[key] = server, apps, stack
        if len(self._servers) > SHARED_MAX:
            first = next(iter(self._servers))
            self._servers.pop(first)[2].close()

    def give_up(self, key: tuple[str, str]) -> None:
        """Have the tests that follow use another one in place of a server in which something is left."""
        found = self._servers.pop(key, None)
        if found is not None:
            found[0].shutdown(force=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with ExitStack() as ends:
            for _, _, stack in self._servers.values():
                ends.push(stack)


class OneAfterAnother:
    """The application of a shared server: that of the test that runs."""

    def __init__(self) -> None:
        self.app: Any = None
        self.seen: tuple[asyncio.AbstractEventLoop, Any] | None = None
        """The loop of the server, and its Service, once there was a request."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        if self.seen is None:
            # One of them may be wrapped.
            bound = receive if hasattr(receive, "__self__") else send
            while not hasattr(bound.__self__, "service"):
                # Compression is in between.
                bound = bound.__self__._send
            self.seen = asyncio.get_running_loop(), bound.__self__.service
        await self.app(scope, receive, send)


class Borrowed(Started):
    """A shared server while one test has it. It is given back when nothing of that test is left in it."""

    def __init__(
        self, wire: Wire, server: TestServer, apps: OneAfterAnother, app: Any, give_up: Callable[[], None]
    ) -> None:
        super().__init__(wire, server)
        self._apps = apps
        self._give_up = give_up
        apps.app = app

    def __enter__(self) -> Self:
        return self

    def stop(self) -> None:
        """Close every connection, and wait until nothing is left of them; whatever the server had to log is logged
        after that."""
        self.hang_up()
        if self._apps.seen is not None:
            loop, service = self._apps.seen
            left = threading.Lock()
            left.acquire()
            loop.call_soon_threadsafe(self._look, loop, service, left)
            if not left.acquire(timeout=PATIENCE):
                self._give_up()
                raise TimeoutError("something of the test is left in the server")

    def _look(self, loop: asyncio.AbstractEventLoop, service: Any, left: threading.Lock) -> None:
        """Release `left` once no request runs, and no connection is open: a client of QUIC says that it goes, and is
        not waited for."""
        if service.tasks or (service.connections and not self.case.quic):
            loop.call_soon(self._look, loop, service, left)
        else:
            left.release()


# For applications


async def answer(send: Any, body: bytes = b"", status: int = 200, headers: Any = ()) -> None:
    """Send a complete answer."""
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


async def read_body(receive: Any) -> bytes:
    """The whole request body. Raises `ConnectionError` when the client goes before its end."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("http.disconnect")
        body += message["body"]
        more = message["more_body"]
    return body
