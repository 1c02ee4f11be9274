"""Our QPACK against that of others: pylsqpack, which browsers' servers use as ls-qpack, and qh3's, both directions."""

import random
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest
from qh3._hazmat import QpackDecoder, QpackEncoder
from tests.clients.ordinary import conversation

from pounce.contract.head import Headers
from pounce.exchange.answers import AnswerTable
from pounce.exchange.budget import Budget
from pounce.exchange.huffman import HuffmanDecoder
from pounce_h3.engine import QuicError, StreamBlocked
from pounce_h3.qpack_decode import FieldDecoder
from pounce_h3.qpack_encode import PREFIX, content_length_field, encode_field, encode_fields

HUFFMAN = HuffmanDecoder()
BLOCKED = 16
CAPACITY_1024 = b"\x3f\xe1\x07"
"""Set Dynamic Table Capacity."""
LISTS = 400
"""Header lists of one conversation."""


class Encoder(Protocol):
    """The encoding end of somebody else's."""

    def encode(self, stream_id: int, fields: Headers) -> tuple[bytes, bytes]:
        """The instructions that a section needs, and the section."""

    def feed_decoder(self, data: bytes) -> None: ...


class Lsqpack:
    """pylsqpack at the other end of a pipe: see tests/clients/qpack_peer.py."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call
        self._made = 0

    def do(self, *what: Any) -> Any:
        """What a call gives back. Raises `ValueError` with the name of what it raised."""
        found = self._call(*what)
        if "raised" in found:
            raise ValueError(found["raised"])
        return found["is"]

    def encoder(self, capacity: int) -> tuple[LsqpackEncoder, bytes]:
        """One for a table of this size, and its first instruction."""
        self._made += 1
        return LsqpackEncoder(self, self._made), bytes.fromhex(self.do("encoder", self._made, capacity, BLOCKED))

    def decoder(self, capacity: int) -> LsqpackDecoder:
        """One for a table of this size."""
        self._made += 1
        self.do("decoder", self._made, capacity, BLOCKED)
        return LsqpackDecoder(self, self._made)


class LsqpackEncoder:
    def __init__(self, peer: Lsqpack, number: int) -> None:
        self._peer = peer
        self._number = number

    def encode(self, stream_id: int, fields: Headers) -> tuple[bytes, bytes]:
        texts = [(name.hex(), value.hex()) for name, value in fields]
        instructions, section = self._peer.do("encode", self._number, stream_id, texts)
        return bytes.fromhex(instructions), bytes.fromhex(section)

    def feed_decoder(self, data: bytes) -> None:
        self._peer.do("feed_decoder", self._number, data.hex())


class LsqpackDecoder:
    def __init__(self, peer: Lsqpack, number: int) -> None:
        self._peer = peer
        self._number = number

    def feed_encoder(self, data: bytes) -> list[int]:
        """Streams that are blocked no more."""
        found: list[int] = self._peer.do("feed_encoder", self._number, data.hex())
        return found

    def decode(self, stream_id: int, section: bytes) -> tuple[bytes, Headers]:
        """What the encoder is told, and the fields."""
        return self._fields(self._peer.do("decode", self._number, stream_id, section.hex()))

    def resume(self, stream_id: int) -> tuple[bytes, Headers]:
        """The same for a stream that was blocked."""
        return self._fields(self._peer.do("resume", self._number, stream_id))

    def cancel(self, stream_id: int) -> None:
        self._peer.do("cancel", self._number, stream_id)

    @staticmethod
    def _fields(found: Any) -> tuple[bytes, Headers]:
        instructions, fields = found
        return bytes.fromhex(instructions), [(bytes.fromhex(name), bytes.fromhex(value)) for name, value in fields]


@pytest.fixture(scope="module")
def lsqpack() -> Iterator[Lsqpack]:
    with conversation("qpack_peer") as call:
        yield Lsqpack(call)


def our_decoder(capacity: int) -> FieldDecoder:
    budget = Budget("instructions", 10**9, 0, lambda: 0.0, ValueError)
    return FieldDecoder(capacity, BLOCKED if capacity else 0, 10**6, 1000, HUFFMAN, budget)


class Lists:
    """Header lists as clients and applications make them: much is repeated, some never comes again."""

    def __init__(self, rng: random.Random, *, text: bool = False) -> None:
        self._rng = rng
        self._text = text
        """Nothing but ASCII, and nothing that is long."""
        self._fields = [
            (b":method", b"GET"), (b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"example.org"),
            (b":status", b"200"), (b"accept", b"*/*"), (b"accept-encoding", b"gzip, deflate, br, zstd"),
            (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0"),
            (b"accept-language", b"de,en-US;q=0.7,en;q=0.3"), (b"sec-fetch-mode", b"no-cors"), (b"dnt", b"1"),
            (b"content-type", b"text/html; charset=utf-8"), (b"x-empty", b""), (b"priority", b"u=1, i"),
        ]  # fmt: skip

    def next(self) -> Headers:
        rng = self._rng
        found = [field for field in self._fields if rng.randrange(3)]
        found += [(b":path", b"/%d?%s" % (rng.randrange(40), self._value(20)))]
        found += [(b"cookie", self._value(60)) for _ in range(rng.randrange(3))]
        if not rng.randrange(4):
            found.append((b"x-long", self._value(300 if self._text else 5000)))
            self._fields.append((b"x-%d" % rng.randrange(10), self._value(rng.choice([10, 100]))))
        rng.shuffle(found)
        return found

    def _value(self, size: int) -> bytes:
        length = self._rng.randrange(size)
        if self._text or self._rng.randrange(3):
            return bytes(self._rng.choices(b"abcdefghijklmnopqrstuvwxyz0123456789-_.~%=;", k=length))
        return self._rng.randbytes(length)


class Conversation:
    """What another's encoder says, to our decoder; its instructions may come later than what needs them."""

    def __init__(self, rng: random.Random, encoder: Encoder, first: bytes, capacity: int) -> None:
        self._rng = rng
        self._encoder = encoder
        self._decoder = our_decoder(capacity)
        self._late = first
        self._sent: dict[int, tuple[bytes, Headers]] = {}
        """Sections that are not read, and what they mean."""
        self.read = self.blocked = self.cancelled = 0

    def send(self, stream_id: int, fields: Headers) -> None:
        """One section, read now or later."""
        instructions, section = self._encoder.encode(stream_id, fields)
        self._late += instructions
        self._sent[stream_id] = section, fields
        if self._rng.randrange(2):
            self.catch_up()
        self._read(stream_id)
        if not self._rng.randrange(4):
            self.catch_up()
        if self._sent and not self._rng.randrange(5):
            self._cancel(self._rng.choice(list(self._sent)))
        if self._rng.randrange(2):
            self._tell()

    def _read(self, stream_id: int) -> None:
        section, fields = self._sent[stream_id]
        try:
            found = self._decoder.decode(stream_id, section)[0]
        except StreamBlocked:
            self.blocked += 1
            return
        assert found == fields
        del self._sent[stream_id]
        self.read += 1

    def catch_up(self) -> None:
        """Read the instructions that are there, cut anywhere, and what waited for them."""
        while self._late:
            at = self._rng.randrange(1, len(self._late) + 1)
            data, self._late = self._late[:at], self._late[at:]
            self._decoder.encoder_instructions(data)
            for stream_id in self._decoder.unblocked():
                self._read(stream_id)

    def _cancel(self, stream_id: int) -> None:
        self._decoder.cancel(stream_id)
        del self._sent[stream_id]
        self.cancelled += 1

    def _tell(self) -> None:
        data = self._decoder.instructions()
        if data:
            self._encoder.feed_decoder(data)

    def end(self) -> None:
        self.catch_up()
        self._tell()
        assert not self._sent


