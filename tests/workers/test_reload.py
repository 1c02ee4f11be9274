"""Reload: new processes take over from old ones, or do not, and nobody who speaks to the server notices."""

import json
import os
import shutil
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.workers.checking_client import CheckingClient
from tests.workers.running import APP, HANGING, PATIENCE, Running, ask, eventually, is_running, read_answer, received

MODES = ("thread", "process", "subinterpreter")

FIRST_STARTS_SLOWLY = (
    APP
    + """
from pathlib import Path
try:
    Path("first").touch(exist_ok=False)
except FileExistsError:
    pass
else:
    while not Path("go on").exists():
        time.sleep(0.01)
"""
)


HOLDS = APP.replace(
    """    if path == "/slow":""",
    """    if path == "/held":
        os.close(os.open("held", os.O_CREAT))
        while not os.path.exists("go on"):
            await asyncio.sleep(0.01)
    elif path == "/slow":""",
)


def version(number: int, app: str = APP) -> str:
    return app.replace("VERSION = 1", f"VERSION = {number}")


@pytest.fixture(params=MODES)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    with Running(tmp_path, "--workers", "2", "--worker-mode", request.param) as running:
        yield running


def reload(server: Running) -> None:
    at = len(server.log)
    server.kill(signal.SIGHUP)
    server.wait_for_message("Reloaded", after=at)


def test_sighup_brings_new_code_without_a_fault(server: Running) -> None:
    with CheckingClient(server.address, keep_alive=16, pause=0.02) as client:
        eventually(lambda: client.verified > 100)
        server.write(version(2))
        reload(server)
        eventually(lambda: client.versions[2] > 100)
    assert client.faults == {}


def test_applications_can_tell_one_generation_of_workers_from_the_next(server: Running) -> None:
    assert server.get()["worker"]["generation"] == 0
    reload(server)
    # What the old one has accepted by now, it answers.
    eventually(lambda: server.get()["worker"]["generation"] == 1)


def test_old_processes_end_after_a_reload(server: Running) -> None:
    old = server.children()
    reload(server)
    eventually(lambda: not any(map(is_running, old)))
    # One that has just ended is still listed until the supervisor has looked at it.
    eventually(lambda: len(server.children()) == len(old))


def test_request_that_runs_is_finished_by_the_old_process(server: Running) -> None:
    old = server.children()
    with server.connect() as client:
        client.sendall(b"GET /held HTTP/1.1\r\nHost: test\r\n\r\n")
        server.reached()
        server.write(version(2))
        at = len(server.log)
        reload(server)
        server.wait_for_message("Shutting down", after=at)
        server.release()
        answer = read_answer(client)
    assert answer["pid"] in old
    assert (answer["version"], answer["close"]) == (1, True)


@pytest.mark.parametrize("mode", ["process", "subinterpreter"])
def test_server_is_ready_while_it_reloads_and_each_worker_knows(mode: str, tmp_path: Path) -> None:
    def workers() -> dict[str, int]:
        return dict(server.get("/readyz")["workers"])

    flags = ("--workers", "2", "--worker-mode", mode, "--probes")
    with Running(tmp_path, *flags, app=HOLDS) as server, server.connect() as old:
        eventually(lambda: workers() == {"wanted": 2, "serving": 2, "starting": 0, "draining": 0})
        old.sendall(b"GET /held HTTP/1.1\r\nHost: test\r\n\r\nGET /readyz HTTP/1.1\r\nHost: test\r\n\r\n")
        eventually((tmp_path / "held").exists)
        reload(server)
        eventually(lambda: workers()["draining"] >= 1)
        (tmp_path / "go on").touch()
        answers = b""
        while answers.count(b"}}") < 2:
            answers += received(old)
        assert answers.count(b"HTTP/1.1 200 OK") == 2
        assert json.loads(answers.rpartition(b"\r\n\r\n")[2])["status"] == "ok"
        eventually(lambda: workers() == {"wanted": 2, "serving": 2, "starting": 0, "draining": 0})


