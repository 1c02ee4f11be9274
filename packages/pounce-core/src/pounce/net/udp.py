"""UDP sockets: one beside each TCP socket whose answers may offer a protocol over datagrams (RFC 7838).

Several sockets on one address share it (SO_REUSEPORT): the kernel chooses among them by the addresses of a datagram, so
that all of one peer come out of the same socket, as long as their number stays the same.
"""

import errno
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pounce.errors import BindError
from pounce.net.bind import HTTP3, Listener, open_listeners

if TYPE_CHECKING:
    from pounce.config import ServerConfig

__all__ = ["adopt_udp", "beside", "open_sockets", "open_udp"]

BUFFER = 2 * 1024 * 1024
"""Bytes asked of the kernel for each direction of a socket; it may give less."""
ATTEMPTS = 8
"""A free TCP port that the system chose need not be free for UDP; another one will be."""


def beside(config: ServerConfig, listeners: Iterable[Listener]) -> list[Listener]:
    """Those on whose addresses datagrams are received too, one for each address."""
    if not config.http3_enabled:
        return []
    found: dict[object, Listener] = {}
    for listener in listeners:
        inet = listener.sock.family in (socket.AF_INET, socket.AF_INET6)
        # A proxy that names its clients hands on no datagrams; who sends some has gone past it.
        direct = not listener.bind.has_proxy_header(config)
        wires = listener.bind.wires
        if inet and direct and (not wires or HTTP3 in wires) and listener.bind.tls is not False:
            found.setdefault(listener.sock.getsockname(), listener)
    return list(found.values())


def open_sockets(config: ServerConfig) -> tuple[list[Listener], list[socket.socket]]:
    """The TCP and Unix sockets that the configuration asks for, and the first UDP socket of each address.

    Raises `BindError`, `ConfigError`.
    """
    attempts = ATTEMPTS
    while True:
        listeners = open_listeners(config)
        opened: list[socket.socket] = []
        try:
            opened += map(open_udp, beside(config, listeners))
            return listeners, opened
        except BaseException as exc:
            chosen = any(listener.bind.host and not listener.bind.port for listener in listeners)
            for listener in listeners:
                listener.close()
            for sock in opened:
                sock.close()
            attempts -= 1
            if not (isinstance(exc, BindError) and chosen and attempts):
                raise


def adopt_udp(fd: int) -> socket.socket:
    """A UDP socket that is there already, by a descriptor that it takes over."""
    sock = socket.socket(fileno=fd)
    # All who have it share this mode, and a duplicate of a socket object sets the mode that the object believes in.
    sock.setblocking(False)
    return sock


def open_udp(listener: Listener) -> socket.socket:
    """A UDP socket on the address of a TCP one. Raises `BindError`."""
    host, port, *rest = listener.sock.getsockname()
    sock = socket.socket(listener.sock.family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if hasattr(socket, "SO_REUSEPORT"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if sock.family == socket.AF_INET6:
            dual = listener.sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, dual)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, BUFFER)
        sock.bind((host, port, *rest))
    except OSError as exc:
        sock.close()
        raise BindError(
            f"cannot receive datagrams on {host} port {port}: {exc.strerror or exc}",
            code="POUNCE_BIND_IN_USE" if exc.errno == errno.EADDRINUSE else "POUNCE_BIND_FAILED",
            hint="HTTP/3 uses the UDP port of the same number; free it, or choose another port.",
        ) from exc
    return sock
