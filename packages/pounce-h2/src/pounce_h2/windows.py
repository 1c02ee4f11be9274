"""Windows: what the peer may send (RFC 9113 5.2), of all request bodies together and of each.

A window is given back as applications take what came, half a window at a time. Where they leave it the peer has to wait
for them, and no deadline runs against it: `Upload.pause()`.
"""

import asyncio
from collections.abc import Mapping
from math import inf
from typing import Protocol

from pounce.config import ServerConfig
from pounce.contract.head import Headers
from pounce_h2.abuse import ConnectionFailed
from pounce_h2.frames import ErrorCode, window_update_frame
from pounce_h2.output import Output
from pounce_h2.settings import WINDOW_DEFAULT, H2Settings

__all__ = ["HELD_PIECES_MAX", "ROOM_MIN", "Upload", "Windows"]

ROOM_MIN = 16_384
"""Bytes of the connection's window for requests; with less room than that no peer is hurried."""
HELD_HIGH = 65_536
"""Bytes that wait for the application, above which the peer is not hurried; less where the window is small."""
HELD_PIECES_MAX = 65_536
"""Pieces of request bodies that wait for applications: each costs memory, however small it is."""
RATE_GRACE = 5.0
"""Seconds before min_body_rate applies."""


class Uploads(Protocol):
    """A stream, as far as this is about it."""

    upload: Upload | None


class Windows:
    """The window of the connection, and what all of its streams together hold."""

    __slots__ = (
        "_connection_window",
        "_credit",
        "_min_body_rate",
        "_request_timeout",
        "_streams",
        "held_high",
        "held_pieces",
        "loop",
        "output",
        "room",
        "stream_window",
        "upload_window",
    )

    def __init__(
        self, settings: H2Settings, config: ServerConfig, output: Output, streams: Mapping[int, Uploads]
    ) -> None:
        self.loop: asyncio.AbstractEventLoop = output.loop
        self.output = output
        self._streams = streams
        self._request_timeout = config.request_timeout
        self._min_body_rate = config.min_body_rate
        self._connection_window = settings.connection_window
        self.stream_window = settings.stream_window
        self.room = settings.connection_window
        """Bytes that the peer may still send on the connection."""
        self._credit = 0
        """Bytes that were taken, and not yet given back."""
        # 6.9.3: "the receiver MUST be prepared to receive data that exceeds this window size", until SETTINGS is known.
        self.upload_window = max(settings.stream_window, WINDOW_DEFAULT)
        """What a new stream may send."""
        self.held_pieces = 0
        """Pieces of bodies that applications have not taken."""
        # Less than a window, in which there is always some room before that.
        self.held_high = min(HELD_HIGH, settings.stream_window // 4)
        """Bytes of one body that wait for its application, above which the peer is not hurried."""

    def announce(self) -> None:
        """Tell the peer of the connection's window, which SETTINGS cannot (RFC 9113 6.9.2)."""
        if self._connection_window > WINDOW_DEFAULT:
            self.update(0, self._connection_window - WINDOW_DEFAULT)

    def settings_are_known(self) -> None:
        """The peer has acknowledged our SETTINGS: what it sends from now on keeps to them."""
        change = self.stream_window - self.upload_window
        if change:
            self.upload_window += change
            for stream in self._streams.values():
                if stream.upload is not None:
                    stream.upload.window += change

    def has_little_room(self, size: int) -> None:
        """DATA of that size has used up `room`, or nearly: the peer has to wait for applications.

        Raises `ConnectionFailed`.
        """
        if self.room < 0:
            raise ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, "DATA exceeds the window of the connection")
        if self.room + size >= ROOM_MIN:
            for stream in self._streams.values():
                if stream.upload is not None:
                    stream.upload.pause()

    def give_back(self, count: int) -> None:
        """`count` bytes of the connection's window were taken."""
        self._credit = credit = self._credit + count
        if credit * 2 >= self._connection_window:
            had_room = self.has_room
            self.room += credit
            self._credit = 0
            self.update(0, credit)
            if not had_room:
                for stream in self._streams.values():
                    if stream.upload is not None:
                        stream.upload.unpause()

    @property
    def held(self) -> int:
        """Bytes of bodies that applications have not taken."""
        return self._connection_window - self.room - self._credit

    @property
    def has_room(self) -> bool:
        """The connection's window lets the peer go on with its uploads."""
        return self.room >= ROOM_MIN

    def update(self, stream: int, increment: int) -> None:
        """Let the peer send that much more."""
        self.output.emit(window_update_frame(stream, increment))

    def begin(self, stream: int, expected: int | None) -> Upload:
        """The body of a request, of which nothing is here."""
        upload = Upload(self, stream, expected, self.loop.time())
        if self.room < ROOM_MIN:
            upload.pause()
        self.output.due(self.due(upload))
        return upload

    def due(self, upload: Upload) -> float:
        """When the next piece is due; time during which the peer has to wait for applications does not count."""
        if upload.paused_at:
            return inf
        due = upload.last + self._request_timeout
        rate = self._min_body_rate
        return min(due, upload.base + upload.received / rate) if rate else due


