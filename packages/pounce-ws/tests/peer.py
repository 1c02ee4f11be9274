"""A WebSocket client that does what a test says, right or wrong, in memory and over any wire."""

import asyncio
import functools
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import h2.config
import h2.connection
import h2.events
import h2.settings

from pounce.h1.plugin import plugin as h1
from pounce.observe.access_log import plugin as access_log
from pounce.registry import Registry
from pounce.testing import MemoryConnection
from pounce.testing.memory import memory_service
from pounce_h1fast.plugin import plugin as h1fast
from pounce_h2.plugin import plugin as h2_plugin
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
    """One client of an application, over HTTP/1.1 in memory; `H2Peer` is the same over HTTP/2."""

    accepted = 101

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
        assert answer.status == self.accepted, answer
        return answer

    @property
    def exchange(self) -> Any:
        """The server's side of the WebSocket that is open."""
        (exchange,) = self.service.shared["ws"]._open
        return exchange

    @property
    def received(self) -> bytes:
        """What came back, from the beginning; frames after `_taken`."""
        return self.connection.received

    def send(self, *frames: bytes) -> None:
        """Bytes arrive in one piece."""
        self.connection.feed(b"".join(frames))

    def end_half(self) -> None:
        """The client ends its half without a Close."""
        self.connection.feed_eof()

    def frames(self) -> list[Frame]:
        """Whole frames that came back since the last call."""
        data = self.received
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


class H2Peer(Peer):
    """The same by extended CONNECT (RFC 8441)."""

    accepted = 200

    def __init__(self, app: Any, **settings: Any) -> None:
        registry = Registry.of(h1, access_log, ws, h2_plugin)
        service = memory_service(app, registry, **settings)
        self.connection = MemoryConnection(wire=h2_plugin.wires[0], service=service)
        self.service = service
        self._taken = 0
        self._received = b""
        self._answer_fields: list[tuple[bytes, bytes]] | None = None
        self._stream = 0
        self._ended = False
        self._heard = 0
        config = h2.config.H2Configuration(header_encoding=None, validate_outbound_headers=False)
        self._h2 = h2.connection.H2Connection(config)
        self._h2.initiate_connection()
        self._h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 2**30})
        self._h2.increment_flow_control_window(2**30)
        self.connection.feed(self._h2.data_to_send())

    def _hear(self) -> None:
        data = self.connection.received[self._heard :]
        self._heard += len(data)
        for event in self._h2.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                self._answer_fields = list(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                self._received += event.data
            elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                self._ended = True
        answer = self._h2.data_to_send()
        if answer:
            self.connection.feed(answer)

    async def handshake(
        self, *fields: tuple[bytes, bytes], path: bytes = b"/", method: bytes = b"CONNECT", early: bytes = b"", **_: Any
    ) -> Answer:
        await self.settle()
        self._hear()
        usual = {
            b":method": method,
            b":protocol": b"websocket",
            b":scheme": b"https",
            b":path": path,
            b":authority": b"example.org",
            b"sec-websocket-version": b"13",
        }
        names = {name for name, _ in fields}
        lines = [pair for pair in usual.items() if pair[0] not in names] + [pair for pair in fields if pair[1]]
        self._stream = self._h2.get_next_available_stream_id()
        self._h2.send_headers(self._stream, lines)
        if early:
            self._h2.send_data(self._stream, early)
        self.connection.feed(self._h2.data_to_send())

        def answered() -> bool:
            self._hear()
            return self._answer_fields is not None

        await self.connection.wait_until(answered)
        assert self._answer_fields is not None
        (_, status), *headers = self._answer_fields
        return Answer(int(status), headers)

    @property
    def received(self) -> bytes:
        self._hear()
        return self._received

    def send(self, *frames: bytes) -> None:
        data = b"".join(frames)
        while data and not self._ended:
            self._hear()
            size = min(self._h2.local_flow_control_window(self._stream), 16384, len(data))
            assert size, "the window is used up"
            self._h2.send_data(self._stream, data[:size])
            data = data[size:]
            self.connection.feed(self._h2.data_to_send())

    def end_half(self) -> None:
        self._h2.end_stream(self._stream)
        self.connection.feed(self._h2.data_to_send())

    @property
    def ended(self) -> bool:
        self._hear()
        return self._ended or self.connection.closed


WIRES = {"h1": Peer, "h2": H2Peer}
chosen: list[type[Peer]] = [Peer]
"""What `opened()` makes; the fixture `wire` sets it."""


async def opened(app: App, *fields: tuple[bytes, bytes], **settings: Any) -> Peer:
    """A client whose WebSocket is open, over the wire of the test."""
    peer = chosen[0](app, **settings)
    await peer.open(*fields)
    return peer


DEFLATE = (b"sec-websocket-extensions", b"permessage-deflate")
