"""Reload: new processes take over from old ones, or do not, and nobody who speaks to the server notices."""

import json
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.workers.checking_client import CheckingClient
from tests.workers.running import (
    APP,
    FEWEST,
    HANGING,
    PATIENCE,
    Running,
    ask,
    eventually,
    is_running,
    read_answer,
    received,
    version,
)

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


@pytest.fixture(scope="module", params=MODES)
def lasting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that several tests reload, one after the other."""
    folder = tmp_path_factory.mktemp("lasting")
    with Running(folder, *FEWEST[request.param]) as running:
        yield running


@pytest.fixture
def server(lasting: Running) -> Running:
    """The same when no reload of another test is left."""
    lasting.settle()
    return lasting


def test_sighup_brings_new_code_without_a_fault(server: Running) -> None:
    with CheckingClient(server.address, keep_alive=16, pause=0.1) as client:
        eventually(lambda: client.verified > 100)
        new = server.write_next()
        server.reload()
        eventually(lambda: client.versions[new] > 100)
    assert client.faults == {}


def test_applications_can_tell_one_generation_of_workers_from_the_next(server: Running) -> None:
    before = server.get()["worker"]["generation"]
    server.reload()
    # What the old one has accepted by now, it answers.
    eventually(lambda: server.get()["worker"]["generation"] > before)


def test_generations_of_workers_are_counted_from_0(tmp_path: Path) -> None:
    with Running(tmp_path, "--workers", "1", "--worker-mode", "process") as server:
        assert server.get()["worker"]["generation"] == 0
        server.reload()
        eventually(lambda: server.get()["worker"]["generation"] == 1)


def test_old_processes_end_after_a_reload(server: Running) -> None:
    old = server.children()
    server.reload()
    eventually(lambda: not any(map(is_running, old)))
    # One that has just ended is still listed until the supervisor has looked at it.
    eventually(lambda: len(server.children()) == len(old))


def test_request_that_runs_is_finished_by_the_old_process(server: Running) -> None:
    old, number = server.children(), server.get()["version"]
    with server.connect() as client:
        client.sendall(b"GET /held HTTP/1.1\r\nHost: test\r\n\r\n")
        server.reached()
        server.write_next()
        at = len(server.log)
        server.reload()
        server.wait_for_message("Shutting down", after=at)
        server.release()
        answer = read_answer(client)
    assert answer["pid"] in old
    assert (answer["version"], answer["close"]) == (number, True)


@pytest.mark.parametrize("mode", ["process", "subinterpreter"])
def test_server_is_ready_while_it_reloads_and_each_worker_knows(mode: str, tmp_path: Path) -> None:
    def workers() -> dict[str, int]:
        return dict(server.get("/readyz")["workers"])

    flags = ("--workers", "2", "--worker-mode", mode, "--probes")
    with Running(tmp_path, *flags, app=HOLDS) as server, server.connect() as old:
        eventually(lambda: workers() == {"wanted": 2, "serving": 2, "starting": 0, "draining": 0})
        old.sendall(b"GET /held HTTP/1.1\r\nHost: test\r\n\r\nGET /readyz HTTP/1.1\r\nHost: test\r\n\r\n")
        eventually((tmp_path / "held").exists)
        server.reload()
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
    number = server.get()["version"]
    before = server.children()
    with CheckingClient(server.address, pause=0.1, keep_alive=4, short=2, slow=1) as client:
        at = len(server.log)
        server.write(broken)
        server.kill(signal.SIGHUP)
        server.wait_for_message("Reload failed", after=at)
        seen = client.verified
        eventually(lambda: client.verified > seen + 50)
    assert client.faults == {}
    assert set(client.versions) == {number}
    eventually(lambda: server.children() == before)
    new = server.write_next()
    server.reload()
    eventually(lambda: server.get()["version"] == new)
    eventually(lambda: not any(map(is_running, before)))


def test_failed_reload_shows_the_error_of_the_application(server: Running) -> None:
    at = len(server.log)
    server.write("def deep():\n    raise RuntimeError('out of luck')\ndeep()")
    server.kill(signal.SIGHUP)
    message = server.wait_for_message("Reload failed", after=at)["message"]
    assert "in deep" in message
    assert "RuntimeError: out of luck" in message
    server.write_next()


def test_reload_during_a_reload_is_not_forgotten(server: Running) -> None:
    at = len(server.log)
    server.write_next()
    server.kill(signal.SIGHUP)
    server.wait_for_message("Reloading", after=at)
    at = len(server.log)
    new = server.write_next()
    server.kill(signal.SIGHUP)
    eventually(lambda: server.get()["version"] == new)
    # It may have been read by the first one.
    second = server.log.index(server.wait_for_message("Reloading", after=at))
    server.wait_for_message("Reloaded", after=second)


def test_reload_takes_the_place_of_one_that_hangs(server: Running) -> None:
    server.write(HANGING)
    server.kill(signal.SIGHUP)
    eventually((server.folder / "hangs").exists)
    new = server.write_next()
    server.reload()
    eventually(lambda: server.get()["version"] == new)


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

        def one_has_served() -> bool:
            asked.update(server.get()["pid"] for _ in range(10))
            return any(asked[pid] > 40 for pid in new)

        eventually(one_has_served)
        (tmp_path / "go on").touch()
        server.wait_for_message("Reloaded")
        server.wait_for_message(f"Process {next(pid for pid in new if asked[pid] > 40)} is replaced")


ASKS_EARLY = (
    APP
    + """
