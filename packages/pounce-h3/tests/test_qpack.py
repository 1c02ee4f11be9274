"""RFC 9204, octet by octet: what a field section and an instruction mean, and what ends a stream or a connection."""

from typing import Any

import pytest

from pounce.contract.head import Headers
from pounce.exchange.budget import Budget
from pounce.exchange.huffman import HuffmanDecoder
from pounce.exchange.prefixed import prefixed
from pounce_h3.codes import (
    H3_EXCESSIVE_LOAD,
    QPACK_DECODER_STREAM_ERROR,
    QPACK_DECOMPRESSION_FAILED,
    QPACK_ENCODER_STREAM_ERROR,
)
from pounce_h3.engine import FieldSectionTooLarge, QuicError, StreamBlocked
from pounce_h3.qpack import Qpack
from pounce_h3.qpack_decode import FieldDecoder
from pounce_h3.qpack_encode import content_length_field, encode_field, encode_fields
from pounce_h3.qpack_table import STATIC

HUFFMAN = HuffmanDecoder()
CAPACITY_220 = b"\x3f\xbd\x01"
"""Set Dynamic Table Capacity to 220, as in RFC 9204 B."""
CAPACITY_4096 = b"\x3f\xe1\x1f"
AUTHORITY = b"\xc0\x0fwww.example.com"
PATH = b"\xc1\x0c/sample/path"


def too_much(message: str) -> QuicError:
    return QuicError(H3_EXCESSIVE_LOAD, message)


def decoder_of(
    capacity: int = 4096, blocked: int = 16, size: int = 65536, fields: int = 100, burst: int = 10**6
) -> FieldDecoder:
    budget = Budget("instructions", burst, 0, lambda: 0.0, too_much)
    return FieldDecoder(capacity, blocked, size, fields, HUFFMAN, budget)


def fields_of(decoder: FieldDecoder, section: bytes, stream_id: int = 0) -> Headers:
    return decoder.decode(stream_id, section)[0]


def code_of(call: Any, *args: Any) -> int:
    """The error that it ends the connection with."""
    with pytest.raises(QuicError) as caught:
        call(*args)
    return caught.value.code


# RFC 9204 B, an exchange of messages


def test_example_of_the_rfc() -> None:
    decoder = decoder_of(220)
    # B.1
    assert fields_of(decoder, b"\0\0\x51\x0b/index.html") == [(b":path", b"/index.html")]
    # B.2
    decoder.encoder_instructions(CAPACITY_220 + AUTHORITY + PATH)
    found = fields_of(decoder, b"\x03\x81\x10\x11", 4)
    assert found == [(b":authority", b"www.example.com"), (b":path", b"/sample/path")]
    assert decoder.instructions() == b"\x84"
    # B.3
    decoder.encoder_instructions(b"\x4acustom-key\x0ccustom-value")
    assert decoder.instructions() == b"\x01"
    # B.4
    decoder.encoder_instructions(b"\x02")
    found = fields_of(decoder, b"\x05\x00\x80\xc1\x81", 8)
    assert found == [(b":authority", b"www.example.com"), (b":path", b"/"), (b"custom-key", b"custom-value")]
    assert decoder.instructions() == b"\x88"
    # B.5
    decoder.encoder_instructions(b"\x81\x0dcustom-value2")
    assert decoder._table.entries == [
        (b":path", b"/sample/path"),
        (b"custom-key", b"custom-value"),
        (b":authority", b"www.example.com"),
        (b"custom-key", b"custom-value2"),
    ]
    assert decoder._table._size == 215


# Field lines


def test_every_line_of_the_static_table() -> None:
    decoder = decoder_of()
    for index, field in enumerate(STATIC):
        assert fields_of(decoder, b"\0\0" + prefixed(0xC0, 0x3F, index)) == [field]
        for never in (0x00, 0x20):
            line = prefixed(0x50 | never, 0x0F, index) + b"\x02ab"
            assert fields_of(decoder, b"\0\0" + line) == [(field[0], b"ab")]


def filled(count: int, capacity: int = 4096) -> FieldDecoder:
    """A table with the entries n0: v0, n1: v1 and so on, all of the same size."""
    decoder = decoder_of(capacity)
    decoder.encoder_instructions(CAPACITY_4096 if capacity == 4096 else prefixed(0x20, 0x1F, capacity))
    for number in range(count):
        decoder.encoder_instructions(b"\x44n%03d\x04v%03d" % (number, number))
    return decoder


