"""The engine zoomies: QUIC in pure Python that speaks to nobody but itself. For trying it, on loopback.

It takes frames of any kind from any packet, and believes a client's address and handshake at the first ClientHello.
What this module does about it:

- A packet whose kind may not carry its frames (RFC 9000 12.4) ends the connection before zoomies sees them, so that an
  Initial packet, which anybody can make, never brings data of a stream.
- `Connected` comes when the client's Finished has been verified, and no data before it. Until then no more than three
  times what came is sent (RFC 9000 8.1), and afterwards no Initial packet is looked at.
- The address of the peer is the first one for ever: what comes from another one changes nothing.
- What a peer makes zoomies raise ends that connection.

It cannot be helped that zoomies gives no credit (a connection takes 1 MiB of requests, and sends what the client
granted at first), resets no stream (where one has to be given up, the connection ends), sends lost data to another
place of its stream, and keeps what has ended until its connection does.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pounce.errors import ConfigError, TLSError
from pounce.exchange.fields import CONNECTION_FIELDS
from pounce_h3.codes import H3_EXCESSIVE_LOAD, H3_INTERNAL_ERROR, QPACK_DECOMPRESSION_FAILED
from pounce_h3.engine import (
    Closed,
    Connected,
    FieldSectionTooLarge,
    IdIssued,
    IdRetired,
    Initial,
    QuicError,
    QuicEvent,
    StopSending,
    StreamData,
    StreamReset,
)
from pounce_h3.ids import ID_LENGTH
from pounce_h3.packets import VERSION_1

try:
    import zoomies
    from zoomies import events
    from zoomies.crypto.tls import TlsHandshakeState
    from zoomies.encoding import Buffer
    from zoomies.frames.ack import pull_ack_frame
    from zoomies.frames.crypto import pull_crypto_frame
    from zoomies.h3.qpack import decode_headers, encode_headers_from_bytes
    from zoomies.packet.header import pull_quic_header
except ModuleNotFoundError as exc:
    raise ConfigError(
        "http3_engine is zoomies, but that is not installed", hint='pip install "pounce-h3[zoomies]"'
    ) from exc

if TYPE_CHECKING:
    from pounce.config import ServerConfig
    from pounce.contract.wire import Certificates
    from pounce.exchange.budget import Budget
    from pounce.plugin import Address, Headers, Service

__all__ = ["ZoomiesEngine"]

PIECE = 1000
"""Bytes of a stream in one frame: zoomies puts a frame into one datagram, whatever its size."""
STREAMS_AHEAD = 100
"""Streams a peer may open beyond those that were seen, of each kind; zoomies counts none."""
PROTOCOL_VIOLATION, STREAM_LIMIT_ERROR = 0xA, 0x4
PADDING, PING, ACK, ACK_ECN, CRYPTO, CONNECTION_CLOSE = 0x0, 0x1, 0x2, 0x3, 0x6, 0x1C


class ZoomiesEngine:
    """See `pounce_h3.engine.Engine`. Raises `TLSError` when the certificate cannot be used."""

    names_nameless = False
    has_retry = False
    has_datagrams = False
    versions: tuple[int, ...] = (VERSION_1,)

    def __init__(self, config: ServerConfig, tls: Certificates) -> None:
        self._config = config
        self._tls = tls
        self._context: object = None
        self._load(time.monotonic())

    def _load(self, now: float) -> None:
        context = self._tls.context(now)
        if context is self._context:
            return
        certfile, keyfile = self._tls.files()[""]
        certificate, key = Path(certfile).read_bytes(), Path(keyfile).read_bytes()
        if b"ENCRYPTED" in key or (b"EC PRIVATE KEY" not in key and b"BEGIN PRIVATE KEY" not in key):
            raise TLSError("zoomies needs a private key without a password", hint="It takes EC keys on P-256 only.")
        self._context = context
        self._certificate = context.certificate
        self._configuration = zoomies.QuicConfiguration(
            certificate=certificate, private_key=key, idle_timeout=self._config.http3_idle_timeout
        )

    def accept(self, initial: Initial) -> ZoomiesConnection:
        self._load(time.monotonic())
        return ZoomiesConnection(Quic(self._configuration), self._certificate)

    def codec(self, service: Service, budget: Budget) -> StaticFields:
        return StaticFields(service.config.max_header_size, service.config.max_headers)


class NotAllowed(Exception):
    """A packet carries what it may not."""


class Quic(zoomies.QuicConnection):
    """zoomies' connection, which looks at what a packet carries before it believes it."""

    is_authentic = False
    """The packet that is looked at was made by somebody who has its keys."""

    def _handle_initial(self, data: bytes, buf: Any, header: Any, events: Any) -> None:
        # Whoever has keys for more has no more to say with those that anybody can make.
        if not self.is_complete:
            super()._handle_initial(data, buf, header, events)

    def _parse_payload_frames(self, payload: bytes, events: Any, **how: Any) -> None:
        self.is_authentic = True
        is_short = how.get("datagram_addr") is not None
        # RFC 9000 13.1: zoomies counts through every packet that is said to have arrived, sent or not.
        sent = max(self._initial_pn, self._handshake_pn, self._one_rtt_pn)
        kinds = set(frame_kinds(payload, sent))
        if not is_short and not kinds <= {PADDING, PING, ACK, ACK_ECN, CRYPTO, CONNECTION_CLOSE}:
            raise NotAllowed
        super()._parse_payload_frames(payload, events, **how)
        if is_short and kinds <= {PADDING, ACK, ACK_ECN}:
            # RFC 9000 13.2.1: an acknowledgment is not acknowledged; zoomies would go on for ever.
            self._ack_needed_application = False

    @property
    def is_complete(self) -> bool:
        """The client's Finished has been verified."""
        context = self._tls_ctx
        return context is not None and context._state is TlsHandshakeState.HANDSHAKE_COMPLETE

    def forget_handshake(self) -> None:
        """RFC 9002 6.4: what was sent for the handshake is not waited for any more; zoomies would do so for ever."""
        for space in (self._initial_space, self._handshake_space):
            space.sent_packets.clear()
            space.ack_eliciting_in_flight = 0


