"""Log files of real servers: moved away and opened again, in whatever the workers run."""

import json
import signal
from pathlib import Path

import pytest
from tests.workers.running import Running, eventually


@pytest.mark.parametrize("mode", ["caller", "thread", "process", "subinterpreter"])
def test_rotation_loses_no_line(mode: str, tmp_path: Path) -> None:
    workers = [] if mode == "caller" else ["--workers", "2", "--worker-mode", mode]
    files = ["--access-log-file", "access.log", "--access-log-format", "%(q)s", "--log-format", "json"]
    line = ["-m", "pounce_cli", "serve", "main:app", "--port", "0", *workers, *files]
    path, old = tmp_path / "access.log", tmp_path / "access.log.1"
    with Running(tmp_path, command=line) as server:
        server.get("/?before")
        eventually(lambda: path.read_text() == "before\n")
        path.rename(old)
        server.kill(signal.SIGUSR1)
        asked = 1

        def arrives_in_the_new_one() -> bool:
            nonlocal asked
            server.get("/?after")
            asked += 1
            return path.exists() and "after" in path.read_text()

        eventually(arrives_in_the_new_one)
        eventually(lambda: len((old.read_text() + path.read_text()).splitlines()) == asked)
        assert "before" not in path.read_text()
        assert server.end() == 0


def test_log_and_its_start_are_in_the_file_alone(tmp_path: Path) -> None:
    line = ["-m", "pounce_cli", "serve", "main:app", "--port", "0", "--error-log-file", "all.log"]
    with Running(tmp_path, command=line, wait=False) as server:
        path = tmp_path / "all.log"
        eventually(lambda: path.exists() and '"event": "startup"' in path.read_text())
        assert server.end() == 0
        assert server.text() == ""
        assert "Listening" not in path.read_text()
        events = [json.loads(line) for line in path.read_text().splitlines()]
        assert events[0]["event"] == "startup"
