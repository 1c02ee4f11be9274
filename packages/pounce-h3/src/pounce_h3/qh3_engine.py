"""The engine qh3: QUIC v1 and TLS 1.3 in Rust, interoperable, without the GIL; with our own QPACK."""

import hmac
import logging
import socket
import time
from dataclasses import replace
from types import FunctionType
from typing import TYPE_CHECKING, Any, cast

from qh3._hazmat import Buffer, QuicConnectionCore, UdpSocketState
from qh3.quic import events
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection, QuicConnectionError
from qh3.quic.crypto import CIPHER_SUITES, derive_key_iv_hp
from qh3.quic.packet import pull_quic_transport_parameters, push_quic_transport_parameters
from qh3.quic.tls_bridge import QuicTlsBridge
from qh3.tls import CipherSuite, Epoch, ExtensionType, cipher_suite_hash, hkdf_expand_label

from pounce.errors import TLSError
from pounce_h3.codes import H3_EXCESSIVE_LOAD
from pounce_h3.engine import (
    Closed,
    Connected,
    DatagramReceived,
    EarlyData,
    IdIssued,
    IdRetired,
    Initial,
    QuicEvent,
    StopSending,
    StreamData,
    StreamReset,
)
from pounce_h3.ids import ID_LENGTH
from pounce_h3.packets import VERSION_1, VERSION_2
from pounce_h3.qh3_tls import Certificate, Context, tickets
from pounce_h3.qpack import Qpack

if TYPE_CHECKING:
    from collections.abc import Callable

    from qh3.quic.logger import QuicLogger

    from pounce.config import ServerConfig
    from pounce.contract.wire import Certificates
    from pounce.exchange.budget import Budget
    from pounce.plugin import Address, DatagramSocket, Service
    from pounce_h3.qh3_moves import Moves

__all__ = ["Qh3Engine", "open_socket"]

log = logging.getLogger("pounce")

SALTS = {
    VERSION_1: bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"),
    VERSION_2: bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9"),
}
INITIAL_SUITE = CipherSuite.AES_128_GCM_SHA256
STREAM_WINDOW = 262_144
"""Bytes a peer may send on one stream ahead of what was given out."""
CONNECTION_WINDOW = 1_048_576
"""Bytes a peer may send on all streams together ahead of what was given out."""
DATAGRAM_FRAME_MAX = 65535
"""What a peer may send of a datagram: all that its packets take (RFC 9221 3)."""
DATAGRAM_MAX = 1150
"""Bytes of a datagram that fits into the smallest packets that every network takes (RFC 9000 14)."""
PACKET_MAX = 1500
"""Bytes that a packet takes of the congestion window at the most."""
COST, COST_MAX = 0.0005, 0.5
"""Seconds of processor time that a packet may take, and that those of one peer may take beyond that.

qh3 remembers every connection id that a peer has given and taken back, and looks through them all for each new one."""
STALL = 0.1
"""Seconds of it that are laid to a peer at a time: memory may be tidied up in between, which is nobody's fault."""
STREAMS_AT, CRITICAL = 21, 3
"""Where the numbers of streams are among the arguments of qh3's core; how many of its own HTTP/3 has (RFC 9114 6.2)."""
HELD_EVENTS = 8192
"""Events that may wait in qh3 while nothing is given out: several times those of a peer that uses up its credit. Beyond
that packets are still taken that are `SMALL`, such as those that acknowledge, and up to twice as many events."""
SMALL = 100
NEW_AT, EVENTS_AT = 2, 5
"""Where the numbers of packets that were read and are not known, and of events, are in what qh3's core reports."""
IN_FLIGHT_SLACK = 32_768
"""Bytes unacknowledged beyond twice the congestion window, which holds what a connection may send of its own accord. A
peer that makes it answer, and acknowledges nothing, fills the memory otherwise (CVE-2024-22189)."""


# It warns whenever a peer closes its connection.
logging.getLogger("quic").setLevel(logging.ERROR)


def open_socket(sock: socket.socket) -> DatagramSocket:
    """recvmmsg, and segmentation by the kernel where it can."""
    return cast("DatagramSocket", UdpSocketState(sock.fileno()))


