"""UDP sockets: those of binds that are ports of UDP, and one beside each TCP socket whose answers may offer a protocol
over datagrams (RFC 7838).

Several sockets on one address share it (SO_REUSEPORT): the kernel chooses among them by the addresses of a datagram, so
that all of one peer come out of the same socket, as long as their number stays the same.
"""

import errno
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pounce.errors import BindError
from pounce.net.bind import HTTP3, Listener, bind_udp, open_listeners

if TYPE_CHECKING:
    from pounce.config import ServerConfig

__all__ = ["first_udp", "open_sockets", "open_udp", "receiving"]

ATTEMPTS = 8
"""A free TCP port that the system chose need not be free for UDP; another one will be."""


def receiving(config: ServerConfig, listeners: Iterable[Listener]) -> list[Listener]:
    """Those on whose addresses datagrams are received, one for each address.

    Raises `BindError` where two protocols would have those of one address.
    """
    found: dict[object, Listener] = {}
    for listener in listeners:
        address = listener.sock.getsockname()
        if listener.bind.datagrams or (config.http3_enabled and _speaks_http3(config, listener)):
            other = found.setdefault(address, listener)
            if other is not listener and (other.bind.datagrams or listener.bind.datagrams):
                raise BindError(
                    f"two binds want the datagrams of {address[0]} port {address[1]}",
                    code="POUNCE_BIND_IN_USE",
                    hint="HTTP/3 uses the UDP port of the same number; choose another port.",
                )
    return list(found.values())


def _speaks_http3(config: ServerConfig, listener: Listener) -> bool:
    """Whether HTTP/3 is spoken beside a TCP socket."""
    if config.quic_bind:
        return False
    inet = listener.sock.family in (socket.AF_INET, socket.AF_INET6)
    # A proxy that names its clients hands on no datagrams; who sends some has gone past it.
    direct = not listener.bind.has_proxy_header(config)
    wires = listener.bind.wires
    return inet and direct and (not wires or HTTP3 in wires) and listener.bind.tls is not False


def open_sockets(config: ServerConfig) -> tuple[list[Listener], list[socket.socket]]:
    """The TCP and Unix sockets that the configuration asks for, and the first UDP socket of each address.

    Raises `BindError`, `ConfigError`.
    """
    attempts = ATTEMPTS
    while True:
        listeners = open_listeners(config)
        opened: list[socket.socket] = []
        try:
            opened += map(first_udp, receiving(config, listeners))
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


def first_udp(listener: Listener) -> socket.socket:
    """The first UDP socket on the address of a listener: its own, where that is one. Raises `BindError`."""
    return listener.sock.dup() if listener.bind.datagrams else open_udp(listener)


def open_udp(listener: Listener) -> socket.socket:
    """A UDP socket on the address of a TCP one, or one more where that is one of UDP. Raises `BindError`."""
    address = listener.sock.getsockname()
    family = listener.sock.family
    dual = family == socket.AF_INET6 and not listener.sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    try:
        return bind_udp(family, address, dual=dual)
    except OSError as exc:
        host, port = address[:2]
        raise BindError(
            f"cannot receive datagrams on {host} port {port}: {exc.strerror or exc}",
            code="POUNCE_BIND_IN_USE" if exc.errno == errno.EADDRINUSE else "POUNCE_BIND_FAILED",
            hint="HTTP/3 uses the UDP port of the same number; free it, or choose another port.",
        ) from exc
