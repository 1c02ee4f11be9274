"""Datagrams: the protocols of a worker that are spoken over UDP, and the sockets that it reads.

Whoever starts the workers opens the sockets and keeps them: as many for each address as there are workers, so that the
kernel spreads peers over them (SO_REUSEPORT), and never fewer, so that a peer always comes out of the same one. A
worker is told which of them to read: `receive()`. In a reload the new process begins to read a socket where the old one
leaves off; what waits in it waits there, and nothing is lost.

So a socket's reader changes, and a peer may change its address. A protocol whose connections survive this has the
number of its worker in their ids, and hands on what is another worker's (mailbox.py).
"""

import asyncio
import logging
import socket
from collections import deque
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from pounce.errors import ConfigError
from pounce.net.udp import receiving
from pounce.worker.mailbox import Kind, Letter, Mailbox
from pounce.worker.siblings import Siblings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pounce.config import ServerConfig
    from pounce.exchange.service import Service
    from pounce.net.bind import Bind, Listener
    from pounce.plugin import Address, DatagramSocket, DatagramWire
    from pounce.registry import Registry

__all__ = ["DatagramTransport", "Datagrams", "PlainSocket"]

log = logging.getLogger("pounce.net")

BATCH = 64
"""Datagrams read by one call."""
ROUNDS = 8
"""Calls before others get a turn of the loop."""
QUEUE_MAX = 4096
"""Datagrams that wait for the kernel to take them; further ones are lost, as the network may lose them."""
ALONE = 256
"""Number of a worker that has no siblings: the first one of process 1."""


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
    """All datagrams of one address, read and written in batches, on any loop that watches descriptors.

    The protocol gets `datagrams_received(list of (data, address))` where it has that method, else
    `datagram_received` for each. Beyond asyncio's, `get_extra_info` knows "worker", the number of this worker among all
    of the server, and "secret", which they share.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: Address,
        protocol: asyncio.DatagramProtocol,
        *,
        open_socket: Callable[[socket.socket], DatagramSocket] | None = None,
        mailbox: Mailbox | None = None,
        secret: bytes = b"",
    ) -> None:
        number = mailbox.number if mailbox is not None else ALONE
        super().__init__({"sockname": address, "worker": number, "secret": secret})
        self._loop = loop
        self._protocol = protocol
        self._open_socket = open_socket or PlainSocket
        self._mailbox = mailbox
        self.name = name_of(address)
        """As siblings call it."""
        self._reading: dict[socket.socket, DatagramSocket] = {}
        self._writing: socket.socket | None = None
        """It goes on when nothing is read any more: answers leave from any socket of the address."""
        self._batches: DatagramSocket | None = None
        self._queue: deque[tuple[list[bytes], Address]] = deque()
        self._queued = 0
        self._closed = False
        received = getattr(protocol, "datagrams_received", None)
        self._received = received if received is not None else self._received_singly

    def start(self) -> None:
        """Introduce itself to the protocol."""
        self._protocol.connection_made(self)

    def receive(self, sockets: list[socket.socket]) -> None:
        """Read these from now on, and no others; they are closed here."""
        before, self._reading = self._reading, {sock: self._open_socket(sock) for sock in sockets}
        for sock in before:
            self._loop.remove_reader(sock)
        if sockets:
            self._write_to(sockets[0])
        for sock in before:
            if sock is not self._writing:
                sock.close()
        for sock, batches in self._reading.items():
            self._loop.add_reader(sock, self._read, batches)
        moved = getattr(self._protocol, "sockets_moved", None)
        if before and moved is not None:
            moved()

    def _write_to(self, sock: socket.socket) -> None:
        before, self._writing, self._batches = self._writing, sock, self._reading[sock]
        if before is not None:
            if self._queue:
                self._loop.remove_writer(before)
            before.close()
        if self._queue:
            self._loop.add_writer(sock, self._write)

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Close at once; what the kernel has not taken is lost. What it has for siblings is handed on."""
        if self._closed:
            return
        for batches in self._reading.values():
            self._read(batches)
        self._closed = True
        for sock in self._reading:
            self._loop.remove_reader(sock)
        if self._writing is not None and self._queue:
            self._loop.remove_writer(self._writing)
        self._queue.clear()
        # It may hold a duplicate of the descriptor.
        self._batches = None
        sockets = {*self._reading, self._writing}
        self._reading = {}
        for each in sockets:
            if each is not None:
                each.close()
        self._protocol.connection_lost(None)

    def abort(self) -> None:
        self.close()

    # Siblings

    def hand_on(self, data: bytes, address: Address, worker: int) -> bool:
        """Give a datagram to the worker that has its connection; False when there is none with this number.

        Its protocol gets `handed_on(list of (data, address))`.
        """
        return self._mailbox is not None and self._mailbox.send(Kind.HANDED_ON, self.name, address, data, worker)

    def ask(self, data: bytes, address: Address) -> None:
        """Give a datagram to all other workers, for its connection may be with one of them.

        Their protocols get `asked(data, address, asker)`.
        """
        if self._mailbox is not None:
            self._mailbox.send_to_all(Kind.ASKED, self.name, address, data)

    def claim(self, connection_id: bytes, worker: int | None = None) -> None:
        """Tell a worker, or all, that the connection with this id is here.

        Their protocols get `claimed(connection_id, worker)`.
        """
        if self._mailbox is None:
            return
        if worker is None:
            self._mailbox.send_to_all(Kind.CLAIM, self.name, ("",), connection_id)
        else:
            self._mailbox.send(Kind.CLAIM, self.name, ("",), connection_id, worker)

    def letters_received(self, letters: list[Letter]) -> None:
        """What siblings send."""
        if self._closed:
            return
        protocol: Any = self._protocol
        if not hasattr(protocol, "handed_on"):
            return
        handed_on = [(letter.data, letter.peer) for letter in letters if letter.kind is Kind.HANDED_ON]
        if handed_on:
            protocol.handed_on(handed_on)
        for letter in letters:
            if letter.kind is Kind.ASKED:
                protocol.asked(letter.data, letter.peer, letter.sender)
            elif letter.kind is Kind.CLAIM:
                protocol.claimed(letter.data, letter.sender)

    # Writing

    def sendto(self, data: Any, addr: Any = None) -> None:
        self.send_many([bytes(data)], addr)

    def send_many(self, datagrams: list[bytes], address: Address) -> None:
        """Send several datagrams to one address; those that the kernel refuses are lost."""
        if self._closed or self._writing is None:
            return
        if not self._queue:
            sent = self._send(datagrams, address)
            if sent == len(datagrams):
                return
            datagrams = datagrams[sent:]
            self._loop.add_writer(self._writing, self._write)
        if self._queued + len(datagrams) <= QUEUE_MAX:
            self._queue.append((datagrams, address))
            self._queued += len(datagrams)
        elif not self._queue:
            self._loop.remove_writer(self._writing)

    def _send(self, datagrams: list[bytes], address: Address) -> int:
        """How many of them are done with: sent, or given up because they cannot be sent at all."""
        assert self._batches is not None
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
        assert self._writing is not None
        self._loop.remove_writer(self._writing)

    # Reading

    def _read(self, batches: DatagramSocket) -> None:
        for _ in range(ROUNDS):
            if self._closed:
                return
            try:
                datagrams = batches.recv()
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

    def __init__(
        self,
        service: Service,
        registry: Registry,
        listeners: Iterable[Listener],
        siblings: Siblings | None,
        services: Mapping[Bind, Service] = MappingProxyType({}),
    ) -> None:
        """Without `siblings` the worker is alone. `services` are what binds have in place of `service`. Raises
        `ConfigError`."""
        self._service = service
        self._siblings = siblings or Siblings()
        self._mailbox: Mailbox | None = None
        self._transports: dict[str, DatagramTransport] = {}
        self._protocols: dict[Address, asyncio.DatagramProtocol] = {}
        self._wires: dict[Address, DatagramWire] = {}
        http3 = _http3(service.config, registry)
        listeners = [*listeners]
        for listener in receiving(service.config, listeners):
            bind, address = listener.bind, listener.sock.getsockname()
            wire = registry.datagram_wire(bind.wires[0]) if bind.datagrams else http3
            assert wire is not None
            self._wires[address] = wire
            self._protocols[address] = wire.connect(services.get(bind, service), address)
        # Where its answers are to be had over TCP, and the UDP port to try in their place.
        ports = {address[1]: address[1] for address, wire in self._wires.items() if wire is http3}
        quic = [listener.sock.getsockname()[1] for listener in listeners if listener.bind.is_quic]
        if quic:
            ports |= {int(listener.bound): quic[0] for listener in listeners if _announces(listener)}
        service.response_headers.alt_svc = alt_svc(service.config, http3, ports)

    def start(self) -> None:
        """Begin to receive, from siblings and what `receive()` says. Raises `SupervisorError`."""
        loop = self._service.loop
        if self._siblings.folder and self._protocols:
            self._mailbox = Mailbox(loop, self._siblings, self._letters_received)
        for address, protocol in self._protocols.items():
            transport = DatagramTransport(
                loop,
                address,
                protocol,
                open_socket=self._wires[address].open_socket,
                mailbox=self._mailbox,
                secret=self._siblings.secret,
            )
            self._transports[transport.name] = transport
            transport.start()
        if self._mailbox is not None:
            self._mailbox.start()

    def receive(self, sockets: list[socket.socket]) -> None:
        """Read these sockets from now on, and no others, between `start()` and `close()`; they are closed here."""
        names = [name_of(sock.getsockname()) for sock in sockets]
        for transport in self._transports.values():
            transport.receive([sock for sock, name in zip(sockets, names, strict=True) if name == transport.name])
        for sock, name in zip(sockets, names, strict=True):
            if name not in self._transports:
                sock.close()

    def _letters_received(self, letters: list[Letter]) -> None:
        for name in dict.fromkeys(letter.local for letter in letters):
            if (transport := self._transports.get(name)) is not None:
                transport.letters_received([letter for letter in letters if letter.local == name])

    def drain(self) -> None:
        """Take on no new peers; the connections of a protocol drain like all others."""
        for protocol in self._protocols.values():
            drain = getattr(protocol, "drain", None)
            if drain is not None:
                drain()

    def close(self) -> None:
        """Close everything."""
        for transport in self._transports.values():
            transport.close()
        self._transports.clear()
        if self._mailbox is not None:
            self._mailbox.close()


