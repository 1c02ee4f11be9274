"""What the wire remembers of earlier requests changes none: sequences of related ones, as the application sees them.

Each request of a sequence is sent alone, too, as literals, to a server that has read nothing else. The application must
see the same both times, field by field, and the client must get the same answer.
"""

import asyncio
import random
from typing import NamedTuple

from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from tests.conformance.h3 import literal_section
from tests.sequences import Seen, StreamRequest, Witness, sequence, trials

from pounce.contract.head import Headers
from pounce.exchange.budget import Budget
from pounce.exchange.huffman import HuffmanDecoder
from pounce.exchange.prefixed import prefixed
from pounce.testing.memory import memory_service
from pounce_h3.engine import QuicError, StreamData
from pounce_h3.frames import frame
from pounce_h3.qpack_decode import FieldDecoder
from pounce_h3.qpack_table import STATIC

from .scripted import ENCODER, ScriptedConnection

TRIALS = 300
"""In the short run."""
CAPACITY = 4096
MAX_ENTRIES = CAPACITY // 32
DATA, HEADERS = 0, 1
HUFFMAN = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
ANSWERS = FieldDecoder(0, 0, 65536, 100, HuffmanDecoder(), Budget("", 1, 1, lambda: 0.0, QuicError))
"""Reads answers, which use no table."""


class Outcome(NamedTuple):
    """What comes of a request."""

    seen: Seen | None
    answered: Headers
    body: bytes
    reset: int | None


def string(data: bytes, first: int, full: int) -> bytes:
    """With the code of Huffman or without it, always the same for the same string."""
    if data and not len(data) % 2:
        data = HUFFMAN.encode(data)
        return prefixed(first | full + 1, full, len(data)) + data
    return prefixed(first, full, len(data)) + data


