"""H3Connection: HTTP/3 on one QUIC connection (RFC 9114).

Theory of operation. The endpoint brings datagrams and the time; the engine turns them into events; events become calls
of streams; what streams write goes to the engine and leaves when everything that arrived together has been looked at.
Little is handed to the engine ahead of the network: which stream's bytes leave next is decided here, by priority.

The connection holds what its applications have not taken yet. Above `HOLD_MAX` the engine gives out nothing more, so
that the peer runs out of credit; it goes on below half of that.

A field section that is, octet for octet, one that was decoded before means the same, as long as the dynamic table did
not change in between, and so does one that differs in its path alone, but for the path: the heads of such requests are
copied instead of decoded and checked again (`pounce.exchange.known_heads`).

Whatever is raised in the midst of a stream, by the engine or by anybody else, ends that stream. What ends the
connection is a `QuicError`, which says what the peer did, and what is raised where no stream is concerned. All of
`BaseException` is meant: what panics in Rust is no `Exception`.

Datagrams, events, frames and requests take from the connection's share of a turn of the loop. When that is used up the
engine gets no more datagrams: they wait here up to `LATE_MAX`, and beyond that are lost, as the network may lose them.
In the next turn come the frames that are left first, then the events, then the datagrams.

    HANDSHAKE ─Connected─▶ OPEN          HANDSHAKE ─EarlyData─▶ EARLY ─Connected─▶ OPEN

In EARLY what the peer sends may be a replay, and its address is not proved.
"""

import asyncio
import functools
from collections import deque
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, cast

from pounce.exchange.budget import Budget
from pounce.exchange.fields import FieldTable, request_head
from pounce.exchange.known_heads import KnownHead, KnownHeads
from pounce.exchange.priority import Priority, parse_priority, priority_of
from pounce.plugin import Connection, ConnectionInfo
from pounce_h3.codes import (
    H3_CLOSED_CRITICAL_STREAM,
    H3_EXCESSIVE_LOAD,
    H3_FRAME_ERROR,
    H3_FRAME_UNEXPECTED,
    H3_ID_ERROR,
    H3_INTERNAL_ERROR,
    H3_MISSING_SETTINGS,
    H3_NO_ERROR,
    H3_REQUEST_REJECTED,
    H3_SETTINGS_ERROR,
    H3_STREAM_CREATION_ERROR,
)
from pounce_h3.engine import (
    Closed,
    Connected,
    EarlyData,
    IdIssued,
    IdRetired,
    QuicError,
    StopSending,
    StreamData,
    StreamReset,
)
from pounce_h3.frames import (
    CANCEL_PUSH,
    GOAWAY,
    MAX_PUSH_ID,
    NOT_ON_CONTROL,
    PRIORITY_UPDATE,
    PRIORITY_UPDATE_PUSH,
    SETTINGS,
    frame,
    integers,
    pull,
    varint,
)
from pounce_h3.qpack import BLOCKED_STREAMS
from pounce_h3.stream import SENT, H3Stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from pounce.plugin import Address, Exchange, Service
    from pounce_h3.endpoint import Endpoint
    from pounce_h3.engine import FieldCodec, QuicConnection, QuicEvent

__all__ = ["H3Connection"]

HOLD_MAX = 1_048_576
"""Bytes of request bodies, of all streams of a connection, that applications may let wait."""
AHEAD_MAX = 65536
"""Bytes handed to the engine ahead of what the network takes."""
PIECE = 16384
"""Bytes of one stream that are handed over at a time."""
CONTROL_FRAME_MAX = 4096
"""Bytes of a frame on the control stream."""
PRIORITIES_MAX = 100
"""Priorities kept for requests that have not arrived."""
DRAIN_GRACE = 0.25
"""Seconds in which requests that were on their way when a drain began are still taken."""
LINGER = 3.0
"""Seconds in which a peer has to acknowledge something of what was sent last, before the connection is closed."""
HANDSHAKE_GRACE = 1.0
"""Seconds a handshake may still take in a drain."""
RESETS_MAX = 200
"""Requests that the peer may give up unanswered at once, beyond `RESETS_PER_SECOND`."""
RESETS_PER_SECOND = 20
INSTRUCTIONS_MAX = 1024
"""QPACK instructions that the peer may send at once, beyond `INSTRUCTIONS_PER_SECOND` and those of its requests."""
INSTRUCTIONS_PER_SECOND = 100
INSTRUCTIONS_PER_REQUEST = 32
HEAD_MEMORY = 16
"""How many heads of `max_header_size` the requests of a connection may hold together."""
LATE_MAX = 1024
"""Datagrams that wait for the connection's next turn: no fewer than its peer may have on their way."""
BATCH = 8
"""Datagrams that the engine gets before their events are looked at."""
SENT_MAX = 8
"""How often the network is given `AHEAD_MAX` before others have their turn."""

# What is taken from the share of a turn, beside a step for each event and frame.
DATAGRAM_STEPS = 2

