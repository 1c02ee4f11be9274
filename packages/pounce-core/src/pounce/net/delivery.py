"""How far what was written has come, and how a socket is closed: what the kernel knows, and asyncio does not ask it.

A transport counts what waits in its own buffer. The kernel takes megabytes more, however little of them the peer takes;
so whoever looks at transports alone believes in answers that nobody has read, and gives up slow readers, whose progress
shows there in leaps. On Linux the kernel is asked; elsewhere what is in the transport has to do.
"""

import asyncio
import os
import select
import socket
import struct
import sys

if sys.platform == "linux":
    from fcntl import ioctl
    from termios import TIOCOUTQ
else:
    TIOCOUTQ = 0

    def ioctl(fd: int, request: int, arg: bytes) -> bytes:
        raise OSError

__all__ = [
    "LINGER_TIMEOUT",
    "acknowledged",
    "has_queued",
    "is_dead",
    "is_full",
    "leave_to_kernel",
    "progress",
    "queued",
    "reset_when_closed",
    "second_descriptor",
    "undelivered",
]

LINGER_TIMEOUT = 2.0
"""Seconds that the peer has to end its half of a connection when ours has ended."""
INFO_SIZE = 128
"""Bytes of `struct tcp_info` (linux/tcp.h) up to and with tcpi_bytes_acked, which RFC 4898 calls
tcpEStatsAppHCThruOctetsAcked."""
NOTHING = bytes(4)
"""A number of bytes, as ioctl(2) tells it."""
TCP_CLOSE = 7
"""tcpi_state of a connection that is gone, whoever ended it."""


def acknowledged(sock: socket.socket) -> int | None:
    """Bytes that the peer's machine has acknowledged since the connection began; None where that cannot be told."""
    info = _info(sock)
    # A kernel that does not count says 0.
    return int.from_bytes(info[INFO_SIZE - 8 :], sys.byteorder) or None if len(info) == INFO_SIZE else None


def is_dead(sock: socket.socket) -> bool:
    """The kernel has ended the connection: its peer has reset it, or was not heard of for too long."""
    return _info(sock)[:1] == bytes((TCP_CLOSE,))


def _info(sock: socket.socket) -> bytes:
    """What the kernel tells of a TCP connection, nothing where it does not."""
    if sys.platform != "linux":
        return b""
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, INFO_SIZE)
    except OSError:
        return b""


def queued(sock: socket.socket) -> int:
    """Bytes in the kernel that the peer's machine has not acknowledged; of a Unix socket those that the peer has not
    read, about. 0 where that cannot be told."""
    if sys.platform != "linux":
        return 0
    try:
        return int.from_bytes(ioctl(sock.fileno(), TIOCOUTQ, NOTHING), sys.byteorder)
    except OSError, ValueError:
        # Closed already.
        return 0


def has_queued(fd: int) -> bool:
    """Whether `queued()` is not 0, by the descriptor of a socket; True where that cannot be told."""
    try:
        return ioctl(fd, TIOCOUTQ, NOTHING) != NOTHING
    except OSError:
        return True


def progress(sock: socket.socket) -> int:
    """A number that grows by one for each byte that the peer takes of what the kernel has."""
    count = acknowledged(sock)
    return count if count is not None else -queued(sock)


def undelivered(sock: socket.socket) -> int:
    """Bytes that the kernel still has to bring to the peer's machine, which no process owns once the socket is closed.
    None of a Unix socket: what was written there is the peer's."""
    count = queued(sock)
    return count if count and sock.family != socket.AF_UNIX else 0


def is_full(sock: socket.socket) -> bool:
    """The kernel takes no more at the moment."""
    poll = select.poll()
    try:
        poll.register(sock.fileno(), select.POLLOUT)
    except OSError, ValueError:
        return False
    return not poll.poll(0)


def reset_when_closed(sock: socket.socket, on: bool = True) -> None:
    """Have the socket's close, or the end of its process, throw away what is undelivered and tell the peer by a reset
    (RFC 9293 3.10.4, 3.10.5), instead of bringing the rest and then a FIN. Unix sockets know no reset."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", on, 0))
    except OSError, ValueError:
        # Closed already; uvloop has no number for it then.
        pass


def leave_to_kernel(sock: socket.socket, seconds: float) -> None:
    """Have the kernel go on alone with what is undelivered once the socket is closed, but give it up after so many
    seconds in which the peer takes nothing; by itself it may try for an hour."""
    if sys.platform == "linux" and sock.family != socket.AF_UNIX:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, min(int(seconds * 1000), 2**31 - 1))
        except OSError, ValueError:
            pass


def second_descriptor(transport: asyncio.Transport) -> socket.socket | None:
    """The socket under a transport once more; None where there is none to be had. Take it before the transport closes
    its own."""
    sock = transport.get_extra_info("socket")
    try:
        return socket.socket(fileno=os.dup(sock.fileno())) if sock is not None else None
    except OSError:
        # Out of descriptors, or closed already.
        return None
