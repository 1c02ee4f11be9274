"""An HTTP/3 connection whose engine is the test: it says what arrives and what leaves, and sees what is written."""

from typing import Any, cast

from pounce.exchange.budget import Budget
from pounce.plugin import Service
from pounce.testing.memory import memory_service
from pounce_h3.connection import H3Connection
from pounce_h3.endpoint import Endpoint
from pounce_h3.engine import Closed, Connected, QuicConnection, QuicEvent, StreamData
from pounce_h3.frames import frame, pull, varint
from pounce_h3.qpack import Qpack

__all__ = ["CLIENT", "CONTROL", "ENCODER", "SERVER", "ScriptedConnection", "ScriptedQuic"]

CLIENT, SERVER = ("192.0.2.1", 50000), ("192.0.2.2", 443)
CONTROL, ENCODER, DECODER = 2, 6, 10


class ScriptedEngine:
    """See `pounce_h3.engine.Engine`, as far as a connection needs it."""

    def codec(self, service: Service, budget: Budget) -> Qpack:
        return Qpack(service, budget)


class ScriptedEndpoint:
    """See `pounce_h3.endpoint.Endpoint`, as far as a connection needs it."""

    local = SERVER

    def __init__(self) -> None:
        self.engine = ScriptedEngine()
        self.forgotten: list[H3Connection] = []

    def validated(self, connection: H3Connection) -> None: ...

    def forget(self, connection: H3Connection) -> None:
        self.forgotten.append(connection)
        connection.forgotten()

    def send(self, datagrams: Any) -> None: ...


class ScriptedQuic:
    """See `pounce_h3.engine.QuicConnection`.

    What is written leaves when the connection sends, as far as the test lets it: `credit` is what the peer still grants
    each stream, by its id, and None is as much as there is; `room` is what the network takes before it is congested.
    """

    timer = None

    def __init__(self, peer: tuple[str, int]) -> None:
        self.peer = peer
        self.todo: list[QuicEvent] = []
        self.received: list[bytes] = []
        self.written: dict[int, bytearray] = {}
        self.left: dict[int, int] = {}
        """How many bytes of a stream have left."""
        self.credit: dict[int, int] | None = None
        self.room = 1 << 40
        self.resets: dict[int, int] = {}
        self.closed: tuple[int, str] | None = None
        self.is_over = False
        self.lost_packets = 0
        self.fails: dict[str, BaseException] = {}
        """What a method is to raise, by its name."""
        self.stopped: dict[int, int] = {}
        self.ended: set[int] = set()
        """Streams on which nothing more will be written."""
        self.datagrams: list[bytes] = []
        self.pings = 0
        self.datagram_max = 1000
        self.openable = True
        """The client allows more streams."""
        self._waiting: set[int] = set()
        self._next = {True: 3, False: 1}

    def _may_fail(self, name: str) -> None:
        if name in self.fails:
            raise self.fails[name]

    def receive(self, datagrams: list[bytes], address: Any, now: float) -> None:
        self.received += datagrams

    def events(self) -> list[QuicEvent]:
        found, self.todo = self.todo, []
        return found

    def hold(self, on: bool) -> None: ...

    def datagrams_to_send(self, now: float) -> list[Any]:
        sent = 0
        for stream_id in sorted(self._waiting):
            count = self._waits(stream_id)
            if self.credit is not None and not (stream_id & 3 == 3 and stream_id < 15):
                count = min(count, self.credit.get(stream_id, 0), self.room)
                self.credit[stream_id] = self.credit.get(stream_id, 0) - count
                self.room -= count
            self.left[stream_id] = self.left.get(stream_id, 0) + count
            sent += count
            if not self._waits(stream_id):
                self._waiting.discard(stream_id)
        return [(b"", self.peer)] if sent else []

    def _waits(self, stream_id: int) -> int:
        if stream_id not in self._waiting:
            return 0
        return len(self.written[stream_id]) - self.left.get(stream_id, 0)

    def handle_timer(self, now: float) -> None: ...

    def ping(self) -> None:
        self.pings += 1

    def open_stream(self, unidirectional: bool) -> int:
        self._next[unidirectional] += 4
        return self._next[unidirectional] - 4

    def may_open(self, unidirectional: bool) -> bool:
        return self.openable

    def send_datagram(self, data: bytes) -> None:
        self.datagrams.append(data)

    def write(self, stream_id: int, data: bytes, end: bool) -> None:
        if not stream_id & 2:
            self._may_fail("write")
        self.written.setdefault(stream_id, bytearray()).extend(data)
        self._waiting.add(stream_id)
        if end:
            self.ended.add(stream_id)

    def unsent(self, stream_id: int) -> int:
        self._may_fail("unsent")
        return self._waits(stream_id)

    @property
    def unsent_in_all(self) -> int:
        return sum(map(self._waits, self._waiting))

    @property
    def unacknowledged(self) -> int:
        return sum(map(self._waits, self._waiting))

    @property
    def lost(self) -> int:
        return self.lost_packets

    @property
    def is_congested(self) -> bool:
        return self.room <= 0

    def reset(self, stream_id: int, code: int) -> None:
        self.resets.setdefault(stream_id, code)
        self._waiting.discard(stream_id)
        self._may_fail("reset")

    def stop(self, stream_id: int, code: int) -> None:
        self.stopped.setdefault(stream_id, code)
        self._may_fail("stop")

    def close(self, code: int, reason: str) -> None:
        if not self.is_over:
            self.is_over = True
            self.closed = code, reason
            self.todo.append(Closed(code, reason))

    def release(self) -> None: ...


class ScriptedConnection:
    """A connection that is established; needs a running loop."""

    def __init__(
        self,
        app: Any = None,
        *,
        service: Service | None = None,
        port: int = CLIENT[1],
        settings_frame: bytes = b"",
        **settings: Any,
    ) -> None:
        self.service = service or memory_service(app, **settings)
        self.quic = ScriptedQuic((CLIENT[0], port))
        self.endpoint = ScriptedEndpoint()
        self.h3 = H3Connection(self.service, cast(Endpoint, self.endpoint), cast(QuicConnection, self.quic), set())
        self._next = 0
        self.feed(
            Connected("h3", 0x1301, None),
            StreamData(CONTROL, varint(0) + frame(4, settings_frame), False),
            StreamData(ENCODER, varint(2), False),
            StreamData(DECODER, varint(3), False),
        )

    def feed(self, *events: QuicEvent) -> None:
        """Events that arrive together."""
        self.quic.todo += events
        self.receive()

    def receive(self, *datagrams: bytes) -> None:
        """Datagrams that arrive together; what they say does not matter."""
        self.h3.receive(list(datagrams) or [b""], CLIENT)

    def instruct(self, data: bytes) -> None:
        """Instructions of the client's encoder."""
        self.feed(StreamData(ENCODER, data, False))

    def ask(self, section: bytes, end: bool = True) -> int:
        """A request with this field section; its stream."""
        stream_id, self._next = self._next, self._next + 4
        self.feed(StreamData(stream_id, frame(1, section), end))
        return stream_id

    def answer(self, stream_id: int) -> tuple[list[bytes], bytes]:
        """The field sections of an answer, and the body, as far as they were written."""
        data = bytes(self.quic.written.get(stream_id, b""))
        sections: list[bytes] = []
        body, at = b"", 0
        while at < len(data):
            kind, at = cast(tuple[int, int], pull(data, at))
            length, at = cast(tuple[int, int], pull(data, at))
            if kind == 1:
                sections.append(data[at : at + length])
            else:
                body += data[at : at + length]
            at += length
        return sections, body
