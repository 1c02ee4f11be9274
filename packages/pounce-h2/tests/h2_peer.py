"""The other side of an HTTP/2 connection in memory: a client that can break every rule."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import hpack

from pounce.h1.plugin import plugin as h1
from pounce.plugin import Plugin
from pounce.registry import Registry
from pounce.testing import MemoryConnection
from pounce_h2.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    FRAME_HEAD,
    PREFACE,
    ErrorCode,
    Kind,
    Setting,
    frame,
    settings_frame,
    window_update_frame,
)
from pounce_h2.plugin import plugin

__all__ = ["GET", "Frame", "Peer", "answer", "echo", "hang", "in_loop", "request", "say"]

type Fields = Sequence[tuple[bytes, bytes]]


def in_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an `async def` test on an event loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))  # type: ignore[arg-type]

    return run


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> ErrorCode:
        """Of RST_STREAM or GOAWAY."""
        at = 4 if self.kind == Kind.GOAWAY else 0
        return ErrorCode(int.from_bytes(self.payload[at : at + 4]))

    @property
    def number(self) -> int:
        """The first four octets: the increment of WINDOW_UPDATE, the last stream of GOAWAY."""
        return int.from_bytes(self.payload[:4])


def request(
    method: bytes = b"GET", path: bytes = b"/", *more: tuple[bytes, bytes], scheme: bytes = b"http"
) -> list[tuple[bytes, bytes]]:
    """The fields of a request."""
    pseudo = [(b":method", method), (b":scheme", scheme), (b":authority", b"example.org"), (b":path", path)]
    return [*pseudo, *more]


GET = request()


class Peer(MemoryConnection):
    """A connection to the HTTP/2 wire; unless told otherwise its preface and SETTINGS are exchanged."""

    def __init__(
        self,
        app: Any,
        *plugins: Plugin,
        settings: dict[Setting, int] | None = None,
        h2: dict[str, Any] | None = None,
        begin: bool = True,
        **config: Any,
    ) -> None:
        config = {"date_header": False, "server_header": "", "plugin_settings": {"h2": h2 or {}}} | config
        super().__init__(app, wire=plugin.wires[0], registry=Registry.of(h1, plugin, *plugins), **config)
        self.expect_frames()
        if begin:
            self.feed(PREFACE + settings_frame(settings or {}) + frame(Kind.SETTINGS, ACK, 0))
            self.take_frames()

    def expect_frames(self, at: int = 0) -> None:
        """What the server sends from `at` on is frames."""
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder(max_header_list_size=2**20)
        self._parsed = at
        self.frames: list[Frame] = []

    # Sending

    def block(self, fields: Fields) -> bytes:
        return self.encoder.encode(list(fields))

    def headers(self, stream: int, fields: Fields = GET, flags: int = END_HEADERS | END_STREAM) -> None:
        self.send(Kind.HEADERS, flags, stream, self.block(fields))

    def data(self, stream: int, data: bytes, *, end: bool = False) -> None:
        self.send(Kind.DATA, END_STREAM if end else 0, stream, data)

    def send(self, kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> None:
        self.feed(frame(kind, flags, stream, payload))

    def open_window(self, stream: int, increment: int) -> None:
        self.feed(window_update_frame(stream, increment))

    def set(self, setting: int, value: int) -> None:
        self.send(Kind.SETTINGS, 0, 0, setting.to_bytes(2) + value.to_bytes(4))

    # Receiving

    def take_frames(self) -> list[Frame]:
        """What came since the last call."""
        data = self.received
        frames = []
        while len(data) - self._parsed >= 9:
            size, flags, stream = FRAME_HEAD.unpack_from(data, self._parsed)
            end = self._parsed + 9 + (size >> 8)
            if end > len(data):
                break
            frames.append(Frame(size & 0xFF, flags, stream, data[self._parsed + 9 : end]))
            self._parsed = end
        self.frames += frames
        return frames

    def of(self, kind: int, stream: int | None = None) -> list[Frame]:
        """All frames so far of that type, on that stream."""
        self.take_frames()
        return [found for found in self.frames if found.kind == kind and stream in (None, found.stream)]

    def head(self, stream: int, number: int = 0) -> dict[bytes, bytes]:
        """The fields of the stream's HEADERS frame of that number."""
        fields = self.decoder.decode(self.of(Kind.HEADERS, stream)[number].payload, raw=True)
        return {bytes(name): bytes(value) for name, value in fields}

    def body(self, stream: int) -> bytes:
        return b"".join(found.payload for found in self.of(Kind.DATA, stream))

    def ended(self, stream: int) -> bool:
        """END_STREAM came."""
        return any(
            found.stream == stream and found.kind in (Kind.DATA, Kind.HEADERS) and found.flags & END_STREAM
            for found in (self.take_frames() and self.frames) or self.frames
        )

    def resets(self, stream: int | None = None) -> list[ErrorCode]:
        return [found.code for found in self.of(Kind.RST_STREAM, stream)]

    def goaways(self) -> list[tuple[int, ErrorCode]]:
        """Last stream and error code of each."""
        return [(found.number & 0x7FFFFFFF, found.code) for found in self.of(Kind.GOAWAY)]

    @property
    def failed(self) -> ErrorCode | None:
        """The code of the connection error that ended the connection, None while it goes on."""
        codes = [code for _, code in self.goaways() if code is not ErrorCode.NO_ERROR]
        assert len(codes) < 2
        return codes[0] if codes else None


# Applications


async def say(send: Any, body: bytes = b"", status: int = 200, headers: Any = ()) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


async def answer(scope: Any, receive: Any, send: Any) -> None:
    await say(send, scope["raw_path"])


async def echo(scope: Any, receive: Any, send: Any) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        more = message["more_body"]
    await say(send, body)


async def hang(scope: Any, receive: Any, send: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
