"""What the wire remembers of earlier requests changes none: sequences of related ones, as the application sees them.

Each request of a sequence is sent alone, too, as literals, to a server that has read nothing else. The application must
see the same both times, field by field, and the client must get the same answer.
"""

import asyncio
import random
from typing import NamedTuple

import hpack
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from tests.sequences import Seen, StreamRequest, Witness, feedings, sequence, trials

from pounce import ServerConfig
from pounce.exchange.huffman import HuffmanDecoder
from pounce.exchange.prefixed import prefixed
from pounce.exchange.service import Service
from pounce.h1.plugin import plugin as h1
from pounce.registry import Registry
from pounce.testing import MemoryConnection
from pounce_h2.frames import ACK, END_HEADERS, END_STREAM, FRAME_HEAD, PREFACE, Kind, frame, settings_frame
from pounce_h2.plugin import plugin

TRIALS = 400
"""In the short run."""

STATIC = hpack.table.HeaderTable.STATIC_TABLE
CONFIG = ServerConfig.of(
    {"access_log": False, "date_header": False, "server_header": "", "max_header_size": 1400, "max_headers": 14}
)
"""It never changes, so that one does for all the servers; what they know of requests is theirs."""
UNUSED = HuffmanDecoder()
"""For servers that are sent no such code."""
SETTINGS = Registry.of(h1, plugin).settings({})
BEGIN = PREFACE + settings_frame({}) + frame(Kind.SETTINGS, ACK, 0)


class Outcome(NamedTuple):
    """What comes of a request."""

    seen: Seen | None
    answered: list[tuple[bytes, bytes]]
    body: bytes
    reset: bytes


