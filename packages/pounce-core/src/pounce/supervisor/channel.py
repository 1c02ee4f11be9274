"""Channel: messages between two processes over a pair of sockets that only they have."""

import array
import os
import pickle
import select
import socket
import struct
import threading

from pounce.supervisor.messages import Message, Receive

__all__ = ["Channel"]

_length = struct.Struct("!I")
_CLOEXEC: int = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
SEND_TIMEOUT = 5.0
"""Seconds that the other side may take no byte before it is given up."""
DESCRIPTORS = 200
"""That travel together; the kernel takes no more than 253."""


class Channel:
    """One end. `send` may be called from any thread, `receive` from one."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sock.setblocking(False)
        self._lock = threading.Lock()
        """Keeps messages of several threads apart."""
        self._buffer = b""
        self._fds: list[int] = []
        """Descriptors that have arrived, and whose message has not."""
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
        fds = message.fds if isinstance(message, Receive) else ()
        with self._lock:
            return self._send(_length.pack(len(data)) + data, fds)

    def _send(self, data: bytes, fds: tuple[int, ...]) -> bool:
        while data:
            try:
                if fds:
                    # With a byte that is sent, not merely offered.
                    rights = array.array("i", fds[:DESCRIPTORS])
                    self._sock.sendmsg([data[:1]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
                    data, fds = data[1:], fds[DESCRIPTORS:]
                else:
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
                data = self._receive()
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
            message = pickle.loads(self._buffer[4:end])
            if isinstance(message, Receive):
                count = len(message.fds)
                message, self._fds = Receive(tuple(self._fds[:count])), self._fds[count:]
            messages.append(message)
            self._buffer = self._buffer[end:]
        return messages

    def _receive(self) -> bytes:
        # Not by `socket.recv_fds`, which leaves the flag out.
        room = socket.CMSG_SPACE(DESCRIPTORS * array.array("i").itemsize)
        data, ancillary, _, _ = self._sock.recvmsg(65536, room, _CLOEXEC)
        for level, kind, rights in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                self._fds += array.array("i", rights)
        return data

    def unread(self, messages: list[Message]) -> None:
        """Let the next `receive()` give these again, which `select()` knows nothing of."""
        self._unread += messages

    def close(self) -> None:
        """Close this end."""
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()
        self._sock.close()
