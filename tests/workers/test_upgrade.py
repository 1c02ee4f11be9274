"""Hot upgrade: another supervisor takes over, with all that a server is known by, and no client notices."""

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.workers.checking_client import CheckingClient
from tests.workers.running import APP, PATIENCE, Running, eventually, is_running, is_start, received, status

PROGRAM = """
import pounce
if __name__ == "__main__":
    pounce.run("main:app", port=0, workers=2, log_format="json", access_log=False)
"""


def version(number: int) -> str:
    return APP.replace("VERSION = 1", f"VERSION = {number}")


@pytest.mark.parametrize("mode", ["thread", "process"])
def test_new_supervisor_takes_over_without_a_fault(mode: str, tmp_path: Path) -> None:
    with Running(tmp_path, "--workers", "2", "--worker-mode", mode) as server:
        with CheckingClient(server.address, pause=0.1) as client:
            eventually(lambda: client.verified > 100)
            server.write(version(2))
            server.upgrade()
            eventually(lambda: client.versions[2] > 100)
        assert client.faults == {}
        assert not is_running(server.process.pid)
        answer = server.get()
        assert (answer["parent"], answer["worker"]["generation"]) == (server.pid, 1)


def test_program_that_calls_run_is_upgraded(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    # The path of a socket may not be long.
    run = tmp_path_factory.mktemp("run")
    (tmp_path / "program.py").write_text(PROGRAM)
    with Running(tmp_path, command=["program.py"], environ={"XDG_RUNTIME_DIR": str(run)}) as server:
        server.upgrade()
        assert server.get()["parent"] == server.pid
        eventually(lambda: len(list((run / "pounce").iterdir())) == 1)
        assert status(*(run / "pounce").iterdir())["pid"] == server.pid


def test_new_supervisor_that_cannot_start_leaves_the_old_one_in_its_place(tmp_path: Path) -> None:
    control, pid_file = tmp_path / "control", tmp_path / "pid"
    flags = ("--workers", "2", "--control-socket", str(control), "--pid-file", str(pid_file))
    with Running(tmp_path, *flags) as server:
        server.write("nonsense")
        server.kill(signal.SIGUSR2)
        assert "exited with 4" in server.wait_for_message("Upgrade failed")["message"]
        assert server.get()["version"] == 1
        assert int(pid_file.read_text()) == server.process.pid
        assert status(control)["pid"] == server.process.pid
        server.write(version(2))
        server.upgrade()
        assert server.get()["version"] == 2


@pytest.mark.parametrize("mode", ["thread", "process"])
def test_upgrade_that_fails_at_its_end_costs_no_request_and_takes_nothing(mode: str, tmp_path: Path) -> None:
    control, pid_file, path = tmp_path / "control", tmp_path / "pid", tmp_path / "socket"
    (tmp_path / "pounce.toml").write_text(f'pid_file = "{pid_file}"')
    flags = ("--workers", "2", "--worker-mode", mode, "--control-socket", str(control))
    with Running(tmp_path, *flags, "--bind", "127.0.0.1:0", "--bind", f"unix:{path}") as server:
        with CheckingClient(server.address, pause=0.1) as client:
            eventually(lambda: client.verified > 100)
            (tmp_path / "pounce.toml").write_text(f'pid_file = "{tmp_path}/missing/pid"')
            server.kill(signal.SIGUSR2)
            server.wait_for_message("Upgrade failed")
        assert client.faults == {}
        assert int(pid_file.read_text()) == server.pid
        assert status(control)["pid"] == server.pid
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(str(path))
        assert [each.name for each in tmp_path.glob("control*")] == ["control"]


def test_everything_a_server_is_known_by_changes_hands(tmp_path: Path) -> None:
    control, pid_file, path = tmp_path / "control", tmp_path / "pid", tmp_path / "socket"
    flags = ("--workers", "2", "--control-socket", str(control), "--pid-file", str(pid_file))
    binds = ("--bind", f"unix:{path}", "--bind", "127.0.0.1:0", "--bind", "127.0.0.1:0")
    line = ["-m", "pounce_cli", "serve", "main:app", "--no-access-log", "--log-format", "json", *flags, *binds]
    with Running(tmp_path, command=line, wait=False) as server:
        urls = server.wait_for(is_start)["urls"]
        before = path.stat().st_ino
        at = len(server.log)
        server.upgrade()
        assert server.wait_for(is_start, after=at)["urls"] == urls
        assert path.stat().st_ino == before
        assert int(pid_file.read_text()) == server.pid
        assert status(control)["pid"] == server.pid
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            assert received(client).startswith(b"HTTP/1.1 200")
        server.end()
        eventually(lambda: not is_running(server.pid))
        assert [each.exists() for each in (path, control, pid_file)] == [False, False, False]


def test_systemd_follows_to_the_new_supervisor(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENCE)
        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        with Running(tmp_path, "--workers", "2", environ=environ) as server:
            server.upgrade()
            server.end()
            said = []
            while not said or not said[-1].startswith("STOPPING"):
                said.append(systemd.recv(4096).decode().split("\n")[0])
        assert said == ["READY=1", "READY=1", f"MAINPID={server.pid}", "STOPPING=1"]


def test_new_supervisor_gives_systemd_its_signs_of_life(tmp_path: Path) -> None:
    # As systemd does it: the time, and for whom it is.
    line = ["-m", "pounce_cli", "serve", "main:app", "--port", "0", "--workers", "2", "--log-format", "json"]
    start = "os.environ['WATCHDOG_PID'] = str(os.getpid()); os.environ['WATCHDOG_USEC'] = '400000'"
    program = f"import os, sys; {start}; os.execv(sys.executable, [sys.executable, *{line!r}])"
    said: queue.Queue[bytes] = queue.Queue()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))

        def listen() -> None:
            # All the time, as systemd does: no more than ten messages wait for it.
            while message := systemd.recv(4096):
                said.put(message)

        threading.Thread(target=listen, daemon=True).start()
        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        try:
            with Running(tmp_path, command=["-c", program], environ=environ) as server:
                server.upgrade()
                while not said.get(timeout=PATIENCE).startswith(b"MAINPID="):
                    pass
                for _ in range(3):
                    assert said.get(timeout=PATIENCE) == b"WATCHDOG=1"
        finally:
            systemd.shutdown(socket.SHUT_RD)