@pytest.mark.parametrize("capacity", [0, 100, 512, 4096, 65536])
def test_what_pylsqpack_encodes_is_decoded(lsqpack: Lsqpack, capacity: int) -> None:
    rng = random.Random(capacity)
    encoder, first = lsqpack.encoder(capacity)
    conversation = Conversation(rng, encoder, first, capacity)
    lists = Lists(rng)
    for number in range(LISTS):
        conversation.send(4 * number, lists.next())
    conversation.end()
    assert conversation.read + conversation.cancelled == LISTS
    assert (conversation.blocked > 0, conversation.cancelled > 0) == (capacity > 0, capacity > 0)


def test_what_qh3_encodes_is_decoded() -> None:
    rng = random.Random(1)
    encoder = QpackEncoder()
    conversation = Conversation(rng, encoder, encoder.apply_settings(4096, 4096, BLOCKED), 4096)
    lists = Lists(rng, text=True)
    for number in range(LISTS):
        conversation.send(4 * number, lists.next())
    conversation.end()
    assert conversation.read + conversation.cancelled == LISTS


def answers_of(rng: random.Random, *, text: bool) -> Iterator[tuple[Headers, bytes]]:
    """Header lists, and what ours encodes them to: as answers that are kept, and as trailers."""
    table = AnswerTable(encode_field, PREFIX)
    lists = Lists(rng, text=text)
    for number in range(LISTS):
        fields = [field for field in lists.next() if field[0] != b":status"]
        yield fields, encode_fields(fields)
        status = rng.choice([200, 304, 404, 418, 503])
        block = table.encode(status, fields).block + content_length_field(number)
        yield [(b":status", b"%d" % status), *fields, (b"content-length", b"%d" % number)], block


