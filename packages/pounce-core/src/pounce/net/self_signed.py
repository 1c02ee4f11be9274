"""A certificate for development: for this machine alone, signed by itself, kept from one start to the next."""

import datetime
import errno
import ipaddress
import os
import tempfile
import time
from pathlib import Path

from pounce.errors import TLSError

__all__ = ["create", "self_signed_file"]

DAYS = 365
RENEWED_AFTER = 300
"""Days after which a new one is made."""


def self_signed_file(folder: Path | None = None) -> Path:
    """A PEM file with private key and certificate for localhost, 127.0.0.1 and ::1, readable for its owner alone.

    It lies in `folder`, by default the user's folder for caches, and is made anew when it is missing or old. Raises
    `TLSError` where that is impossible.
    """
    folder = folder or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pounce"
    path = folder / "self-signed.pem"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_folder(folder)
        status = os.lstat(path)
        ours = status.st_uid == os.geteuid() and status.st_mode & 0o077 == 0
        if ours and time.time() - status.st_mtime < RENEWED_AFTER * 86400:
            return path
    except FileNotFoundError:
        pass
    except OSError as exc:
        raise _impossible(path, exc) from exc
    certificate, key = create()
    try:
        # Its name appears with the whole content, for others that start at the same time.
        handle, temporary = tempfile.mkstemp(dir=folder)
        try:
            with open(handle, "wb") as file:
                file.write(key + certificate)
            os.replace(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise
    except OSError as exc:
        raise _impossible(path, exc) from exc
    return path


def _check_folder(folder: Path) -> None:
    """Raise `PermissionError` for a folder in which others could put a key of their own in the place of ours."""
    status = os.stat(folder)
    if status.st_uid != os.geteuid() or status.st_mode & 0o002:
        raise PermissionError(errno.EPERM, f"the folder {folder} belongs to others, or others can write to it")


def _impossible(path: Path, exc: OSError) -> TLSError:
    return TLSError(
        f"a self-signed certificate cannot be kept at {path}: {exc.strerror or exc}",
        hint="Set XDG_CACHE_HOME to a folder that can be written, or give ssl_certfile and ssl_keyfile.",
    )


def create() -> tuple[bytes, bytes]:
    """A certificate and its private key, PEM. Raises `TLSError` without the library that makes them."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as exc:
        raise TLSError(
            "a self-signed certificate needs the package cryptography",
            code="POUNCE_TLS_SELF_SIGNED",
            hint="pip install 'pounce-core[self-signed]', or give ssl_certfile and ssl_keyfile.",
        ) from exc
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    addresses = [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost"), *addresses]), critical=False)
        # What clients that verify strictly ask of a certificate that they trust by itself (RFC 5280 4.2.1).
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(True, False, False, False, False, True, False, False, False), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
