"""A WebSocket client that does what a test says, right or wrong, in memory and over any wire."""

import asyncio
import functools
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import h2.config
import h2.connection
import h2.events
import h2.settings
import qh3.h3.connection
import qh3.h3.events
import qh3.quic.events
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection

from pounce.h1.plugin import plugin as h1
from pounce.net.tls import ServerTLS
from pounce.observe.access_log import plugin as access_log
from pounce.registry import Registry
from pounce.testing import MemoryConnection
from pounce.testing.memory import memory_service
from pounce.worker.ticker import Ticker
from pounce_h1fast.plugin import plugin as h1fast
from pounce_h2.plugin import plugin as h2_plugin
from pounce_h3.endpoint import Endpoint
from pounce_h3.plugin import plugin as h3_plugin
from pounce_ws.plugin import plugin as ws

REGISTRY = Registry.of(h1, h1fast, access_log, ws)
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""RFC 6455 1.3."""

SERVER, CLIENT = ("192.0.2.2", 443), ("192.0.2.1", 50000)
certificate = ["", ""]
"""Files of a certificate and its key, for HTTP/3; the fixture `wire` sets them."""

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


class TunnelPeer(Peer):
    """The same by extended CONNECT (RFC 8441, RFC 9220)."""

    accepted = 200
    _received = b""
    _ended = False
    _answer_fields: list[tuple[bytes, bytes]] | None = None

    def _hear(self) -> None:
        """Take what has come back, and let the client answer it."""
        raise NotImplementedError

    def _fields(self, path: bytes, method: bytes, fields: tuple[tuple[bytes, bytes], ...]) -> list[tuple[bytes, bytes]]:
        usual = {
            b":method": method,
            b":protocol": b"websocket",
            b":scheme": b"https",
            b":path": path,
            b":authority": b"example.org",
            b"sec-websocket-version": b"13",
        }
        names = {name for name, _ in fields}
        return [pair for pair in usual.items() if pair[0] not in names] + [pair for pair in fields if pair[1]]

    async def _answered(self) -> Answer:
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

    @property
    def ended(self) -> bool:
        self._hear()
        return self._ended or self.connection.closed


class H2Peer(TunnelPeer):
    """A client of HTTP/2."""

    def __init__(self, app: Any, **settings: Any) -> None:
        registry = Registry.of(h1, access_log, ws, h2_plugin)
        service = memory_service(app, registry, **settings)
        self.connection = MemoryConnection(wire=h2_plugin.wires[0], service=service)
        self.service = service
        self._taken = 0
        self._stream = 0
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
        self._stream = self._h2.get_next_available_stream_id()
        self._h2.send_headers(self._stream, self._fields(path, method, fields))
        if early:
            self._h2.send_data(self._stream, early)
        self.connection.feed(self._h2.data_to_send())
        return await self._answered()

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


PACE, PACES = 0.01, 3
"""Seconds that a client's clock is put forward for what it has not sent, and how often."""


class MemoryDatagrams:
    """The transport of an endpoint of HTTP/3: what it sends reaches `client`, unless that was told to `stall()`."""

    """The transport of an endpoint of HTTP/3: what it sends reaches `client`, unless that was told to `stall()`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, endpoint: Endpoint) -> None:
        self._loop = loop
        self._endpoint = endpoint
        self._stalled = False
        self._waiting: deque[bytes] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._ahead = 0.0
        """Seconds by which the client's clock is ahead: it does not wait until its pacing lets it send."""
        configuration = QuicConfiguration(
            alpn_protocols=["h3"],
            server_name="localhost",
            verify_mode=ssl.CERT_NONE,
            max_stream_data=65536,
            probe_datagram_size=False,
        )
        self.client = QuicConnection(configuration=configuration)
        endpoint.connection_made(self)  # type: ignore[arg-type]
        self.client.connect(SERVER, loop.time())
        self.flush()

    def get_extra_info(self, name: str) -> Any:
        return {"sockname": SERVER, "worker": 1, "secret": bytes(32)}[name]

    def is_closing(self) -> bool:
        return False

    def hand_on(self, data: bytes, address: Any, worker: int) -> bool:
        # There is no other worker, but a name that the client makes up may look like that of one.
        return False

    def ask(self, data: bytes, address: Any) -> None: ...

    def claim(self, connection_id: bytes, worker: int | None = None) -> None: ...

    def sendto(self, data: bytes, address: Any) -> None:
        self.send_many([data], address)

    def send_many(self, datagrams: list[bytes], address: Any) -> None:
        self._waiting += datagrams
        self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        while self._waiting and not self._stalled:
            self.client.receive_datagram(self._waiting.popleft(), SERVER, self._now())
        self.flush()

    def _now(self) -> float:
        return self._loop.time() + self._ahead

    def flush(self) -> None:
        """Send what the client has to send, and keep its time."""
        for _ in range(PACES):
            if self._stalled:
                break
            datagrams = [(data, CLIENT) for data, _ in self.client.datagrams_to_send(self._now())]
            if datagrams:
                self._endpoint.datagrams_received(datagrams)
            if not self.client.get_send_buffer_size():
                break
            self._ahead += PACE
        if self._timer is not None:
            self._timer.cancel()
        timer = self.client.get_timer()
        self._timer = None if timer is None else self._loop.call_at(timer - self._ahead, self._timer_rings)

    def _timer_rings(self) -> None:
        self.client.handle_timer(self._now())
        self.flush()

    def stall(self) -> None:
        """The client neither hears nor says anything."""
        self._stalled = True

    def unstall(self) -> None:
        self._stalled = False
        self._deliver()

    @property
    def largest_waiting(self) -> int:
        """Bytes that wait for the client, which has not been unstalled yet."""
        connections = self._endpoint._open
        return sum(stream.unsent() for connection in connections for stream in connection.streams.open.values())