def entry(number: int) -> tuple[bytes, bytes]:
    return b"n%03d" % number, b"v%03d" % number


def prefix(decoder: FieldDecoder, required: int, base: int) -> bytes:
    """RFC 9204 4.5.1"""
    encoded = required % (2 * decoder._max_entries) + 1 if required else 0
    if base >= required:
        return prefixed(0, 0xFF, encoded) + prefixed(0, 0x7F, base - required)
    return prefixed(0, 0xFF, encoded) + prefixed(0x80, 0x7F, required - base - 1)


@pytest.mark.parametrize("count", [1, 5, 63, 64, 70, 100, 102])
def test_every_entry_by_every_way_to_name_it(count: int) -> None:
    decoder = filled(count)
    for index in range(count):
        name, value = entry(index)
        for base in (0, index, index + 1, count, count + 7):
            head = prefix(decoder, index + 1, base)
            if base > index:
                lines = [
                    (prefixed(0x80, 0x3F, base - index - 1), value),
                    (prefixed(0x40, 0x0F, base - index - 1) + b"\x01x", b"x"),
                    (prefixed(0x60, 0x0F, base - index - 1) + b"\x01x", b"x"),
                ]
            else:
                lines = [
                    (prefixed(0x10, 0x0F, index - base), value),
                    (prefixed(0x00, 0x07, index - base) + b"\x01x", b"x"),
                    (prefixed(0x08, 0x07, index - base) + b"\x01x", b"x"),
                ]
            for line, expected in lines:
                assert fields_of(decoder, head + line) == [(name, expected)], (index, base, line)


def test_required_insert_count_wraps_around() -> None:
    """RFC 9204 4.5.1.1: it is sent modulo twice the entries there may be."""
    decoder = filled(0, 160)
    for number in range(50):
        decoder.encoder_instructions(b"\x44n%03d\x04v%03d" % (number, number))
        # There is room for four of them.
        for back in range(min(number + 1, 4)):
            head = prefix(decoder, number + 1 - back, number + 1 - back)
            assert fields_of(decoder, head + b"\x80") == [entry(number - back)]


def test_required_insert_count_of_what_is_still_to_come_wraps_around_too() -> None:
    decoder = filled(7, 160)
    with pytest.raises(StreamBlocked):
        decoder.decode(0, prefix(decoder, 12, 12) + b"\x80")
    for number in range(7, 12):
        assert decoder.unblocked() == []
        decoder.encoder_instructions(b"\x44n%03d\x04v%03d" % (number, number))
    assert decoder.unblocked() == [0]
    assert fields_of(decoder, prefix(decoder, 12, 12) + b"\x80") == [entry(11)]


BAD_SECTIONS = {
    "empty": b"",
    "prefix cut off": b"\0",
    "base cut off": b"\0\x7f",
    "required insert count that cannot be": b"\xff\x40\0",
    "required insert count of what is long gone": b"\x02\0\x80",
    "negative base": b"\x65\xff\x64",
    "sign without entries": b"\0\x80",
    "static index that is none": b"\0\0\xff\x24",
    "name of a static index that is none": b"\0\0\x5f\x54\0",
    "entry that was evicted": b"\x65\0\xbf\x25",
    "entry that never was": b"\x65\0\xbf\x7f",
    "entry that is not required": b"\x64\x01\x80\x81",
    "name of an entry that is not required": b"\x64\x01\x40\0\x81",
    "entry behind the base that is not required": b"\x65\x01\x10",
    "name of an entry behind the base that is not required": b"\x65\x01\x00\0",
    "entry without any being required": b"\0\0\x80",
    "more required than needed": b"\x65\0\x81",
    "more required than needed, and none used": b"\x65\0\xc0",
    "name cut off": b"\0\0\x23ab",
    "value missing": b"\0\0\x51",
    "value cut off": b"\0\0\x51\x02a",
    "index cut off": b"\0\0\xff",
    "integer that never ends": b"\0\0\xff" + b"\xff" * 20,
    "Huffman code with wrong padding": b"\0\0\x51\x81\x00",
    "Huffman code with EOS": b"\0\0\x51\x84\xff\xff\xff\xff",
}


