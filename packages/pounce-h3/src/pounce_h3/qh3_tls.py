"""TLS of the engine qh3: which certificate a client gets, what its ticket stands for, and what a handshake may cost."""

import hashlib
import re
import ssl
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qh3 import tls
from qh3._hazmat import Buffer
from qh3.quic.configuration import QuicConfiguration

from pounce.errors import TLSError
from pounce_h3.tickets import Tickets

if TYPE_CHECKING:
    from pounce.contract.wire import Certificates

__all__ = ["Certificate", "Context", "tickets"]

HANDSHAKE_MAX = 65536
"""Bytes of a message of the handshake. That of a client which offers much has two thousand."""

GROUPS = frozenset(
    (tls.Group.X25519, tls.Group.X25519ML768, tls.Group.SECP256R1, tls.Group.SECP384R1, tls.Group.SECP521R1)
)
"""Those for which qh3 makes keys."""
TLS_1_2, TLS_1_3, MESSAGE_HASH = 0x0303, 0x0304, 254
RETRY_RANDOM = hashlib.sha256(b"HelloRetryRequest").digest()
"""The random of a ServerHello that is a HelloRetryRequest (RFC 8446 4.1.3)."""

tickets: Tickets[tls.SessionTicket] = Tickets()
"""Of this process."""


class Certificate:
    """A certificate, those that signed it, and its key. Raises `TLSError` where they cannot be used."""

    __slots__ = ("chain", "key", "leaf", "pem")

    def __init__(self, certfile: str, keyfile: str, password: str | None) -> None:
        loaded = QuicConfiguration(is_client=False)
        try:
            # qh3 takes a file of both for one with the certificates first, whatever else is in it.
            chain = _pem_blocks(Path(certfile).read_bytes(), b"CERTIFICATE")
            loaded.load_cert_chain(chain, _pem_blocks(Path(keyfile).read_bytes(), b"PRIVATE KEY"), password)
        except Exception as exc:
            raise TLSError(
                f"certificate or key cannot be used for HTTP/3: {exc}",
                hint="Both must be PEM; the key RSA, or EC with curve P-256, P-384 or P-521.",
            ) from exc
        assert loaded.certificate is not None
        self.leaf = loaded.certificate
        self.chain = loaded.certificate_chain
        self.key: Any = loaded.private_key
        self.pem = ssl.DER_cert_to_PEM_cert(self.leaf.public_bytes())
        """The first of the chain, as applications see it."""


def _pem_blocks(data: bytes, label: bytes) -> bytes:
    """The blocks of a PEM file whose labels end in `label` (RFC 7468 2). Raises `ValueError` if it has none."""
    blocks = re.findall(rb"-----BEGIN (?:[A-Z]+ )*%b-----.*?-----END [A-Z ]+-----" % label, data, re.DOTALL)
    if not blocks:
        raise ValueError(f"there is no {label.decode()} in the file")
    return b"".join(block + b"\n" for block in blocks)


