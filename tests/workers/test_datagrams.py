"""Datagrams between the workers of a server: any wire can hand on to who has a connection, in every mode."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.workers.running import APP, PATIENCE, Running, eventually

MODES = ("thread", "process", "subinterpreter")

WIRE = '''
import asyncio, os
from pounce.plugin import API_VERSION, DatagramWire, Plugin

class Named(asyncio.DatagramProtocol):
    """Whoever has the number that a datagram begins with answers it; 0 is anyone, and ? asks all."""

    def __init__(self, service, address):
        self.service = service
        self.claims = {}

    def connection_made(self, transport):
        self.transport = transport
        self.number = transport.get_extra_info("worker")

    def datagram_received(self, data, address):
        wanted = int(data.strip(b"?"))
        if wanted in (0, self.number):
            self.answer(address)
        elif data in self.claims:
            self.transport.hand_on(data, address, self.claims[data])
        elif data.startswith(b"?"):
            self.transport.ask(data, address)
        elif not self.transport.hand_on(data, address, wanted):
            self.transport.sendto(b"0 0 gone", address)

    def handed_on(self, datagrams):
        for data, address in datagrams:
            self.answer(address, "claimed" if data.startswith(b"?") else "handed")

    def asked(self, data, address, asker):
        if int(data.strip(b"?")) == self.number:
            self.transport.claim(data, asker)
            self.answer(address, "asked")

    def claimed(self, connection_id, worker):
        self.claims[connection_id] = worker

    def answer(self, address, how="read"):
        self.transport.sendto(f"{os.getpid()} {self.number} {how}".encode(), address)

    def drain(self):
        task = self.service.loop.create_task(self.linger())
        self.service.tasks[task] = self
        task.add_done_callback(self.service.tasks.pop)

    async def linger(self):
        while os.path.exists("linger"):
            await asyncio.sleep(0.02)

plugin = Plugin(name="named", api=API_VERSION, datagrams=(DatagramWire(name="named", connect=Named, advertise="x"),))
'''


STARTS = APP.replace(
    "        message = await receive()\n",
    "        message = await receive()\n        print('the application has started', file=sys.stderr, flush=True)\n",
).replace("import asyncio,", "import sys, asyncio,")
"""Says when it starts."""


class Answer(NamedTuple):
    pid: int
    number: int
    how: str


def ask(server: Running, data: str = "0", patience: float = PATIENCE) -> Answer:
    """What comes back for a datagram from a new socket."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(patience)
        client.connect(server.address)
        client.send(data.encode())
        pid, number, how = client.recv(100).decode().split()
    return Answer(int(pid), int(number), how)


def workers(server: Running, tries: int = 40) -> dict[int, int]:
    """The process of each worker that reads."""
    return {answer.number: answer.pid for answer in (ask(server) for _ in range(tries))}


def named(folder: Path, mode: str, tls_files: tuple[str, str]) -> Running:
    """A server with the wire, as a plugin that is installed."""
    info = folder / "named-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: named\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pounce.plugins]\nnamed = named:plugin\n")
    (folder / "named.py").write_text(WIRE)
    # Beside the TCP port of a bind, and on a port of its own.
    beside = ("--http3", "--disable-plugin", "h3", "--ssl-certfile", tls_files[0], "--ssl-keyfile", tls_files[1])
    flags = beside if mode == "thread" else ("--bind", "udp+named://127.0.0.1:0")
    return Running(folder, "--workers", "2", "--worker-mode", mode, *flags, environ={"PYTHONPATH": str(folder)})


@pytest.fixture(params=MODES)
def server(request: pytest.FixtureRequest, tmp_path: Path, tls_files: tuple[str, str]) -> Iterator[Running]:
    with named(tmp_path, request.param, tls_files) as running:
        yield running


@pytest.fixture(scope="module", params=MODES)
def lasting(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tls_files: tuple[str, str]
) -> Iterator[Running]:
    """One that several tests ask, and do nothing else to but for the number of its workers, which they leave at 2."""
    with named(tmp_path_factory.mktemp("lasting"), request.param, tls_files) as running:
        yield running


def test_datagram_reaches_the_worker_that_it_names(lasting: Running) -> None:
    server = lasting
    eventually(lambda: len(workers(server)) == 2)
    for number, pid in workers(server).items():
        answers = [ask(server, str(number)) for _ in range(20)]
        assert {answer[:2] for answer in answers} == {(pid, number)}
        assert {answer.how for answer in answers} == {"read", "handed"}


