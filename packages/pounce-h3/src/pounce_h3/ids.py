"""Connection ids and what is derived from the server's secret: stateless-reset tokens and Retry tokens.

A connection id is `process, worker, 6 random bytes`: any socket of the server that a packet lands on can tell whose
it is (RFC 9000 5.1). Retry tokens carry the client's first connection id under a MAC over its address and the time
(RFC 9000 8.1.4); reset tokens are a MAC of the connection id, so that a server that lost its state can still make
them (RFC 9000 10.3.2).
"""

import hmac
import os
import socket
import time

__all__ = ["ID_LENGTH", "Keys", "new_id", "worker_of"]

ID_LENGTH = 8
TOKEN_LIFETIME = 10
"""Seconds between a Retry and the packet that answers it."""
_TAG = 16

# One for the process, so that all of its workers understand each other's tokens.
_process_secret = os.urandom(32)


def new_id(process: int, worker: int) -> bytes:
    """A fresh connection id of a worker."""
    return bytes((process & 0xFF, worker & 0xFF)) + os.urandom(ID_LENGTH - 2)


def worker_of(connection_id: bytes) -> tuple[int, int]:
    """Process and worker of one of our connection ids."""
    return connection_id[0], connection_id[1]


class Keys:
    """Makes and checks tokens; immutable."""

    def __init__(self, secret: str = "") -> None:
        base = secret.encode() or _process_secret
        self._retry = hmac.digest(base, b"pounce h3 retry", "sha256")
        self._reset = hmac.digest(base, b"pounce h3 reset", "sha256")

    def reset_token(self, connection_id: bytes) -> bytes:
        """The token of a connection (RFC 9000 10.3)."""
        return hmac.digest(self._reset, connection_id, "sha256")[:16]

    def retry_token(self, address: tuple[object, ...], original: bytes, retry: bytes) -> bytes:
        """What a client has to bring back from `address` in order to be believed."""
        said = int(time.time()).to_bytes(8) + bytes((len(original),)) + original + retry
        return said + self._tag(address, said)

    def check_retry_token(self, address: tuple[object, ...], token: bytes, retry: bytes) -> bytes | None:
        """The client's original connection id, None for a token that is not ours, too old, or another address's."""
        said, tag = token[:-_TAG], token[-_TAG:]
        if len(said) < 9 or not hmac.compare_digest(tag, self._tag(address, said)):
            return None
        age = int(time.time()) - int.from_bytes(said[:8])
        end = 9 + said[8]
        if not 0 <= age <= TOKEN_LIFETIME or said[end:] != retry:
            return None
        return said[9:end]

    def _tag(self, address: tuple[object, ...], said: bytes) -> bytes:
        host, port = str(address[0]), int(str(address[1]))
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        where = socket.inet_pton(family, host.partition("%")[0]) + port.to_bytes(2)
        return hmac.digest(self._retry, where + said, "sha256")[:_TAG]
