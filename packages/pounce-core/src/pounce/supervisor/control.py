"""The control socket: how a running server is asked how it does, told to reload, and told to end.

A Unix socket that its owner alone can open. One line of JSON goes each way: `{"command": "status"}`, then an answer
with `"ok"`, and with `"error"` where that is false. `reload` is answered when it is over, `stop` when the drain begins;
the connection then stays open until the server has ended.
"""

import errno
import json
import logging
import os
import selectors
import socket
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pounce.errors import BindError
from pounce.net.unix_socket import LONGEST, hint_for
from pounce.supervisor.control_folder import AUTO, is_named, new_path

__all__ = ["ControlSocket", "ask", "open_control"]

log = logging.getLogger("pounce.supervisor")

LINE_MAX = 4096
CLIENTS_MAX = 16
ANSWER_MAX = 4_194_304
"""Bytes of an answer that a client reads; one tells less than 300 of each worker."""

type Answer = Callable[[dict[str, Any]], None]


class Selector(Protocol):
    """What calls `data` when there is something to read."""

    def register(self, fileobj: Any, events: int, data: Any) -> object: ...
    def unregister(self, fileobj: Any) -> object: ...


@dataclass(slots=True)
class Client:
    """What one client has said, and is to be told."""

    unread: bytes = b""
    """The beginning of a line."""
    due: int = 0
    """Answers that it has not got yet."""
    ended: bool = False
    """It says nothing more, and may be gone or wait for its answers: only to answer it shows which."""


class ControlSocket:
    """The server's end. `commands` are called with the function that answers, at once or later, on the same thread."""

    def __init__(
        self,
        path: str,
        selector: Selector,
        commands: Mapping[str, Callable[[Answer], None]],
        *,
        takes_over: bool = False,
    ) -> None:
        """Raises `BindError` when somebody answers at `path`, or something else is there, or it cannot be had.

        With `takes_over` it stays with whoever answers there until `take_over()`.
        """
        self._path = path
        # Moved there when it is complete: a socket that is taken over is at no time missing. Nobody can know the name
        # before, and it is hardly longer than the one that the path ends in.
        self._at = os.path.join(os.path.dirname(path), f".{os.urandom(6).hex()}")
        self._selector = selector
        self._commands = commands
        self._clients: dict[socket.socket, Client] = {}
        self._sock = _listen(path, self._at, takes_over=takes_over)
        status = os.lstat(self._at)
        self._file = (status.st_dev, status.st_ino)
        selector.register(self._sock, selectors.EVENT_READ, self._accept)
        if not takes_over:
            self.take_over()

    def take_over(self) -> None:
        """Have `path`, whoever answers there. Raises `BindError`."""
        if self._at == self._path:
            return
        try:
            os.rename(self._at, self._path)
        except OSError as exc:
            self.close()
            raise _cannot_be_had(self._path, exc) from exc
        self._at = self._path

    def descriptors(self) -> list[int]:
        """All that belong to it."""
        return [self._sock.fileno(), *(client.fileno() for client in self._clients)]

    def leave(self) -> None:
        """Answer no further client, and leave the path, unless it is another's by now."""
        if self._sock.fileno() < 0:
            return
        self._selector.unregister(self._sock)
        try:
            status = os.lstat(self._at)
            if (status.st_dev, status.st_ino) == self._file:
                os.unlink(self._at)
        except OSError:
            pass
        self._sock.close()

    def close(self) -> None:
        """Leave, and let go of the clients."""
        self.leave()
        for client in tuple(self._clients):
            self._drop(client)

    def _accept(self) -> None:
        try:
            client, _ = self._sock.accept()
        except OSError:
            return
        if len(self._clients) >= CLIENTS_MAX:
            client.close()
            return
        client.setblocking(False)
        self._clients[client] = Client()
        self._selector.register(client, selectors.EVENT_READ, lambda: self._read(client))

    def _read(self, client: socket.socket) -> None:
        state = self._clients.get(client)
        if state is None:
            # What was done since the selector has seen it found out that it is gone.
            return
        try:
            data = client.recv(LINE_MAX)
        except BlockingIOError:
            return
        except OSError:
            self._drop(client)
            return
        if not data:
            state.ended = True
            self._selector.unregister(client)
            self._drop_if_done(client, state)
            return
        *lines, state.unread = (state.unread + data).split(b"\n")
        if max(map(len, (*lines, state.unread))) >= LINE_MAX:
            self._drop(client)
            return
        for line in lines:
            self._obey(client, state, line)

    def _obey(self, client: socket.socket, state: Client, line: bytes) -> None:
        state.due += 1
        try:
            command = self._commands[json.loads(line)["command"]]
        except ValueError, KeyError, TypeError, RecursionError:
            self._answer(client, {"ok": False, "error": f"commands are {', '.join(self._commands)}"})
            return
        command(lambda answer: self._answer(client, answer))

    def _answer(self, client: socket.socket, answer: dict[str, Any]) -> None:
        state = self._clients.get(client)
        if state is None:
            return
        try:
            client.sendall(json.dumps(answer).encode() + b"\n")
        except OSError:
            self._drop(client)
            return
        state.due -= 1
        self._drop_if_done(client, state)

    def _drop_if_done(self, client: socket.socket, state: Client) -> None:
        # Once the server ends, all stay until it has: that is what who told it to end waits for.
        if state.ended and not state.due and self._sock.fileno() >= 0:
            self._drop(client)

    def _drop(self, client: socket.socket) -> None:
        state = self._clients.pop(client, None)
        if state is not None:
            if not state.ended:
                self._selector.unregister(client)
            client.close()


