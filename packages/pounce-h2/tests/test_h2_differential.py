"""The h2 library reads the same frames: what it takes for an error is one here, and the other way round.

Frames are drawn from a few streams and small values, so that most sequences meet the state machine's corners. The two
are compared frame by frame, up to the first that either refuses; the exceptions are listed, with their reason.
"""

import asyncio
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import hpack
import pytest
from h2_peer import Peer
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pounce.exchange.huffman import HuffmanDecoder
from pounce_h2.decode import CompressionError, FieldDecoder
from pounce_h2.frames import PREFACE, ErrorCode, Kind, frame, settings_frame

GET = b"\x82\x86\x84\x01\x0bexample.org"
POST = b"\x83\x86\x84\x01\x0bexample.org"
BLOCKS = [
    GET,
    GET,
    POST,
    POST,
    b"\x82",
    b"\x80",
    b"\x00\x01a\x01b",
    b"\xbe",
    GET + b"\x40\x01a\x01b",
    b"\x20" + GET,
    b"\x82\x86\x41\x01a\x04\x01/",
    b"\x82\x86\xbe\x04\x02/a",
    b"\x82\x86\xbe\x04\x02/b",
    b"\x82\x86\xbe\x04\x02 b",
    GET + b"\x00\x01A\x01b",
    GET + b"\x00\x0aconnection\x05close",
    POST + b"\x0f\x0d\x012",
    b"\x82\x86\x84",
    b"",
]
NUMBERS = st.sampled_from([0, 1, 3, 5, 100, 16_383, 16_384, 2**24, 2**31 - 1, 2**31, 2**32 - 1]).map(
    lambda value: value.to_bytes(4)
)
STREAMS = st.sampled_from([0, 1, 1, 1, 3, 3, 5, 2])


def built(kind: int, flags: list[int], streams: st.SearchStrategy[int], payloads: list[bytes]) -> Any:
    return st.builds(frame, st.just(kind), st.sampled_from(flags), streams, st.sampled_from(payloads))


FRAMES = st.one_of(
    st.builds(
        frame, st.just(Kind.HEADERS), st.sampled_from([4, 4, 5, 5, 0, 1, 0x2D, 0x0D]), STREAMS, st.sampled_from(BLOCKS)
    ),
    st.builds(
        frame, st.just(Kind.DATA), st.sampled_from([0, 1, 8]), STREAMS, st.sampled_from([b"", b"x", b"xy", b"\x02xyz"])
    ),
    st.builds(
        frame, st.just(Kind.PRIORITY), st.just(0), STREAMS, st.sampled_from([bytes(5), b"\0\0\0\x01\x10", bytes(4)])
    ),
    st.builds(frame, st.just(Kind.RST_STREAM), st.just(0), STREAMS, NUMBERS | st.just(b"\0")),
    st.builds(
        lambda flags, stream, id, value: frame(Kind.SETTINGS, flags, stream, b"" if flags else bytes((0, id)) + value),
        st.sampled_from([0, 0, 0, 1]),
        st.sampled_from([0, 0, 0, 1]),
        st.sampled_from([2, 3, 4, 5, 6]),
        NUMBERS,
    ),
    st.builds(
        frame,
        st.just(Kind.PING),
        st.sampled_from([0, 1]),
        st.sampled_from([0, 0, 1]),
        st.sampled_from([bytes(8), bytes(7)]),
    ),
    st.builds(frame, st.just(Kind.WINDOW_UPDATE), st.just(0), STREAMS, NUMBERS | st.just(b"\0")),
    st.builds(frame, st.just(Kind.CONTINUATION), st.sampled_from([0, 4]), STREAMS, st.sampled_from(BLOCKS)),
    st.builds(frame, st.just(Kind.PUSH_PROMISE), st.just(4), STREAMS, st.just(b"\0\0\0\x02" + GET)),
    st.builds(frame, st.just(0x42), st.just(0), STREAMS, st.just(b"x")),
)


def oracle() -> h2.connection.H2Connection:
    config = h2.config.H2Configuration(client_side=False, header_encoding=None)
    connection = h2.connection.H2Connection(config)
    connection.initiate_connection()
    connection.receive_data(PREFACE + settings_frame({}))
    connection.data_to_send()
    return connection


def oracle_says(connection: h2.connection.H2Connection, data: bytes) -> tuple[str, set[int]]:
    """`"ok"` or `"error"`, and the streams that it opened or reset."""
    try:
        events = connection.receive_data(data)
    except h2.exceptions.ProtocolError:
        return "error", set()
    except IndexError, ValueError, hpack.HPACKError:
        return "error", set()
    opened = {event.stream_id for event in events if isinstance(event, h2.events.RequestReceived)}
    return "ok", {stream for stream in opened if stream}


def differs_for_a_reason(data: bytes, ours: str, theirs: str, resets: int) -> bool:
    kind = data[3]
    if theirs == "error" and ours == "ok" and resets:
        # The h2 library ends the connection where RFC 9113 asks for no more than the stream (8.1.1, 5.4.2).
        return True
    if kind == Kind.PRIORITY and ours == "error":
        # h2 takes what RFC 7540 5.3.1 forbids when the stream is not known.
        return True
    if kind == Kind.HEADERS and not data[4] & 0x4 and ours == "error":
        # h2 looks at a field block when it is complete, and then has the same opinion.
        return True
    if kind == Kind.RST_STREAM and ours == "error":
        # h2 takes one for a stream that is idle still, which RFC 9113 6.4 forbids.
        return True
    if kind == Kind.DATA and ours == "error":
        # On a stream that was passed over, and so is closed: h2 resets it, but 5.1 lets the connection end as well.
        return True
    # Both may come late for a stream that was passed over, which is closed (5.1.1).
    return kind in (Kind.WINDOW_UPDATE, Kind.RST_STREAM) and theirs == "error"


