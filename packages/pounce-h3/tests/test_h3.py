"""HTTP/3 from the outside: what the conformance suite does not ask of every wire."""

import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from benchmarks.load.certificate import certificate_files
from tests.conformance.h3 import H3Client
from tests.conformance.wires import Started, answer, read_body

from pounce import ConfigError, ServerConfig, TLSError
from pounce.net.bind import open_listeners
from pounce.net.tls import ServerTLS
from pounce.net.udp import receiving
from pounce.registry import Registry
from pounce.testing import TestServer
from pounce_h3.qh3_engine import Qh3Engine
from pounce_h3.qh3_tls import Certificate
from pounce_h3.settings import H3Settings

Start = Callable[..., Started]


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, await read_body(receive))


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"hello")


def test_get(start: Start) -> None:
    response = start(hello).request("GET", "/")
    assert (response.status, response.body, response.complete) == (200, b"hello", True)


def test_post(start: Start) -> None:
    assert start(echo).request("POST", "/", body=b"x" * 3_000_000).body == b"x" * 3_000_000


def over_tcp(server: Started) -> httpx.Response:
    context = ssl.create_default_context(cafile=server.certificate.certfile)
    with httpx.Client(verify=context, trust_env=False) as client:
        return client.get(f"https://localhost:{server.server.port}/")


def test_is_announced_over_tcp(start: Start) -> None:
    server = start(hello)
    assert over_tcp(server).headers["alt-svc"] == f'h3=":{server.server.port}"; ma=86400'


def test_max_age_of_the_announcement_is_a_setting(start: Start) -> None:
    assert over_tcp(start(hello, http3_alt_svc_max_age=60)).headers["alt-svc"].endswith("; ma=60")


def test_announcement_can_be_left_out(start: Start) -> None:
    assert "alt-svc" not in over_tcp(start(hello, http3_alt_svc="off")).headers


def test_announcement_is_taken_back_on_request(start: Start) -> None:
    server = start(hello, http3_enabled=False, http3_alt_svc="clear")
    assert over_tcp(server).headers["alt-svc"] == "clear"


def test_nothing_is_announced_when_off(start: Start) -> None:
    assert "alt-svc" not in over_tcp(start(hello, http3_enabled=False)).headers


@pytest.fixture(params=[False, True], ids=["h1", "h2"])
def announced(request: pytest.FixtureRequest, tls_files: tuple[str, str]) -> Iterator[Callable[[str], str | None]]:
    """The announcement at a URL."""
    context = ssl.create_default_context(cafile=tls_files[0])
    with httpx.Client(verify=context, trust_env=False, http1=not request.param, http2=request.param) as client:
        yield lambda url: client.get(url).headers.get("alt-svc")


def test_every_bind_announces_its_own_port_and_none_does_without_tls(
    start: Start, announced: Callable[[str], str | None]
) -> None:
    server = start(hello, bind=["127.0.0.1:0", "http://127.0.0.1:0", "https://127.0.0.1:0"])
    for url in server.server.info.urls:
        scheme, _, port = url.split(":")
        assert announced(url) == (f'h3=":{port}"; ma=86400' if scheme == "https" else None)


def test_announcement_is_taken_back_where_it_was_made(start: Start, announced: Callable[[str], str | None]) -> None:
    server = start(hello, http3_alt_svc="clear", bind=["127.0.0.1:0", "http://127.0.0.1:0"])
    assert [announced(url) for url in server.server.info.urls] == ["clear", None]


def test_is_announced_over_itself(start: Start) -> None:
    server = start(hello)
    assert server.request("GET", "/").headers[b"alt-svc"] == f'h3=":{server.server.port}"; ma=86400'.encode()


def test_application_has_the_last_word_on_the_announcement(start: Start) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, headers=[(b"alt-svc", b'h3=":443"')])

    assert over_tcp(start(app)).headers["alt-svc"] == 'h3=":443"'


def test_bind_of_a_proxy_that_names_its_clients_has_no_datagrams(start: Start) -> None:
    server = start(hello, bind=("127.0.0.1:0?proxy_protocol=on",))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", server.server.port))


def test_renewed_certificate_is_used_for_new_connections(tmp_path: Path) -> None:
    def renew() -> str:
        return certificate_files(tmp_path)[0].read_text()

    old = renew()
    config = ServerConfig(ssl_certfile=str(tmp_path / "certificate.pem"), ssl_keyfile=str(tmp_path / "key.pem"))
    tls = ServerTLS(config, [])
    engine = Qh3Engine(config, tls)
    assert engine.certificates(0.0)[""].pem == old
    new = renew()
    assert old != new
    assert tls.reload() is True
    assert engine.certificates(0.0)[""].pem == new


def test_application_is_told_of_the_certificate_that_its_client_got(start: Start, tmp_path: Path) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, scope["extensions"]["tls"]["server_cert"].encode())

    certificate, key = certificate_files(tmp_path)
    server = start(app, ssl_sni=(f"localhost={certificate}:{key}",))
    with H3Client(server.server.host, server.server.port, str(certificate)) as client:
        assert client.request("GET", "/").body == certificate.read_bytes()