def test_datagram_that_names_nobody_is_asked_about_and_claimed(lasting: Running) -> None:
    server = lasting
    eventually(lambda: len(workers(server)) == 2)
    number, pid = workers(server).popitem()
    answers = [ask(server, f"?{number}") for _ in range(30)]
    assert {answer[:2] for answer in answers} == {(pid, number)}
    assert {answer.how for answer in answers} == {"read", "asked", "claimed"}


def test_worker_that_drains_is_reached_through_its_successors(server: Running) -> None:
    eventually(lambda: len(workers(server)) == 2)
    before = workers(server)
    linger = server.folder / "linger"
    linger.touch()

    def is_gone(number: int) -> bool:
        try:
            return ask(server, str(number), 0.2).how == "gone"
        except TimeoutError:
            # What is on its way to a worker when that ends is lost.
            return False

    server.kill(signal.SIGHUP)
    server.wait_for_message("Reloaded")
    # Those that leave off have heard of it before they drain, and may have a moment to read.
    eventually(lambda: not {ask(server).number for _ in range(20)} & set(before))
    for number, pid in before.items():
        assert ask(server, str(number)) == (pid, number, "handed")
    linger.unlink()
    eventually(lambda: all(map(is_gone, before)))


def test_sockets_of_a_worker_that_goes_are_read_by_others(lasting: Running) -> None:
    lasting.kill(signal.SIGTTIN)
    eventually(lambda: len(workers(lasting, 80)) == 3)
    lasting.kill(signal.SIGTTOU)
    eventually(lambda: len(workers(lasting, 80)) == 2)
    lasting.kill(signal.SIGTTOU)
    eventually(lambda: len(workers(lasting, 80)) == 1)
    lasting.kill(signal.SIGTTIN)
    eventually(lambda: len(workers(lasting, 80)) == 2)


def test_sockets_change_hands_in_an_upgrade(server: Running) -> None:
    before = workers(server)
    linger = server.folder / "linger"
    linger.touch()
    server.kill(signal.SIGUSR2)
    said = server.wait_for_message("Upgraded: process")["message"]
    eventually(lambda: not {ask(server).number for _ in range(20)} & set(before))
    for number, pid in before.items():
        assert ask(server, str(number)) == (pid, number, "handed")
    linger.unlink()
    assert server.process.wait(PATIENCE) == 0
    server.pid = int(said.split()[2])


# Where they meet


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files; a socket in the one of a test would have too long a name."""
    folder = Path(f"/tmp/named-{os.getpid()}")
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    for each in folder.iterdir():
        each.rmdir()
    folder.rmdir()


@pytest.fixture
def flags(tls_files: tuple[str, str]) -> tuple[str, ...]:
    return ("--workers", "2", "--http3", "--ssl-certfile", tls_files[0], "--ssl-keyfile", tls_files[1])


@pytest.mark.parametrize("mode", ["thread", "process"])
def test_nobody_else_can_write_to_workers(temporary: Path, tmp_path: Path, flags: tuple[str, ...], mode: str) -> None:
    with Running(tmp_path, *flags, "--worker-mode", mode) as server:
        [folder] = temporary.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert folder.stat().st_uid == os.geteuid()
        eventually(lambda: len(list(folder.iterdir())) == 2)
        assert server.end() == 0
    assert list(temporary.iterdir()) == []


def test_upgrade_keeps_the_folder_until_the_end_of_the_new_server(
    temporary: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    with Running(tmp_path, *flags, "--worker-mode", "process") as server:
        before = list(temporary.iterdir())
        server.upgrade()
        assert list(temporary.iterdir()) == before
        server.write("nonsense")
        server.kill(signal.SIGUSR2)
        server.wait_for_message("Upgrade failed")
        assert list(temporary.iterdir()) == before
        server.kill(signal.SIGTERM)
        eventually(lambda: not list(temporary.iterdir()))


def test_processes_clean_up_after_a_supervisor_that_was_killed(
    temporary: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    with Running(tmp_path, *flags, "--worker-mode", "process", app=APP) as server:
        server.process.kill()
        eventually(lambda: not list(temporary.iterdir()))


def test_server_that_has_no_place_for_the_folder_says_so(tmp_path: Path, flags: tuple[str, ...]) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    with Running(tmp_path, *flags, environ={"TMPDIR": str(deep)}, wait=False) as server:
        assert server.wait() != 0
        assert "Set TMPDIR" in server.text()


def test_subinterpreters_that_qh3_cannot_be_loaded_in_are_refused(tmp_path: Path, flags: tuple[str, ...]) -> None:
    with Running(tmp_path, *flags, "--worker-mode", "subinterpreter", app=STARTS, wait=False) as server:
        assert server.wait() != 0
        assert "set worker_mode to thread or process" in server.text()
        assert "the application has started" not in server.text()