def is_readable(data: bytes) -> bool:
    """Whether a datagram begins like a packet: anybody may send one that does not, and zoomies would hang up."""
    try:
        pull_quic_header(Buffer(data=data), host_cid_length=ID_LENGTH)
    except ValueError:
        return False
    return True


def frame_kinds(payload: bytes, sent: int) -> list[int]:
    """The types of a packet's frames, up to the first that only a 1-RTT packet may carry.

    `sent` is how many packets an acknowledgment may speak of. Raises `NotAllowed`.
    """
    kinds: list[int] = []
    buf = Buffer(data=payload)
    while not buf.eof():
        kind = payload[buf.tell()]
        kinds.append(kind)
        if kind in (ACK, ACK_ECN):
            buf.pull_uint8()
            if any(acknowledged.stop > sent for acknowledged in pull_ack_frame(buf).ranges):
                raise NotAllowed
        elif kind == CRYPTO:
            pull_crypto_frame(buf)
        elif kind in (PADDING, PING):
            buf.pull_uint8()
        else:
            break
    return kinds


class ZoomiesConnection:
    """See `pounce_h3.engine.QuicConnection`."""

    def __init__(self, quic: Quic, certificate: str | None) -> None:
        self._quic = quic
        self._certificate = certificate
        self._events: list[QuicEvent] = []
        self._early: list[QuicEvent] = []
        """What came before the handshake was complete."""
        self._held = self._connected = self._closed = False
        self._highest: dict[int, int] = {}
        self._next_stream = 3
        self._received = self._sent = 0
        self.peer: Address = ()

    @property
    def timer(self) -> float | None:
        return self._quic.get_timer()

    @property
    def is_over(self) -> bool:
        return self._quic._state == "closed"

    def receive(self, datagrams: list[bytes], address: Address, now: float) -> None:
        self.peer = self.peer or address
        for data in datagrams:
            self._received += len(data)
            if not self.is_over and is_readable(data):
                self._quic.is_authentic = False
                self._guarded(self._quic.datagram_received, data, address, now=now)
        self._look_whether_complete()

    def handle_timer(self, now: float) -> None:
        self._quic.is_authentic = True
        self._guarded(self._quic.handle_timer, now)

    def _guarded(self, call: Callable[..., list[Any]], *args: Any, **named: Any) -> None:
        """What zoomies raises about a peer ends the connection."""
        try:
            for event in call(*args, **named):
                self._take(event)
        except NotAllowed:
            self._end(PROTOCOL_VIOLATION, "a frame that this packet may not carry")
        except QuicError as exc:
            self._end(exc.code, exc.reason)
        except Exception as exc:  # noqa: BLE001 - it is the sender's doing, whatever it is
            if self._quic.is_authentic:
                self._end(PROTOCOL_VIOLATION, f"zoomies: {exc!r}")

    def _take(self, event: Any) -> None:
        if isinstance(event, events.StreamDataReceived):
            self._count(event.stream_id)
            self._give(StreamData(event.stream_id, event.data, event.end_stream))
        elif isinstance(event, events.StopSendingReceived):
            self._give(StopSending(event.stream_id, event.error_code))
        elif isinstance(event, events.StreamReset):
            self._give(StreamReset(event.stream_id, event.error_code))
        elif isinstance(event, events.ConnectionIdIssued):
            self._events.append(IdIssued(event.connection_id))
        elif isinstance(event, events.ConnectionIdRetired):
            self._events.append(IdRetired(event.connection_id))
        elif isinstance(event, events.ConnectionClosed):
            self._end(event.error_code, event.reason or "")

    def _give(self, event: QuicEvent) -> None:
        (self._events if self._connected else self._early).append(event)

    def _count(self, stream_id: int) -> None:
        """A peer opens its streams one after the other. Raises `QuicError`."""
        kind = stream_id & 3
        highest = self._highest.get(kind, -1)
        if kind not in (0, 2) or stream_id >> 2 > highest + STREAMS_AHEAD:
            raise QuicError(STREAM_LIMIT_ERROR, "a stream that the peer may not open")
        self._highest[kind] = max(highest, stream_id >> 2)

    def _look_whether_complete(self) -> None:
        if not self._connected and self._quic.is_complete and not self.is_over:
            self._connected = True
            self._quic.forget_handshake()
            # It knows no ALPN, and one cipher suite.
            self._events += [Connected("h3", 0x1301, self._certificate), *self._early]
            self._early.clear()

    def _end(self, code: int, reason: str) -> None:
        self._quic.close(code, reason)
        if not self._closed:
            self._closed = True
            self._events.append(Closed(code, reason))

    def events(self) -> list[QuicEvent]:
        if self._held and not self.is_over:
            return []
        found, self._events = self._events, []
        return found

    def hold(self, on: bool) -> None:
        # It grants no credit whose end could stop the peer: what waits here is bounded by what it was granted at first.
        self._held = on

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        datagrams = self._quic.send_datagrams(now=now)
        if not self._connected:
            allowed = 3 * self._received
            while datagrams and self._sent + sum(map(len, datagrams)) > allowed:
                datagrams.pop()
        self._sent += sum(map(len, datagrams))
        return [(data, self.peer) for data in datagrams]

    def ping(self) -> None:
        """It has none to send."""

    datagram_max = 0

    def send_datagram(self, data: bytes) -> None:
        """It has none; this is never called."""

    def may_open(self, unidirectional: bool) -> bool:
        return unidirectional

    def open_stream(self, unidirectional: bool) -> int:
        stream_id, self._next_stream = self._next_stream, self._next_stream + 4
        return stream_id

    def write(self, stream_id: int, data: bytes, end: bool) -> None:
        # A zoomies client reads frames where the type of a unidirectional stream is, and would understand it wrongly.
        if self.is_over or stream_id & 2:
            return
        try:
            for at in range(0, len(data) or 1, PIECE):
                self._quic.send_stream_data(stream_id, data[at : at + PIECE], end and at + PIECE >= len(data))
        except BufferError:
            self._end(H3_EXCESSIVE_LOAD, "the client has granted no more")

    def unsent(self, stream_id: int) -> int:
        return sum(len(data) for queued, data, _ in self._quic._stream_send_queue if queued == stream_id)

    @property
    def unsent_in_all(self) -> int:
        return int(self._quic._stream_send_queue_bytes)

    @property
    def unacknowledged(self) -> int:
        return int(self._quic._stream_send_queue_bytes + self._quic._cc.bytes_in_flight)

    @property
    def lost(self) -> int:
        return 0

    @property
    def is_congested(self) -> bool:
        return not self._quic._cc.can_send(PIECE)

    def reset(self, stream_id: int, code: int) -> None:
        self._end(H3_INTERNAL_ERROR, "a stream was given up")

    def stop(self, stream_id: int, code: int) -> None:
        """It has no way to ask; what comes is thrown away."""

    def close(self, code: int, reason: str) -> None:
        self._end(code, reason)

    def release(self) -> None:
        self._events.clear()
        self._early.clear()


