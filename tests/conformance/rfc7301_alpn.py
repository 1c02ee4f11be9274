"""RFC 7301: what a bind offers in TLS is what it speaks, and what was selected is what is spoken."""

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from tests.conformance.client import PATIENCE, Client, H1Client, H2Client
from tests.conformance.h3 import H3Client
from tests.conformance.wires import Certificate

from pounce import ConfigError
from pounce.config import ServerConfig
from pounce.plugin import API_VERSION, Connection, Plugin, Wire
from pounce.registry import Registry
from pounce.testing import TestServer

BOTH = ["h2", "http/1.1"]


async def app(scope: Any, receive: Any, send: Any) -> None:
    body = scope["http_version"].encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


class Greeting(Connection):
    """A wire without an ALPN id, whose server speaks first."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.send(b"hello")
        self.close()


GREETING = Plugin(
    name="greet", api=API_VERSION, wires=(Wire(name="greet", connect=lambda service: Greeting(service, "greet")),)
)


class Server:
    def __init__(self, server: TestServer, certificate: Certificate) -> None:
        self.server = server
        self.certificate = certificate

    def connect(self, offered: list[str], number: int = 0, version: ssl.TLSVersion | None = None) -> ssl.SSLSocket:
        """A connection over TLS to one of the binds."""
        port = int(self.server.info.urls[number].rpartition(":")[2])
        context = ssl.create_default_context(cafile=self.certificate.certfile)
        if version is not None:
            context.maximum_version = version
        if offered:
            context.set_alpn_protocols(offered)
        sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
        try:
            return context.wrap_socket(sock, server_hostname="localhost")
        except BaseException:
            sock.close()
            raise

    def version(self, offered: list[str], number: int = 0) -> tuple[str | None, str]:
        """What is negotiated with a client that offers this, and the version of HTTP that is then spoken."""
        sock = self.connect(offered, number)
        selected = sock.selected_alpn_protocol()
        client: Client = H2Client(sock) if selected == "h2" else H1Client(sock)
        with client:
            return selected, client.request("GET", "/").body.decode()

    def refuses(self, offered: list[str], number: int = 0) -> bool:
        """Whether a client that offers this is told nothing at all."""
        try:
            with self.connect(offered, number) as sock:
                assert sock.selected_alpn_protocol() is None
                sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                return sock.recv(100) == b""
        except ConnectionError, ssl.SSLError:
            return True


@pytest.fixture(params=["asyncio", "uvloop"])
def start(request: pytest.FixtureRequest, tls_files: tuple[str, str]) -> Iterator[Callable[..., Server]]:
    """A function that starts a server with TLS on these binds."""
    with ExitStack() as stack:

        def started(*binds: str, **settings: Any) -> Server:
            settings = {"ssl_certfile": tls_files[0], "ssl_keyfile": tls_files[1], "lifespan": "off"} | settings
            registry = Registry([*Registry.discover(ServerConfig()).loaded, *Registry.of(GREETING).loaded])
            server = TestServer(app, registry=registry, loop=request.param, bind=binds, **settings)
            return Server(stack.enter_context(server), Certificate(*tls_files))

        yield started


@pytest.mark.parametrize("offered", [BOTH, BOTH[::-1], ["http/1.1"], ["x", "http/1.1", "h2"]])
def test_bind_of_http_1_offers_that_alone(start: Callable[..., Server], offered: list[str]) -> None:
    assert start("https://127.0.0.1:0?wire=h1").version(offered) == ("http/1.1", "1.1")


@pytest.mark.parametrize("offered", [BOTH, ["h2"], ["http/1.1", "h2"]])
def test_bind_of_http_2_offers_that_alone(start: Callable[..., Server], offered: list[str]) -> None:
    assert start("https://127.0.0.1:0?wire=h2").version(offered) == ("h2", "2")


@pytest.mark.parametrize("offered", [[], ["http/1.1"], ["x"]], ids=["nothing", "another", "unknown"])
def test_bind_of_http_2_refuses_who_does_not_negotiate_it(start: Callable[..., Server], offered: list[str]) -> None:
    """RFC 9113 3.2: HTTP/2 over TLS is negotiated; the alert of RFC 7301 3.2 is beyond Python's ssl."""
    assert start("https://127.0.0.1:0?wire=h2").refuses(offered)


