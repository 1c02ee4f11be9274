"""Connection ids and what is derived from the server's secret: stateless-reset tokens and Retry tokens.

A connection id is 4 random bytes, then the number of the worker that has the connection (24 bits) and a zero byte under
a mask that is made from the random ones: any worker of the server can tell whose a packet is (RFC 9000 5.1), others
cannot tell that two ids belong together (RFC 9000 9.5), and what somebody made up shows as such. Retry tokens carry the
client's first connection id under a MAC over its address and the time (RFC 9000 8.1.4); reset tokens are a MAC of the
connection id, so that a worker that knows nothing of a connection can still make them (RFC 9000 10.3.2).

Ids and reset tokens are those of one local address. Connections are known by address, and what is asked about one at
another address must not get its token there: whoever has seen the id could end the connection (RFC 9000 21.11).
"""

import hmac
import os
import socket
import time

__all__ = ["ID_LENGTH", "Keys"]

ID_LENGTH = 8
TOKEN_LIFETIME = 10
"""Seconds between a Retry and the packet that answers it."""
_TAG = 16


class Keys:
    """Makes and checks ids and tokens of one local address; immutable. Retry tokens are good at all addresses."""

    def __init__(self, secret: bytes, local: tuple[object, ...]) -> None:
        here = " ".join(map(str, local)).encode()
        self._retry = hmac.digest(secret, b"pounce h3 retry", "sha256")
        self._reset = hmac.digest(secret, b"pounce h3 reset " + here, "sha256")
        self._names = hmac.digest(secret, b"pounce h3 connection id " + here, "sha256")

    def new_id(self, worker: int) -> bytes:
        """A fresh connection id of a worker."""
        noise = os.urandom(4)
        return noise + (self._mask(noise) ^ worker << 8).to_bytes(4)

    def worker_of(self, connection_id: bytes) -> int | None:
        """The worker that a connection id names; None for one that was not made by `new_id`."""
        if len(connection_id) != ID_LENGTH:
            return None
        value = self._mask(connection_id[:4]) ^ int.from_bytes(connection_id[4:])
        return None if value & 0xFF else value >> 8

    def _mask(self, noise: bytes) -> int:
        return int.from_bytes(hmac.digest(self._names, noise, "sha256")[:4])

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
