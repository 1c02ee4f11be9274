"""Wires of plugins: how one is chosen for a connection, and what happens when it fails."""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from pounce import ConfigError
from pounce.exchange.health import plugin as health
from pounce.h1.plugin import plugin as h1
from pounce.plugin import (
    API_VERSION,
    Connection,
    ObserverFactory,
    Plugin,
    Responder,
    Response,
    Service,
    Switch,
    Upgrade,
    Wire,
    coroutine_wire,
    option,
)  # fmt: skip
from pounce.registry import Registry
from pounce.testing import TestServer

PATIENCE = 60.0


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise NotImplementedError
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"http"})


class Says(asyncio.Protocol):
    """Greets whoever connects, repeats what it is told, and closes at a full stop."""

    def __init__(self, greeting: bytes) -> None:
        self.greeting = greeting

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self.greeting)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)
        if data.endswith(b"."):
            self.transport.close()


def says(name: str, **more: Any) -> Wire:
    return Wire(name=name, connect=lambda service: Says(name.encode() + b":"), **more)


def registry(*wires: Wire, **more: Any) -> Registry:
    return Registry.of(h1, health, Plugin(name="gopher", api=API_VERSION, wires=wires, **more))


class Started:
    """A server with plugins, and the sockets of the test to it."""

    def __init__(self, server: TestServer) -> None:
        self.server = server
        self._sockets: list[socket.socket] = []

    def connect(self, url: str | None = None) -> socket.socket:
        url = url or self.server.url
        host, _, port = url.partition("://")[2].rpartition(":")
        sock = socket.create_connection((host, int(port)), PATIENCE)
        self._sockets.append(sock)
        return sock

    def exchange(self, *pieces: bytes, url: str | None = None, end: bool = True) -> bytes:
        """Everything that comes back for `pieces`, each of which arrives on its own."""
        sock = self.connect(url)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            sock.sendall(piece)
        if end:
            end_half(sock)
        return read_all(sock)

    def serves_http(self) -> bool:
        return self.exchange(b"GET / HTTP/1.0\r\n\r\n", end=False).endswith(b"http")

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()


def end_half(sock: socket.socket) -> None:
    """Say that nothing more comes, unless the server was faster and has broken off."""
    with contextlib.suppress(OSError):
        sock.unwrap() if isinstance(sock, ssl.SSLSocket) else sock.shutdown(socket.SHUT_WR)


def read_all(sock: socket.socket) -> bytes:
    data = b""
    try:
        while piece := sock.recv(65536):
            data += piece
    except ConnectionError:
        pass
    return data


@pytest.fixture
def start() -> Iterator[Callable[..., Started]]:
    running: list[Started] = []

    def begin(registry: Registry, **settings: Any) -> Started:
        server = TestServer(app, registry=registry, **settings)
        server.start()
        running.append(Started(server))
        return running[-1]

    yield begin
    for started in running:
        started.close()
        started.server.stop()


# Choosing a wire


def test_bind_names_the_wire(start: Any) -> None:
    server = start(registry(says("gopher")), bind=("gopher://127.0.0.1:0", "127.0.0.1:0"))
    gopher, http = server.server.info.urls
    assert gopher.startswith("gopher://")
    assert server.exchange(b"hello.", url=gopher) == b"gopher:hello."
    assert server.exchange(b"GET / HTTP/1.0\r\n\r\n", url=http).endswith(b"http")


@dataclass(frozen=True)
class GreetingSettings:
    greeting: str = option("hello", "What connections begin with.")
    times: int = option(1, "How often.", ge=1)
    limit: int = option(10, "Bytes.", unit="bytes")


class Greets(Connection):
    def __init__(self, service: Service) -> None:
        super().__init__(service, "gopher")

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        settings = self.settings
        self.send((f"{settings.greeting} " * settings.times + str(settings.limit)).encode())
        self.close()


def test_a_bind_has_settings_of_its_own_for_its_wire(start: Any) -> None:
    plugins = registry(Wire(name="gopher", connect=Greets), settings=GreetingSettings)
    binds = ("gopher://127.0.0.1:0", "gopher://127.0.0.1:0?times=2&limit=16KiB", "127.0.0.1:0?wire=gopher&greeting=hi")
    server = start(plugins, bind=binds, plugin_settings={"gopher": {"limit": 3}})
    answers = [server.exchange(url=url, end=False) for url in server.server.info.urls]
    assert answers == [b"hello 3", b"hello hello 16384", b"hi 3"]


