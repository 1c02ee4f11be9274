"""H2Connection: one HTTP/2 connection (RFC 9113), server side. Begin to read here.

Theory of operation. Bytes are cut into frames, and each frame goes to the room of what it is about:

    settings.py    what we announce, and what the peer has announced
    requests.py    HEADERS, CONTINUATION and DATA, until the service has a request
    heads.py       field blocks, and what they were found to mean
    windows.py     what the peer may send
    streams.py     the table of streams, resets, budgets; `stream.py` is one of them
    output.py      what is gathered, parked, and sent in a turn
    ending.py      GOAWAY, drain, idleness, errors, and what comes after the end

Each imports those it stands on, and none imports this file. What comes first on a connection is checked here:

    PREFACE ─24 octets─▶ SETTINGS ─first frame─▶ FRAMES

After `Upgrade: h2c` stream 1 is there before the preface (`upgrade.py`).

Two kinds of errors: a stream error resets its stream, a connection error (`ConnectionFailed`) ends everything.

Everything that is sent during one turn of the loop is gathered, and written once. Frames and requests beyond the first
of a read take from the connection's share of the turn. When that is used up the rest of the frames, and then of the
requests, waits for the next turn, and nothing more is read before.
"""

import asyncio
from math import inf
from typing import TYPE_CHECKING

from pounce.contract.head import RequestHead
from pounce.contract.turns import STEPS
from pounce.exchange.answers import AnswerTable
from pounce.exchange.fields import FieldTable
from pounce.exchange.huffman import HuffmanDecoder
from pounce.net.connection import Connection, WireFailed
from pounce.net.linger import LINGER_TIMEOUT
from pounce_h2.abuse import ConnectionFailed
from pounce_h2.encode import encode_field
from pounce_h2.ending import Ending
from pounce_h2.frames import ACK, FRAME_HEAD, PREFACE, ErrorCode, Kind, frame
from pounce_h2.heads import Heads
from pounce_h2.output import Output
from pounce_h2.requests import Requests, TimedRequests
from pounce_h2.settings import H2Settings, PeerSettings, announced
from pounce_h2.streams import Streams
from pounce_h2.windows import Windows

if TYPE_CHECKING:
    from pounce.contract.wire import Service

__all__ = ["H2Connection"]

# What is taken from the share of a turn, beside a step for each frame. Sizes are given as shifts.
DATA_SHIFT = 10
"""A step for 1,024 octets of a frame: less than what uvloop reads at once makes up a share."""
SETTINGS_SHIFT = 7
"""A step for 128 octets of settings."""


class Expect:
    """What is to come next; see the diagram above. Numbers: `pounce.immortal` tells why not an Enum."""

    PREFACE = 0
    SETTINGS = 1
    FRAMES = 2


PROTOCOL_ERROR, FRAME_SIZE_ERROR = ErrorCode.PROTOCOL_ERROR, ErrorCode.FRAME_SIZE_ERROR