@pytest.mark.parametrize("broken", ["syntax error", "import os; os._exit(1)", "import ctypes; ctypes.string_at(0)"])
def test_new_version_that_cannot_start_changes_nothing(server: Running, broken: str) -> None:
    before = server.children()
    with CheckingClient(server.address, pause=0.02) as client:
        server.write(broken)
        server.kill(signal.SIGHUP)
        server.wait_for_message("Reload failed")
        seen = client.verified
        eventually(lambda: client.verified > seen + 50)
    assert client.faults == {}
    assert set(client.versions) == {1}
    eventually(lambda: server.children() == before)
    server.write(version(3))
    reload(server)
    eventually(lambda: server.get()["version"] == 3)


def test_failed_reload_shows_the_error_of_the_application(server: Running) -> None:
    server.write("def deep():\n    raise RuntimeError('out of luck')\ndeep()")
    server.kill(signal.SIGHUP)
    message = server.wait_for_message("Reload failed")["message"]
    assert "in deep" in message
    assert "RuntimeError: out of luck" in message


def test_reload_during_a_reload_is_not_forgotten(server: Running) -> None:
    server.write(version(2))
    server.kill(signal.SIGHUP)
    server.wait_for_message("Reloading")
    server.write(version(3))
    server.kill(signal.SIGHUP)
    eventually(lambda: server.get()["version"] == 3)


def test_reload_takes_the_place_of_one_that_hangs(server: Running) -> None:
    server.write(HANGING)
    server.kill(signal.SIGHUP)
    eventually((server.folder / "hangs").exists)
    server.write(version(3))
    reload(server)
    eventually(lambda: server.get()["version"] == 3)


