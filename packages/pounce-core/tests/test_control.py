"""The control socket: what its clients may do, none of which ends the server."""

import json
import selectors
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pounce.supervisor.control import Answer, ControlSocket

PATIENCE = 10.0


class Control:
    """A control socket without a supervisor: `echo` is answered at once, `wait` by the test."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self.waiting: list[Answer] = []
        self.selector = selectors.DefaultSelector()
        commands = {"echo": lambda answer: answer({"ok": True}), "wait": self.waiting.append}
        self.socket = ControlSocket(self._path, self.selector, commands)

    def client(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(PATIENCE)
        client.connect(self._path)
        self.turn()
        return client

    def events(self) -> list[Any]:
        """What there is to do next."""
        found = [key.data for key, _ in self.selector.select(PATIENCE)]
        assert found
        return found

    def turn(self) -> None:
        for event in self.events():
            event()


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    found = Control(tmp_path / "control")
    yield found
    found.socket.close()
    found.selector.close()


def command(name: str) -> bytes:
    return json.dumps({"command": name}).encode() + b"\n"


def lines(client: socket.socket, count: int) -> list[dict[str, Any]]:
    data = b""
    while data.count(b"\n") < count:
        piece = client.recv(4096)
        assert piece, "the connection ended before the answer"
        data += piece
    return [json.loads(line) for line in data.splitlines()]


def test_client_that_goes_away_while_it_is_answered_disturbs_nobody(control: Control) -> None:
    client = control.client()
    client.sendall(command("wait"))
    control.turn()
    client.close()
    events = control.events()
    # In the same turn of the loop, before its end is looked at.
    control.waiting[0]({"ok": True})
    for event in events:
        event()
    with control.client() as other:
        other.sendall(command("echo"))
        control.turn()
        assert lines(other, 1) == [{"ok": True}]


def test_client_that_has_ended_its_half_gets_its_answer_and_an_end(control: Control) -> None:
    with control.client() as client:
        client.sendall(command("wait"))
        client.shutdown(socket.SHUT_WR)
        control.turn()
        control.turn()
        control.waiting[0]({"ok": True})
        assert lines(client, 1) == [{"ok": True}]
        assert client.recv(1) == b""


def test_client_that_ends_its_half_without_a_command_is_let_go(control: Control) -> None:
    with control.client() as client:
        client.shutdown(socket.SHUT_WR)
        control.turn()
        assert client.recv(1) == b""


def test_client_that_has_ended_its_half_waits_for_the_end_of_the_server(control: Control) -> None:
    with control.client() as client:
        client.sendall(command("wait"))
        control.turn()
        client.shutdown(socket.SHUT_WR)
        control.waiting[0]({"ok": True})
        control.socket.leave()
        control.turn()
        assert lines(client, 1) == [{"ok": True}]
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(1)
        control.socket.close()
        assert client.recv(1) == b""


@pytest.mark.parametrize("pieces", [(0, 10), (0, 20, 25), (0,)])
def test_commands_are_lines_however_they_arrive(control: Control, pieces: tuple[int, ...]) -> None:
    data = command("echo") * 2
    with control.client() as client:
        for start, end in zip(pieces, (*pieces[1:], len(data)), strict=True):
            client.sendall(data[start:end])
            control.turn()
        assert lines(client, 2) == [{"ok": True}] * 2


def test_line_that_has_no_end_is_not_kept(control: Control) -> None:
    with control.client() as client:
        client.sendall(b"x" * 4096)
        control.turn()
        assert client.recv(1) == b""


@pytest.mark.parametrize("line", [b"", b"\xff", b"[]", b'{"command": {}}', b"[" * 4000])
def test_line_that_is_no_command_is_answered(control: Control, line: bytes) -> None:
    with control.client() as client:
        client.sendall(line + b"\n")
        control.turn()
        assert lines(client, 1) == [{"ok": False, "error": "commands are echo, wait"}]
