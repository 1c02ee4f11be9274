"""When a certificate expires, which Python's ssl tells of a peer's alone."""

import ssl
from datetime import UTC, datetime

__all__ = ["not_after"]

CONTEXT_0 = 0xA0
UTC_TIME = 0x17


def not_after(certificate: str) -> float:
    """The end of validity of a certificate in PEM, in seconds since the epoch (RFC 5280 4.1.2.5).

    Raises `ValueError` for what is no certificate.
    """
    der = ssl.PEM_cert_to_DER_cert(certificate)
    try:
        # Certificate, TBSCertificate
        _, at, _ = _element(der, 0)
        _, at, _ = _element(der, at)
        tag, _, end = _element(der, at)
        if tag == CONTEXT_0:
            at = end
        # serial number, signature, issuer
        for _ in range(3):
            _, _, at = _element(der, at)
        _, at, _ = _element(der, at)
        _, _, at = _element(der, at)
        tag, start, end = _element(der, at)
        text = der[start:end].decode("ascii")
    except IndexError as exc:
        raise ValueError("the certificate ends in its midst") from exc
    if tag == UTC_TIME:
        # RFC 5280 4.1.2.5.1: years from 50 on are of the last century.
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Tag, and where the content of this element begins and ends (X.690 8.1)."""
    tag, length, at = der[at], der[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length, at = int.from_bytes(der[at : at + size]), at + size
    if at + length > len(der):
        raise IndexError("beyond the end")
    return tag, at, at + length
