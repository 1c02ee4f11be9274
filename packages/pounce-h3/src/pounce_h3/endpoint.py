"""Endpoint: the QUIC connections behind one UDP socket; who a datagram is for, and what strangers are told.

A datagram whose connection id is known goes to its connection. Of the others, an Initial packet of a version we speak
opens a connection, if there is room; one of another version gets the list of versions (RFC 9000 6); a packet of a
connection that we know nothing of gets a stateless reset (RFC 9000 10.3). While many handshakes are unfinished, a
client has to prove first that it receives at the address it sends from (Retry, RFC 9000 8.1.2): what it brings back
needs no memory here.
"""

import asyncio
import logging
import os
import threading
from typing import TYPE_CHECKING, cast

from pounce_h3 import packets
from pounce_h3.connection import H3Connection
from pounce_h3.engine import Initial
from pounce_h3.engines import check_address, make_engine
from pounce_h3.ids import ID_LENGTH, Keys, new_id, worker_of

if TYPE_CHECKING:
    from pounce.plugin import Address, Service
    from pounce_h3.settings import H3Settings

__all__ = ["Endpoint"]

log = logging.getLogger("pounce.h3")

PASSED_ON_PER_TURN = 256
"""Datagrams of one batch that other workers are asked about."""
RESETS_PER_TURN = 16
"""Stateless resets for one batch of datagrams: they are a courtesy, and must not become a load."""


# The endpoints of all workers of this process. The tuple is replaced, never changed, under the lock.
_lock = threading.Lock()
_endpoints: tuple[Endpoint, ...] = ()