@pytest.mark.parametrize("section", BAD_SECTIONS.values(), ids=BAD_SECTIONS)
def test_section_that_means_nothing_ends_the_connection(section: bytes) -> None:
    decoder = filled(100)
    assert len(decoder._table.entries) == 100
    decoder.encoder_instructions(b"\x02" * 20)
    assert code_of(decoder.decode, 0, section) == QPACK_DECOMPRESSION_FAILED


def test_section_that_needs_a_table_where_there_is_none_ends_the_connection() -> None:
    assert code_of(decoder_of(0).decode, 0, b"\x02\0\x80") == QPACK_DECOMPRESSION_FAILED


def test_any_octet_above_ascii_is_opaque() -> None:
    value = bytes(range(0x80, 0x100))
    decoder = decoder_of()
    assert fields_of(decoder, encode_fields([(b"x-lat", value)])) == [(b"x-lat", value)]
    decoder.encoder_instructions(CAPACITY_4096 + b"\x45x-lat\x01\xe9")
    assert fields_of(decoder, b"\x02\0\x80") == [(b"x-lat", b"\xe9")]


# Bounds of a section (RFC 9204 7.4)


def test_what_is_too_large_is_not_an_error_of_the_connection() -> None:
    decoder = decoder_of(size=100, fields=3)
    assert fields_of(decoder, encode_fields([(b"a", b"b" * 99)])) == [(b"a", b"b" * 99)]
    with pytest.raises(FieldSectionTooLarge) as caught:
        decoder.decode(0, encode_fields([(b"a", b"b" * 100)]))
    assert not caught.value.many
    with pytest.raises(FieldSectionTooLarge) as caught:
        decoder.decode(0, b"\0\0" + b"\xd1" * 4)
    assert caught.value.many
    assert fields_of(decoder, b"\0\0" + b"\xd1" * 3) == [STATIC[17]] * 3


@pytest.mark.parametrize("size", [100, 8192, 65536])
def test_size_is_exact_where_it_matters(size: int) -> None:
    decoder = decoder_of(size=size)
    decoder.encoder_instructions(CAPACITY_4096 + b"\x41a\x7f\x81\x0f" + b"v" * 2048)
    for length in (size - 1, size):
        # References mean much more than they take.
        count, rest = divmod(length, 2049)
        lines = b"\x80" * count + encode_field(b"", b"x" * rest)
        section = (b"\x02\0" if count else b"\0\0") + lines
        found, counted = decoder.decode(0, section)
        assert sum(len(name) + len(value) for name, value in found) == length <= counted
    with pytest.raises(FieldSectionTooLarge):
        decoder.decode(0, section + encode_field(b"", b"y"))


def test_short_section_that_means_much_is_too_large() -> None:
    decoder = decoder_of(fields=10**6)
    decoder.encoder_instructions(CAPACITY_4096 + b"\x41a\x7f\x81\x0f" + b"v" * 2048)
    with pytest.raises(FieldSectionTooLarge):
        decoder.decode(0, b"\x02\0" + b"\x80" * 60000)


def test_section_that_is_too_large_is_read_no_further_than_its_count() -> None:
    lines = iter(b"\xd1" * 200)

    class Counting(bytes):
        def __getitem__(self, at: Any) -> Any:
            if isinstance(at, int) and at >= 2:
                next(lines)
            return super().__getitem__(at)

    with pytest.raises(FieldSectionTooLarge):
        decoder_of(fields=100).decode(0, Counting(b"\0\0" + b"\xd1" * 10**6))


# Instructions of the encoder


BAD_INSTRUCTIONS = {
    "capacity above what was promised": b"\x3f\xe2\x1f",
    "entry without a capacity": b"\x41a\x01b",
    "entry larger than the capacity": b"\x3f\x02\x43abc\x01b",
    "value larger than any table": CAPACITY_4096 + b"\x41a\x7f\x82\x1f",
    "Huffman code larger than any table": CAPACITY_4096 + b"\x41a\xff\xff\xff\x7f",
    "name larger than any table": CAPACITY_4096 + b"\x5f\xe2\x1f",
    "static index that is none": CAPACITY_4096 + b"\xff\x24\x01a",
    "name of an entry that never was": CAPACITY_4096 + b"\x80\x01a",
    "duplicate of an entry that never was": CAPACITY_4096 + b"\x00",
    "duplicate of an entry that was evicted": b"\x3f\x15\x41a\x01b\x41a\x01c\x01",
    "integer that never ends": b"\x3f" + b"\xff" * 20,
    "Huffman code with wrong padding": CAPACITY_4096 + b"\x41a\x81\x00",
}


