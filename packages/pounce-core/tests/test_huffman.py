"""The Huffman code of field sections (RFC 7541 B), and what is kept of strings."""

import pytest
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

from pounce.exchange import huffman
from pounce.exchange.huffman import EOS, HUFFMAN_MAX, KNOWN_MAX, KNOWN_VALUE_MAX, HuffmanDecoder

EXAMPLES = {
    # RFC 7541 C.4, C.6
    "f1e3c2e5f23a6ba0ab90f4ff": b"www.example.com",
    "a8eb10649cbf": b"no-cache",
    "25a849e95ba97d7f": b"custom-key",
    "25a849e95bb8e8b4bf": b"custom-value",
    "6402": b"302",
    "aec3771a4b": b"private",
    "d07abe941054d444a8200595040b8166e082a62d1bff": b"Mon, 21 Oct 2013 20:13:21 GMT",
    "9d29ad171863c78f0b97c8e9ae82ae43d3": b"https://www.example.com",
    "94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007": (
        b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"
    ),
    "": b"",
}


@pytest.mark.parametrize(("code", "string"), EXAMPLES.items())
def test_examples_of_the_rfc(code: str, string: bytes) -> None:
    assert HuffmanDecoder().decode(bytes.fromhex(code), False) == string


def test_every_symbol_has_the_code_of_the_rfc() -> None:
    expected = {
        symbol: (code, length)
        for symbol, (code, length) in enumerate(zip(REQUEST_CODES, REQUEST_CODES_LENGTH, strict=True))
    }
    assert {symbol: (code, length) for symbol, code, length in huffman._codes()} == expected


def test_code_is_canonical_and_complete() -> None:
    codes = huffman._codes()
    assert codes == sorted(codes, key=lambda item: (item[2], item[1]))
    assert [symbol for symbol, _, _ in codes[-1:]] == [EOS]
    # Kraft: no bits are left over, and none are used twice.
    assert sum(2 ** (HUFFMAN_MAX - length) for _, _, length in codes) == 2**HUFFMAN_MAX
    for length in {length for _, _, length in codes}:
        symbols = [symbol for symbol, _, bits in codes if bits == length and symbol != EOS]
        assert symbols == sorted(symbols)


@pytest.mark.parametrize(
    "code", ["00", "1f00", "ff", "fe", "1ffe", "07ffff", "ffffffff", "fffffffc", "1fffffffff"],
    ids=["zeros", "an octet of zeros", "eight ones", "a zero at the end", "seven ones and a zero", "two octets of ones",
         "EOS and two ones", "EOS", "EOS behind a symbol"],
)  # fmt: skip
def test_wrong_padding_and_eos_are_errors_also_the_second_time(code: str) -> None:
    decoder = HuffmanDecoder()
    for _ in range(2):
        with pytest.raises(ValueError, match="Huffman"):
            decoder.decode(bytes.fromhex(code), False)


def test_short_string_is_kept_and_a_secret_or_long_one_is_not() -> None:
    decoder = HuffmanDecoder()
    for data, secret in ((b"\x1f", True), (b"\x1f", False), (b"\x00" * KNOWN_VALUE_MAX + b"\x07", False)):
        decoder.decode(data, secret)
    assert decoder._known == {b"\x1f": b"a"}


def test_what_is_kept_is_bounded() -> None:
    decoder = HuffmanDecoder()
    # Four digits are twenty bits, and four ones of padding.
    for number in range(3 * KNOWN_MAX):
        digits = [number >> shift & 7 for shift in (9, 6, 3, 0)]
        code = (digits[0] % 10 << 19 | digits[1] << 14 | digits[2] << 9 | digits[3] << 4) | 0xF
        assert len(decoder.decode(code.to_bytes(3), False)) == 4
        assert len(decoder._known) <= KNOWN_MAX
