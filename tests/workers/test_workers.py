"""Several workers: where they run, how connections are spread over them, and what becomes of one that dies."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.workers.running import (
    APP,
    FEWEST,
    HANGING,
    PATIENCE,
    Running,
    ask,
    eventually,
    is_running,
    is_start,
    read_answer,
    status,
)

from pounce import ConfigError, ServerConfig
from pounce.cpus import usable_cpus
from pounce.registry import gil_enabled
from pounce.settings.types import WorkerMode
from pounce.supervisor.modes import mode_of, workers_of
from pounce.testing import TestServer

MODES = ("thread", "process", "subinterpreter")

STARTS_SLOWLY = """
import os, pathlib, sys, time
if "-c" in sys.orig_argv:
    pathlib.Path(f"starts.{os.getpid()}").touch()
    while not pathlib.Path("go on").exists():
        time.sleep(0.01)
"""

FIRST_HANGS = """
import os, threading
try:
    os.mkdir("first")
except FileExistsError:
    raise RuntimeError("out of luck")
threading.Event().wait()
"""


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(mode: str, tmp_path: Path) -> Iterator[Running]:
    with Running(tmp_path, "--workers", "2", "--worker-mode", mode) as running:
        yield running


@pytest.fixture(scope="module", params=MODES)
def lasting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that several tests ask, and do nothing else to; its bind has a setting of its own."""
    flags = ("--workers", "2", "--worker-mode", request.param, "--bind", "127.0.0.1:0?max_headers=2")
    with Running(tmp_path_factory.mktemp("lasting"), *flags) as running:
        yield running


def placed(server: Running, connections: int) -> Counter[tuple[int, str]]:
    """How many of so many open connections each worker has."""
    clients = [server.connect() for _ in range(connections)]
    try:
        answers = [ask(client) for client in clients]
    finally:
        for client in clients:
            client.close()
    return Counter((answer["pid"], answer["thread"]) for answer in answers)


# Where they run


def test_threads_are_in_one_process(tmp_path: Path) -> None:
    with Running(tmp_path, "--workers", "3", "--worker-mode", "thread") as server:
        workers = placed(server, 12)
        assert len({pid for pid, _ in workers}) == 1
        assert len(workers) == 3


def test_processes_have_one_worker_each(tmp_path: Path) -> None:
    with Running(tmp_path, "--workers", "2", "--worker-mode", "process") as server:
        assert len(server.children()) == 2
        assert {pid for pid, _ in placed(server, 40)} <= set(server.children())


def test_settings_of_a_bind_hold_in_every_mode(lasting: Running) -> None:
    with lasting.connect() as client:
        assert ask(client)["close"] is False
        client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nA: 1\r\nB: 2\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(("gil", "processes"), [("0", 1), ("1", 2)])
@pytest.mark.skipif("t" not in sys.abiflags, reason="the GIL cannot be switched off")
def test_auto_follows_the_gil(gil: str, processes: int, tmp_path: Path) -> None:
    with Running(tmp_path, "--workers", "2", environ={"PYTHON_GIL": gil}) as server:
        assert len(server.children()) == processes


@pytest.mark.parametrize("alias", ["auto", "sync", "async"])
def test_sync_and_async_are_auto(alias: WorkerMode) -> None:
    assert mode_of(ServerConfig(worker_mode=alias)) == ("process" if gil_enabled() else "thread")


def test_one_worker_stays_in_the_calling_process(tmp_path: Path) -> None:
    with Running(tmp_path, "--workers", "1") as server:
        assert server.get()["pid"] == server.process.pid
        assert server.children() == []


def test_subinterpreters_are_in_one_process_and_import_the_application_each(tmp_path: Path) -> None:
    app = APP.replace("VERSION = 1", "from concurrent import interpreters; VERSION = interpreters.get_current().id")
    with Running(tmp_path, "--workers", "2", "--worker-mode", "subinterpreter", app=app) as server:
        pids, interpreters = set(), set()
        # Which of them takes a connection is for the system to decide.
        for _ in range(2000):
            with server.connect() as client:
                answer = ask(client)
            pids.add(answer["pid"])
            interpreters.add(answer["version"])
            if len(interpreters) == 2:
                break
        assert pids == set(server.children())
        assert len(interpreters) == 2
        assert server.end() == 0


