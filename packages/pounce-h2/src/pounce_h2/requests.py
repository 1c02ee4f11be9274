"""Requests: from HEADERS and DATA to the service.

Requests are opened after all frames at hand were looked at, the most urgent first: one that was reset in the same read
never reaches the application. Those beyond the first take from the connection's share of the turn, and what is left
when it is used up waits for the next one.
"""

from time import monotonic
from typing import TYPE_CHECKING

from pounce.contract.head import Headers, RequestHead, unreadable_head
from pounce.errors import BadRequest
from pounce.exchange.fields import checked_trailers
from pounce.exchange.known_heads import KnownHead
from pounce.exchange.priority import DEFAULT, priority_of
from pounce_h2.abuse import ConnectionFailed
from pounce_h2.decode import ENTRY_OVERHEAD
from pounce_h2.ending import Ending
from pounce_h2.frames import END_HEADERS, END_STREAM, PADDED, PRIORITY_FLAG, ErrorCode
from pounce_h2.heads import Heads
from pounce_h2.stream import ENDED, LOST, RECEIVED, RECEIVING, H2Stream
from pounce_h2.streams import Streams
from pounce_h2.windows import HELD_PIECES_MAX, ROOM_MIN, Upload

if TYPE_CHECKING:
    from pounce.contract.wire import Service

__all__ = ["Requests", "TimedRequests"]

REQUEST_STEPS = 4
"""Steps of a turn's share for a request that is opened."""

PROTOCOL_ERROR, FRAME_SIZE_ERROR = ErrorCode.PROTOCOL_ERROR, ErrorCode.FRAME_SIZE_ERROR


