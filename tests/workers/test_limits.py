"""Limits that hold for the whole server, in every mode of workers."""

import select
import socket
from pathlib import Path

import pytest
from tests.workers.running import Running, eventually

HELD = b"GET /held HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


def answered(client: socket.socket) -> bool:
    return bool(select.select([client], [], [], 0)[0])


def count(reached: Path) -> int:
    """How many requests the application has."""
    return reached.stat().st_size if reached.exists() else 0


@pytest.mark.parametrize("mode", ["thread", "process", "subinterpreter"])
def test_no_more_requests_run_in_all_workers_than_the_limit(mode: str, tmp_path: Path) -> None:
    flags = ("--workers", "2", "--worker-mode", mode, "--limit-concurrency", "2")
    reached = tmp_path / "reached"
    with Running(tmp_path, *flags) as server:
        running, refused = [], 0
        # Until each process has what it may, and three more times.
        while len(running) < 2 or refused < 3:
            client = server.connect()
            client.sendall(HELD)
            eventually(lambda: answered(client) or count(reached) > len(running))  # noqa: B023
            if answered(client):
                assert client.recv(65536).startswith(b"HTTP/1.1 503 ")
                client.close()
                refused += len(running) == 2
            else:
                running.append(client)
        assert count(reached) == 2
        (tmp_path / "released").touch()
        for client in running:
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
            client.close()
