"""Opener and Opening: how a connection gets its wire on the server's own loop, at once when its first bytes are there.

Theory of operation. On other loops, and over TLS, a connection has a transport first, with a `WireChooser` for its
protocol, and the wire's own takes the place of that. Here nothing is made before it is known what: the first bytes are
read from the socket itself. Nearly always they are there by the time that the connection is accepted, since a client
sends its request with the end of the handshake; then its wire is asked for a protocol, which gets a transport and the
bytes. Else the connection is an `Opening` until they come: a socket, and a place among the connections with the
deadline of a head.
"""

import os
import socket
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any

from pounce.contract.stream import ConnectionInfo, unmapped
from pounce.net.connection import RECV_MAX, Connection, ForeignConnection, without_base
from pounce.net.connection_info import local_address
from pounce.net.delivery import leave_to_kernel, reset_when_closed

if TYPE_CHECKING:
    from pounce.contract.turns import Share
    from pounce.contract.wire import Service, Wire
    from pounce.net.direct_transport import DirectTransport
    from pounce.net.epoll_loop import EpollLoop
    from pounce.net.sniff import WireTable

__all__ = ["Opener", "Opening"]

START = 2
"""Bytes by which most connections show that they have no preface."""
GRACE = 1.0
"""Seconds in which a connection that has said nothing may still bring a request during a drain."""


class Opener:
    """Opens the connections of one worker and one listener, which have no TLS and no header of a proxy in front."""

    def __init__(
        self,
        service: Service,
        loop: EpollLoop,
        listening: socket.socket,
        table: WireTable,
        named: Wire | None,
        uncount: Callable[[Share], object],
    ) -> None:
        """`uncount` is called with the share of a connection that never came to be among the others, if it has one."""
        self._service = service
        self._loop = loop
        self._transport = loop.transport
        self._ready, self._most = loop.waiting
        self._uncount = uncount
        self.kind = int(listening.family), int(listening.type), listening.proto
        """Of its sockets."""
        self._sockname = _address_of_all(listening)
        self._local = local_address(self._sockname)
        self.table = table
        self._wire = named or (None if table.by_preface or table.by_rule else table.default)
        """That of all connections, where none has to be chosen."""
        self._starts: tuple[bytes, ...] | None = None
        """What prefaces begin with; None where that does not tell who has none."""
        if not table.by_rule and all(len(preface) >= START for preface in table.by_preface):
            self._starts = tuple({preface[:START] for preface in table.by_preface})

    def open(self, fd: int, peer: Any, share: Share | None) -> None:
        """Serve a socket that was accepted from `peer`, and does not block. `share` is the connection's where it has
        one already."""
        if self._wire is not None:
            self.begin(self._wire, fd, peer, share, b"", inf)
            return
        if len(self._ready) > self._most:
            # Whatever is new gets in line.
            Opening(self._service, self._loop, self, fd, peer, share, b"")
            return
        try:
            first = os.read(fd, RECV_MAX)
        except BlockingIOError, InterruptedError:
            Opening(self._service, self._loop, self, fd, peer, share, b"")
            return
        except OSError:
            first = b""
        if not first:
            # It is gone, and never was among the connections.
            os.close(fd)
            if share is not None:
                self._uncount(share)
            return
        if self._starts is not None and len(first) >= START and not first.startswith(self._starts):
            # As `of_preface()` would find.
            self.begin(self.table.default, fd, peer, share, first, inf)
            return
        try:
            wire = self.table.of_preface(first)
        except Exception:  # noqa: BLE001 - it is met again there, and logged
            wire = None
        if wire is None:
            Opening(self._service, self._loop, self, fd, peer, share, first).choose()
        else:
            self.begin(wire, fd, peer, share, first, inf)

    def begin(self, wire: Wire, fd: int, peer: Any, share: Share | None, first: bytes, deadline: float) -> None:
        """Have the wire speak, with what has come for it, by `deadline` at the latest. A wire that fails closes its
        connection, no more."""
        service = self._service
        connection: Connection | None = None
        transport: DirectTransport | None = None
        try:
            protocol = wire.connect(service)
            if isinstance(protocol, Connection):
                connection = protocol
                connection.wire = wire.name
            else:
                connection = ForeignConnection(service, wire.name, protocol)
            if share is not None:
                connection.share = share
            transport = self._transport(self._loop, fd, self.kind, connection, peer, self._sockname)
            local = self._local
            if local is None:
                local = local_address(transport.get_extra_info("sockname"))
            if type(peer) is not tuple:
                peer = None
            elif len(peer) != 2:
                peer = peer[0], peer[1]
            # As `connection_info()` would find.
            connection.connection = ConnectionInfo(
                service.next_connection_id(), peer, local, "http", None, None, connection.share
            )
            connection.connection_made(transport)
            if connection.transport is None:
                raise without_base(connection)
            if not transport._paused:
                transport.begin_reading()
        except Exception:
            service.count("plugin_error")
            service.log.exception("Plugin %s failed to take a connection", wire.name)
            self._give_up(fd, connection, transport)
            if share is not None:
                self._uncount(share)
            return
        if deadline < connection.deadline:
            # The time that was spent on choosing counts.
            connection.deadline = deadline
        if first and not transport._closing:
            try:
                connection.data_received(first)
            except SystemExit, KeyboardInterrupt:
                raise
            except BaseException as exc:  # noqa: BLE001 - it goes where asyncio has it go
                connection.failed("data_received", exc)

    def socket_of(self, fd: int) -> socket.socket:
        """The socket of a descriptor, which is its own from now on."""
        sock = socket.socket(*self.kind, fileno=fd)
        sock.setblocking(False)
        return sock

    def _give_up(self, fd: int, connection: Connection | None, transport: DirectTransport | None) -> None:
        """Break off a connection whose wire has failed to take it, and is not ready for the event of the end either."""
        if connection is not None:
            connection.forget_descriptor()
            if connection in self._service.connections:
                self._service.connection_closed(connection)
        if transport is None:
            self._loop.stop_reading(fd)
            with self.socket_of(fd) as sock:
                reset_when_closed(sock)
        else:
            reset_when_closed(transport.get_extra_info("socket"))
            transport.without_protocol()
            transport.abort()


