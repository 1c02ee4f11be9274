"""Datagrams: the UDP sockets of a worker, and the protocols that are spoken over them.

A datagram wire listens on the same address and port as the TCP sockets whose answers advertise it (RFC 7838). Every
worker has a socket of its own for each of them; the kernel spreads peers over the sockets by their address
(SO_REUSEPORT), and a protocol whose connections survive a change of address passes on what lands on the wrong one.
"""

import asyncio
import errno
import logging
import socket
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from pounce.errors import BindError, ConfigError
from pounce.net.proxy_protocol import ProxyPolicy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pounce.config import ServerConfig
    from pounce.exchange.service import Service
    from pounce.net.bind import Listener
    from pounce.plugin import Address, DatagramSocket, DatagramWire
    from pounce.registry import Registry

__all__ = ["DatagramTransport", "Datagrams", "PlainSocket", "open_datagram_sockets"]

log = logging.getLogger("pounce.net")

BATCH = 64
"""Datagrams read by one call."""
ROUNDS = 8
"""Calls before others get a turn of the loop."""
QUEUE_MAX = 4096
"""Datagrams that wait for the kernel to take them; further ones are lost, as the network may lose them."""
BUFFER = 2 * 1024 * 1024
"""Bytes asked of the kernel for each direction of a socket; it may give less."""


class BatchProtocol(Protocol):
    """What a transport calls: an `asyncio.DatagramProtocol`, or one that takes several datagrams at a time."""

    def datagrams_received(self, datagrams: list[tuple[bytes, Address]]) -> None: ...


class PlainSocket:
    """Several datagrams for one call, by plain system calls: a `DatagramSocket` for wires that bring none."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def recv(self) -> list[tuple[bytes, Address]]:
        received: list[tuple[bytes, Address]] = []
        try:
            while len(received) < BATCH:
                received.append(self._sock.recvfrom(65535))
        except BlockingIOError, InterruptedError:
            pass
        return received

    def send(self, datagrams: list[bytes], address: Address) -> int:
        for sent, data in enumerate(datagrams):
            try:
                self._sock.sendto(data, address)
            except BlockingIOError, InterruptedError:
                return sent
        return len(datagrams)


class DatagramTransport(asyncio.DatagramTransport):
    """Reads and writes datagrams in batches, on any loop that watches descriptors.

    The protocol gets `datagrams_received(list of (data, address))` where it has that method, else
    `datagram_received` for each. It closes the socket.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        protocol: asyncio.DatagramProtocol,
        batches: DatagramSocket | None = None,
    ) -> None:
        super().__init__({"socket": sock, "sockname": sock.getsockname()})
        self._loop = loop
        self._sock = sock
        self._fd = sock.fileno()
        self._protocol = protocol
        self._batches = batches or PlainSocket(sock)
        self._queue: deque[tuple[list[bytes], Address]] = deque()
        self._queued = 0
        self._closed = False
        received = getattr(protocol, "datagrams_received", None)
        self._received = received if received is not None else self._received_singly

    def start(self) -> None:
        """Introduce itself to the protocol, and begin to read."""
        self._protocol.connection_made(self)
        self._loop.add_reader(self._fd, self._read)

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Close at once; what the kernel has not taken is lost."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._fd)
        if self._queue:
            self._loop.remove_writer(self._fd)
            self._queue.clear()
        # It may hold a duplicate of the descriptor.
        del self._batches
        self._sock.close()
        self._protocol.connection_lost(None)

    def abort(self) -> None:
        self.close()

    def sendto(self, data: Any, addr: Any = None) -> None:
        self.send_many([bytes(data)], addr)

    def send_many(self, datagrams: list[bytes], address: Address) -> None:
        """Send several datagrams to one address; those that the kernel refuses are lost."""
        if self._closed:
            return
        if not self._queue:
            sent = self._send(datagrams, address)
            if sent == len(datagrams):
                return
            datagrams = datagrams[sent:]
            self._loop.add_writer(self._fd, self._write)
        if self._queued + len(datagrams) <= QUEUE_MAX:
            self._queue.append((datagrams, address))
            self._queued += len(datagrams)
        elif not self._queue:
            self._loop.remove_writer(self._fd)

    def _send(self, datagrams: list[bytes], address: Address) -> int:
        """How many of them are done with: sent, or given up because they cannot be sent at all."""
        try:
            return self._batches.send(datagrams, address)
        except OSError as exc:
            self._protocol.error_received(exc)
            return len(datagrams)

    def _write(self) -> None:
        while self._queue:
            datagrams, address = self._queue[0]
            sent = self._send(datagrams, address)
            self._queued -= sent
            if sent < len(datagrams):
                self._queue[0] = (datagrams[sent:], address)
                return
            self._queue.popleft()
        self._loop.remove_writer(self._fd)

    def _read(self) -> None:
        for _ in range(ROUNDS):
            if self._closed:
                return
            try:
                datagrams = self._batches.recv()
            except BlockingIOError, InterruptedError:
                return
            except OSError as exc:
                # A peer that is gone (ICMP) must not stop the reading for all others.
                self._protocol.error_received(exc)
                return
            if not datagrams:
                return
            self._received(datagrams)

    def _received_singly(self, datagrams: list[tuple[bytes, Address]]) -> None:
        for data, address in datagrams:
            self._protocol.datagram_received(data, address)