class Qh3Engine:
    """See `pounce_h3.engine.Engine`. Raises `TLSError` when the certificate cannot be used."""

    names_nameless = False
    has_retry = True
    has_datagrams = True
    versions: tuple[int, ...] = (VERSION_1, VERSION_2)

    def __init__(self, config: ServerConfig, tls: Certificates) -> None:
        self.takes_early_data = config.http3_zero_rtt_enabled
        """Clients that come back may send requests before their handshake is complete."""
        self.tls = tls
        self._idle_timeout = config.http3_idle_timeout
        self._takes_datagrams = config.http3_webtransport_enabled
        self.streams_max = config.http3_webtransport_max_streams if config.http3_webtransport_enabled else 0
        """Streams of each kind that a peer may have open; 0 leaves it to qh3."""
        self.create_core = _core_creator(self.streams_max) if self.streams_max else QuicConnection._create_core
        self._qlog: QuicLogger | None = None
        if config.http3_qlog_dir is not None:
            from pounce_h3.qlog import QlogFiles

            self._qlog = QlogFiles(config.http3_qlog_dir)
        self._context: object = tls.context(time.monotonic())
        self._certificates = self._load()
        self.configurations = self._configure()

    def _load(self) -> dict[str, Certificate]:
        return {name: Certificate(*files, self.tls.password()) for name, files in self.tls.files().items()}

    def _configure(self) -> dict[int, QuicConfiguration]:
        """What connections of each version have."""
        default = self._certificates[""]
        first = QuicConfiguration(
            is_client=False,
            alpn_protocols=["h3"],
            certificate=default.leaf,
            private_key=default.key,
            connection_id_length=ID_LENGTH,
            idle_timeout=self._idle_timeout,
            max_data=CONNECTION_WINDOW,
            max_stream_data=STREAM_WINDOW,
            quic_logger=self._qlog,
            max_datagram_frame_size=DATAGRAM_FRAME_MAX if self._takes_datagrams else None,
        )
        # Each has the one that its client chose: qh3 would change to another one in mid-handshake (RFC 9368 2.3), and
        # stand still where a packet of that is lost.
        return {version: replace(first, supported_versions=[version]) for version in self.versions}

    def certificates(self, now: float) -> dict[str, Certificate]:
        """By name, for a connection which begins at `now`: the new ones once connections over TCP have them."""
        context = self.tls.context(now)
        if context is not self._context:
            self._context = context
            try:
                self._certificates = self._load()
                self.configurations = self._configure()
            except TLSError as exc:
                log.error("HTTP/3 goes on with the old certificates: %s", exc.message)
        return self._certificates

    def accept(self, initial: Initial) -> Qh3Connection:
        return Qh3Connection(Quic(self, initial))

    def codec(self, service: Service, budget: Budget) -> Qpack:
        return Qpack(service, budget)