@pytest.mark.parametrize("data", BAD_INSTRUCTIONS.values(), ids=BAD_INSTRUCTIONS)
def test_instruction_that_cannot_be_ends_the_connection(data: bytes) -> None:
    assert code_of(decoder_of().encoder_instructions, data) == QPACK_ENCODER_STREAM_ERROR


@pytest.mark.parametrize("data", BAD_INSTRUCTIONS.values(), ids=BAD_INSTRUCTIONS)
def test_instruction_that_cannot_be_ends_the_connection_however_it_is_cut(data: bytes) -> None:
    decoder = decoder_of()

    def feed() -> None:
        for octet in data:
            decoder.encoder_instructions(bytes((octet,)))

    assert code_of(feed) == QPACK_ENCODER_STREAM_ERROR


@pytest.mark.parametrize("data", [b"\x3f\x00", b"\x21", CAPACITY_4096], ids=["31", "1", "4096"])
def test_there_is_no_table_where_none_was_promised(data: bytes) -> None:
    assert code_of(decoder_of(0).encoder_instructions, data) == QPACK_ENCODER_STREAM_ERROR
    decoder_of(0).encoder_instructions(b"\x20")


def test_entry_may_have_the_name_of_one_that_it_evicts() -> None:
    """RFC 9204 3.2.2"""
    decoder = decoder_of()
    decoder.encoder_instructions(prefixed(0x20, 0x1F, 40) + b"\x43abc\x05value" + b"\x80\x04next")
    assert decoder._table.entries == [(b"abc", b"next")]
    decoder.encoder_instructions(b"\x00")
    assert (decoder._table.entries, decoder._table.inserted) == ([(b"abc", b"next")], 3)


def test_smaller_capacity_evicts() -> None:
    decoder = filled(10)
    decoder.encoder_instructions(prefixed(0x20, 0x1F, 85))
    assert decoder._table.entries == [entry(8), entry(9)]
    assert fields_of(decoder, prefix(decoder, 9, 9) + b"\x80") == [entry(8)]
    assert code_of(decoder.decode, 0, prefix(decoder, 8, 8) + b"\x80") == QPACK_DECOMPRESSION_FAILED
    decoder.encoder_instructions(b"\x20")
    assert (decoder._table.entries, decoder._table._size) == ([], 0)


INSTRUCTIONS = (
    CAPACITY_220
    + AUTHORITY
    + PATH
    + b"\x4acustom-key\x0ccustom-value"
    + b"\x02"
    # With codes of Huffman, and with long strings.
    + b"\x66\xa8\xeb\x10\x64\x9c\xbf\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"
    + b"\x5f\x09"
    + b"n" * 40
    + b"\x7f\x01"
    + b"v" * 128
    + b"\x80\x01x"
    + b"\x3f\x60"
    + b"\x00"
)


def state_of(decoder: FieldDecoder) -> Any:
    table = decoder._table
    return table.entries, table.inserted, table._size, table._capacity, decoder.instructions()


def test_instructions_mean_the_same_wherever_they_are_cut() -> None:
    data = INSTRUCTIONS
    whole = decoder_of()
    whole.encoder_instructions(data)
    expected = state_of(whole)
    for at in range(len(data) + 1):
        cut = decoder_of()
        cut.encoder_instructions(data[:at])
        cut.encoder_instructions(data[at:])
        assert state_of(cut) == expected, at
    single = decoder_of()
    for octet in data:
        single.encoder_instructions(bytes((octet,)))
    assert state_of(single) == expected


def test_flood_of_instructions_ends_the_connection() -> None:
    decoder = decoder_of(burst=100)
    decoder.encoder_instructions(CAPACITY_4096 + b"\x41a\x01b" + b"\x00" * 98)
    assert code_of(decoder.encoder_instructions, b"\x00") == H3_EXCESSIVE_LOAD


