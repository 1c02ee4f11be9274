"""A running server is told what to do: by signals, by the command line; and what it does itself with workers that
stand still."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from tests import warm
from tests.workers.running import APP, PATIENCE, Running, ask, eventually, read_answer, version

MODES = ("thread", "process", "subinterpreter")

# Signals


@pytest.mark.parametrize("mode", MODES)
def test_ttin_and_ttou_change_the_number_of_workers(mode: str, tmp_path: Path) -> None:
    def workers() -> int:
        clients = [server.connect() for _ in range(12)]
        found = {(answer["pid"], answer["thread"]) for answer in map(ask, clients)}
        for client in clients:
            client.close()
        return len(found)

    with Running(tmp_path, "--workers", "1", "--worker-mode", mode, "--reload") as server:
        server.kill(signal.SIGTTIN)
        server.wait_for_message("Serving with 2 workers")
        eventually(lambda: workers() == 2)
        server.kill(signal.SIGTTOU)
        server.wait_for_message("Serving with 1 workers")
        eventually(lambda: workers() == 1)
        at = len(server.log)
        server.kill(signal.SIGTTOU)
        server.wait_for_message("Serving with 1 workers", after=at)
        assert server.get()["query"] == ""


def test_number_of_workers_outlives_a_reload(tmp_path: Path) -> None:
    with Running(tmp_path, "--workers", "2", "--worker-mode", "process") as server:
        server.kill(signal.SIGTTIN)
        eventually(lambda: len(server.children()) == 3)
        at = len(server.log)
        server.reload()
        server.wait_for_message("Reloaded", after=at)
        eventually(lambda: len(server.children()) == 3)


def test_usr1_opens_log_files_again(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    app = APP + f"\nimport logging\nlogging.getLogger().addHandler(logging.FileHandler({str(path)!r}))\n"
    app = app.replace("    body = json", '    logging.getLogger().error("request %s", query)\n    body = json')
    with Running(tmp_path, "--workers", "2", app=app) as server:
        server.get("/?one")
        path.rename(tmp_path / "app.log.1")
        server.kill(signal.SIGUSR1)
        eventually(path.exists)
        server.get("/?two")
        assert "request two" in path.read_text()
        assert "request two" not in (tmp_path / "app.log.1").read_text()


# Workers that stand still


@pytest.mark.parametrize("mode", ["caller", "thread", "subinterpreter"])
def test_worker_that_stands_still_is_shown_and_replaced(mode: str, tmp_path: Path) -> None:
    workers = () if mode == "caller" else ("--workers", "2", "--worker-mode", mode)
    flags = (*workers, "--worker-timeout", "2")
    with Running(tmp_path, *flags) as server, server.connect() as client:
        before = server.children()
        client.sendall(b"GET /block?6 HTTP/1.1\r\nHost: test\r\n\r\n")
        server.wait_for_message("time.sleep(float(query")
        server.wait_for_message("stands still")
        # The block ends within the drain bound: nothing is killed, and its request is answered.
        answer = read_answer(client)
        assert (answer["query"], answer["close"]) == ("6", True)
        eventually(lambda: len({server.get()["thread"] for _ in range(8)}) == (1 if mode == "caller" else 2))
        assert server.children() == before
        assert server.end() == 0


def test_process_that_stands_still_is_replaced_first(tmp_path: Path) -> None:
    flags = ("--workers", "2", "--worker-mode", "process", "--worker-timeout", "2", "--shutdown-timeout", "1")
    with Running(tmp_path, *flags) as server, server.connect() as client:
        client.sendall(b"GET /block?60 HTTP/1.1\r\nHost: test\r\n\r\n")
        server.wait_for_message("is replaced: a worker stands still")
        for _ in range(20):
            assert server.get("/?here")["query"] == "here"
        server.wait_for_message("abandoned")
        eventually(lambda: len(server.children()) == 2)
        assert server.end() == 0


@pytest.mark.faults
def test_process_that_does_not_even_beat_is_replaced(tmp_path: Path) -> None:
    flags = ("--workers", "2", "--worker-mode", "thread", "--worker-timeout", "2", "--shutdown-timeout", "1")
    with Running(tmp_path, *flags) as server:
        (child,) = server.children()
        os.kill(child, signal.SIGSTOP)
        server.wait_for_message("is replaced: it stands still")
        assert server.get()["pid"] != child
        server.wait_for_message("was killed by SIGKILL")


# The command line


def pounce(*words: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a command."""
    with warm.start(["-m", "pounce_cli", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def script(*words: str) -> subprocess.CompletedProcess[str]:
    script = shutil.which("pounce", path=str(Path(os.sys.executable).parent))  # type: ignore[attr-defined]
    assert script is not None
    return subprocess.run([script, *words], capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_running_server_is_controlled_by_its_socket(tmp_path: Path) -> None:
    path = tmp_path / "control"
    pid_file = tmp_path / "pid"
    with Running(tmp_path, "--workers", "2", "--control-socket", str(path), "--pid-file", str(pid_file)) as server:
        assert path.stat().st_mode & 0o777 == 0o600
        assert int(pid_file.read_text()) == server.process.pid
        shown = script("status", "--control-socket", str(path))
        assert (shown.returncode, shown.stderr) == (0, "")
        assert f"pid {server.process.pid}" in shown.stdout
        assert "2 workers" in shown.stdout
        server.write(version(2))
        assert pounce("reload", "--control-socket", str(path))[0] == 0
        eventually(lambda: server.get()["version"] == 2)
        server.write("nonsense")
        code, _, err = pounce("reload", "--control-socket", str(path))
        assert code == 3
        assert "reload failed" in err
        assert pounce("stop", "--control-socket", str(path))[0] == 0
        assert server.wait() == 0
        assert not path.exists()
        assert not pid_file.exists()
        assert pounce("status", "--control-socket", str(path))[0] == 2
