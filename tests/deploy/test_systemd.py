"""The units of deploy/systemd: what systemd thinks of them, and what they start."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.deploy.proxies import PATIENCE, own_addresses

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
POUNCE = Path(sys.executable).with_name("pounce")
needs_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd (systemd-analyze)")
APP = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%s"})
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not tmp_path: the address of a Unix socket has room for about a hundred bytes.
    path = Path(tempfile.mkdtemp(prefix="units-"))
    yield path
    shutil.rmtree(path)


def placed(name: str, folder: Path) -> str:
    """A unit with its folders below `folder`, and the `pounce` of these tests."""
    text = (UNITS / name).read_text()
    for old, new in (("/srv/%i/.venv/bin/pounce", str(POUNCE)), ("/srv/", f"{folder}/"), ("/etc/pounce/", f"{folder}/"),
                     ("%t/", f"{folder}/")):  # fmt: skip
        text = text.replace(old, new)
    return text


def setting(text: str, name: str) -> str:
    [value] = [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{name}=")]
    return value


@needs_analyze
def test_systemd_understands_the_units(folder: Path) -> None:
    for name in ("pounce@.service", "pounce@.socket"):
        (folder / name.replace("@", "@shop")).write_text(placed(name, folder))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(folder / "pounce@shop.service")], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@needs_analyze
def test_the_service_is_exposed_to_little() -> None:
    """Below 3 of 10, where 10 is a service with nothing taken from it."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=30", str(UNITS / "pounce@.service")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-500:]


@pytest.mark.skipif(
    shutil.which("systemd-socket-activate") is None, reason="needs systemd (systemd-socket-activate)"
)
def test_what_the_service_starts_takes_the_socket_says_it_is_ready_reloads_and_ends(folder: Path) -> None:
    unit = placed("pounce@.service", folder).replace("%i", "shop")
    (folder / "shop").mkdir()
    (folder / "shop" / "main.py").write_text(APP % "first")
    (folder / "pounce-shop").mkdir()
    (folder / "shop.toml").write_text('app = "main:app"\n')
    assert setting(unit, "WorkingDirectory") == str(folder / "shop")
    address = own_addresses()[0]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.settimeout(PATIENCE)
        notified.bind(str(folder / "notify"))
        command = [
            "systemd-socket-activate", f"--listen={address}:8000", "--fdname=http",
            f"--setenv=NOTIFY_SOCKET={folder / 'notify'}", "--setenv=PATH", "--setenv=HOME",
            *setting(unit, "ExecStart").replace("--workers 0", "--workers 1").split(),
        ]  # fmt: skip
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=folder / "shop", stdout=log, stderr=log, env={**os.environ, "PWD": str(folder / "shop")}
            )
        try:
            with httpx.Client(base_url=f"http://{address}:8000", timeout=PATIENCE, trust_env=False) as client:
                # The first client waits in the backlog of the socket until the service serves.
                knock(address, process)
                assert client.get("/").text == "first"
                assert b"READY=1" in notified.recv(65536)
                (folder / "shop" / "main.py").write_text(APP % "second, and no mistake")
                signalled(process, setting(unit, "ExecReload"))
                wait_for(notified, b"RELOADING=1")
                wait_for(notified, b"READY=1")
            with httpx.Client(base_url=f"http://{address}:8000", timeout=PATIENCE, trust_env=False) as client:
                assert client.get("/").text == "second, and no mistake"
            process.send_signal(signal.SIGTERM)
            wait_for(notified, b"STOPPING=1")
            assert process.wait(PATIENCE) == 0, (folder / "log").read_text()
        finally:
            process.kill()
            process.wait()


def knock(address: str, process: subprocess.Popen[bytes]) -> None:
    """Connect once somebody listens: systemd-socket-activate does not tell."""
    while True:
        assert process.poll() is None
        try:
            socket.create_connection((address, 8000)).close()
        except ConnectionRefusedError:
            continue
        return


def signalled(process: subprocess.Popen[bytes], line: str) -> None:
    assert line == "/bin/kill -HUP $MAINPID"
    process.send_signal(signal.SIGHUP)


def wait_for(notified: socket.socket, what: bytes) -> None:
    while what not in notified.recv(65536):
        pass