def test_new_supervisor_reads_files_of_variables_anew(tmp_path: Path) -> None:
    file = tmp_path / "of.env"
    file.write_text("VERSION_OF_FILE=1\nWHICH_GOES=1\n")
    app = APP.replace("VERSION = 1", 'VERSION = [os.environ["VERSION_OF_FILE"], os.environ.get("WHICH_GOES")]')
    with Running(tmp_path, "--workers", "2", "--env-file", str(file), app=app) as server:
        assert server.get()["version"] == ["1", "1"]
        file.write_text("VERSION_OF_FILE=2\n")
        server.upgrade()
        assert server.get()["version"] == ["2", None]


def test_end_during_an_upgrade_ends_both(tmp_path: Path) -> None:
    with Running(tmp_path, "--workers", "2") as server:
        server.write("import time; time.sleep(60)")
        server.kill(signal.SIGUSR2)
        successor = int(server.wait_for_message("Upgrading: process")["message"].split()[2])
        # Its processes have no handlers of signals before it has.
        eventually(lambda: bool(Path(f"/proc/{successor}/task/{successor}/children").read_text()))
        assert server.end() == 0
        eventually(lambda: not is_running(successor))


def test_program_that_cannot_be_started_again_says_so(tmp_path: Path) -> None:
    with Running(tmp_path, "--workers", "2", wait=False, command=["-"], stdin=PROGRAM) as server:
        server.wait_for(is_start)
        server.kill(signal.SIGUSR2)
        assert "cannot be run again" in server.wait_for_message("No upgrade")["message"]


def test_environment_of_an_upgrade_is_for_nobody_else(tmp_path: Path) -> None:
    code = "from pounce.supervisor.upgrade import Predecessor; print(Predecessor.from_environ())"
    environ = os.environ | {"LISTEN_FDS_OF_POUNCE": json.dumps({"pid": 1, "report": 0, "sockets": []})}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout == "None\n"