# RFC 9114 7.2.4.1, RFC 9204 5, RFC 9220 5
QPACK_MAX_TABLE_CAPACITY, MAX_FIELD_SECTION_SIZE, QPACK_BLOCKED_STREAMS, ENABLE_CONNECT_PROTOCOL = 0x1, 0x6, 0x7, 0x8
_HTTP2_SETTINGS = {0x0, 0x2, 0x3, 0x4, 0x5}

# RFC 9114 6.2, RFC 9204 4.2
CONTROL, PUSH, ENCODER, DECODER = 0x0, 0x1, 0x2, 0x3
UNKNOWN, IGNORED = -1, -2


# How far the handshake is; see the diagram above. Numbers: `pounce.immortal` tells why not an Enum.
HANDSHAKE, EARLY, OPEN = range(3)


class PeerStream:
    """A unidirectional stream of the peer's."""

    __slots__ = ("buffer", "kind", "skip")

    def __init__(self) -> None:
        self.kind = UNKNOWN
        self.buffer = bytearray()
        self.skip = 0
        """Bytes of an unknown frame that are still to come."""


class H3Connection(Connection):
    """RFC 9114 on one QUIC connection. It has no asyncio transport and is its own."""

    __slots__ = (
        "_address",
        "_armed",
        "_armed_at",
        "_broken",
        "_control_id",
        "_decoder_id",
        "_encoder_id",
        "_endpoint",
        "_events",
        "_given",
        "_goaway",
        "_handshake_deadline",
        "_held",
        "_highest",
        "_holding",
        "_holding_since",
        "_instructions",
        "_kinds",
        "_known_heads",
        "_late",
        "_linger_until",
        "_max_push",
        "_missing",
        "_peer_goaway",
        "_peer_streams",
        "_phase",
        "_queue",
        "_requests_paid",
        "_resets",
        "_settings_received",
        "_streams",
        "_stuck",
        "_transmit",
        "_unacknowledged",
        "_unread",
        "_unwanted",
        "answered",
        "codec",
        "fields",
        "head_memory",
        "head_memory_max",
        "ids",
        "max_section",
        "priorities",
        "quic",
        "requests",
        "times_heads",
        "waiting",
    )

    def __init__(self, service: Service, endpoint: Endpoint, quic: QuicConnection, ids: set[bytes]) -> None:
        super().__init__(service, "h3")
        self.transport = cast(asyncio.Transport, self)
        config = service.config
        self.quic = quic
        self.ids = ids
        """Connection ids under which packets arrive."""
        shared = service.shared
        self.fields: FieldTable = shared.get("fields") or shared.setdefault("fields", FieldTable())
        # The longest code of Huffman has 30 bits for an octet.
        self.max_section = 4 * config.max_header_size + 16 * config.max_headers
        """Bytes of an encoded field section: more than any that is within the limits."""
        self.head_memory = 0
        """Bytes of field sections that are not complete, or blocked, and of heads of requests."""
        self.head_memory_max = HEAD_MEMORY * config.max_header_size
        self.waiting: set[H3Stream] = set()
        """Streams that are not writable."""
        self.priorities: dict[int, Priority] = {}
        """Of requests that have not arrived yet, by the id of their stream."""
        self.times_heads = config.server_timing
        """Heads tell how long it took to read them."""
        self.requests = 0
        self._requests_paid = 0
        self.answered = 0
        """Requests that were answered since one was given up."""
        self._endpoint = endpoint
        time = self.loop.time
        # CVE-2023-44487, CVE-2025-8671: requests whose work is thrown away.
        self._resets = Budget("requests that were given up", RESETS_MAX, RESETS_PER_SECOND, time, _too_much)
        self._instructions = Budget("QPACK instructions", INSTRUCTIONS_MAX, INSTRUCTIONS_PER_SECOND, time, _too_much)
        self.codec: FieldCodec = endpoint.engine.codec(service, self._instructions)
        self._known_heads = KnownHeads()
        self._streams: dict[int, H3Stream] = {}
        self._peer_streams: dict[int, PeerStream] = {}
        self._kinds: set[int] = set()
        self._late: deque[tuple[bytes, Address]] = deque()
        self._events: list[QuicEvent] = []
        self._unread: list[Callable[[], None]] = []
        """What waits for the next turn: datagrams, events, and streams with frames that were not looked at."""
        self._queue: set[H3Stream] = set()
        self._stuck: set[H3Stream] = set()
        """Those of the queue for which the peer gives no credit, until it is heard of again."""
        self._given = 0
        """Bytes of streams that the engine was given."""
        self._broken: list[tuple[int, int]] = []
        self._unwanted: set[int] = set()
        """Requests that were given up before anything was seen of them, and whose end has not come yet."""
        self._held = 0
        self._holding = False
        self._holding_since = inf
        self._highest = -4
        self._missing: set[int] = set()
        """Request streams below the highest that have not been heard of; as many as the peer has credit for."""
        self._goaway: int | None = None
        self._peer_goaway = inf
        self._unacknowledged = self._linger_until = inf
        self._max_push = -1
        self._phase = HANDSHAKE
        self._settings_received = False
        self._control_id = self._encoder_id = self._decoder_id = -1
        self._address: Address = ()
        self._transmit: asyncio.Handle | None = None
        self._armed: asyncio.TimerHandle | None = None
        self._armed_at = inf
        self.deadline = self._handshake_deadline = time() + config.tls_handshake_timeout
        service.connections.add(self)

    # Events from the endpoint

    def receive(self, datagrams: list[bytes], address: Address) -> None:
        """Datagrams of the peer, in order."""
        if self.held_since:
            self._keep_for_later(datagrams, address)
            return
        self.corked = True
        self._stuck.clear()
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
            self.corked = False
        self._flush()

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
        room = LATE_MAX - len(self._late)
        self._late.extend((data, address) for data in datagrams[:room])
        if len(datagrams) > room:
            self.service.count("h3_overload", "h3: more datagrams than a connection has turns for, dropped")

    def next_turn(self) -> None:
        """Go on with what waits."""
        share = self.share
        self.corked = True
        try:
            unread, self._unread = self._unread, []
            events, self._events = self._events, []
            self._handle_all(unread, events)
            late = self._late
            while late and share.left > 0 and not self.held_since:
                address = late[0][1]
                batch = [late.popleft()[0]]
                while late and len(batch) < BATCH and late[0][1] == address:
                    batch.append(late.popleft()[0])
                self._take(batch, address)
            if late:
                self.park()
        finally:
            self.corked = False
        self._flush()

    def _is_gone(self) -> bool:
        return self not in self.service.connections

    def _set_reading(self, on: bool) -> None:
        """Datagrams are read for all connections of a socket."""

    def _process(self) -> None:
        events = self.quic.events()
        if not events:
            return
        try:
            for event in events:
                if isinstance(event, StreamReset) and self._is_given_up(event.stream_id):
                    self._unwanted.add(event.stream_id)
        except QuicError as exc:
            self._fail(exc)
            return
        if self._events or self._unread:
            self._events += events
        else:
            self._handle_all([], events)

    def _handle_all(self, unread: list[Callable[[], None]], events: list[QuicEvent]) -> None:
        """Go on with streams, then handle events, as far as the share of this turn goes."""
        share = self.share
        try:
            for go_on in unread:
                go_on()
            if self._unread:
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
                if share.left <= 0 and (self._unread or at < len(events)):
                    self._events = events[at:]
                    self.park()
                    return
        except QuicError as exc:
            self._fail(exc)

    def _fail(self, error: QuicError) -> None:
        self.service.count("h3_protocol_error", "h3: the peer broke the protocol: %s", error.reason)
        self.close_with(error.code, error.reason)

    def read_later(self, go_on: Callable[[], None]) -> None:
        """The share is used up, and a stream has frames left to read: `go_on` reads them."""
        self._unread.append(go_on)

    def _is_known(self, event: QuicEvent) -> bool:
        return event.stream_id in self._streams if isinstance(event, StreamData) else not isinstance(event, Connected)

    def _handle(self, event: QuicEvent) -> None:
        if isinstance(event, StreamData):
            if event.stream_id & 2:
                self._peer_stream_received(event.stream_id, event.data, event.end)
            elif event.stream_id not in self._unwanted:
                self._request_received(event.stream_id, event.data, event.end)
            elif event.end:
                self._unwanted.discard(event.stream_id)
        elif isinstance(event, StreamReset):
            if event.stream_id & 2:
                self._peer_stream_given_up(event.stream_id)
            else:
                self._given_up(event)
        elif isinstance(event, Connected):
            self._opened(event)
        elif isinstance(event, EarlyData):
            self._phase = EARLY
            self._begin(event)
        elif isinstance(event, IdIssued):
            if isinstance(event, IdRetired):
                self.ids.discard(event.connection_id)
                self._endpoint.forget_id(event.connection_id, self)
            else:
                self.ids.add(event.connection_id)
                self._endpoint.add_id(event.connection_id, self)
        elif isinstance(event, Closed):
            self._endpoint.forget(self)

    def _opened(self, event: Connected) -> None:
        """The handshake is complete."""
        if self._phase == HANDSHAKE:
            self._begin(event)
        self._phase = OPEN
        self._handshake_deadline = inf
        self.deadline = min((stream.deadline for stream in self._streams.values()), default=inf)
        self._endpoint.validated(self)
        if self.service.draining:
            self.drain()

    @property
    def is_early(self) -> bool:
        """What arrives may be a replay."""
        return self._phase == EARLY

    def _begin(self, event: EarlyData) -> None:
        """Requests may come from here on: say what we speak (RFC 9114 6.2.1, 7.2.4)."""
        config = self.service.config
        self._address = self.quic.peer
        self.connection = ConnectionInfo(
            id=self.service.next_connection_id(),
            peer=self._address[:2],
            local=self._endpoint.local,
            scheme="https",
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
        settings = {
            QPACK_MAX_TABLE_CAPACITY: config.http3_qpack_max_table_capacity,
            # It counts 32 octets more for each field than max_header_size does: whatever is within it is served.
            MAX_FIELD_SECTION_SIZE: config.max_header_size,
            QPACK_BLOCKED_STREAMS: BLOCKED_STREAMS if config.http3_qpack_max_table_capacity else 0,
            ENABLE_CONNECT_PROTOCOL: 1,
        }
        payload = b"".join(varint(name) + varint(value) for name, value in settings.items())
        self._control_id, self._encoder_id, self._decoder_id = (self.quic.open_stream() for _ in range(3))
        self.quic.write(self._control_id, varint(CONTROL) + frame(SETTINGS, payload), False)
        self.quic.write(self._encoder_id, varint(ENCODER), False)
        self.quic.write(self._decoder_id, varint(DECODER), False)

    def _look_at_peer(self) -> None:
        """The peer may have moved: what is told of it follows once its new address is validated."""
        peer = self.quic.peer
        if peer != self._address:
            self._address = peer
            old = self.connection
            self.connection = ConnectionInfo(old.id, peer[:2], old.local, old.scheme, old.alpn, old.tls, self.share)
            self.service.count("h3_migrated", "h3: connection moved to another address")

    # Requests

    def _is_given_up(self, stream_id: int) -> bool:
        """Whether a request is given up of which nothing has been seen: it never reaches an application."""
        if stream_id & 2 or not self._is_new(stream_id):
            return False
        self.count_reset()
        self.priorities.pop(stream_id, None)
        self.codec.cancel(stream_id)
        self.reset(stream_id, H3_REQUEST_REJECTED)
        return True

    def _is_new(self, stream_id: int) -> bool:
        """Whether this is the first that is heard of a request stream; they need not come in their order."""
        if stream_id > self._highest:
            self._missing.update(range(self._highest + 4, stream_id, 4))
            self._highest = stream_id
            return True
        if stream_id in self._missing:
            self._missing.discard(stream_id)
            return True
        return False

    def _request_received(self, stream_id: int, data: bytes, end: bool) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            if not self._is_new(stream_id):
                # Its request is over.
                return
            if self._goaway is not None and stream_id >= self._goaway:
                # RFC 9114 5.2: requests at or above the id of GOAWAY were not and will not be processed.
                self.reset(stream_id, H3_REQUEST_REJECTED)
                self.stop(stream_id, H3_REQUEST_REJECTED)
                self.priorities.pop(stream_id, None)
                self.codec.cancel(stream_id)
                return
            stream = self._streams[stream_id] = H3Stream(self, stream_id, self.connection)
        try:
            stream.data_received(data, end)
        except QuicError, KeyboardInterrupt, SystemExit:
            raise
        except BaseException:  # noqa: BLE001
            self.stream_failed(stream)
        # For most requests that was all of it, and no deadline needs watching.
        if stream.deadline < self.deadline:
            self.deadline = stream.deadline

    def _given_up(self, event: StreamReset) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            if not isinstance(event, StopSending):
                self._unwanted.discard(event.stream_id)
            return
        # RFC 9114 4.1.1: whoever cancels a request gives up both halves of its stream, and counts once.
        if stream.writing != SENT and not stream.given_up:
            stream.given_up = True
            self.count_reset()
        self._isolated(stream, stream.stop_received if isinstance(event, StopSending) else stream.reset_received)

    def _peer_stream_given_up(self, stream_id: int) -> None:
        peer = self._peer_streams.pop(stream_id, None)
        if stream_id in (self._control_id, self._encoder_id, self._decoder_id) or (
            peer is not None and peer.kind in (CONTROL, ENCODER, DECODER)
        ):
            raise QuicError(H3_CLOSED_CRITICAL_STREAM, "a critical stream was given up")

    def count_reset(self) -> None:
        """A request was given up, or made malformed, before it was answered. Raises `QuicError`."""
        # What a client gives up in proportion to what it lets us finish is no attack.
        self._resets.earn(self.answered // 2)
        self.answered = 0
        self._resets.spend()

    def stream_ended(self, stream: H3Stream) -> None:
        """A direction of a stream is done with: forget the stream when both are."""
        if stream.is_over and self._streams.get(stream.id) is stream:
            del self._streams[stream.id]
            self.head_memory -= stream.held_head
            # Stream and exchange must not keep each other alive.
            stream.exchange = cast("Exchange", None)
            self.priorities.pop(stream.id, None)
            limit = self.service.config.max_requests_per_connection
            if limit and self.requests >= limit and self._goaway is None:
                self._send_goaway(self._highest + 4)
        if self._goaway is not None:
            self.transmit_soon()

    def _is_busy(self) -> bool:
        """A request is still to be answered, or on its way, as a later one has arrived."""
        some = bool(self._missing or self.held_since)
        return some or any(not stream.is_answered for stream in self._streams.values())

    # What is raised

    def stream_failed(self, stream: H3Stream) -> None:
        """Something was raised in the midst of a stream, which ends it; call while the exception is handled, and never
        from inside a Stream method."""
        self._log_failure()
        try:
            stream.fail(H3_INTERNAL_ERROR)
        except Exception:  # noqa: BLE001 - logged there
            self._log_failure()

    def stream_failed_soon(self, stream: H3Stream) -> None:
        """As `stream_failed`, from inside a Stream method."""
        self._log_failure()
        # It is not complete, whatever was written.
        stream.writable = False
        self.loop.call_soon(self._guarded, stream.break_off)

    def _log_failure(self) -> None:
        self.service.count("stream_error")
        self.service.log.exception("Plugin h3 failed on a stream")

    def _isolated(self, stream: H3Stream, call: Callable[[], None]) -> None:
        """Do something about a stream; what it raises costs this stream and no other."""
        try:
            call()
        except QuicError, KeyboardInterrupt, SystemExit:
            raise
        except BaseException:  # noqa: BLE001
            self.stream_failed(stream)

    # Field sections

    def understand(self, stream_id: int, section: bytes) -> tuple[KnownHead, bytes | None]:
        """What a request's field section means, and the path that takes the place of the one in there, if one does.

        Raises `StreamBlocked`, `FieldSectionTooLarge`, `BadRequest`, and `QuicError`.
        """
        codec = self.codec
        split: tuple[bytes, int] | None = None
        found: tuple[KnownHead, bytes | None] | None = None
        known = self._known_heads.get(section)
        if known is not None:
            found = known, None
        else:
            split = codec.without_path(section)
            if split is not None:
                found = self._known_heads.but_for_path(
                    split, section, codec.string, self.service.config.max_header_size
                )
        if found is not None:
            # RFC 9204 4.5.1.1: without the dynamic table the first octet is 0.
            if section[0]:
                codec.acknowledge(stream_id)
            return found
        fields, size = codec.decode(stream_id, section)
        head = request_head(fields, "3", self.connection.scheme, self.fields)
        known = KnownHead(head, priority_of(head.headers), size)
        self._known_heads.keep(section, split, known)
        return known, None

    def _encoder_received(self, data: bytes) -> None:
        """Instructions of the peer's encoder: what was known is known no longer, and what was blocked may go on."""
        codec = self.codec
        generation = codec.generation
        self._instructions.earn((self.requests - self._requests_paid) * INSTRUCTIONS_PER_REQUEST)
        self._requests_paid = self.requests
        codec.encoder_instructions(data)
        if codec.generation != generation:
            self._known_heads.clear()
            for stream_id in codec.unblocked():
                stream = self._streams.get(stream_id)
                if stream is not None:
                    self._isolated(stream, stream.unblock)

    # The peer's unidirectional streams

    def _peer_stream_received(self, stream_id: int, data: bytes, end: bool) -> None:
        stream = self._peer_streams.get(stream_id)
        if stream is None:
            stream = self._peer_streams[stream_id] = PeerStream()
        kind = stream.kind
        if kind == UNKNOWN:
            stream.buffer += data
            pulled = pull(bytes(stream.buffer[:8]), 0)
            if pulled is None:
                if end:
                    del self._peer_streams[stream_id]
                return
            data = bytes(stream.buffer[pulled[1] :])
            stream.buffer.clear()
            kind = stream.kind = self._kind_of(stream_id, pulled[0])
        if end and kind in (CONTROL, ENCODER, DECODER):
            raise QuicError(H3_CLOSED_CRITICAL_STREAM, "a critical stream was closed")
        if kind == CONTROL:
            self._control_received(stream, data)
        elif kind == ENCODER and data:
            self._encoder_received(data)
        elif kind == DECODER and data:
            self.codec.decoder_instructions(data)
        if end:
            del self._peer_streams[stream_id]

    def _kind_of(self, stream_id: int, kind: int) -> int:
        if kind == PUSH:
            raise QuicError(H3_STREAM_CREATION_ERROR, "clients do not push")
        if kind not in (CONTROL, ENCODER, DECODER):
            # RFC 9114 6.2: streams of unknown types are read no further.
            self.quic.stop(stream_id, H3_STREAM_CREATION_ERROR)
            return IGNORED
        if kind in self._kinds:
            raise QuicError(H3_STREAM_CREATION_ERROR, "a critical stream was opened twice")
        self._kinds.add(kind)
        return kind

    def _control_received(self, stream: PeerStream, data: bytes) -> None:
        buffer = stream.buffer
        buffer += data
        share = self.share
        while buffer:
            share.left -= 1
            if share.left <= 0:
                self.read_later(functools.partial(self._control_received, stream, b""))
                return
            if stream.skip:
                count = min(stream.skip, len(buffer))
                del buffer[:count]
                stream.skip -= count
                continue
            head = bytes(buffer[:16])
            kind = pull(head, 0)
            length = pull(head, kind[1]) if kind is not None else None
            if kind is None or length is None:
                return
            self._check_control_frame(kind[0], length[0])
            if kind[0] not in (SETTINGS, GOAWAY, MAX_PUSH_ID, CANCEL_PUSH, PRIORITY_UPDATE):
                del buffer[: length[1]]
                stream.skip = length[0]
                continue
            stop = length[1] + length[0]
            if len(buffer) < stop:
                return
            payload = bytes(buffer[length[1] : stop])
            del buffer[:stop]
            self._control_frame(kind[0], payload)

    def _check_control_frame(self, kind: int, length: int) -> None:
        if not self._settings_received and kind != SETTINGS:
            raise QuicError(H3_MISSING_SETTINGS, "the first frame is not SETTINGS")
        if kind in NOT_ON_CONTROL or (kind == SETTINGS and self._settings_received):
            raise QuicError(H3_FRAME_UNEXPECTED, f"frame type {kind:#x} on the control stream")
        if kind == PRIORITY_UPDATE_PUSH:
            # RFC 9218 7.2: no push was ever promised.
            raise QuicError(H3_ID_ERROR, "PRIORITY_UPDATE of a push")
        if length > CONTROL_FRAME_MAX and kind in (SETTINGS, GOAWAY, MAX_PUSH_ID, CANCEL_PUSH, PRIORITY_UPDATE):
            raise QuicError(H3_EXCESSIVE_LOAD, "a frame on the control stream is too large")

    def _control_frame(self, kind: int, payload: bytes) -> None:
        if kind == PRIORITY_UPDATE:
            self._priority_update(payload)
            return
        values = integers(payload)
        if kind == SETTINGS:
            self._settings(values)
        elif values is None or len(values) != 1:
            raise QuicError(H3_FRAME_ERROR, f"frame type {kind:#x} is not one integer")
        elif kind == CANCEL_PUSH:
            # RFC 9114 7.2.3: no push was ever promised.
            raise QuicError(H3_ID_ERROR, "CANCEL_PUSH without a push")
        elif kind == GOAWAY:
            # RFC 9114 5.2: "the identifier [...] MUST NOT be greater than the identifier in a previous frame".
            if values[0] > self._peer_goaway:
                raise QuicError(H3_ID_ERROR, "the id of GOAWAY grows")
            self._peer_goaway = values[0]
        elif kind == MAX_PUSH_ID:
            # RFC 9114 7.2.7: it "cannot reduce the maximum push ID".
            if values[0] < self._max_push:
                raise QuicError(H3_ID_ERROR, "MAX_PUSH_ID shrinks")
            self._max_push = values[0]

    def _settings(self, values: list[int] | None) -> None:
        if values is None or len(values) % 2:
            raise QuicError(H3_FRAME_ERROR, "SETTINGS is not made of pairs")
        settings = dict(zip(values[::2], values[1::2], strict=True))
        if len(settings) * 2 != len(values) or settings.keys() & _HTTP2_SETTINGS:
            raise QuicError(H3_SETTINGS_ERROR, "a setting is repeated or reserved")
        if settings.get(ENABLE_CONNECT_PROTOCOL, 0) > 1:
            raise QuicError(H3_SETTINGS_ERROR, "SETTINGS_ENABLE_CONNECT_PROTOCOL is neither 0 nor 1")
        # What the peer's decoder can do is of no interest: nothing is put into its table.
        self._settings_received = True

    def _priority_update(self, payload: bytes) -> None:
        """RFC 9218 7.2."""
        pulled = pull(payload, 0)
        if pulled is None:
            raise QuicError(H3_FRAME_ERROR, "PRIORITY_UPDATE without an element")
        stream_id, at = pulled
        if stream_id & 3:
            raise QuicError(H3_ID_ERROR, "PRIORITY_UPDATE of what is no request")
        priority = parse_priority(payload[at:])
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.priority = priority
        elif (stream_id > self._highest or stream_id in self._missing) and len(self.priorities) < PRIORITIES_MAX:
            self.priorities[stream_id] = priority

    # What applications let wait

    def hold(self, count: int) -> None:
        """`count` bytes of a body have arrived and wait for an application."""
        self._held += count
        if self._held > HOLD_MAX and not self._holding:
            self._holding = True
            self._holding_since = min(self._holding_since, self.loop.time())
            self.quic.hold(True)

    def release(self, count: int) -> None:
        """An application has taken `count` bytes, or nobody will."""
        self._held -= count
        if self._holding and self._held <= HOLD_MAX // 2:
            self._holding = False
            # Rule 2: not from inside a Stream method.
            self.loop.call_soon(self._go_on)
        elif not self.corked:
            self.transmit_soon()

    def _go_on(self) -> None:
        if not self._holding and not self.quic.is_over:
            self._guarded(self._take_held)

    def _take_held(self) -> None:
        # What the peer sent meanwhile was not looked at, so no time has passed for it.
        stood = self.loop.time() - self._holding_since
        self._holding_since = inf
        for stream in self._streams.values():
            stream.postpone(stood)
            self.watch(stream.deadline)
        self.corked = True
        try:
            self.quic.hold(False)
            self._process()
        finally:
            self.corked = False
        self._flush()

    # Writing

    def send(self, stream: H3Stream, pieces: list[bytes], end: bool) -> None:  # type: ignore[override]
        """Bytes of a stream, in order; they leave when nothing more urgent does."""
        size = len(pieces[0]) if len(pieces) == 1 else sum(map(len, pieces))
        quic = self.quic
        try:
            # Most answers are one small piece: what is last on its stream is handed over without asking the engine.
            if not self._queue and size <= PIECE and (end or quic.unsent(stream.id) + size <= AHEAD_MAX):
                self._given += size
                for piece in pieces[:-1]:
                    quic.write(stream.id, piece, False)
                quic.write(stream.id, pieces[-1] if pieces else b"", end)
            else:
                stream.pending += pieces
                stream.pending_size += size
                stream.pending_end = end
                if end and not size:
                    stream.pending.append(b"")
                self._queue.add(stream)
        except BaseException:  # noqa: BLE001
            self.stream_failed_soon(stream)
        self.transmit_soon()

    def unsent(self, stream: H3Stream) -> int:
        """Bytes that the engine has of a stream, and that have not left."""
        try:
            return self.quic.unsent(stream.id)
        except BaseException:  # noqa: BLE001
            self.stream_failed_soon(stream)
            return 0

    def reset(self, stream_id: int, code: int) -> None:
        """Give up our half of a stream at once."""
        try:
            self.quic.reset(stream_id, code)
        except BaseException:  # noqa: BLE001
            self._log_failure()

    def stop(self, stream_id: int, code: int) -> None:
        """Ask the peer to give up its half of a stream."""
        try:
            self.quic.stop(stream_id, code)
        except BaseException:  # noqa: BLE001
            self._log_failure()

    def reset_soon(self, stream_id: int, code: int) -> None:
        """Give up a stream once what was written on it has left, as far as the network takes it."""
        self._broken.append((stream_id, code))
        self.transmit_soon()

    def transmit_soon(self) -> None:
        """Send what there is at the end of this turn, if nobody does before."""
        if not self.corked and self._transmit is None:
            self._transmit = self.loop.call_soon(self._transmit_now)

    def _transmit_now(self) -> None:
        self._transmit = None
        self._guarded(self._flush)

    def _flush(self) -> None:
        """Hand over and send as much as the network takes, and set the timer."""
        if self._transmit is not None:
            self._transmit.cancel()
            self._transmit = None
        quic = self.quic
        now = self.loop.time()
        if self.codec.pending and self._decoder_id >= 0:
            quic.write(self._decoder_id, self.codec.instructions(), False)
        rounds = SENT_MAX
        while True:
            if self._queue:
                if not rounds:
                    self.transmit_soon()
                    break
                rounds -= 1
                self._feed()
            datagrams = quic.datagrams_to_send(now)
            if datagrams:
                self._endpoint.send(datagrams)
            if self._broken and not datagrams:
                for broken in self._broken:
                    self.reset(*broken)
                self._broken.clear()
            elif not datagrams and not (self._queue and self._passes_over_stuck()):
                break
        if quic.is_over:
            if not self.held_since:
                self._over()
        elif self.waiting:
            for stream in tuple(self.waiting):
                self._isolated(stream, stream.bytes_left)
        self._arm(quic.timer, now)
        if self._goaway is not None:
            self._close_when_done()

    def _passes_over_stuck(self) -> bool:
        """Whether others can have the turn of streams whose bytes do not leave, though the network would take them."""
        if self.quic.is_congested:
            return False
        stuck = {stream for stream in self._queue - self._stuck if self.quic.unsent(stream.id)}
        self._stuck |= stuck
        return bool(stuck and self._queue - self._stuck)

    def taken(self) -> int:
        """A number that grows by one for each byte of a stream that leaves."""
        return self._given - sum(map(self.quic.unsent, self._streams))

    def _feed(self) -> None:
        """Hand bytes to the engine, the most urgent first (RFC 9218 10)."""
        ready = self._queue - self._stuck if self._stuck else self._queue
        room = AHEAD_MAX - sum(self.unsent(stream) for stream in ready)
        while room > 0 and ready:
            urgency = min(stream.priority[0] for stream in ready)
            turn = sorted(
                (stream for stream in ready if stream.priority[0] == urgency),
                key=lambda stream: (stream.priority[1], stream.id),
            )
            if not turn[0].priority[1]:
                del turn[1:]
            for stream in turn:
                try:
                    room -= self._hand_over(stream, min(PIECE, max(room, 1)))
                except BaseException:  # noqa: BLE001
                    self.stream_failed(stream)
                    ready.discard(stream)
                    continue
                if not stream.pending:
                    ready.discard(stream)
                if room <= 0:
                    break

    def _hand_over(self, stream: H3Stream, count: int) -> int:
        """Give up to `count` bytes of a stream to the engine."""
        given = 0
        pending = stream.pending
        while pending and given < count:
            piece = pending[0]
            size = len(piece)
            if size > count - given:
                view = memoryview(piece)
                part, pending[0] = view[: count - given], view[count - given :]
                self.quic.write(stream.id, bytes(part), False)
                given += len(part)
                break
            del pending[0]
            given += size
            self.quic.write(stream.id, bytes(piece), stream.pending_end and not pending)
        stream.pending_size -= given
        self._given += given
        if not pending:
            self._queue.discard(stream)
        return given

    def forget_pending(self, stream: H3Stream) -> None:
        """What the stream has left to send is not sent."""
        self._queue.discard(stream)
        self._stuck.discard(stream)
        self.waiting.discard(stream)

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
        self._guarded(self._handle_timer)

    def _handle_timer(self) -> None:
        due = self.quic.timer
        now = self.loop.time()
        if due is not None and due <= max(now, self._armed_at):
            self.corked = True
            try:
                self.quic.handle_timer(max(now, due))
                self._process()
            finally:
                self.corked = False
        self._armed_at = inf
        self._flush()

    def watch(self, deadline: float) -> None:
        """See to a deadline of a stream."""
        if deadline < self.deadline:
            self.deadline = deadline

    def watch_write(self, deadline: float) -> None:
        """See to a write deadline of a stream."""
        if deadline < self.write_deadline:
            self.write_deadline = deadline

    # Events from the worker

    def postpone(self, seconds: float) -> None:
        super().postpone(seconds)
        for stream in self._streams.values():
            stream.postpone(seconds)

    def deadline_passed(self) -> None:
        now = self.loop.time()
        if self._handshake_deadline <= now:
            self.service.count("handshake_error", "h3: the handshake took too long")
            self.abort()
            return
        if self._goaway is not None and self._goaway >= 1 << 60:
            self._send_goaway(self._highest + 4)
        if self._holding_since != inf:
            self.deadline = inf
        else:
            for stream in tuple(self._streams.values()):
                if stream.deadline <= now:
                    self._isolated(stream, stream.deadline_passed)
            self.deadline = min((stream.deadline for stream in self._streams.values()), default=inf)
        self.watch(self._handshake_deadline)
        self.transmit_soon()

    def write_deadline_passed(self) -> None:
        if self.held_since:
            # The peer may have taken something, and said so.
            return
        now = self.loop.time()
        self.write_deadline = inf
        for stream in tuple(self.waiting):
            if stream.write_deadline <= now:
                self._isolated(stream, stream.write_deadline_passed)
            self.watch_write(stream.write_deadline)
        self.transmit_soon()

    def drain(self) -> None:
        """RFC 9114 5.2: announce the end, take what is on its way, then name the last request that is served."""
        if self._phase != OPEN:
            self._handshake_deadline = min(self._handshake_deadline, self.loop.time() + HANDSHAKE_GRACE)
            self.watch(self._handshake_deadline)
            return
        if self.quic.is_over or self._goaway is not None:
            return
        self._send_goaway((1 << 62) - 4)
        self.watch(self.loop.time() + DRAIN_GRACE)

    def _send_goaway(self, stream_id: int) -> None:
        self._goaway = stream_id
        self.quic.write(self._control_id, frame(GOAWAY, varint(stream_id)), False)
        self.transmit_soon()

    def _close_when_done(self) -> None:
        """After GOAWAY: close once every answer has arrived. What is on its way would be lost by closing."""
        if self._goaway is None or self._goaway >= 1 << 60 or self.quic.is_over:
            return
        if self._is_busy():
            self._unacknowledged = inf
            return
        now = self.loop.time()
        left = self.quic.unacknowledged
        if left < self._unacknowledged:
            self._unacknowledged = left
            self._linger_until = now + LINGER
        if not left or now >= self._linger_until:
            self.close()
        else:
            self.watch(self._linger_until)

    def close(self) -> None:
        """End the connection at once, in good order."""
        self.close_with(H3_NO_ERROR, "")
        self._flush()

    def close_with(self, code: int, reason: str) -> None:
        """End the connection; the reason is for the peer."""
        self.quic.close(code, reason)
        self.transmit_soon()

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
        self._queue.clear()
        self.waiting.clear()
        self._late.clear()
        self._events.clear()
        self._unread.clear()
        streams, self._streams = self._streams, {}
        self._endpoint.validated(self)
        for stream in streams.values():
            stream.lose()
        self.service.connection_closed(self)

    def forgotten(self) -> None:
        """The endpoint knows nothing of this connection any more."""
        if self._armed is not None:
            self._armed.cancel()
            self._armed = None
        if self._transmit is not None:
            self._transmit.cancel()
            self._transmit = None
        self.loop.call_soon(self._release)

    def _release(self) -> None:
        """Leave nothing that only the collector of cycles could find: it comes rarely."""
        self.transport = cast(asyncio.Transport, None)
        self.quic.release()

    def _guarded(self, call: object) -> None:
        """Run what the loop called; what it raises costs this connection and no more."""
        assert callable(call)
        try:
            call()
        except KeyboardInterrupt, SystemExit:
            raise
        except BaseException:  # noqa: BLE001
            self.service.connection_failed(self)


def _too_much(message: str) -> QuicError:
    return QuicError(H3_EXCESSIVE_LOAD, message)