class Context(tls.Context):
    """The server's end of a handshake. qh3 makes its own, which `take_over` turns into one of these."""

    certificates: Mapping[str, Certificate]
    server: Certificates
    shown: Certificate
    """The certificate that this client gets."""
    made: tls.SessionTicket | None
    """The ticket that the client gets. It is good for nothing before the handshake is complete."""
    takes_early_data: bool
    _server_name: str | None
    _is_early: bool
    """The client has sent early data."""
    _retried: bytes
    """What stands for the first hello in the transcript, and the retry that it was answered with; empty without."""

    @classmethod
    def take_over(
        cls, context: tls.Context, certificates: Mapping[str, Certificate], server: Certificates, takes_early_data: bool
    ) -> None:
        """Give clients the certificate of the name they ask for, that of "" where there is none, and tickets that they
        can come back with; with `takes_early_data` also for early data."""
        context.__class__ = cls
        assert isinstance(context, cls)
        context.certificates = certificates
        context.server = server
        context.shown = certificates[""]
        context.made = None
        context.takes_early_data = takes_early_data
        context._retried = b""
        if not takes_early_data:
            # RFC 8446 4.6.1: tickets that do not say how much of it there may be are good for none.
            context._max_early_data = None
        context.get_session_ticket_cb = context._find
        context.new_session_ticket_cb = context._keep

    def handle_message(self, input_data: bytes, output_buf: dict[tls.Epoch, Buffer], epoch: int = -1) -> None:
        if len(self._receive_buffer) + len(input_data) > HANDSHAKE_MAX:
            raise tls.AlertDecodeError("a message of the handshake is too large")
        try:
            super().handle_message(input_data, output_buf, epoch)
        except (ValueError, TypeError, LookupError, AssertionError) as exc:
            # What qh3 trips over is not said in the words of TLS.
            raise tls.AlertDecodeError(f"a message of the handshake cannot be read: {exc!r}") from exc

    def _server_handle_hello(self, input_buf: Buffer, *output: Buffer) -> None:
        hello = tls.pull_client_hello(input_buf)
        if all(group not in GROUPS for group, _ in hello.key_share or ()):
            self._retry(hello, input_buf.data, output[0])
            return
        if self._retried:
            # qh3 knows of no hello before this one: what it takes the hash of begins with it.
            input_buf = Buffer(data=self._retried + input_buf.data)
        input_buf.seek(len(self._retried))
        name = hello.server_name
        self._server_name = name.lower() if name else None
        self._is_early = hello.early_data
        shown = self.shown = self.server.choose(self.certificates, name) or self.certificates[""]
        self.certificate, self.certificate_chain, self.certificate_private_key = shown.leaf, shown.chain, shown.key
        super()._server_handle_hello(input_buf, *output)

    def _retry(self, hello: tls.ClientHello, data: bytes, output: Buffer) -> None:
        """Ask for a key of a group that is known here (RFC 8446 4.1.4); once, or where the client knows none of them
        the handshake ends."""
        group = next((each for each in hello.supported_groups or () if each in GROUPS), None)
        # Both lists have a value that stands for none, which may be the same one (RFC 8701).
        known = [each for each in self._cipher_suites if each in tls.CIPHER_SUITES]
        suite = next((each for each in known if each in hello.cipher_suites), None)
        if group is None or suite is None or self._retried:
            raise tls.AlertHandshakeFailure("there is no group that both know")
        version = struct.pack("!3H", tls.ExtensionType.SUPPORTED_VERSIONS, 2, TLS_1_3)
        extensions = version + struct.pack("!3H", tls.ExtensionType.KEY_SHARE, 2, group)
        body = b"".join(
            (
                struct.pack("!H", TLS_1_2),
                RETRY_RANDOM,
                bytes((len(hello.legacy_session_id),)),
                hello.legacy_session_id,
                struct.pack("!HBH", suite, 0, len(extensions)),
                extensions,
            )
        )
        retry = struct.pack("!I", tls.HandshakeType.SERVER_HELLO << 24 | len(body)) + body
        output.push_bytes(retry)
        # RFC 8446 4.4.1: the first hello is its hash in a message of its own.
        digest = hashlib.new(f"sha{tls.cipher_suite_hash(suite)}", data).digest()
        self._retried = struct.pack("!I", MESSAGE_HASH << 24 | len(digest)) + digest + retry

    def _find(self, ticket: bytes) -> tls.SessionTicket | None:
        if self._is_early and not self.takes_early_data:
            # qh3 would take it with any ticket. No client sends it with one of ours.
            return None
        found = tickets.take(ticket)
        # RFC 8446 4.2.11: a session is resumed for the name it was made for.
        return found if found is not None and found.server_name == self._server_name else None

    def _keep(self, ticket: tls.SessionTicket) -> None:
        self.made = ticket