@pytest.mark.parametrize("order", [("key", "certificate"), ("certificate", "key")])
def test_key_and_certificate_may_lie_in_one_file(
    tls_files: tuple[str, str], tmp_path: Path, order: tuple[str, str]
) -> None:
    texts = {"certificate": Path(tls_files[0]).read_text(), "key": Path(tls_files[1]).read_text()}
    both = tmp_path / "both.pem"
    both.write_text("".join("Bag Attributes: none\n" + texts[name] for name in order))
    config = ServerConfig(ssl_certfile=str(both), ssl_keyfile=str(both))
    assert Qh3Engine(config, ServerTLS(config, [])).certificates(0.0)[""].pem == texts["certificate"]


def test_file_without_a_key_is_named_as_the_reason(tls_files: tuple[str, str]) -> None:
    with pytest.raises(TLSError, match="no PRIVATE KEY in the file"):
        Certificate(tls_files[0], tls_files[0], None)


def test_needs_a_certificate() -> None:
    with pytest.raises(ConfigError, match="without ssl_certfile"):
        TestServer(hello, http3_enabled=True)


def test_unknown_engine_is_refused() -> None:
    with pytest.raises(ConfigError, match="http3_engine"):
        ServerConfig(http3_engine="other")  # type: ignore[arg-type]


def test_needs_the_plugin(tls_files: tuple[str, str]) -> None:
    from pounce.h1.plugin import plugin

    server = TestServer(
        hello, registry=Registry.of(plugin), http3_enabled=True, ssl_certfile=tls_files[0], ssl_keyfile=tls_files[1]
    )
    with pytest.raises(ConfigError, match="nothing installed speaks HTTP/3"):
        server.start()


def test_sockets_that_share_an_address_have_one_for_datagrams(tls_files: tuple[str, str]) -> None:
    config = ServerConfig(
        port=0, reuseport=True, http3_enabled=True, ssl_certfile=tls_files[0], ssl_keyfile=tls_files[1]
    )
    listeners = open_listeners(config)
    listeners.append(listeners[0].twin(config.backlog))
    assert receiving(config, listeners) == listeners[:1]
    for listener in listeners:
        listener.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_is_served_on_ports_of_its_own_and_announced_there(
    start: Start, announced: Callable[[str], str | None], workers: int
) -> None:
    settings = {"workers": workers, "worker_mode": "thread"} if workers > 1 else {}
    binds = ["127.0.0.1:0", "https://127.0.0.1:0?wire=h1&wire=h2"]
    server = start(hello, quic_bind=["127.0.0.1:0"], bind=binds, **settings)
    first, second, quic = server.server.info.urls
    port = int(quic.removeprefix("udp+h3://127.0.0.1:"))
    assert announced(first) == f'h3=":{port}"; ma=86400'
    # Where its wires are named, HTTP/3 is none of them.
    assert announced(second) is None
    with H3Client("127.0.0.1", port, server.certificate.certfile) as client:
        response = client.request("GET", "/")
        assert (response.status, response.body) == (200, b"hello")
        assert response.headers[b"alt-svc"] == f'h3=":{port}"; ma=86400'.encode()
    # The UDP port beside that of TCP is anybody's.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", server.server.port))


@pytest.mark.parametrize("text", ["unix:/x", "https://a:1", "443", "udp+h3://a:1"])
def test_port_of_its_own_is_an_address(tls_files: tuple[str, str], text: str) -> None:
    certfile, keyfile = tls_files
    config = ServerConfig(quic_bind=(text,), http3_enabled=True, ssl_certfile=certfile, ssl_keyfile=keyfile)
    with pytest.raises(ConfigError, match="quic_bind must be host:port"):
        open_listeners(config)


def test_ports_of_its_own_are_nothing_without_it() -> None:
    listeners = open_listeners(ServerConfig(port=0, quic_bind=("127.0.0.1:0",)))
    assert len(listeners) == 1
    listeners[0].close()


def test_secret_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a secret of sixteen letters\n")
    assert H3Settings(secret_file=str(tmp_path / "secret")).secret == "a secret of sixteen letters"
    with pytest.raises(ConfigError, match="exclude each other"):
        H3Settings(secret="x" * 16, secret_file="x")
    (tmp_path / "secret").write_text("short")
    with pytest.raises(ConfigError, match="at least 16"):
        H3Settings(secret_file=str(tmp_path / "secret"))


def test_bind_shows_its_own_certificate(start: Start, tmp_path: Path) -> None:
    async def told(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, scope["extensions"]["tls"]["server_cert"].encode())

    cert, key = certificate_files(tmp_path)
    server = start(told, bind=["127.0.0.1:0", f"127.0.0.1:0?ssl_certfile={cert}&ssl_keyfile={key}"])
    first, second = (int(url.rpartition(":")[2]) for url in server.server.info.urls)
    # The client holds what it gets against the file.
    with H3Client("127.0.0.1", first, server.certificate.certfile) as client:
        assert client.request("GET", "/").body == Path(server.certificate.certfile).read_bytes()
    with H3Client("127.0.0.1", second, str(cert)) as client:
        assert client.request("GET", "/").body == cert.read_bytes()
