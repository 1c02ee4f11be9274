"""The seam to a QUIC implementation: everything the rest of this package knows of its connections.

An engine does no I/O and reads no clock. Datagrams go in with the time, `events()` come out, `datagrams_to_send()`
gives what has to leave, `timer` says when `handle_timer()` is due. Streams are named by their id (RFC 9000 2.1). What
comes out has come from the peer: no data of a stream before `Connected`, unless `EarlyData` has said so.

Flow control: an engine grants its peer credit for what `events()` has given out. `hold()` stops events that carry
data, so that a peer whose data nobody takes runs out of credit.
"""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pounce.config import ServerConfig
    from pounce.exchange.budget import Budget
    from pounce.plugin import Address, Headers, Service

__all__ = [
    "Closed",
    "Connected",
    "DatagramReceived",
    "EarlyData",
    "Engine",
    "FieldCodec",
    "FieldSectionTooLarge",
    "IdIssued",
    "IdRetired",
    "Initial",
    "QuicConnection",
    "QuicError",
    "QuicEvent",
    "StopSending",
    "StreamBlocked",
    "StreamData",
    "StreamReset",
]


class QuicError(Exception):
    """The peer broke the protocol; `code` closes the connection."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class StreamBlocked(Exception):
    """A field section needs table entries that have not arrived yet (RFC 9204 2.1.2)."""


class FieldSectionTooLarge(Exception):
    """A field section is larger than it may be: it has too many fields, or too long ones (RFC 9204 7.4)."""

    def __init__(self, *, many: bool) -> None:
        super().__init__()
        self.many = many


class StreamData:
    """Bytes of a stream, in order; `end` says that they are the last."""

    __slots__ = ("data", "end", "stream_id")

    def __init__(self, stream_id: int, data: bytes, end: bool) -> None:
        self.stream_id = stream_id
        self.data = data
        self.end = end


class StreamReset:
    """The peer gives up its sending half (RFC 9000 19.4)."""

    __slots__ = ("code", "stream_id")

    def __init__(self, stream_id: int, code: int) -> None:
        self.stream_id = stream_id
        self.code = code


class StopSending(StreamReset):
    """The peer wants no more of ours (RFC 9000 19.5)."""

    __slots__ = ()


class DatagramReceived:
    """What came in a DATAGRAM frame (RFC 9221)."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class EarlyData:
    """The client was here before, and sends data that may be a replay (RFC 8446 8): what comes before `Connected`.

    `certificate` is the one that it would have got, PEM.
    """

    __slots__ = ("alpn", "certificate", "cipher_suite")

    def __init__(self, alpn: str | None, cipher_suite: int | None, certificate: str | None) -> None:
        self.alpn = alpn
        self.cipher_suite = cipher_suite
        self.certificate = certificate


class Connected(EarlyData):
    """The handshake is complete, and with it the peer's address proved."""

    __slots__ = ()


class IdIssued:
    """Packets may now arrive under this connection id too."""

    __slots__ = ("connection_id",)

    def __init__(self, connection_id: bytes) -> None:
        self.connection_id = connection_id


class IdRetired(IdIssued):
    """Packets arrive under this connection id no more."""

    __slots__ = ()


class Closed:
    """The connection is over."""

    __slots__ = ("code", "reason")

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason


type QuicEvent = StreamData | StreamReset | DatagramReceived | EarlyData | IdIssued | Closed


class Initial:
    """What the first packet of a client says, and what the server makes of it.

    `connection_id` is our name for the connection, `source` the client's, which may be empty; `original` the client's
    first choice of our name; `retry` the one that a Retry gave it, None without; `reset_token` proves later that we
    have forgotten it (RFC 9000 10.3). `version` is one of the engine's.
    """

    __slots__ = ("connection_id", "original", "reset_token", "retry", "source", "version")

    def __init__(
        self,
        connection_id: bytes,
        source: bytes,
        original: bytes,
        retry: bytes | None,
        reset_token: bytes,
        version: int = 1,
    ) -> None:
        self.version = version
        self.connection_id = connection_id
        self.source = source
        self.original = original
        self.retry = retry
        self.reset_token = reset_token


