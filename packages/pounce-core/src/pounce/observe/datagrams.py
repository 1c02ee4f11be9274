"""LogSocket: datagrams to a log daemon, which may be started again at any time."""

import contextlib
import errno
import socket
from typing import Any

__all__ = ["LogSocket"]

TIMEOUT = 2.0
"""Seconds that a daemon may take for a datagram while its queue is full."""
SEVERITIES = ((50, 2), (40, 3), (30, 4), (20, 6), (0, 7))


def severity(level: int) -> int:
    """Of syslog (RFC 5424 6.2.1), for a level of `logging`."""
    return next((number for least, number in SEVERITIES if level >= least), 7)


class LogSocket:
    """A socket that is connected to `address`, of the family `family`. Raises `OSError`."""

    def __init__(self, family: int, address: Any) -> None:
        self._family = family
        self._address = address
        self._socket = self._connected()

    def _connected(self) -> socket.socket:
        made = socket.socket(self._family, socket.SOCK_DGRAM)
        made.settimeout(TIMEOUT)
        try:
            made.connect(self._address)
        except BaseException:
            made.close()
            raise
        return made

    def send(self, data: bytes, descriptor: int | None = None) -> None:
        """One datagram, with a descriptor where one is given. Raises `OSError` where it cannot be done."""
        try:
            self._send(data, descriptor)
        except TimeoutError:
            raise
        except OSError as exc:
            if exc.errno == errno.EMSGSIZE:
                raise
            # The daemon that this one is connected to is gone; there may be another by now.
            new = self._connected()
            self._socket.close()
            self._socket = new
            self._send(data, descriptor)

    def _send(self, data: bytes, descriptor: int | None) -> None:
        if descriptor is None:
            self._socket.send(data)
        else:
            socket.send_fds(self._socket, [data], [descriptor])

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.close()
