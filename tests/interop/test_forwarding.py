"""nginx, HAProxy and Caddy in front, alone and behind one another: who the client is, and by which scheme it came."""

import json
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from tests.interop.proxies import running, running_caddy, running_nginx
from websockets.sync.client import connect

from pounce.testing import TestServer

PATIENCE = 60.0
CLIENT, HAPROXY, NGINX, CADDY = "127.0.0.9", "127.0.0.7", "127.0.0.8", "127.0.0.1"
"""Where the connections of each come from: all of 127.0.0.0/8 is this machine. Caddy cannot choose."""
CADDY_AT = "127.0.0.6"
has_caddy = pytest.mark.skipif(shutil.which("caddy") is None, reason="Caddy is not installed")
pytestmark = [
    pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed"),
    pytest.mark.skipif(shutil.which("haproxy") is None, reason="HAProxy is not installed"),
]


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise NotImplementedError
    host = next(value.decode() for name, value in scope["headers"] if name == b"host")
    shown = json.dumps({"client": scope["client"], "scheme": scope["scheme"], "host": host})
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": shown})
        await send({"type": "websocket.close"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": shown.encode()})


def for_haproxy(backend: str) -> str:
    """`unix:/path:` is what nginx calls it."""
    return backend[5:-1] if backend.startswith("unix:") else f"{backend} source {HAPROXY}"


@contextmanager
def haproxy(folder: Path, backend: str) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        path = folder / "haproxy.cfg"
        path.write_text(
            "defaults\n mode http\n timeout connect 10s\n timeout client 30s\n timeout server 30s\n option forwardfor\n"
            f"listen site\n bind fd@{listening.fileno()}\n http-request set-header X-Forwarded-Proto https\n"
            f" http-request set-header X-Forwarded-Host %[req.hdr(host)]\n"
            f" server next {for_haproxy(backend)}\n"
        )
        with running(["haproxy", "-db", "-f", str(path)], listening) as port:
            yield port


@contextmanager
def nginx(folder: Path, backend: str, proto: str = "https") -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        bind = "" if backend.startswith("unix:") else f"proxy_bind {NGINX};"
        site = f"""
            server {{
                listen 127.0.0.1:{port};
                location / {{
                    proxy_pass http://{backend}; {bind}
                    proxy_http_version 1.1;
                    proxy_set_header Host backend.internal;
                    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                    proxy_set_header X-Forwarded-Proto {proto};
                    proxy_set_header X-Forwarded-Host $http_host;
                    proxy_set_header Upgrade $http_upgrade;
                    proxy_set_header Connection $http_connection;
                }}
            }}
        """
        with running_nginx(folder, listening, site):
            yield port


@contextmanager
def caddy(folder: Path, backend: str, versions: str = "1.1") -> Iterator[int]:
    with socket.create_server((CADDY_AT, 0)) as found:
        port = found.getsockname()[1]
    to = backend.rstrip(":").replace("unix:", "unix/") if backend.startswith("unix:") else backend
    site = f"""
        http://:{port} {{
            bind {CADDY_AT}
            reverse_proxy {to} {{
                header_up X-Forwarded-Proto https
                header_up Host backend.internal
                transport http {{
                    versions {versions}
                }}
            }}
        }}
    """
    with running_caddy(folder, (CADDY_AT, port), site):
        yield port


def ask(port: int, host: str = "127.0.0.1") -> Any:
    """What is shown to a client that lies about itself."""
    connection = HTTPConnection(host, port, PATIENCE, source_address=(CLIENT, 0))
    forged = {"Host": "site.example", "X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "ftp"}
    connection.request("GET", "/", headers=forged)
    shown = json.loads(connection.getresponse().read())
    connection.close()
    return shown


TOLD = {"client": [CLIENT, 0], "scheme": "https", "host": "site.example"}


@pytest.mark.parametrize("proxy", [haproxy, nginx])
def test_client_and_scheme_are_those_that_the_proxy_names(proxy: Any, tmp_path: Path) -> None:
    with TestServer(app, trusted_hosts=[HAPROXY, NGINX]) as server, proxy(tmp_path, f"127.0.0.1:{server.port}") as port:
        assert ask(port) == TOLD


@pytest.mark.parametrize("proxy", [haproxy, nginx])
def test_proxy_that_is_not_trusted_is_the_client(proxy: Any, tmp_path: Path) -> None:
    with TestServer(app) as server, proxy(tmp_path, f"127.0.0.1:{server.port}") as port:
        shown = ask(port)
    assert (shown["client"][0], shown["scheme"]) == (HAPROXY if proxy is haproxy else NGINX, "http")


def test_client_is_found_behind_two_proxies(tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(TestServer(app, trusted_hosts=[HAPROXY, NGINX]))
        inner = stack.enter_context(nginx(tmp_path, f"127.0.0.1:{server.port}"))
        outer = stack.enter_context(haproxy(tmp_path, f"127.0.0.1:{inner}"))
        shown = ask(outer)
    assert shown == TOLD


def test_first_proxy_is_the_client_where_only_the_second_is_trusted(tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(TestServer(app, trusted_hosts=[NGINX]))
        inner = stack.enter_context(nginx(tmp_path, f"127.0.0.1:{server.port}"))
        outer = stack.enter_context(haproxy(tmp_path, f"127.0.0.1:{inner}"))
        shown = ask(outer)
    assert shown["client"] == [HAPROXY, 0]


@pytest.mark.parametrize("proxy", [haproxy, nginx])
def test_proxy_on_the_other_end_of_a_unix_socket_is_trusted_by_name(proxy: Any, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with (
        TestServer(app, uds=str(path), trusted_hosts=["unix"]),
        proxy(tmp_path, f"unix:{path}:") as port,
    ):
        assert ask(port) == TOLD


def seen_by_a_websocket(port: int, host: str = "127.0.0.1") -> Any:
    with (
        socket.create_connection((host, port), PATIENCE, source_address=(CLIENT, 0)) as sock,
        connect("ws://site.example/", sock=sock, open_timeout=PATIENCE) as websocket,
    ):
        return json.loads(websocket.recv(PATIENCE))


@pytest.mark.parametrize("proxy", [haproxy, nginx])
def test_websocket_has_the_client_and_scheme_of_the_proxy(proxy: Any, tmp_path: Path) -> None:
    with (
        TestServer(app, trusted_hosts=[HAPROXY, NGINX]) as server,
        proxy(tmp_path, f"127.0.0.1:{server.port}") as port,
    ):
        assert seen_by_a_websocket(port) == TOLD | {"scheme": "wss"}


def test_client_is_found_behind_two_proxies_and_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with ExitStack() as stack:
        stack.enter_context(TestServer(app, uds=str(path), trusted_hosts=["unix", HAPROXY]))
        inner = stack.enter_context(nginx(tmp_path, f"unix:{path}:"))
        outer = stack.enter_context(haproxy(tmp_path, f"127.0.0.1:{inner}"))
        assert ask(outer) == TOLD
        assert seen_by_a_websocket(outer) == TOLD | {"scheme": "wss"}


def test_proxy_protocol_names_the_proxy_behind_the_one_that_is_connected(tmp_path: Path) -> None:
    """HAProxy names nginx by the PROXY protocol, and nginx the client by a field, which nginx is trusted with."""
    with ExitStack() as stack:
        settings: Any = {"proxy_protocol": True, "proxy_protocol_from": ["unix", HAPROXY]}
        path = tmp_path / "s"
        server = stack.enter_context(
            TestServer(app, bind=["127.0.0.1:0", f"unix:{path}"], trusted_hosts=[NGINX], **settings)
        )
        for backend in (f"127.0.0.1:{server.port}", f"unix:{path}:"):
            inner = stack.enter_context(passing_on(tmp_path, backend))
            outer = stack.enter_context(nginx(tmp_path, f"127.0.0.1:{inner}"))
            assert ask(outer) == TOLD
            assert seen_by_a_websocket(outer) == TOLD | {"scheme": "wss"}
            # Somebody else whom it names is not believed.
            assert ask(inner)["client"][0] == CLIENT


@contextmanager
def passing_on(folder: Path, backend: str) -> Iterator[int]:
    """HAProxy that passes connections on as they are, and says by the PROXY protocol whose they are."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        path = folder / f"passing-{listening.getsockname()[1]}.cfg"
        path.write_text(
            "defaults\n mode tcp\n timeout connect 10s\n timeout client 30s\n timeout server 30s\n"
            f"listen site\n bind fd@{listening.fileno()}\n server next {for_haproxy(backend)} send-proxy-v2\n"
        )
        with running(["haproxy", "-db", "-f", str(path)], listening) as port:
            yield port


@has_caddy
@pytest.mark.parametrize("versions", ["1.1", "h2c"])
def test_caddy_names_the_client_and_the_scheme(versions: str, tmp_path: Path) -> None:
    with (
        TestServer(app, trusted_hosts=[CADDY]) as server,
        caddy(tmp_path, f"127.0.0.1:{server.port}", versions) as port,
    ):
        assert ask(port, CADDY_AT) == TOLD


@has_caddy
def test_client_is_found_behind_caddy_and_nginx(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with ExitStack() as stack:
        stack.enter_context(TestServer(app, uds=str(path), trusted_hosts=["unix", CADDY]))
        inner = stack.enter_context(nginx(tmp_path, f"unix:{path}:"))
        outer = stack.enter_context(caddy(tmp_path, f"127.0.0.1:{inner}"))
        shown = ask(outer, CADDY_AT)
        assert (shown["client"], shown["scheme"]) == ([CLIENT, 0], "https")
        assert seen_by_a_websocket(outer, CADDY_AT)["scheme"] == "wss"