def open_control(
    setting: str | None,
    app: object,
    selector: Selector,
    commands: Mapping[str, Callable[[Answer], None]],
    *,
    takes_over: bool = False,
) -> ControlSocket | None:
    """The control socket that the setting asks for, of a server of `app`, an application or a name; else None.

    Raises `BindError` where one is named that cannot be had; without one by itself a server is well too.
    """
    if is_named(setting):
        assert setting is not None
        return ControlSocket(setting, selector, commands, takes_over=takes_over)
    if setting != AUTO:
        return None
    try:
        return ControlSocket(new_path(app), selector, commands)
    except (OSError, BindError) as exc:
        log.debug("No control socket: %s", exc)
        return None


def _listen(path: str, beside: str, *, takes_over: bool) -> socket.socket:
    """A socket at `beside` that only the owner can open, to be moved to `path`; never in the place of another file.

    Nor in that of a socket that answers, but for `takes_over`.
    """
    sock = socket.socket(socket.AF_UNIX)
    try:
        if len(os.fsencode(path)) > LONGEST:
            # Only its clients would notice.
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        if _is_taken(path, by_a_server=not takes_over):
            raise BindError(
                f"{path} is in use by another process",
                code="POUNCE_BIND_IN_USE",
                hint="Is the server running? pounce status tells; else choose another path.",
            )
        mask = os.umask(0o177)
        try:
            sock.bind(beside)
        finally:
            os.umask(mask)
        sock.listen(CLIENTS_MAX)
        sock.setblocking(False)
    except OSError as exc:
        if sock.getsockname():
            Path(beside).unlink(missing_ok=True)
        sock.close()
        if isinstance(exc, BindError):
            raise
        raise _cannot_be_had(path, exc) from exc
    return sock


def _cannot_be_had(path: str, exc: OSError) -> BindError:
    return BindError(f"cannot open the control socket {path}: {exc.strerror or exc}", hint=hint_for(path))


def _is_taken(path: str, *, by_a_server: bool) -> bool:
    """Whether something is there that is no socket, or, where that is asked, a socket that somebody answers on."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return True
        if not by_a_server:
            return False
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            probe.connect(path)
    except FileNotFoundError, ConnectionRefusedError:
        return False
    return True


def ask(path: str, command: str, *, timeout: float | None = None, until_end: bool = False) -> dict[str, Any]:
    """The client's end: the answer to a command, which with `until_end` is given when the server has ended.

    It has `"ok"`, a bool, and `"error"`, a str, where that is False. Raises `OSError` when no server answers at `path`,
    `TimeoutError` where the answer is not complete after `timeout` seconds, and `ValueError` when what comes is no
    answer of such a server.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(timeout)
        sock.connect(path)
        sock.sendall(json.dumps({"command": command}).encode() + b"\n")
        data = bytearray()
        while not data.endswith(b"\n"):
            if deadline is not None:
                # However the pieces are spread over it.
                sock.settimeout(max(0.001, deadline - time.monotonic()))
            piece = sock.recv(65536)
            if not piece:
                raise ConnectionError("the server ended without an answer")
            data += piece
            if len(data) > ANSWER_MAX:
                raise ValueError("the answer is too long")
        answer = _checked(data)
        while until_end and answer["ok"] and sock.recv(65536):
            pass
        return answer


def _checked(data: bytes | bytearray) -> dict[str, Any]:
    """Raises `ValueError`."""
    try:
        answer = json.loads(data)
    except RecursionError as exc:
        raise ValueError("the answer is nested too deeply") from exc
    match answer:
        case {"ok": True} | {"ok": False, "error": str()}:
            found: dict[str, Any] = answer
            return found
    raise ValueError("the answer does not say whether all is well")
