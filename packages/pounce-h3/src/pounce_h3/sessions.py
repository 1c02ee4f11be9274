"""Sessions: WebTransport on one connection (draft-ietf-webtrans-http3, RFC 9297).

Theory of operation. A session is opened by a request, an extended CONNECT whose exchange (`webtransport/exchange.py`)
adds itself here; its number is that of the request's stream. What arrives names it:

    bidirectional stream    frame type 0x41, number, then bytes to the end     `stream.py` finds that out
    unidirectional stream   stream type 0x54, number, then bytes to the end    `peer_streams.py` does
    datagram                a quarter of the number, then the payload

Streams may overtake the request that opens their session. `EARLY_MAX` of them are kept, with `EARLY_SIZE` bytes; more
are rejected, so that the client may open them again. Datagrams of a session that is not there are dropped. A stream of
one that has ended, or never was one, is given up.

Datagrams leave before anything else that waits. While the network takes none they wait in a queue that is bounded;
those that do not fit in there, and those that are larger than what the client or the network takes, are dropped and
counted. So are those for which an application has no time.

Streams that nobody reads hold up their connection, which cannot go on with others alone (`windows.py`). After
`http3_webtransport_read_timeout` those of which nothing was taken meanwhile are given up, the largest first, until
there is room.
"""

import functools
from math import inf
from typing import TYPE_CHECKING, Protocol

from pounce.exchange.priority import DEFAULT, Priority
from pounce_h3.codes import (
    H3_DATAGRAM_ERROR,
    H3_ID_ERROR,
    WT_BUFFERED_STREAM_REJECTED,
    WT_SESSION_GONE,
)
from pounce_h3.engine import QuicError, StopSending, StreamReset
from pounce_h3.failures import isolated, log_failure
from pounce_h3.frames import WT_STREAM, WT_UNIDIRECTIONAL, pull, varint
from pounce_h3.session_stream import OVER, Session, SessionStream

if TYPE_CHECKING:
    from pounce.plugin import Service
    from pounce_h3.output import Output, Wait
    from pounce_h3.windows import Windows

__all__ = ["Sessions"]

CONTROL_STREAM = 3
"""The first stream of the server."""
EARLY_MAX = 16
"""Streams that are kept until their session is there."""
EARLY_SIZE = 65536
"""Bytes of them, all together."""
QUARTER_MAX = (1 << 60) - 1
"""The highest quarter of a number."""


class Requests(Protocol):
    """What this needs of the table of requests."""

    service: Service
    output: Output
    windows: Windows

    def may_open_session(self, stream_id: int) -> bool:
        """The request of this stream is still to come, or to be answered."""


class Opener:
    """Somebody who waits to open a stream, among those that wait for the client (see `pounce_h3.output.Sender`)."""

    id = CONTROL_STREAM
    priority = DEFAULT
    pending_size = 0
    pending_end = False
    writable = False

    def __init__(self, output: Output) -> None:
        self.heard = output.service.create_future()
        self.wait: Wait | None = None
        self.pending: list[bytes | memoryview] = []
        output.waiting.add(self)

    def bytes_left(self) -> None:
        if not self.heard.done():
            self.heard.set_result(None)

    def fail(self, code: int) -> None:
        self.bytes_left()

    def break_off(self) -> None:
        self.bytes_left()


