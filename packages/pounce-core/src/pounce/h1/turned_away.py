"""TurnedAway: the stream of a connection that is answered before anything of it is read."""

import socket
from typing import cast

from pounce.contract.head import Headers
from pounce.contract.stream import Body, ConnectionInfo, Exchange
from pounce.h1.encode import encode_head

__all__ = ["TurnedAway"]


class TurnedAway:
    """Writes one answer to the socket itself, as far as the kernel takes it at once, and ends the server's half."""

    def __init__(self, sock: socket.socket) -> None:
        """Raises `OSError` when the peer is gone."""
        self._sock = sock
        is_unix = sock.family == socket.AF_UNIX
        self.connection = ConnectionInfo(
            peer=None if is_unix else sock.getpeername()[:2],
            local=(sock.getsockname(), None) if is_unix else sock.getsockname()[:2],
        )
        self.exchange = cast(Exchange, None)
        self.writable = True
        self.sends_files = self.has_trailers = False

    def start(self, status: int, headers: Headers, body: Body, more: bool) -> None:
        head = encode_head(status, headers).data
        try:
            self._sock.send(head + b"connection: close\r\n\r\n" + cast(bytes, body))
            self._sock.shutdown(socket.SHUT_WR)
            # What the client has sent already would turn the close into a reset that destroys the answer.
            self._sock.recv(65536)
        except OSError:
            # It is gone, or has sent nothing yet.
            pass

    def write(self, body: Body, more: bool) -> None: ...

    def inform(self, status: int, headers: Headers) -> None: ...

    def tunnel(self, headers: Headers) -> None: ...

    def trailers(self, headers: Headers) -> None: ...

    def consumed(self, count: int) -> None: ...

    def reset(self) -> None: ...
