"""check_wire: proves that a wire keeps the contract, whatever the network and its peer do.

The author gives complete messages of the protocol, each of which opens one request. They are fed in every way a
network may deliver them, to an application that answers at once, one that streams, one that waits, and one that
fails; the peer reads slowly, dawdles, never comes to an end, ends its half, or disappears at every position. Time is
that of the kit, so that hours pass at once. What is against the contract at the moment that it happens is noticed in
`checked.py`.

It is long and one thing: a list of trials, each some ten lines, that share the applications at its beginning.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from pounce.plugin import Wire
from pounce.registry import Registry
from pounce.testing.checked import CheckedService, CheckFailed, Clock, Events
from pounce.testing.memory import MemoryConnection, memory_service

__all__ = ["CheckFailed", "check_wire"]

MARK = b"<pounce answers>"
PIECE = b"." * 32767 + b"!"
PIECES = 32
WAITING_MAX = 262_144
"""Bytes that may pile up for a peer that does not read."""
AHEAD_MAX = 131_072
"""Bytes of a body that a wire may read before its application does."""
LONG_BODY = 160_000
"""A body that shows whether it reads more."""
ENDLESS = 2_097_152
"""Bytes by which a head is too long, whatever the protocol."""
BLOCK = 65_536
EVERY = 512
"""Messages that are no longer are split at every position, others at about as many."""
FOREVER = 100_000.0
"""Seconds after which every deadline has passed."""
AT_ONCE = 10.0
"""Seconds within which a connection on which nothing runs ends in a drain."""
PATIENT = dict.fromkeys(("header_timeout", "keep_alive_timeout", "request_timeout"), 50_000.0)
"""Settings with which no deadline closes a connection in place of a drain."""

type Seen = list[tuple[bytes, bytes, bytes]]


class Message:
    """A message of the protocol, and where in it the request begins and ends for the wire."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.opens = len(data)
        """So many bytes have to come for the request to be opened."""
        self.body = 0
        """Bytes of the body."""
        self.is_head = False
        """Its answer has no body (RFC 9110 9.3.2)."""

    def positions(self, begin: int, end: int) -> list[int]:
        """Positions from `begin` up to `end`: each, or where these are many, those at both ends and around where the
        request opens, and some in between."""
        every = range(max(begin, 0), end)
        if len(every) <= EVERY:
            return list(every)
        near = [*every[:64], *every[-32:], *every[:: len(every) // 32]]
        near += [at for at in range(self.opens - 16, self.opens + 17) if at in every]
        return sorted(set(near))

    def in_head(self, count: int) -> list[int]:
        """About so many positions before the request is opened."""
        return sorted({1 + (self.opens - 1) * n // count for n in range(count)} - {self.opens})

    def in_body(self) -> list[int]:
        """Positions at which the request is open and its body is not complete."""
        if not self.body:
            return []
        places = (self.opens, self.opens + 1, (self.opens + len(self.data)) // 2, len(self.data) - 1)
        return sorted({at for at in places if self.opens <= at < len(self.data)})


class Check:
    """One run of the kit over one wire."""

    def __init__(self, wire: Wire, registry: Registry | None, settings: dict[str, Any], multiplexed: bool) -> None:
        self.wire = wire
        self.multiplexed = multiplexed
        self.registry = registry
        self.settings = {"date_header": False, "max_request_size": 0} | settings
        self.seen: Seen = []
        self.go_on = asyncio.Event()
        self.loop = cast(Clock, asyncio.get_running_loop())
        self.connection = cast(MemoryConnection, None)
        self.connections = 0
        self.raised: BaseException | None = None
        self.log = logging.Logger("pounce.testing")
        self.log.addHandler(logging.NullHandler())
        self.loop.set_exception_handler(self._failed)

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.raised = self.raised or context.get("exception")

    def connect(self, app: Callable[..., Awaitable[None]], **settings: Any) -> MemoryConnection:
        self.seen.clear()
        self.go_on = asyncio.Event()
        self.connections += 1
        service = memory_service(app, self.registry, service_class=CheckedService, **self.settings | settings)
        service.log = self.log
        self.connection = MemoryConnection(wire=self.wire, service=service)
        return self.connection

    @property
    def service(self) -> CheckedService:
        return cast(CheckedService, self.connection.service)

    @property
    def last(self) -> Events:
        """What the wire has for the request that was opened last."""
        return self.service.opened[-1]

    def verdict(self) -> None:
        """Raise what was noticed so far."""
        if self.connection is not None:
            for fault in self.service.faults:
                raise fault
            self.raised = self.raised or self.service.raised
        if self.raised is not None:
            raised, self.raised = self.raised, None
            raise raised

    # Applications

    async def _note(self, scope: Any, receive: Any) -> bool:
        """Read and note the request; False when the client has gone before its end."""
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return False
            body += message["body"]
            more = message["more_body"]
        self.seen.append((scope["method"].encode(), scope["raw_path"], body))
        return True

    async def answer(self, scope: Any, receive: Any, send: Any) -> None:
        await self._note(scope, receive)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": MARK})

    async def read_late(self, scope: Any, receive: Any, send: Any) -> None:
        await self.go_on.wait()
        await self.answer(scope, receive, send)

    async def answer_late(self, scope: Any, receive: Any, send: Any) -> None:
        await self._note(scope, receive)
        await self.go_on.wait()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": MARK})

    async def stream(self, scope: Any, receive: Any, send: Any) -> None:
        await self._note(scope, receive)
        await send({"type": "http.response.start", "status": 200})
        for _ in range(PIECES):
            await send({"type": "http.response.body", "body": PIECE, "more_body": True})
        await send({"type": "http.response.body", "body": MARK})

    async def end_late(self, scope: Any, receive: Any, send: Any) -> None:
        await self._note(scope, receive)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": MARK, "more_body": True})
        await self.go_on.wait()
        await send({"type": "http.response.body", "body": b""})

    async def break_late(self, scope: Any, receive: Any, send: Any) -> None:
        await self._note(scope, receive)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": MARK, "more_body": True})
        await self.go_on.wait()

    async def wait_for_disconnect(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.seen.append((b"disconnected", b"", b""))

    # Checks, each of one message

    async def learn(self, message: Message) -> None:
        """Find out where the request opens. Not a check, but it has to open."""
        connection = self.connect(self.read_late)
        at = 0
        while at < len(message.data):
            size = 1 if at < EVERY or len(message.data) - at <= 64 else 512
            connection.feed(message.data[at : at + size])
            await connection.settle(1)
            at += size
            if self.service.opened:
                message.opens = min(at, len(message.data))
                break
        connection.feed(message.data[at:])
        self.go_on.set()
        await self._until(lambda: bool(self.service.opened), "no request was opened")
        await self._until(lambda: self.last.complete, "the end of the body was not told")
        message.body = self.last.received
        message.is_head = self.last.head.method == b"HEAD"
        await self._end("after a request byte by byte")

    async def feeding(self, message: Message) -> None:
        """Every way of cutting the bytes gives the same request and an answer."""
        data = message.data
        expected = await self._answered([data], "in one piece")
        if len(expected) != 1:
            raise CheckFailed(f"{data[:60]!r} opened {len(expected)} requests instead of one")
        cuts = message.positions(1, len(data))
        pieces = [data[at:to] for at, to in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        ways = [("byte by byte", pieces), *((f"split at {n}", [data[:n], data[n:]]) for n in cuts)]
        for how, fed in ways:
            seen = await self._answered(fed, how)
            if seen != expected:
                raise CheckFailed(f"{how} it was understood as {_short(seen)}, in one piece as {_short(expected)}")

    async def _answered(self, pieces: Sequence[bytes], how: str) -> Seen:
        connection = self.connect(self.answer)
        for piece in pieces:
            connection.feed(piece)
            await connection.settle(1)
        await self._until(self._is_answered, f"{how}: no answer came")
        await self._end(how)
        return list(self.seen)

    def _is_answered(self, count: int = 1) -> bool:
        answered = len([each for each in self.service.opened if each.head.method == b"HEAD" and each._completed])
        return answered + self.connection.received.count(MARK) >= count

    async def several(self, message: Message) -> None:
        """A second request, behind the first or with it, is understood as the first, or the connection has ended."""
        connection = self.connect(self.answer)
        connection.feed(message.data + message.data)
        await self._until(
            lambda: connection.ended or self._is_answered(), "no answer came to the first of two requests at once"
        )
        await connection.settle(20)
        await self._same_again("the second of two requests that came at once")
        connection = self.connect(self.answer)
        connection.feed(message.data)
        await self._until(self._is_answered, "no answer came")
        await connection.settle(20)
        connection.feed(message.data)
        await connection.settle(20)
        await self._same_again("a second request on the connection")

    async def _same_again(self, what: str) -> None:
        if not self.connection.ended:
            await self._until(lambda: self.connection.ended or self._is_answered(2), f"{what} was not answered")
        if any(seen != self.seen[0] for seen in self.seen[1:]):
            raise CheckFailed(f"{what} was understood as {_short(self.seen[1:])}, the first as {_short(self.seen[:1])}")
        await self._end(what)

    async def patience(self, message: Message) -> None:
        """An application may take its time; an answer of one piece is one write (rule 1)."""
        connection = self.connect(self.answer_late)
        connection.feed(message.data)
        await self._until(lambda: bool(self.seen), "the application did not get the whole request")
        await self._advance(600.0)
        if connection.ended:
            raise CheckFailed("the connection ended while its application took its time")
        before = connection.transport.writes
        self.go_on.set()
        await self._until(self._is_answered, "an application that took its time cannot answer")
        if connection.transport.writes > before + 1:
            raise CheckFailed(f"rule 1: an answer of one piece took {connection.transport.writes - before} writes")
        await self._end("after a slow application")

    async def slow_reader(self, message: Message) -> None:
        """A peer that does not read holds the application, not memory; when it reads on it gets everything."""
        connection = self.connect(self.stream)
        connection.transport.stall()
        connection.feed(message.data)
        await connection.settle(500)
        waiting = connection.transport.largest_waiting
        if waiting > WAITING_MAX:
            raise CheckFailed(f"{waiting} bytes piled up for a peer that does not read")
        connection.transport.unstall()
        await self._until(self._is_answered, "a peer that reads again does not get the rest of the answer")
        if not message.is_head and connection.received.count(b"!") < PIECES:
            raise CheckFailed("a slow peer lost a part of the answer")
        await self._end("after a slow reader")

    async def no_reader(self, message: Message) -> None:
        """A peer that never reads is given up, and an answer is over when it has left, not before."""
        connection = self.connect(self.stream)
        connection.transport.stall()
        connection.feed(message.data)
        await connection.settle(50)
        await self._end("a peer that takes nothing")
        connection = self.connect(self.answer_late)
        connection.transport.stall()
        connection.feed(message.data)
        await self._until(lambda: bool(self.seen), "the application did not get the whole request")
        await connection.settle(5)
        self.go_on.set()
        await connection.settle(5)
        if not self.multiplexed and connection.transport.waiting and self.last._completed:
            raise CheckFailed("an answer was over while bytes of it were still on their way: writable was not False")
        connection.transport.unstall()
        await self._until(lambda: self.last._completed, "resume_writing was not called when the last byte had left")
        await self._end("after a small answer")

    async def half_close(self, message: Message) -> None:
        """A peer that ends its half after its request leaves nothing behind."""
        connection = self.connect(self.answer)
        connection.feed(message.data)
        connection.feed_eof()
        await connection.settle(200)
        await self._end("after the peer ended its half")

    async def abort(self, message: Message) -> None:
        """A peer that disappears at any position leaves nothing behind, and the application is told."""
        for at in message.positions(1, len(message.data) + 1):
            connection = self.connect(self.wait_for_disconnect)
            connection.feed(message.data[:at])
            await connection.settle(2)
            running = bool(self.service.tasks)
            connection.lose()
            await self._until(
                lambda: not self.service.tasks and not self.service.connections,
                f"peer gone at {at}: the application was not told, or the connection was kept",
            )
            if running and not self.seen:
                raise CheckFailed(f"peer gone at {at}: the application got no http.disconnect")

    async def cut_body(self, message: Message) -> None:
        """A body that ends with its connection, in its midst, never passes for a whole one."""
        for at in message.in_body():
            for how, cut in (("gone", MemoryConnection.lose), ("at its end", MemoryConnection.feed_eof)):
                connection = self.connect(self.answer)
                connection.feed(message.data[:at])
                await connection.settle(2)
                cut(connection)
                await connection.settle(20)
                if self.seen:
                    raise CheckFailed(f"peer {how} at {at}, in its body: the application got that as the whole body")
                await self._end(f"peer {how} at {at}")

    async def deadlines(self, message: Message) -> None:
        """A peer that stops, or dawdles, at any place is not waited for."""
        config = memory_service(self.answer, self.registry, **self.settings).config
        for at in (0, *message.in_head(4)):
            connection = self.connect(self.answer)
            connection.feed(message.data[:at])
            await self._gone(FOREVER, f"a peer that stops at {at}, in the head, is waited for")
        for at in message.in_body():
            connection = self.connect(self.answer)
            connection.feed(message.data[:at])
            await connection.settle(2)
            await self._gone(FOREVER, f"a peer that stops at {at}, in the body, is waited for", in_body=True)
        if message.opens > 8:
            connection = self.connect(self.answer)
            for at in range(min(message.opens - 1, 20)):
                connection.feed(message.data[at : at + 1])
                await self._advance(config.header_timeout * 0.6)
            if not connection.ended:
                raise CheckFailed("a head that comes byte by byte, each within header_timeout, is waited for")
        if message.body >= LONG_BODY and config.min_body_rate:
            connection = self.connect(self.answer)
            connection.feed(message.data[: message.opens])
            for at in range(message.opens, message.opens + 60):
                connection.feed(message.data[at : at + 1])
                await self._advance(config.request_timeout * 0.5)
            if not connection.ended:
                raise CheckFailed("a body that comes far slower than min_body_rate is waited for")

    async def endless(self, message: Message) -> None:
        """A head that never ends is not kept."""
        for at in message.in_head(6):
            connection = self.connect(self.answer)
            connection.feed(message.data[:at])
            fed = 0
            try:
                while not connection.ended and not self.service.opened and fed < ENDLESS:
                    connection.feed(message.data[at - 1 : at] * BLOCK)
                    fed += BLOCK
                    await connection.until_read()
            except TimeoutError:
                # It reads no further.
                continue
            if fed >= ENDLESS and not self.service.opened:
                raise CheckFailed(f"a head that goes on with {message.data[at - 1 : at]!r} at {at} is read for ever")

    async def reading_ahead(self, message: Message) -> None:
        """A body is read as its application reads it."""
        if message.body < LONG_BODY:
            return
        connection = self.connect(self.read_late)
        data = message.data
        for at in range(0, len(data), 4096):
            connection.feed(data[at : at + 4096])
            await connection.settle(1)
        taken = message.body - sum(map(len, connection.transport.unread))
        if taken > AHEAD_MAX:
            raise CheckFailed(f"{taken} bytes of a body were read that its application does not read")
        await self._advance(600.0)
        if connection.ended:
            raise CheckFailed("the connection ended while its application did not read the body")
        self.go_on.set()
        await self._until(self._is_answered, "the rest of a body does not come when the application reads on")
        await self._end("after a body that was read late")

    async def reset(self, message: Message) -> None:
        """An answer that is broken off can be told from a whole one, at once."""
        if message.is_head:
            return
        ends = []
        for app in (self.end_late, self.break_late):
            connection = self.connect(app)
            connection.feed(message.data)
            await self._until(self._is_answered, "the beginning of an answer did not come")
            await connection.settle(20)
            before = self._state()
            self.go_on.set()
            await connection.settle(50)
            ends.append(self._state())
            if self._state() == before:
                raise CheckFailed(f"nothing tells the peer that an answer was {('ended', 'broken off')[len(ends) - 1]}")
            await self._end("after an answer in two pieces")
        if ends[0] == ends[1]:
            raise CheckFailed("an answer that is broken off looks like a whole one")

    def _state(self) -> tuple[bytes, bool, bool]:
        connection = self.connection
        return connection.received, connection.ended, connection.was_reset

    async def drain(self, message: Message) -> None:
        """A drain answers what has begun, and closes what has not, at once."""
        self.connect(self.answer, **PATIENT)
        self._begin_drain()
        await self._gone(AT_ONCE, "a drain leaves a connection open on which nothing has begun")
        connection = self.connect(self.answer, **PATIENT)
        connection.feed(message.data)
        await self._until(self._is_answered, "no answer came")
        await connection.settle(20)
        self._begin_drain()
        await self._gone(AT_ONCE, "a drain leaves a connection open on which nothing runs any more")
        busy = self.connect(self.stream, **PATIENT)
        busy.transport.stall()
        busy.feed(message.data)
        await busy.settle(50)
        self._begin_drain()
        busy.transport.unstall()
        await self._until(self._is_answered, "a drain cut off an answer that had begun")
        await self._gone(AT_ONCE, "after its last answer a connection stays open in a drain")
        waiting = self.connect(self.answer_late, **PATIENT)
        waiting.feed(message.data)
        await self._until(lambda: bool(self.seen), "the application did not get the whole request")
        self._begin_drain()
        await waiting.settle(20)
        self.go_on.set()
        await self._until(self._is_answered, "a drain cut off a request whose answer had not begun")
        await self._gone(AT_ONCE, "after the answer a connection stays open in a drain")
        for at in message.in_body()[:1]:
            connection = self.connect(self.answer, **PATIENT)
            connection.feed(message.data[:at])
            await connection.settle(5)
            self._begin_drain()
            await connection.settle(5)
            connection.feed(message.data[at:])
            await self._until(self._is_answered, "a drain cut off a request in the midst of its body")
            await self._gone(AT_ONCE, "after the answer a connection stays open in a drain")

    def _begin_drain(self) -> None:
        """What a worker does."""
        self.service.draining = True
        self.connection.protocol.drain()
        for callback in tuple(self.service.on_drain):
            callback()

    # What they have in common

    async def _advance(self, seconds: float) -> None:
        """Time passes."""
        self.loop.ahead += seconds
        self.connection.after(0.0)
        await self.connection.settle(5)
        self.verdict()

    async def _gone(self, seconds: float, what: str, in_body: bool = False) -> None:
        """The connection ends within so much time, or its only request where that is enough."""
        connection = self.connection
        await connection.settle(20)
        await self._advance(seconds)
        await self._advance(1.0)
        given_up = in_body and self.multiplexed and self.service.opened and not self.service.tasks
        if not connection.ended and not given_up:
            raise CheckFailed(what)
        await self._end(what)

    async def _end(self, how: str) -> None:
        """Every deadline passes: the connection must be gone, and with it all that belonged to it."""
        for _ in range(4):
            await self._advance(FOREVER)
        await self._until(
            lambda: not self.service.connections and not self.service.tasks and self.connection.closed,
            f"{how}: the connection outlived every deadline",
        )

    async def _until(self, true: Callable[[], bool], what: str) -> None:
        try:
            await self.connection.wait_until(lambda: bool(self.service.faults or self.raised) or true(), turns=5000)
        except TimeoutError:
            self.verdict()
            raise CheckFailed(what) from None
        self.verdict()


def _short(seen: Seen) -> str:
    return repr([tuple(part[:60] for part in request) for request in seen])


PARTS = (
    Check.feeding, Check.several, Check.patience, Check.slow_reader, Check.no_reader, Check.half_close, Check.abort,
    Check.cut_body, Check.deadlines, Check.endless, Check.reading_ahead, Check.reset, Check.drain,
)  # fmt: skip


def check_wire(
    wire: Wire,
    requests: Sequence[bytes],
    *,
    registry: Registry | None = None,
    multiplexed: bool = False,
    **settings: Any,
) -> int:
    """Prove a wire with complete messages of its protocol, each of which opens exactly one request.

    Give one without a body, one with a short body, and one with a body of 160,000 bytes or more, as far as the protocol
    has them: only the last shows whether the wire reads ahead of its application. `registry` gives the plugins around
    it (for a wire with settings of its own), `settings` are those of `ServerConfig`. `multiplexed` says that several
    answers are on their way on a connection at once, so that one has left when the transport has it. Returns how many
    connections it took. Raises `CheckFailed` for a broken rule; whatever the wire itself raises is passed on.
    """

    async def run() -> int:
        check = Check(wire, registry, settings, multiplexed)
        for data in requests:
            message = Message(data)
            for part in (Check.learn, *PARTS):
                try:
                    try:
                        await part(check, message)
                    finally:
                        check.verdict()
                except CheckFailed as exc:
                    raise CheckFailed(f"{wire.name}, {part.__name__} of {data[:60]!r}: {exc}") from exc
        return check.connections

    return asyncio.run(run(), loop_factory=Clock)
