"""WebTransport for applications: a `Session` from the ASGI scope `webtransport`, on any server that has it::

    async def app(scope, receive, send):
        async with Session(scope, receive, send) as session:
            async for stream in session.streams():
                async for data in stream:
                    await stream.send(data)
                await stream.end()

A task of its own takes what the server tells and gives it to whom it is for. Whoever does not read a stream holds up
that stream alone, where the server offers `webtransport.stream.window`; elsewhere all of them, once `stream_window`
bytes of one wait.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, NamedTuple, Self

__all__ = ["Closed", "Session", "SessionClosed", "Stream", "StreamReset"]

STREAMS_MAX = 256
"""Streams of the client that may wait for somebody to take them, before nothing more is asked of the server."""


class Closed(NamedTuple):
    """How a session ended."""

    code: int | None
    """The number that it was closed with; None where nobody closed it: its client is gone, or broke the protocol."""
    reason: str


class SessionClosed(OSError):
    """The session is over, so that nothing can be opened on it."""


class StreamReset(OSError):
    """The client has given up its half of a stream."""

    def __init__(self, code: int | None) -> None:
        super().__init__(f"the client gave up the stream, with code {code}")
        self.code = code
        """The client's, of 32 bits; None where it gave none."""


class Stream:
    """One stream of a session. Its bytes are read by iteration or by `read()`, by one reader at a time."""

    def __init__(self, session: Session, number: int, bidirectional: bool, has_input: bool) -> None:
        self.id = number
        """By which the server knows it (RFC 9000 2.1)."""
        self.bidirectional = bidirectional
        """Both ends send; else only whoever has opened it."""
        self._session = session
        self._buffer = bytearray()
        self._ended = not has_input
        self._reset: StreamReset | None = None
        self._changed = asyncio.Event()

    async def read(self, count: int = -1) -> bytes:
        """Up to so many bytes, at least one, or all that has arrived; `b""` when there are no more.

        Raises `StreamReset`, and `SessionClosed` where the session is over before the stream is.
        """
        while not self._buffer and not self._ended:
            if self._reset is not None:
                raise self._reset
            if self._session.closed is not None:
                raise SessionClosed("the session is closed")
            self._changed.clear()
            await self._changed.wait()
        data = bytes(self._buffer if count < 0 else self._buffer[:count])
        del self._buffer[: len(data)]
        if data:
            await self._session._consumed(self, len(data))
        return data

    async def read_all(self) -> bytes:
        """All that the client sends on it, to its end; for streams of which little is expected."""
        return b"".join([data async for data in self])

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The bytes as they arrive, to the end."""
        while data := await self.read():
            yield data

    async def send(self, data: bytes, *, end: bool = False) -> None:
        """Send bytes; waits while the client is slow. `end` says that they are the last.

        Raises `OSError` where the client wants no more of them.
        """
        await self._session._send("webtransport.stream.send", stream=self.id, data=data, end_stream=end)

    async def end(self) -> None:
        """There are no more bytes from here."""
        await self.send(b"", end=True)

    async def reset(self, code: int = 0) -> None:
        """Give up our half, whatever of it has not arrived; the code, of 32 bits, is for the client."""
        await self._session._send("webtransport.stream.reset", stream=self.id, code=code)

    async def stop(self, code: int = 0) -> None:
        """Want no more of what the client sends on it."""
        await self._session._send("webtransport.stream.stop", stream=self.id, code=code)
        self._buffer.clear()
        self._ended = True
        self._changed.set()


class Session:
    """One session. Use it as an asynchronous context manager: it is accepted at the beginning, unless `accept()` was
    called before, and closed at the end.

    Raises `ValueError` for a scope that is not `webtransport`.
    """

    def __init__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
        *,
        stream_window: int = 262_144,
        datagrams_max: int = 256,
    ) -> None:
        if scope["type"] != "webtransport":
            raise ValueError(f"the scope is {scope['type']}, not webtransport")
        self.scope = scope
        self.subprotocols: list[str] = scope.get("subprotocols") or []
        """Those that the client offers, the preferred one first."""
        self.closed: Closed | None = None
        """How it ended; None while it is open."""
        self.dropped = 0
        """Datagrams that came and for which there was no room: `datagrams_max` of them may wait."""
        self._receive = receive
        self._server = send
        self._window = stream_window
        self._has_windows = "webtransport.stream.window" in (scope.get("extensions") or {})
        self._is_accepted = False
        self._streams: dict[int, Stream] = {}
        self._incoming: deque[Stream] = deque()
        self._datagrams: deque[bytes] = deque()
        self._datagrams_max = datagrams_max
        self._opening: dict[int, asyncio.Future[Stream]] = {}
        self._token = 0
        self._something = asyncio.Event()
        """Came, for those who wait in an iteration."""
        self._room = asyncio.Event()
        self._draining = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if not self._is_accepted:
            await self.accept()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            await self.close()
        elif self._pump is not None:
            self._pump.cancel()

    async def accept(self, subprotocol: str | None = None, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """Open the session. `subprotocol` is one of `subprotocols`."""
        message = await self._receive()
        if message["type"] != "webtransport.connect":
            self._end(None, "")
            raise SessionClosed("the client left before the session was open")
        self._is_accepted = True
        accept: dict[str, Any] = {"type": "webtransport.accept", "subprotocol": subprotocol, "headers": list(headers)}
        if self._has_windows:
            accept["stream_window"] = self._window
        await self._server(accept)
        self._pump = asyncio.ensure_future(self._take_messages())

    async def refuse(self) -> None:
        """Open no session: the client is answered 403."""
        await self._receive()
        await self._server({"type": "webtransport.close"})
        self._is_accepted = True
        self._end(None, "")

    async def close(self, code: int = 0, reason: str = "") -> None:
        """Close the session, and with it all its streams; a number of 32 bits and up to 1024 bytes are for the client.

        What was sent last may be lost with it: where that matters, leave it to the client to close.
        """
        if self.closed is None:
            self._end(code, reason)
            try:
                await self._server({"type": "webtransport.close", "code": code, "reason": reason})
            except OSError:
                # The client was faster.
                pass
        if self._pump is not None:
            self._pump.cancel()

    async def wait_closed(self) -> Closed:
        """Wait until it is over, whoever ends it."""
        while self.closed is None:
            await self._wait_for_something()
        return self.closed

    async def drain(self) -> None:
        """Ask the client to come to an end."""
        await self._send("webtransport.drain")

    async def wait_draining(self) -> None:
        """Wait until the client, or the server that shuts down, asks to come to an end; also for the end itself."""
        await self._draining.wait()

    # Streams

    async def streams(self) -> AsyncIterator[Stream]:
        """The streams that the client opens, as they come, until the session is over."""
        while True:
            if self._incoming:
                self._room.set()
                yield self._incoming.popleft()
            elif self.closed is not None:
                return
            else:
                await self._wait_for_something()

    async def open_stream(self, *, bidirectional: bool = True, urgency: int | None = None) -> Stream:
        """A new stream of ours. `urgency` is from 0, the most urgent, to 7 (RFC 9218 4.1).

        Raises `SessionClosed`.
        """
        self._token += 1
        token = self._token
        opened: asyncio.Future[Stream] = asyncio.get_running_loop().create_future()
        self._opening[token] = opened
        message: dict[str, Any] = {"bidirectional": bidirectional, "token": token}
        if urgency is not None:
            message["urgency"] = urgency
        try:
            await self._send("webtransport.stream.open", **message)
            return await opened
        finally:
            self._opening.pop(token, None)

    # Datagrams

    async def datagrams(self) -> AsyncIterator[bytes]:
        """The datagrams of the client, as they come, until the session is over."""
        while True:
            if self._datagrams:
                yield self._datagrams.popleft()
            elif self.closed is not None:
                return
            else:
                await self._wait_for_something()

    async def send_datagram(self, data: bytes) -> None:
        """Send one. It may be lost, on the way or before: one that is larger than the network takes always is."""
        await self._send("webtransport.datagram.send", data=data)

    # What the server tells

    async def _take_messages(self) -> None:
        try:
            while self.closed is None:
                self._take(await self._receive())
                while self.closed is None and self._is_full():
                    self._room.clear()
                    await self._room.wait()
        except OSError:
            self._end(None, "")

    def _take(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "webtransport.stream.receive":
            self._stream_received(message)
        elif kind == "webtransport.datagram.receive":
            if len(self._datagrams) < self._datagrams_max:
                self._datagrams.append(message["data"])
            else:
                self.dropped += 1
        elif kind == "webtransport.stream.opened":
            stream = Stream(self, message["stream"], message["bidirectional"], message["bidirectional"])
            if message["bidirectional"]:
                self._streams[stream.id] = stream
            opened = self._opening.get(message["token"])
            if opened is not None and not opened.done():
                opened.set_result(stream)
        elif kind == "webtransport.stream.reset":
            found = self._streams.pop(message["stream"], None)
            if found is not None:
                found._reset = StreamReset(message["code"])
                found._changed.set()
        elif kind == "webtransport.drain":
            self._draining.set()
        elif kind == "webtransport.disconnect":
            self._end(message["code"], message["reason"])
        self._something.set()

    def _stream_received(self, message: dict[str, Any]) -> None:
        number = message["stream"]
        stream = self._streams.get(number)
        if stream is None:
            stream = self._streams[number] = Stream(self, number, message["bidirectional"], True)
            self._incoming.append(stream)
        stream._buffer += message["data"]
        if message["end_stream"]:
            stream._ended = True
            del self._streams[number]
        stream._changed.set()

    def _is_full(self) -> bool:
        return len(self._incoming) >= STREAMS_MAX or (
            not self._has_windows and any(len(each._buffer) > self._window for each in self._streams.values())
        )

    async def _consumed(self, stream: Stream, size: int) -> None:
        self._room.set()
        if self._has_windows and self.closed is None and not stream._ended:
            await self._send("webtransport.stream.consumed", stream=stream.id, size=size)

    async def _send(self, kind: str, **message: Any) -> None:
        if self.closed is not None:
            raise SessionClosed("the session is closed")
        await self._server({"type": kind, **message})

    def _end(self, code: int | None, reason: str) -> None:
        self.closed = Closed(code, reason)
        self._something.set()
        self._draining.set()
        self._room.set()
        for stream in self._streams.values():
            stream._changed.set()
        for opened in self._opening.values():
            if not opened.done():
                opened.set_exception(SessionClosed("the session is closed"))

    async def _wait_for_something(self) -> None:
        self._something.clear()
        await self._something.wait()
