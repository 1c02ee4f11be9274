"""What a server is to its system: whose it is, what it is called, who is told of its life."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.workers.running import APP, FEWEST, Running, eventually

from pounce import ConfigError
from pounce.testing import TestServer

MODES = ("thread", "process", "subinterpreter")
NOTES = (
    APP
    + """
with open("imported", "a") as file:
    file.write(f"{os.getpid()}\\n")
with open("group", "w") as file:
    file.write(str(os.getgid()))
"""
)
"""Its import leaves a line in a file."""
HOOKS = """
import json

def note(event):
    with open("told", "a") as file:
        file.write(json.dumps({
            "name": event.name, "pid": event.pid, "urls": event.urls, "generation": event.generation,
            "worker_pid": event.worker_pid, "exit_code": event.exit_code,
        }) + "\\n")

def fails(event):
    raise RuntimeError("no")
"""
NAMES = ("on-starting", "when-ready", "on-reload", "worker-exit", "on-exit")
HOOK_FLAGS = [word for name in NAMES for word in (f"--{name}", "hooks:note")]


def told(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "told").read_text().splitlines()]


# Interpreters are in one process, as threads are.
@pytest.mark.parametrize("mode", ["thread", "process"])
def test_hooks_are_told_of_the_life_of_the_server(mode: str, tmp_path: Path) -> None:
    (tmp_path / "hooks.py").write_text(HOOKS)
    with Running(tmp_path, *FEWEST[mode], *HOOK_FLAGS) as server:
        [old] = server.children()
        server.kill(signal.SIGHUP)
        server.wait_for_message("Reloaded")
        eventually(lambda: old in [each["worker_pid"] for each in told(tmp_path)])
        assert server.end() == 0
        events = told(tmp_path)
        names = [each["name"] for each in events]
        assert names[:3] == ["on_starting", "when_ready", "on_reload"]
        assert names[-1] == "on_exit"
        assert {each["pid"] for each in events} == {server.pid}
        assert events[1]["urls"] == [f"http://127.0.0.1:{server.address[1]}"]
        assert events[2]["generation"] == 1
        ended = [each for each in events if each["name"] == "worker_exit"]
        assert len(ended) == 2
        assert {each["exit_code"] for each in ended} == {0}
        assert (events[-1]["urls"], events[-1]["generation"]) == (events[1]["urls"], 1)


def test_hooks_are_called_without_a_supervisor_too(tmp_path: Path) -> None:
    (tmp_path / "hooks.py").write_text(HOOKS)
    with Running(tmp_path, *HOOK_FLAGS) as server:
        url = f"http://127.0.0.1:{server.address[1]}"
        assert server.end() == 0
    events = told(tmp_path)
    assert [each["name"] for each in events] == ["on_starting", "when_ready", "on_exit"]
    assert [each["urls"] for each in events] == [[], [url], [url]]


def test_an_upgrade_is_a_generation_of_its_own_to_hooks(tmp_path: Path) -> None:
    (tmp_path / "hooks.py").write_text(HOOKS)
    with Running(tmp_path, *FEWEST["process"], "--when-ready", "hooks:note") as server:
        server.upgrade()
        assert [each["generation"] for each in told(tmp_path)] == [0, 1]


def test_a_hook_that_fails_is_logged_and_ends_a_start_alone(tmp_path: Path) -> None:
    (tmp_path / "hooks.py").write_text(HOOKS)
    with Running(tmp_path, "--when-ready", "hooks:fails") as server:
        server.wait_for_message("when_ready failed")
        assert server.end() == 0
    with Running(tmp_path, "--on-starting", "hooks:fails", wait=False) as server:
        assert server.wait() == 3
        assert "POUNCE_HOOK_FAILED" in server.text()


@pytest.mark.parametrize("mode", ["thread", "process"])
def test_an_application_that_is_preloaded_is_imported_once(mode: str, tmp_path: Path) -> None:
    # Not by root, where that opens the sockets alone.
    group, given = (str(os.getgid()), ()) if os.geteuid() else (GROUP, ("--group", GROUP))
    flags = (*FEWEST[mode], "--preload")
    with Running(tmp_path, *flags, *given, app=NOTES) as server:
        assert server.get()["parent"] == server.pid
        server.kill(signal.SIGHUP)
        server.wait_for_message("Reloaded")
        assert server.get()["parent"] == server.pid
        assert server.end() == 0
    assert (tmp_path / "imported").read_text().split() == [str(server.pid)]
    assert (tmp_path / "group").read_text() == group


def test_an_application_that_cannot_be_preloaded_ends_the_start(tmp_path: Path) -> None:
    with Running(tmp_path, "--preload", "--worker-mode", "subinterpreter", wait=False) as server:
        assert server.wait() == 2
        assert "preload cannot be handed to other interpreters" in server.text()
    threads = "import threading; threading.Thread(target=threading.Event().wait, name='mine', daemon=True).start()"
    with Running(tmp_path, "--preload", app=f"{threads}\n{APP}", wait=False) as server:
        assert server.wait() == 2
        assert "what preload has imported cannot be handed to other processes" in server.text()


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_one_process_has_the_title_alone_and_the_umask_too(tmp_path: Path) -> None:
    pytest.importorskip("setproctitle")
    with Running(tmp_path, "--process-title", "shop", "--umask", "077", app=NOTES) as server:
        assert command_line(server.pid) == "shop"
    assert stat.S_IMODE((tmp_path / "imported").stat().st_mode) == 0o600


# Users

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="takes root")
GROUP = "54321"


def ids(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {name: fields[name].split() for name in ("Uid", "Gid", "Groups")}


TITLES = {
    "thread": {"shop: 2 workers"},
    "process": {"shop: worker 0", "shop: worker 1"},
    "subinterpreter": {"shop: 2 workers"},
}


@as_root
@pytest.mark.parametrize("mode", MODES)
def test_every_process_is_of_the_group_and_has_the_title_and_the_umask(mode: str, tmp_path: Path) -> None:
    pytest.importorskip("setproctitle")
    flags = ("--workers", "2", "--worker-mode", mode, "--control-socket", str(tmp_path / "control"))
    of_process = ("--group", GROUP, "--process-title", "shop", "--umask", "027")
    with Running(tmp_path, *flags, *of_process, app=NOTES) as server:
        for pid in (server.pid, *server.children()):
            assert ids(pid) == {"Uid": ["0"] * 4, "Gid": [GROUP] * 4, "Groups": [GROUP]}
        assert (tmp_path / "control").stat().st_gid == int(GROUP)
        assert command_line(server.pid) == "shop: supervisor"
        assert {command_line(pid) for pid in server.children()} == TITLES[mode]
        assert server.end() == 0
    assert stat.S_IMODE((tmp_path / "imported").stat().st_mode) == 0o640


TAKES = """
import os
from pounce import ServerConfig
from pounce.supervisor.privileges import Privileges

