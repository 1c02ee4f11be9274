"""The control socket: what its clients may do, none of which ends the server."""

import json
import os
import re
import selectors
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pounce import BindError
from pounce.supervisor.control import ANSWER_MAX, Answer, ControlSocket, ask, open_control
from pounce.supervisor.control_folder import running

PATIENCE = 60.0


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


# Where it is opened


def opened(path: Path, *, takes_over: bool = False) -> ControlSocket:
    return ControlSocket(str(path), selectors.DefaultSelector(), {}, takes_over=takes_over)


def test_control_socket_is_for_its_owner_alone_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "control"
    found = opened(path)
    assert list(tmp_path.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found.close()
    assert list(tmp_path.iterdir()) == []


def test_control_socket_is_not_kept_from_its_place_by_names_that_can_be_guessed(tmp_path: Path) -> None:
    path, precious = tmp_path / "control", tmp_path / "precious"
    guessed = tmp_path / f"control.{os.getpid()}"
    guessed.symlink_to(precious)
    opened(path).close()
    assert guessed.is_symlink()
    assert not precious.exists()


def test_control_socket_goes_through_no_link_in_the_place_of_its_first_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "urandom", bytes)
    link = tmp_path / f".{bytes(6).hex()}"
    link.symlink_to(tmp_path / "precious")
    with pytest.raises(BindError, match="cannot open"):
        opened(tmp_path / "control")
    assert link.is_symlink()
    assert not (tmp_path / "precious").exists()


@pytest.mark.parametrize("takes_over", [False, True])
def test_control_socket_takes_no_file_away(tmp_path: Path, takes_over: bool) -> None:
    path = tmp_path / "control"
    path.write_text("precious")
    with pytest.raises(BindError) as caught:
        opened(path, takes_over=takes_over)
    assert caught.value.code == "POUNCE_BIND_IN_USE"
    assert [each.name for each in tmp_path.iterdir()] == ["control"]
    assert path.read_text() == "precious"


@pytest.mark.parametrize(("name", "hint"), [("missing/control", "There is no folder"), ("x" * 200, "at most 10[37]")])
def test_control_socket_that_cannot_be_opened_says_what_helps(tmp_path: Path, name: str, hint: str) -> None:
    with pytest.raises(BindError) as caught:
        opened(tmp_path / name)
    assert re.search(hint, caught.value.hint or "")


# Where one is that nobody has named


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the sockets of this user are, from now on; the path of one may not be long."""
    above = tmp_path_factory.mktemp("c")
    for name, variable in (("run", "XDG_RUNTIME_DIR"), ("tmp", "TMPDIR")):
        (above / name).mkdir(mode=0o700)
        monkeypatch.setenv(variable, str(above / name))
    return above / "run" / "pounce"


def opened_for(app: object) -> ControlSocket | None:
    return open_control("auto", app, selectors.DefaultSelector(), {})


def test_server_is_found_by_the_name_of_its_application_in_a_folder_of_its_user_alone(folder: Path) -> None:
    found = opened_for("shop.main:app")
    assert found is not None
    path = folder / f"shop.main:app-{os.getpid()}.control"
    assert running() == [str(path)]
    assert [stat.S_IMODE(each.stat().st_mode) for each in (folder, path)] == [0o700, 0o600]
    found.close()
    assert running() == []
    assert not path.exists()


@pytest.mark.parametrize("app", ["../../etc:app", "x" * 300, "a b\n:c", "-", lambda: None])
def test_no_name_of_an_application_leads_out_of_the_folder(folder: Path, app: object) -> None:
    found = opened_for(app)
    assert found is not None
    assert [Path(each).parent for each in running()] == [folder]
    found.close()


def test_socket_of_a_server_that_was_killed_is_removed_by_the_next_one(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    left = folder / "main:app-1.control"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(left))
    found = opened_for("main:app")
    assert found is not None
    assert not left.exists()
    found.close()


def test_socket_of_a_server_that_was_killed_is_no_server(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(folder / "main:app-1.control"))
    assert running() == []
    assert list(folder.iterdir()) == []


def spoil_mode(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    folder.chmod(0o750)


def spoil_by_link(folder: Path) -> None:
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    folder.symlink_to(elsewhere)


def spoil_above(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    folder.parent.chmod(0o777)


def spoil_by_file(folder: Path) -> None:
    folder.write_text("precious")


SPOILED = [spoil_mode, spoil_by_link, spoil_above, spoil_by_file]


@pytest.mark.parametrize("spoil", SPOILED)
def test_folder_that_others_could_enter_or_replace_is_not_used(folder: Path, spoil: Callable[[Path], None]) -> None:
    spoil(folder)
    found = opened_for("main:app")
    assert found is not None
    (path,) = running()
    assert Path(path).parent.parent.name == "tmp"
    found.close()


@pytest.mark.parametrize("spoil", SPOILED)
def test_server_that_can_have_no_safe_folder_goes_without(folder: Path, spoil: Callable[[Path], None]) -> None:
    spoil(folder)
    spoil(folder.parent.parent / "tmp" / f"pounce-{os.geteuid()}")
    assert opened_for("main:app") is None
    assert running() == []


def test_folder_of_somebody_else_is_not_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert opened_for("main:app") is None


@pytest.mark.parametrize("setting", ["off", None])
def test_server_that_is_to_have_no_socket_has_none(folder: Path, setting: str | None) -> None:
    assert open_control(setting, "main:app", selectors.DefaultSelector(), {}) is None
    assert not folder.exists()


# Its client


class Liar:
    """Somebody else's socket: it answers the first line of each client with `answer`, and leaves it open."""

    def __init__(self, path: Path, answer: bytes) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.bind(str(path))
        self._sock.listen()
        self._answer = answer
        self._clients: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._sock.accept()
                self._clients.append(client)
                client.recv(4096)
                client.sendall(self._answer)
            except OSError:
                return

    def close(self) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for client in (self._sock, *self._clients):
            client.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\xff\xfe\n",
        b"[]\n",
        b"null\n",
        b"{}\n",
        b'{"ok": 1.5}\n',
        b'{"ok": false}\n',
        b'{"ok": false, "error": ["no"]}\n',
        b"[" * 100_000 + b"\n",
        b"x" * (ANSWER_MAX + 1),
    ],
    ids=lambda answer: answer[:20],
)
def test_answer_that_is_none_of_a_server_is_told_from_one(tmp_path: Path, answer: bytes) -> None:
    liar = Liar(tmp_path / "control", answer)
    try:
        with pytest.raises(ValueError):
            ask(str(tmp_path / "control"), "status", timeout=PATIENCE)
    finally:
        liar.close()


def test_answer_without_an_end_is_waited_for_as_long_as_was_said(tmp_path: Path) -> None:
    liar = Liar(tmp_path / "control", b'{"ok": true')
    try:
        with pytest.raises(TimeoutError):
            ask(str(tmp_path / "control"), "status", timeout=0.01)
    finally:
        liar.close()
