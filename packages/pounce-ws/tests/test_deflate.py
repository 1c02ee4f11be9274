"""permessage-deflate (RFC 7692): what is agreed on, and what is sent then."""

import zlib
from typing import Any

import pytest
from peer import BINARY, CONTINUATION, DEFLATE, TEXT, App, Echo, Peer, in_loop, masked, opened

from pounce.errors import BadRequest
from pounce_ws.deflate import negotiate, parse_extensions

pytestmark = pytest.mark.usefixtures("wire")

OFFERS = {
    "permessage-deflate": "permessage-deflate",
    "permessage-deflate; client_max_window_bits": "permessage-deflate; client_max_window_bits=12",
    "permessage-deflate; client_max_window_bits=10": "permessage-deflate; client_max_window_bits=10",
    "permessage-deflate; client_max_window_bits=8": "permessage-deflate; client_max_window_bits=8",
    'permessage-deflate; client_max_window_bits="15"': "permessage-deflate; client_max_window_bits=12",
    "permessage-deflate; server_max_window_bits=10": "permessage-deflate; server_max_window_bits=10",
    "permessage-deflate; server_max_window_bits=15": "permessage-deflate; server_max_window_bits=12",
    "permessage-deflate;server_no_context_takeover": "permessage-deflate; server_no_context_takeover",
    "permessage-deflate ; client_no_context_takeover": "permessage-deflate; client_no_context_takeover",
    "x-webkit-deflate-frame, permessage-deflate": "permessage-deflate",
    ", ,\t, permessage-deflate ,": "permessage-deflate",
    "permessage-deflate; server_max_window_bits=8": None,
    "permessage-deflate; server_max_window_bits=8, permessage-deflate": "permessage-deflate",
    "permessage-deflate; server_max_window_bits": None,
    "permessage-deflate; server_max_window_bits=16": None,
    "permessage-deflate; server_max_window_bits=010": None,
    "permessage-deflate; client_max_window_bits=7": None,
    "permessage-deflate; server_no_context_takeover=1": None,
    "permessage-deflate; client_no_context_takeover; client_no_context_takeover": None,
    "permessage-deflate; unknown": None,
    "permessage-bzip2": None,
    "": None,
}


@pytest.mark.parametrize(("offer", "answer"), OFFERS.items())
def test_offers(offer: str, answer: str | None) -> None:
    agreement = negotiate(parse_extensions([offer.encode()]), 12, True)
    assert (agreement and agreement.header().decode()) == answer


def test_offers_may_be_in_several_fields() -> None:
    agreement = negotiate(parse_extensions([b"a; b=c", b"permessage-deflate"]), 12, True)
    assert agreement is not None


def test_without_context_takeover_both_directions_are_told() -> None:
    agreement = negotiate(parse_extensions([b"permessage-deflate"]), 15, False)
    assert agreement is not None
    assert agreement.header() == b"permessage-deflate; server_no_context_takeover; client_no_context_takeover"


@pytest.mark.parametrize(
    "value", [b";", b"a b", b"a; b=", b'a; b="c', b'a; b="c d"', b"a;;b", b"a, ;b", b"\xe9", b"a\x7f", b"a=b"]
)
def test_malformed_offers_are_refused(value: bytes) -> None:
    with pytest.raises(BadRequest):
        parse_extensions([value])


def test_a_long_offer_is_read_in_no_time() -> None:
    for value in (b"a; b" * 10_000, b"a" + b" \t" * 30_000, b"a;" + b" " * 60_000, b"a; b=" * 10_000):
        try:
            parse_extensions([value])
        except BadRequest:
            pass


@in_loop
async def test_compression_can_be_switched_off() -> None:
    answer = await Peer(App(), websocket_compression=False).open(DEFLATE)
    assert answer.all(b"sec-websocket-extensions") == []


@in_loop
async def test_messages_from_the_threshold_on_are_compressed() -> None:
    peer = await opened(Echo(), DEFLATE, websocket_compression_min_size=100)
    peer.send(masked(TEXT, b"x" * 99), masked(TEXT, b"x" * 100))
    short, long = await peer.next(2)
    assert short == (0x81, b"x" * 99)
    assert long.first == 0xC1
    assert zlib.decompressobj(-15).decompress(long.payload + b"\0\0\xff\xff") == b"x" * 100


@pytest.mark.parametrize("takeover", [True, False])
@in_loop
async def test_windows_are_kept_from_message_to_message_or_not(takeover: bool) -> None:
    offer = "permessage-deflate" if takeover else "permessage-deflate; server_no_context_takeover"
    peer = await opened(Echo(), (b"sec-websocket-extensions", offer.encode()), websocket_compression_min_size=0)
    text = bytes(range(32, 127)) * 2
    for _ in range(2):
        peer.send(masked(TEXT, text))
    first, second = await peer.next(2)
    assert (len(second.payload) < len(first.payload)) is takeover


@pytest.mark.parametrize("bits", [9, 12, 15])
@in_loop
async def test_the_server_keeps_to_the_window_that_was_asked_for(bits: int) -> None:
    peer = await opened(
        Echo(),
        (b"sec-websocket-extensions", b"permessage-deflate; server_max_window_bits=%d" % bits),
        websocket_compression_window_bits=15,
    )
    inflater: Any = zlib.decompressobj(-bits)
    data = b"".join(b"%06d" % (n * n) for n in range(12_000))
    for _ in range(2):
        peer.send(masked(BINARY, data))
        answer = await peer.one()
        assert inflater.decompress(answer.payload + b"\0\0\xff\xff") == data


@in_loop
async def test_compressed_fragments_with_a_control_frame_between() -> None:
    app = App()
    peer = await opened(app, DEFLATE)
    deflater = zlib.compressobj(wbits=-15)
    data = (deflater.compress("Grüße".encode() * 100) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]
    for at, byte in enumerate(data):
        last = at == len(data) - 1
        peer.send(masked(CONTINUATION if at else TEXT, bytes((byte,)), rsv=0 if at else 4, fin=last))
        if at == 3:
            peer.send(masked(9, b"!"))
    assert (await peer.one()).payload == b"!"
    await peer.settle()
    assert app.messages == ["Grüße" * 100]


@in_loop
async def test_rsv1_on_a_continuation_is_a_protocol_error() -> None:
    peer = await opened(App(), DEFLATE)
    peer.send(masked(TEXT, b"", fin=False), masked(CONTINUATION, b"", rsv=4))
    assert (await peer.one()).close[0] == 1002


@in_loop
async def test_text_that_is_not_utf8_once_it_is_inflated_is_1007() -> None:
    peer = await opened(App(), DEFLATE)
    deflater = zlib.compressobj(wbits=-15)
    peer.send(masked(TEXT, (deflater.compress(b"\xff") + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4], rsv=4))
    assert (await peer.one()).close[0] == 1007
