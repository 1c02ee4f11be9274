"""Packets that no client sends: Initial packets with keys that anybody can compute (RFC 9001 5.2)."""

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from qh3.quic.crypto import derive_key_iv_hp

from pounce_h3.frames import varint
from pounce_h3.qh3_engine import INITIAL_SUITE, initial_secrets

__all__ = ["initial_packet"]


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
    key, iv, hp = derive_key_iv_hp(cipher_suite=INITIAL_SUITE, secret=initial_secrets(destination)[0], version=1)
    head = b"\xc3\0\0\0\x01" + bytes((len(destination),)) + destination + bytes((len(source),)) + source
    head += varint(len(token)) + token
    length = size - len(head) - 2
    payload += bytes(max(length - 4 - 16 - len(payload), 0))
    head += (0x4000 | length).to_bytes(2) + number.to_bytes(4)
    nonce = (int.from_bytes(iv) ^ number).to_bytes(len(iv))
    sealed = AESGCM(key).encrypt(nonce, payload, head)
    mask = Cipher(algorithms.AES(hp), modes.ECB()).encryptor().update(sealed[:16])
    protected = bytearray(head)
    protected[0] ^= mask[0] & 0x0F
    for at in range(4):
        protected[at - 4] ^= mask[at + 1]
    return bytes(protected) + sealed
