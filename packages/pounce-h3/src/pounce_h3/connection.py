"""H3Connection: HTTP/3 on one QUIC connection (RFC 9114). Begin to read here.

Theory of operation. The endpoint brings datagrams and the time; the engine turns them into events; each event goes to
the room of what it is about; what streams write goes to the engine, and leaves when everything that arrived with it has
been looked at:

    settings.py       what we announce, and what the peer may announce
    heads.py          field sections, what they were found to mean, and their memory; `qpack.py` codes them
    streams.py        the table of requests, what is given up, budgets; `stream.py` is one of them
    peer_streams.py   the peer's unidirectional streams: control, and the instructions of QPACK
    sessions.py       WebTransport: sessions, their streams (`session_stream.py`) and datagrams; where it is on
    windows.py        what the peer may send, and what applications let wait of it
    output.py         what is sent, and which stream's bytes leave next
    ending.py         GOAWAY, drain, the last acknowledgment
    failures.py       what is raised in the midst of a stream
    endpoint.py       the connections of one address, and which datagram is whose

Each imports those it stands on, and none but the endpoint imports this file. `engine.py` is the seam to QUIC.

Datagrams, events, frames and requests take from the connection's share of a turn of the loop. When that is used up the
engine gets no more datagrams: they wait here up to `LATE_MAX`, and beyond that are lost, as the network may lose them.
In the next turn come the frames that are left first, then the events, then the datagrams.

    HANDSHAKE ─Connected─▶ OPEN          HANDSHAKE ─EarlyData─▶ EARLY ─Connected─▶ OPEN

In EARLY what the peer sends may be a replay, and its address is not proved.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Protocol, cast

from pounce.plugin import Connection, ConnectionInfo
from pounce_h3.codes import H3_EXCESSIVE_LOAD, H3_INTERNAL_ERROR, H3_NO_ERROR
from pounce_h3.ending import Ending
from pounce_h3.engine import (
    Closed,
    Connected,
    DatagramReceived,
    EarlyData,
    IdIssued,
    IdRetired,
    QuicError,
    StreamData,
    StreamReset,
)
from pounce_h3.heads import SCHEME, Heads
from pounce_h3.output import Output
from pounce_h3.peer_streams import PeerStreams
from pounce_h3.settings import announced
from pounce_h3.streams import Streams
from pounce_h3.windows import Windows

if TYPE_CHECKING:
    from pounce.plugin import Address, Service
    from pounce_h3.engine import Engine, QuicConnection, QuicEvent

__all__ = ["H3Connection", "Home"]

HANDSHAKE_GRACE = 1.0
"""Seconds a handshake may still take in a drain."""
LATE_MAX = 1024
"""Datagrams that wait for the connection's next turn: no fewer than its peer may have on their way."""
BATCH = 16
"""Datagrams that the engine gets before their events are looked at."""

# What is taken from the share of a turn, beside a step for each event and frame.
DATAGRAM_STEPS = 2


# How far the handshake is; see the diagram above. Numbers: `pounce.immortal` tells why not an Enum.
HANDSHAKE, EARLY, OPEN = range(3)


class Home(Protocol):
    """What a connection needs of its endpoint."""

    engine: Engine
    local: tuple[str, int]

    def send(self, datagrams: list[tuple[bytes, Address]]) -> None:
        """Send; those to one address leave together."""

    def validated(self, connection: H3Connection) -> None:
        """Its client has proved its address, or the connection is over."""

    def add_id(self, connection_id: bytes, connection: H3Connection) -> None:
        """Packets for `connection` may arrive under another id."""

    def forget_id(self, connection_id: bytes, connection: H3Connection) -> None:
        """No more packets will arrive under this id."""

    def forget(self, connection: H3Connection) -> None:
        """The connection is over; `forgotten()` follows."""


