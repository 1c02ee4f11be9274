"""The end of a server whose application leaves something: the same bound, exit code and words in every mode."""

import os
import re
from pathlib import Path

import pytest
from tests.workers.running import APP, FEWEST, HANGING, Running, eventually, is_running

APP_WITH_THREADS = (
    APP.replace(
        'elif path == "/block"',
        """elif path == "/call":
        open("called", "w").close()
        await asyncio.to_thread(time.sleep, 60)
    elif path == "/block\"""",
    ).replace(
        "async def lifespan(receive, send):",
        """def flush():
    open("release").close()

async def lifespan(receive, send):
    threading.Thread(target=flush, name="flusher").start()
    pool.submit(int)""",
    )
    + """
import concurrent.futures
pool = concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="idle")
"""
)
FORKS = """
import pounce
if __name__ == "__main__":
    pounce.run(
        app, port=0, workers=2, worker_mode="process", log_format="json", access_log=False, shutdown_timeout=0.5
    )
"""
MODES: dict[str, tuple[str, ...]] = {
    "caller": (),
    **FEWEST,
    "reload": ("--reload",),
    "fork": (),
}


@pytest.fixture(autouse=True)
def release(tmp_path: Path) -> None:
    """What the applications wait for until somebody opens it for writing."""
    os.mkfifo(tmp_path / "release")


def end_when_released(server: Running, folder: Path) -> int:
    """The exit code of a server whose application lets go once it is waited for."""
    server.kill(15)
    server.wait_for_message("Waiting up to")
    with (folder / "release").open("w"):
        return server.wait()


def named(server: Running, message: str) -> set[str]:
    """The threads in the lines of the log that begin like this."""
    found: set[str] = set()
    for entry in server.log:
        before, _, names = entry.get("message", "").partition(": ")
        if message in before:
            found |= {name.partition("_")[0] for name in names.split(", ")}
    return found


@pytest.mark.parametrize("mode", MODES)
def test_threads_that_do_not_end_are_named_and_left_and_the_exit_code_is_0(mode: str, tmp_path: Path) -> None:
    flags, app, command = (*MODES[mode], "--shutdown-timeout", "0.5"), APP_WITH_THREADS, None
    if mode == "fork":
        app, command = app + FORKS, ["main.py"]
    with Running(tmp_path, *flags, app=app, command=command) as server, server.connect() as client:
        client.sendall(b"GET /call HTTP/1.1\r\nHost: test\r\n\r\n")
        eventually((tmp_path / "called").exists)
        assert server.end() == 0
        assert "is killed" not in server.text()
        assert named(server, "Waiting up to 2 s for threads of the application") == {"flusher", "pounce executor"}
        assert named(server, "did not end in time and are left") == {"flusher", "pounce executor"}


@pytest.mark.parametrize("mode", ["caller", "process", "subinterpreter"])
def test_thread_that_ends_in_time_is_waited_for(mode: str, tmp_path: Path) -> None:
    with Running(tmp_path, *MODES[mode], app=APP_WITH_THREADS) as server:
        assert end_when_released(server, tmp_path) == 0
        assert named(server, "Waiting up to") == {"flusher"}
        assert named(server, "are left") == set()


@pytest.mark.parametrize("mode", ["caller", "thread", "process"])
def test_start_that_fails_is_not_held_up_by_a_thread(mode: str, tmp_path: Path) -> None:
    app = "import threading\nthreading.Timer(60, print).start()\nraise RuntimeError"
    with Running(tmp_path, *MODES[mode], app=app, wait=False) as server:
        assert server.wait() == 4
        assert "are left" in server.text()


APP_WITH_CHILD = (
    APP.replace(
        "async def lifespan(receive, send):",
        """def child():
    # Ends with the server.
    multiprocessing.parent_process().join()

async def lifespan(receive, send):
    multiprocessing.get_context("spawn").Process(target=child, name="helper").start()""",
    )
    + "\nimport multiprocessing\n"
)
APP_WITH_HANDLER = (
    APP
    + """
import atexit

@atexit.register
def upload():
    open("release").close()
"""
)
APP_WITH_LOG = (
    APP
    + """
import logging

class Slow(logging.Handler):
    def close(self):
        open("release").close()

log = logging.getLogger("app")
log.addHandler(Slow())
"""
)
LEFT = {
    "child": (APP_WITH_CHILD, r"child processes of the application: helper \(pid \d+\)(, helper \(pid \d+\))?"),
    "handler": (APP_WITH_HANDLER, "an exit handler of the application"),
    "log": (APP_WITH_LOG, "an exit handler of the application"),
}


@pytest.mark.parametrize("mode", ["caller", *FEWEST])
@pytest.mark.parametrize("what", LEFT)
def test_what_holds_up_the_exit_of_the_interpreter_is_named_and_left_and_the_exit_code_is_0(
    what: str, mode: str, tmp_path: Path
) -> None:
    app, named = LEFT[what]
    with Running(tmp_path, *MODES[mode], "--shutdown-timeout", "0.5", app=app) as server:
        assert server.end() == 0
        waiting, left = [entry["message"] for entry in server.log if "pplication" in entry.get("message", "")][-2:]
        assert re.fullmatch(f"Waiting up to 2 s for {named}", waiting)
        kind, _, names = named.partition(": ")
        assert re.fullmatch(f"{kind.capitalize()} did not end in time and (are left: {names}|is left)", left)
        assert "is killed" not in server.text()


@pytest.mark.parametrize("mode", ["caller", "process", "subinterpreter"])
def test_exit_handler_that_ends_in_time_is_waited_for(mode: str, tmp_path: Path) -> None:
    with Running(tmp_path, *MODES[mode], app=APP_WITH_HANDLER) as server:
        assert end_when_released(server, tmp_path) == 0
        assert "is left" not in server.text()


@pytest.mark.parametrize("what", ["thread", *LEFT])
@pytest.mark.parametrize("number", [2, 15])
def test_second_signal_ends_the_wait_for_what_is_left_with_exit_code_1(what: str, number: int, tmp_path: Path) -> None:
    app = APP_WITH_THREADS if what == "thread" else LEFT[what][0]
    with Running(tmp_path, "--shutdown-timeout", "60", app=app) as server:
        server.kill(15)
        server.wait_for_message("Waiting up to")
        assert server.end(number) == 1
        assert "left" not in server.text()


@pytest.mark.faults
@pytest.mark.parametrize("mode", ["caller", "thread", "process", "subinterpreter"])
def test_loop_that_stands_still_is_given_up_with_exit_code_0(mode: str, tmp_path: Path) -> None:
    flags = (*MODES[mode], "--shutdown-timeout", "0", "--worker-timeout", "0")
    app = APP.replace(
        "        time.sleep(float(query))", '        open("blocks", "w").close(); time.sleep(float(query))'
    )
    with Running(tmp_path, *flags, app=app) as server, server.connect() as client:
        client.sendall(b"GET /block?60 HTTP/1.1\r\nHost: test\r\n\r\n")
        eventually((tmp_path / "blocks").exists)
        assert server.end() == 0
        assert "did not end" in server.text()


@pytest.mark.parametrize("mode", ["thread", "subinterpreter"])
def test_process_that_hangs_at_its_start_ends_after_its_supervisor(mode: str, tmp_path: Path) -> None:
    with Running(tmp_path, *MODES[mode], app=HANGING, wait=False) as server:
        eventually((tmp_path / "hangs").exists)
        children = server.children()
        assert children
        server.process.kill()
        eventually(lambda: not any(map(is_running, children)))