class ShowsConfig(Connection):
    def __init__(self, service: Service) -> None:
        super().__init__(service, "gopher")

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        config, settings = self.service.config, self.service.settings["gopher"]
        self.send(f"{config.max_request_size} {config.header_timeout:g} {settings.limit}".encode())
        self.close()


def test_a_bind_has_settings_of_the_server_of_its_own(start: Any) -> None:
    plugins = registry(Wire(name="gopher", connect=ShowsConfig), settings=GreetingSettings)
    binds = ("gopher://127.0.0.1:0", "gopher://127.0.0.1:0?max_request_size=16MiB&header_timeout=2m&limit=7")
    server = start(plugins, bind=binds, header_timeout=3.0, max_request_size=5)
    answers = [server.exchange(url=url, end=False) for url in server.server.info.urls]
    assert answers == [b"5 3 10", b"16777216 120 7"]


@dataclass(frozen=True)
class NamedAlike:
    max_headers: int = option(1, "What the server has as well.")


class ShowsBoth(Connection):
    def __init__(self, service: Service) -> None:
        super().__init__(service, "gopher")

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.send(f"{self.service.config.max_headers} {self.settings.max_headers}".encode())
        self.close()


def test_a_name_that_server_and_plugin_have_is_the_plugins(start: Any) -> None:
    plugins = registry(Wire(name="gopher", connect=ShowsBoth), settings=NamedAlike)
    server = start(plugins, bind=("gopher://127.0.0.1:0?max_headers=7",))
    assert server.exchange(url=server.server.info.urls[0], end=False) == b"100 7"