@pytest.mark.parametrize("offered", [[], ["x"], ["h2"]], ids=["nothing", "unknown", "another"])
def test_bind_of_http_1_serves_who_negotiates_nothing(start: Callable[..., Server], offered: list[str]) -> None:
    assert start("https://127.0.0.1:0?wire=h1").version(offered) == (None, "1.1")


@pytest.mark.parametrize(
    ("offered", "expected"),
    [(BOTH, ("h2", "2")), (["http/1.1"], ("http/1.1", "1.1")), ([], (None, "1.1"))],
    ids=["both", "one", "none"],
)
@pytest.mark.parametrize("bind", ["https://127.0.0.1:0", "https://127.0.0.1:0?wire=h1&wire=h2"])
def test_bind_of_several_offers_them_all(
    start: Callable[..., Server], bind: str, offered: list[str], expected: tuple[str | None, str]
) -> None:
    assert start(bind).version(offered) == expected


@pytest.mark.parametrize("offered", [BOTH, []])
def test_bind_of_a_wire_without_an_id_offers_none(start: Callable[..., Server], offered: list[str]) -> None:
    with start("127.0.0.1:0?wire=greet&tls=on").connect(offered) as sock:
        assert (sock.selected_alpn_protocol(), sock.recv(100)) == (None, b"hello")


def test_each_bind_of_a_server_offers_its_own(start: Callable[..., Server], tls_files: tuple[str, str]) -> None:
    binds = ("https://127.0.0.1:0?wire=h1", "https://127.0.0.1:0?wire=h2", "https://127.0.0.1:0")
    server = start(*binds, ssl_sni=(f"localhost={tls_files[0]}:{tls_files[1]}",))
    for _ in range(2):
        assert [server.version(BOTH, number) for number in range(3)] == [("http/1.1", "1.1"), ("h2", "2"), ("h2", "2")]
        # Also when the certificates are read again.
        server.server._server.reload_certificates()


def test_clear_text_is_chosen_among_the_wires_of_the_bind(start: Callable[..., Server]) -> None:
    server = start("http://127.0.0.1:0?wire=h2", "http://127.0.0.1:0?wire=h1", "http://127.0.0.1:0?wire=h1&wire=h2")

    def version(number: int, client: Callable[[socket.socket], Client]) -> str:
        port = int(server.server.info.urls[number].rpartition(":")[2])
        with client(socket.create_connection(("127.0.0.1", port), PATIENCE)) as found:
            return found.request("GET", "/").body.decode()

    assert version(0, H2Client) == "2"
    assert version(1, H1Client) == "1.1"
    assert [version(2, client) for client in (H1Client, H2Client)] == ["1.1", "2"]


def test_http_3_is_spoken_beside_binds_that_name_it_or_nothing(start: Callable[..., Server]) -> None:
    server = start("https://127.0.0.1:0?wire=h1&wire=h3", "https://127.0.0.1:0?wire=h1", http3_enabled=True)
    ports = [int(url.rpartition(":")[2]) for url in server.server.info.urls]
    with H3Client("127.0.0.1", ports[0], server.certificate.certfile) as client:
        assert client.request("GET", "/").body == b"3"
    assert server.version(BOTH) == ("http/1.1", "1.1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        # Nobody has the port.
        udp.bind(("127.0.0.1", ports[1]))
    for number, announced in ((0, True), (1, False)):
        with H1Client(server.connect(["http/1.1"], number)) as client:
            assert (b"alt-svc" in client.request("GET", "/").headers) is announced


@pytest.mark.parametrize(
    ("bind", "settings", "message"),
    [
        ("https://127.0.0.1:0?wire=h7", {}, "names the wire 'h7', which is not installed"),
        ("h7://127.0.0.1:0", {}, "names the wire 'h7', which is not installed"),
        ("https://127.0.0.1:0?wire=h3", {"http3_enabled": True}, "names no wire but h3"),
        ("https://127.0.0.1:0?wire=h1&wire=h3", {}, "HTTP/3 is off"),
        ("http://127.0.0.1:0?wire=h1&wire=h3", {"http3_enabled": True}, "which it cannot speak"),
        ("unix:/tmp/s?wire=h1&wire=h3", {"http3_enabled": True}, "which it cannot speak"),
        ("127.0.0.1:0?wire=h1&wire=h3&proxy_protocol=on", {"http3_enabled": True}, "which it cannot speak"),
    ],
)
@pytest.mark.parametrize("start", ["asyncio"], indirect=True)
def test_bind_that_names_what_cannot_be_spoken_is_an_error(
    start: Callable[..., Server], bind: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        start(bind, **settings)
