"""An HTTP/3 connection whose engine is the test: it says what arrives, and sees what is written."""

from typing import Any, cast

from pounce.exchange.budget import Budget
from pounce.plugin import Service
from pounce.testing.memory import memory_service
from pounce_h3.connection import H3Connection
from pounce_h3.endpoint import Endpoint
from pounce_h3.engine import Connected, QuicConnection, QuicEvent, StreamData
from pounce_h3.frames import frame, pull, varint
from pounce_h3.qpack import Qpack

__all__ = ["ENCODER", "ScriptedConnection"]

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

    def validated(self, connection: H3Connection) -> None: ...

    def forget(self, connection: H3Connection) -> None:
        connection.forgotten()

    def send(self, datagrams: Any) -> None: ...


class ScriptedQuic:
    """See `pounce_h3.engine.QuicConnection`. `fails` has what each method is to raise, by its name."""

    timer = None
    unacknowledged = 0

    def __init__(self, peer: tuple[str, int]) -> None:
        self.peer = peer
        self.todo: list[QuicEvent] = []
        self.written: dict[int, bytearray] = {}
        self.resets: dict[int, int] = {}
        self.closed: tuple[int, str] | None = None
        self.fails: dict[str, BaseException] = {}
        self._next = 3

    def _may_fail(self, name: str) -> None:
        if name in self.fails:
            raise self.fails[name]

    @property
    def is_over(self) -> bool:
        return self.closed is not None

    def receive(self, datagrams: list[bytes], address: Any, now: float) -> None: ...

    def events(self) -> list[QuicEvent]:
        found, self.todo = self.todo, []
        return found

    def hold(self, on: bool) -> None: ...

    def datagrams_to_send(self, now: float) -> list[Any]:
        return []

    def handle_timer(self, now: float) -> None: ...

    def open_stream(self) -> int:
        self._next += 4
        return self._next - 4

    def write(self, stream_id: int, data: bytes, end: bool) -> None:
        if not stream_id & 2:
            self._may_fail("write")
        self.written.setdefault(stream_id, bytearray()).extend(data)

    def unsent(self, stream_id: int) -> int:
        self._may_fail("unsent")
        return 0

    def reset(self, stream_id: int, code: int) -> None:
        self.resets.setdefault(stream_id, code)
        self._may_fail("reset")

    def stop(self, stream_id: int, code: int) -> None:
        self._may_fail("stop")

    def close(self, code: int, reason: str) -> None:
        if self.closed is None:
            self.closed = code, reason

    def release(self) -> None: ...


class ScriptedConnection:
    """A connection that is established; needs a running loop."""

    def __init__(
        self, app: Any = None, *, service: Service | None = None, port: int = CLIENT[1], **settings: Any
    ) -> None:
        self.service = service or memory_service(app, **settings)
        self.quic = ScriptedQuic((CLIENT[0], port))
        self.h3 = H3Connection(self.service, cast(Endpoint, ScriptedEndpoint()), cast(QuicConnection, self.quic), set())
        self._next = 0
        self.feed(
            Connected("h3", 0x1301, None),
            StreamData(CONTROL, varint(0) + frame(4, b""), False),
            StreamData(ENCODER, varint(2), False),
            StreamData(DECODER, varint(3), False),
        )

    def feed(self, *events: QuicEvent) -> None:
        """Events that arrive together."""
        self.quic.todo += events
        self.h3.receive([b""], CLIENT)

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
