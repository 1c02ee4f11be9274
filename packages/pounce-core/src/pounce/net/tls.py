"""TLS: the context that listeners use, and what applications are told of a connection."""

import ssl
from collections.abc import Iterable
from typing import Any

from pounce.config import ServerConfig
from pounce.errors import TLSError

__all__ = ["create_context", "is_configured", "server_certificate", "tls_extension"]

_VERSIONS = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}


def is_configured(config: ServerConfig) -> bool:
    """Whether the configuration asks for TLS."""
    return config.ssl_certfile is not None


def create_context(config: ServerConfig, alpn: Iterable[str]) -> ssl.SSLContext:
    """A context for servers: TLS 1.2 and up, no compression, no renegotiation, ALPN as given in order of preference.

    Raises `TLSError` when certificate or key cannot be used.
    """
    assert config.ssl_certfile is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    # Clients that end without close_notify are many; HTTP's own framing says whether a message is whole.
    context.options |= getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    password = config.ssl_keyfile_password

    def ask() -> str:
        # Without this OpenSSL asks on the terminal, and a server would hang there.
        if password is None:
            raise TLSError(
                "the private key is encrypted", code="POUNCE_TLS_KEY_PASSWORD", hint="Give ssl_keyfile_password."
            )
        return password

    try:
        context.load_cert_chain(config.ssl_certfile, config.ssl_keyfile, ask)
    except FileNotFoundError as exc:
        missing = config.ssl_certfile if not _readable(config.ssl_certfile) else config.ssl_keyfile
        raise TLSError(
            f"TLS file not found: {missing}",
            code="POUNCE_TLS_CERT_FILE_NOT_FOUND",
            hint="Check ssl_certfile and ssl_keyfile.",
        ) from exc
    except PermissionError as exc:
        raise TLSError(
            "a TLS file cannot be read: permission denied",
            code="POUNCE_TLS_CERT_PERMISSION_DENIED",
            hint="The user that runs the server must be able to read ssl_certfile and ssl_keyfile.",
        ) from exc
    except OSError as exc:
        if not isinstance(exc, ssl.SSLError):
            raise TLSError(
                f"a TLS file cannot be read: {exc.strerror}", hint="Check ssl_certfile and ssl_keyfile."
            ) from exc
        raise TLSError(
            f"certificate or key cannot be used: {exc.reason or exc}",
            hint="Both must be PEM, and the key must belong to the certificate; check ssl_keyfile_password.",
        ) from exc
    context.set_alpn_protocols(list(alpn))
    return context


def _readable(path: str) -> bool:
    try:
        with open(path, "rb"):
            return True
    except OSError:
        return False


def server_certificate(config: ServerConfig) -> str | None:
    """The first certificate of the chain, PEM, as applications see it."""
    if config.ssl_certfile is None:
        return None
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    with open(config.ssl_certfile, encoding="ascii", errors="replace") as file:
        text = file.read()
    start, stop = text.find(begin), text.find(end)
    return text[start : stop + len(end)] + "\n" if start >= 0 and stop > start else None


def tls_extension(ssl_object: ssl.SSLObject, certificate: str | None) -> dict[str, object]:
    """The ASGI `tls` extension, version 0.2, for one connection."""
    cipher = ssl_object.cipher()
    peer = ssl_object.getpeercert(binary_form=True)
    names: Any = (ssl_object.getpeercert() if peer else None) or {}
    subject = ", ".join(f"{key}={value}" for part in names.get("subject", ()) for key, value in part)
    return {
        "server_cert": certificate,
        "client_cert_chain": [ssl.DER_cert_to_PEM_cert(peer)] if peer else [],
        "client_cert_name": subject or None,
        "client_cert_error": None,
        "tls_version": _VERSIONS.get(ssl_object.version() or ""),
        "cipher_suite": _cipher_id(ssl_object, cipher[0]) if cipher else None,
    }


def _cipher_id(ssl_object: ssl.SSLObject, name: str) -> int | None:
    """The IANA number of the negotiated cipher suite."""
    for entry in ssl_object.context.get_ciphers():
        if entry["name"] == name:
            return int(entry["id"]) & 0xFFFF
    return None
