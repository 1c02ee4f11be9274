"""What all workers have counted, whatever process they are in, and whatever has become of them."""

import os
import signal
from pathlib import Path
from urllib.request import urlopen

import pytest
from tests.workers.running import Running, eventually, is_start, status

from pounce.supervisor.control import ask

MODES = ["thread", "process", "subinterpreter"]
MALFORMED = b"GET / HTTP/1.1\r\nHost: one\r\nHost: two\r\n\r\n"


def refuse(server: Running, times: int) -> str:
    """Ask what is refused, so many times; gives the code of it."""
    for _ in range(times):
        with server.connect() as client:
            client.sendall(MALFORMED)
            assert client.makefile("rb").read().startswith(b"HTTP/1.1 400 ")
    return "POUNCE_PARSE_DUPLICATE_HOST"


def counted(control: Path) -> dict[str, float]:
    found: dict[str, float] = status(control)["counts"]
    return found


@pytest.mark.parametrize("mode", MODES)
def test_nothing_that_was_counted_is_lost_when_workers_are_replaced(
    mode: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    flags = ("--workers", "2", "--worker-mode", mode)
    # The path of a socket may not be long.
    run = tmp_path_factory.mktemp("run")
    with Running(tmp_path, *flags, environ={"XDG_RUNTIME_DIR": str(run)}) as server:
        (control,) = (run / "pounce").iterdir()
        code = refuse(server, 8)
        assert counted(control)[code] == 8
        before = set(server.children())
        server.kill(signal.SIGHUP)
        server.wait_for_message("Reloaded")
        eventually(lambda: not before & set(server.children()))
        assert counted(control)[code] == 8
        refuse(server, 3)
        server.kill(signal.SIGTTOU)
        server.wait_for_message("Serving with 1 worker")
        eventually(lambda: sum(len(process["workers"]) for process in status(control)["processes"]) == 1)
        found = counted(control)
        assert (found[code], found["reloads"]) == (11, 1)


def test_workers_come_and_go_by_the_control_socket(tmp_path: Path) -> None:
    control = str(tmp_path / "control")
    with Running(tmp_path, "--workers", "1", "--worker-mode", "thread", "--control-socket", control):
        assert ask(control, "add-worker") == {"ok": True, "workers": 2}
        assert ask(control, "remove-worker") == {"ok": True, "workers": 1}
        assert ask(control, "remove-worker") == {"ok": True, "workers": 1}


def test_a_status_tells_of_the_memory_of_the_processes_and_their_own_address_of_all_workers(tmp_path: Path) -> None:
    control = tmp_path / "control"
    flags = ("--workers", "2", "--worker-mode", "process", "--metrics-enabled", "--control-socket", str(control))
    with Running(tmp_path, *flags, "--metrics-bind", "127.0.0.1:0") as server:
        with urlopen(server.wait_for(is_start)["urls"][1] + "/metrics", timeout=60) as answer:
            assert b"pounce_workers 2" in answer.read()
        wanted = {f"process_resident_memory_bytes{{pid={pid}}}" for pid in server.children()}
        eventually(lambda: wanted <= status(control)["gauges"].keys())


def test_what_a_killed_process_had_told_stays(tmp_path: Path) -> None:
    control = tmp_path / "control"
    flags = ("--workers", "2", "--worker-mode", "process", "--control-socket", str(control))
    with Running(tmp_path, *flags) as server:
        code = refuse(server, 8)
        assert counted(control)[code] == 8
        os.kill(server.children()[0], signal.SIGKILL)
        server.wait_for_message("was killed by")
        found = counted(control)
        assert (found[code], found["process_deaths"]) == (8, 1)


def test_a_process_that_does_not_answer_keeps_nobody_waiting(tmp_path: Path) -> None:
    control = tmp_path / "control"
    flags = ("--workers", "2", "--worker-mode", "process", "--control-socket", str(control))
    with Running(tmp_path, *flags) as server:
        code = refuse(server, 8)
        assert counted(control)[code] == 8
        stopped = server.children()[0]
        os.kill(stopped, signal.SIGSTOP)
        try:
            assert counted(control)[code] == 8
        finally:
            os.kill(stopped, signal.SIGCONT)