def test_memory_of_a_table_is_bounded_by_its_capacity() -> None:
    decoder = decoder_of()
    decoder.encoder_instructions(CAPACITY_4096)
    for number in range(10_000):
        decoder.encoder_instructions(b"\x42%02d\x04%04d" % (number % 100, number))
        assert len(decoder._table.entries) <= 4096 // 38
    assert len(decoder._buffer) == 0


def test_string_of_an_instruction_waits_within_bounds() -> None:
    decoder = decoder_of()
    decoder.encoder_instructions(CAPACITY_4096 + b"\x41a\x7f\x81\x1f" + b"v" * 4095)
    assert len(decoder._buffer) <= 4096 + 8


# What the encoder is told


def test_insertions_that_no_section_has_acknowledged_are_counted_exactly() -> None:
    decoder = filled(5)
    decoder.decode(4, prefix(decoder, 3, 3) + b"\x80")
    # RFC 9204 2.1.4: the acknowledgment says that three are there, the increment that two more are.
    assert decoder.instructions() == b"\x84\x02"
    decoder.decode(8, prefix(decoder, 5, 5) + b"\x80")
    assert decoder.instructions() == b"\x88"
    assert (decoder.pending, decoder.instructions()) == (False, b"")


def test_section_without_entries_is_not_acknowledged() -> None:
    decoder = filled(5)
    decoder.instructions()
    decoder.decode(4, b"\0\0\xd1")
    assert (decoder.pending, decoder.instructions()) == (False, b"")


def test_large_stream_ids_and_counts_are_encoded() -> None:
    decoder = filled(100)
    decoder.decode(4_000_000, prefix(decoder, 1, 1) + b"\x80")
    decoder.cancel(4_000_004)
    assert decoder.instructions() == (
        prefixed(0x80, 0x7F, 4_000_000) + prefixed(0x40, 0x3F, 4_000_004) + prefixed(0x00, 0x3F, 99)
    )


def test_nothing_is_cancelled_where_there_is_no_table() -> None:
    decoder = decoder_of(0)
    decoder.cancel(4)
    assert (decoder.pending, decoder.instructions()) == (False, b"")


# Blocked streams


def test_blocked_streams_go_on_when_what_they_need_is_there() -> None:
    decoder = filled(0)
    sections = {
        4: prefix(decoder, 2, 2) + b"\x80",
        0: prefix(decoder, 1, 1) + b"\x80",
        8: prefix(decoder, 3, 3) + b"\x81\x80",
    }
    for stream_id, section in sections.items():
        with pytest.raises(StreamBlocked):
            decoder.decode(stream_id, section)
    seen = []
    for number in range(3):
        decoder.encoder_instructions(b"\x44n%03d\x04v%03d" % (number, number))
        seen += [(each, fields_of(decoder, sections[each], each)) for each in decoder.unblocked()]
        assert decoder.unblocked() == []
    assert seen == [(0, [entry(0)]), (4, [entry(1)]), (8, [entry(1), entry(2)])]


def test_more_blocked_streams_than_promised_end_the_connection() -> None:
    decoder = decoder_of(blocked=2)
    for stream_id in (0, 4):
        with pytest.raises(StreamBlocked):
            decoder.decode(stream_id, b"\x02\0\x80")
    # What is not blocked is read all the same.
    assert fields_of(decoder, b"\0\0\xd1") == [STATIC[17]]
    assert code_of(decoder.decode, 8, b"\x02\0\x80") == QPACK_DECOMPRESSION_FAILED


def test_cancelled_stream_is_blocked_no_more() -> None:
    decoder = decoder_of(blocked=1)
    for stream_id in range(0, 400, 4):
        with pytest.raises(StreamBlocked):
            decoder.decode(stream_id, b"\x02\0\x80")
        decoder.cancel(stream_id)
    decoder.encoder_instructions(CAPACITY_4096 + b"\x41a\x01b")
    assert decoder.unblocked() == []


# Sections that differ in their path


SAME_BUT_FOR_PATH = {
    "indexed before it": (b"\0\0\xd1\xd7\xc0\x51", b"\x02/a", b"\xc4"),
    "never indexed": (b"\0\0\xd1\xd7\x71", b"\x02/a", b""),
    "authority before it": (b"\0\0\xd1\x50\x03a.b\x51", b"\x02/a", b"\xd7"),
    "authority with a code of Huffman": (b"\0\0\x50\x82\x1c\x64\x51", b"\x02/a", b"\xd1"),
    "long authority": (b"\0\0\x50\x7f\x0d" + b"a" * 140 + b"\x51", b"\x02/a", b"\xd1"),
    "entries before it": (b"\x03\0\x80\x81\x51", b"\x02/a", b"\xd1"),
    "long path": (b"\0\0\xd1\x51", b"\x7f\x0d" + b"/" * 140, b"\xd7"),
}


