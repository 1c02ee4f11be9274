"""H2Connection: one HTTP/2 connection (RFC 9113), server side.

Theory of operation. Bytes are cut into frames, and each frame goes to the method of its type, which checks it and moves
a state: that of the connection, below, or of a stream (`stream.py`).

    PREFACE ─24 octets─▶ SETTINGS ─first frame─▶ OPEN ─drain─▶ DRAINING ─our last GOAWAY─▶ LEAVING
    OPEN ─GOAWAY of the peer─▶ LEAVING ─last stream ends─▶ CLOSED          any ─connection error─▶ CLOSED

After `Upgrade: h2c` stream 1 is there before the preface. If our last GOAWAY comes that early, SETTINGS ─▶ LEAVING.

Two kinds of errors: a stream error resets its stream, a connection error (`ConnectionFailed`) ends everything. Streams
that are over leave the table at once; only those that were reset are remembered, up to a bound, because frames that
were under way may still arrive for them.

Requests are opened after all frames at hand were looked at, the most urgent first: one that was reset in the same read
never reaches the application. Everything that is sent during one turn of the loop is gathered, and written once.

Frames and requests beyond the first of a read take from the connection's share of the turn. When that is used up the
rest of the frames, and then of the requests, waits for the next turn, and nothing more is read before.

A field block that is, octet for octet, one that was decoded before means the same, as long as the dynamic table did not
change in between; so the heads of such requests are copied instead of decoded and checked again. So are those of blocks
that differ in their path alone, but for the path.
"""

import asyncio
from math import inf
from typing import TYPE_CHECKING, NamedTuple, cast

from pounce.contract.head import Headers, RequestHead, unreadable_head
from pounce.contract.turns import STEPS
from pounce.errors import BadRequest, ClientGone
from pounce.exchange.answers import AnswerTable
from pounce.exchange.fields import FieldTable, checked_trailers, request_head
from pounce.exchange.huffman import HuffmanDecoder
from pounce.exchange.known_heads import KnownHead, KnownHeads
from pounce.exchange.priority import DEFAULT, Priority, parse_priority, priority_of
from pounce.net.connection import Connection, WireFailed
from pounce.net.linger import LINGER_MAX, LINGER_TIMEOUT
from pounce_h2.abuse import Budgets, ConnectionFailed
from pounce_h2.decode import ENTRY_OVERHEAD, CompressionError, FieldDecoder
from pounce_h2.encode import encode_field
from pounce_h2.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    FRAME_HEAD,
    PADDED,
    PREFACE,
    PRIORITY_FLAG,
    SETTING,
    ErrorCode,
    Kind,
    Setting,
    frame,
    goaway_frame,
    rst_stream_frame,
    settings_frame,
    window_update_frame,
)
from pounce_h2.plugin import H2Settings
from pounce_h2.priority import Scheduler
from pounce_h2.stream import ENDED, FRAME_MAX, HELD_HIGH, LOST, RECEIVED, RECEIVING, H2Stream, Upload, WindowWait

if TYPE_CHECKING:
    from pounce.contract.stream import Exchange
    from pounce.contract.wire import Service

__all__ = ["H2Connection"]

WINDOW_MAX = 2**31 - 1
WINDOW_DEFAULT = 65_535
"""Both windows of a connection begin with it (RFC 9113 6.9.2)."""
TABLE_SIZE = 4096
"""Octets of the dynamic table for requests: the default of SETTINGS_HEADER_TABLE_SIZE."""
WRITE_SIZE = 65_536
"""Bytes that are gathered into one write at the most."""
TURN_SIZE = 524_288
"""Bytes of parked DATA that are sent before others get a turn of the loop."""
ROOM_MIN = 16_384
"""Bytes of the connection's window for requests; with less room than that no peer is hurried."""
UNSENT_MAX = 1_048_576
"""Bytes that may wait for a peer that makes us answer and reads nothing; parked DATA is not among them."""
HELD_PIECES_MAX = 65_536
"""Pieces of request bodies that wait for applications: each costs memory, however small it is."""
HEAD_MEMORY = 16
"""How many heads of max_header_size the requests of a connection may hold together."""
CONTINUATIONS_MAX = 64
"""Frames of one field block."""
BLOCK_MIN = 16_384
"""Octets of a field block that are decoded, however low max_header_size is: the connection depends on it."""
RESETS_MAX = 2048
"""Streams that were reset and are remembered."""
SKIPPED_MAX = 64
"""Gaps between stream ids that are remembered."""
EARLY_PRIORITIES_MAX = 100
"""Priorities for requests that have not arrived."""
DRAIN_GRACE = 1.0
"""Seconds in which requests that are on their way may arrive when a drain begins."""
LOG_INTERVAL = 1.0
"""Seconds between two lines about errors of peers."""

# What is taken from the share of a turn, beside a step for each frame. Sizes are given as shifts.
REQUEST_STEPS = 4
"""For a request that is opened."""
DATA_SHIFT = 10
"""A step for 1,024 octets of a frame: less than what uvloop reads at once makes up a share."""
BLOCK_SHIFT = 5
"""A step for 32 octets of a field block that is decoded."""
SETTINGS_SHIFT = 7
"""A step for 128 octets of settings."""
DRAIN_PING = b"drain\0\0\0"


class Phase:
    """See the diagram above. Numbers: `pounce.immortal` tells why not an Enum."""

    PREFACE = 0
    SETTINGS = 1
    OPEN = 2
    DRAINING = 3
    LEAVING = 4
    CLOSED = 5


class ResetBy:
    """Who reset a stream."""

    US = 0
    PEER = 1




class Block(NamedTuple):
    """A field block that goes on in CONTINUATION frames."""

    stream: int
    flags: int
    pieces: list[bytes]
    depends_on_itself: bool
    due: float


GONE = ClientGone("the client closed the connection")
PROTOCOL_ERROR, FRAME_SIZE_ERROR = ErrorCode.PROTOCOL_ERROR, ErrorCode.FRAME_SIZE_ERROR