class Upload:
    """The body of a request while it arrives."""

    __slots__ = (
        "_credit",
        "_id",
        "_windows",
        "base",
        "discarded",
        "early",
        "expected",
        "held",
        "last",
        "paused_at",
        "pieces",
        "received",
        "trailers",
        "window",
    )

    def __init__(self, windows: Windows, stream: int, expected: int | None, now: float) -> None:
        self._windows = windows
        self._id = stream
        self.window = windows.upload_window
        """Bytes that the peer may still send."""
        self.expected = expected
        """Content-Length."""
        self.received = 0
        self.held = 0
        """Bytes that the application has not taken."""
        self.pieces = 0
        """In how many pieces they came."""
        self.discarded = False
        """The answer is complete, and nobody wants the rest."""
        self._credit = 0
        """Bytes that were taken, and not yet given back to the peer's window."""
        self.early: list[bytes] = []
        self.trailers: Headers | None = None
        """What came before the request was opened."""
        self.base = now + RATE_GRACE
        """When `min_body_rate` began to apply."""
        self.last = now
        """When the last piece came."""
        self.paused_at = 0.0

    def consumed(self, count: int, goes_on: bool) -> None:
        """The application has taken so many bytes, and there is more to come."""
        windows = self._windows
        count = min(count, self.held)
        self.held -= count
        if not self.held:
            windows.held_pieces -= self.pieces
            self.pieces = 0
        windows.give_back(count)
        self.unpause()
        if goes_on:
            self.extend(count)

    def discard(self) -> None:
        """Nobody takes what is here, nor what is still to come."""
        windows = self._windows
        self.discarded = True
        self.early.clear()
        windows.held_pieces -= self.pieces
        held, self.held, self.pieces = self.held, 0, 0
        if held:
            windows.give_back(held)

    def extend(self, count: int) -> None:
        """The peer may send `count` bytes more; it is told when that is worth a frame."""
        self._credit += count
        windows = self._windows
        if self._credit * 2 >= windows.stream_window:
            windows.update(self._id, self._credit)
            self.window += self._credit
            self._credit = 0

    def pause(self) -> None:
        """Applications let bodies wait, this one or others of the connection: the peer is not hurried for a while."""
        if not self.paused_at:
            self.paused_at = self._windows.loop.time()

    def unpause(self) -> None:
        """The peer has time to go on from now on, where the windows of stream and connection let it."""
        if not self.paused_at:
            return
        windows = self._windows
        if self.held > windows.held_high or not windows.has_room:
            return
        now = windows.loop.time()
        self.base += now - self.paused_at
        self.last = now
        self.paused_at = 0.0
        windows.output.due(windows.due(self))

    def postpone(self, seconds: float) -> None:
        """For so long the connection has not looked at what the peer sent."""
        self.base += seconds
        self.last += seconds
