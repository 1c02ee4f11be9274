"""Ctrl-C in a terminal, and --reload: somebody waits for the end, so applications that wait are told after a second."""

import os
import pty
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.workers.running import APP, FEWEST, PATIENCE, Running, eventually

WAITS = APP.replace(
    """    elif path == "/block":""",
    """    elif path == "/wait":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        await send({"type": "http.response.body", "body": b"told"})
        return
    elif path == "/block":""",
)
assert WAITS != APP
LONG = ("--shutdown-timeout", "600")
"""Of which applications are told after 80 per cent."""
MODES = ("alone", "thread", "process", "subinterpreter")


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return FEWEST.get(request.param, ())


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """The side that a person sits at, and the other one."""
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def begin(server: Running) -> socket.socket:
    """A request whose application waits until it is told that its client is gone."""
    client = server.connect()
    client.sendall(b"GET /wait HTTP/1.1\r\nHost: test\r\n\r\n")
    data = b""
    while b"begun" not in data:
        data += client.recv(1000)
    return client


def rest(client: socket.socket) -> bytes:
    data = b""
    while piece := client.recv(1000):
        data += piece
    return data


def test_ctrl_c_tells_applications_that_wait_after_a_second(
    mode: tuple[str, ...], terminal: tuple[int, int], tmp_path: Path
) -> None:
    with Running(tmp_path, *mode, *LONG, app=WAITS, terminal=terminal[1]) as server, begin(server) as client:
        os.write(terminal[0], b"\x03")
        assert b"told" in rest(client)
        assert server.wait() == 0


def test_sigterm_on_a_terminal_keeps_its_patience(terminal: tuple[int, int], tmp_path: Path) -> None:
    flags = ("--shutdown-timeout", "3")
    with Running(tmp_path, *flags, app=WAITS, terminal=terminal[1]) as server, begin(server) as client:
        begun = time.monotonic()
        server.kill(signal.SIGTERM)
        assert b"told" in rest(client)
        assert time.monotonic() - begun > 2.3
        assert server.wait() == 0


def test_sigint_without_a_terminal_keeps_its_patience(tmp_path: Path) -> None:
    # A session of its own has no terminal, even where the tests run on one.
    with Running(tmp_path, "--shutdown-timeout", "3", app=WAITS, stdin="", new_session=True) as server:
        with begin(server) as client:
            begun = time.monotonic()
            server.kill(signal.SIGINT)
            assert b"told" in rest(client)
            assert time.monotonic() - begun > 2.3
        assert server.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_with_reload_applications_are_told_after_a_second(number: int, tmp_path: Path) -> None:
    with Running(tmp_path, "--reload", *LONG, app=WAITS) as server, begin(server) as client:
        server.kill(number)
        assert b"told" in rest(client)
        assert server.wait() == 0


def test_a_reload_of_a_changed_file_tells_applications_of_the_old_process_after_a_second(tmp_path: Path) -> None:
    with Running(tmp_path, "--reload", *LONG, app=WAITS) as server, begin(server) as client:
        before = server.children()
        server.write(WAITS.replace("VERSION = 1", "VERSION = 2"))
        assert b"told" in rest(client)
        eventually(lambda: len(server.children()) == 1 and server.children() != before, PATIENCE)
        assert server.get()["version"] == 2