class Encoder:
    """A client's header compression (RFC 7541): clients write fields variously, and each has its ways."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._huffman = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
        self._entries: list[tuple[bytes, bytes]] = []
        """The dynamic table, the newest first."""
        self._capacity = 4096
        self._ways: dict[bytes, int] = {}
        self._update = b""

    def resize(self, capacity: int) -> None:
        """Announced in front of the next block."""
        self._capacity = capacity
        self._evict()
        self._update = prefixed(0x20, 31, capacity)

    def _evict(self) -> None:
        while sum(len(name) + len(value) + 32 for name, value in self._entries) > self._capacity:
            self._entries.pop()

    def block(self, fields: list[tuple[bytes, bytes]]) -> bytes:
        update, self._update = self._update, b""
        return update + b"".join(map(self._field, fields))

    def _field(self, field: tuple[bytes, bytes]) -> bytes:
        name, value = field
        known = [*STATIC, *self._entries]
        if field in known and self._rng.randrange(30):
            return prefixed(0x80, 127, known.index(field) + 1)
        if name not in self._ways or not self._rng.randrange(12):
            # With incremental indexing, without, never indexed: paths are rarely put into tables, others often.
            self._ways[name] = self._rng.choice([0x40, 0, 0, 0x10] if name == b":path" else [0x40, 0x40, 0x40, 0, 0x10])
        way = self._ways[name]
        names = [found for found, _ in known]
        at = names.index(name) + 1 if name in names and self._rng.randrange(30) else 0
        data = prefixed(way, 63 if way == 0x40 else 15, at) + (b"" if at else self._string(name)) + self._string(value)
        if way == 0x40:
            self._entries.insert(0, field)
            self._evict()
        return data

    def _string(self, data: bytes) -> bytes:
        if data and not len(data) % 2:
            data = self._huffman.encode(data)
            return prefixed(0x80, 127, len(data)) + data
        return prefixed(0, 127, len(data)) + data


def plain_block(fields: list[tuple[bytes, bytes]]) -> bytes:
    """Literals that use no table and no code."""
    return b"".join(
        b"\0" + prefixed(0, 127, len(name)) + name + prefixed(0, 127, len(value)) + value for name, value in fields
    )


def as_frames(stream: int, request: StreamRequest, rng: random.Random, encoder: Encoder | None = None) -> list[bytes]:
    """The frames of a request, each piece of which may be fed on its own; without an encoder they are plain."""

    def headers(fields: list[tuple[bytes, bytes]], flags: int) -> bytes:
        data = encoder.block(fields) if encoder is not None else plain_block(fields)
        if encoder is None or rng.randrange(6) or len(data) < 2:
            return frame(Kind.HEADERS, flags | END_HEADERS, stream, data)
        at = rng.randrange(1, len(data))
        return frame(Kind.HEADERS, flags, stream, data[:at]) + frame(Kind.CONTINUATION, END_HEADERS, stream, data[at:])

    if encoder is not None and not rng.randrange(20):
        encoder.resize(rng.choice([0, 64, 200, 4096]))
    frames = [headers(request.fields, 0 if request.body or request.trailers else END_STREAM)]
    for number, piece in enumerate(request.body, 1):
        last = number == len(request.body) and not request.trailers
        frames.append(frame(Kind.DATA, END_STREAM if last else 0, stream, piece))
    if request.trailers:
        frames.append(headers(request.trailers, END_STREAM))
    return frames


class Server:
    """A server in memory, with an application that is asked on its connections."""

    def __init__(self, **shared: object) -> None:
        """`shared` is what its connections find in place of their own."""
        self.witness = Witness()
        self.service = Service(CONFIG, self.witness, asyncio.get_running_loop(), settings=SETTINGS)
        self.service.shared.update(shared)

    async def serve(self, fed: list[tuple[int, bytes]], patience: int) -> dict[int, tuple[list[Seen], bytes]]:
        """What the application saw and what came back on each connection; the loop turns after so many pieces."""
        self.witness.seen = {}
        connections = {
            number: MemoryConnection(
                service=self.service, wire=plugin.wires[0], extra={"peername": ("192.0.2.1", number)}
            )
            for number in dict.fromkeys(number for number, _ in fed)
        }
        for connection in connections.values():
            connection.feed(BEGIN)
        for count, (number, data) in enumerate(fed):
            connections[number].feed(data)
            if count % patience == 0:
                await connections[number].settle(3)
        for connection in connections.values():
            await connection.until_read()
        # Each request is complete, so that the application comes to its end, and what it has said leaves after that.
        await connection.wait_until(lambda: not self.service.tasks)
        await connection.settle(2)
        for connection in connections.values():
            connection.lose()
        await asyncio.sleep(0)
        assert not self.service.connections and not self.service.tasks
        return {n: (self.witness.seen.get(n, []), connection.received) for n, connection in connections.items()}


def outcomes(seen: list[Seen], received: bytes, streams: int) -> list[Outcome]:
    """By the number of the request. The application has answered all that it has seen to their end."""
    decoder = hpack.Decoder()
    answered: dict[int, list[tuple[bytes, bytes]]] = {}
    bodies: dict[int, bytes] = {}
    resets: dict[int, bytes] = {}
    at = 0
    while at < len(received):
        size, _, stream = FRAME_HEAD.unpack_from(received, at)
        payload = received[at + 9 : at + 9 + (size >> 8)]
        at += 9 + (size >> 8)
        match size & 0xFF:
            case Kind.HEADERS:
                answered[stream] = [(bytes(name), bytes(value)) for name, value in decoder.decode(payload, raw=True)]
            case Kind.DATA:
                bodies[stream] = bodies.get(stream, b"") + payload
            case Kind.RST_STREAM:
                resets[stream] = payload
            case Kind.GOAWAY:
                raise AssertionError(f"the connection failed: {payload!r}")
    found = []
    for stream in range(1, 2 * streams, 2):
        head = answered.get(stream, [])
        numbers = [int(value) for name, value in head if name == b"x-number"]
        head = [field for field in head if field[0] != b"x-number"]
        found.append(
            Outcome(seen[numbers[0]] if numbers else None, head, bodies.get(stream, b""), resets.get(stream, b""))
        )
    assert sum(outcome.seen is not None for outcome in found) == sum(request.ended for request in seen)
    return found


async def check(rng: random.Random, server: Server) -> None:
    """One sequence, together and each request alone."""
    requests: dict[int, list[StreamRequest]] = {}
    encoders: dict[int, Encoder] = {}
    sent = []
    for connection, message in sequence(rng):
        encoder = encoders.setdefault(connection, Encoder(rng))
        request = StreamRequest.of(rng, message)
        of_connection = requests.setdefault(connection, [])
        # A block is the same again, or but for its path, only when nothing has to be put into the table any more.
        for _ in range(rng.choice([1, 1, 2, 3])):
            of_connection.append(request)
            frames = as_frames(2 * len(of_connection) - 1, request, rng, encoder)
            sent += [(connection, piece) for piece in frames]
            if not rng.randrange(3):
                request = request.with_other_path(rng)
    together = await server.serve(feedings(rng, sent), rng.choice([1, 2, 5, 1000]))
    known: dict[str, Outcome] = {}
    for connection, of_connection in requests.items():
        found = outcomes(*together[connection], len(of_connection))
        for request, outcome in zip(of_connection, found, strict=True):
            alone = known.get(repr(request))
            if alone is None:
                plain = [(0, piece) for piece in as_frames(1, request, rng)]
                alone = known[repr(request)] = outcomes(*(await Server(huffman=UNUSED).serve(plain, 1))[0], 1)[0]
            if alone.reset:
                # Of an answer before it there may be more or less.
                alone = alone._replace(answered=outcome.answered, body=outcome.body)
            assert outcome == alone, f"{request} is {alone} alone, and {outcome} among {of_connection}"


def test_no_request_is_read_with_anything_of_another() -> None:
    async def run() -> None:
        server = Server()
        for trial in trials("sequences, HTTP/2", TRIALS):
            with trial as rng:
                await check(rng, server)

    asyncio.run(run())
