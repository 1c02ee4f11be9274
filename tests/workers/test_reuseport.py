"""`--reuseport`: each process has a socket of its own, and what waits on it is never lost."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.workers.checking_client import CheckingClient
from tests.workers.running import Running, eventually

FLAGS = ("--workers", "3", "--worker-mode", "process", "--reuseport")

PROGRAM = """
import pounce
from main import app
if __name__ == "__main__":
    pounce.run(
        app, port=0, workers=3, worker_mode="process", reuseport=True, log_format="json", access_log=False
    )
"""


def sockets(port: int) -> int:
    """How many listen there."""
    text = Path("/proc/net/tcp").read_text()
    return len(re.findall(rf": 0100007F:{port:04X} 00000000:0000 0A", text))


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server whose processes several tests change, one after the other."""
    with Running(tmp_path_factory.mktemp("lasting"), *FLAGS) as running:
        yield running


@pytest.fixture
def server(lasting: Running) -> Running:
    """The same when it has three processes again."""
    lasting.settle()
    return lasting


def test_processes_have_sockets_of_their_own_on_one_port(server: Running) -> None:
    assert sockets(server.address[1]) == 3
    eventually(lambda: {server.get()["pid"] for _ in range(10)} == set(server.children()))


def listening(pid: int, port: int) -> int:
    """How many of those this process has open."""
    found = re.findall(
        rf": 0100007F:{port:04X} 00000000:0000 0A(?: +\S+){{5}} +(\d+)", Path("/proc/net/tcp").read_text()
    )
    links = {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()}
    return sum(f"socket:[{inode}]" in links for inode in found)


def test_copy_of_the_process_keeps_no_socket_of_another_one(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    with Running(tmp_path, command=["program.py"]) as server:
        port = server.address[1]
        assert listening(server.pid, port) == 3
        assert [listening(child, port) for child in server.children()] == [1, 1, 1]


@pytest.mark.parametrize("what", ["reload", "upgrade", "fewer, then more", "death"])
def test_change_of_processes_loses_no_connection(what: str, server: Running) -> None:
    at = len(server.log)
    with CheckingClient(server.address, keep_alive=0, slow=0, short=16, pause=0.1) as client:
        eventually(lambda: client.verified > 100)
        if what == "upgrade":
            server.upgrade()
        elif what == "reload":
            server.reload()
        elif what == "death":
            with subprocess.Popen(["kill", "-KILL", str(server.children()[0])]):
                server.wait_for_message("was killed by", after=at)
            eventually(lambda: len(server.children()) == 3)
        else:
            server.kill(signal.SIGTTOU)
            server.wait_for_message("Reloaded", after=at)
            eventually(lambda: len(server.children()) == 2)
            server.kill(signal.SIGTTIN)
            eventually(lambda: len(server.children()) == 3)
        seen = client.verified
        eventually(lambda: client.verified > seen + 200)
    # Those that the process had taken die with it.
    assert sum(client.faults.values()) <= (16 if what == "death" else 0), client.faults
    eventually(lambda: sockets(server.address[1]) == 3)