class H2Connection(Connection, guarded=("eof_received",)):
    """RFC 9113 on one connection; `H2Stream` implements `Stream` for its requests."""

    __slots__ = (
        "_expect",
        "_frame_max",
        "_handlers",
        "_needed",
        "_rest",
        "_settings",
        "_unpack_head",
        "_unread",
        "_unread_at",
        "_upgraded",
        "ending",
        "heads",
        "output",
        "peer",
        "requests",
        "streams",
        "windows",
    )

    heads: Heads
    output: Output
    streams: Streams
    windows: Windows
    ending: Ending
    requests: Requests
    """These are there once the connection is made."""

    def __init__(self, service: Service) -> None:
        super().__init__(service, "h2")
        settings: H2Settings | None = service.settings.get("h2")
        self._settings = settings or H2Settings()
        self.peer = PeerSettings()
        self._upgraded: RequestHead | None = None
        self._frame_max = self._settings.max_frame_size
        self._expect = Expect.PREFACE
        self._rest = bytearray()
        self._needed = 0
        """The beginning of a frame, and the octets without which it is no use to look at it again."""
        self._unread = b""
        self._unread_at = 0
        """Frames that wait for the next turn, and where they begin."""

    def begin_with(self, head: RequestHead, settings: bytes) -> None:
        """Before the connection is made: stream 1 is this request, and the peer has these settings.

        Raises `ConnectionFailed` when it cannot have them.
        """
        self._upgraded = head
        self.peer.apply(settings)

    @property
    def buffered(self) -> int:
        return len(self._rest) + len(self._unread) + self.windows.held + self.output.parked_size + super().buffered

    # Events from the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        service, info = self.service, self.connection
        tables = _tables(service)
        self._unpack_head = tables.unpack_head
        self._handlers = tables.handlers
        self.output = Output(self, self.due, self.peer, tables.blocks, tables.pack_head)
        self.heads = Heads(service.config, info, tables.fields, tables.huffman)
        self.streams = Streams(service, info, self.output, self._settings)
        self.windows = self.streams.windows
        self.ending = Ending(service, self.output, self.streams)
        kind = TimedRequests if service.config.server_timing else Requests
        self.requests = kind(service, self.heads, self.streams, self.ending)
        self.output.emit(announced(self._settings, service.config, bool(service.upgrades)))
        self.windows.announce()
        self.deadline = self.streams.idle_since + service.config.header_timeout
        if self._upgraded is not None:
            self.requests.upgraded(self._upgraded)

    def data_received(self, data: bytes) -> None:
        output = self.output
        if output.closed:
            self.linger_over(len(data))
            return
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return
            data = bytes(self._rest)
            self._rest.clear()
        if self._unread:
            data, self._unread = self._unread[self._unread_at :] + data, b""
        output.turn_due = True
        try:
            self._read(data, 0)
            if self.streams.opening and not self._unread:
                self.requests.open()
        except ConnectionFailed as error:
            self.ending.fail(error)
        except OSError as exc:
            raise WireFailed(str(exc)) from exc
        finally:
            output.turn()

    def next_turn(self) -> None:
        """Go on with the frames that are left, then with the requests."""
        output = self.output
        if output.closed:
            return
        output.turn_due = True
        data, self._unread = self._unread, b""
        try:
            self.ending.leave_if_due(self.loop.time())
            if data:
                self._read(data, self._unread_at)
            if self.streams.opening and not self._unread:
                self.requests.open()
        except ConnectionFailed as error:
            self.ending.fail(error)
        finally:
            output.turn()

    def connection_lost(self, exc: Exception | None) -> None:
        self.output.closed = True
        try:
            # Requests end before their connection, also for observers.
            self.streams.lose_all()
            self.output.lost()
        finally:
            super().connection_lost(exc)

    def resume_writing(self) -> None:
        super().resume_writing()
        # Not at once: a transport that is closed from inside resume_writing() reports its end twice.
        self.output.soon()

    def flush(self) -> None:
        """Hand what is gathered to the transport."""
        self.output.flush()

    # Reading

    def _read(self, data: bytes, at: int) -> None:
        """Take frames off `data` from `at` on; what is no whole frame waits for more, other frames for their turn."""
        end = len(data)
        if self._expect == Expect.PREFACE:
            if not PREFACE.startswith(data[:24]):
                raise ConnectionFailed(PROTOCOL_ERROR, "the connection does not begin with the preface")
            if end < 24:
                self._wait_for(data, 24)
                return
            at = 24
            self._expect = Expect.SETTINGS
        more = end - at >= 9
        is_first = True
        while more:
            size, flags, stream = self._unpack_head(data, at)
            kind = size & 0xFF
            size >>= 8
            if size > self._frame_max:
                raise ConnectionFailed(FRAME_SIZE_ERROR, "a frame is larger than SETTINGS_MAX_FRAME_SIZE")
            start = at + 9
            if end - start < size:
                self._wait_for(data[at:], 9 + size)
                return
            at = start + size
            stream &= 0x7FFFFFFF
            if self.heads.block is not None and (kind != Kind.CONTINUATION or stream != self.heads.block.stream):
                raise ConnectionFailed(PROTOCOL_ERROR, "a frame between HEADERS and its CONTINUATION")
            if self._expect == Expect.SETTINGS and (kind != Kind.SETTINGS or flags & ACK):
                raise ConnectionFailed(PROTOCOL_ERROR, "the first frame is not SETTINGS")
            # Most are of these types.
            if kind == Kind.HEADERS:
                self.requests.headers(flags, stream, data[start:at])
            elif kind == Kind.DATA:
                self.requests.data(flags, stream, data[start:at])
            elif (handler := self._handlers.get(kind)) is not None:
                handler(self, flags, stream, data[start:at])
            else:
                # RFC 9113 4.1: "Implementations MUST ignore and discard frames of unknown types."
                self.streams.budgets.unknown.spend()
            if self.output.closed:
                return
            more = end - at >= 9
            if more:
                share = self.share
                if is_first:
                    is_first = False
                    if not share.waits:
                        share.left = STEPS
                share.left -= 1 + (size >> DATA_SHIFT)
                if share.left <= 0:
                    self._unread, self._unread_at = data, at
                    self.park()
                    return
        if at < end:
            self._wait_for(data[at:], 9)

    def _wait_for(self, rest: bytes, needed: int) -> None:
        self._rest += rest
        self._needed = needed

    # Frames, by type

    def _continuation(self, flags: int, id: int, payload: bytes) -> None:
        self.requests.continuation(flags, id, payload)

    def _priority(self, flags: int, id: int, payload: bytes) -> None:
        if not id:
            raise ConnectionFailed(PROTOCOL_ERROR, "PRIORITY without a stream")
        streams = self.streams
        streams.spend_priority()
        if len(payload) != 5:
            streams.error_for(id, FRAME_SIZE_ERROR, "PRIORITY is not five octets")
        elif int.from_bytes(payload[:4]) & 0x7FFFFFFF == id:
            streams.error_for(id, PROTOCOL_ERROR, "a stream depends on itself")

    def _priority_update(self, flags: int, id: int, payload: bytes) -> None:
        if id:
            raise ConnectionFailed(PROTOCOL_ERROR, "PRIORITY_UPDATE on a stream")
        if len(payload) < 4:
            raise ConnectionFailed(FRAME_SIZE_ERROR, "PRIORITY_UPDATE is too short")
        target = int.from_bytes(payload[:4]) & 0x7FFFFFFF
        if not target & 1:
            raise ConnectionFailed(PROTOCOL_ERROR, "PRIORITY_UPDATE for a stream that no client opens")
        self.streams.spend_priority()
        self.streams.reprioritize(target, payload[4:])

    def _rst_stream(self, flags: int, id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFailed(FRAME_SIZE_ERROR, "RST_STREAM is not four octets")
        self.streams.reset_by_peer(id)

    def _take_settings(self, flags: int, id: int, payload: bytes) -> None:
        if id:
            raise ConnectionFailed(PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & ACK:
            if payload:
                raise ConnectionFailed(FRAME_SIZE_ERROR, "an acknowledgement with settings")
            self.streams.spend_pointless()
            self.windows.settings_are_known()
            return
        if len(payload) % 6:
            raise ConnectionFailed(FRAME_SIZE_ERROR, "SETTINGS is not a multiple of six octets")
        self.streams.budgets.settings.spend()
        if self._expect == Expect.SETTINGS:
            self._expect = Expect.FRAMES
            self.ending.begin()
        self.share.left -= len(payload) >> SETTINGS_SHIFT
        change = self.peer.apply(payload)
        if change:
            self.streams.move_windows(change)
        self.output.emit(frame(Kind.SETTINGS, ACK, 0))

    def _push_promise(self, flags: int, id: int, payload: bytes) -> None:
        raise ConnectionFailed(PROTOCOL_ERROR, "a client must not push")

    def _ping(self, flags: int, id: int, payload: bytes) -> None:
        if id:
            raise ConnectionFailed(PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise ConnectionFailed(FRAME_SIZE_ERROR, "PING is not eight octets")
        self.streams.budgets.ping.spend()
        if flags & ACK:
            self.ending.pong(payload)
        else:
            self.output.emit(frame(Kind.PING, ACK, 0, payload))

    def _goaway(self, flags: int, id: int, payload: bytes) -> None:
        if id:
            raise ConnectionFailed(PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:
            raise ConnectionFailed(FRAME_SIZE_ERROR, "GOAWAY is too short")
        # One is enough.
        self.streams.spend_pointless()
        # It is about streams that we would open, which are none. Those of the peer run to their end.
        self.ending.leave()

    def _window_update(self, flags: int, id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFailed(FRAME_SIZE_ERROR, "WINDOW_UPDATE is not four octets")
        output = self.output
        budget = self.streams.budgets.window_update
        budget.earn(2 * output.data_frames)
        output.data_frames = 0
        budget.spend()
        increment = int.from_bytes(payload) & 0x7FFFFFFF
        if id:
            self.streams.open_window(id, increment)
        else:
            output.open_window(increment)

    # Events from the worker

    def drain(self) -> None:
        """RFC 9113 6.8: say that the end is near, and finish what runs."""
        self.ending.drain()

    def postpone(self, seconds: float) -> None:
        """Every clock that runs for the peer."""
        super().postpone(seconds)
        self.output.postpone(seconds)
        self.heads.postpone(seconds)
        self.streams.postpone(seconds)

    def due(self, at: float) -> None:
        """Something may be due at `at`; what it is comes out when the time has come."""
        if at < self.deadline:
            self.deadline = at

    def deadline_passed(self) -> None:
        """Look for what is due, and when the next thing will be."""
        now = self.deadline
        output = self.output
        if output.closed:
            self.deadline = self.loop.time() + LINGER_TIMEOUT
            self.let_go()
            return
        # The time for which this was called; the clock itself may be behind it in tests.
        now = max(now, self.loop.time())
        self.deadline = inf
        try:
            self._look(now)
        except ConnectionFailed as error:
            self.ending.fail(error)
        output.turn()

    def _look(self, now: float) -> None:
        self.output.due(self.heads.due(now))
        if self.output.is_held_up(now):
            self.service.count("write_timeout", "h2: peer lets too little pass, closing")
            self.ending.close(ErrorCode.NO_ERROR)
            return
        self.ending.look(now)
        self.streams.look(now)


class Tables:
    """What the connections of one worker share, and those of others do not touch."""

    __slots__ = ("blocks", "fields", "handlers", "huffman", "pack_head", "unpack_head")

    def __init__(self, fields: FieldTable, huffman: HuffmanDecoder) -> None:
        self.blocks = AnswerTable(encode_field)
        self.fields = fields
        self.huffman = huffman
        self.pack_head = FRAME_HEAD.pack
        self.unpack_head = FRAME_HEAD.unpack_from
        # By type of frame.
        self.handlers = {
            Kind.PRIORITY: H2Connection._priority,
            Kind.RST_STREAM: H2Connection._rst_stream,
            Kind.SETTINGS: H2Connection._take_settings,
            Kind.PUSH_PROMISE: H2Connection._push_promise,
            Kind.PING: H2Connection._ping,
            Kind.GOAWAY: H2Connection._goaway,
            Kind.WINDOW_UPDATE: H2Connection._window_update,
            Kind.CONTINUATION: H2Connection._continuation,
            Kind.PRIORITY_UPDATE: H2Connection._priority_update,
        }


def _tables(service: Service) -> Tables:
    """Those of a worker; it shares some of them with other wires."""
    shared = service.shared
    tables: Tables | None = shared.get("h2")
    if tables is None:
        fields: FieldTable = shared.get("fields") or shared.setdefault("fields", FieldTable())
        huffman: HuffmanDecoder = shared.get("huffman") or shared.setdefault("huffman", HuffmanDecoder())
        tables = shared["h2"] = Tables(fields, huffman)
    return tables
