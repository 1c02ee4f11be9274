"""The h2 library reads the same frames: what it takes for an error is one here, and the other way round.

Frames are drawn from a few streams and small values, so that most sequences meet the state machine's corners. The two
are compared frame by frame, up to the first that either refuses; the exceptions are listed, with their reason.
"""

import random
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import hpack
import pytest
from h2_peer import Peer, hang, in_loop
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman
from tests.sequences import trials

from pounce.exchange.huffman import HuffmanDecoder
from pounce_h2.decode import CompressionError, FieldDecoder
from pounce_h2.frames import ACK, PREFACE, ErrorCode, Kind, frame, settings_frame

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
NUMBERS = [number.to_bytes(4) for number in (0, 1, 3, 5, 100, 16_383, 16_384, 2**24, 2**31 - 1, 2**31, 2**32 - 1)]
STREAMS = [0, 1, 1, 1, 3, 3, 5, 2]
FRAMES: list[tuple[int, list[int], list[int], list[bytes]]] = [
    # Type, flags, streams, payloads
    (Kind.HEADERS, [4, 4, 5, 5, 0, 1, 0x2D, 0x0D], STREAMS, BLOCKS),
    (Kind.DATA, [0, 1, 8], STREAMS, [b"", b"x", b"xy", b"\x02xyz"]),
    (Kind.PRIORITY, [0], STREAMS, [bytes(5), b"\0\0\0\x01\x10", bytes(4)]),
    (Kind.RST_STREAM, [0], STREAMS, [*NUMBERS, b"\0"]),
    (Kind.SETTINGS, [0], [0, 0, 0, 1], [bytes((0, setting)) + number for setting in range(2, 7) for number in NUMBERS]),
    (Kind.SETTINGS, [ACK], [0, 0, 0, 1], [b""]),
    (Kind.PING, [0, 1], [0, 0, 1], [bytes(8), bytes(7)]),
    (Kind.WINDOW_UPDATE, [0], STREAMS, [*NUMBERS, b"\0"]),
    (Kind.CONTINUATION, [0, 4], STREAMS, BLOCKS),
    (Kind.PUSH_PROMISE, [4], STREAMS, [b"\0\0\0\x02" + GET]),
    (0x42, [0], STREAMS, [b"x"]),
]


def any_frame(rng: random.Random) -> bytes:
    kind, flags, streams, payloads = rng.choice(FRAMES)
    return frame(kind, rng.choice(flags), rng.choice(streams), rng.choice(payloads))


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


async def compare(peer: Peer, frames: list[bytes]) -> None:
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
    await peer.wait_until(lambda: not peer.service.tasks)


DIFFERED = [
    [frame(Kind.HEADERS, 4, 1, GET), frame(Kind.RST_STREAM, 0, 3, bytes(4))],
    [frame(Kind.HEADERS, 4, 3, GET), frame(Kind.DATA, 0, 1)],
]
"""What had to be settled at one time."""


@pytest.mark.parametrize("frames", DIFFERED)
@in_loop
async def test_the_h2_library_has_the_same_opinion_of_what_once_differed(frames: list[bytes]) -> None:
    await compare(Peer(hang, max_request_size=0), frames)


@in_loop
async def test_the_h2_library_has_the_same_opinion() -> None:
    service = Peer(hang, max_request_size=0).service
    for trial in trials("sequences of frames, HTTP/2", 800):
        with trial as rng:
            await compare(Peer(None, service=service), [any_frame(rng) for _ in range(rng.randrange(1, 12))])


# Field blocks

HUFFMAN = HuffmanDecoder()
NAMES = [b":method", b":path", b"host", b"cookie", b"x-a", b"accept", b"set-cookie", b"content-length"]
VALUES = [b"", b"GET", b"/", b"200", b"gzip, deflate"]


def any_section(rng: random.Random) -> list[tuple[bytes, bytes]]:
    return [
        (rng.choice(NAMES), rng.choice(VALUES) if rng.randrange(2) else rng.randbytes(rng.randrange(41)))
        for _ in range(rng.randrange(13))
    ]


def test_what_hpack_encodes_is_decoded() -> None:
    for trial in trials("sequences of field sections", 300):
        with trial as rng:
            encoder = hpack.Encoder()
            decoder = FieldDecoder(4096, 2**20, 1000, HUFFMAN)
            huffman = rng.randrange(2) == 1
            for _ in range(rng.randrange(9)):
                if rng.randrange(2):
                    encoder.header_table_size = rng.choice([0, 64, 100, 4096])
                section = any_section(rng)
                found = decoder.decode(encoder.encode(section, huffman=huffman))
                assert found == (section, sum(len(name) + len(value) + 32 for name, value in section))


def any_block(rng: random.Random) -> bytes:
    """One of the usual ones, with an octet changed or broken off at times, or any octets."""
    if rng.randrange(3) == 0:
        return rng.randbytes(rng.randrange(31))
    block = bytearray(rng.choice(BLOCKS))
    if block and rng.randrange(2):
        at = rng.randrange(len(block))
        if rng.randrange(3):
            block[at] = rng.randrange(256)
        else:
            del block[at:]
    return bytes(block)


def test_any_octets_mean_the_same_to_hpack() -> None:
    for trial in trials("sequences of field blocks", 3000):
        with trial as rng:
            have_the_same_meaning([any_block(rng) for _ in range(rng.randrange(1, 5))])


def have_the_same_meaning(blocks: list[bytes]) -> None:
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


def test_any_octets_are_the_same_huffman_code_to_hpack() -> None:
    for trial in trials("Huffman codes", 6000):
        with trial as rng:
            data = rng.randbytes(rng.randrange(13)) + rng.choice([b"", b"\x7f", b"\xff", b"\xff\xff\xff\xff"])
            try:
                expected: bytes | None = bytes(decode_huffman(data))
            except hpack.HPACKDecodingError:
                expected = None
            try:
                found: bytes | None = HUFFMAN.decode(data, True)
            except ValueError:
                found = None
            assert found == expected, data


def test_every_octet_has_its_huffman_code() -> None:
    encoder = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
    for trial in trials("texts in the Huffman code", 300):
        with trial as rng:
            data = rng.randbytes(rng.randrange(101))
            encoded = encoder.encode(data)
            assert [HUFFMAN.decode(encoded, secret) for secret in (True, False, False)] == [data] * 3
    every = bytes(range(256))
    assert HUFFMAN.decode(encoder.encode(every), False) == every


@pytest.mark.parametrize("code", list(ErrorCode))
def test_error_codes_are_those_of_the_library(code: ErrorCode) -> None:
    import h2.errors

    assert h2.errors.ErrorCodes(code).name == code.name


def test_huffman_tables_can_be_printed() -> None:
    """Whoever shows the variables of a traceback prints them; each holds all others."""
    huffman = HuffmanDecoder()
    huffman.decode(HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode(bytes(range(256))), False)
    assert len(repr(huffman._rows)) < 10_000