class Quic(QuicConnection):
    """qh3's connection with names and tokens of our choice, and events that can be held back."""

    def __init__(self, engine: Qh3Engine, initial: Initial) -> None:
        self._certificates = engine.certificates(time.monotonic())
        super().__init__(
            configuration=engine.configurations[initial.version],
            original_destination_connection_id=initial.original,
            retry_source_connection_id=initial.retry,
        )
        self.host_cid = initial.connection_id
        self._engine = engine
        self._initial = initial
        self.held = False

    def _create_tls(self, remote_source_cid: bytes | None) -> QuicTlsBridge:
        bridge = super()._create_tls(remote_source_cid)
        bridge.stateless_reset_token = self._initial.reset_token
        # It has put a token of its own into what it is going to say.
        parameters = bridge.serialize_transport_parameters()
        if self._engine.streams_max:
            parameters = _with_streams(parameters, self._engine.streams_max)
        bridge.tls.handshake_extensions = [
            (kind, parameters if kind == ExtensionType.QUIC_TRANSPORT_PARAMETERS else data)
            for kind, data in bridge.tls.handshake_extensions
        ]
        bridge.remote_initial_source_connection_id = self._initial.source
        Context.take_over(bridge.tls, self._certificates, self._engine.tls, self._engine.takes_early_data)
        return bridge

    def agreed(self) -> tuple[str | None, int | None, str | None]:
        """ALPN, cipher suite and certificate, once they are known."""
        context = self.tls
        assert isinstance(context, Context)
        cipher = self.get_cipher()
        return context.alpn_negotiated, None if cipher is None else int(cipher), context.shown.pem

    def keep_ticket(self) -> None:
        """The handshake is complete: the client may come back with its ticket."""
        context = self.tls
        if isinstance(context, Context) and context.made is not None:
            tickets.add(context.made.ticket, context.made)

    def _create_core(self, remote_addr: Address, initial_dcid: bytes, now: float) -> None:
        create = self._engine.create_core
        if self._initial.source:
            create(self, remote_addr, initial_dcid, now)
            return
        # qh3 believes that every client has a name, and would go on sending to the one that this client chose for us.
        # Told that there is none it addresses packets correctly, but cannot know from what the first keys are made.
        create(self, remote_addr, b"", now)
        hp_name, aead_name = (name.decode() for name in CIPHER_SUITES[INITIAL_SUITE])
        version = self._version or VERSION_1
        for direction, secret in zip(("receive", "send"), initial_secrets(initial_dcid, version), strict=True):
            keys = derive_key_iv_hp(cipher_suite=INITIAL_SUITE, secret=secret, version=version)
            self._require_core().install_packet_key(direction, Epoch.INITIAL, (aead_name, hp_name), *keys, 0)

    def _drain_core(self) -> None:
        # qh3 grants credit for what is taken from its core; nothing that matters to a held connection is lost by
        # leaving it there, and a connection that ends is drained.
        if not self.held or self.is_over:
            super()._drain_core()

    @property
    def is_over(self) -> bool:
        if self._close_event is not None:
            return True
        # What ends a connection is among the events of its core, which are looked at unless they are held back.
        return self.held and self._core is not None and self._core.state in ("closing", "draining", "terminated")

    def receive(self, datagrams: list[bytes], address: Address, now: float) -> tuple[int, ...]:
        """As `receive_many_datagrams`, without what only a handshake needs. What the core reports of them; nothing
        before the handshake is complete."""
        if not self._handshake_complete:
            self.receive_many_datagrams(datagrams, address, now)
            return ()
        if self._quic_logger is not None:
            for data in datagrams:
                self._log_datagram("datagrams_received", data)
        report = self._call_core(self._require_core().receive_many_datagrams, datagrams, address, now)
        self._drain_core()
        return report

    def to_send(self, now: float) -> list[tuple[bytes, Address]]:
        """What there is to send, as far as it may leave. `datagrams_to_send` gives none of it where the core has no
        room for what comes next, such as the rest of a handshake (RFC 9000 8.1), and looks into each datagram."""
        core = self._core
        found: list[tuple[bytes, Address]] = []
        if core is None:
            return found
        is_logged = self._quic_logger is not None
        poll = core.poll_transmit
        try:
            while (datagram := poll(now)) is not None:
                found.append((datagram[0], datagram[1]))
                if is_logged:
                    self._log_datagram("datagrams_sent", datagram[0])
                    self._log_packets("packet_sent", datagram[0])
        except RuntimeError:
            # What was found has been counted as sent.
            pass
        return found

    def write(self, stream_id: int, data: bytes, end: bool) -> None:
        """As `send_stream_data`, unless the stream is over; without what only a stream of ours, or a handshake need."""
        if self._close_event is not None or not self._stream_can_send(stream_id):
            return
        if stream_id & 1 or not self._handshake_complete:
            self.send_stream_data(stream_id, data, end)
        else:
            self._call_core(self._require_core().send_stream, stream_id, data, end)


def _core_creator(streams: int) -> Callable[[QuicConnection, Address, bytes, float], None]:
    """What qh3 makes the core of a connection with, but for the numbers of streams, which it has no setting for."""

    def core(*given: Any) -> QuicConnectionCore:
        made: Any = QuicConnectionCore
        return cast(
            QuicConnectionCore, made(*given[:STREAMS_AT], streams, streams + CRITICAL, *given[STREAMS_AT + 2 :])
        )

    create = QuicConnection._create_core
    return FunctionType(create.__code__, {**create.__globals__, "QuicConnectionCore": core})


def _with_streams(parameters: bytes, streams: int) -> bytes:
    """Transport parameters (RFC 9000 18.2) that allow a peer so many streams of each kind."""
    found = pull_quic_transport_parameters(Buffer(data=parameters))
    found.initial_max_streams_bidi, found.initial_max_streams_uni = streams, streams + CRITICAL
    buffer = Buffer(capacity=2 * len(parameters) + 64)
    push_quic_transport_parameters(buffer, found)
    return buffer.data


def _forgotten(*args: object) -> None:
    """Takes the place of what a connection that is over is not told any more."""


def initial_secrets(connection_id: bytes, version: int = VERSION_1) -> tuple[bytes, bytes]:
    """What the keys of the first packets of client and server are made from (RFC 9001 5.2, RFC 9369 3.3.1)."""
    initial = hmac.digest(SALTS[version], connection_id, "sha256")
    digest = cipher_suite_hash(INITIAL_SUITE)
    return (
        hkdf_expand_label(digest, initial, b"client in", b"", 32),
        hkdf_expand_label(digest, initial, b"server in", b"", 32),
    )