class H2Connection(Connection, guarded=("eof_received",)):
    """RFC 9113 on one connection; `H2Stream` implements `Stream` for its requests."""

    __slots__ = (
        "_abandoned",
        "_block",
        "_block_max",
        "_connect_protocol",
        "_decoder",
        "_drain_due",
        "_early_priorities",
        "_fields",
        "_goaway_sent",
        "_handlers",
        "_head_memory",
        "_idle_since",
        "_known_heads",
        "_last_opened",
        "_last_seen",
        "_needed",
        "_opening",
        "_phase",
        "_receive_credit",
        "_receive_window",
        "_requests",
        "_requests_paid",
        "_resets",
        "_rest",
        "_skipped",
        "_streams",
        "_turn_due",
        "_unpack_head",
        "_unread",
        "_unread_at",
        "_upgraded",
        "_wait",
        "_window_given",
        "answered",
        "blocks",
        "budgets",
        "data_frame_max",
        "data_frames",
        "held_high",
        "held_pieces",
        "initial_window",
        "pack_head",
        "parked_size",
        "peer_frame_max",
        "peer_table_size",
        "scheduler",
        "send_window",
        "settings",
        "table_must_shrink",
        "upload_window",
    )

    def __init__(self, service: Service) -> None:
        super().__init__(service, "h2")
        settings: H2Settings | None = service.settings.get("h2")
        self.settings = settings = settings or H2Settings()
        shared = service.shared
        huffman: HuffmanDecoder = shared.get("huffman") or shared.setdefault("huffman", HuffmanDecoder())
        tables: Tables = shared.get("h2") or shared.setdefault("h2", Tables(huffman))
        self.blocks = tables.blocks
        self.pack_head = tables.pack_head
        self._unpack_head = tables.unpack_head
        self._handlers = tables.handlers
        self._fields: FieldTable = shared.get("fields") or shared.setdefault("fields", FieldTable())
        config = service.config
        self._decoder = FieldDecoder(TABLE_SIZE, config.max_header_size, config.max_headers, tables.huffman)
        self.budgets = Budgets(settings.reset_burst, settings.reset_rate, self.loop.time)
        self.scheduler = Scheduler()
        self._phase = Phase.PREFACE
        self._rest = bytearray()
        self._unread = b""
        self._unread_at = 0
        """Frames that wait for the next turn, and where they begin."""
        self._needed = 0
        self._block: Block | None = None
        self._block_max = max(BLOCK_MIN, config.max_header_size)
        self._streams: dict[int, H2Stream] = {}
        self._opening: list[tuple[H2Stream, RequestHead | BadRequest]] = []
        self._known_heads = KnownHeads()
        self._resets: dict[int, int] = {}
        self._skipped: list[range] = []
        self._abandoned: list[Exchange] = []
        self._early_priorities: dict[int, Priority] = {}
        self._last_seen = 0
        self._last_opened = 0
        self._goaway_sent: int | None = None
        self._requests = self._requests_paid = 0
        self.answered = 0
        self.data_frames = 0
        self._head_memory = 0
        self._idle_since = 0.0
        self._drain_due = inf
        self._turn_due = False
        self._upgraded: RequestHead | None = None
        self._connect_protocol = bool(service.upgrades)
        # What the peer may send
        self._receive_window = settings.connection_window
        self._receive_credit = 0
        # 6.9.3: "the receiver MUST be prepared to receive data that exceeds this window size", until SETTINGS is known.
        self.upload_window = max(settings.stream_window, WINDOW_DEFAULT)
        self.held_pieces = 0
        # Less than a window, in which there is always some room before that.
        self.held_high = min(HELD_HIGH, settings.stream_window // 4)
        # What we may send
        self.send_window = self._window_given = WINDOW_DEFAULT
        self.initial_window = WINDOW_DEFAULT
        self.peer_frame_max = 16_384
        self.data_frame_max = FRAME_MAX
        self.peer_table_size = TABLE_SIZE
        self.table_must_shrink = False
        self.parked_size = 0
        self._wait: WindowWait | None = None

    # Events from the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        settings = self.settings
        announced = {
            Setting.MAX_CONCURRENT_STREAMS: settings.max_concurrent_streams,
            Setting.INITIAL_WINDOW_SIZE: settings.stream_window,
            Setting.MAX_FRAME_SIZE: settings.max_frame_size,
            Setting.MAX_HEADER_LIST_SIZE: self.service.config.max_header_size,
            Setting.NO_RFC7540_PRIORITIES: 1,
        }
        if self._connect_protocol:
            announced[Setting.ENABLE_CONNECT_PROTOCOL] = 1
        self.emit(settings_frame(announced))
        if settings.connection_window > WINDOW_DEFAULT:
            self.emit(window_update_frame(0, settings.connection_window - WINDOW_DEFAULT))
        self._idle_since = self.loop.time()
        self.deadline = self._idle_since + self.service.config.header_timeout
        if self._upgraded is not None:
            self._open_upgraded(self._upgraded)

    def begin_with(self, head: RequestHead, settings: bytes) -> None:
        """Before the connection is made: stream 1 is this request, and the peer has these settings.

        Raises `ConnectionFailed` when it cannot have them.
        """
        self._upgraded = head
        self._apply(settings)

    def _open_upgraded(self, head: RequestHead) -> None:
        size = sum(len(name) + len(value) + ENTRY_OVERHEAD for name, value in head.headers)
        stream = self._streams[1] = H2Stream(self, 1, head.method, priority_of(head.headers), size)
        self._head_memory += size
        self._last_seen = 1
        self._opening.append((stream, head))
        self._open_requests()

    def data_received(self, data: bytes) -> None:
        if self._phase == Phase.CLOSED:
            self._linger_over(len(data))
            return
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return
            data = bytes(self._rest)
            self._rest.clear()
        if self._unread:
            data, self._unread = self._unread[self._unread_at :] + data, b""
        self._turn_due = True
        try:
            self._read(data, 0)
            if self._opening and not self._unread:
                self._open_requests()
        except ConnectionFailed as error:
            self._fail(error)
        except OSError as exc:
            raise WireFailed(str(exc)) from exc
        finally:
            self._turn()

    def next_turn(self) -> None:
        """Go on with the frames that are left, then with the requests."""
        if self._phase == Phase.CLOSED:
            return
        self._turn_due = True
        data, self._unread = self._unread, b""
        try:
            if self._phase == Phase.DRAINING and self._drain_due <= self.loop.time():
                # A peer that keeps us busy would put it off for ever.
                self._leave()
            if data:
                self._read(data, self._unread_at)
            if self._opening and not self._unread:
                self._open_requests()
        except ConnectionFailed as error:
            self._fail(error)
        finally:
            self._turn()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._phase = Phase.CLOSED
        self._lose_all()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self._turn_due:
            # Not at once: a transport that is closed from inside resume_writing() reports its end twice.
            self._turn_due = True
            self.loop.call_soon(self._late_turn)

    def _lose_all(self) -> None:
        self._opening.clear()
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.receiving = LOST
            stream.sending = ENDED
            stream.writable = False
            self.scheduler.remove(stream)
            exchange = _released(stream)
            if exchange is not None:
                exchange.stream_lost(GONE)

    # Writing

    def emit(self, data: bytes) -> None:
        """Send frames, together with whatever else is sent in this turn of the loop."""
        if self._phase == Phase.CLOSED:
            return
        self._cork.append(data)
        self._cork_size += len(data)
        if self._cork_size >= WRITE_SIZE:
            self.flush()
        elif not self._turn_due:
            self._turn_due = True
            self.loop.call_soon(self._late_turn)

    def flush(self) -> None:
        """Hand what is gathered to the transport."""
        cork = self._cork
        if not cork:
            return
        if not self.writable:
            self._added += self._cork_size
        self._cork = []
        self._cork_size = 0
        transport = self.transport
        if transport.is_closing():
            return
        transport.write(cork[0] if len(cork) == 1 else b"".join(cork))
        if not self.writable and transport.get_write_buffer_size() > UNSENT_MAX:
            self.service.count("h2_unread", "h2: the peer makes us answer and reads nothing, closing")
            self.abort()

    def _turn(self) -> None:
        """The end of a turn: streams that wait send what they can, and all of it leaves."""
        self._turn_due = False
        if self.scheduler.ready:
            self._turn_due = True
            self._send_parked()
            self._turn_due = False
        if self._cork:
            self.flush()
        if self._goaway_sent is not None and not self._streams and self._phase != Phase.CLOSED:
            # Everything is answered.
            self._linger()

    def _late_turn(self) -> None:
        """The end of a turn that did not begin with `data_received`."""
        try:
            self._turn()
        except Exception:  # noqa: BLE001 - after `data_received` asyncio closes the connection for it, but not here
            self.service.connection_failed(self)

    def _send_parked(self) -> None:
        scheduler = self.scheduler
        ready = scheduler.ready
        limit = self.parked_size - TURN_SIZE
        while ready and self.writable and self.send_window > 0:
            if self.parked_size < limit:
                self.loop.call_soon(self._late_turn)
                break
            scheduler.next().send_frame()
        if ready and self.send_window <= 0 and self._wait is None:
            self._wait = self._begin_wait(0)

    def wants_to_send(self, stream: H2Stream) -> None:
        """`stream` has parked something: it gets its turn as soon as its own window lets it."""
        if stream.send_window > 0:
            self.scheduler.add(stream)
            if not self._turn_due:
                self._turn_due = True
                self.loop.call_soon(self._late_turn)
        else:
            self.has_nothing_to_send(stream)
            if stream.wait is None:
                stream.wait = self._begin_wait(stream.send_window)

    def has_nothing_to_send(self, stream: H2Stream) -> None:
        """Nothing of `stream` waits for the window of the connection."""
        self.scheduler.remove(stream)
        if not self.parked_size:
            self._wait = None

    def _begin_wait(self, window: int) -> WindowWait:
        """The peer keeps a window shut."""
        now = self.loop.time()
        self.due(now + self.service.config.write_timeout)
        return WindowWait(now, window, self.data_sent)

    @property
    def data_sent(self) -> int:
        """Bytes of DATA so far, of all streams."""
        return self._window_given - self.send_window

    def shrink_table(self, block: bytes) -> bytes:
        """`block` with the update that RFC 7541 4.2 demands after the peer has made its dynamic table smaller."""
        self.table_must_shrink = False
        self.peer_table_size = 0
        return b"\x20" + block

    # Reading

    def _read(self, data: bytes, at: int) -> None:
        """Take frames off `data` from `at` on; what is no whole frame waits for more, other frames for their turn."""
        end = len(data)
        if self._phase == Phase.PREFACE:
            if not PREFACE.startswith(data[:24]):
                raise ConnectionFailed(PROTOCOL_ERROR, "the connection does not begin with the preface")
            if end < 24:
                self._wait_for(data, 24)
                return
            at = 24
            self._phase = Phase.SETTINGS
        largest = self.settings.max_frame_size
        more = end - at >= 9
        is_first = True
        while more:
            size, flags, stream = self._unpack_head(data, at)
            kind = size & 0xFF
            size >>= 8
            if size > largest:
                raise ConnectionFailed(FRAME_SIZE_ERROR, "a frame is larger than SETTINGS_MAX_FRAME_SIZE")
            start = at + 9
            if end - start < size:
                self._wait_for(data[at:], 9 + size)
                return
            at = start + size
            stream &= 0x7FFFFFFF
            if self._block is not None and (kind != Kind.CONTINUATION or stream != self._block.stream):
                raise ConnectionFailed(PROTOCOL_ERROR, "a frame between HEADERS and its CONTINUATION")
            if self._phase == Phase.SETTINGS and (kind != Kind.SETTINGS or flags & ACK):
                raise ConnectionFailed(PROTOCOL_ERROR, "the first frame is not SETTINGS")
            if kind < len(self._handlers):
                self._handlers[kind](self, flags, stream, data[start:at])
            elif kind == Kind.PRIORITY_UPDATE:
                self._priority_update(stream, data[start:at])
            else:
                # RFC 9113 4.1: "Implementations MUST ignore and discard frames of unknown types."
                self.budgets.unknown.spend()
            if self._phase == Phase.CLOSED:
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

    # 6.1 DATA

    def _data(self, flags: int, id: int, payload: bytes) -> None:
        stream = self._streams.get(id)
        size = len(payload)
        if stream is None:
            self._check_not_idle(id)
        # 6.9.1: DATA of streams that are gone counts as well.
        self._receive_window -= size
        if self._receive_window < ROOM_MIN:
            self._has_little_room(size)
        data = payload
        if flags & PADDED:
            data = unpadded(payload)
        if stream is None:
            self.give_back(size)
            self._frame_for_closed(id)
            return
        upload = stream.upload
        if upload is None or stream.receiving != RECEIVING:
            self.give_back(size)
            self._stream_error(stream, ErrorCode.STREAM_CLOSED)
            return
        upload.window -= size
        if upload.window < 0 < size:
            self.give_back(size)
            self._stream_error(stream, ErrorCode.FLOW_CONTROL_ERROR)
            return
        count = len(data)
        if count < size:
            # Padding is nothing that an application takes.
            self.give_back(size - count)
            stream.extend_window(size - count)
        upload.received += count
        expected = upload.expected
        ends = flags & END_STREAM
        if expected is not None and (upload.received > expected or (ends and upload.received != expected)):
            # 8.1.1: such a request is malformed.
            self.give_back(count)
            self._stream_error(stream, PROTOCOL_ERROR)
            return
        if upload.discarded:
            self.give_back(count)
            if not count and not ends:
                self.budgets.empty_data.spend()
        elif count:
            upload.held += count
            upload.pieces += 1
            upload.last = self.loop.time()
            self.held_pieces += 1
            if self.held_pieces > HELD_PIECES_MAX:
                raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "too many small pieces of request bodies")
            if stream.exchange is None:
                upload.early.append(data)
            else:
                stream.exchange.data_received(data)
            if upload.held > self.held_high:
                stream.pause_upload(upload)
        elif not ends:
            self.budgets.empty_data.spend()
        if ends and stream.receiving == RECEIVING:
            stream.receiving = RECEIVED
            if stream.sending == ENDED:
                self.forget(stream)
            elif stream.exchange is not None:
                stream.exchange.eof_received()

    def _has_little_room(self, size: int) -> None:
        """DATA of that size has used up the connection's window, or nearly: the peer has to wait for applications."""
        if self._receive_window < 0:
            raise ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, "DATA exceeds the window of the connection")
        if self._receive_window + size >= ROOM_MIN:
            for stream in self._streams.values():
                if stream.upload is not None:
                    stream.pause_upload(stream.upload)

    def give_back(self, count: int) -> None:
        """`count` bytes of the connection's window were taken."""
        self._receive_credit = credit = self._receive_credit + count
        if credit * 2 >= self.settings.connection_window:
            had_room = self.has_room
            self._receive_window += credit
            self._receive_credit = 0
            self.update_window(0, credit)
            if not had_room:
                for stream in self._streams.values():
                    if stream.upload is not None:
                        stream.unpause_upload(stream.upload)

    @property
    def has_room(self) -> bool:
        """The connection's window lets the peer go on with its uploads."""
        return self._receive_window >= ROOM_MIN

    def update_window(self, id: int, increment: int) -> None:
        """Let the peer send that much more."""
        self.emit(window_update_frame(id, increment))

    # 6.2 HEADERS, 6.10 CONTINUATION

    def _headers(self, flags: int, id: int, payload: bytes) -> None:
        if not id & 1:
            raise ConnectionFailed(PROTOCOL_ERROR, "HEADERS on a stream that no client opens")
        depends_on_itself = False
        if flags & (PADDED | PRIORITY_FLAG):
            if flags & PADDED:
                payload = unpadded(payload)
            if flags & PRIORITY_FLAG:
                if len(payload) < 5:
                    raise ConnectionFailed(FRAME_SIZE_ERROR, "HEADERS is too short for its priority")
                depends_on_itself = int.from_bytes(payload[:4]) & 0x7FFFFFFF == id
                payload = payload[5:]
        if len(payload) > self._block_max:
            raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "a field block is too long")
        if flags & END_HEADERS:
            self._field_block(flags, id, payload, depends_on_itself)
        else:
            due = self.loop.time() + self.service.config.header_timeout
            self._block = Block(id, flags, [payload], depends_on_itself, due)
            self.due(due)

    def _continuation(self, flags: int, id: int, payload: bytes) -> None:
        block = self._block
        if block is None:
            raise ConnectionFailed(PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        pieces = block.pieces
        pieces.append(payload)
        # CVE-2024-27316 and its kin: the bounds come before any decoding.
        if len(pieces) > CONTINUATIONS_MAX or sum(map(len, pieces)) > self._block_max:
            raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "a field block is too long")
        if flags & END_HEADERS:
            self._block = None
            self._field_block(block.flags, id, b"".join(pieces), block.depends_on_itself)

    def _field_block(self, flags: int, id: int, block: bytes, depends_on_itself: bool) -> None:
        """A complete field block: a request, or the trailers of one."""
        if id > self._last_seen and id not in self._streams:
            self._request(flags, id, block, depends_on_itself)
            return
        fields = self._decode(block)
        stream = self._streams.get(id)
        if stream is None:
            self._frame_for_closed(id)
        elif stream.receiving != RECEIVING:
            self._stream_error(stream, ErrorCode.STREAM_CLOSED)
        elif depends_on_itself or not flags & END_STREAM or fields is None:
            # 8.1: trailers end the stream.
            self._stream_error(stream, PROTOCOL_ERROR)
        else:
            self._trailers(stream, fields[0])

    def _trailers(self, stream: H2Stream, fields: Headers) -> None:
        upload = stream.upload
        assert upload is not None
        try:
            trailers = checked_trailers(fields)
        except BadRequest as error:
            self._malformed(stream, error)
            return
        if stream.is_tunnel or (upload.expected is not None and upload.received != upload.expected):
            self._stream_error(stream, PROTOCOL_ERROR)
            return
        stream.receiving = RECEIVED
        if stream.sending == ENDED:
            self.forget(stream)
        elif stream.exchange is None:
            upload.trailers = trailers
        else:
            stream.exchange.eof_received(trailers)

    def _request(self, flags: int, id: int, block: bytes, depends_on_itself: bool) -> None:
        if id > self._last_seen + 2:
            # 5.1.1: streams that were passed over are closed.
            self._skipped.append(range(self._last_seen + 1 | 1, id, 2))
            if len(self._skipped) > SKIPPED_MAX:
                del self._skipped[0]
        self._last_seen = id
        known_or_error: KnownHead | BadRequest | None = self._known_heads.get(block)
        path: bytes | None = None
        if known_or_error is None:
            known_or_error, path = self._understand(block)
        if self._goaway_sent is not None and id > self._goaway_sent:
            self._spend_pointless()
            self._remember_reset(id, ResetBy.US)
            return
        if len(self._streams) >= self.settings.max_concurrent_streams - len(self._abandoned) and self._is_full():
            self._refuse(id, ErrorCode.REFUSED_STREAM)
            return
        if depends_on_itself:
            self._refuse(id, PROTOCOL_ERROR)
            return
        ends = flags & END_STREAM
        if isinstance(known_or_error, BadRequest):
            if known_or_error.status == 400:
                self._count_error(known_or_error)
                self._refuse(id, PROTOCOL_ERROR)
                return
            head: RequestHead | BadRequest = known_or_error
            stream = H2Stream(self, id, b"", DEFAULT, 0)
            length: int | None = None
        else:
            found, priority, size = known_or_error
            if path is not None:
                size += len(path) - len(found.target)
            length = found.content_length
            if (ends and length) or (found.upgrade is not None and not self._connect_protocol):
                self._refuse(id, PROTOCOL_ERROR)
                return
            if self._head_memory + size > HEAD_MEMORY * self.service.config.max_header_size:
                self._refuse(id, ErrorCode.ENHANCE_YOUR_CALM)
                return
            head = RequestHead(
                found.method,
                found.target if path is None else path,
                found.headers.copy(),
                "2",
                found.scheme,
                found.upgrade,
                # A length of 0 without END_STREAM still has an end that is to be waited for.
                0 if ends else length or None,
                found.expect_continue and not ends,
                relayed=found.relayed,
            )
            if self._early_priorities:
                # RFC 9218 7: the frame says all; what it leaves out is default, whatever the field said.
                priority = self._early_priorities.pop(id, priority)
            stream = H2Stream(self, id, found.method, priority, size)
            self._head_memory += size
        if not ends:
            now = self.loop.time()
            upload = stream.open_upload(length, now)
            if not self.has_room:
                stream.pause_upload(upload)
            config = self.service.config
            self.due(upload.due(config.request_timeout, config.min_body_rate))
        self._streams[id] = stream
        self._opening.append((stream, head))

    def _understand(self, block: bytes) -> tuple[KnownHead | BadRequest, bytes | None]:
        """What a request's field block means, and the path that takes the place of the one in there, if one does."""
        split = self._decoder.without_path(block)
        if split is not None:
            found = self._known_heads.but_for_path(
                split, block, self._decoder.string, self.service.config.max_header_size
            )
            if found is not None:
                return found
        generation = self._decoder.generation
        fields = self._decode(block)
        config = self.service.config
        if fields is None:
            return too_large(config.max_header_size, config.max_headers), None
        headers, size = fields
        try:
            head = request_head(headers, "2", self.connection.scheme, self._fields)
        except BadRequest as error:
            return error, None
        known = KnownHead(head, priority_of(head.headers), size)
        if self._decoder.generation == generation:
            self._known_heads.keep(block, split, known)
        return known, None

    def _decode(self, block: bytes) -> tuple[Headers, int] | None:
        generation = self._decoder.generation
        self.share.left -= len(block) >> BLOCK_SHIFT
        try:
            fields = self._decoder.decode(block)
        except CompressionError as exc:
            raise ConnectionFailed(ErrorCode.COMPRESSION_ERROR, str(exc)) from None
        if self._decoder.generation != generation:
            self._known_heads.clear()
        return fields

    def _is_full(self) -> bool:
        """No room for another request; one that was reset counts for as long as its application runs."""
        self._abandoned = [exchange for exchange in self._abandoned if getattr(exchange, "running", False)]
        return len(self._streams) + len(self._abandoned) >= self.settings.max_concurrent_streams

    def _open_requests(self) -> None:
        """Hand requests to the service, the most urgent first, as far as the share of this turn goes."""
        opening, self._opening = self._opening, []
        if len(opening) > 1:
            opening.sort(key=lambda item: item[0].priority[0])
            count = max(self.share.left // REQUEST_STEPS, 1)
            self.share.left -= REQUEST_STEPS * len(opening)
            if count < len(opening):
                self._opening = opening[count:]
                del opening[count:]
                self.park()
        service = self.service
        limit = service.config.max_requests_per_connection
        for stream, head in opening:
            if stream.receiving == LOST:
                continue
            if stream.id > self._last_opened:
                self._last_opened = stream.id
            self._requests += 1
            if self._requests == limit:
                self._leave()
            if isinstance(head, BadRequest):
                service.refuse(unreadable_head("2", self.connection.scheme), stream, head)
            elif stream.upload is None:
                service.open(head, stream)
            else:
                self._open_with_body(head, stream, stream.upload)

    def _open_with_body(self, head: RequestHead, stream: H2Stream, upload: Upload) -> None:
        """Hand over a request together with what is here of its body."""
        body = b"".join(upload.early)
        upload.early.clear()
        ended = stream.receiving == RECEIVED
        # The trailers have a way of their own.
        self.service.open(head, stream, body, ended and upload.trailers is None)
        if ended and upload.trailers is not None and stream.sending != ENDED:
            stream.exchange.eof_received(upload.trailers)

    # 6.3 PRIORITY, and RFC 9218 7.1 PRIORITY_UPDATE

    def _priority(self, flags: int, id: int, payload: bytes) -> None:
        if not id:
            raise ConnectionFailed(PROTOCOL_ERROR, "PRIORITY without a stream")
        self._spend_priority()
        if len(payload) != 5:
            self._error_for(id, FRAME_SIZE_ERROR, "PRIORITY is not five octets")
        elif int.from_bytes(payload[:4]) & 0x7FFFFFFF == id:
            self._error_for(id, PROTOCOL_ERROR, "a stream depends on itself")

    def _spend_priority(self) -> None:
        self._earn_by_requests()
        self.budgets.priority.spend()

    def _spend_pointless(self) -> None:
        self._earn_by_requests()
        self.budgets.pointless.spend()

    def _earn_by_requests(self) -> None:
        requests = self._requests - self._requests_paid
        self._requests_paid = self._requests
        # Some clients send one or two with each request.
        self.budgets.priority.earn(2 * requests)
        # Some give up each when its answer is complete.
        self.budgets.pointless.earn(requests)

    def _error_for(self, id: int, code: ErrorCode, message: str) -> None:
        """A stream error; for a stream that is not open it has to be one of the connection."""
        stream = self._streams.get(id)
        if stream is None:
            raise ConnectionFailed(code, message)
        self._stream_error(stream, code)

    def _priority_update(self, id: int, payload: bytes) -> None:
        if id:
            raise ConnectionFailed(PROTOCOL_ERROR, "PRIORITY_UPDATE on a stream")
        if len(payload) < 4:
            raise ConnectionFailed(FRAME_SIZE_ERROR, "PRIORITY_UPDATE is too short")
        target = int.from_bytes(payload[:4]) & 0x7FFFFFFF
        if not target & 1:
            raise ConnectionFailed(PROTOCOL_ERROR, "PRIORITY_UPDATE for a stream that no client opens")
        self._spend_priority()
        priority = parse_priority(payload[4:])
        stream = self._streams.get(target)
        if stream is not None:
            stream.priority = priority
        elif target > self._last_seen:
            if len(self._early_priorities) >= EARLY_PRIORITIES_MAX:
                del self._early_priorities[next(iter(self._early_priorities))]
            self._early_priorities[target] = priority

    # 6.4 RST_STREAM

    def _rst_stream(self, flags: int, id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFailed(FRAME_SIZE_ERROR, "RST_STREAM is not four octets")
        stream = self._streams.get(id)
        if stream is None:
            self._check_not_idle(id)
            self._spend_pointless()
            return
        if stream.sending != ENDED:
            self._spend_reset()
        self._remember_reset(id, ResetBy.PEER)
        self._lose(stream)

    # 6.5 SETTINGS

    def _settings(self, flags: int, id: int, payload: bytes) -> None:
        if id:
            raise ConnectionFailed(PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & ACK:
            if payload:
                raise ConnectionFailed(FRAME_SIZE_ERROR, "an acknowledgement with settings")
            self._spend_pointless()
            self._settings_are_known()
            return
        if len(payload) % 6:
            raise ConnectionFailed(FRAME_SIZE_ERROR, "SETTINGS is not a multiple of six octets")
        self.budgets.settings.spend()
        if self._phase == Phase.SETTINGS:
            self._phase = Phase.OPEN if self._goaway_sent is None else Phase.LEAVING
            if self.service.draining:
                self.drain()
        self._apply(payload)
        self.emit(frame(Kind.SETTINGS, ACK, 0))

    def _apply(self, payload: bytes) -> None:
        """Take the settings of the peer. Raises `ConnectionFailed`."""
        window = self.initial_window
        self.share.left -= len(payload) >> SETTINGS_SHIFT
        for setting, value in SETTING.iter_unpack(payload):
            if setting == Setting.INITIAL_WINDOW_SIZE:
                if value > WINDOW_MAX:
                    raise ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, "SETTINGS_INITIAL_WINDOW_SIZE is too large")
                window = value
            else:
                self._set(setting, value)
        # Every stream is touched, so once for a frame that may say it 2,730 times: nothing is sent in between.
        if window != self.initial_window:
            self._set_initial_window(window)

    def _settings_are_known(self) -> None:
        """The peer has acknowledged our SETTINGS: what it sends from now on keeps to them."""
        change = self.settings.stream_window - self.upload_window
        if change:
            self.upload_window += change
            for stream in self._streams.values():
                if stream.upload is not None:
                    stream.upload.window += change

    def _set(self, setting: int, value: int) -> None:
        match setting:
            case Setting.HEADER_TABLE_SIZE:
                if value < self.peer_table_size:
                    self.table_must_shrink = True
            case Setting.ENABLE_PUSH | Setting.ENABLE_CONNECT_PROTOCOL | Setting.NO_RFC7540_PRIORITIES:
                if value > 1:
                    raise ConnectionFailed(PROTOCOL_ERROR, f"setting {setting} is neither 0 nor 1")
            case Setting.MAX_FRAME_SIZE:
                if not 16_384 <= value < 2**24:
                    raise ConnectionFailed(PROTOCOL_ERROR, "SETTINGS_MAX_FRAME_SIZE is out of range")
                self.peer_frame_max = value
                self.data_frame_max = min(value, FRAME_MAX)

    def _set_initial_window(self, value: int) -> None:
        """6.9.2: the windows of all streams move with it, and may become negative."""
        change = value - self.initial_window
        self.initial_window = value
        for stream in self._streams.values():
            stream.send_window += change
            if stream.wait is not None:
                stream.wait.window += change
            if stream.send_window > WINDOW_MAX:
                raise ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, "a window exceeds 2^31-1")
            if stream.parked_size and (stream.send_window > 0) is not (stream.send_window > change):
                self.wants_to_send(stream)

    # 6.6 PUSH_PROMISE, 6.7 PING, 6.8 GOAWAY

    def _push_promise(self, flags: int, id: int, payload: bytes) -> None:
        raise ConnectionFailed(PROTOCOL_ERROR, "a client must not push")

    def _ping(self, flags: int, id: int, payload: bytes) -> None:
        if id:
            raise ConnectionFailed(PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise ConnectionFailed(FRAME_SIZE_ERROR, "PING is not eight octets")
        self.budgets.ping.spend()
        if not flags & ACK:
            self.emit(frame(Kind.PING, ACK, 0, payload))
        elif payload == DRAIN_PING and self._phase == Phase.DRAINING:
            # A round trip is over: what the peer sent before it knew of the drain is here.
            self._leave()

    def _goaway(self, flags: int, id: int, payload: bytes) -> None:
        if id:
            raise ConnectionFailed(PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:
            raise ConnectionFailed(FRAME_SIZE_ERROR, "GOAWAY is too short")
        # One is enough.
        self._spend_pointless()
        # It is about streams that we would open, which are none. Those of the peer run to their end.
        self._leave()

    # 6.9 WINDOW_UPDATE

    def _window_update(self, flags: int, id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFailed(FRAME_SIZE_ERROR, "WINDOW_UPDATE is not four octets")
        budget = self.budgets.window_update
        budget.earn(2 * self.data_frames)
        self.data_frames = 0
        budget.spend()
        increment = int.from_bytes(payload) & 0x7FFFFFFF
        if not id:
            if not increment:
                raise ConnectionFailed(PROTOCOL_ERROR, "WINDOW_UPDATE by nothing")
            self.send_window += increment
            if self.send_window > WINDOW_MAX:
                raise ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, "the window of the connection exceeds 2^31-1")
            self._window_given += increment
            return
        stream = self._streams.get(id)
        if stream is None:
            self._check_not_idle(id)
        elif not increment:
            self._stream_error(stream, PROTOCOL_ERROR)
        elif stream.send_window + increment > WINDOW_MAX:
            self._stream_error(stream, ErrorCode.FLOW_CONTROL_ERROR)
        else:
            stream.send_window += increment
            if stream.wait is not None:
                stream.wait.window += increment
            if stream.parked_size and increment >= stream.send_window > 0:
                self.wants_to_send(stream)

    # Streams

    def _check_not_idle(self, id: int) -> None:
        """5.1: an idle stream takes nothing but HEADERS and PRIORITY."""
        if not id or id > self._last_seen or not id & 1:
            raise ConnectionFailed(PROTOCOL_ERROR, "a frame for a stream that is not open")

    def _frame_for_closed(self, id: int) -> None:
        """HEADERS or DATA for a stream that is over."""
        reset_by = self._resets.get(id)
        if reset_by == ResetBy.US:
            # It was under way when we reset the stream.
            self._spend_pointless()
            return
        if reset_by == ResetBy.PEER:
            self._refuse(id, ErrorCode.STREAM_CLOSED)
        elif any(id in passed for passed in self._skipped):
            raise ConnectionFailed(PROTOCOL_ERROR, "a stream id that is lower than one before")
        else:
            raise ConnectionFailed(ErrorCode.STREAM_CLOSED, "a frame for a stream that has ended")

    def _stream_error(self, stream: H2Stream, code: ErrorCode) -> None:
        """5.4.2: reset a stream because of what the peer did."""
        self._refuse(stream.id, code)
        self._lose(stream)

    def _malformed(self, stream: H2Stream, error: BadRequest) -> None:
        self._count_error(error)
        self._stream_error(stream, PROTOCOL_ERROR)

    def _refuse(self, id: int, code: ErrorCode) -> None:
        """Send a RST_STREAM that the peer has provoked."""
        self._spend_reset()
        if code is not ErrorCode.REFUSED_STREAM and id > self._last_opened:
            self._last_opened = id
        self._remember_reset(id, ResetBy.US)
        self.emit(rst_stream_frame(id, code))

    def _spend_reset(self) -> None:
        # What a client gives up, or gets wrong, in proportion to what it lets us finish is no attack.
        self.budgets.reset.earn(self.answered // 2)
        self.answered = 0
        self.budgets.reset.spend()

    def reset(self, stream: H2Stream, code: ErrorCode) -> None:
        """Reset a stream for a reason of ours; its exchange knows."""
        self._remember_reset(stream.id, ResetBy.US)
        self.emit(rst_stream_frame(stream.id, code))
        stream.receiving = LOST
        stream.sending = ENDED
        stream.writable = True
        self.forget(stream)

    def _remember_reset(self, id: int, by: int) -> None:
        self._resets[id] = by
        if len(self._resets) > RESETS_MAX:
            del self._resets[next(iter(self._resets))]

    def _lose(self, stream: H2Stream) -> None:
        """A stream is gone before its end: tell its exchange."""
        stream.receiving = LOST
        stream.sending = ENDED
        stream.writable = False
        exchange = stream.exchange
        self.forget(stream)
        if exchange is not None:
            exchange.stream_lost(GONE)
            if getattr(exchange, "running", False):
                self._abandoned.append(exchange)

    def forget(self, stream: H2Stream) -> None:
        """Both halves of a stream are over."""
        if self._streams.pop(stream.id, None) is None:
            return
        _released(stream)
        self._head_memory -= stream.head_size
        if stream.parked_size:
            self.parked_size -= stream.parked_size
            stream.parked_size = 0
            stream.parked = stream.wait = None
            self.has_nothing_to_send(stream)
        upload = stream.upload
        if upload is not None:
            self.held_pieces -= upload.pieces
            held, upload.held = upload.held, 0
            if held:
                self.give_back(held)
        if not self._streams:
            self._idle_since = self.loop.time()
            self.due(self._idle_since + self.service.keep_alive_timeout(self.connection))
            if self._goaway_sent is not None and not self._turn_due:
                self._turn_due = True
                self.loop.call_soon(self._late_turn)

    # Ending

    def _fail(self, error: ConnectionFailed) -> None:
        """5.4.1: a connection error: GOAWAY, and the end of every stream."""
        self._log(f"{error.code.name}: {error.message}")
        self.service.count(f"h2_{error.code.name.lower()}", "h2: connection error: %s", error.message)
        self._close(error.code, error.message)

    def _close(self, code: ErrorCode, message: str = "") -> None:
        """The last GOAWAY; then read on for a moment, so that the peer can read it (RFC 9112 9.6 has the reason)."""
        self.emit(goaway_frame(self._last_opened, code, message.encode()))
        self._lose_all()
        self._linger()

    def _linger(self) -> None:
        self._phase = Phase.CLOSED
        self.flush()
        self._needed = 0
        self.deadline = self.loop.time() + LINGER_TIMEOUT
        transport = self.transport
        if transport.is_closing():
            return
        if transport.can_write_eof():
            try:
                transport.write_eof()
            except OSError:
                # The peer is gone already; asyncio will find out.
                transport.close()
            self.watch_unsent()
        else:
            self.close()

    def _linger_over(self, count: int) -> None:
        self._needed += count
        if self._needed > LINGER_MAX:
            self.abort()

    def _leave(self) -> None:
        """Take no more requests, and close when those that run are over."""
        if self._goaway_sent is None and self._phase != Phase.CLOSED:
            if self._phase != Phase.PREFACE and self._phase != Phase.SETTINGS:
                self._phase = Phase.LEAVING
            self._goaway_sent = self._last_seen
            self.emit(goaway_frame(self._last_seen, ErrorCode.NO_ERROR))

    def drain(self) -> None:
        """6.8: say that the end is near, wait a round trip for requests that are under way, then take no more."""
        if self._phase == Phase.PREFACE or self._phase == Phase.SETTINGS:
            if self._streams:
                self._leave()
            self.due(self.loop.time() + DRAIN_GRACE)
        elif self._phase == Phase.OPEN:
            self._phase = Phase.DRAINING
            self.emit(goaway_frame(WINDOW_MAX, ErrorCode.NO_ERROR))
            self.emit(frame(Kind.PING, 0, 0, DRAIN_PING))
            self._drain_due = self.loop.time() + DRAIN_GRACE
            self.due(self._drain_due)

    # Errors of peers

    def _count_error(self, error: BadRequest) -> None:
        self.service.count(error.code, "h2: %s", error.message)
        self._log(error.message)

    def _log(self, message: str) -> None:
        """A line about what a peer did wrong; one a second for all connections of the worker."""
        shared = self.service.shared
        now = self.loop.time()
        if now - shared.get("h2.logged", -inf) < LOG_INTERVAL:
            shared["h2.unlogged"] = shared.get("h2.unlogged", 0) + 1
            return
        shared["h2.logged"] = now
        more = shared.pop("h2.unlogged", 0)
        peer = self.connection.peer
        self.service.log.info(
            "HTTP/2 error of a client%s: %s%s",
            f" ({peer[0]})" if peer else "",
            message,
            f" (and {more} more since the last line)" if more else "",
        )

    # Events from the worker

    def postpone(self, seconds: float) -> None:
        """Every clock that runs for the peer."""
        super().postpone(seconds)
        self._idle_since += seconds
        if self._wait is not None:
            self._wait.since += seconds
        if self._block is not None:
            self._block = self._block._replace(due=self._block.due + seconds)
        for stream in self._streams.values():
            stream.postpone(seconds)

    def due(self, at: float) -> None:
        """Something may be due at `at`; what it is comes out when the time has come."""
        if at < self.deadline:
            self.deadline = at

    def deadline_passed(self) -> None:
        """Look for what is due, and when the next thing will be."""
        now = self.deadline
        if self._phase == Phase.CLOSED:
            self.deadline = self.loop.time() + LINGER_TIMEOUT
            self.let_go()
            return
        # The time for which this was called; the clock itself may be behind it in tests.
        now = max(now, self.loop.time())
        self.deadline = inf
        try:
            self._look_at_connection(now)
            for stream in tuple(self._streams.values()):
                self._look_at_stream(stream, now)
        except ConnectionFailed as error:
            self._fail(error)
        self._turn()

    def _look_at_connection(self, now: float) -> None:
        config = self.service.config
        if self._block is not None:
            if self._block.due <= now:
                raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "a field block did not arrive in time")
            self.due(self._block.due)
        wait = self._wait
        if wait is not None and wait.since + config.write_timeout <= now:
            if self.send_window > 0 or not self.scheduler.ready:
                self._wait = None
            elif self._is_too_slow(wait, self.data_sent - wait.sent):
                self.service.count("write_timeout", "h2: peer lets too little pass, closing")
                self._close(ErrorCode.NO_ERROR)
                return
            else:
                wait.since, wait.sent = now, self.data_sent
        if self._wait is not None:
            self.due(self._wait.since + config.write_timeout)
        if self._phase == Phase.DRAINING:
            if self._drain_due <= now:
                self._leave()
            else:
                self.due(self._drain_due)
        elif not self._streams:
            timeout = self.service.keep_alive_timeout(self.connection) if self._requests else config.header_timeout
            if self._idle_since + timeout <= now or (self.service.draining and self._phase != Phase.OPEN):
                self.service.count("idle_timeout")
                self._leave()
            else:
                self.due(self._idle_since + timeout)

    def _look_at_stream(self, stream: H2Stream, now: float) -> None:
        config = self.service.config
        wait = stream.wait
        if wait is not None:
            if wait.since + config.write_timeout <= now:
                if self._holds_up(stream, wait):
                    self.service.count("write_timeout", "h2: peer lets too little pass, resetting a stream")
                    self._remember_reset(stream.id, ResetBy.US)
                    self.emit(rst_stream_frame(stream.id, ErrorCode.CANCEL))
                    self._lose(stream)
                    return
                wait.since, wait.window, wait.sent = now, stream.send_window, self.data_sent
            self.due(wait.since + config.write_timeout)
        if stream.peer_ends_by != inf:
            if stream.peer_ends_by <= now:
                self.reset(stream, ErrorCode.NO_ERROR)
            else:
                self.due(stream.peer_ends_by)
            return
        if stream.is_tunnel:
            return
        upload = stream.upload
        if upload is not None and stream.receiving == RECEIVING:
            due = upload.due(config.request_timeout, config.min_body_rate)
            if due <= now:
                stream.exchange.stream_lost(
                    BadRequest(
                        "The request body did not arrive in time",
                        status=408,
                        code="POUNCE_TIMEOUT_REQUEST_BODY",
                        hint="See request_timeout and min_body_rate.",
                    )
                )
            self.due(due if due > now else now + config.request_timeout)


    def _holds_up(self, stream: H2Stream, wait: WindowWait) -> bool:
        """Whether a stream that waits is kept from going on by its peer, and not by its turn among the others."""
        if stream.send_window > 0:
            if not self.writable:
                # The transport has a deadline of its own.
                return False
            # Its window is open now: what matters is what the one of the connection lets pass.
            progress = max(wait.window - stream.send_window, self.data_sent - wait.sent)
        else:
            progress = wait.window - stream.send_window
        return self._is_too_slow(wait, progress)

    def _is_too_slow(self, wait: WindowWait, progress: int) -> bool:
        """Whether a peer lets less than `min_write_rate` pass; it cannot do so while what was sent before is on its way
        to it, and it takes enough of that."""
        least = self.service.least_taken
        if progress >= least or self._is_delivered():
            return progress < least
        before, wait.taken = wait.taken, self.taken()
        return before is not None and wait.taken - before < least


class Tables:
    """What the connections of one worker share, and those of others do not touch."""

    __slots__ = ("blocks", "handlers", "huffman", "pack_head", "unpack_head")

    def __init__(self, huffman: HuffmanDecoder) -> None:
        self.blocks = AnswerTable(encode_field)
        self.huffman = huffman
        self.pack_head = FRAME_HEAD.pack
        self.unpack_head = FRAME_HEAD.unpack_from
        # By type of frame.
        self.handlers = (
            H2Connection._data,
            H2Connection._headers,
            H2Connection._priority,
            H2Connection._rst_stream,
            H2Connection._settings,
            H2Connection._push_promise,
            H2Connection._ping,
            H2Connection._goaway,
            H2Connection._window_update,
            H2Connection._continuation,
        )


def _released(stream: H2Stream) -> Exchange | None:
    """The exchange of a stream, which lets go of it: the two would keep each other until the collector comes."""
    exchange, stream.exchange = stream.exchange, cast("Exchange", None)
    return exchange


def unpadded(payload: bytes) -> bytes:
    """The payload of a padded frame without its padding (RFC 9113 6.1). Raises `ConnectionFailed`."""
    if not payload:
        raise ConnectionFailed(FRAME_SIZE_ERROR, "a padded frame without its pad length")
    end = len(payload) - payload[0]
    if end < 1:
        raise ConnectionFailed(PROTOCOL_ERROR, "a frame is padded beyond its size")
    return payload[1:end]


def too_large(size: int, count: int) -> BadRequest:
    return BadRequest(
        "The header section is too large",
        status=431,
        code="POUNCE_PARSE_HEADERS_TOO_LARGE",
        hint=f"The limits are {size} bytes and {count} fields.",
    )