@pytest.mark.parametrize(
    ("bind", "said"),
    [
        ("gopher://127.0.0.1:0?tims=2", "'tims' is not an option of this bind"),
        ("gopher://127.0.0.1:0?times=0", "times"),
        ("gopher://127.0.0.1:0?times=x", "times"),
        ("127.0.0.1:0?times=2", "not an option of this bind"),
        ("127.0.0.1:0?wire=gopher&wire=h1&times=2", "not an option of this bind"),
        ("gopher://127.0.0.1:0?times=2&times=3", "given twice"),
        ("127.0.0.1:0?max_header_size=1", "bind 127.0.0.1:0: max_header_size must be an integer"),
        ("127.0.0.1:0?workers=2", "workers is a setting of the whole server"),
        ("gopher://127.0.0.1:0?workers=2", "workers is a setting of the whole server"),
        ("127.0.0.1:0?keep_alive_timeout=1&timeout_keep_alive=2", "keep_alive_timeout is given twice"),
    ],
)
def test_a_setting_of_a_bind_that_is_wrong_keeps_the_server_from_starting(start: Any, bind: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        start(registry(Wire(name="gopher", connect=Greets), settings=GreetingSettings), bind=(bind,))


def test_bind_that_names_an_unknown_wire_does_not_start(start: Any) -> None:
    with pytest.raises(ConfigError, match="'finger'"):
        start(registry(says("gopher")), bind=("finger://127.0.0.1:0",))


def test_first_bytes_choose_the_wire(start: Any) -> None:
    server = start(registry(says("gopher", preface=b"GOPHER ")))
    assert server.exchange(b"GOPHER hello.") == b"gopher:GOPHER hello."
    assert server.serves_http()


@pytest.mark.parametrize("first", [b"G", b"GO", b"GOPHE", b"GET"])
def test_first_bytes_may_arrive_one_by_one(start: Any, first: bytes) -> None:
    """A prefix that two wires share decides nothing yet."""
    server = start(registry(says("gopher", preface=b"GOPHER ")))
    sock = server.connect()
    data = b"GET / HTTP/1.0\r\n\r\n" if b"GET".startswith(first) and first != b"G" else b"GOPHER hello."
    for at in range(len(data)):
        sock.sendall(data[at : at + 1])
    assert read_all(sock).endswith(b"http" if data.startswith(b"GET") else b"hello.")


def test_preface_split_at_every_position_in_memory() -> None:
    from pounce.net.sniff import WireTable

    gopher, other = says("gopher", preface=b"GOPHER "), says("golf", preface=b"GOLF\n")
    table = WireTable(h1.wires[0], {}, {b"GOPHER ": gopher, b"GOLF\n": other})
    for preface, wire in ((b"GOPHER ", gopher), (b"GOLF\n", other)):
        for at in range(1, len(preface)):
            assert table.of_preface(preface[:at]) is None
        assert table.of_preface(preface) is wire
        assert table.of_preface(preface + b"more") is wire
    for first in (b"H", b"GOX", b"GOPHERS", b"GET / "):
        assert table.of_preface(first) is h1.wires[0]


def test_client_that_ends_within_a_preface_is_closed(start: Any) -> None:
    server = start(registry(says("gopher", preface=b"GOPHER ")))
    assert server.exchange(b"GOPH") == b""


def test_client_that_never_sends_its_first_byte_is_closed(start: Any) -> None:
    server = start(registry(says("gopher", preface=b"GOPHER ")), header_timeout=0.05)
    assert read_all(server.connect()) == b""


def test_client_that_has_sent_nothing_does_not_hold_up_the_end(start: Any) -> None:
    server = start(registry(says("gopher", preface=b"GOPHER ")), header_timeout=60)
    server.connect()
    assert server.serves_http()
    server.server.stop(timeout=PATIENCE)


@pytest.mark.parametrize(
    ("offered", "answer"),
    [
        (["gopher"], b"gopher:x."),
        (["x", "gopher", "http/1.1"], b"gopher:x."),
        (["http/1.1"], b"HTTP/1.1 400"),
        ([], b"HTTP/1.1 400"),
    ],
    ids=str,
)
def test_alpn_chooses_the_wire(start: Any, tls_files: Any, offered: list[str], answer: bytes) -> None:
    server = start(registry(says("gopher", alpn=("gopher",))), ssl_certfile=tls_files[0], ssl_keyfile=tls_files[1])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if offered:
        context.set_alpn_protocols(offered)
    with context.wrap_socket(server.connect()) as sock:
        sock.sendall(b"x." if answer.startswith(b"gopher") else b"x\r\n\r\n")
        data = b""
        while len(data) < len(answer):
            data += sock.recv(len(answer) - len(data))
        assert data == answer


# Coroutines as wires


async def repeat(service: Service, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"ready:" + await reader.readline())
    await writer.drain()


def test_coroutine_is_a_wire(start: Any) -> None:
    wire = Wire(name="lines", connect=coroutine_wire(repeat))
    server = start(registry(wire), bind=("lines://127.0.0.1:0",))
    assert server.exchange(b"hel", b"lo\nrest", end=False) == b"ready:hello\n"


def test_connections_of_a_coroutine_wire_are_forgotten_when_they_end(start: Any) -> None:
    wire = Wire(name="lines", connect=coroutine_wire(repeat))
    server = start(registry(wire), bind=("lines://127.0.0.1:0",), shutdown_timeout=60)
    for _ in range(3):
        server.exchange(b"hello\n", end=False)
    server.server.stop(timeout=PATIENCE)


# Wires that fail


class Bad(asyncio.Protocol):
    """Fails in the method it is told to."""

    def __init__(self, method: str, error: Exception) -> None:
        self.method, self.error = method, error

    def _maybe_fail(self, method: str) -> None:
        if method == self.method:
            raise self.error

    def connection_made(self, transport: Any) -> None:
        self._maybe_fail("connection_made")

    def data_received(self, data: bytes) -> None:
        self._maybe_fail("data_received")

    def eof_received(self) -> None:
        self._maybe_fail("eof_received")

    def connection_lost(self, exc: Exception | None) -> None:
        self._maybe_fail("connection_lost")


class BadConnection(Connection):
    """The same, for the base class that wires are made from."""

    __slots__ = ("error", "method")

    def __init__(self, service: Service, method: str, error: Exception) -> None:
        super().__init__(service)
        self.method, self.error = method, error

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._maybe_fail("connection_made")

    def data_received(self, data: bytes) -> None:
        self._maybe_fail("data_received")
        if self.method == "deadline_passed":
            self.deadline = self.loop.time()

    def eof_received(self) -> None:
        self._maybe_fail("eof_received")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._maybe_fail("connection_lost")

    def deadline_passed(self) -> None:
        self._maybe_fail("deadline_passed")
        super().deadline_passed()

    def drain(self) -> None:
        self._maybe_fail("drain")

    def close(self) -> None:
        self._maybe_fail("close")

    def _maybe_fail(self, method: str) -> None:
        if method == self.method:
            raise self.error


async def fails(service: Service, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    raise RuntimeError("wire is broken")


def connect_fails(service: Service) -> asyncio.Protocol:
    raise RuntimeError("wire is broken")


def bad(method: str, error: type[Exception] = RuntimeError) -> Any:
    return lambda service: Bad(method, error("wire is broken"))


def bad_connection(method: str, error: type[Exception] = RuntimeError) -> Any:
    return lambda service: BadConnection(service, method, error("wire is broken"))


FAILING = {
    "connect": connect_fails,
    "coroutine": coroutine_wire(fails),
    **{
        f"protocol-{method}": bad(method)
        for method in ("connection_made", "data_received", "eof_received", "connection_lost")
    },
    **{
        f"connection-{method}": bad_connection(method)
        for method in ("connection_made", "data_received", "eof_received", "connection_lost", "deadline_passed")
    },
    # asyncio takes these for a problem of the network, and keeps silent about them.
    "protocol-data_received-OSError": bad("data_received", FileNotFoundError),
    "connection-data_received-OSError": bad_connection("data_received", FileNotFoundError),
}


class Watch:
    """An observer that shows the service it belongs to."""

    service: Service

    def create(self, service: Service) -> None:
        self.service = service


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize("connect", FAILING.values(), ids=FAILING)
def test_exception_in_a_wire_closes_its_connection_and_is_counted_and_logged_by_name(
    start: Any, connect: Any, tls: bool, tls_files: Any, caplog: pytest.LogCaptureFixture
) -> None:
    watch = Watch()
    plugins = registry(
        Wire(name="gopher", connect=connect), observers=(ObserverFactory(name="watch", create=watch.create),)
    )
    settings = {"ssl_certfile": tls_files[0], "ssl_keyfile": tls_files[1]} if tls else {}
    server = start(plugins, bind=("gopher://127.0.0.1:0", "127.0.0.1:0"), **settings)
    try:
        sock = server.connect()
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            sock = context.wrap_socket(sock)
        with sock:
            sock.sendall(b"hello")
            if connect is not FAILING["connection-deadline_passed"]:
                sock.unwrap() if isinstance(sock, ssl.SSLSocket) else sock.shutdown(socket.SHUT_WR)
            if not tls or connect is FAILING["connection-deadline_passed"]:
                assert read_all(sock) == b""
    except OSError:
        # The server was faster, whatever the client was about to do.
        pass
    server.close()
    server.server.stop(timeout=PATIENCE)
    records = [record for record in caplog.records if "gopher" in record.getMessage()]
    assert records, f"nothing names the plugin: {caplog.text}"
    assert "wire is broken" in caplog.text
    assert watch.service.counts["plugin_error"] == 1


@pytest.mark.parametrize("connect", FAILING.values(), ids=FAILING)
def test_exception_in_a_wire_leaves_others_alone(start: Any, connect: Any) -> None:
    server = start(registry(Wire(name="gopher", connect=connect, preface=b"GOPHER")))
    for _ in range(3):
        try:
            sock = server.connect()
            sock.sendall(b"GOPHER")
            if connect is not FAILING["connection-deadline_passed"]:
                sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == b""
        except OSError:
            # The server was faster.
            pass
    assert server.serves_http()


def test_peer_that_never_says_that_it_closes_does_not_hold_up_the_end_over_tls(start: Any, tls_files: Any) -> None:
    class Waits(Connection):
        def data_received(self, data: bytes) -> None:
            self.send(data)

    plugins = registry(Wire(name="gopher", connect=lambda service: Waits(service, "gopher")))
    settings = {"ssl_certfile": tls_files[0], "ssl_keyfile": tls_files[1], "shutdown_timeout": 2 * PATIENCE}
    server = start(plugins, bind=("gopher://127.0.0.1:0",), **settings)
    with socket.create_connection((server.server.host, server.server.port), PATIENCE) as plain:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(plain) as sock:
            sock.sendall(b"hello")
            assert sock.recv(65536) == b"hello"
            server.server.stop(timeout=60)


@pytest.mark.parametrize("method", ["drain", "close"])
def test_exception_while_the_server_ends_does_not_keep_it_from_ending(
    start: Any, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    connected = threading.Event()

    def connect(service: Service) -> asyncio.Protocol:
        connected.set()
        made: asyncio.Protocol = bad_connection(method)(service)
        return made

    server = start(registry(Wire(name="gopher", connect=connect, preface=b"GOPHER")), shutdown_timeout=0.1)
    sock = server.connect()
    sock.sendall(b"GOPHER")
    # A connection that has said nothing yet when the server ends is closed before it is any wire's.
    assert connected.wait(PATIENCE)
    server.server.stop(timeout=PATIENCE)
    assert read_all(sock) == b""
    assert "Plugin gopher failed" in caplog.text


# Upgrades, responders, observers


def test_upgrade_takes_its_request_and_no_other(start: Any) -> None:
    from pounce.exchange.http import HttpExchange

    def open_upgrade(service: Service, head: Any, stream: Any) -> Any:
        exchange = HttpExchange(service, head, stream)
        exchange.respond(Response(418, [], head.upgrade))
        return exchange

    server = start(registry(upgrades=(Upgrade(token=b"gopher", open=open_upgrade),)))
    request = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade, close\r\nUpgrade: %b\r\n\r\n"
    assert server.exchange(request % b"Gopher", end=False).startswith(b"HTTP/1.1 418 ")
    assert server.exchange(request % b"finger", end=False).endswith(b"http")
    assert server.serves_http()


def asks_for(token: bytes, connection: bytes = b"upgrade") -> bytes:
    return b"GET / HTTP/1.1\r\nHost: h\r\nConnection: %b\r\nUpgrade: %b\r\n\r\n" % (connection, token)


def test_switch_gives_the_connection_to_another_wire(start: Any) -> None:
    heads: list[Any] = []

    def connect(service: Service, head: Any) -> asyncio.Protocol:
        heads.append(head)
        return Says(b"gopher:")

    server = start(registry(switches=(Switch(token=b"gopher", connect=connect),)))
    answer = server.exchange(asks_for(b"gopher") + b"behind,", b"more.", end=False)
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [b"HTTP/1.1 101 Switching Protocols", b"upgrade: gopher", b"connection: Upgrade"]
    assert rest == b"gopher:behind,more."
    assert [head.target for head in heads] == [b"/"]
    assert server.serves_http()


def test_switch_that_does_not_want_a_request_leaves_it_to_the_application(start: Any) -> None:
    server = start(registry(switches=(Switch(token=b"gopher", connect=lambda service, head: None),)))
    assert server.exchange(asks_for(b"gopher"), asks_for(b"other", b"upgrade, close"), end=False).count(b"http") == 2


def test_switch_is_asked_for_nothing_that_is_the_last_request_or_has_a_body(start: Any) -> None:
    def connect(service: Service, head: Any) -> asyncio.Protocol:
        raise AssertionError("asked")

    server = start(registry(switches=(Switch(token=b"gopher", connect=connect),)))
    assert server.exchange(asks_for(b"gopher", b"upgrade, close"), end=False).endswith(b"http")
    with_body = asks_for(b"gopher")[:-2] + b"Content-Length: 2\r\n\r\nxy"
    assert server.exchange(with_body, asks_for(b"other", b"close"), end=False).count(b"http") == 2


def test_switch_that_fails_costs_its_connection_and_no_other(start: Any) -> None:
    def connect(service: Service, head: Any) -> asyncio.Protocol:
        raise RuntimeError("no gophers")

    server = start(registry(switches=(Switch(token=b"gopher", connect=connect),)))
    assert server.exchange(asks_for(b"gopher"), end=False) == b""
    assert server.serves_http()


def test_websocket_without_its_plugin_is_refused_with_one_line_in_the_log(
    start: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server = start(registry())
    handshake = (
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    for _ in range(3):
        assert server.exchange(handshake, end=False).startswith(b"HTTP/1.1 400 ")
    server.server.stop()
    assert caplog.text.count("pip install pounce-ws") == 1


def test_responder_answers_before_the_application(start: Any) -> None:
    def create(service: Service) -> Any:
        return lambda head: Response(299, [], b"responder") if head.target == b"/own" else None

    server = start(registry(responders=(Responder(name="own", create=create),)))
    assert server.exchange(b"GET /own HTTP/1.0\r\n\r\n", end=False).endswith(b"responder")
    assert server.serves_http()


def test_plugin_that_is_not_wanted_by_the_configuration_costs_nothing(start: Any) -> None:
    plugins = registry(
        responders=(Responder(name="none", create=lambda service: None),),
        observers=(ObserverFactory(name="none", create=lambda service: None),),
    )
    assert start(plugins).serves_http()


def test_observer_that_fails_is_named(start: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Clumsy:
        def completed(self, exchange: Any) -> None:
            raise RuntimeError("dropped it")

    server = start(registry(observers=(ObserverFactory(name="clumsy", create=lambda service: Clumsy()),)))
    assert server.serves_http()
    assert server.serves_http()
    server.server.stop()
    assert "Clumsy" in caplog.text
    assert "dropped it" in caplog.text
