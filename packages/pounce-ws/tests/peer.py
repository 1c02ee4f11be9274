"""A WebSocket client that does what a test says, right or wrong, in memory and over any wire."""

import asyncio
import functools
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from pounce.h1.plugin import plugin as h1
from pounce.observe.access_log import plugin as access_log
from pounce.registry import Registry
from pounce.testing import MemoryConnection
from pounce_h1fast.plugin import plugin as h1fast
from pounce_ws.plugin import plugin as ws

REGISTRY = Registry.of(h1, h1fast, access_log, ws)
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""RFC 6455 1.3."""

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def in_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an `async def` test on an event loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))  # type: ignore[arg-type]

    return run


class Frame(NamedTuple):
    first: int
    payload: bytes

    @property
    def opcode(self) -> int:
        return self.first & 0x0F

    @property
    def close(self) -> tuple[int, str]:
        assert self.opcode == CLOSE, self
        return int.from_bytes(self.payload[:2]), self.payload[2:].decode()


def masked(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes | None = None) -> bytes:
    """A frame of a client; `rsv` 4, 2, 1 are RSV1, RSV2, RSV3."""
    mask = b"\x37\xfa\x21\x3d" if mask is None else mask
    size = len(payload)
    head = bytes((fin << 7 | rsv << 4 | opcode,))
    if size < 126:
        head += bytes((0x80 | size,))
    elif size < 65536:
        head += b"\xfe" + size.to_bytes(2)
    else:
        head += b"\xff" + size.to_bytes(8)
    return head + mask + bytes(byte ^ mask[at & 3] for at, byte in enumerate(payload))


def closing(code: int | None, reason: bytes = b"") -> bytes:
    return masked(CLOSE, (b"" if code is None else code.to_bytes(2)) + reason)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: list[tuple[bytes, bytes]]

    def all(self, name: bytes) -> list[bytes]:
        return [value for found, value in self.headers if found == name]

    def __getitem__(self, name: bytes) -> bytes:
        (value,) = self.all(name)
        return value


class Peer:
    """One client of an application, over HTTP/1.1."""

    def __init__(self, app: Any, **settings: Any) -> None:
        self.connection = MemoryConnection(app, registry=settings.pop("registry", REGISTRY), **settings)
        self.service = self.connection.service
        self._taken = 0

    async def handshake(
        self, *fields: tuple[bytes, bytes], path: bytes = b"/", method: bytes = b"GET", early: bytes = b"", **drop: Any
    ) -> Answer:
        """Ask for a WebSocket; `fields` replace the usual ones of the same name, an empty value leaves one out."""
        usual = {
            b"host": b"example.org",
            b"connection": b"Upgrade",
            b"upgrade": b"websocket",
            b"sec-websocket-version": b"13",
            b"sec-websocket-key": KEY,
        }
        names = {name for name, _ in fields}
        lines = [pair for pair in usual.items() if pair[0] not in names] + [pair for pair in fields if pair[1]]
        head = b"".join(b"%b: %b\r\n" % pair for pair in lines)
        self.connection.feed(b"%b %b HTTP/1.1\r\n%b\r\n%b" % (method, path, head, early))
        await self.connection.wait_until(lambda: b"\r\n\r\n" in self.connection.received)
        return self._answer()

    def _answer(self) -> Answer:
        head, _, _ = self.connection.received.partition(b"\r\n\r\n")
        self._taken = len(head) + 4
        status, *lines = head.split(b"\r\n")
        return Answer(int(status.split()[1]), [(n.lower(), v) for n, _, v in (line.partition(b": ") for line in lines)])

    async def open(self, *fields: tuple[bytes, bytes], **more: Any) -> Answer:
        """A handshake that is accepted."""
        answer = await self.handshake(*fields, **more)
        assert answer.status == 101, self.connection.received
        return answer

    def send(self, *frames: bytes) -> None:
        """Bytes arrive in one piece."""
        self.connection.feed(b"".join(frames))

    def frames(self) -> list[Frame]:
        """Whole frames that came back since the last call."""
        data = self.connection.received
        found = []
        while True:
            rest = data[self._taken :]
            if len(rest) < 2:
                return found
            assert rest[1] < 0x80, "a server's frame is masked"
            size, start = rest[1], 2
            if size == 126:
                size, start = int.from_bytes(rest[2:4]), 4
            elif size == 127:
                size, start = int.from_bytes(rest[2:10]), 10
            if len(rest) < start + size:
                return found
            self._taken += start + size
            found.append(Frame(rest[0], rest[start : start + size]))

    async def next(self, count: int = 1) -> list[Frame]:
        """The next `count` frames."""
        found: list[Frame] = []

        def are_there() -> bool:
            found.extend(self.frames())
            return len(found) >= count

        try:
            await self.connection.wait_until(are_there)
        except TimeoutError:
            raise AssertionError(f"no more than {found}") from None
        assert len(found) == count, found
        return found

    async def one(self) -> Frame:
        (found,) = await self.next()
        return found

    async def settle(self) -> None:
        await self.connection.settle(60)

    @property
    def ended(self) -> bool:
        """The server ended its half, or the connection."""
        return self.connection.transport.ended or self.connection.closed


class App:
    """Accepts, then does what a test tells it; `received` is what it was given."""

    def __init__(self, *, eager: bool = True, **accept: Any) -> None:
        self.accept = accept
        self.eager = eager
        """Takes messages as they come; else `take()` takes them one by one."""
        self.received: deque[Any] = deque()
        self.scope: Any = None
        self.ended = False
        self.error: BaseException | None = None
        self._receive: Any = None
        self._send: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "websocket"
        self.scope, self._receive, self._send = scope, receive, send
        try:
            self.received.append(await receive())
            await send({"type": "websocket.accept"} | self.accept)
            await self.serve()
        except BaseException as exc:
            self.error = exc
            raise
        finally:
            self.ended = True

    async def serve(self) -> None:
        if self.eager:
            while self.received[-1]["type"] != "websocket.disconnect":
                self.received.append(await self._receive())
        else:
            await asyncio.get_running_loop().create_future()

    async def take(self) -> Any:
        return await self._receive()

    async def send(self, message: str | bytes) -> None:
        key = "text" if isinstance(message, str) else "bytes"
        await self._send({"type": "websocket.send", key: message})

    async def close(self, code: int | None = 1000, reason: str | None = None) -> None:
        await self._send({"type": "websocket.close", "code": code, "reason": reason})

    @property
    def messages(self) -> list[Any]:
        return [m.get("text", m.get("bytes")) for m in self.received if m["type"] == "websocket.receive"]

    @property
    def disconnect(self) -> tuple[int, str] | None:
        """What the application was told at the end; it is an error to tell it twice."""
        told = [(m["code"], m["reason"]) for m in self.received if m["type"] == "websocket.disconnect"]
        assert len(told) < 2
        return told[0] if told else None


class Echo(App):
    async def serve(self) -> None:
        while True:
            message = await self._receive()
            self.received.append(message)
            if message["type"] == "websocket.disconnect":
                return
            await self._send({**message, "type": "websocket.send"})


async def opened(app: App, *fields: tuple[bytes, bytes], **settings: Any) -> Peer:
    """A client whose WebSocket is open."""
    peer = Peer(app, **settings)
    await peer.open(*fields)
    return peer


DEFLATE = (b"sec-websocket-extensions", b"permessage-deflate")
