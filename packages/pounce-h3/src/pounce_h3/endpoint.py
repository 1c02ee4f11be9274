"""Endpoint: the QUIC connections of one worker on one address; who a datagram is for, and what strangers are told.

A datagram whose connection id is known goes to its connection. One whose id names another worker is handed on to it;
one whose id names nobody may belong to a connection elsewhere that the engine or the client gave a name to: all are
asked, and whoever has it claims the id. Of the others, an Initial packet of a version we speak opens a connection, if
there is room; one of another version gets the list of versions (RFC 9000 6); a packet of a connection that nobody has
gets a stateless reset (RFC 9000 10.3). While many handshakes are unfinished, a client has to prove first that it
receives at the address it sends from (Retry, RFC 9000 8.1.2): what it brings back needs no memory here, and any worker
may take it. Where the engine has no Retry, its packet is dropped.

A handshake is a lot of work that anybody can ask for. All strangers together have one share of a turn of the loop;
those for whom nothing is left wait for the next.
"""

import asyncio
import logging
import os
from collections import deque
from typing import TYPE_CHECKING, cast

from pounce.plugin import Share
from pounce_h3 import packets
from pounce_h3.connection import H3Connection
from pounce_h3.engine import Initial
from pounce_h3.engines import check_address, make_engine
from pounce_h3.ids import ID_LENGTH, Keys

if TYPE_CHECKING:
    from pounce.plugin import Address, DatagramTransport, Service
    from pounce_h3.settings import H3Settings

__all__ = ["Endpoint"]

log = logging.getLogger("pounce.h3")

NOBODY = 0
"""The worker that ids name which any worker may take."""
HANDED_ON_PER_TURN = 1024
"""Datagrams of one batch that are handed on."""
ASKED_PER_TURN = 8
"""Datagrams of one batch that all others are asked about."""
RESETS_PER_TURN = 16
"""Stateless resets for one batch of datagrams: they are a courtesy, and must not become a load."""
CLAIMS_MAX = 1024
"""Ids kept that other workers have claimed."""
STRANGERS_MAX = 512
"""First packets that wait for a turn."""

# What is taken from the share that strangers have.
OPEN_STEPS = 64
RETRY_STEPS = 2