@settings(max_examples=300, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@example(
    [
        b"\x00\x00\x10\x01\x04\x00\x00\x00\x01\x82\x86\x84\x01\x0bexample.org",
        b"\x00\x00\x04\x03\x00\x00\x00\x00\x03\x00\x00\x00\x00",
    ]
)
@example(
    [b"\x00\x00\x10\x01\x04\x00\x00\x00\x03\x82\x86\x84\x01\x0bexample.org", b"\x00\x00\x00\x00\x00\x00\x00\x00\x01"]
)
@given(st.lists(FRAMES, max_size=8))
def test_the_h2_library_has_the_same_opinion(frames: list[bytes]) -> None:
    async def run() -> None:
        started: list[bytes] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            started.append(scope["raw_path"])
            while (await receive())["type"] != "http.disconnect":
                pass

        peer = Peer(app, max_request_size=0)
        theirs = oracle()
        for data in frames:
            seen = len(peer.resets())
            requests = peer.service.requests
            peer.feed(data)
            await peer.settle(2)
            resets = len(peer.resets()) - seen
            ours = "ok" if peer.failed is None else "error"
            verdict, opened = oracle_says(theirs, data)
            if ours != verdict:
                assert differs_for_a_reason(data, ours, verdict, resets), (ours, verdict, peer.failed, data)
                break
            if ours == "error":
                break
            if not resets:
                assert peer.service.requests - requests == len(opened), data
        peer.lose()
        await peer.settle(3)
        assert not peer.service.tasks

    asyncio.run(run())


# Field blocks

HUFFMAN = HuffmanDecoder()
NAMES = st.sampled_from([b":method", b":path", b"host", b"cookie", b"x-a", b"accept", b"set-cookie", b"content-length"])
VALUES = st.one_of(st.sampled_from([b"", b"GET", b"/", b"200", b"gzip, deflate"]), st.binary(max_size=40))
SECTIONS = st.lists(st.lists(st.tuples(NAMES, VALUES), max_size=12), max_size=8)


@settings(max_examples=200, deadline=None)
@given(SECTIONS, st.booleans(), st.lists(st.sampled_from([0, 64, 100, 4096]), max_size=8))
def test_what_hpack_encodes_is_decoded(sections: Any, huffman: bool, sizes: list[int]) -> None:
    encoder = hpack.Encoder()
    decoder = FieldDecoder(4096, 2**20, 1000, HUFFMAN)
    for number, section in enumerate(sections):
        if number < len(sizes):
            encoder.header_table_size = sizes[number]
        found = decoder.decode(encoder.encode(section, huffman=huffman))
        assert found is not None
        assert found == (section, sum(len(name) + len(value) + 32 for name, value in section))


@settings(max_examples=1500, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=30), st.sampled_from(BLOCKS)), max_size=4))
def test_any_octets_mean_the_same_to_hpack(blocks: list[bytes]) -> None:
    theirs = hpack.Decoder(max_header_list_size=2**20)
    theirs.max_allowed_table_size = 4096
    ours = FieldDecoder(4096, 2**20, 1000, HUFFMAN)
    for block in blocks:
        try:
            expected: Any = [(bytes(name), bytes(value)) for name, value in theirs.decode(block, raw=True)]
        except hpack.HPACKError, IndexError, ValueError:
            expected = None
        try:
            found = ours.decode(block)
        except CompressionError:
            found = None
        if expected is None or found is None:
            assert found is expected, block
            return
        assert found[0] == expected


@settings(max_examples=1500, deadline=None)
@given(st.binary(max_size=12), st.sampled_from([b"", b"\x7f", b"\xff", b"\xff\xff\xff\xff"]))
def test_any_octets_are_the_same_huffman_code_to_hpack(start: bytes, end: bytes) -> None:
    found: bytes | None
    try:
        expected: bytes | None = bytes(decode_huffman(start + end))
    except hpack.HPACKDecodingError:
        expected = None
    try:
        found = HUFFMAN.decode(start + end, True)
    except ValueError:
        found = None
    assert found == expected


@settings(deadline=None)
@given(st.binary(max_size=100))
def test_every_octet_has_its_huffman_code(data: bytes) -> None:
    encoder = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
    encoded = encoder.encode(data)
    assert [HUFFMAN.decode(encoded, secret) for secret in (True, False, False)] == [data] * 3


@pytest.mark.parametrize("code", list(ErrorCode))
def test_error_codes_are_those_of_the_library(code: ErrorCode) -> None:
    import h2.errors

    assert h2.errors.ErrorCodes(code).name == code.name


def test_huffman_tables_can_be_printed() -> None:
    """Whoever shows the variables of a traceback prints them; each holds all others."""
    huffman = HuffmanDecoder()
    huffman.decode(HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode(bytes(range(256))), False)
    assert len(repr(huffman._rows)) < 10_000