class StaticFields:
    """See `pounce_h3.engine.FieldCodec`: what zoomies speaks in the place of QPACK, without a dynamic table."""

    __slots__ = ("_max_fields", "_max_size")

    pending = False
    generation = 0

    def __init__(self, max_size: int, max_fields: int) -> None:
        self._max_size = max_size
        self._max_fields = max_fields

    def answer(self, status: int, headers: Headers, length: int | None) -> tuple[bytes, bytes | None]:
        fields = [(b":status", b"%d" % status), *headers]
        given = dict(headers)
        if length is not None and b"content-length" not in given:
            fields.append((b"content-length", b"%d" % length))
        return self.encode(fields), given.get(b"priority")

    def encode(self, fields: Headers) -> bytes:
        # It takes ASCII only.
        return encode_headers_from_bytes(
            [
                (name, value.decode("ascii", "replace").encode("ascii", "replace"))
                for name, value in fields
                if name not in CONNECTION_FIELDS
            ]
        )

    def decode(self, stream_id: int, section: bytes) -> tuple[Headers, int]:
        try:
            fields = [field.as_bytes() for field in decode_headers(section)]
        except (ValueError, LookupError) as exc:
            raise QuicError(QPACK_DECOMPRESSION_FAILED, "field section cannot be decoded") from exc
        size = sum(len(name) + len(value) for name, value in fields)
        many = len(fields) > self._max_fields
        if many or size > self._max_size:
            raise FieldSectionTooLarge(many=many)
        return fields, size

    def without_path(self, section: bytes) -> tuple[bytes, int] | None:
        return None

    def string(self, section: bytes, at: int) -> bytes | None:
        return None

    def acknowledge(self, stream_id: int) -> None:
        """There is no dynamic table."""

    def cancel(self, stream_id: int) -> None:
        """There is no dynamic table."""

    def unblocked(self) -> list[int]:
        return []

    def instructions(self) -> bytes:
        return b""

    def encoder_instructions(self, data: bytes) -> None:
        """There is no dynamic table."""

    def decoder_instructions(self, data: bytes) -> None:
        """There is no dynamic table."""