class FieldCodec(Protocol):
    """QPACK, or what an engine speaks in its place."""

    pending: bool
    """`instructions()` has something to say."""

    @property
    def generation(self) -> int:
        """While it stays the same, octets that were decoded mean the same again."""

    def answer(self, status: int, headers: Headers, length: int | None) -> tuple[bytes, bytes | None]:
        """The field section of an answer, and its Priority field if it has one (RFC 9218 8). `length` is added as
        Content-Length where the fields have none."""

    def encode(self, fields: Headers) -> bytes:
        """A field section without those fields that belong to a connection."""

    def decode(self, stream_id: int, section: bytes) -> tuple[Headers, int]:
        """The fields, and how many octets their names and values have at the most.

        Raises `StreamBlocked`, `FieldSectionTooLarge`, `QuicError`.
        """

    def without_path(self, section: bytes) -> tuple[bytes, int] | None:
        """The section without the string of its `:path`, and where that stands; None where that cannot be told.

        Sections that are the same without it mean the same but for it.
        """

    def string(self, section: bytes, at: int) -> bytes | None:
        """The string that stands there; None when it cannot be decoded."""

    def acknowledge(self, stream_id: int) -> None:
        """A section of this stream is known, and was not decoded; only for one that does not begin with 0."""

    def cancel(self, stream_id: int) -> None:
        """No section of this stream will be decoded any more."""

    def unblocked(self) -> list[int]:
        """The streams, of those for which `decode()` raised `StreamBlocked`, for which it no longer does."""

    def instructions(self) -> bytes:
        """What the peer's encoder is to be told."""

    def encoder_instructions(self, data: bytes) -> None:
        """From the peer's encoder. Raises `QuicError`."""

    def decoder_instructions(self, data: bytes) -> None:
        """From the peer's decoder. Raises `QuicError`."""


class QuicConnection(Protocol):
    """One connection, the server's half."""

    @property
    def timer(self) -> float | None:
        """When `handle_timer()` is due."""

    @property
    def peer(self) -> Address:
        """The peer's address, as far as it is validated; it changes only after path validation (RFC 9000 9)."""

    @property
    def is_over(self) -> bool:
        """Nothing can be sent or received any more, but what closes the connection."""

    def receive(self, datagrams: list[bytes], address: Address, now: float) -> None: ...

    def events(self) -> list[QuicEvent]:
        """What has happened since the last call."""

    def hold(self, on: bool) -> None:
        """Give out no events until told otherwise, and so no credit."""

    def ping(self) -> None:
        """Have the peer say that it is there (RFC 9000 19.2), which keeps the connection from being idle."""

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]: ...

    def handle_timer(self, now: float) -> None: ...

    def open_stream(self, unidirectional: bool) -> int:
        """A new stream of ours, which `may_open()` has to allow."""

    def may_open(self, unidirectional: bool) -> bool:
        """The peer allows another stream of this kind (RFC 9000 4.6)."""

    @property
    def datagram_max(self) -> int:
        """Bytes of a datagram that `send_datagram()` can send; 0 where the peer takes none (RFC 9221 3)."""

    def send_datagram(self, data: bytes) -> None:
        """Once, in a DATAGRAM frame; it may be lost."""

    def write(self, stream_id: int, data: bytes, end: bool) -> None: ...

    def unsent(self, stream_id: int) -> int:
        """Bytes written that have not left for the first time."""

    @property
    def unsent_in_all(self) -> int:
        """Those of all streams."""

    @property
    def unacknowledged(self) -> int:
        """Bytes written that the peer has not acknowledged, about."""

    @property
    def lost(self) -> int:
        """Packets of ours that were lost on their way (RFC 9002 6); 0 as well where an engine does not tell."""

    @property
    def is_congested(self) -> bool:
        """The network takes no more at the moment (RFC 9002 7). When it does, and bytes that were written do not leave,
        the peer gives no credit for them."""

    def reset(self, stream_id: int, code: int) -> None:
        """Give up our sending half."""

    def stop(self, stream_id: int, code: int) -> None:
        """Ask the peer to give up its half."""

    def close(self, code: int, reason: str) -> None: ...

    def release(self) -> None:
        """The connection is over and forgotten: keep nothing alive in a cycle of references."""


class Engine(Protocol):
    """A QUIC implementation with a certificate; made once for each worker."""

    names_nameless: bool
    """It gives a name of our choice to a client that has none itself (an empty connection id); without that, such a
    client's first choice is kept as the name, or it gets one by a Retry."""

    has_retry: bool
    """Its clients and connections go on after a Retry (RFC 9000 8.1.2); without that, none is sent."""

    versions: tuple[int, ...]
    """Of QUIC, the preferred one first."""

    has_datagrams: bool
    """Its connections send and receive datagrams (RFC 9221)."""

    def __init__(self, config: ServerConfig) -> None: ...

    def accept(self, initial: Initial) -> QuicConnection:
        """The connection that a client's first packet, which is received next, opens."""

    def codec(self, service: Service, budget: Budget) -> FieldCodec:
        """For one connection; each instruction of its peer's takes a token of the budget."""
