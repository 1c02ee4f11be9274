"""PeerStreams: the peer's unidirectional streams: its control stream, and those of its QPACK (RFC 9114 6.2)."""

import functools
from math import inf
from typing import TYPE_CHECKING

from pounce.exchange.priority import parse_priority
from pounce_h3.codes import (
    H3_CLOSED_CRITICAL_STREAM,
    H3_EXCESSIVE_LOAD,
    H3_FRAME_ERROR,
    H3_FRAME_UNEXPECTED,
    H3_ID_ERROR,
    H3_MISSING_SETTINGS,
    H3_STREAM_CREATION_ERROR,
)
from pounce_h3.engine import QuicError, StreamReset
from pounce_h3.frames import (
    CANCEL_PUSH,
    GOAWAY,
    MAX_PUSH_ID,
    NOT_ON_CONTROL,
    PRIORITY_UPDATE,
    PRIORITY_UPDATE_PUSH,
    SETTINGS,
    WT_UNIDIRECTIONAL,
    integers,
    pull,
)
from pounce_h3.output import CONTROL, DECODER, ENCODER
from pounce_h3.settings import H3_DATAGRAM, check_settings
from pounce_h3.streams import Streams

if TYPE_CHECKING:
    from pounce.contract.turns import Share

__all__ = ["PeerStreams"]

CONTROL_FRAME_MAX = 4096
"""Bytes of a frame on the control stream."""

# Beside `CONTROL`, `ENCODER` and `DECODER` (RFC 9114 6.2).
PUSH = 0x1
UNKNOWN, IGNORED = -1, -2


class PeerStream:
    """A unidirectional stream of the peer's."""

    __slots__ = ("buffer", "kind", "skip")

    def __init__(self) -> None:
        self.kind = UNKNOWN
        self.buffer = bytearray()
        self.skip = 0
        """Bytes of an unknown frame that are still to come."""


