"""A client of WebTransport in memory, and the applications that it talks to."""

import asyncio
from typing import Any

from tests.conformance.h3 import literal_section

from pounce.registry import Registry
from pounce.testing.memory import memory_service
from pounce_h3.capsules import capsule
from pounce_h3.engine import DatagramReceived, StopSending, StreamData, StreamReset
from pounce_h3.frames import WT_STREAM, WT_UNIDIRECTIONAL, frame, pull, varint
from pounce_h3.plugin import plugin
from pounce_h3.settings import H3_DATAGRAM

from .scripted import ScriptedConnection

__all__ = ["App", "Peer", "fields"]


def fields(*more: tuple[bytes, bytes], path: bytes = b"/chat") -> list[tuple[bytes, bytes]]:
    """The head of a request that opens a session."""
    return [
        (b":method", b"CONNECT"),
        (b":protocol", b"webtransport"),
        (b":scheme", b"https"),
        (b":authority", b"localhost"),
        (b":path", path),
        *more,
    ]


class App:
    """An application that the test drives: what it is told, and what it says."""

    def __init__(self) -> None:
        self.scope: dict[str, Any] = {}
        self.receive: Any = None
        self.send: Any = None
        self.over = asyncio.Event()
        self.failure: BaseException | None = None

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self.scope, self.receive, self.send = scope, receive, send
        await self.over.wait()
        if self.failure is not None:
            raise self.failure

    async def accept(self, **more: Any) -> None:
        assert await self.receive() == {"type": "webtransport.connect"}
        await self.send({"type": "webtransport.accept", **more})

    async def say(self, kind: str, **more: Any) -> None:
        await self.send({"type": f"webtransport.{kind}", **more})

    async def hear(self) -> tuple[Any, ...]:
        """The next message, without the beginning of its type."""
        message = await asyncio.wait_for(self.receive(), 60)
        return message.pop("type").removeprefix("webtransport."), message

    async def returns(self) -> None:
        self.over.set()
        await asyncio.sleep(0)


class Peer(ScriptedConnection):
    """The client's end; needs a running loop."""

    def __init__(self, app: Any, *, settings: dict[int, int] | None = None, **config: Any) -> None:
        config = {"http3_webtransport_enabled": True} | config
        service = memory_service(app, Registry.of(plugin), **config)
        announced = {H3_DATAGRAM: 1} if settings is None else settings
        super().__init__(
            service=service,
            settings_frame=b"".join(varint(name) + varint(value) for name, value in announced.items()),
        )

    def open(self, *more: tuple[bytes, bytes], path: bytes = b"/chat") -> int:
        """The number of a session that is asked for."""
        return self.ask(literal_section(fields(*more, path=path)), end=False)

    def say(self, number: int, data: bytes, end: bool = False) -> None:
        """Capsules of a session."""
        self.feed(StreamData(number, frame(0, data) if data else b"", end))

    def close(self, number: int, code: int, reason: bytes = b"") -> None:
        self.say(number, capsule(0x2843, code.to_bytes(4) + reason), end=True)

    def stream(self, stream_id: int, number: int, data: bytes = b"", end: bool = False) -> None:
        """A stream that the client opens."""
        kind = WT_UNIDIRECTIONAL if stream_id & 2 else WT_STREAM
        self.feed(StreamData(stream_id, varint(kind) + varint(number) + data, end))

    def more(self, stream_id: int, data: bytes, end: bool = False) -> None:
        self.feed(StreamData(stream_id, data, end))

    def reset(self, stream_id: int, code: int) -> None:
        self.feed(StreamReset(stream_id, code))

    def stop(self, stream_id: int, code: int) -> None:
        self.feed(StopSending(stream_id, code))

    def datagram(self, number: int, data: bytes) -> None:
        self.feed(DatagramReceived(varint(number // 4) + data))

    def capsules(self, number: int) -> list[tuple[int, bytes]]:
        """What the server has said of a session."""
        data = self.answer(number)[1]
        found, at = [], 0
        while at < len(data):
            kind, at = pull(data, at) or (0, len(data))
            size, at = pull(data, at) or (0, len(data))
            found.append((kind, data[at : at + size]))
            at += size
        return found

    def sent(self, stream_id: int) -> bytes:
        return bytes(self.quic.written.get(stream_id, b""))

    @property
    def held(self) -> int:
        return self.h3.windows.held

    def never_tires(self) -> None:
        """Let everything be looked at as it comes."""
        self.h3.share.left = 1 << 40
