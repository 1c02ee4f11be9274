"""Output: what a connection sends, and which stream's bytes leave next.

Little is handed to the engine ahead of the network: what more there is waits with its stream (`pending`) until its turn
comes, by priority (RFC 9218 10). A stream for which the peer gives no credit is passed over. What is written leaves
when everything that arrived together has been looked at, or at the end of the turn of the loop.

A stream whose application has to wait is in `waiting`, and has a `Wait` that says since when, and for how much.
"""

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Collection
from math import inf
from typing import TYPE_CHECKING, Protocol

from pounce.exchange.priority import Priority
from pounce_h3.codes import H3_GENERAL_PROTOCOL_ERROR, H3_REQUEST_CANCELLED
from pounce_h3.engine import QuicError
from pounce_h3.failures import Failing, failed, isolated, log_failure
from pounce_h3.frames import varint

if TYPE_CHECKING:
    from pounce.plugin import Address, Service
    from pounce_h3.engine import FieldCodec, QuicConnection

__all__ = ["CONTROL", "DECODER", "ENCODER", "Output", "Owner", "Sender", "Wait"]

AHEAD_MAX = 65536
"""Bytes handed to the engine ahead of what the network takes."""
PIECE = 16384
"""Bytes of one stream that are handed over at a time."""
DATAGRAMS_AHEAD = 8
"""Datagrams handed to the engine at a time: it sends what it has, whatever the network takes."""
SENT_MAX = 8
"""How often the network is given `AHEAD_MAX` before others have their turn."""

# RFC 9114 6.2, RFC 9204 4.2: what a unidirectional stream begins with.
CONTROL, ENCODER, DECODER = 0x0, 0x2, 0x3


class Wait:
    """A stream waits for the peer to take something."""

    __slots__ = ("deadline", "taken", "unsent")

    def __init__(self, deadline: float, unsent: int) -> None:
        self.deadline = deadline
        self.unsent = unsent
        """Bytes of the stream that had not left when this, or its last `write_timeout`, began."""
        self.taken: int | None = None
        """`Output.taken()`, once it was looked at."""


class Sender(Failing, Protocol):
    """What this needs of a stream."""

    id: int
    priority: Priority
    pending: list[bytes | memoryview]
    """What waits to be handed to the engine."""
    pending_size: int
    pending_end: bool
    wait: Wait | None
    writable: bool

    def bytes_left(self) -> None:
        """Some of what was waiting has left."""

    def break_off(self) -> None:
        """End it because of an error of ours."""


class Owner(Protocol):
    """What this and the rooms upon it need of their connection."""

    deadline: float
    write_deadline: float

    def flush(self) -> None:
        """Send, and see to what comes of it."""

    def go_on(self) -> None:
        """Applications have taken what they let wait."""

    def guarded(self, call: Callable[[], None]) -> None:
        """Run what the loop called; what it raises costs this connection and no more."""

    def close(self) -> None:
        """End it at once, in good order."""