class PeerStreams:
    """The unidirectional streams of one peer, and what it has said on them. Its methods raise `QuicError`."""

    __slots__ = ("_goaway", "_kinds", "_max_push", "_open", "_settings_received", "_share", "_streams")

    def __init__(self, streams: Streams, share: Share) -> None:
        self._streams = streams
        self._share = share
        self._open: dict[int, PeerStream] = {}
        self._kinds: set[int] = set()
        self._settings_received = False
        self._goaway = inf
        self._max_push = -1

    def received(self, stream_id: int, data: bytes, end: bool) -> None:
        """Bytes of a stream."""
        stream = self._open.get(stream_id)
        if stream is None:
            sessions = self._streams.sessions
            if sessions is not None and sessions.received(stream_id, data, end):
                return
            stream = self._open[stream_id] = PeerStream()
        kind = stream.kind
        if kind == UNKNOWN:
            stream.buffer += data
            pulled = pull(bytes(stream.buffer[:8]), 0)
            if pulled is None:
                if end:
                    del self._open[stream_id]
                return
            if pulled[0] == WT_UNIDIRECTIONAL and self._streams.sessions is not None:
                self._session_stream(stream_id, stream, pulled[1], end)
                return
            data = bytes(stream.buffer[pulled[1] :])
            stream.buffer.clear()
            kind = stream.kind = self._kind_of(stream_id, pulled[0])
        if end and kind in (CONTROL, ENCODER, DECODER):
            raise QuicError(H3_CLOSED_CRITICAL_STREAM, "a critical stream was closed")
        if kind == CONTROL:
            self._control_received(stream, data)
        elif kind == ENCODER and data:
            streams = self._streams
            streams.unblock(streams.heads.instruct(data, streams.requests))
        elif kind == DECODER and data:
            self._streams.heads.codec.decoder_instructions(data)
        if end:
            del self._open[stream_id]

    def _session_stream(self, stream_id: int, stream: PeerStream, at: int, end: bool) -> None:
        """A stream of a session of WebTransport, as soon as it says of which one."""
        sessions = self._streams.sessions
        assert sessions is not None
        pulled = pull(bytes(stream.buffer[:16]), at)
        if pulled is not None:
            del self._open[stream_id]
            sessions.adopt(stream_id, pulled[0], bytes(stream.buffer[pulled[1] :]), end)
        elif end:
            del self._open[stream_id]

    def given_up(self, event: StreamReset) -> None:
        """The peer has given up a stream of its own, or wants no more of one of ours."""
        stream_id, sessions = event.stream_id, self._streams.sessions
        if sessions is not None and sessions.given_up(event):
            return
        peer = self._open.pop(stream_id, None)
        if self._streams.output.is_critical(stream_id) or (
            peer is not None and peer.kind in (CONTROL, ENCODER, DECODER)
        ):
            raise QuicError(H3_CLOSED_CRITICAL_STREAM, "a critical stream was given up")

    def _kind_of(self, stream_id: int, kind: int) -> int:
        if kind == PUSH:
            raise QuicError(H3_STREAM_CREATION_ERROR, "clients do not push")
        if kind not in (CONTROL, ENCODER, DECODER):
            # RFC 9114 6.2: streams of unknown types are read no further.
            self._streams.output.quic.stop(stream_id, H3_STREAM_CREATION_ERROR)
            return IGNORED
        if kind in self._kinds:
            raise QuicError(H3_STREAM_CREATION_ERROR, "a critical stream was opened twice")
        self._kinds.add(kind)
        return kind

    # The control stream

    def _control_received(self, stream: PeerStream, data: bytes) -> None:
        buffer = stream.buffer
        buffer += data
        share = self._share
        while buffer:
            share.left -= 1
            if share.left <= 0:
                self._streams.unread.append(functools.partial(self._control_received, stream, b""))
                return
            if stream.skip:
                count = min(stream.skip, len(buffer))
                del buffer[:count]
                stream.skip -= count
                continue
            head = bytes(buffer[:16])
            kind = pull(head, 0)
            length = pull(head, kind[1]) if kind is not None else None
            if kind is None or length is None:
                return
            self._check_control_frame(kind[0], length[0])
            if kind[0] not in (SETTINGS, GOAWAY, MAX_PUSH_ID, CANCEL_PUSH, PRIORITY_UPDATE):
                del buffer[: length[1]]
                stream.skip = length[0]
                continue
            stop = length[1] + length[0]
            if len(buffer) < stop:
                return
            payload = bytes(buffer[length[1] : stop])
            del buffer[:stop]
            self._control_frame(kind[0], payload)

    def _check_control_frame(self, kind: int, length: int) -> None:
        if not self._settings_received and kind != SETTINGS:
            raise QuicError(H3_MISSING_SETTINGS, "the first frame is not SETTINGS")
        if kind in NOT_ON_CONTROL or (kind == SETTINGS and self._settings_received):
            raise QuicError(H3_FRAME_UNEXPECTED, f"frame type {kind:#x} on the control stream")
        if kind == PRIORITY_UPDATE_PUSH:
            # RFC 9218 7.2: no push was ever promised.
            raise QuicError(H3_ID_ERROR, "PRIORITY_UPDATE of a push")
        if length > CONTROL_FRAME_MAX and kind in (SETTINGS, GOAWAY, MAX_PUSH_ID, CANCEL_PUSH, PRIORITY_UPDATE):
            raise QuicError(H3_EXCESSIVE_LOAD, "a frame on the control stream is too large")

    def _control_frame(self, kind: int, payload: bytes) -> None:
        if kind == PRIORITY_UPDATE:
            self._priority_update(payload)
            return
        values = integers(payload)
        if kind == SETTINGS:
            settings = check_settings(values)
            self._settings_received = True
            if self._streams.sessions is not None:
                self._streams.sessions.takes_datagrams = bool(settings.get(H3_DATAGRAM))
        elif values is None or len(values) != 1:
            raise QuicError(H3_FRAME_ERROR, f"frame type {kind:#x} is not one integer")
        elif kind == CANCEL_PUSH:
            # RFC 9114 7.2.3: no push was ever promised.
            raise QuicError(H3_ID_ERROR, "CANCEL_PUSH without a push")
        elif kind == GOAWAY:
            # RFC 9114 5.2: "the identifier [...] MUST NOT be greater than the identifier in a previous frame".
            if values[0] > self._goaway:
                raise QuicError(H3_ID_ERROR, "the id of GOAWAY grows")
            self._goaway = values[0]
        elif kind == MAX_PUSH_ID:
            # RFC 9114 7.2.7: it "cannot reduce the maximum push ID".
            if values[0] < self._max_push:
                raise QuicError(H3_ID_ERROR, "MAX_PUSH_ID shrinks")
            self._max_push = values[0]

    def _priority_update(self, payload: bytes) -> None:
        """RFC 9218 7.2."""
        pulled = pull(payload, 0)
        if pulled is None:
            raise QuicError(H3_FRAME_ERROR, "PRIORITY_UPDATE without an element")
        stream_id, at = pulled
        if stream_id & 3:
            raise QuicError(H3_ID_ERROR, "PRIORITY_UPDATE of what is no request")
        self._streams.prioritize(stream_id, parse_priority(payload[at:]))