def test_what_we_encode_is_decoded_by_pylsqpack(lsqpack: Lsqpack) -> None:
    decoder = lsqpack.decoder(4096)
    for number, (fields, section) in enumerate(answers_of(random.Random(2), text=False)):
        assert decoder.decode(4 * number, section) == (b"", fields)


def test_what_we_encode_is_decoded_by_qh3() -> None:
    decoder = QpackDecoder(4096, BLOCKED)
    for number, (fields, section) in enumerate(answers_of(random.Random(3), text=True)):
        assert decoder.feed_header(4 * number, section)[1] == fields


class Both:
    """Our decoder beside pylsqpack's, which must make the same of everything."""

    def __init__(self, lsqpack: Lsqpack, capacity: int) -> None:
        self._theirs = lsqpack.decoder(capacity)
        self._ours = our_decoder(capacity)

    def instruct(self, data: bytes) -> bool:
        """Whether both take these instructions."""
        try:
            self._ours.encoder_instructions(data)
            ours = True
        except QuicError:
            ours = False
        try:
            self._theirs.feed_encoder(data)
            theirs = True
        except ValueError as exc:
            assert str(exc) == "EncoderStreamError"
            theirs = False
        assert ours is theirs, data.hex()
        return ours

    def decode(self, stream_id: int, section: bytes) -> object:
        """What both make of a section: its fields, or what is wrong."""
        ours: object
        try:
            ours = self._ours.decode(stream_id, section)[0]
        except QuicError:
            ours = "DecompressionFailed"
        except StreamBlocked:
            ours = "StreamBlocked"
        theirs: object
        try:
            theirs = self._theirs.decode(stream_id, section)[1]
        except ValueError as exc:
            theirs = str(exc)
        if theirs == "StreamBlocked":
            self._ours.cancel(stream_id)
            self._theirs.cancel(stream_id)
            # It looks at the Base when the entries are there.
            assert ours in (theirs, "DecompressionFailed"), section.hex()
        else:
            assert ours == theirs, section.hex()
        return ours


def changed(rng: random.Random, data: bytes) -> bytes:
    """Something like it, which may mean anything."""
    at = rng.randrange(len(data))
    how = rng.randrange(4)
    if how == 0:
        return data[:at]
    if how == 1:
        return data[:at] + bytes((data[at] ^ 1 << rng.randrange(8),)) + data[at + 1 :]
    if how == 2:
        return data[:at] + rng.randbytes(1) + data[at:]
    return data[:at] + data[at + 1 :]


def test_any_section_means_the_same_to_pylsqpack(lsqpack: Lsqpack) -> None:
    rng = random.Random(4)
    outcomes: set[str] = set()
    for _ in range(10):
        encoder, first = lsqpack.encoder(1024)
        both = Both(lsqpack, 1024)
        assert both.instruct(first)
        lists = Lists(rng)
        for number in range(20):
            instructions, section = encoder.encode(4 * number, lists.next())
            for more in range(3):
                found = both.decode(4 * (1000 + 10 * number + more), changed(rng, section))
                outcomes.add(found if isinstance(found, str) else "fields")
            if instructions:
                assert both.instruct(instructions)
    assert outcomes == {"fields", "DecompressionFailed", "StreamBlocked"}


def test_any_instruction_means_the_same_to_pylsqpack(lsqpack: Lsqpack) -> None:
    rng = random.Random(5)
    outcomes: set[bool] = set()
    for _ in range(200):
        both = Both(lsqpack, 1024)
        assert both.instruct(CAPACITY_1024 + b"\x41a\x01b")
        # Followed by duplicates, so that none is incomplete.
        data = changed(rng, b"\x4acustom-key\x0ccustom-value\x01\x81\x01x\xd1\x02ab\x3f\x61")
        outcomes.add(both.instruct(data + b"\0" * 256))
        both.decode(4, b"\x02\x00\x80\xd1")
    assert outcomes == {True, False}