class Endpoint(asyncio.DatagramProtocol):
    """One worker's connections on one address."""

    def __init__(self, service: Service, address: Address) -> None:
        self._service = service
        self._address = address
        self.local: tuple[str, int] = address[:2]
        check_address(service, self.local[0])
        self.engine = make_engine(service)
        self._keys = cast(Keys, None)
        self._connections: dict[bytes, H3Connection] = {}
        self._open: set[H3Connection] = set()
        self._unvalidated: set[H3Connection] = set()
        self._transport: DatagramTransport = cast("DatagramTransport", None)
        self._worker = NOBODY
        self._claimed: dict[bytes, int] = {}
        """Whose the connections with these ids are, which name nobody."""
        self._draining = False
        self._share = Share(service.turns)
        self._strangers: deque[tuple[bytes, Address]] = deque()
        self._waiting: set[bytes] = set()
        """For whom they are."""
        self._resets = self._handed_on = self._asked = 0

    # Events from the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("DatagramTransport", transport)
        self._worker = transport.get_extra_info("worker")
        settings: H3Settings = self._service.settings["h3"]
        self._keys = Keys(settings.secret.encode() or transport.get_extra_info("secret"), self._address)

    def connection_lost(self, exc: Exception | None) -> None:
        self._strangers.clear()
        for connection in tuple(self._open):
            self.forget(connection)

    def error_received(self, exc: Exception) -> None:
        self._service.count("h3_socket_error", "h3: %s", exc)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self.datagrams_received([(data, addr)])

    def datagrams_received(self, datagrams: list[tuple[bytes, Address]]) -> None:
        """Give every connection its datagrams, those that came one after the other in one go."""
        self._begin_turn()
        batch: list[bytes] = []
        last: H3Connection | None = None
        last_name = b""
        last_address: Address = ()
        for data, address in datagrams:
            name = packets.destination(data)
            # Most are for whom the one before was, above all where there are many.
            if name == last_name and last is not None and address == last_address:
                batch.append(data)
                continue
            last_name = name
            connection = self._connections.get(name)
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

    def _begin_turn(self) -> None:
        self._resets, self._handed_on, self._asked = RESETS_PER_TURN, HANDED_ON_PER_TURN, ASKED_PER_TURN

    def _deliver(self, connection: H3Connection, datagrams: list[bytes], address: Address) -> None:
        try:
            connection.receive(datagrams, address)
        except KeyboardInterrupt, SystemExit:
            raise
        except BaseException:  # noqa: BLE001 - logged there; what panics in Rust is no Exception
            self._service.connection_failed(connection)

    # Siblings

    def handed_on(self, datagrams: list[tuple[bytes, Address]]) -> None:
        """Packets that name this worker, and landed elsewhere. They go no further."""
        self._begin_turn()
        for data, address in datagrams:
            connection = self._connections.get(packets.destination(data)) or self._open_for(data, address)
            if connection is not None:
                self._deliver(connection, [data], address)

    def asked(self, data: bytes, address: Address, asker: int) -> None:
        """A packet that names nobody, and landed elsewhere."""
        name = packets.destination(data)
        connection = self._connections.get(name)
        if connection is not None:
            self._transport.claim(name, asker)
            self._deliver(connection, [data], address)

    def claimed(self, connection_id: bytes, worker: int) -> None:
        """The connection with this id is another worker's."""
        if connection_id in self._connections:
            return
        if len(self._claimed) >= CLAIMS_MAX:
            del self._claimed[next(iter(self._claimed))]
        self._claimed[connection_id] = worker

    def sockets_moved(self) -> None:
        """Others read from now on what this worker has read: tell them of handshakes under names that tell nothing."""
        for connection in self._unvalidated:
            for name in connection.ids:
                if self._keys.worker_of(name) != self._worker:
                    self._transport.claim(name)

    # Strangers

    def _of_stranger(self, data: bytes, address: Address) -> H3Connection | None:
        """The connection that a datagram opens, if it does."""
        if not data or address[1] == 0:
            return None
        name = packets.destination(data)
        if name in self._waiting:
            # What follows a first packet that waits must not overtake it.
            self._wait(data, address)
            return None
        worker = self._claimed.get(name)
        if worker is None:
            worker = self._keys.worker_of(name)
        if worker is not None and worker not in (self._worker, NOBODY):
            if self._handed_on <= 0:
                return None
            self._handed_on -= 1
            if self._transport.hand_on(data, address, worker):
                return None
            # It is gone, or was never there: one in 256 ids that are drawn anywhere looks as if it were ours.
            self._claimed.pop(name, None)
            if not packets.is_initial(data):
                self._ask(data, address)
        elif worker != self._worker and not packets.is_initial(data):
            self._ask(data, address)
            return None
        return self._open_for(data, address)

    def _ask(self, data: bytes, address: Address) -> None:
        if self._asked > 0:
            self._asked -= 1
            self._transport.ask(data, address)

    def _open_for(self, data: bytes, address: Address) -> H3Connection | None:
        """The connection that is opened for the packet of one that no worker has, if it can be."""
        if not packets.is_long(data):
            self._reset(data, address)
            return None
        header = packets.long_header(data)
        # RFC 9000 14.1: a server MUST discard an Initial packet in a datagram of less than 1200 bytes.
        if header is None or len(data) < packets.MIN_INITIAL:
            return None
        versions = self.engine.versions
        if header.version not in versions:
            if header.version:
                answer = packets.version_negotiation(header.source, header.destination, header.version, versions)
                self._transport.sendto(answer, address)
            return None
        # RFC 9000 7.2: the client's choice "MUST be at least 8 bytes".
        if header.kind != packets.INITIAL or len(header.destination) < 8 or self._draining:
            return None
        if self._share.left <= 0:
            self._wait(data, address)
            return None
        return self._accept(header, address)

    def _wait(self, data: bytes, address: Address) -> None:
        if len(self._strangers) >= STRANGERS_MAX:
            self._service.count("h3_overload", "h3: more first packets than there are turns for, dropped")
            return
        self._strangers.append((data, address))
        self._waiting.add(packets.destination(data))
        self._spend(0)

    def _spend(self, steps: int) -> None:
        """Take from the share of strangers, which is renewed in the next turn."""
        self._share.left -= steps
        if not self._share.waits:
            self._share.later(self._next_turn)

    def _next_turn(self) -> None:
        """Go on with the strangers that wait."""
        strangers = self._strangers
        while strangers and self._share.left > 0:
            data, address = strangers.popleft()
            name = packets.destination(data)
            self._waiting.discard(name)
            connection = self._connections.get(name) or self._open_for(data, address)
            if connection is not None:
                self._deliver(connection, [data], address)
        if strangers:
            self._share.later(self._next_turn)

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
        name = self._name_for(header)
        if retry is None and (name is None or len(self._unvalidated) >= config.http3_retry_above):
            if not self.engine.has_retry:
                service.count("h3_dropped", "h3: a client would have to prove its address, packet dropped")
                return None
            service.count("h3_retry", "h3: a client has to prove its address")
            # Whoever gets the answer can take it.
            self._spend(RETRY_STEPS)
            new = self._keys.new_id(NOBODY)
            token = self._keys.retry_token(address, original, new)
            self._transport.sendto(packets.retry(header.version, header.source, new, original, token), address)
            return None
        if len(self._open) >= config.http3_max_connections or (0 < config.max_connections <= len(service.connections)):
            service.count("max_connections", "http3_max_connections reached, packet dropped")
            return None
        assert name is not None
        self._spend(OPEN_STEPS)
        token = self._keys.reset_token(name)
        quic = self.engine.accept(Initial(name, header.source, original, retry, token, header.version))
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
            name = self._keys.new_id(self._worker)
            while name in self._connections:
                name = self._keys.new_id(self._worker)
            return name
        return header.destination if len(header.destination) == ID_LENGTH else None

    def _reset(self, data: bytes, address: Address) -> None:
        """RFC 9000 10.3: smaller than what it answers, so that two endpoints cannot go on for ever."""
        size = min(len(data) - 1, 42)
        if size < packets.MIN_RESET or self._resets <= 0:
            return
        self._resets -= 1
        self._service.count("h3_stateless_reset")
        token = self._keys.reset_token(data[1 : 1 + ID_LENGTH])
        self._transport.sendto(bytes((0x40 | os.urandom(1)[0] & 0x3F,)) + os.urandom(size - 17) + token, address)

    # For connections

    def send(self, datagrams: list[tuple[bytes, Address]]) -> None:
        """Send; those to one address leave together."""
        send_many = self._transport.send_many
        first = datagrams[0][1]
        same = [data for data, address in datagrams if address == first]
        if len(same) == len(datagrams):
            send_many(same, first)
            return
        start = 0
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