class Datagrams:
    """The datagram wires of one worker: started with its acceptors, drained with them, closed at its end."""

    def __init__(self, service: Service, opened: Iterable[tuple[DatagramWire, socket.socket]]) -> None:
        self._transports: list[DatagramTransport] = []
        self._protocols: list[asyncio.DatagramProtocol] = []
        self._opened = list(opened)
        self._service = service
        service.response_headers.alt_svc = alt_svc(service.config, self._opened)

    def start(self) -> None:
        """Begin to receive."""
        for wire, sock in self._opened:
            protocol = wire.connect(self._service)
            batches = wire.open_socket(sock) if wire.open_socket is not None else None
            transport = DatagramTransport(self._service.loop, sock, protocol, batches)
            self._protocols.append(protocol)
            self._transports.append(transport)
            transport.start()

    def drain(self) -> None:
        """Take on no new peers; the connections of a protocol drain like all others."""
        for protocol in self._protocols:
            drain = getattr(protocol, "drain", None)
            if drain is not None:
                drain()

    def close(self) -> None:
        """Close every socket."""
        for transport in self._transports:
            transport.close()
        for _, sock in self._opened:
            sock.close()


def open_datagram_sockets(
    config: ServerConfig, registry: Registry, listeners: Iterable[Listener]
) -> list[tuple[DatagramWire, socket.socket]]:
    """A UDP socket beside the TCP listeners of each address, for the datagram wires that the configuration asks for.

    Raises `ConfigError` when it asks for HTTP/3 and nothing speaks it, `BindError` when a port is taken.
    """
    if not config.http3_enabled:
        return []
    wires = [wire for wire in registry.datagrams.values() if wire.advertise is not None]
    if not wires:
        raise ConfigError("http3_enabled is on, but nothing installed speaks HTTP/3", hint="pip install pounce-h3")
    opened: list[tuple[DatagramWire, socket.socket]] = []
    addresses: set[object] = set()
    try:
        for listener in listeners:
            address = listener.sock.getsockname()
            if address in addresses:
                continue
            addresses.add(address)
            inet = listener.sock.family in (socket.AF_INET, socket.AF_INET6)
            # A proxy that names its clients hands on no datagrams; who sends some has gone past it.
            direct = ProxyPolicy.of(config, listener.bind) is None
            if inet and direct and listener.bind.wire is None and listener.bind.tls is not False:
                opened += [(wire, _bind_beside(listener.sock)) for wire in wires]
    except BaseException:
        for _, sock in opened:
            sock.close()
        raise
    return opened


def _bind_beside(beside: socket.socket) -> socket.socket:
    host, port, *rest = beside.getsockname()
    sock = socket.socket(beside.family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if hasattr(socket, "SO_REUSEPORT"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if beside.family == socket.AF_INET6:
            dual = beside.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, dual)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, BUFFER)
        sock.bind((host, port, *rest))
    except OSError as exc:
        sock.close()
        raise BindError(
            f"cannot receive datagrams on {host} port {port}: {exc.strerror or exc}",
            code="POUNCE_BIND_IN_USE" if exc.errno == errno.EADDRINUSE else "POUNCE_BIND_FAILED",
            hint="HTTP/3 uses the UDP port of the same number; free it, or choose another port.",
        ) from exc
    return sock


def alt_svc(config: ServerConfig, opened: list[tuple[DatagramWire, socket.socket]]) -> tuple[bytes, bytes] | None:
    """The Alt-Svc field of every answer (RFC 7838 3), if there is to be one."""
    if config.http3_alt_svc == "clear":
        return (b"alt-svc", b"clear")
    if config.http3_alt_svc == "off" or not opened:
        return None
    offers = dict.fromkeys((wire.advertise, sock.getsockname()[1]) for wire, sock in opened)
    return (
        b"alt-svc",
        b", ".join(
            b'%b=":%d"; ma=%d' % ((name or "").encode(), port, config.http3_alt_svc_max_age) for name, port in offers
        ),
    )