class Requests:
    """The requests of one connection, until the service has them."""

    __slots__ = (
        "_body_came",
        "_connect_protocol",
        "_ending",
        "_heads",
        "_requests_max",
        "_service",
        "_streams",
        "_windows",
    )

    def __init__(self, service: Service, heads: Heads, streams: Streams, ending: Ending) -> None:
        self._service = service
        self._body_came = service.body_came
        self._heads = heads
        self._streams = streams
        self._windows = streams.windows
        self._ending = ending
        self._connect_protocol = bool(service.upgrades)
        self._requests_max = service.config.max_requests_per_connection

    # RFC 9113 6.2 HEADERS, 6.10 CONTINUATION

    def headers(self, flags: int, id: int, payload: bytes) -> None:
        """HEADERS. Raises `ConnectionFailed`."""
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
        if len(payload) > self._heads.size_max:
            raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "a field block is too long")
        if flags & END_HEADERS:
            self._field_block(flags, id, payload, depends_on_itself)
        else:
            output = self._streams.output
            due = output.loop.time() + self._service.config.header_timeout
            self._heads.begin(id, flags, depends_on_itself, payload, due)
            output.due(due)

    def continuation(self, flags: int, id: int, payload: bytes) -> None:
        """CONTINUATION. Raises `ConnectionFailed`."""
        complete = self._heads.go_on(payload, bool(flags & END_HEADERS))
        if complete is not None:
            begun, block = complete
            self._field_block(begun.flags, id, block, begun.depends_on_itself)

    def _field_block(self, flags: int, id: int, block: bytes, depends_on_itself: bool) -> None:
        """A complete field block: a request, or the trailers of one."""
        streams = self._streams
        if id > streams.last_seen:
            self._request(flags, id, block, depends_on_itself)
            return
        fields = self._heads.decode(block)
        stream = streams.open.get(id)
        if stream is None:
            streams.frame_for_closed(id)
        elif stream.receiving != RECEIVING:
            streams.error(stream, ErrorCode.STREAM_CLOSED)
        elif depends_on_itself or not flags & END_STREAM or fields is None:
            # 8.1: trailers end the stream.
            streams.error(stream, PROTOCOL_ERROR)
        else:
            self._trailers(stream, fields[0])

    def _trailers(self, stream: H2Stream, fields: Headers) -> None:
        upload = stream.upload
        assert upload is not None
        try:
            trailers = checked_trailers(fields)
        except BadRequest as error:
            self._streams.malformed(stream.id, error)
            self._streams.lose(stream)
            return
        if stream.is_tunnel or (upload.expected is not None and upload.received != upload.expected):
            self._streams.error(stream, PROTOCOL_ERROR)
            return
        stream.receiving = RECEIVED
        if stream.sending == ENDED:
            self._streams.forget(stream)
        elif stream.exchange is None:
            upload.trailers = trailers
        else:
            stream.exchange.eof_received(trailers)

    def _request(self, flags: int, id: int, block: bytes, depends_on_itself: bool) -> None:
        streams = self._streams
        if id > streams.last_seen + 2:
            streams.pass_over(id)
        streams.last_seen = id
        known_or_error: KnownHead | BadRequest | None = self._heads.known(block)
        path: bytes | None = None
        if known_or_error is None:
            known_or_error, path = self._heads.understand(block)
        if self._ending.last is not None and id > self._ending.last:
            streams.ignore(id)
            return
        if len(streams.open) >= streams.limit - len(streams.abandoned) and streams.is_full():
            streams.refuse(id, ErrorCode.REFUSED_STREAM)
            return
        if depends_on_itself:
            streams.refuse(id, PROTOCOL_ERROR)
            return
        ends = flags & END_STREAM
        if isinstance(known_or_error, BadRequest):
            if known_or_error.status == 400:
                streams.malformed(id, known_or_error)
                return
            head: RequestHead | BadRequest = known_or_error
            stream = H2Stream(streams, id, b"", DEFAULT, 0)
            length: int | None = None
        else:
            found, priority, size = known_or_error
            if path is not None:
                size += len(path) - len(found.target)
            length = found.content_length
            if (ends and length) or (found.upgrade is not None and not self._connect_protocol):
                streams.refuse(id, PROTOCOL_ERROR)
                return
            if streams.head_memory + size > streams.head_memory_max:
                streams.refuse(id, ErrorCode.ENHANCE_YOUR_CALM)
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
            if streams.early_priorities:
                # RFC 9218 7: the frame says all; what it leaves out is default, whatever the field said.
                priority = streams.early_priorities.pop(id, priority)
            stream = H2Stream(streams, id, found.method, priority, size)
            streams.head_memory += size
        if not ends:
            stream.receiving = RECEIVING
            stream.upload = self._windows.begin(id, length)
        streams.open[id] = stream
        streams.opening.append((stream, head))

    def upgraded(self, head: RequestHead) -> None:
        """The request of HTTP/1.1 that becomes stream 1, whose other half is closed (RFC 7540 3.2)."""
        streams = self._streams
        size = sum(len(name) + len(value) + ENTRY_OVERHEAD for name, value in head.headers)
        stream = streams.open[1] = H2Stream(streams, 1, head.method, priority_of(head.headers), size)
        streams.head_memory += size
        streams.last_seen = 1
        streams.opening.append((stream, head))
        self.open()

    # RFC 9113 6.1 DATA

    def data(self, flags: int, id: int, payload: bytes) -> None:
        """DATA. Raises `ConnectionFailed`."""
        streams, windows = self._streams, self._windows
        stream = streams.open.get(id)
        size = len(payload)
        if stream is None:
            streams.check_not_idle(id)
        # 6.9.1: DATA of streams that are gone counts as well.
        windows.room -= size
        if windows.room < ROOM_MIN:
            windows.has_little_room(size)
        data = payload
        if flags & PADDED:
            data = unpadded(payload)
        if stream is None:
            windows.give_back(size)
            streams.frame_for_closed(id)
            return
        upload = stream.upload
        if upload is None or stream.receiving != RECEIVING:
            windows.give_back(size)
            streams.error(stream, ErrorCode.STREAM_CLOSED)
            return
        upload.window -= size
        if upload.window < 0 < size:
            windows.give_back(size)
            streams.error(stream, ErrorCode.FLOW_CONTROL_ERROR)
            return
        count = len(data)
        if count < size:
            # Padding is nothing that an application takes.
            windows.give_back(size - count)
            upload.extend(size - count)
        upload.received += count
        expected = upload.expected
        ends = flags & END_STREAM
        if expected is not None and (upload.received > expected or (ends and upload.received != expected)):
            # 8.1.1: such a request is malformed.
            windows.give_back(count)
            streams.error(stream, PROTOCOL_ERROR)
            return
        if upload.discarded:
            windows.give_back(count)
            if not count and not ends:
                streams.budgets.empty_data.spend()
        elif count:
            upload.held += count
            upload.pieces += 1
            upload.last = windows.loop.time()
            windows.held_pieces += 1
            if self._body_came is not None:
                self._body_came(count)
            if windows.held_pieces > HELD_PIECES_MAX:
                raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "too many small pieces of request bodies")
            if stream.exchange is None:
                upload.early.append(data)
            else:
                stream.exchange.data_received(data)
            if upload.held > windows.held_high:
                upload.pause()
        elif not ends:
            streams.budgets.empty_data.spend()
        if ends and stream.receiving == RECEIVING:
            stream.receiving = RECEIVED
            if stream.sending == ENDED:
                streams.forget(stream)
            elif stream.exchange is not None:
                stream.exchange.eof_received()

    # To the service

    def open(self) -> None:
        """Hand requests to the service, the most urgent first, as far as the share of this turn goes."""
        streams = self._streams
        opening, streams.opening = streams.opening, []
        if len(opening) > 1:
            opening.sort(key=lambda item: item[0].priority[0])
            share = streams.info.share
            count = max(share.left // REQUEST_STEPS, 1)
            share.left -= REQUEST_STEPS * len(opening)
            if count < len(opening):
                streams.opening = opening[count:]
                del opening[count:]
                streams.output.connection.park()
        service = self._service
        for stream, head in opening:
            if stream.receiving == LOST:
                continue
            if stream.id > streams.last_opened:
                streams.last_opened = stream.id
            streams.requests += 1
            if streams.requests == self._requests_max:
                self._ending.leave()
            if isinstance(head, BadRequest):
                service.refuse(unreadable_head("2", streams.info.scheme), stream, head)
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
        self._service.open(head, stream, body, ended and upload.trailers is None)
        if ended and upload.trailers is not None and stream.sending != ENDED:
            stream.exchange.eof_received(upload.trailers)


def unpadded(payload: bytes) -> bytes:
    """The payload of a padded frame without its padding (RFC 9113 6.1). Raises `ConnectionFailed`."""
    if not payload:
        raise ConnectionFailed(FRAME_SIZE_ERROR, "a padded frame without its pad length")
    end = len(payload) - payload[0]
    if end < 1:
        raise ConnectionFailed(PROTOCOL_ERROR, "a frame is padded beyond its size")
    return payload[1:end]


class TimedRequests(Requests):
    """The same for a server that tells how long it took to read a head (`server_timing`)."""

    __slots__ = ()

    def _request(self, flags: int, id: int, block: bytes, depends_on_itself: bool) -> None:
        opening = self._streams.opening
        count, started = len(opening), monotonic()
        super()._request(flags, id, block, depends_on_itself)
        if len(opening) > count and isinstance(head := opening[-1][1], RequestHead):
            head.extensions = {"pounce.parsed_in": monotonic() - started}