class Encoder:
    """A client's header compression (RFC 9204): clients write fields variously, and each has its ways."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._entries: dict[int, tuple[bytes, bytes]] = {}
        """The dynamic table, by absolute index."""
        self._inserted = 0
        self._capacity = 0
        self._inserts: dict[bytes, bool] = {}
        """Whether fields of that name are put into the table."""
        self.evicts = False
        """The last instructions take out what a section before may need: they have to wait for it (RFC 9204 2.1.1)."""

    def encode(self, fields: Headers) -> tuple[bytes, bytes]:
        """The instructions that the section needs, and the section."""
        self.evicts = False
        instructions = b""
        if not self._capacity or not self._rng.randrange(20):
            self._capacity = self._rng.choice([CAPACITY, CAPACITY, 300])
            self._evict()
            instructions = prefixed(0x20, 31, self._capacity)
        for field in dict.fromkeys(fields):
            if self._is_for_table(field):
                instructions += self._insert(field)
        found = {field: index for index, field in self._entries.items()}
        used = {field: found[field] for field in fields if field in found and self._rng.randrange(40)}
        required = max(used.values()) + 1 if used else 0
        base = self._rng.choice([required, required, self._inserted, max(0, required - 1)]) if used else 0
        prefix = bytes((0, 0))
        if used:
            behind = (0, base - required) if base >= required else (0x80, required - base - 1)
            prefix = prefixed(0, 255, required % (2 * MAX_ENTRIES) + 1) + prefixed(behind[0], 127, behind[1])
        return instructions, prefix + b"".join(line(field, used.get(field), base) for field in fields)

    def _is_for_table(self, field: tuple[bytes, bytes]) -> bool:
        name, value = field
        if name not in self._inserts or not self._rng.randrange(12):
            self._inserts[name] = name != b":path" and bool(self._rng.randrange(3))
        fits = len(name) + len(value) + 32 <= self._capacity
        known = field in self._entries.values()
        return fits and self._inserts[name] and (not known or not self._rng.randrange(40))

    def _insert(self, field: tuple[bytes, bytes]) -> bytes:
        self._entries[self._inserted] = field
        self._inserted += 1
        self._evict()
        return string(field[0], 0x40, 31) + string(field[1], 0, 127)

    def _evict(self) -> None:
        while sum(len(name) + len(value) + 32 for name, value in self._entries.values()) > self._capacity:
            del self._entries[min(self._entries)]
            self.evicts = True


def line(field: tuple[bytes, bytes], index: int | None, base: int) -> bytes:
    """A field of a section: one of the dynamic table, of the static one, or a literal."""
    name, value = field
    if index is not None:
        return prefixed(0x80, 63, base - 1 - index) if index < base else prefixed(0x10, 15, index - base)
    if field in STATIC:
        return prefixed(0xC0, 63, STATIC.index(field))
    names = [found for found, _ in STATIC]
    if name in names:
        return prefixed(0x50, 15, names.index(name)) + string(value, 0, 127)
    return string(name, 0x20, 7) + string(value, 0, 127)


class Server:
    """A server in memory, with an application that is asked on its connections."""

    def __init__(self) -> None:
        self.witness = Witness()
        self.service = memory_service(
            self.witness,
            date_header=False,
            server_header="",
            max_header_size=1400,
            max_headers=14,
            http3_qpack_max_table_capacity=CAPACITY,
        )

    async def serve(
        self, asked: dict[int, int], fed: list[tuple[int, StreamData | None]], patience: int
    ) -> dict[int, list[Outcome]]:
        """What came of as many requests as are asked on each connection; the loop turns after so many pieces."""
        self.witness.seen = {}
        connections = {number: ScriptedConnection(service=self.service, port=number) for number in asked}
        for count, (number, event) in enumerate(fed):
            if event is None:
                await turns(12)
                continue
            connections[number].feed(event)
            if count % patience == 0:
                await turns(3)
        before = None
        while before != (now := [bytes(b"".join(c.quic.written.values())) for c in connections.values()]):
            before = now
            await turns(12)
        found = {}
        for number, connection in connections.items():
            assert connection.quic.closed is None, connection.quic.closed
            seen = self.witness.seen.get(number, [])
            found[number] = [outcome(connection, 4 * request, seen) for request in range(asked[number])]
            answered = sum(request.seen is not None for request in found[number])
            assert answered == sum(request.ended for request in seen)
            connection.h3.forgotten()
        await turns(3)
        assert not self.service.tasks
        return found


def outcome(connection: ScriptedConnection, stream: int, seen: list[Seen]) -> Outcome:
    sections, body = connection.answer(stream)
    fields = [field for section in sections for field in ANSWERS.decode(0, section)[0]]
    numbers = [int(value) for name, value in fields if name == b"x-number"]
    fields = [field for field in fields if field[0] != b"x-number"]
    return Outcome(seen[numbers[0]] if numbers else None, fields, body, connection.quic.resets.get(stream))


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def as_events(
    rng: random.Random, stream: int, request: StreamRequest, encoder: Encoder | None = None
) -> list[StreamData | None]:
    """What arrives of a request, None where what came before has to be done with; without an encoder it is plain."""
    if encoder is None:
        instructions, lines = b"", literal_section(request.fields)
    else:
        instructions, lines = encoder.encode(request.fields)
    data = frame(HEADERS, lines) + b"".join(frame(DATA, piece) for piece in request.body)
    if request.trailers:
        data += frame(HEADERS, literal_section(request.trailers))
    at = 0 if encoder is None else rng.choice([0, rng.randrange(len(data))])
    events: list[StreamData | None] = [StreamData(stream, data[:at], False)] if at else []
    events.append(StreamData(stream, data[at:], True))
    if instructions:
        # Behind the section that needs them, it has to wait for them.
        events.insert(0 if rng.randrange(5) else len(events), StreamData(ENCODER, instructions, False))
    return [*[None] * (encoder is not None and encoder.evicts), *events]


async def check(rng: random.Random, server: Server) -> None:
    """One sequence, together and each request alone."""
    requests: dict[int, list[StreamRequest]] = {}
    encoders: dict[int, Encoder] = {}
    fed: list[tuple[int, StreamData | None]] = []
    for connection, message in sequence(rng):
        encoder = encoders.setdefault(connection, Encoder(rng))
        request = StreamRequest.of(rng, message)
        of_connection = requests.setdefault(connection, [])
        # A section is the same again, or but for its path, only when nothing has to be put into the table any more.
        for _ in range(rng.choice([1, 1, 2, 3])):
            stream = 4 * len(of_connection)
            of_connection.append(request)
            fed += [(connection, event) for event in as_events(rng, stream, request, encoder)]
            if not rng.randrange(3):
                request = request.with_other_path(rng)
    asked = {connection: len(of_connection) for connection, of_connection in requests.items()}
    together = await server.serve(asked, fed, rng.choice([1, 2, 5, 1000]))
    for connection, of_connection in requests.items():
        for request, outcome in zip(of_connection, together[connection], strict=True):
            plain = [(0, event) for event in as_events(rng, 0, request)]
            alone = (await Server().serve({0: 1}, plain, 1))[0][0]
            assert outcome == alone, f"{request} is {alone} alone, and {outcome} among {of_connection}"


def test_no_request_is_read_with_anything_of_another() -> None:
    async def run() -> None:
        server = Server()
        for trial in trials("sequences, HTTP/3", TRIALS):
            with trial as rng:
                await check(rng, server)

    asyncio.run(run())


def test_same_octets_mean_another_entry_when_the_counts_of_the_table_have_begun_anew() -> None:
    """RFC 9204 4.5.1.1: the Required Insert Count is written modulo twice the entries that the table may have."""

    async def run() -> None:
        server = Server()
        connection = ScriptedConnection(service=server.service, port=1)
        section = prefixed(0, 255, 2) + b"\0" + b"".join(line(field, None, 0) for field in request)
        section += line((b"x-who", b"any"), 0, 1)
        connection.instruct(prefixed(0x20, 31, CAPACITY))
        for who in (b"first", b"second"):
            connection.instruct(string(b"x-who", 0x40, 31) + string(who, 0, 127))
            connection.ask(section)
            await turns(5)
            for _ in range(2 * MAX_ENTRIES - 1):
                connection.instruct(string(b"x-other", 0x40, 31) + string(b"", 0, 127))
        assert [dict(seen.headers)[b"x-who"] for seen in server.witness.seen[1]] == [b"first", b"second"]
        connection.h3.forgotten()

    request = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"example.org"), (b":path", b"/")]
    asyncio.run(run())
