"""A server that is process 1 waits for orphans, and for nothing that its application has started."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.workers.running import APP, PATIENCE, Running, ask, children_of, eventually, is_start

UNSHARE = ["unshare", "--pid", "--fork", "--kill-child"]


def has_namespaces() -> bool:
    try:
        return subprocess.run([*UNSHARE, "true"], check=False, capture_output=True).returncode == 0
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not has_namespaces(), reason="this user may have no process 1")

STARTS_PROCESSES = (
    APP.replace(
        "    body = json",
        """    if path == "/orphan":
        process = await asyncio.create_subprocess_exec("sh", "-c", "sleep 0.1 & exit 3")
        query = str(await process.wait())
    elif path == "/start":
        waiting.append(subprocess.Popen(["sh", "-c", "exit 4"]))
    elif path == "/wait":
        query = str(waiting.pop().wait())
    body = json""",
    )
    + "\nimport subprocess\nwaiting = []\n"
)
MODES = {"caller": (), "thread": ("--workers", "2"), "process": ("--workers", "1", "--worker-mode", "process")}
OBJECT = """
import pounce
if __name__ == "__main__":
    {before}
    pounce.run(app, port=0, log_format="json", access_log=False)
"""


@contextmanager
def process_1(folder: Path, app: str, *line: str) -> Iterator[Running]:
    """A server that is process 1 of a namespace."""
    inside = shutil.which("unshare") or ""
    command = f"import os; os.execv({inside!r}, {[*UNSHARE, sys.executable, *line]!r})"
    with Running(folder, app=app, command=["-c", command], wait=False) as server:
        url = server.wait_for(is_start)["url"]
        server.address = ("127.0.0.1", int(url.rpartition(":")[2]))
        (server.pid,) = children_of(server.process.pid)
        yield server


def parent_and_state(pid: str) -> tuple[int, str] | None:
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return None
    return int(parent), state


def dead_children(parent: int) -> list[str]:
    return [pid for pid in os.listdir("/proc") if pid.isdigit() and parent_and_state(pid) == (parent, "Z")]


@pytest.mark.parametrize("mode", MODES)
def test_orphans_are_waited_for_and_processes_of_the_application_are_not(mode: str, tmp_path: Path) -> None:
    line = ("-m", "pounce_cli", "serve", "main:app", "--port", "0", "--log-format", "json", *MODES[mode])
    with process_1(tmp_path, STARTS_PROCESSES, *line) as server, server.connect() as client:
        ask(client, "/start")
        before = len(children_of(server.pid))
        for _ in range(3):
            assert ask(client, "/orphan")["query"] == "3"
        # They come when their shell has ended, and go when they have themselves.
        eventually(lambda: len(children_of(server.pid)) == before)
        assert dead_children(server.pid) == []
        assert ask(client, "/wait")["query"] == "4"
        client.close()
        assert server.end() == 0


def test_program_with_processes_of_its_own_is_left_alone(tmp_path: Path) -> None:
    before = 'import subprocess; process = subprocess.Popen(["sh", "-c", "exit 5"]); waiting.append(process)'
    with process_1(tmp_path, STARTS_PROCESSES + OBJECT.format(before=before), "main.py") as server:
        server.wait_for_message("it has children of its own")
        with server.connect() as client:
            assert ask(client, "/wait")["query"] == "5"


def test_exit_code_is_that_of_the_server(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("raise RuntimeError")
    line = [*UNSHARE, sys.executable, "-m", "pounce_cli", "serve", "main:app", "--port", "0"]
    assert subprocess.run(line, cwd=tmp_path, check=False, capture_output=True, timeout=PATIENCE).returncode == 4