class Endpoint(asyncio.DatagramProtocol):
    """One worker's connections on one socket.

    The kernel spreads packets by address, so one whose sender has moved may land on another worker's socket: it is
    passed on through that worker's loop.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._loop = service.loop
        settings: H3Settings = service.settings["h3"]
        self._keys = Keys(settings.secret)
        self.engine = make_engine(service)
        self._connections: dict[bytes, H3Connection] = {}
        self._open: set[H3Connection] = set()
        self._unvalidated: set[H3Connection] = set()
        self._transport: asyncio.DatagramTransport = cast(asyncio.DatagramTransport, None)
        self._draining = False
        self._process = os.getpid() & 0xFF
        self._worker = service.worker_id & 0xFF
        self._alone = service.config.workers == 1
        self._resets = self._passed_on = 0
        self.local: tuple[str, int] = ("", 0)

    # Events from the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        self.local = transport.get_extra_info("sockname")[:2]
        check_address(self._service, self.local[0])
        global _endpoints
        with _lock:
            _endpoints = (*_endpoints, self)

    def connection_lost(self, exc: Exception | None) -> None:
        global _endpoints
        with _lock:
            _endpoints = tuple(endpoint for endpoint in _endpoints if endpoint is not self)
        for connection in tuple(self._open):
            self.forget(connection)

    def error_received(self, exc: Exception) -> None:
        self._service.count("h3_socket_error", "h3: %s", exc)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self.datagrams_received([(data, addr)])

    def datagrams_received(self, datagrams: list[tuple[bytes, Address]]) -> None:
        """Give every connection its datagrams, those that came one after the other in one go."""
        self._resets, self._passed_on = RESETS_PER_TURN, PASSED_ON_PER_TURN
        batch: list[bytes] = []
        last: H3Connection | None = None
        last_address: Address = ()
        for data, address in datagrams:
            connection = self._connections.get(packets.destination(data))
            if connection is not last or address != last_address:
                if last is not None:
                    self._deliver(last, batch, last_address)
                batch = []
                last, last_address = connection, address
            if connection is not None:
                batch.append(data)
            else:
                connection = self._of_stranger(data, address)
                if connection is not None:
                    self._deliver(connection, [data], address)
        if last is not None:
            self._deliver(last, batch, last_address)

    def _deliver(self, connection: H3Connection, datagrams: list[bytes], address: Address) -> None:
        try:
            connection.receive(datagrams, address)
        except Exception:  # noqa: BLE001 - logged there
            self._service.connection_failed(connection)

    # Strangers

    def _of_stranger(self, data: bytes, address: Address) -> H3Connection | None:
        """The connection that a datagram opens, if it does."""
        if not data or address[1] == 0:
            return None
        if self._pass_on(data, address, ()):
            return None
        if not packets.is_long(data):
            self._reset(data, address)
            return None
        header = packets.long_header(data)
        # RFC 9000 14.1: a server MUST discard an Initial packet in a datagram of less than 1200 bytes.
        if header is None or len(data) < packets.MIN_INITIAL:
            return None
        if header.version != packets.VERSION_1:
            if header.version:
                answer = packets.version_negotiation(header.source, header.destination, header.version)
                self._transport.sendto(answer, address)
            return None
        # RFC 9000 7.2: the client's choice "MUST be at least 8 bytes".
        if header.kind != packets.INITIAL or len(header.destination) < 8 or self._draining:
            return None
        return self._accept(header, address)

    def _pass_on(self, data: bytes, address: Address, asked: tuple[Endpoint, ...]) -> bool:
        """Pass a packet on to the worker that its connection id names, or to the next that may know it.

        False when there is none. Packets of the handshake go by name alone: most are of new clients, whom nobody knows.
        """
        others = [item for item in _endpoints if item.local == self.local and item is not self and item not in asked]
        if not others or self._passed_on <= 0:
            return False
        name = packets.destination(data)
        if len(name) == ID_LENGTH and worker_of(name) == (self._process, self._worker):
            return False
        named = [item for item in others if len(name) == ID_LENGTH and worker_of(name) == (item._process, item._worker)]
        if not named and packets.is_long(data):
            return False
        self._passed_on -= 1
        other = (named or others)[0]
        try:
            other._loop.call_soon_threadsafe(other.passed_on, data, address, (*asked, self))
        except RuntimeError:
            # Its loop has just ended.
            return False
        return True

    def passed_on(self, data: bytes, address: Address, asked: tuple[Endpoint, ...]) -> None:
        """A packet that landed on the sockets of others; called on this endpoint's loop."""
        self._resets, self._passed_on = max(self._resets, 1), max(self._passed_on, 1)
        connection = self._connections.get(packets.destination(data))
        if connection is not None:
            self._deliver(connection, [data], address)
        elif not self._pass_on(data, address, asked) and not packets.is_long(data):
            self._reset(data, address)

    def _accept(self, header: packets.LongHeader, address: Address) -> H3Connection | None:
        service, config = self._service, self._service.config
        original, retry = header.destination, None
        if header.token:
            found = self._keys.check_retry_token(address, header.token, header.destination)
            if found is not None:
                original, retry = found, header.destination
            else:
                # RFC 9000 8.1.3: an invalid token is like none.
                service.count("h3_bad_token")
        name = retry or self._name_for(header)
        if retry is None and (name is None or len(self._unvalidated) >= config.http3_retry_above):
            service.count("h3_retry", "h3: a client has to prove its address")
            new = new_id(self._process, self._worker)
            token = self._keys.retry_token(address, original, new)
            self._transport.sendto(packets.retry(header.source, new, original, token), address)
            return None
        if len(self._open) >= config.http3_max_connections or (0 < config.max_connections <= len(service.connections)):
            service.count("max_connections", "http3_max_connections reached, packet dropped")
            return None
        assert name is not None
        quic = self.engine.accept(Initial(name, header.source, original, retry, self._keys.reset_token(name)))
        # Until it has seen ours, the client uses the name that it chose itself.
        ids = {name, header.destination}
        connection = H3Connection(service, self, quic, ids)
        self._open.add(connection)
        self._unvalidated.add(connection)
        for connection_id in ids:
            self._connections[connection_id] = connection
        return connection

    def _name_for(self, header: packets.LongHeader) -> bytes | None:
        """Our name for a new connection, None where only a Retry can give it one."""
        if header.source or self.engine.names_nameless:
            return new_id(self._process, self._worker)
        return header.destination if len(header.destination) == ID_LENGTH else None

    def _reset(self, data: bytes, address: Address) -> None:
        """RFC 9000 10.3: smaller than what it answers, so that two endpoints cannot go on for ever."""
        size = min(len(data) - 1, 42)
        if size < packets.MIN_RESET or self._resets <= 0:
            return
        if not self._alone and data[1] != self._process:
            # It may be the connection of another process, and alive.
            return
        self._resets -= 1
        self._service.count("h3_stateless_reset")
        token = self._keys.reset_token(data[1 : 1 + ID_LENGTH])
        self._transport.sendto(bytes((0x40 | os.urandom(1)[0] & 0x3F,)) + os.urandom(size - 17) + token, address)

    # For connections

    def send(self, datagrams: list[tuple[bytes, Address]]) -> None:
        """Send; those to one address leave together."""
        start = 0
        send_many = self._transport.send_many  # type: ignore[attr-defined]
        for at in range(1, len(datagrams) + 1):
            if at == len(datagrams) or datagrams[at][1] != datagrams[start][1]:
                send_many([data for data, _ in datagrams[start:at]], datagrams[start][1])
                start = at

    def validated(self, connection: H3Connection) -> None:
        """Its client has proved its address, or the connection is over."""
        self._unvalidated.discard(connection)

    def add_id(self, connection_id: bytes, connection: H3Connection) -> None:
        """Packets for `connection` may arrive under another id."""
        self._connections[connection_id] = connection

    def forget_id(self, connection_id: bytes, connection: H3Connection) -> None:
        """No more packets will arrive under this id."""
        if self._connections.get(connection_id) is connection:
            del self._connections[connection_id]

    def forget(self, connection: H3Connection) -> None:
        """The connection is over, and its last packets need no answer."""
        self._open.discard(connection)
        self._unvalidated.discard(connection)
        for connection_id in connection.ids:
            self.forget_id(connection_id, connection)
        connection.forgotten()

    def drain(self) -> None:
        """Take on no new connections."""
        self._draining = True
