"""Packets that no client sends: with keys that anybody can compute (RFC 9001 5.2), and with those of a client."""

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from qh3.quic.crypto import derive_key_iv_hp

from pounce_h3.frames import varint
from pounce_h3.qh3_engine import INITIAL_SUITE, initial_secrets

__all__ = ["initial_packet", "short_packet"]


def initial_packet(
    payload: bytes,
    *,
    destination: bytes,
    source: bytes = b"forged!!",
    token: bytes = b"",
    size: int = 1200,
    number: int = 0,
) -> bytes:
    """An Initial packet with this number and these frames, padded to `size` bytes."""
    head = b"\xc3\0\0\0\x01" + bytes((len(destination),)) + destination + bytes((len(source),)) + source
    head += varint(len(token)) + token
    length = size - len(head) - 2
    payload += bytes(max(length - 4 - 16 - len(payload), 0))
    head += (0x4000 | length).to_bytes(2) + number.to_bytes(4)
    secret = initial_secrets(destination)[0]
    return _sealed((secret, secret), head, payload, number)


def short_packet(
    secrets: tuple[bytes, bytes], payload: bytes, *, destination: bytes, number: int, phase: int = 0
) -> bytes:
    """A 1-RTT packet with these frames, of a client whose cipher is AES-128-GCM, and its secret now and at first."""
    head = bytes((0x43 | phase << 2,)) + destination + number.to_bytes(4)
    return _sealed(secrets, head, payload + bytes(max(4 - len(payload), 0)), number)


def _sealed(secrets: tuple[bytes, bytes], head: bytes, payload: bytes, number: int) -> bytes:
    """RFC 9001 5.3 and 5.4; the packet number is the last four bytes of the header."""
    key, iv, _ = derive_key_iv_hp(cipher_suite=INITIAL_SUITE, secret=secrets[0], version=1)
    # RFC 9001 6: "the header protection key is not updated".
    _, _, hp = derive_key_iv_hp(cipher_suite=INITIAL_SUITE, secret=secrets[1], version=1)
    nonce = (int.from_bytes(iv) ^ number).to_bytes(len(iv))
    sealed = AESGCM(key).encrypt(nonce, payload, head)
    mask = Cipher(algorithms.AES(hp), modes.ECB()).encryptor().update(sealed[:16])
    protected = bytearray(head)
    protected[0] ^= mask[0] & (0x0F if head[0] & 0x80 else 0x1F)
    for at in range(4):
        protected[at - 4] ^= mask[at + 1]
    return bytes(protected) + sealed
