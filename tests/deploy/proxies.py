"""The configurations of deploy/, started with the real programs. Only addresses and certificates are replaced."""

import itertools
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.interop.proxies import running, running_caddy, running_nginx

PATIENCE = 60.0
DEPLOY = Path(__file__).parents[2] / "deploy"
_numbers = itertools.count(1)


def own_addresses() -> tuple[str, str, str]:
    """For the proxy and two servers. All of 127.0.0.0/8 is this machine, so the ports of the files can stay."""
    pid, number = os.getpid(), next(_numbers)
    start = f"127.{100 + pid % 100}.{pid // 100 % 200 + 1}"
    return f"{start}.{3 * number}", f"{start}.{3 * number + 1}", f"{start}.{3 * number + 2}"


@dataclass(frozen=True)
class Proxy:
    name: str
    bind: str
    """What follows the address of a server in its bind."""
    trusted: tuple[str, ...]
    start: Callable[[Path, tuple[str, str, str], Path, Path], AbstractContextManager[int]]


def replaced(path: Path, *changes: tuple[str, str]) -> str:
    text = path.read_text()
    for old, new in changes:
        assert old in text, f"{path.name} has no {old!r}"
        text = text.replace(old, new)
    return text


@contextmanager
def _nginx(folder: Path, addresses: tuple[str, str, str], cert: Path, key: Path) -> Iterator[int]:
    front, one, two = addresses
    with socket.create_server((front, 0)) as listening:
        port = listening.getsockname()[1]
        site = replaced(
            DEPLOY / "nginx" / "pounce.conf",
            ("listen 443 ", f"listen {front}:{port} "),
            ("127.0.0.1:8001 ", f"{one}:8001 "), ("127.0.0.1:8002 ", f"{two}:8002 "),
            ("/etc/ssl/app.example/cert.pem", str(cert)), ("/etc/ssl/app.example/key.pem", str(key)),
        )
        with running_nginx(folder, listening, site):
            yield port


@contextmanager
def _haproxy(folder: Path, addresses: tuple[str, str, str], cert: Path, key: Path) -> Iterator[int]:
    front, one, two = addresses
    both = folder / "both.pem"
    both.write_text(cert.read_text() + key.read_text())
    with socket.create_server((front, 0)) as listening:
        path = folder / "haproxy.cfg"
        path.write_text(
            replaced(
                DEPLOY / "haproxy" / "haproxy.cfg",
                ("bind :443 ", f"bind fd@{listening.fileno()} "),
                ("127.0.0.1:8001\n    server", f"{one}:8001\n    server"), ("two 127.0.0.1:8002", f"two {two}:8002"),
                ("/etc/ssl/app.example/both.pem", str(both)),
            )
        )
        with running(["haproxy", "-db", "-f", str(path)], listening) as port:
            yield port


@contextmanager
def _caddy(folder: Path, addresses: tuple[str, str, str], cert: Path, key: Path) -> Iterator[int]:
    front, one, two = addresses
    with socket.create_server((front, 0)) as found:
        port = found.getsockname()[1]
    sites = replaced(
        DEPLOY / "caddy" / "Caddyfile",
        ("app.example {", f"https://:{port} {{\n\tbind {front}\n\ttls {cert} {key}"),
        (" 127.0.0.1:8001 ", f" {one}:8001 "), (" 127.0.0.1:8002 ", f" {two}:8002 "),
    )
    with running_caddy(folder, (front, port), sites, "default_sni localhost"):
        yield port


PROXIES = (
    Proxy("nginx", "", ("127.0.0.1",), _nginx),
    Proxy("caddy", "", ("127.0.0.1",), _caddy),
    Proxy("haproxy", "?proxy_protocol=on&proxy_protocol_from=127.0.0.1", (), _haproxy),
)


def client_context(cert: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(cert))
    context.check_hostname = False
    return context