def test_who_asked_for_a_reload_is_told_that_a_later_one_took_its_place(tmp_path: Path) -> None:
    path = tmp_path / "control"
    with Running(tmp_path, "--workers", "2", "--control-socket", str(path)) as server:
        server.write(HANGING)
        with ExitStack() as stack:
            first, second = (stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
            for client in (first, second):
                client.settimeout(PATIENCE)
                client.connect(str(path))
            first.sendall(b'{"command": "reload"}\n')
            eventually((tmp_path / "hangs").exists)
            server.write(version(2))
            second.sendall(b'{"command": "reload"}\n')
            assert json.loads(received(first)) == {"ok": False, "error": "a later reload took its place"}
            assert json.loads(received(second)) == {"ok": True}


def test_process_that_asks_for_another_one_during_a_reload_gets_it(tmp_path: Path) -> None:
    (tmp_path / "first").touch()
    flags = ("--worker-mode", "process", "--max-requests", "20", "--recycle-jitter", "0")
    with Running(tmp_path, "--workers", "2", *flags, app=FIRST_STARTS_SLOWLY) as server:
        old = set(server.children())
        (tmp_path / "first").unlink()
        server.kill(signal.SIGHUP)
        eventually(lambda: len(server.children()) == 4)
        # Before old ones ask for others too, which come with the same number.
        new = set(server.children()) - old
        asked: Counter[int] = Counter()
        while not any(asked[pid] > 40 for pid in new):
            asked[server.get()["pid"]] += 1
        (tmp_path / "go on").touch()
        server.wait_for_message("Reloaded")
        server.wait_for_message(f"Process {next(pid for pid in new if asked[pid] > 40)} is replaced")


def test_end_during_a_reload_ends_all(server: Running) -> None:
    server.kill(signal.SIGHUP)
    server.wait_for_message("Reloading")
    children = server.children()
    assert server.end() == 0
    assert not any(map(is_running, children))


def test_sockets_with_tls_and_unix_sockets_are_kept(tmp_path: Path, tls_files: tuple[str, str]) -> None:
    import ssl

    context = ssl.create_default_context(cafile=tls_files[0])
    flags = ("--workers", "2", "--ssl-certfile", tls_files[0], "--ssl-keyfile", tls_files[1])
    binds = ("--bind", "https://127.0.0.1:0", "--bind", f"unix:{tmp_path / 'socket'}?tls=off")
    with Running(tmp_path, *flags, *binds[:2]) as server:
        with CheckingClient(server.address, tls=context, pause=0.02, keep_alive=4, short=2, slow=1) as client:
            eventually(lambda: client.verified > 20)
            server.write(version(2))
            reload(server)
            eventually(lambda: client.versions[2] > 20)
        assert client.faults == {}


def test_unix_socket_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with Running(tmp_path, "--workers", "2", "--bind", "127.0.0.1:0", "--bind", f"unix:{path}") as server:
        inode = path.stat().st_ino
        server.write(version(2))
        reload(server)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            assert ask(client)["version"] in (1, 2)
        assert path.stat().st_ino == inode


# Files that change


def test_changed_file_is_served(tmp_path: Path) -> None:
    with Running(tmp_path, "--reload") as server:
        assert server.get()["parent"] == server.process.pid
        server.write(version(2))
        server.wait_for_message("Reloaded")
        eventually(lambda: server.get()["version"] == 2)


def test_file_that_is_included_by_its_name_is_noticed(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("1")
    with Running(tmp_path, "--reload", "--reload-include", ".env") as server:
        (tmp_path / ".env").write_text("22")
        assert server.wait_for_message("Changed: ")["message"] == "Changed: .env"
        server.wait_for_message("Reloaded")


def test_application_that_writes_a_file_is_not_reloaded_for_ever(tmp_path: Path) -> None:
    app = APP + "\nopen('made.py', 'w').write(f'made = {time.time()}')\n"
    with Running(tmp_path, "--reload", "--reload-delay", "0.05", app=app) as server:
        server.wait_for_message("made.py has caused 3 reloads")
        at = len(server.log)
        server.wait_for_message("Reloaded", after=at)
        server.write(version(2, app))
        server.wait_for_message("Changed: main.py", after=at)
        eventually(lambda: server.get()["version"] == 2)
        changes = [entry["message"] for entry in server.log if entry.get("message", "").startswith("Changed: ")]
        assert changes == ["Changed: made.py"] * 3 + ["Changed: main.py"]


def test_pattern_that_can_never_match_is_an_error_of_the_start(tmp_path: Path) -> None:
    with Running(tmp_path, "--reload", "--reload-exclude", "../data", wait=False) as server:
        assert server.wait() == 2
        assert "reload_exclude '../data' can never match" in server.text()


# A folder that is entered by a link


@pytest.fixture
def releases(tmp_path: Path) -> tuple[Path, Path]:
    """Two versions of an application, and the link by which the first one is entered."""
    for number in (1, 2):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}/main.py").write_text(version(number))
    link = tmp_path / "current"
    link.symlink_to("1")
    return link, tmp_path / "2"


def move(link: Path, to: Path) -> None:
    beside = link.with_name("next")
    beside.symlink_to(to)
    beside.replace(link)


@pytest.mark.parametrize("mode", [*MODES, "reload"])
def test_reload_serves_what_the_link_of_the_folder_leads_to(mode: str, releases: tuple[Path, Path]) -> None:
    link, new = releases
    flags = ("--reload",) if mode == "reload" else ("--workers", "2", "--worker-mode", mode)
    with Running(link, *flags, app=version(1), environ={"PWD": str(link)}) as server:
        assert server.get()["version"] == 1
        move(link, new)
        reload(server)
        eventually(lambda: server.get()["version"] == 2)


def test_link_of_the_folder_that_is_moved_is_a_change(releases: tuple[Path, Path]) -> None:
    link, new = releases
    with Running(link, "--reload", app=version(1), environ={"PWD": str(link)}) as server:
        move(link, new)
        eventually(lambda: server.get()["version"] == 2)


def test_upgrade_serves_what_the_link_of_the_folder_leads_to(releases: tuple[Path, Path]) -> None:
    link, new = releases
    with Running(link, "--workers", "2", app=version(1), environ={"PWD": str(link)}) as server:
        move(link, new)
        server.upgrade()
        assert server.get()["version"] == 2


def test_reload_serves_what_the_link_of_app_dir_leads_to(releases: tuple[Path, Path], tmp_path: Path) -> None:
    link, new = releases
    with Running(tmp_path, "--workers", "2", "--app-dir", str(link)) as server:
        (tmp_path / "main.py").unlink()
        move(link, new)
        reload(server)
        eventually(lambda: server.get()["version"] == 2)


def test_reload_where_the_link_leads_nowhere_changes_nothing(releases: tuple[Path, Path], tmp_path: Path) -> None:
    link, _ = releases
    with Running(link, "--workers", "2", app=version(1), environ={"PWD": str(link)}) as server:
        move(link, tmp_path / "nowhere")
        server.kill(signal.SIGHUP)
        assert str(link) in server.wait_for_message("Reload failed")["message"]
        assert server.get()["version"] == 1


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
        reload(server)
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


def pounce(*words: str) -> subprocess.CompletedProcess[str]:
    script = shutil.which("pounce", path=str(Path(os.sys.executable).parent))  # type: ignore[attr-defined]
    assert script is not None
    return subprocess.run([script, *words], capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_running_server_is_controlled_by_its_socket(tmp_path: Path) -> None:
    path = tmp_path / "control"
    pid_file = tmp_path / "pid"
    with Running(tmp_path, "--workers", "2", "--control-socket", str(path), "--pid-file", str(pid_file)) as server:
        assert path.stat().st_mode & 0o777 == 0o600
        assert int(pid_file.read_text()) == server.process.pid
        shown = pounce("status", "--control-socket", str(path))
        assert (shown.returncode, shown.stderr) == (0, "")
        assert f"pid {server.process.pid}" in shown.stdout
        assert "2 workers" in shown.stdout
        server.write(version(2))
        assert pounce("reload", "--control-socket", str(path)).returncode == 0
        eventually(lambda: server.get()["version"] == 2)
        server.write("nonsense")
        failed = pounce("reload", "--control-socket", str(path))
        assert failed.returncode == 3
        assert "reload failed" in failed.stderr
        assert pounce("stop", "--control-socket", str(path)).returncode == 0
        assert server.wait() == 0
        assert not path.exists()
        assert not pid_file.exists()
        assert pounce("status", "--control-socket", str(path)).returncode == 2


GIVEN_UP = "1 requests did not finish in time"
FOR_EVER = "600"


@pytest.mark.parametrize("mode", MODES)
def test_old_processes_have_the_time_of_a_reload_to_finish(mode: str, tmp_path: Path) -> None:
    flags = ("--reload-timeout", "0", "--shutdown-timeout", FOR_EVER, "--drain-disconnect", "100")
    with Running(tmp_path, "--workers", "2", "--worker-mode", mode, *flags) as server, server.connect() as client:
        client.sendall(b"GET /held HTTP/1.1\r\nHost: test\r\n\r\n")
        server.reached()
        at = len(server.log)
        reload(server)
        server.wait_for_message(GIVEN_UP, after=at)
        server.release()
        assert server.end() == 0


# A process of its own has its one worker on a thread.
@pytest.mark.parametrize("mode", ["thread", "subinterpreter"])
def test_the_end_of_the_server_cuts_the_time_of_a_reload_short(mode: str, tmp_path: Path) -> None:
    flags = ("--reload-timeout", FOR_EVER, "--shutdown-timeout", "0", "--drain-disconnect", "100")
    with Running(tmp_path, "--workers", "2", "--worker-mode", mode, *flags) as server, server.connect() as client:
        client.sendall(b"GET /held HTTP/1.1\r\nHost: test\r\n\r\n")
        server.reached()
        reload(server)
        server.wait_for_message("1 requests running")
        assert GIVEN_UP not in server.text()
        assert server.end() == 0
        assert GIVEN_UP in server.text()
