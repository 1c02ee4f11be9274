"""The storms over HTTP/3: every answer is checked, and clients that honour GOAWAY lose nothing.

Long, so only `make faults` runs it; each test prints its figures.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.workers.h3_checking_client import H3CheckingClient
from tests.workers.running import APP, Running, eventually

pytestmark = pytest.mark.faults

MODES = ("thread", "process")
"""No QUIC implementation can be loaded in a subinterpreter."""


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(mode: str, tmp_path: Path, tls_files: tuple[str, str]) -> Iterator[Running]:
    tls = ("--ssl-certfile", tls_files[0], "--ssl-keyfile", tls_files[1])
    with Running(tmp_path, "--workers", "2", "--worker-mode", mode, "--http3", *tls) as running:
        yield running


@contextmanager
def load(server: Running, name: str, **options: Any) -> Iterator[H3CheckingClient]:
    defaults: dict[str, Any] = {"keep_alive": 12, "short": 4, "slow": 4, "pause": 0.002}
    with H3CheckingClient(server.address, **(defaults | options)) as client:
        eventually(lambda: client.verified > 100)
        yield client
    print(f"\n{name}: {client.report()}, {client.retried} sent again, {len(client.pids)} processes")


def new_version(server: Running, number: int) -> None:
    server.write(APP.replace("VERSION = 1", f"VERSION = {number}"))


def test_ten_reloads(server: Running, mode: str) -> None:
    with load(server, f"h3, 10 reloads, {mode}") as client:
        for number in range(2, 12):
            at = len(server.log)
            new_version(server, number)
            server.kill(signal.SIGHUP)
            server.wait_for_message("Reloaded", after=at)
            eventually(lambda number=number: client.versions[number] > 500)
    assert client.faults == {}
    assert set(client.versions) == set(range(1, 12))
    assert server.end() == 0


def test_five_upgrades(server: Running, mode: str) -> None:
    with load(server, f"h3, 5 upgrades, {mode}") as client:
        for number in range(2, 7):
            new_version(server, number)
            server.upgrade()
            eventually(lambda number=number: client.versions[number] > 500)
    assert client.faults == {}
    assert set(client.versions) == set(range(1, 7))


def test_workers_come_and_go(server: Running, mode: str) -> None:
    with load(server, f"h3, TTIN and TTOU, {mode}") as client:
        for number in [signal.SIGTTIN, signal.SIGTTIN, signal.SIGTTOU, signal.SIGTTIN, signal.SIGTTOU] * 4:
            server.kill(number)
            time.sleep(0.3)
    assert client.faults == {}
    assert server.end() == 0


def test_death_of_a_process_costs_its_connections_only(server: Running, mode: str) -> None:
    # A client that only waits learns nothing: no kernel closes the connections of QUIC.
    with load(server, f"h3, SIGKILL, {mode}", slow=0) as client:
        for _ in range(3):
            at, children = len(server.log), server.children()
            os.kill(children[0], signal.SIGKILL)
            server.wait_for_message("was killed by", after=at)
            seen, count = client.verified, len(children)
            eventually(lambda count=count: len(server.children()) == count)
            eventually(lambda seen=seen: client.verified > seen + 1000)
    assert not [fault for fault in client.faults if fault.startswith("connect")]
    # Each connection had four requests at a time on a process that died, at the most once for each death.
    assert sum(client.faults.values()) <= 3 * (12 * 4 + 4)
    assert server.end() == 0


def test_end_at_full_load_with_slow_requests(server: Running, mode: str) -> None:
    with load(server, f"h3, SIGTERM at full load, {mode}", slow=12, slow_time=1.5) as client:
        time.sleep(1)
        server.kill(signal.SIGTERM)
        client.leave()
        assert server.wait() == 0
    assert {fault: count for fault, count in client.faults.items() if not fault.startswith("connect")} == {}
