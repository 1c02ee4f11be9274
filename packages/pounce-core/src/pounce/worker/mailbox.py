"""Mailbox: the workers of one server hand datagrams on to each other, whatever process they are in.

The kernel chooses the socket that a datagram comes out of by its addresses, and a socket changes its reader in a
reload. So a datagram may be read by a worker that does not have its connection. The connection's id names the worker
that has: `process number, serial number` of the mailbox that it opened. The datagram goes there, together with its
sender.

A mailbox is a Unix socket. It lies in a folder of the server that only its user may enter (mode 0700), so none but the
processes of this user can write to it, and the address of a sender in it is as good as one that the kernel gives. What
was handed on is never handed on again, so nothing goes round in circles.

Nothing here waits: what a sibling does not take in time is kept, up to a bound, then lost, as the network may lose it.
A sibling that is gone is found out when one writes to it, and its file is removed.
"""

import asyncio
import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from pounce.errors import SupervisorError

if TYPE_CHECKING:
    from pounce.plugin import Address
    from pounce.worker.siblings import Siblings

__all__ = ["Kind", "Letter", "Mailbox"]

SERIALS = 256
"""Mailboxes that one process may have at a time."""
MESSAGE_MAX = 49_152
"""Bytes of letters that travel together, unless one alone is larger."""
MESSAGE_LIMIT = 66_560
"""Bytes that one letter has at the most, and so a message."""
PENDING_MAX = 2048
"""Letters to one sibling that wait until it takes them; further ones are lost."""
MESSAGES_PER_TURN = 16
"""Messages read before others get a turn of the loop."""
VERSION = 1
"""Of the layout below. During an upgrade two versions of the server speak to each other."""

_head = struct.Struct("!BIBBH")
"""Kind, number of the sender, and the lengths of what follows: local address, peer's address, data."""


class Kind(IntEnum):
    """What a letter is."""

    HANDED_ON = 1
    """A datagram whose connection the receiver has, as its id says."""
    ASKED = 2
    """A datagram whose id names nobody: whoever has its connection takes it, and answers with a claim."""
    CLAIM = 3
    """Not a datagram but a connection id: the sender has its connection."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One letter; `local` is the address of the socket that a datagram came out of."""

    kind: Kind
    sender: int
    local: str
    peer: Address
    data: bytes