@pytest.mark.skipif("t" not in sys.abiflags, reason="the GIL cannot be switched off")
def test_subinterpreters_have_a_gil_each_where_there_is_one(tmp_path: Path) -> None:
    flags = ("--workers", "2", "--worker-mode", "subinterpreter")
    with Running(tmp_path, *flags, environ={"PYTHON_GIL": "1"}) as server:
        assert server.get("/?gil")["query"] == "gil"
        assert server.end() == 0


def test_extension_module_that_refuses_subinterpreters_is_named(tmp_path: Path) -> None:
    flags = ("--workers", "2", "--worker-mode", "subinterpreter")
    with Running(tmp_path, *flags, app="import faulthandler", wait=False) as server:
        assert server.wait() == 4
        assert "POUNCE_APP_NO_SUBINTERPRETERS" in server.text()
        assert "extension module that cannot be loaded in a subinterpreter" in server.text()


def test_subinterpreters_need_the_name_of_the_application(tmp_path: Path) -> None:
    run = '\nimport pounce\npounce.run(app, port=0, workers=2, worker_mode="subinterpreter")\n'
    with Running(tmp_path, app=APP + run, command=["main.py"], wait=False) as server:
        assert server.wait() == 1
        assert "cannot be handed to other interpreters" in server.text()


def test_no_number_means_as_many_as_there_are_cpus() -> None:
    assert workers_of(ServerConfig(workers=0)) == usable_cpus()


def test_the_supervisor_does_not_import_the_application(lasting: Running) -> None:
    answer = lasting.get()
    assert answer["pid"] != lasting.process.pid
    assert answer["parent"] == lasting.process.pid


def test_port_0_is_the_same_port_for_all(lasting: Running) -> None:
    assert lasting.address[1] > 0
    assert lasting.get()["query"] == ""


@pytest.mark.parametrize("mode", ["thread", "process"])
def test_application_object_is_served_by_copies_of_the_process(mode: str, tmp_path: Path) -> None:
    run = f'\nimport pounce\npounce.run(app, port=0, workers=2, worker_mode="{mode}", log_format="json")\n'
    with Running(tmp_path, app=APP + run, command=["main.py"]) as server:
        assert server.get()["parent"] == server.process.pid
        first = server.get()["pid"]
        os.kill(first, signal.SIGKILL)
        server.wait_for_message("was killed by SIGKILL")
        assert server.get()["pid"] != first
        assert server.end() == 0


def test_application_object_in_a_process_with_threads_is_refused(tmp_path: Path) -> None:
    run = (
        "\nimport pounce\nthreading.Thread(target=threading.Event().wait, daemon=True, name='mine').start()"
        "\npounce.run(app, port=0, workers=2)\n"
    )
    with Running(tmp_path, app=APP + run, command=["main.py"], wait=False) as server:
        assert server.wait() == 1
        assert "this one has other threads (mine)" in server.text()


def test_program_that_serves_while_it_is_imported_is_told_so(tmp_path: Path) -> None:
    run = '\nimport pounce\npounce.run("main:app", port=0, workers=2)\n'
    with Running(tmp_path, app=APP + run, command=["main.py"], wait=False) as server:
        assert server.wait() == 1
        assert '__name__ == "__main__"' in server.text()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system knows no affinity")
@pytest.mark.parametrize("mode", [*MODES, "caller"])
def test_affinity_keeps_each_worker_on_a_cpu_that_is_allowed(mode: str, tmp_path: Path) -> None:
    app = APP.replace('"version": VERSION', '"version": sorted(os.sched_getaffinity(0))')
    workers = () if mode == "caller" else ("--workers", "2", "--worker-mode", mode)
    with Running(tmp_path, *workers, "--cpu-affinity", app=app) as server:
        for cpus in [server.get()["version"] for _ in range(4)]:
            assert len(cpus) == 1
            assert set(cpus) <= os.sched_getaffinity(0)


# Spread


def test_threads_get_connections_evenly(tmp_path: Path) -> None:
    with Running(tmp_path, "--workers", "4", "--worker-mode", "thread") as server:
        assert list(placed(server, 64).values()) == [16, 16, 16, 16]


def test_worker_that_stands_still_is_given_nothing_that_another_can_do(tmp_path: Path) -> None:
    app = APP.replace(
        "        time.sleep(float(query))\n",
        """        open("blocked", "w").close()
        while not os.path.exists("released"):
            time.sleep(0.01)
""",
    )
    workers = ("--workers", "2", "--worker-mode", "thread", "--worker-timeout", "0")
    with Running(tmp_path, *workers, app=app) as server, server.connect() as blocker:
        blocker.sendall(b"GET /block HTTP/1.1\r\nHost: test\r\n\r\n")
        eventually((tmp_path / "blocked").exists)
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda _: server.get(), range(16)))
        (tmp_path / "released").touch()
        assert len({answer["thread"] for answer in answers}) == 1
        assert read_answer(blocker)["thread"] not in {answer["thread"] for answer in answers}