class H3Connection(Connection):
    """RFC 9114 on one QUIC connection. It has no asyncio transport and is its own."""

    __slots__ = (
        "_address",
        "_armed",
        "_armed_at",
        "_endpoint",
        "_events",
        "_handshake_deadline",
        "_late",
        "_late_count",
        "_phase",
        "_ping_due",
        "ending",
        "heads",
        "ids",
        "output",
        "peer_streams",
        "quic",
        "streams",
        "windows",
    )

    def __init__(self, service: Service, endpoint: Home, quic: QuicConnection, ids: set[bytes]) -> None:
        super().__init__(service, "h3")
        self.transport = cast(asyncio.Transport, self)
        self.quic = quic
        self.ids = ids
        """Connection ids under which packets arrive."""
        self.heads = Heads(service, endpoint.engine)
        self.output = Output(self, service, quic, self.heads.codec, endpoint.send)
        self.streams = Streams(service, self.heads, self.output)
        self.windows: Windows = self.streams.windows
        self.peer_streams = PeerStreams(self.streams, self.share)
        self.ending = Ending(self.output, self.streams)
        self._endpoint = endpoint
        self._late: deque[tuple[list[bytes], Address]] = deque()
        self._late_count = 0
        self._events: list[QuicEvent] = []
        """What waits for the next turn: datagrams, in batches, with their number, and events."""
        self._phase = HANDSHAKE
        self._ping_due = inf
        self._address: Address = ()
        self._armed: asyncio.TimerHandle | None = None
        self._armed_at = inf
        self.deadline = self._handshake_deadline = self.loop.time() + service.config.tls_handshake_timeout
        service.connections.add(self)

    @property
    def buffered(self) -> int:
        return self.windows.held + self.output.held

    def choke(self, on: bool) -> None:
        """Nothing: datagrams cannot be left in the network, and the windows bound what comes."""

    # Datagrams

    def receive(self, datagrams: list[bytes], address: Address) -> None:
        """Datagrams of the peer, in order."""
        if self.held_since:
            self._keep_for_later(datagrams, address)
            return
        output = self.output
        output.corked = True
        output.heard()
        try:
            if len(datagrams) <= BATCH:
                self._take(datagrams, address)
            else:
                for at in range(0, len(datagrams), BATCH):
                    if self.held_since:
                        self._keep_for_later(datagrams[at:], address)
                        break
                    self._take(datagrams[at : at + BATCH], address)
        finally:
            output.corked = False
        self.flush()

    def _take(self, datagrams: list[bytes], address: Address) -> None:
        """Give datagrams to the engine, and look at what comes of them."""
        share = self.share
        share.left -= DATAGRAM_STEPS * len(datagrams)
        self.quic.receive(datagrams, address, self.loop.time())
        self._process()
        if address != self._address and self._phase == OPEN:
            self._look_at_peer()
        if share.left <= 0:
            self.park()

    def _keep_for_later(self, datagrams: list[bytes], address: Address) -> None:
        late, room = self._late, LATE_MAX - self._late_count
        taken = datagrams[:room]
        self._late_count += len(taken)
        if late and late[-1][1] == address and len(late[-1][0]) + len(taken) <= BATCH:
            late[-1][0].extend(taken)
        else:
            late.extend((taken[at : at + BATCH], address) for at in range(0, len(taken), BATCH))
        if len(datagrams) > room:
            self.service.count("h3_overload", "h3: more datagrams than a connection has turns for, dropped")

    def next_turn(self) -> None:
        """Go on with what waits."""
        share, output = self.share, self.output
        output.corked = True
        try:
            unread, self.streams.unread = self.streams.unread, []
            events, self._events = self._events, []
            self._handle_all(unread, events)
            late = self._late
            while late and share.left > 0 and not self.held_since:
                batch, address = late.popleft()
                self._late_count -= len(batch)
                self._take(batch, address)
            if late:
                self.park()
        finally:
            output.corked = False
        self.flush()

    def _is_gone(self) -> bool:
        return self not in self.service.connections

    def _set_reading(self, on: bool) -> None:
        """Datagrams are read for all connections of a socket."""

    # Events

    def _process(self) -> None:
        events = self.quic.events()
        if not events:
            return
        try:
            for event in events:
                if isinstance(event, StreamReset):
                    self.streams.refuse_unseen(event.stream_id)
        except QuicError as exc:
            self._fail(exc)
            return
        if self._events or self.streams.unread:
            self._events += events
        else:
            self._handle_all([], events)

    def _handle_all(self, unread: list[Callable[[], None]], events: list[QuicEvent]) -> None:
        """Go on with streams, then handle events, as far as the share of this turn goes."""
        share, streams = self.share, self.streams
        try:
            for go_on in unread:
                go_on()
            if streams.unread:
                # Not at an end: what came after that has to wait.
                self._events = events
                self.park()
                return
            over = self.quic.is_over
            for at, event in enumerate(events, 1):
                # Of a connection that is over only what completes a request is of interest.
                if not over or self._is_known(event):
                    self._handle(event)
                share.left -= 1
                if share.left <= 0 and (streams.unread or at < len(events)):
                    self._events = events[at:]
                    self.park()
                    return
        except QuicError as exc:
            self._fail(exc)

    def _fail(self, error: QuicError) -> None:
        self.service.count("h3_protocol_error", "h3: the peer broke the protocol: %s", error.reason)
        self._close_with(error.code, error.reason)

    def _is_known(self, event: QuicEvent) -> bool:
        return (
            event.stream_id in self.streams.open if isinstance(event, StreamData) else not isinstance(event, Connected)
        )

    def _handle(self, event: QuicEvent) -> None:
        if isinstance(event, StreamData):
            if event.stream_id & 2:
                self.peer_streams.received(event.stream_id, event.data, event.end)
            else:
                self.streams.received(event.stream_id, event.data, event.end)
        elif isinstance(event, StreamReset):
            if event.stream_id & 2:
                self.peer_streams.given_up(event)
            else:
                self.streams.given_up(event)
        elif isinstance(event, Connected):
            self._opened(event)
        elif isinstance(event, EarlyData):
            self._phase = EARLY
            self.streams.is_early = True
            self._begin(event)
        elif isinstance(event, IdIssued):
            if isinstance(event, IdRetired):
                self.ids.discard(event.connection_id)
                self._endpoint.forget_id(event.connection_id, self)
            else:
                self.ids.add(event.connection_id)
                self._endpoint.add_id(event.connection_id, self)
        elif isinstance(event, DatagramReceived):
            if self.streams.sessions is not None:
                self.streams.sessions.datagram_received(event.data)
        elif isinstance(event, Closed):
            self._endpoint.forget(self)

    def _opened(self, event: Connected) -> None:
        """The handshake is complete."""
        if self._phase == HANDSHAKE:
            self._begin(event)
        self._phase = OPEN
        self.service.count("tls_handshakes")
        self.streams.is_early = False
        self._handshake_deadline = inf
        self.deadline = self.streams.due()
        if self.service.config.http3_ping_interval:
            self._ping(self.loop.time())
        self._endpoint.validated(self)
        if not self.service.count_peer(self.share, self._address[0]):
            self._close_with(H3_EXCESSIVE_LOAD, "too many connections")
        elif self.service.draining:
            self.drain()

    def _begin(self, event: EarlyData) -> None:
        """Requests may come from here on: say what we speak (RFC 9114 6.2.1, 7.2.4)."""
        self._address = self.quic.peer
        self._is_now(
            ConnectionInfo(
                id=self.service.next_connection_id(),
                peer=self._address[:2],
                local=self._endpoint.local,
                scheme=SCHEME,
                alpn=event.alpn,
                tls={
                    "server_cert": event.certificate,
                    "client_cert_chain": [],
                    "client_cert_name": None,
                    "client_cert_error": None,
                    "tls_version": 0x0304,
                    "cipher_suite": event.cipher_suite,
                },
                share=self.share,
            )
        )
        self.output.begin(announced(self.service.config))

    def _look_at_peer(self) -> None:
        """The peer may have moved: what is told of it follows once its new address is validated."""
        peer = self.quic.peer
        if peer != self._address:
            self._address = peer
            old = self.connection
            self._is_now(ConnectionInfo(old.id, peer[:2], old.local, old.scheme, old.alpn, old.tls, self.share))
            self.service.count("h3_migrated", "h3: connection moved to another address")

    def _is_now(self, info: ConnectionInfo) -> None:
        """What requests that come from here on are told."""
        self.connection = self.streams.info = info

    # For the rooms: see `pounce_h3.output.Owner`

    def flush(self) -> None:
        """Send, set the timer, and see to what comes of it."""
        output, quic = self.output, self.quic
        now = self.loop.time()
        output.flush(now)
        if quic.is_over:
            if not self.held_since:
                self._over()
        else:
            if output.waiting:
                output.resume()
            if output.handed or output.rests:
                output.look_at_rests(now)
        self._arm(quic.timer, now)
        if self.streams.goaway is not None:
            self.ending.close_when_done(bool(self.held_since))

    def go_on(self) -> None:
        """Applications have taken what they let wait."""
        self.output.corked = True
        try:
            # What the peer sent meanwhile was not looked at, so no time has passed for it.
            self.streams.postpone(self.windows.open())
            self.output.watch(self.streams.due())
            self._process()
        finally:
            self.output.corked = False
        self.flush()

    def guarded(self, call: Callable[[], None]) -> None:
        """Run what the loop called; what it raises costs this connection and no more."""
        try:
            call()
        except KeyboardInterrupt, SystemExit:
            raise
        except BaseException:  # noqa: BLE001
            self.service.connection_failed(self)

    # Timers

    def _arm(self, at: float | None, now: float) -> None:
        if at is None:
            return
        if self._armed is not None:
            if self._armed_at <= at:
                # It rings too early, and is set anew then: cheaper than to cancel one for each packet.
                return
            self._armed.cancel()
        self._armed_at = max(at, now)
        self._armed = self.loop.call_at(self._armed_at, self._timer_rings)

    def _timer_rings(self) -> None:
        self._armed = None
        self.guarded(self._handle_timer)

    def _handle_timer(self) -> None:
        due = self.quic.timer
        now = self.loop.time()
        if due is not None and due <= max(now, self._armed_at):
            self.output.corked = True
            try:
                self.quic.handle_timer(max(now, due))
                self._process()
            finally:
                self.output.corked = False
        self._armed_at = inf
        self.flush()

    # Events from the worker

    def postpone(self, seconds: float) -> None:
        super().postpone(seconds)
        self.streams.postpone(seconds)

    def deadline_passed(self) -> None:
        now = self.loop.time()
        if self._handshake_deadline <= now:
            self.service.count("handshake_error", "h3: the handshake took too long")
            self.abort()
            return
        self.ending.look()
        if self.windows.time_stands_still:
            if self.windows.due <= now and self.streams.sessions is not None:
                self.streams.sessions.make_room()
            self.deadline = self.windows.due
        else:
            self.streams.look(now)
            self.deadline = self.streams.due()
        self.output.watch(self._handshake_deadline)
        if self._ping_due <= now:
            self._ping(now)
        self.output.watch(self._ping_due)
        self.output.soon()

    def _ping(self, now: float) -> None:
        """Keep a connection open on which a request runs, and look again later."""
        if self.streams.open:
            self.quic.ping()
        self._ping_due = now + self.service.config.http3_ping_interval
        self.output.watch(self._ping_due)

    def write_deadline_passed(self) -> None:
        if self.held_since:
            # The peer may have taken something, and said so.
            return
        self.write_deadline = inf
        self.output.look(self.loop.time())
        self.output.soon()

    def drain(self) -> None:
        """RFC 9114 5.2: announce the end, take what is on its way, then name the last request that is served."""
        if self._phase == OPEN:
            self.ending.drain()
        else:
            self._handshake_deadline = min(self._handshake_deadline, self.loop.time() + HANDSHAKE_GRACE)
            self.output.watch(self._handshake_deadline)

    # The end

    def close(self) -> None:
        """End the connection at once, in good order."""
        self._close_with(H3_NO_ERROR, "")
        self.flush()

    def _close_with(self, code: int, reason: str) -> None:
        """End the connection; the reason is for the peer."""
        self.quic.close(code, reason)
        self.output.soon()

    def abort(self) -> None:
        """Forget the connection, after telling the peer so where that is possible."""
        try:
            self.quic.close(H3_INTERNAL_ERROR if self._phase == OPEN else H3_NO_ERROR, "")
            self._endpoint.send(self.quic.datagrams_to_send(self.loop.time()))
        finally:
            self._endpoint.forget(self)
            self._over()

    def is_closing(self) -> bool:
        """Nothing more can be sent."""
        return self.quic.is_over

    def _over(self) -> None:
        """The connection has ended, whoever ended it."""
        if self not in self.service.connections:
            return
        self.deadline = self.write_deadline = inf
        self.output.clear()
        self._late.clear()
        self._late_count = 0
        self._events.clear()
        self._endpoint.validated(self)
        self.streams.lose_all()
        self.service.connection_closed(self)

    def forgotten(self) -> None:
        """The endpoint knows nothing of this connection any more."""
        if self._armed is not None:
            self._armed.cancel()
            self._armed = None
        self.output.cancel()
        self.loop.call_soon(self._release)

    def _release(self) -> None:
        """Leave nothing that only the collector of cycles could find: it comes rarely."""
        self.transport = cast(asyncio.Transport, None)
        self.output.release()
        if lost := self.quic.lost:
            counts = self.service.counts
            counts["h3_packets_lost"] = counts.get("h3_packets_lost", 0) + lost
        self.quic.release()
