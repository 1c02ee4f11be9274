"""Channel: messages between two processes over a pair of sockets that only they have."""

import pickle
import select
import socket
import struct
import threading

from pounce.supervisor.messages import Message

__all__ = ["Channel"]

_length = struct.Struct("!I")
SEND_TIMEOUT = 5.0
"""Seconds that the other side may take no byte before it is given up."""


class Channel:
    """One end. `send` may be called from any thread, `receive` from one."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sock.setblocking(False)
        self._lock = threading.Lock()
        """Keeps messages of several threads apart."""
        self._buffer = b""
        self._unread: list[Message] = []
        self.ended = False
        """The other side has closed its end; what it said before has been received."""

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """Two ends: a channel for this process and a socket to pass on."""
        ours, theirs = socket.socketpair()
        return cls(ours), theirs

    def fileno(self) -> int:
        return self._sock.fileno()

    def send(self, message: Message) -> bool:
        """False when the other side is gone, or takes nothing any more."""
        data = pickle.dumps(message)
        with self._lock:
            return self._send(_length.pack(len(data)) + data)

    def _send(self, data: bytes) -> bool:
        while data:
            try:
                data = data[self._sock.send(data) :]
            except BlockingIOError:
                if not select.select([], [self._sock], [], SEND_TIMEOUT)[1]:
                    return False
            except OSError, ValueError:
                return False
        return True

    def receive(self) -> list[Message]:
        """The messages that have arrived, without waiting; sets `ended`."""
        while not self.ended:
            try:
                data = self._sock.recv(65536)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            self._buffer += data
            self.ended = not data
        messages, self._unread = self._unread, []
        while len(self._buffer) >= 4:
            end = 4 + _length.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                break
            messages.append(pickle.loads(self._buffer[4:end]))
            self._buffer = self._buffer[end:]
        return messages

    def unread(self, messages: list[Message]) -> None:
        """Let the next `receive()` give these again, which `select()` knows nothing of."""
        self._unread += messages

    def close(self) -> None:
        """Close this end."""
        self._sock.close()
