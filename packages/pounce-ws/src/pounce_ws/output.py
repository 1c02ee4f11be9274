"""Output: frames on their way to a client, and those who wait to send.

Theory of operation. A message is made a frame, and written, when the stream is writable; until then its sender waits,
behind those that wait already. So however many tasks send, nothing of theirs is copied but what the client is about to
take. Frames that answer one read are gathered into one write, and so are the pongs that a client asks for.

A stream that raises has failed (`pounce.contract.stream`, rule 7): it is reset, and the exchange told that it is lost.

Deflating takes from the connection's share of a turn of the loop, and goes on in the next turn when it is used up.
"""

import asyncio
from typing import TYPE_CHECKING

from pounce.errors import ClientGone
from pounce_ws.frames import FIN, PONG, frame
from pounce_ws.input import Input

if TYPE_CHECKING:
    from pounce.contract.stream import Exchange, Stream
    from pounce.contract.wire import Service
    from pounce_ws.deflate import Deflater

__all__ = ["DEFLATE_PIECE", "Output"]

CORK_LIMIT = 16384
"""Bytes of frames that are gathered into one write at the most."""
DEFLATE_PIECE = 8192
"""Bytes of a message that are deflated at once. Each takes up to 0.1 us."""
DEFLATE_SHIFT = 6
"""A step for 64 of these bytes."""


class Output:
    """What one WebSocket writes. `bytes_sent` counts frames, heads included."""

    __slots__ = (
        "_flush_due",
        "_input",
        "_pong",
        "_service",
        "_stream",
        "bytes_sent",
        "cork",
        "corked",
        "deflate_min",
        "deflater",
        "lost",
        "queue",
        "writers",
    )

    def __init__(self, service: Service, stream: Stream, input: Input, deflater: Deflater | None) -> None:
        self._service = service
        self._stream = stream
        self._input = input
        self.queue = input.queue
        """Messages that wait for the application: their answers may go together."""
        self.deflater = deflater
        self.deflate_min = service.config.websocket_compression_min_size
        self.bytes_sent = 0
        self.writers: list[asyncio.Future[None]] = []
        """Who waits to send, in the order in which they may."""
        self.cork: list[bytes] = []
        self.corked = 0
        """Bytes in there."""
        self.lost = False
        """The stream is, or has failed."""
        self._flush_due = False
        self._pong: bytes | None = None
        """Payload of the pong that is due when the stream is writable again."""

    def write(self, data: bytes) -> None:
        """Write a frame; while messages wait for the application it is gathered with what will follow."""
        if self.queue or self.cork:
            self.gather(data, wait=bool(self.queue))
        else:
            self._send(data)

    def gather(self, data: bytes, wait: bool) -> None:
        """Write a frame with those before it: now, or with `wait` at the loop's next turn at the latest."""
        self.cork.append(data)
        self.corked += len(data)
        if self.corked >= CORK_LIMIT or not wait:
            self.flush()
        elif not self._flush_due:
            self._flush_due = True
            self._service.loop.call_soon(self._flush_late)

    def pong(self, payload: bytes) -> None:
        """Answer a ping."""
        if self._stream.writable:
            # A client can ask for thousands in one piece.
            self.gather(frame(FIN | PONG, payload), wait=True)
        else:
            # RFC 6455 5.5.3: a server "MAY elect to send a Pong frame for only the most recently processed Ping".
            self._pong = payload

    def flush(self) -> None:
        """Write what was gathered."""
        self._flush_due = False
        if self.cork:
            data = b"".join(self.cork)
            self.cork.clear()
            self.corked = 0
            self._send(data)

    def _flush_late(self) -> None:
        self._flush_due = False
        if not self._input.waits:
            # Else more is read in the next turn, and answered together with this.
            self.flush()

    def last(self, data: bytes, *, more: bool) -> None:
        """Write what nothing of the application's may follow, a Close for example; `more` False ends the stream."""
        self.flush()
        if not self.lost:
            self._send(data, more)

    def _send(self, data: bytes, more: bool = True) -> None:
        self.bytes_sent += len(data)
        try:
            self._stream.write(data, more)
        except BaseException as exc:  # noqa: BLE001 - logged there
            self.fail(exc)

    def lose(self) -> None:
        """The stream is lost, and what was gathered with it."""
        self.lost = True
        self.cork.clear()

    def fail(self, exc: BaseException) -> ClientGone:
        """A method of the stream has raised: give up this stream, and no other. What to raise for the application."""
        self._service.stream_failed(self._stream, exc)
        self.lose()
        self.reset()
        # None where the wire has told it already.
        exchange: Exchange | None = self._stream.exchange
        if exchange is not None:
            exchange.stream_lost(None)
        return ClientGone("the message could not be sent")

    def reset(self) -> None:
        """Give up the stream, visibly for the client; where even that fails, its connection."""
        try:
            self._stream.reset()
        except BaseException as exc:  # noqa: BLE001 - logged there
            self._service.stream_failed(self._stream, exc, whole_connection=True)

    def consumed(self, count: int) -> None:
        """There is room for as much more."""
        try:
            self._stream.consumed(count)
        except BaseException as exc:  # noqa: BLE001 - logged there
            self.fail(exc)

    # Waiting: each waiter has a future of its own, so that cancelling one leaves the others alone

    async def wait_until_writable(self) -> None:
        """Wait for the client, and behind everybody who waits for it already; return when the WebSocket is closed."""
        waiter = self._service.create_future()
        self.writers.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self.writers:
                self.writers.remove(waiter)
                # Once this one has written, or failed to.
                self._service.loop.call_soon(self.wake_writer)

    def wake_writer(self) -> None:
        """Let the first one write. It stays in the list until it has its turn, so that nobody comes between."""
        if self.writers and self._stream.writable and not self.writers[0].done():
            self.writers[0].set_result(None)

    def resume(self, is_open: bool) -> None:
        """The stream is writable again."""
        pong, self._pong = self._pong, None
        if pong is not None and is_open:
            self.write(frame(FIN | PONG, pong))
        self.wake_writer()

    async def deflated(self, deflater: Deflater, payload: bytes) -> bytes:
        """Deflate a long message piece by piece, while everybody else who sends waits; useless when the WebSocket was
        closed meanwhile."""
        place = self._service.create_future()
        self.writers.insert(0, place)
        pieces = []
        try:
            for at in range(0, len(payload), DEFLATE_PIECE):
                if place not in self.writers:
                    # Everybody was let go.
                    break
                piece = payload[at : at + DEFLATE_PIECE]
                pieces.append(deflater.begin(piece))
                await self._input.share.spend(len(piece) >> DEFLATE_SHIFT)
            pieces.append(deflater.end())
        except BaseException:
            deflater.forget()
            raise
        finally:
            if place in self.writers:
                self.writers.remove(place)
                self._service.loop.call_soon(self.wake_writer)
        return b"".join(pieces)
