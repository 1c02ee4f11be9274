"""HAProxy and curl, which speak the PROXY protocol."""

import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pounce.testing import TestServer

PATIENCE = 60.0
haproxy = pytest.mark.skipif(shutil.which("haproxy") is None, reason="HAProxy is not installed")


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise NotImplementedError
    proxy = scope["extensions"].get("pounce.proxy") or {}
    unique_id = (proxy.pop("unique_id", None) or b"").decode()
    shown = {"client": scope["client"], "scheme": scope["scheme"], "proxy": proxy, "unique_id": unique_id}
    await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
    await send({"type": "http.response.body", "body": json.dumps(shown).encode()})


@pytest.fixture
def server() -> Iterator[TestServer]:
    with TestServer(app, proxy_protocol=True) as running:
        yield running


@pytest.fixture
def tls_server(tls_files: tuple[str, str]) -> Iterator[TestServer]:
    certificate, key = tls_files
    with TestServer(app, proxy_protocol=True, ssl_certfile=certificate, ssl_keyfile=key) as running:
        yield running


class HAProxy:
    """HAProxy in TCP mode before one server."""

    def __init__(self, folder: Path, backend: int, options: str, bind: str = "") -> None:
        # HAProxy takes the listening socket over: nobody has to guess when it is there, and under which port.
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        fd = self._listening.fileno()
        path = folder / "haproxy.cfg"
        path.write_text(
            "defaults\n mode tcp\n timeout connect 10s\n timeout client 30s\n timeout server 30s\n"
            f"listen site\n bind fd@{fd} {bind}\n unique-id-format %{{+X}}o%ci-%cp\n"
            f" server pounce 127.0.0.1:{backend} {options}\n"
        )
        self._process = subprocess.Popen(
            ["haproxy", "-db", "-f", str(path)], pass_fds=[fd], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def connect(self) -> socket.socket:
        # From another address than that which the server sees.
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE, ("127.0.0.2", 0))

    def __enter__(self) -> HAProxy:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.wait()
        self._listening.close()


def get(sock: socket.socket) -> Any:
    sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return json.loads(data.partition(b"\r\n\r\n")[2])


@haproxy
@pytest.mark.parametrize("options", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"])
def test_haproxy_names_the_client(server: TestServer, tmp_path: Path, options: str) -> None:
    with HAProxy(tmp_path, server.port, options) as proxy, proxy.connect() as client:
        address = list(client.getsockname())
        shown = get(client)
    assert shown["client"] == address
    assert shown["proxy"]["proxy"][0] == "127.0.0.1"
    assert bool(shown["unique_id"]) is ("unique-id" in options)


@haproxy
def test_haproxy_ends_tls_and_tells_what_it_knows(
    server: TestServer, tmp_path: Path, tls_files: tuple[str, str]
) -> None:
    pem = tmp_path / "both.pem"
    pem.write_text("".join(Path(name).read_text() for name in tls_files))
    options = "send-proxy-v2-ssl-cn proxy-v2-options ssl,cert-cn,ssl-cipher,authority,crc32c"
    context = ssl.create_default_context(cafile=tls_files[0])
    context.set_alpn_protocols(["http/1.1"])
    bind = f"ssl crt {pem} alpn http/1.1"
    with (
        HAProxy(tmp_path, server.port, options, bind) as proxy,
        context.wrap_socket(proxy.connect(), server_hostname="localhost") as client,
    ):
        address = list(client.getsockname())
        shown = get(client)
        cipher = client.cipher()
    assert (shown["client"], shown["scheme"]) == (address, "https")
    assert shown["proxy"]["authority"] == "localhost"
    assert cipher is not None
    assert shown["proxy"]["tls"] == {
        "version": "TLSv1.3", "cipher": cipher[0], "client_cn": None, "client_verified": False,
    }  # fmt: skip


@haproxy
def test_haproxy_passes_tls_through(tls_server: TestServer, tmp_path: Path, tls_files: tuple[str, str]) -> None:
    context = ssl.create_default_context(cafile=tls_files[0])
    with (
        HAProxy(tmp_path, tls_server.port, "send-proxy-v2") as proxy,
        context.wrap_socket(proxy.connect(), server_hostname="localhost") as client,
    ):
        address = list(client.getsockname())
        shown = get(client)
    assert (shown["client"], shown["scheme"]) == (address, "https")


def test_curl_speaks_it_over_tls(tls_server: TestServer, tls_files: tuple[str, str]) -> None:
    command = ["curl", "--silent", "--show-error", "--noproxy", "*", "--cacert", tls_files[0], "--haproxy-protocol"]
    url = f"https://localhost:{tls_server.port}/"
    done = subprocess.run(
        [*command, "--write-out", "\n%{local_port}", "--resolve", f"localhost:{tls_server.port}:127.0.0.1", url],
        capture_output=True, text=True, timeout=PATIENCE, check=True,
    )  # fmt: skip
    body, _, port = done.stdout.rpartition("\n")
    assert json.loads(body)["client"] == ["127.0.0.1", int(port)]