def _address_of_all(listening: socket.socket) -> Any:
    """The address that all connections of a listening socket arrive at; None where each has its own."""
    address = listening.getsockname()
    if type(address) is tuple:
        try:
            transparent = listening.getsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT)
        except OSError:
            transparent = 1
        if transparent or unmapped(address[0]) in ("0.0.0.0", "::"):
            return None
    return address


class Opening:
    """A connection of which it is not known yet which wire speaks on it: a `LiveConnection`."""

    __slots__ = (
        "_fd",
        "_first",
        "_loop",
        "_opener",
        "_peer",
        "_service",
        "deadline",
        "held_since",
        "share",
        "wire",
        "write_deadline",
    )

    def __init__(
        self,
        service: Service,
        loop: EpollLoop,
        opener: Opener,
        fd: int,
        peer: Any,
        share: Share | None,
        first: bytes,
    ) -> None:
        """`first` is what has come."""
        self.wire = "sniff"
        self.deadline = loop.time() + service.config.header_timeout
        self.write_deadline = inf
        self.held_since = 0.0
        self.share = share
        self._service = service
        self._loop = loop
        self._opener = opener
        self._fd = fd
        self._peer = peer
        self._first = first
        service.connections.add(self)
        try:
            loop.read_directly(self._fd, self._readable)
        except OSError as exc:
            # The kernel watches no more of them.
            service.connection_failed(self, exc)
            return
        if service.draining:
            # It was accepted just before.
            loop.call_soon(self.drain)

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, RECV_MAX)
        except BlockingIOError, InterruptedError:
            return
        except OSError:
            data = b""
        if data:
            self._first += data
            self.choose()
        else:
            self.close()

    def choose(self) -> None:
        """Give the connection to its wire, if that can be told by now."""
        try:
            wire = self._opener.table.of_preface(self._first)
        except Exception as exc:  # noqa: BLE001 - logged there
            self._service.connection_failed(self, exc)
            return
        if wire is not None:
            # What is next to read goes on with the same place in the loop.
            self._service.connections.discard(self)
            fd, self._fd = self._fd, -1
            self._opener.begin(wire, fd, self._peer, self.share, self._first, self.deadline)

    def deadline_passed(self) -> None:
        self.close()

    def write_deadline_passed(self) -> None:
        """Nothing is written."""

    def drain(self) -> None:
        self.deadline = min(self.deadline, self._loop.time() + GRACE)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._leave())
            self._service.connection_closed(self)

    def end(self) -> None:
        if self._fd >= 0:
            with self._opener.socket_of(self._leave()) as sock:
                leave_to_kernel(sock, self._service.config.write_timeout)
            self._service.connection_closed(self)

    def abort(self) -> None:
        if self._fd >= 0:
            with self._opener.socket_of(self._leave()) as sock:
                reset_when_closed(sock)
            self._service.connection_closed(self)

    def _leave(self) -> int:
        """Read no more; the descriptor, which has to be closed."""
        fd, self._fd = self._fd, -1
        self._loop.stop_reading(fd)
        return fd
