"""How a connection ends without a reset, where asyncio alone cannot do it: over TLS.

A socket that is closed while bytes lie in it unread answers with a reset, and so does one to which bytes come later. A
reset makes the peer throw away what it has not read yet, and ourselves what has not left yet: the last answer, when the
peer sends its next request in that very moment. RFC 9112 9.6 therefore ends one half, reads on, and closes when the
peer has ended the other. On a plain socket that is `write_eof()` and patience. asyncio's TLS has no half close: it
takes what arrives after its own close_notify for an error, and closes. So a second descriptor of the socket is kept,
which keeps the kernel from sending a reset, and what arrives there is thrown away.
"""

import asyncio
import os
import socket
import ssl
from typing import TYPE_CHECKING

from pounce.net.connection import Connection

if TYPE_CHECKING:
    from pounce.contract.wire import Service

__all__ = ["LINGER_MAX", "LINGER_TIMEOUT", "go_on", "second_descriptor"]

LINGER_MAX = 16_777_216
LINGER_TIMEOUT = 2.0
"""How much and how long (seconds) is read after the last answer, so that a reset does not destroy it."""


def second_descriptor(transport: asyncio.Transport) -> socket.socket | None:
    """The socket under a transport once more; None where there is none to be had. Take it before `close()`."""
    sock = transport.get_extra_info("socket")
    try:
        return socket.socket(fileno=os.dup(sock.fileno())) if sock is not None else None
    except OSError:
        # Out of descriptors, or closed already.
        return None


def go_on(service: Service, wire: str, sock: socket.socket, exc: Exception | None) -> None:
    """Take over what `second_descriptor()` gave, once the transport is gone; `exc` is what `connection_lost()` got."""
    if isinstance(exc, ssl.SSLError):
        _Remains(service, wire, sock)
    else:
        # Both sides have ended TLS in good order, or the peer is gone.
        sock.close()


class _Remains(Connection):
    """What is left of a connection: our half has ended, and what comes is thrown away."""

    __slots__ = ("_left", "_sock")

    def __init__(self, service: Service, wire: str, sock: socket.socket) -> None:
        super().__init__(service, wire)
        self._sock = sock
        self._left = LINGER_MAX
        self.deadline = self.loop.time() + LINGER_TIMEOUT
        service.connections.add(self)
        try:
            sock.shutdown(socket.SHUT_WR)
            self.loop.add_reader(sock, self._readable)
        except OSError:
            self.close()

    def _readable(self) -> None:
        try:
            count = len(self._sock.recv(65536))
        except BlockingIOError, InterruptedError:
            return
        except OSError:
            count = 0
        self._left -= count
        if not count or self._left < 0:
            self.close()

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            self.loop.remove_reader(self._sock)
            self._sock.close()
            self.service.connection_closed(self)

    abort = close

    def drain(self) -> None:
        """It is ending already."""