class Mailbox:
    """One worker's; it reads from the time of `start()` on. Used on the worker's loop alone.

    Raises `SupervisorError` when it cannot be opened.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, siblings: Siblings, receive: Callable[[list[Letter]], None]
    ) -> None:
        self._loop = loop
        self._folder = siblings.folder
        self._receive = receive
        self._lines: dict[int, Line] = {}
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.setblocking(False)
        try:
            self.number = self._bind(siblings.process)
        except OSError as exc:
            self._sock.close()
            raise SupervisorError(
                f"a worker cannot be reached by the others: {exc.strerror or exc}",
                hint=f"It opens a Unix socket in {self._folder}, which must not be removed while the server runs.",
            ) from exc

    def _bind(self, process: int) -> int:
        for serial in range(SERIALS):
            number = process << 8 | serial
            try:
                self._sock.bind(self._path(number))
                break
            except OSError:
                # One that is there belongs to another worker of this process.
                if serial == SERIALS - 1 or not os.path.lexists(self._path(number)):
                    raise
        return number

    def _path(self, number: int) -> str:
        return f"{self._folder}/{number}"

    def start(self) -> None:
        """Begin to read."""
        self._loop.add_reader(self._sock, self._read)

    def send(self, kind: Kind, local: str, peer: Address, data: bytes, to: int) -> bool:
        """False when there is no such worker, or no longer."""
        return self._send(encoded(kind, self.number, local, peer, data), to)

    def send_to_all(self, kind: Kind, local: str, peer: Address, data: bytes) -> None:
        """To all that there are."""
        letter = encoded(kind, self.number, local, peer, data)
        with suppress(OSError):
            for name in os.listdir(self._folder):
                if name != str(self.number):
                    self._send(letter, int(name))

    def _send(self, letter: bytes, to: int) -> bool:
        line = self._lines.get(to)
        if line is None or line.ended:
            try:
                line = Line.open(self._loop, self._path(to))
            except ConnectionRefusedError, FileNotFoundError:
                # Somebody may have removed the whole folder, which says nothing of that worker.
                return not os.path.lexists(self._path(self.number))
            except OSError:
                # No descriptor is left, or no memory: the letter is lost.
                return True
            self._close_lines_to_nobody()
            self._lines[to] = line
        line.send(letter)
        return True

    def _close_lines_to_nobody(self) -> None:
        """Who has ended leaves a descriptor here; a new line is a sign that workers come and go."""
        for number, line in tuple(self._lines.items()):
            if not os.path.lexists(self._path(number)):
                line.close()
            if line.ended:
                del self._lines[number]

    def _read(self) -> None:
        for _ in range(MESSAGES_PER_TURN):
            try:
                message = self._sock.recv(MESSAGE_LIMIT)
            except OSError:
                return
            letters = decoded(message)
            if letters:
                self._receive(letters)

    def close(self) -> None:
        """Give up the number, and read no more. What has not been sent is, as far as it is taken at once."""
        self._loop.remove_reader(self._sock)
        for line in self._lines.values():
            if not line.ended:
                line.flush()
            line.close()
        with suppress(OSError):
            os.unlink(self._path(self.number))
        self._sock.close()


class Line:
    """The way to one sibling. What is sent in one turn of the loop travels together."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, path: str) -> None:
        self._loop = loop
        self._sock = sock
        self._path = path
        self._pending: deque[bytes] = deque()
        self._flush: asyncio.Handle | None = None
        self._waits = False
        self.ended = False

    @classmethod
    def open(cls, loop: asyncio.AbstractEventLoop, path: str) -> Line:
        """Raises `ConnectionRefusedError` or `FileNotFoundError` when nobody is there, and other `OSError`s."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.setblocking(False)
        try:
            sock.connect(path)
        except OSError as exc:
            sock.close()
            if isinstance(exc, ConnectionRefusedError):
                # Its process has died.
                with suppress(OSError):
                    os.unlink(path)
            raise
        return cls(loop, sock, path)

    def send(self, letter: bytes) -> None:
        if len(self._pending) < PENDING_MAX:
            self._pending.append(letter)
        if self._flush is None and not self._waits:
            self._flush = self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send what is pending, as far as it is taken; the rest follows."""
        self._flush = None
        pending = self._pending
        try:
            while pending:
                message = bytearray((VERSION,))
                count = 0
                while count < len(pending) and (not count or len(message) + len(pending[count]) <= MESSAGE_MAX):
                    message += pending[count]
                    count += 1
                self._send(message)
                for _ in range(count):
                    pending.popleft()
        except BlockingIOError, InterruptedError:
            if not self._waits:
                self._waits = True
                self._loop.add_writer(self._sock, self.flush)
            return
        except OSError:
            self.close()
            return
        if self._waits:
            self._waits = False
            self._loop.remove_writer(self._sock)

    def _send(self, message: bytes | bytearray) -> None:
        try:
            self._sock.send(message)
        except ConnectionError:
            # It has ended, and another one may have its number.
            self._sock.connect(self._path)
            self._sock.send(message)

    def close(self) -> None:
        if self.ended:
            return
        self.ended = True
        self._loop.remove_writer(self._sock)
        if self._flush is not None:
            self._flush.cancel()
        self._sock.close()


def encoded(kind: Kind, sender: int, local: str, peer: Address, data: bytes) -> bytes:
    where, whom = local.encode(), " ".join(map(str, peer)).encode()
    return _head.pack(kind, sender, len(where), len(whom), len(data)) + where + whom + data


def decoded(message: bytes) -> list[Letter]:
    """The letters of a message; none of one in a layout that this version does not know."""
    letters: list[Letter] = []
    at, end = 1, len(message)
    if message[:1] != bytes((VERSION,)):
        return letters
    while at + _head.size <= end:
        kind, sender, where, whom, size = _head.unpack_from(message, at)
        at += _head.size
        if at + where + whom + size > end:
            break
        local = message[at : at + where].decode()
        at += where
        host, *rest = message[at : at + whom].decode().split(" ")
        at += whom
        letters.append(Letter(Kind(kind), sender, local, (host, *map(int, rest)), message[at : at + size]))
        at += size
    return letters
