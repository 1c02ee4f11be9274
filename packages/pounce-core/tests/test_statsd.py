"""What a statsd server hears."""

import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from urllib.request import urlopen

import pytest

from pounce.config import ServerConfig
from pounce.contract.totals import Totals
from pounce.errors import ConfigError
from pounce.observe.statsd import DATAGRAM_MAX, Statsd, datagrams
from pounce.testing import TestServer

LONG = 3600.0
"""Seconds between two reports: what is sent is sent at the end."""


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hello"})


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(60)
        yield sock


def address_of(server: socket.socket) -> str:
    host, port = server.getsockname()
    return f"{host}:{port}"


def heard(server: socket.socket) -> list[str]:
    """All that has arrived."""
    lines: list[str] = []
    server.setblocking(False)
    while True:
        try:
            lines += server.recv(65536).decode().split("\n")
        except BlockingIOError:
            return lines


def serve(server: socket.socket, requests: int, **settings: Any) -> list[str]:
    with TestServer(app, lifespan="off", statsd_address=address_of(server), statsd_interval=LONG, **settings) as found:
        for _ in range(requests):
            urlopen(found.url).close()
    return heard(server)


def test_what_was_counted_is_sent_by_the_end(server: socket.socket) -> None:
    lines = serve(server, 5)
    assert "requests:5|c" in lines
    assert "http_requests_total.method_GET.status_200:5|c" in lines
    assert any(line.startswith("connections.worker_0:") and line.endswith("|g") for line in lines)


def test_dogstatsd_has_labels_as_tags_and_names_have_a_prefix(server: socket.socket) -> None:
    lines = serve(server, 3, statsd_format="dogstatsd", statsd_prefix="shop")
    assert "shop.http_requests_total:3|c|#method:GET,status:200" in lines
    assert any(line.startswith("shop.connections:") and line.endswith("|g|#worker:0") for line in lines)


def test_the_reports_of_workers_add_up(server: socket.socket) -> None:
    lines = serve(server, 20, workers=2, worker_mode="thread")
    counted = [int(line.removeprefix("requests:").removesuffix("|c")) for line in lines if line.startswith("requests:")]
    assert sum(counted) == 20


def test_reports_come_while_the_server_runs_and_tell_what_is_new(server: socket.socket) -> None:
    with TestServer(app, lifespan="off", statsd_address=address_of(server), statsd_interval=0.25) as found:
        seen = 0
        for _ in range(2):
            urlopen(found.url).close()
            told: list[str] = []
            while not told:
                told = [line for line in server.recv(65536).decode().split("\n") if line.startswith("requests:")]
            seen += 1
            assert told == ["requests:1|c"]
    assert seen == 2


def test_the_memory_of_the_process_is_told(server: socket.socket) -> None:
    with TestServer(app, lifespan="off", statsd_address=address_of(server), statsd_interval=0.25):
        text = ""
        for _ in range(100):
            text += server.recv(65536).decode()
            if "process_resident_memory_bytes.pid_" in text:
                break
    assert "process_resident_memory_bytes.pid_" in text


def test_what_a_process_has_used_up_is_told_as_what_is_new(server: socket.socket) -> None:
    name = "process_cpu_seconds_total{pid=7}"
    used = iter((2.0, 2.5))
    service: Any = SimpleNamespace(
        config=ServerConfig(statsd_address=address_of(server)),
        worker_id=0,
        loop=SimpleNamespace(time=lambda: 0.0),
        on_tick=set(),
        on_end=set(),
        own_totals=lambda: Totals(processes={name: next(used)}),
    )
    statsd = Statsd(service)
    statsd._send()
    statsd._send()
    assert heard(server) == ["process_cpu_seconds_total.pid_7:0.5|c"]
    statsd._sock.close()


def test_nobody_who_listens_is_no_loss_for_requests() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        address = address_of(free)
    settings = {"statsd_address": address, "statsd_interval": 0.25}
    with TestServer(app, lifespan="off", **settings) as found, urlopen(found.url) as told:
        assert told.read() == b"hello"


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:port", "unix:/nowhere/at/all"])
def test_an_address_that_is_none_is_an_error_at_the_start(address: str) -> None:
    with pytest.raises(ConfigError, match="statsd_address"):
        TestServer(app, lifespan="off", statsd_address=address).start()


def test_a_datagram_takes_as_many_lines_as_fit() -> None:
    lines = [f"{'x' * 100}{number}:1|c" for number in range(50)]
    sent = list(datagrams(lines))
    assert max(map(len, sent)) <= DATAGRAM_MAX
    assert b"\n".join(sent).decode().split("\n") == lines
    assert len(sent) == 4