@pytest.mark.parametrize(("before", "string", "behind"), SAME_BUT_FOR_PATH.values(), ids=SAME_BUT_FOR_PATH)
def test_path_is_found(before: bytes, string: bytes, behind: bytes) -> None:
    decoder = filled(2)
    section = before + string + behind
    assert decoder.without_path(section) == (before + behind, len(before))
    path = decoder.string(section, len(before))
    assert path == dict(fields_of(decoder, section))[b":path"]


NO_PATH = {
    "none": b"\0\0\xd1\xd7",
    "indexed": b"\0\0\xd1\xc1",
    "with the name of an entry": b"\x02\0\x40\x02/a",
    "with a name of its own": b"\0\0\x25:path\x02/a",
    "behind another literal": b"\0\0\x5f\x02\x03GET\x51\x02/a",
    "behind a large index": b"\0\0\xff\x02\x51\x02/a",
    "cut off": b"\0\0\x51\x02/",
    "without its string": b"\0\0\x51",
    "behind an authority that is cut off": b"\0\0\x50\x05abc",
    "large prefix": b"\xff\x01\0\x51\x02/a",
    "empty": b"",
}


@pytest.mark.parametrize("section", NO_PATH.values(), ids=NO_PATH)
def test_section_that_cannot_be_taken_apart_is_decoded_whole(section: bytes) -> None:
    assert decoder_of().without_path(section) is None


# The sending side


def test_encoded_fields_come_back() -> None:
    fields = [
        *STATIC, (b"x-a", b""), (b"x-" + b"n" * 300, b"v" * 300), (b"content-length", b"17"), (b"set-cookie", b"a=1"),
        (b":status", b"418"), (b"x", bytes(range(0x80, 0x100))), (b"y" * 7, b"z" * 127), (b"set-cookie", b"y" * 8117),
    ]  # fmt: skip
    sent = [field for field in fields if field[0] not in (b"connection", b"upgrade")]
    assert fields_of(decoder_of(fields=1000), encode_fields(fields)) == sent


def test_secrets_are_never_indexed() -> None:
    assert encode_field(b"set-cookie", b"a")[0] & 0x20
    assert encode_field(b"authentication-info", b"a")[0] & 0x10
    assert not encode_field(b"x-a", b"a")[0] & 0x10


@pytest.mark.parametrize("length", [0, 7, 10**18])
def test_content_length_is_encoded(length: int) -> None:
    assert fields_of(decoder_of(), b"\0\0" + content_length_field(length)) == [(b"content-length", b"%d" % length)]


def qpack() -> Qpack:
    from types import SimpleNamespace

    from pounce.config import ServerConfig

    service: Any = SimpleNamespace(shared={}, config=ServerConfig())
    return Qpack(service, Budget("instructions", 100, 0, lambda: 0.0, too_much))


@pytest.mark.parametrize("data", [b"\x80", b"\x84", b"\x01", b"\x00", b"\x44\x84"])
def test_acknowledgment_of_what_was_never_sent_ends_the_connection(data: bytes) -> None:
    """RFC 9204 4.4.1, 4.4.3"""
    assert code_of(qpack().decoder_instructions, data) == QPACK_DECODER_STREAM_ERROR


def test_cancellations_are_nothing_wherever_they_are_cut() -> None:
    data = b"\x44\x7f\xc1\x84\x3d\x7f\x00\x40"
    codec = qpack()
    for octet in data * 5:
        codec.decoder_instructions(bytes((octet,)))
    codec.decoder_instructions(data)
    assert codec._rest == b""
    assert code_of(codec.decoder_instructions, b"\x7f" + b"\xff" * 20) == QPACK_DECODER_STREAM_ERROR


def test_flood_of_cancellations_ends_the_connection() -> None:
    assert code_of(qpack().decoder_instructions, b"\x44" * 101) == H3_EXCESSIVE_LOAD