class H3Memory:
    """One connection to a server that speaks HTTP/3, with the methods of `MemoryConnection` that tests use."""

    def __init__(self, app: Any, **settings: Any) -> None:
        registry = Registry.of(h1, access_log, ws, h3_plugin)
        files = {"ssl_certfile": certificate[0], "ssl_keyfile": certificate[1]}
        self.service = memory_service(app, registry, http3_enabled=True, **files, **settings)
        self.service.tls = ServerTLS(self.service.config, [])
        endpoint = Endpoint(self.service, SERVER)
        self.transport = MemoryDatagrams(self.service.loop, endpoint)
        self._ticker = Ticker(self.service)

    @property
    def closed(self) -> bool:
        return self.transport.client._close_event is not None

    def lose(self) -> None:
        """The client ends the connection."""
        self.transport.client.close(0x100)
        self.transport.flush()

    def after(self, seconds: float) -> None:
        """Do what is due `seconds` from now."""
        self._ticker.sweep(self.service.loop.time() + seconds)

    settle = MemoryConnection.settle
    wait_until = MemoryConnection.wait_until


class H3Peer(TunnelPeer):
    """A client of HTTP/3."""

    def __init__(self, app: Any, **settings: Any) -> None:
        self.connection = H3Memory(app, **settings)
        self.service = self.connection.service
        self._taken = 0
        self._stream = 0
        self._connected = False
        self._quic = self.connection.transport.client
        self._h3 = qh3.h3.connection.H3Connection(self._quic)

    def _hear(self) -> None:
        while (event := self._quic.next_event()) is not None:
            if isinstance(event, qh3.quic.events.HandshakeCompleted):
                self._connected = True
            for found in self._h3.handle_event(event):
                if isinstance(found, qh3.h3.events.HeadersReceived):
                    self._answer_fields = list(found.headers)
                elif isinstance(found, qh3.h3.events.DataReceived):
                    self._received += found.data
                if getattr(found, "stream_ended", isinstance(found, qh3.h3.events.StreamReset)):
                    self._ended = True
        self.connection.transport.flush()

    async def handshake(
        self, *fields: tuple[bytes, bytes], path: bytes = b"/", method: bytes = b"CONNECT", early: bytes = b"", **_: Any
    ) -> Answer:
        def connected() -> bool:
            self._hear()
            return self._connected

        await self.connection.wait_until(connected)
        self._stream = self._quic.get_next_available_stream_id()
        self._h3.send_headers(self._stream, self._fields(path, method, fields))
        if early:
            self._h3.send_data(self._stream, early, False)
        self.connection.transport.flush()
        return await self._answered()

    def send(self, *frames: bytes) -> None:
        if self._quic._stream_can_send(self._stream):
            self._h3.send_data(self._stream, b"".join(frames), False)
            self.connection.transport.flush()

    def end_half(self) -> None:
        self._h3.send_data(self._stream, b"", True)
        self.connection.transport.flush()


WIRES = {"h1": Peer, "h2": H2Peer, "h3": H3Peer}
chosen: list[type[Peer]] = [Peer]
"""What `opened()` makes; the fixture `wire` sets it."""


async def opened(app: App, *fields: tuple[bytes, bytes], **settings: Any) -> Peer:
    """A client whose WebSocket is open, over the wire of the test."""
    peer = chosen[0](app, **settings)
    await peer.open(*fields)
    return peer


DEFLATE = (b"sec-websocket-extensions", b"permessage-deflate")