def _http3(config: ServerConfig, registry: Registry) -> DatagramWire | None:
    """What is spoken beside the TCP ports, as far as the configuration asks for it. Raises `ConfigError`."""
    if not config.http3_enabled:
        return None
    wires = [wire for wire in registry.datagrams.values() if wire.advertise is not None]
    if not wires:
        raise ConfigError("http3_enabled is on, but nothing installed speaks HTTP/3", hint="pip install pounce-h3")
    if len(wires) > 1:
        names = ", ".join(wire.name for wire in wires)
        raise ConfigError(
            f"several plugins want the datagrams of one port: {names}",
            hint="Leave out all but one: --disable-plugin NAME.",
        )
    return wires[0]


def name_of(address: Address) -> str:
    """An address as text, the same in every process."""
    return " ".join(map(str, address))


def _announces(listener: Listener) -> bool:
    """A TCP port whose clients may go over to HTTP/3 elsewhere."""
    bind = listener.bind
    return not listener.is_unix and not bind.datagrams and not bind.serves and (not bind.wires or "h3" in bind.wires)


def alt_svc(
    config: ServerConfig, wire: DatagramWire | None, ports: Mapping[int, int]
) -> dict[int | None, tuple[bytes, bytes]]:
    """The Alt-Svc fields (RFC 7838 3) of answers at each port: the UDP port where the same is served, on the same
    certificate."""
    if config.http3_alt_svc != "auto" or wire is None or wire.advertise is None:
        return {}
    name, age = wire.advertise.encode(), config.http3_alt_svc_max_age
    return {port: (b"alt-svc", b'%b=":%d"; ma=%d' % (name, udp, age)) for port, udp in ports.items()}