found = Privileges.of(ServerConfig(user="54322", group="54321"))
open("mine", "w").close()
found.hand_over("mine")
os.symlink("/etc/passwd", "link")
found.hand_over("link")
open("kept", "w").close()
os.link("kept", "other")
found.hand_over("other")
found.take()
assert os.getresuid() == (54322, 54322, 54322), os.getresuid()
assert os.getresgid() == (54321, 54321, 54321)
assert os.getgroups() == [54321]
for back in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0])):
    try:
        back()
    except PermissionError:
        pass
    else:
        raise SystemExit("it can go back")
# The successor of an upgrade is that user already.
assert Privileges.of(ServerConfig(user="54322", group="54321")) is None
try:
    Privileges.of(ServerConfig(user="54323"))
except ValueError as exc:
    assert "take root" in str(exc)
else:
    raise SystemExit("no root and no error")
"""


@as_root
def test_privileges_are_given_up_for_good(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", TAKES], cwd=tmp_path, check=True, timeout=60)
    assert (tmp_path / "mine").stat().st_uid == 54322
    assert Path("/etc/passwd").stat().st_uid == 0
    assert (tmp_path / "kept").stat().st_uid == 0


@pytest.mark.parametrize(("flag", "name"), [("--user", "nobody-of-this-name"), ("--group", "no-such-group")])
def test_a_user_that_does_not_exist_ends_the_start(flag: str, name: str, tmp_path: Path) -> None:
    with Running(tmp_path, flag, name, wait=False) as server:
        assert server.wait() == 2
        assert name in server.text()


@pytest.mark.parametrize("settings", [{"user": "0"}, {"group": "0"}, {"umask": 0}, {"preload": True}])
def test_what_is_of_the_whole_process_is_not_for_a_server_beside_others(settings: dict[str, Any]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    with pytest.raises(ConfigError, match="needs a process of its own"):
        TestServer(app, **settings).start()