def test_max_connections_holds_for_all_workers_together(tmp_path: Path) -> None:
    with Running(tmp_path, "--workers", "2", "--worker-mode", "thread", "--max-connections", "4") as server:
        clients = [server.connect() for _ in range(4)]
        for client in clients:
            ask(client)
        with server.connect() as further:
            further.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            assert further.recv(65536).startswith(b"HTTP/1.1 503 ")
        for client in clients:
            client.close()


def test_max_connections_holds_after_workers_were_added(mode: str, tmp_path: Path) -> None:
    control = tmp_path / "control"
    flags = ("--workers", "2", "--worker-mode", mode, "--max-connections", "40", "--control-socket", str(control))

    def workers() -> set[int]:
        return {worker["number"] for process in status(control)["processes"] for worker in process["workers"]}

    with Running(tmp_path, *flags) as server, ExitStack() as opened:
        for number in (3, 4):
            server.kill(signal.SIGTTIN)
            server.wait_for_message(f"Serving with {number} workers")
        eventually(lambda: workers() == {0, 1, 2, 3})
        served = 0
        for _ in range(200):
            client = opened.enter_context(server.connect())
            client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            served += client.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert 10 <= served <= 40


# Death


@pytest.fixture(scope="module", params=MODES)
def dying(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server whose processes tests let die: no more often than it starts others."""
    flags = ("--workers", "2", "--worker-mode", request.param)
    with Running(tmp_path_factory.mktemp("dying"), *flags) as running:
        yield running
        assert running.end() == 0


@pytest.mark.parametrize("path", ["/segfault", "/exit"])
def test_process_that_dies_is_replaced(dying: Running, path: str) -> None:
    at = len(dying.log)
    with dying.connect() as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        assert client.recv(65536) == b""
    dying.wait_for_message("A new process starts", after=at)
    for _ in range(10):
        assert dying.get("/?again")["query"] == "again"
    eventually(lambda: len(dying.children()) == dying.processes)


def test_processes_end_when_the_supervisor_is_killed(server: Running) -> None:
    children = server.children()
    assert children
    with server.connect() as client:
        client.sendall(b"GET /held?it HTTP/1.1\r\nHost: test\r\n\r\n")
        server.reached()
        server.process.kill()
        server.release()
        assert read_answer(client)["query"] == "it"
    eventually(lambda: not any(map(is_running, children)))


@pytest.mark.faults
def test_application_that_keeps_dying_ends_the_server(tmp_path: Path) -> None:
    # Restarted, it dies while it starts: five times in the 16 seconds that the pauses make.
    app = APP + "\nimport pathlib\nfirst = pathlib.Path('first')\nif first.exists(): os._exit(9)\nfirst.touch()\n"
    with Running(tmp_path, "--workers", "2", "--worker-mode", "thread", app=app) as server:
        with server.connect() as client:
            client.sendall(b"GET /exit HTTP/1.1\r\nHost: test\r\n\r\n")
            client.recv(1)
        assert server.process.wait(60) == 3
        server.wait()
        assert "POUNCE_SUPERVISOR_RESTARTS_SPENT" in server.text()
        pauses = [entry["message"] for entry in server.log if "A new process starts" in entry.get("message", "")]
        assert [pause.split()[-2] for pause in pauses] == ["0.5", "1", "2", "4", "8"]


# Start


@pytest.mark.parametrize("mode", ["thread", "subinterpreter"])
@pytest.mark.parametrize(
    ("app", "code", "message"),
    [
        ("import no_such_module", 4, "no_such_module"),
        ("raise RuntimeError('out of luck')", 4, "out of luck"),
        (APP.replace('message = await receive()', 'raise RuntimeError("no database")'), 0, ""),
        (APP.replace('await send({"type": message', 'raise RuntimeError("no database"); await send({"type": message'),
         3, "no database"),
        ("import ctypes; ctypes.string_at(0)", 3, "SIGSEGV"),
        ("import os; os._exit(5)", 3, "exited with 5"),
    ],
    ids=["missing", "import", "no-lifespan", "lifespan", "segfault", "exit"],
)  # fmt: skip
def test_start_that_fails_ends_the_server_with_the_reason(
    app: str, code: int, message: str, mode: str, tmp_path: Path
) -> None:
    with Running(tmp_path, *FEWEST[mode], app=app, wait=not code) as server:
        assert (server.wait() if code else server.end()) == code
        assert message in server.text()


@pytest.mark.parametrize("where", ["at its import", "in its lifespan"])
@pytest.mark.parametrize("flags", [(), ("--workers", "2")], ids=["alone", "supervised"])
def test_application_that_configures_logging_keeps_the_tracebacks_of_its_failures(
    flags: tuple[str, ...], where: str, tmp_path: Path
) -> None:
    configure = 'import logging.config; logging.config.dictConfig({"version": 1})'
    app = APP.replace(
        '    if path == "/slow"', '    if path == "/raise": raise RuntimeError("out of luck")\n    if path == "/slow"'
    )
    if where == "at its import":
        app = f"{configure}\n{app}"
    else:
        app = app.replace("async def lifespan(receive, send):", f"async def lifespan(receive, send):\n    {configure}")
    with Running(tmp_path, *flags, app=app) as server, server.connect() as client:
        client.sendall(b"GET /raise HTTP/1.1\r\nHost: test\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 500 ")
        server.wait_for(lambda entry: "out of luck" in entry.get("exception", ""))


def test_failed_start_shows_the_traceback_of_the_application(mode: str, tmp_path: Path) -> None:
    app = "def f():\n    raise RuntimeError('deep')\nf()"
    with Running(tmp_path, "--workers", "2", "--worker-mode", mode, app=app, wait=False) as failing:
        assert failing.wait() == 4
        assert "main.py" in failing.text()
        assert "in f" in failing.text()


def test_port_in_use_ends_the_server(lasting: Running, tmp_path: Path) -> None:
    with Running(tmp_path, "--workers", "2", "--bind", f"127.0.0.1:{lasting.address[1]}", wait=False) as second:
        assert second.wait() == 5


# End


def test_signal_drains_all_workers(server: Running) -> None:
    with ExitStack() as stack:

        def asking(path: bytes) -> socket.socket:
            client = stack.enter_context(server.connect())
            client.sendall(b"GET %s HTTP/1.1\r\nHost: test\r\n\r\n" % path)
            return client

        clients = [asking(b"/held") for _ in range(8)]
        server.reached(len(clients))
        idle: dict[int, socket.socket] = {}

        def has_one_of_each() -> bool:
            client = asking(b"/")
            idle[read_answer(client)["worker"]["worker_id"]] = client
            return len(idle) == 2

        eventually(has_one_of_each)
        children = server.children()
        server.kill(signal.SIGTERM)
        # A worker that drains leaves idle connections.
        for client in idle.values():
            assert client.recv(1) == b""
        server.release()
        assert [read_answer(client)["close"] for client in clients] == [True] * 8
    assert server.wait() == 0
    assert not any(map(is_running, children))


def test_what_waits_to_be_accepted_at_the_end_is_served(server: Running) -> None:
    for child in server.children():
        os.kill(child, signal.SIGSTOP)
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(20)]
        for number, client in enumerate(clients):
            client.sendall(f"GET /?{number} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        server.kill(signal.SIGTERM)
        for child in server.children():
            os.kill(child, signal.SIGCONT)
        assert [read_answer(client)["query"] for client in clients] == [str(number) for number in range(20)]
    assert server.wait() == 0


def test_second_signal_ends_all_workers_at_once(server: Running) -> None:
    children = server.children()
    with server.connect() as client:
        client.sendall(b"GET /held HTTP/1.1\r\nHost: test\r\n\r\n")
        server.reached()
        server.kill(signal.SIGTERM)
        server.wait_for_message("Shutting down")
        server.kill(signal.SIGTERM)
        assert server.wait() == 1
    assert not any(map(is_running, children))


def test_process_that_is_still_starting_does_not_hold_up_the_end(mode: str, tmp_path: Path) -> None:
    with Running(tmp_path, *FEWEST[mode], app=HANGING, wait=False) as server:
        eventually((tmp_path / "hangs").exists)
        assert server.end() == 0


def test_process_that_is_still_starting_does_not_hold_up_the_error_of_another_one(tmp_path: Path) -> None:
    with Running(tmp_path, "--workers", "2", "--worker-mode", "process", app=FIRST_HANGS, wait=False) as server:
        assert server.wait() == 4
        assert "out of luck" in server.text()


def test_signals_to_the_whole_group_are_the_supervisors(mode: str, tmp_path: Path) -> None:
    with Running(tmp_path, *FEWEST[mode]) as server, server.connect() as client:
        client.sendall(b"GET /held?it HTTP/1.1\r\nHost: test\r\n\r\n")
        server.reached()
        for pid in [*server.children(), server.process.pid]:
            os.kill(pid, signal.SIGINT)
        server.wait_for_message("Shutting down")
        server.release()
        assert read_answer(client)["query"] == "it"
        assert server.wait() == 0


def test_signals_to_the_whole_group_end_no_process_that_starts(mode: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(STARTS_SLOWLY)
    environ = {"PYTHONPATH": str(tmp_path)}
    with Running(tmp_path, "--workers", "2", "--worker-mode", mode, environ=environ, wait=False) as server:
        count = 2 if mode == "process" else 1
        eventually(lambda: len(list(tmp_path.glob("starts.*"))) == count)
        for child in server.children():
            for number in ("TERM", "INT", "HUP", "TTIN", "TTOU", "USR1", "USR2"):
                os.kill(child, signal.Signals[f"SIG{number}"])
        (tmp_path / "go on").touch()
        server.wait_for(is_start)
        assert server.end() == 0


def test_file_of_a_unix_socket_is_removed_at_the_end(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    flags = (*FEWEST[mode], "--bind", "127.0.0.1:0", "--bind", f"unix:{path}")
    with Running(tmp_path, *flags) as server:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            assert ask(client, "/?unix")["query"] == "unix"
        assert server.end() == 0
        assert not path.exists()


# In a process that does other things too


async def hello(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": threading.current_thread().name.encode()})


def test_embedded_workers_are_threads_of_the_process() -> None:
    with TestServer(hello, workers=2, worker_mode="thread") as server:
        clients = [socket.create_connection((server.host, server.port), PATIENCE) for _ in range(2)]
        names = set()
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            names.add(client.recv(65536).rpartition(b"\r\n\r\n")[2])
            client.close()
        assert names == {b"pounce worker 0", b"pounce worker 1"}
        assert server.info.workers == 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pounce worker")]


def test_embedded_workers_may_be_processes_where_the_application_is_named(tmp_path: Path) -> None:
    (tmp_path / "embedded_main.py").write_text(APP)
    with (
        TestServer("embedded_main:app", workers=2, worker_mode="process", app_dir=str(tmp_path)) as server,
        socket.create_connection((server.host, server.port), PATIENCE) as client,
    ):
        assert ask(client)["parent"] == os.getpid()


def test_embedded_processes_need_the_name_of_the_application() -> None:
    with pytest.raises(ConfigError, match="application object"), TestServer(hello, workers=2, worker_mode="process"):
        pass


def test_embedded_workers_that_cannot_start_raise() -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise RuntimeError("no database")

    with pytest.raises(Exception, match="no database"), TestServer(fails, workers=2, worker_mode="thread"):
        pass


def test_interpreter_of_a_server_process_has_the_options_of_this_one(tmp_path: Path) -> None:
    app = APP.replace("VERSION = 1", "import sys; VERSION = [sys.flags.optimize, sys.flags.utf8_mode]")
    command = ["-O", "-X", "utf8=0", "-m", "pounce_cli", "serve", "main:app", "--port", "0", "--workers", "2"]
    with Running(tmp_path, app=app, command=[*command, "--log-format", "json"]) as server:
        assert server.get()["version"] == [1, 0]


def test_module_in_the_current_folder_hides_none_of_the_standard_library(tmp_path: Path) -> None:
    (tmp_path / "selectors.py").write_text("raise RuntimeError('hidden')")
    script = Path(sys.executable).parent / "pounce"
    line = [script, "serve", "main:app", "--port", "0", "--workers", "2", "--app-dir", "", "--log-format", "json"]
    (tmp_path / "main.py").write_text(APP)
    environ = os.environ | {"PYTHONPATH": ""}
    result = subprocess.run(line, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=PATIENCE)
    assert "hidden" not in result.stderr
    assert "there is no module 'main'" in result.stderr


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server without a supervisor, and without a terminal whose end SIGHUP could mean."""
    with Running(tmp_path_factory.mktemp("alone"), stdin="") as running:
        yield running
        assert running.end() == 0


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU])
def test_signal_for_a_supervisor_is_told_where_there_is_none(number: signal.Signals, alone: Running) -> None:
    at = len(alone.log)
    alone.kill(number)
    assert number.name in alone.wait_for_message("is for a supervisor", after=at)["message"]
    assert alone.get("/?still")["query"] == "still"