class Output:
    """The sending half of one connection."""

    __slots__ = (
        "_broken",
        "_codec",
        "_critical",
        "_given",
        "_queue",
        "_send",
        "_soon",
        "_stuck",
        "_write_timeout",
        "corked",
        "datagrams",
        "handed",
        "loop",
        "owner",
        "quic",
        "rests",
        "service",
        "streams",
        "waiting",
    )

    def __init__(
        self,
        owner: Owner,
        service: Service,
        quic: QuicConnection,
        codec: FieldCodec,
        send: Callable[[list[tuple[bytes, Address]]], None],
    ) -> None:
        self.owner: Owner | None = owner
        """None once the connection is over and forgotten."""
        self.service = service
        self.loop = service.loop
        self.quic = quic
        self.corked = False
        """Something is being looked at, after which everything is sent."""
        self.streams: tuple[Collection[int], ...] = ()
        """The ids of those that are open, of each kind."""
        self.waiting: set[Sender] = set()
        """Streams that are not writable."""
        self.datagrams: deque[bytes] = deque()
        """What leaves before anything else that waits (RFC 9221)."""
        self._codec = codec
        self._send = send
        self._write_timeout = service.config.write_timeout
        self._critical: tuple[int, ...] = ()
        """Our unidirectional streams: control, encoder, decoder; once requests may come."""
        self._queue: set[Sender] = set()
        self._stuck: set[Sender] = set()
        """Those of the queue for which the peer gives no credit, until it is heard of again."""
        self._given = 0
        """Bytes of streams that the engine was given."""
        self.handed: list[int] = []
        """Streams that the engine was given to their end since it was last looked at, whether their bytes may leave or
        not."""
        self.rests: dict[int, Wait] = {}
        """Those whose bytes have not left, which nobody else remembers."""
        self._broken: list[tuple[int, int]] = []
        self._soon: asyncio.Handle | None = None

    # Unidirectional streams

    def begin(self, settings: bytes) -> None:
        """Say what we speak (RFC 9114 6.2.1). Raises `QuicError` where the peer does not let us."""
        quic = self.quic
        for _ in range(3):
            if not quic.may_open(True):
                # RFC 9114 6.2: it MUST allow three.
                raise QuicError(H3_GENERAL_PROTOCOL_ERROR, "fewer than three unidirectional streams are allowed")
            self._critical += (quic.open_stream(True),)
        for stream_id, data in zip(
            self._critical, (varint(CONTROL) + settings, varint(ENCODER), varint(DECODER)), strict=True
        ):
            quic.write(stream_id, data, False)

    def control(self, data: bytes) -> None:
        """Send a frame on the control stream."""
        self.quic.write(self._critical[0], data, False)
        self.soon()

    def is_critical(self, stream_id: int) -> bool:
        """It is one of those that `begin()` has opened."""
        return stream_id in self._critical

    # For streams

    def send(self, stream: Sender, pieces: list[bytes], end: bool) -> None:
        """Bytes of a stream, in order; they leave when nothing more urgent does."""
        size = len(pieces[0]) if len(pieces) == 1 else sum(map(len, pieces))
        quic = self.quic
        try:
            # Most answers are one small piece: what is last on its stream is handed over without asking the engine.
            if not self._queue and size <= PIECE and (end or quic.unsent(stream.id) + size <= AHEAD_MAX):
                self._given += size
                if end:
                    self.handed.append(stream.id)
                for piece in pieces[:-1]:
                    quic.write(stream.id, piece, False)
                quic.write(stream.id, pieces[-1] if pieces else b"", end)
            else:
                stream.pending += pieces
                stream.pending_size += size
                stream.pending_end = end
                if end and not size:
                    stream.pending.append(b"")
                self._queue.add(stream)
        except BaseException:  # noqa: BLE001
            self._failed_soon(stream)
        self.soon()

    def unsent(self, stream: Sender) -> int:
        """Bytes that the engine has of a stream, and that have not left."""
        try:
            return self.quic.unsent(stream.id)
        except BaseException:  # noqa: BLE001
            self._failed_soon(stream)
            return 0

    def _rest(self, stream_id: int) -> int:
        """Bytes of one of `rests` that have not left; where the engine fails over it, it is forgotten."""
        try:
            return self.quic.unsent(stream_id)
        except BaseException:  # noqa: BLE001
            log_failure(self.service)
            self.rests.pop(stream_id, None)
            return 0

    @property
    def held(self) -> int:
        """Bytes of streams that wait for the peer."""
        held = sum(stream.pending_size for stream in self._queue) + sum(map(self.unsent, self.waiting))
        return held + sum(map(self._rest, tuple(self.rests))) if self.rests else held

    def reset(self, stream_id: int, code: int) -> None:
        """Give up our half of a stream at once."""
        try:
            self.quic.reset(stream_id, code)
        except BaseException:  # noqa: BLE001
            log_failure(self.service)

    def stop(self, stream_id: int, code: int) -> None:
        """Ask the peer to give up its half of a stream."""
        try:
            self.quic.stop(stream_id, code)
        except BaseException:  # noqa: BLE001
            log_failure(self.service)

    def reset_soon(self, stream_id: int, code: int) -> None:
        """Give up a stream once what was written on it has left, as far as the network takes it."""
        self._broken.append((stream_id, code))
        self.soon()

    def forget(self, stream: Sender) -> None:
        """What the stream has left to send is not sent."""
        self._queue.discard(stream)
        self._stuck.discard(stream)
        self.waiting.discard(stream)

    def _failed_soon(self, stream: Sender) -> None:
        """As `failed`, from inside a Stream method."""
        log_failure(self.service)
        # It is not complete, whatever was written.
        stream.writable = False
        if self.owner is not None:
            self.loop.call_soon(self.owner.guarded, stream.break_off)

    # Deadlines

    def watch(self, deadline: float) -> None:
        """See to a deadline."""
        owner = self.owner
        if owner is not None and deadline < owner.deadline:
            owner.deadline = deadline

    def wait(self, stream: Sender, unsent: int) -> None:
        """A stream is not writable: its peer has `write_timeout` to take what it has to."""
        self.waiting.add(stream)
        stream.wait = wait = Wait(self.loop.time() + self._write_timeout, unsent)
        self._watch(wait.deadline)

    def _watch(self, deadline: float) -> None:
        owner = self.owner
        if owner is not None and deadline < owner.write_deadline:
            owner.write_deadline = deadline

    def look(self, now: float) -> None:
        """See to the streams that have waited long enough."""
        for stream in tuple(self.waiting):
            wait = stream.wait
            if wait is not None:
                if wait.deadline <= now:
                    isolated(self.service, stream, functools.partial(self._time_is_up, stream, wait))
                self._watch(wait.deadline)
        for stream_id, wait in tuple(self.rests.items()):
            if wait.deadline <= now:
                rest = self._rest(stream_id)
                if rest and not self._goes_on(wait, rest, stream_id):
                    self.reset_soon(stream_id, H3_REQUEST_CANCELLED)
                    rest = 0
                if not rest:
                    self.rests.pop(stream_id, None)
                    continue
            self._watch(wait.deadline)

    def _time_is_up(self, stream: Sender, wait: Wait) -> None:
        if not self._goes_on(wait, stream.pending_size + self.unsent(stream), stream.id):
            wait.deadline = inf
            stream.fail(H3_REQUEST_CANCELLED)

    def _goes_on(self, wait: Wait, unsent: int, stream_id: int) -> bool:
        """Whether the peer takes enough of a stream; then it has as much time again."""
        if wait.unsent - unsent >= self.service.least_taken or not self._is_held_up(stream_id, wait):
            wait.unsent = unsent
            wait.deadline = self.loop.time() + self._write_timeout
            return True
        self.service.count("write_timeout", "h3: peer takes too little, giving a request up")
        return False

    def _is_held_up(self, stream_id: int, wait: Wait) -> bool:
        """Whether it is because of the peer that so little of a stream has left."""
        quic = self.quic
        if not quic.unsent(stream_id):
            # Others have their turn.
            return False
        if not quic.is_congested:
            # The peer gives no credit.
            return True
        before, wait.taken = wait.taken, self.taken()
        return before is not None and wait.taken - before < self.service.least_taken

    def taken(self) -> int:
        """A number that grows by one for each byte of a stream that leaves."""
        return self._given - sum(sum(map(self.quic.unsent, ids)) for ids in self.streams)

    # Sending

    def soon(self) -> None:
        """Send what there is at the end of this turn, if nobody does before."""
        if not self.corked and self._soon is None:
            self._soon = self.loop.call_soon(self._now)

    def _now(self) -> None:
        self._soon = None
        if self.owner is not None:
            self.owner.guarded(self.owner.flush)

    def flush(self, now: float) -> None:
        """Hand over and send as much as the network takes."""
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        quic = self.quic
        if self._codec.pending and self._critical:
            quic.write(self._critical[2], self._codec.instructions(), False)
        rounds = SENT_MAX
        while True:
            if self.datagrams:
                self._give_datagrams()
            if self._queue:
                if not rounds:
                    self.soon()
                    return
                rounds -= 1
                self._feed()
            datagrams = quic.datagrams_to_send(now)
            if datagrams:
                self._send(datagrams)
                if not (self._queue or self._broken or self.datagrams):
                    # The engine has given all it had.
                    return
            if self._broken and not datagrams:
                for broken in self._broken:
                    self.reset(*broken)
                self._broken.clear()
            elif not datagrams and not (self._queue and self._passes_over_stuck()):
                return

    def _give_datagrams(self) -> None:
        """Hand over as many as the network takes."""
        quic, datagrams = self.quic, self.datagrams
        for _ in range(DATAGRAMS_AHEAD):
            if not datagrams or quic.is_congested:
                return
            try:
                quic.send_datagram(datagrams.popleft())
            except BaseException:  # noqa: BLE001
                log_failure(self.service)

    def resume(self) -> None:
        """Something may have left that streams wait for."""
        for stream in tuple(self.waiting):
            isolated(self.service, stream, stream.bytes_left)

    def look_at_rests(self, now: float) -> None:
        """Remember the streams of which something is left that the engine was given to their end, until it leaves."""
        quic, rests = self.quic, self.rests
        handed, self.handed = self.handed, []
        try:
            if not quic.unsent_in_all:
                rests.clear()
                return
            for stream_id in tuple(rests):
                if not quic.unsent(stream_id):
                    del rests[stream_id]
            for stream_id in handed:
                if unsent := quic.unsent(stream_id):
                    rests[stream_id] = wait = Wait(now + self._write_timeout, unsent)
                    self._watch(wait.deadline)
        except BaseException:  # noqa: BLE001
            log_failure(self.service)

    def heard(self) -> None:
        """The peer was heard of: it may have given credit."""
        self._stuck.clear()

    def _passes_over_stuck(self) -> bool:
        """Whether others can have the turn of streams whose bytes do not leave, though the network would take them."""
        if self.quic.is_congested:
            return False
        stuck = {stream for stream in self._queue - self._stuck if self.quic.unsent(stream.id)}
        self._stuck |= stuck
        return bool(stuck and self._queue - self._stuck)

    def _feed(self) -> None:
        """Hand bytes to the engine, the most urgent first (RFC 9218 10)."""
        ready = self._queue - self._stuck if self._stuck else self._queue
        room = AHEAD_MAX - sum(self.unsent(stream) for stream in ready)
        while room > 0 and ready:
            urgency = min(stream.priority[0] for stream in ready)
            turn = sorted(
                (stream for stream in ready if stream.priority[0] == urgency),
                key=lambda stream: (stream.priority[1], stream.id),
            )
            if not turn[0].priority[1]:
                del turn[1:]
            for stream in turn:
                try:
                    room -= self._hand_over(stream, min(PIECE, max(room, 1)))
                except BaseException:  # noqa: BLE001
                    failed(self.service, stream)
                    ready.discard(stream)
                    continue
                if not stream.pending:
                    ready.discard(stream)
                if room <= 0:
                    break

    def _hand_over(self, stream: Sender, count: int) -> int:
        """Give up to `count` bytes of a stream to the engine."""
        given = 0
        pending = stream.pending
        while pending and given < count:
            piece = pending[0]
            size = len(piece)
            if size > count - given:
                view = memoryview(piece)
                part, pending[0] = view[: count - given], view[count - given :]
                self.quic.write(stream.id, bytes(part), False)
                given += len(part)
                break
            del pending[0]
            given += size
            self.quic.write(stream.id, bytes(piece), stream.pending_end and not pending)
        stream.pending_size -= given
        self._given += given
        if not pending:
            self._queue.discard(stream)
        return given

    # The end

    def clear(self) -> None:
        """The connection is over."""
        self._queue.clear()
        self.waiting.clear()
        self.rests.clear()
        self.datagrams.clear()

    def cancel(self) -> None:
        """Nothing is sent any more."""
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None

    def release(self) -> None:
        """The connection is forgotten. It and its rooms must not keep each other alive."""
        self.corked = True
        self.owner = None