import gc
import threading
from pounce.supervisor.process import ServerProcess

asked = threading.Event()
ask = ServerProcess._ask_for_another

def ask_and_tell(self, reason):
    ask(self, reason)
    asked.set()

def wait(phase, info):
    # The run at the end of the start; workers serve by then.
    if phase == "start" and info["generation"] == 2:
        gc.callbacks.remove(wait)
        asked.wait(60)

ServerProcess._ask_for_another = ask_and_tell
gc.callbacks.append(wait)
"""
)


@pytest.mark.parametrize("mode", MODES)
def test_process_that_asks_for_another_one_before_it_is_ready_itself_gets_it(mode: str, tmp_path: Path) -> None:
    command = ["-m", "pounce_cli", "serve", "main:app", "--port", "0", "--log-format", "json", "--max-lifetime", "0.01"]
    command += [*FEWEST[mode], "--recycle-jitter", "0"]
    with Running(tmp_path, app=ASKS_EARLY, command=command) as server:
        server.wait_for_message(f"Process {server.children()[0]} is replaced")


@pytest.mark.parametrize("mode", MODES)
def test_end_during_a_reload_ends_all(mode: str, tmp_path: Path) -> None:
    with Running(tmp_path, *FEWEST[mode]) as server:
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
        with CheckingClient(server.address, tls=context, pause=0.1, keep_alive=4, short=2, slow=1) as client:
            eventually(lambda: client.verified > 20)
            server.write(version(2))
            server.reload()
            eventually(lambda: client.versions[2] > 20)
        assert client.faults == {}


def test_unix_socket_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with Running(tmp_path, "--workers", "2", "--bind", "127.0.0.1:0", "--bind", f"unix:{path}") as server:
        inode = path.stat().st_ino
        server.write(version(2))
        server.reload()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            assert ask(client)["version"] in (1, 2)
        assert path.stat().st_ino == inode


# How long old ones have


GIVEN_UP = "1 requests did not finish in time"
FOR_EVER = "600"


@pytest.mark.parametrize("mode", MODES)
def test_old_processes_have_the_time_of_a_reload_to_finish(mode: str, tmp_path: Path) -> None:
    flags = ("--reload-timeout", "0", "--shutdown-timeout", FOR_EVER, "--drain-disconnect", "100")
    with Running(tmp_path, *FEWEST[mode], *flags) as server, server.connect() as client:
        client.sendall(b"GET /held HTTP/1.1\r\nHost: test\r\n\r\n")
        server.reached()
        at = len(server.log)
        server.reload()
        server.wait_for_message(GIVEN_UP, after=at)
        server.release()
        assert server.end() == 0


# A process of its own has its one worker on a thread.
@pytest.mark.parametrize("mode", ["thread", "subinterpreter"])
def test_the_end_of_the_server_cuts_the_time_of_a_reload_short(mode: str, tmp_path: Path) -> None:
    flags = ("--reload-timeout", FOR_EVER, "--shutdown-timeout", "0", "--drain-disconnect", "100")
    with Running(tmp_path, *FEWEST[mode], *flags) as server, server.connect() as client:
        client.sendall(b"GET /held HTTP/1.1\r\nHost: test\r\n\r\n")
        server.reached()
        server.reload()
        server.wait_for_message("1 requests running")
        assert GIVEN_UP not in server.text()
        assert server.end() == 0
        assert GIVEN_UP in server.text()
