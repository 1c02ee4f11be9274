"""What systemd is told."""

import asyncio
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pounce.supervisor.systemd import Notifier


class Systemd:
    """The receiving end."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.settimeout(60)
        self._sock.bind("\0" + address[1:] if address.startswith("@") else address)

    def told(self) -> list[str]:
        """The lines of the next message."""
        return self._sock.recv(65536).decode().split("\n")

    def told_nothing(self) -> bool:
        self._sock.setblocking(False)
        try:
            self._sock.recv(65536)
        except BlockingIOError:
            return True
        return False

    def close(self) -> None:
        self._sock.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    path = tempfile.mkdtemp(prefix="pounce-")
    yield Path(path)
    shutil.rmtree(path)


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, folder: Path) -> Iterator[Systemd]:
    if request.param == "abstract" and sys.platform != "linux":
        pytest.skip("abstract sockets are Linux's")
    found = Systemd(str(folder / "notify") if request.param == "path" else f"@{folder.name}")
    yield found
    found.close()


@pytest.fixture
def notifier(systemd: Systemd) -> Notifier:
    return Notifier.from_environ({"NOTIFY_SOCKET": systemd.address})


def test_ready(systemd: Systemd, notifier: Notifier) -> None:
    notifier.ready("Serving 3 sockets")
    assert systemd.told() == ["READY=1", "STATUS=Serving 3 sockets"]


def test_reloading_says_when_it_began(systemd: Systemd, notifier: Notifier) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    first, second = systemd.told()
    assert first == "RELOADING=1"
    name, _, value = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(value) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_stopping_status_and_main_pid(systemd: Systemd, notifier: Notifier) -> None:
    notifier.stopping()
    notifier.status("half way")
    notifier.main_pid(42)
    assert [systemd.told() for _ in range(3)] == [["STOPPING=1"], ["STATUS=half way"], ["MAINPID=42"]]


def test_line_break_in_a_status_begins_no_assignment(systemd: Systemd, notifier: Notifier) -> None:
    notifier.status("one\nMAINPID=1\r\ntwo")
    assert systemd.told() == ["STATUS=one MAINPID=1 two"]


def test_without_a_socket_nothing_is_sent() -> None:
    Notifier.from_environ({}).ready()
    Notifier.from_environ({"NOTIFY_SOCKET": ""}).ready()


def test_socket_that_is_gone_is_a_warning_and_no_error(caplog: pytest.LogCaptureFixture) -> None:
    Notifier("/no/such/socket").ready()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_address_of_an_unknown_kind_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    Notifier.from_environ({"NOTIFY_SOCKET": "vsock:2:1234"}).ready()
    assert "NOTIFY_SOCKET" in caplog.text


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_interval_is_half_of_what_the_watchdog_allows(environ: dict[str, str], interval: float | None) -> None:
    assert Notifier.from_environ({"NOTIFY_SOCKET": "@x"} | environ).watchdog_interval == interval


def test_watchdog_without_a_socket_expects_nothing() -> None:
    assert Notifier.from_environ({"WATCHDOG_USEC": "3000000"}).watchdog_interval is None


def test_turning_loop_gives_signs_of_life_until_told_to_stop(systemd: Systemd) -> None:
    notifier = Notifier(systemd.address, watchdog=0.01)

    async def main() -> None:
        notifier.start_watchdog(asyncio.get_running_loop())
        for _ in range(3):
            assert await asyncio.to_thread(systemd.told) == ["WATCHDOG=1"]
        notifier.stop_watchdog()
        while not systemd.told_nothing():
            pass

    asyncio.run(main())


APP = """
import pounce
async def app(scope, receive, send):
    raise NotImplementedError
pounce.run(app, port=0)
"""


def test_server_tells_its_start_its_life_and_its_end(systemd: Systemd, folder: Path) -> None:
    environ = os.environ | {"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "100000"}
    with subprocess.Popen([sys.executable, "-c", APP], env=environ, stderr=subprocess.DEVNULL, cwd=folder) as process:
        try:
            told = systemd.told()
            assert told[0] == "READY=1"
            assert told[1].startswith("STATUS=Listening on http://127.0.0.1:")
            assert systemd.told() == ["WATCHDOG=1"]
            process.send_signal(signal.SIGTERM)
            while (told := systemd.told()) == ["WATCHDOG=1"]:
                pass
            assert told == ["STOPPING=1"]
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_server_in_a_program_of_somebody_else_tells_nothing(systemd: Systemd, monkeypatch: pytest.MonkeyPatch) -> None:
    from pounce.testing import TestServer

    monkeypatch.setenv("NOTIFY_SOCKET", systemd.address)

    async def app(scope: object, receive: object, send: object) -> None:
        raise NotImplementedError

    with TestServer(app):
        pass
    assert systemd.told_nothing()