class Qh3Connection:
    """See `pounce_h3.engine.QuicConnection`."""

    __slots__ = ("_cost", "_ends", "_first", "_held_events", "_moves", "_quic", "_stops")

    def __init__(self, quic: Quic) -> None:
        self._quic = quic
        self._first: Address | None = None
        """Where the first packet came from."""
        self._moves: Moves | None = None
        """There once one has come from elsewhere."""
        self._held_events = 0
        """What waits in qh3 since the connection is held."""
        self._cost = 0.0
        """Seconds of processor time that the peer's packets took beyond what packets take."""
        self._ends: dict[int, int] = {}
        """Streams that are to end, with the last packet that may have bytes of theirs. qh3 forgets an end that is sent
        by itself, when it is lost together with bytes before it: it waits until nobody misses any, or goes with those
        that are sent again."""
        self._stops: list[tuple[int, int]] = []
        """Streams that the peer is to be asked to stop sending on, with the code."""

    @property
    def timer(self) -> float | None:
        return self._quic.get_timer()

    @property
    def peer(self) -> Address:
        if self._moves is not None:
            return self._moves.at
        core = self._quic._core
        assert core is not None
        return core.active_path[2]

    @property
    def is_over(self) -> bool:
        return self._quic.is_over

    def receive(self, datagrams: list[bytes], address: Address, now: float) -> None:
        quic = self._quic
        count = len(datagrams)
        # Of this thread: that others run meanwhile is nobody's fault.
        began = time.thread_time()
        if address != self._first or self._moves is not None:
            self._receive_moved(datagrams, address, now)
        elif quic.held:
            self._receive_held(datagrams, address, now)
        else:
            quic.receive(datagrams, address, now)
        took = min(time.thread_time() - began, STALL + 10 * COST * count)
        self._cost = max(self._cost + took - COST * count, 0.0)
        core = quic._core
        if core is not None and (
            self._cost > COST_MAX or core.bytes_in_flight > 2 * core.congestion_window + IN_FLIGHT_SLACK
        ):
            quic.close(H3_EXCESSIVE_LOAD, reason_phrase="packets that cost too much")

    def _receive_moved(self, datagrams: list[bytes], address: Address, now: float) -> None:
        """Take the first packet, or what a client has sent that was heard from several addresses."""
        quic = self._quic
        if self._first is None:
            self._first = address
            quic.receive(datagrams, address, now)
            return
        moves = self._moves
        if moves is None:
            from pounce_h3.qh3_moves import Moves

            moves = self._moves = Moves(self._first)
        name = moves.name(address, now)
        size = sum(map(len, datagrams))
        datagrams = moves.enlarged(datagrams, name)
        report = self._receive_held(datagrams, name, now) if quic.held else quic.receive(datagrams, name, now)
        core = quic._core
        if report and core is not None:
            active = core.active_path[2]
            if active != moves.active:
                # What is on its way to the old address is missed once something is acknowledged that was sent later.
                self.ping()
            moves.received(address, name, size, active, report[NEW_AT] > 0, now)

    def _receive_held(self, datagrams: list[bytes], address: Address, now: float) -> tuple[int, ...]:
        """Take what comes of a peer of which nothing is given out, as far as there is room; the rest is lost, as the
        network may lose it.

        Its credit bounds the bytes of its streams, but neither their number nor its datagrams, and qh3 keeps all of it.
        What the core reports of them, nothing where none were taken.
        """
        if self._held_events > 2 * HELD_EVENTS:
            return ()
        if self._held_events > HELD_EVENTS:
            datagrams = [data for data in datagrams if len(data) <= SMALL]
        if not datagrams:
            return ()
        quic = self._quic
        report = quic._call_core(quic._require_core().receive_many_datagrams, datagrams, address, now)
        self._held_events += report[EVENTS_AT]
        # Where it is over.
        quic._drain_core()
        return report

    def events(self) -> list[QuicEvent]:
        found: list[QuicEvent] = []
        quic = self._quic
        while (event := quic.next_event()) is not None:
            kind = type(event)
            if kind is events.StreamDataReceived:
                found.append(StreamData(event.stream_id, event.data, event.end_stream))  # type: ignore[attr-defined]
            elif kind is events.DatagramFrameReceived:
                found.append(DatagramReceived(event.data))  # type: ignore[attr-defined]
            elif isinstance(event, events.StreamReset):
                found.append(StreamReset(event.stream_id, event.error_code))
            elif isinstance(event, events.StopSendingReceived):
                found.append(StopSending(event.stream_id, event.error_code))
            elif isinstance(event, events.ConnectionIdIssued):
                found.append(IdIssued(event.connection_id))
            elif isinstance(event, events.ConnectionIdRetired):
                found.append(IdRetired(event.connection_id))
            elif isinstance(event, events.ProtocolNegotiated):
                if quic.tls is not None and quic.tls.early_data_accepted:
                    found.append(EarlyData(*quic.agreed()))
            elif isinstance(event, events.HandshakeCompleted):
                quic.keep_ticket()
                found.append(Connected(*quic.agreed()))
            elif isinstance(event, events.ConnectionTerminated):
                found.append(Closed(event.error_code, event.reason_phrase))
        return found

    def hold(self, on: bool) -> None:
        self._quic.held = on
        self._held_events = 0
        if not on:
            self._quic._drain_core()

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        quic = self._quic
        datagrams: list[tuple[bytes, Address]] = []
        try:
            if self._ends:
                self._end_streams()
            datagrams = quic.to_send(now)
            if self._stops:
                # qh3 sends STOP_SENDING in a packet of its own, and forgets until the peer says something that streams
                # have data too: those go first.
                self._tell_stops()
                datagrams += quic.to_send(now)
        except QuicConnectionError:
            # It is over.
            pass
        return datagrams if self._moves is None else self._moves.to_send(datagrams)

    def _end_streams(self) -> None:
        first = min(self._outstanding(), default=None)
        for stream_id, last in tuple(self._ends.items()):
            if first is None or last < first:
                del self._ends[stream_id]
                self._quic.write(stream_id, b"", True)

    def _outstanding(self) -> list[int]:
        """The numbers of the packets of which the peer has said nothing."""
        core = self._quic._core
        return [] if core is None else [packet[0] for packet in core.outstanding_application_packets]

    def _tell_stops(self) -> None:
        stops, self._stops = self._stops, []
        for stream_id, code in stops:
            if not self._quic.is_over:
                try:
                    self._quic.stop_stream(stream_id, code)
                except ValueError, QuicConnectionError:
                    # The peer has ended it meanwhile: there is nothing left to stop.
                    pass

    def handle_timer(self, now: float) -> None:
        self._quic.handle_timer(now)

    def ping(self) -> None:
        if not self._quic.is_over:
            self._quic.send_ping(0)

    def open_stream(self, unidirectional: bool) -> int:
        return self._quic._open_stream(unidirectional)

    def may_open(self, unidirectional: bool) -> bool:
        core = self._quic._core
        if core is None:
            return False
        limits = core.stream_limits
        return limits[2 + unidirectional] < limits[unidirectional]

    @property
    def datagram_max(self) -> int:
        # RFC 9221 3: what the peer takes is the whole frame, with its type and length.
        return max(min((self._quic._remote_max_datagram_frame_size or 0) - 3, DATAGRAM_MAX), 0)

    def send_datagram(self, data: bytes) -> None:
        if not self._quic.is_over:
            self._quic.send_datagram_frame(data)

    def write(self, stream_id: int, data: bytes, end: bool) -> None:
        if end and not data and not self.unsent(stream_id) and (packets := self._outstanding()):
            self._ends[stream_id] = max(packets)
        else:
            self._quic.write(stream_id, data, end)

    def unsent(self, stream_id: int) -> int:
        return self._quic.get_send_buffer_size(stream_id)

    @property
    def unsent_in_all(self) -> int:
        # Without what `get_send_buffer_size()` looks at before a handshake.
        core = self._quic._core
        return 0 if core is None else core.get_send_buffer_size(None)

    @property
    def unacknowledged(self) -> int:
        core = self._quic._core
        return 0 if core is None else core.bytes_in_flight + self._quic.get_send_buffer_size()

    @property
    def lost(self) -> int:
        core = self._quic._core
        return 0 if core is None else core.loss_total

    @property
    def is_congested(self) -> bool:
        core = self._quic._core
        return core is None or core.bytes_in_flight + PACKET_MAX > core.congestion_window

    def reset(self, stream_id: int, code: int) -> None:
        self._ends.pop(stream_id, None)
        quic = self._quic
        # RFC 9000 3.1: also when its end was given, but not all before it has left.
        if not quic.is_over and (quic._stream_can_send(stream_id) or quic.get_send_buffer_size(stream_id)):
            quic.reset_stream(stream_id, code)

    def stop(self, stream_id: int, code: int) -> None:
        self._stops.append((stream_id, code))

    def close(self, code: int, reason: str) -> None:
        self._quic.close(code, reason_phrase=reason)

    def release(self) -> None:
        # Where it has not been told before, such as at an end without the peer.
        self._quic._end_trace()
        bridge, self._quic._tls = self._quic._tls, None
        if bridge is not None:
            bridge.tls.alpn_cb = bridge.tls.get_session_ticket_cb = bridge.tls.new_session_ticket_cb = None
            bridge.tls.update_traffic_key_cb = _forgotten
