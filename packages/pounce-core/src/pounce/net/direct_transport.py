"""DirectTransport: asyncio's transport of a socket, for connections that the server's own loop has accepted.

Theory of operation. asyncio makes a transport in three turns of the loop: it calls the protocol, begins to read and
wakes whoever waits for it, each by a callback of its own, and at its end there is a fourth. Nobody waits here: whoever
accepts a connection goes on with it at once. So this one is made without a callback; `begin_reading()` follows when the
protocol has been told. What asyncio's has that most connections never change are constants of the class here, bound
methods among them: those of asyncio hold on to their own transport, which is freed only when the next collection comes.

It stands on what asyncio has below its documented surface in CPython 3.14, as the loop does that makes it.
"""

import asyncio
import socket
from asyncio import selector_events, trsock
from collections import deque
from typing import Any

__all__ = ["DirectTransport"]

base: Any = selector_events._SelectorSocketTransport  # type: ignore[attr-defined]


class DirectTransport(base):  # type: ignore[misc]
    """A connected socket on an `EpollLoop`, TCP or Unix, without TLS."""

    # Of asyncio's.
    _buffer: Any
    _closing = False
    _conn_lost = 0
    _empty_waiter = None
    _eof = False
    _high_water = 65_536
    _low_water = 16_384
    _paused = False
    _protocol: Any
    _protocol_connected = True
    _protocol_paused = False
    _read_ready_cb = base._read_ready__data_received
    _server = None
    _write_ready = base._write_sendmsg
    max_size = 65_536
    """asyncio allots 256 KiB for every read, whatever comes, which takes far longer than 64 KiB do."""

    def __init__(self, loop: Any, sock: socket.socket, protocol: asyncio.Protocol, peer: Any) -> None:
        """`peer` is what `accept()` has told of it."""
        self._loop = loop
        self._sock = sock
        self._sock_fd = sock.fileno()
        self._protocol = protocol
        self._buffer = deque()
        try:
            local = sock.getsockname()
        except OSError:
            local = None
        self._extra = {"socket": trsock.TransportSocket(sock), "sockname": local, "peername": peer}

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

    def _call_connection_lost(self, exc: Exception | None) -> None:
        self._loop.transport_lost(self._sock_fd)
        super()._call_connection_lost(exc)

    def without_protocol(self) -> None:
        """Tell the protocol nothing any more, not even of the end."""
        self._protocol_connected = False

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
