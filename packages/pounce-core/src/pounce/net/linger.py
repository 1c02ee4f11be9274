"""What is left of a connection when its transport is gone: how it ends without a reset, and without being forgotten.

A socket that is closed while bytes lie in it unread answers with a reset, and so does one to which bytes come later. A
reset makes the peer throw away what it has not read yet, and ourselves what has not left yet: the last answer, when the
peer sends its next request in that very moment. RFC 9112 9.6 therefore ends one half, reads on, and closes when the
peer has ended the other. On a plain socket that is `write_eof()` and patience. asyncio's TLS has no half close: it
takes what arrives after its own close_notify for an error, and closes. So a second descriptor of the socket is kept,
which keeps the kernel from sending a reset, and what arrives there is thrown away.

Nor is a socket closed while the kernel has bytes of it that the peer has not acknowledged. The kernel would go on
alone, with megabytes that count nowhere, for as long as the peer says that it is there and takes nothing. A second
descriptor keeps the connection among the others: under `write_timeout` and `min_write_rate`, and waited for in a
drain.
"""

import socket
import ssl
from math import inf

from pounce.contract.wire import Service
from pounce.net.delivery import LINGER_TIMEOUT, is_dead, leave_to_kernel, progress, reset_when_closed, undelivered

__all__ = ["LINGER_MAX", "LINGER_TIMEOUT", "go_on"]

LINGER_MAX = 16_777_216
"""How much is read after the last answer, so that a reset does not destroy it; for how long says `LINGER_TIMEOUT`."""


def go_on(service: Service, wire: str, sock: socket.socket, exc: Exception | None) -> None:
    """Take over what `second_descriptor()` gave, once the transport is gone; `exc` is what `connection_lost()` got."""
    if isinstance(exc, ssl.SSLError):
        _Remains(service, wire, sock, LINGER_TIMEOUT)
    elif undelivered(sock):
        _Remains(service, wire, sock, 0.0)
    else:
        # The peer has everything, and both sides have ended in good order.
        sock.close()


class _Remains:
    """What is left of a connection: our half has ended, and what comes is thrown away.

    It lasts for as long as it is told to linger, if the peer does not end its half before, and until the peer has
    everything. Among the connections of the worker it is a `LiveConnection`.
    """

    __slots__ = ("_left", "_service", "_sock", "_taken", "deadline", "held_since", "wire", "write_deadline")

    def __init__(self, service: Service, wire: str, sock: socket.socket, timeout: float) -> None:
        self.wire = wire
        self.deadline = service.loop.time() + timeout
        self.write_deadline = inf
        self.held_since = 0.0
        self._service = service
        self._sock = sock
        self._left = LINGER_MAX
        self._taken = 0
        """What `progress()` was when the wait for the peer began that `write_deadline` ends."""
        service.connections.add(self)
        try:
            sock.shutdown(socket.SHUT_WR)
            service.loop.add_reader(sock, self._readable)
        except OSError:
            self.close()

    def _readable(self) -> None:
        try:
            count = len(self._sock.recv(65536))
        except BlockingIOError, InterruptedError:
            return
        except OSError:
            self.close()
            return
        self._left -= count
        if self._left < 0:
            self.abort()
        elif not count:
            self._service.loop.remove_reader(self._sock)
            self.deadline_passed()

    def deadline_passed(self) -> None:
        """Close if the peer has everything, and else look again with the next tick."""
        if not undelivered(self._sock) or is_dead(self._sock):
            self.close()
            return
        self.deadline = self._service.loop.time()
        if self.write_deadline == inf:
            self._wait_for_peer()

    def _wait_for_peer(self) -> None:
        self._taken = progress(self._sock)
        self.write_deadline = self._service.loop.time() + self._service.config.write_timeout

    def write_deadline_passed(self) -> None:
        """The peer had `write_timeout` to take what the kernel has: give it as long again when it did, else give it
        up."""
        if progress(self._sock) - self._taken >= self._service.least_taken:
            self._wait_for_peer()
        else:
            self._service.count("write_timeout", "%s: peer takes too little, giving it up", self.wire)
            self.abort()

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            self._service.loop.remove_reader(self._sock)
            self._sock.close()
            self._service.connection_closed(self)

    def abort(self) -> None:
        reset_when_closed(self._sock)
        self.close()

    def end(self) -> None:
        leave_to_kernel(self._sock, self._service.config.write_timeout)
        self.close()

    def drain(self) -> None:
        """It is ending already."""
