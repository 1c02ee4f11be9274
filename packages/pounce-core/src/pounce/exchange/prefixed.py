"""Prefixed integers of field sections (RFC 7541 5.1, RFC 9204 4.1.1)."""

__all__ = ["continued", "prefixed"]

# RFC 9204 4.1.1: "implementations MUST be able to decode integers up to and including 62 bits long".
BITS_MAX = 62


def prefixed(first: int, full: int, value: int) -> bytes:
    """An integer with a prefix of `full` in an octet whose other bits are `first`."""
    if value < full:
        return bytes((first | value,))
    octets = [first | full]
    value -= full
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def continued(data: bytes | bytearray, at: int, value: int) -> tuple[int, int]:
    """An integer that has filled its prefix with `value` and goes on at `at`, and where it ends.

    Raises `IndexError` where it is cut off, `ValueError` where it is longer than any may be.
    """
    shift = 0
    while True:
        octet = data[at]
        at += 1
        value += (octet & 0x7F) << shift
        if octet < 0x80:
            return value, at
        shift += 7
        if shift > BITS_MAX:
            raise ValueError("an integer is too long")