class Sessions:
    """The sessions of one connection, their streams and datagrams."""

    __slots__ = (
        "_datagrams",
        "_datagrams_max",
        "_early",
        "_open",
        "_openers",
        "_requests",
        "_streams",
        "output",
        "service",
        "takes_datagrams",
        "windows",
    )

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self.service = requests.service
        self.output = requests.output
        self.windows = requests.windows
        self._open: dict[int, Session] = {}
        self._streams: dict[int, SessionStream] = {}
        self._early: dict[int, int] = {}
        """Streams whose session is still to come, with its number."""
        self._openers: set[Opener] = set()
        self._datagrams = self.output.datagrams
        self._datagrams_max = self.service.config.http3_webtransport_datagram_queue
        self.takes_datagrams = False
        """The client has said so."""
        self.output.streams += (self._streams,)
        self.windows.patience = self.service.config.http3_webtransport_read_timeout or inf

    # Sessions

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._open)

    def add(self, number: int, session: Session) -> None:
        """A session begins: it gets the streams that were earlier."""
        self._open[number] = session
        for stream_id, wanted in tuple(self._early.items()):
            if wanted == number:
                self._open_stream(self._streams[stream_id], session)

    def remove(self, number: int, session: Session) -> None:
        """A session has ended, and with it all of its streams (draft-ietf-webtrans-http3 6)."""
        if self._open.get(number) is session:
            del self._open[number]
            self._wake_openers()
            for stream in tuple(self._streams.values()):
                if stream.session is session:
                    stream.session = None
                    # What has arrived as a whole can still be read.
                    if not stream.ended:
                        stream.stop_with(WT_SESSION_GONE)
                    stream.reset_with(WT_SESSION_GONE)

    def lose_all(self) -> None:
        """The connection is over. The sessions hear of it by their own streams."""
        self._datagrams.clear()
        self._early.clear()
        self._wake_openers()
        streams = tuple(self._streams.values())
        self._streams.clear()
        for stream in streams:
            stream.lose()

    # Streams

    def adopt(self, stream_id: int, number: int, data: bytes, end: bool) -> None:
        """The client has opened a stream of a session. Raises `QuicError`."""
        if number & 3:
            raise QuicError(H3_ID_ERROR, "a stream of a session that no request can open")
        stream = self._streams[stream_id] = SessionStream(self, stream_id)
        session = self._open.get(number)
        if session is not None or self._requests.may_open_session(number):
            self._early[stream_id] = number
        else:
            self._give_up(stream, WT_SESSION_GONE)
        stream.data_received(data, end)
        if session is not None:
            self._open_stream(stream, session)
        elif stream_id in self._early:
            self._look_at_early(stream)

    def _open_stream(self, stream: SessionStream, session: Session) -> None:
        del self._early[stream.id]
        stream.session = session
        isolated(self.service, stream, functools.partial(session.stream_opened, stream))
        self.ended(stream)

    def _look_at_early(self, stream: SessionStream) -> None:
        """Keep no more of what is too early than there is room for."""
        early, streams = self._early, self._streams
        if len(early) > EARLY_MAX:
            for stream_id in [each for each, wanted in early.items() if not self._requests.may_open_session(wanted)]:
                self._give_up(streams[stream_id], WT_SESSION_GONE)
        if len(early) > EARLY_MAX or sum(streams[each].readable for each in early) > EARLY_SIZE:
            self.service.count("webtransport_early_streams", "h3: too many streams whose session is still to come")
            self._give_up(stream, WT_BUFFERED_STREAM_REJECTED)

    def _give_up(self, stream: SessionStream, code: int) -> None:
        self._early.pop(stream.id, None)
        stream.stop_with(code)
        stream.reset_with(code)
        self.ended(stream)

    def received(self, stream_id: int, data: bytes, end: bool) -> bool:
        """Bytes of a stream; whether it is one of those here."""
        stream = self._streams.get(stream_id)
        if stream is None:
            # What was opened here is no request, though nobody knows it any more.
            return bool(stream_id & 1)
        isolated(self.service, stream, functools.partial(stream.data_received, data, end))
        if stream_id in self._early:
            self._look_at_early(stream)
        return True

    def given_up(self, event: StreamReset) -> bool:
        """The client has given up one half of a stream; whether it is one of those here."""
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return False
        call = stream.stop_received if isinstance(event, StopSending) else stream.reset_received
        isolated(self.service, stream, functools.partial(call, event.code))
        if stream.reading == OVER and self._early.pop(event.stream_id, None) is not None:
            self.ended(stream)
        return True

    def may_open(self, unidirectional: bool) -> bool:
        """The client allows another stream of this kind."""
        return self.output.quic.may_open(unidirectional)

    async def wait_to_open(self) -> None:
        """Wait until something was heard of the client, which may have allowed more streams."""
        opener = Opener(self.output)
        self._openers.add(opener)
        try:
            await opener.heard
        finally:
            self._openers.discard(opener)
            self.output.waiting.discard(opener)

    def _wake_openers(self) -> None:
        for opener in self._openers:
            opener.bytes_left()

    def open_stream(self, number: int, session: Session, unidirectional: bool, priority: Priority) -> SessionStream:
        """A new stream of ours, where `may_open()` allows it."""
        stream_id = self.output.quic.open_stream(unidirectional)
        stream = self._streams[stream_id] = SessionStream(self, stream_id)
        stream.session = session
        stream.priority = priority
        kind = WT_UNIDIRECTIONAL if unidirectional else WT_STREAM
        self.output.send(stream, [varint(kind) + varint(number)], False)
        return stream

    def make_room(self) -> None:
        """What nobody reads has held up everything else for long enough."""
        windows = self.windows
        unread = [each for each in self._streams.values() if each.is_unread and each.taken_at < windows.looked_at]
        for stream in sorted(unread, key=lambda each: each.readable, reverse=True):
            if not windows.is_shut:
                break
            self.service.count("webtransport_unread_streams", "h3: a stream that nobody reads holds up its connection")
            isolated(self.service, stream, functools.partial(stream.give_up_reading, WT_BUFFERED_STREAM_REJECTED))
        if windows.is_shut:
            # What is left is somebody's who has taken something, or the body of a request.
            windows.look_again()

    def ended(self, stream: SessionStream) -> None:
        """A half of a stream is over."""
        if stream.is_over and stream.id not in self._early and self._streams.get(stream.id) is stream:
            del self._streams[stream.id]

    # Datagrams

    def datagram_received(self, data: bytes) -> None:
        """RFC 9297 2.1. Raises `QuicError`."""
        pulled = pull(data, 0)
        if pulled is None or pulled[0] > QUARTER_MAX:
            raise QuicError(H3_DATAGRAM_ERROR, "a datagram that is no request's")
        session = self._open.get(pulled[0] << 2)
        if session is None:
            self.service.count("webtransport_datagrams_unknown")
            return
        try:
            session.datagram_received(data[pulled[1] :])
        except Exception:  # noqa: BLE001 - logged there
            log_failure(self.service)

    def send_datagram(self, number: int, data: bytes) -> bool:
        """Send one, as soon as the network takes it; False where it is dropped."""
        output = self.output
        datagram = varint(number >> 2) + data
        if (
            not self.takes_datagrams
            or len(datagram) > output.quic.datagram_max
            or len(self._datagrams) >= self._datagrams_max
        ):
            self.service.count("webtransport_datagrams_dropped")
            return False
        self._datagrams.append(datagram)
        output.soon()
        return True
