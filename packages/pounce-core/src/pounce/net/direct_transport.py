"""DirectTransport: asyncio's transport of a socket, for connections that the server's own loop has accepted.

Theory of operation. asyncio makes a transport in three turns of the loop: it calls the protocol, begins to read and
wakes whoever waits for it, each by a callback of its own, and at its end there is a fourth. Nobody waits here: whoever
accepts a connection goes on with it at once. So this one is made without a callback; `begin_reading()` follows when the
protocol has been told. What asyncio's has that most connections never change are constants of the class here, bound
methods among them: those of asyncio hold on to their own transport, which is freed only when the next collection comes.

Most connections are read and written by their descriptor, past their transport, to their end. So there is no socket
object, nor what asyncio shows of it, nor a buffer, until somebody asks for them.

It stands on what asyncio has below its documented surface in CPython 3.14, as the loop does that makes it.
"""

import asyncio
import os
import socket
from asyncio import selector_events, trsock
from collections import deque
from collections.abc import Iterable
from typing import Any

__all__ = ["DirectTransport", "Kind"]

base: Any = selector_events._SelectorSocketTransport  # type: ignore[attr-defined]

type Kind = tuple[int, int, int]
"""Family, type and protocol of a socket, as plain numbers: those of Python's sockets look up their names."""


class DirectTransport(base):  # type: ignore[misc]
    """A connected socket on an `EpollLoop`, TCP or Unix, without TLS."""

    takes_pieces = True
    """Nobody need join what is written together."""

    # What is set for each connection: asyncio's attributes are too many for CPython to find by their place.
    __slots__ = (
        "_buffer",
        "_closing",
        "_conn_lost",
        "_kind",
        "_local",
        "_paused",
        "_peer",
        "_protocol",
        "_shown",
        "_sock_fd",
        "direct_fd",
    )

    # Of asyncio's.
    _empty_waiter = None
    _eof = False
    _high_water = 65_536
    _low_water = 16_384
    _protocol_connected = True
    _protocol_paused = False
    _read_ready_cb = base._read_ready__data_received
    _server = None
    _write_ready = base._write_sendmsg
    max_size = 65_536
    """asyncio allots 256 KiB for every read, whatever comes, which takes far longer than 64 KiB do."""

    def __init__(self, loop: Any, fd: int, kind: Kind, protocol: asyncio.Protocol, peer: Any, local: Any) -> None:
        """It owns the descriptor from now on. `peer` is what `accept()` has told of it; `local` is the address that it
        was accepted at, None where the socket has to be asked."""
        self._loop = loop  # type: ignore[misc] # a slot of the base class
        self._sock_fd = fd
        self.direct_fd = fd
        """The descriptor, for whoever reads and writes past the transport."""
        self._kind = kind
        self._protocol: Any = protocol
        self._peer = peer
        self._local = local
        self._shown: Any = None
        self._buffer: Any = ()
        self._closing = False
        self._paused = False
        self._conn_lost = 0
        loop._direct[fd] = self

    @property
    def _sock(self) -> socket.socket | None:
        """As asyncio's: None once it is closed."""
        if self._loop is None:
            return None
        if self._shown is None:
            sock = socket.socket(*self._kind, fileno=self._sock_fd)
            sock.setblocking(False)
            self._shown = trsock.TransportSocket(sock)
        found: socket.socket = self._shown._sock
        return found

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "peername":
            return self._peer
        if name == "sockname":
            if self._local is None and (sock := self._sock) is not None:
                try:
                    self._local = sock.getsockname()
                except OSError:
                    pass
            return self._local
        if name == "socket":
            if self._shown is None and self._sock is None:
                # Of one that is closed there is none but a closed one.
                self._shown = trsock.TransportSocket(socket.socket.__new__(socket.socket))
            return self._shown
        return default

    def __del__(self) -> None:
        if self._loop is not None:
            # It was not closed, and says so.
            super().__del__()

    def begin_reading(self) -> None:
        """Read, unless the protocol has paused it, or reads by itself; call it once `connection_made()` was."""
        if not self._paused and not self._closing:
            self._loop._add_reader(self._sock_fd, self._read_ready)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        if isinstance(protocol, asyncio.BufferedProtocol):
            super().set_protocol(protocol)
        else:
            self._protocol = protocol
            # That of one before it.
            self.__dict__.pop("_read_ready_cb", None)

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self._buffer)) if self._buffer else 0

    def write(self, data: Any) -> None:
        if type(self._buffer) is tuple:
            self._buffer = deque()
        super().write(data)

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        if type(self._buffer) is tuple:
            self._buffer = deque()
        super().writelines(list_of_data)

    def _call_connection_lost(self, exc: Exception | None) -> None:
        # As asyncio does.
        self._loop._direct.pop(self._sock_fd, None)
        try:
            if self._protocol_connected:
                self._protocol.connection_lost(exc)
        finally:
            if self._shown is None:
                os.close(self._sock_fd)
            else:
                self._shown._sock.close()
            # From now on the number may be another's.
            self.direct_fd = -1
            self._protocol = None
            self._loop = None
            if self._empty_waiter is not None:
                self._empty_waiter.set_exception(ConnectionError("Connection is closed by peer"))

    def without_protocol(self) -> None:
        """Tell the protocol nothing any more, not even of the end."""
        self._protocol_connected = False  # type: ignore[misc]

    def close_at_once(self) -> None:
        """Close, and tell the protocol now: for whoever is called by the loop, and does no more with it. What has not
        left goes first, as after `close()`."""
        if self._closing or self._buffer:
            self.close()
            return
        self._closing = True
        self._conn_lost = 1
        self._loop._remove_reader(self._sock_fd)
        self._call_connection_lost(None)
