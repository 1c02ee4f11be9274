"""Listening sockets that were opened before this process began: by descriptor, or by systemd socket activation."""

import os
import socket

from pounce.errors import BindError

__all__ = ["adopt", "adopt_udp", "systemd_sockets"]

FIRST_FD = 3
"""SD_LISTEN_FDS_START of sd_listen_fds(3)."""


def adopt(fd: int, backlog: int) -> socket.socket:
    """Take over a descriptor that holds a TCP or Unix stream socket, and listen on it unless it does.

    It is not passed on to processes that are started later. Raises `BindError` for anything else than such a socket,
    and leaves the descriptor alone then.
    """
    try:
        sock = socket.socket(fileno=fd)
    except OSError as exc:
        raise _unusable(fd, exc.strerror or str(exc)) from exc
    if sock.type != socket.SOCK_STREAM or sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        sock.detach()
        raise _unusable(fd, "not a TCP or Unix stream socket")
    try:
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            sock.listen(backlog)
    except OSError as exc:
        sock.detach()
        raise _unusable(fd, exc.strerror or str(exc)) from exc
    sock.setblocking(False)
    sock.set_inheritable(False)
    return sock


def adopt_udp(fd: int) -> socket.socket:
    """A UDP socket that is there already, by a descriptor that it takes over."""
    sock = socket.socket(fileno=fd)
    # All who have it share this mode, and a duplicate of a socket object sets the mode that the object believes in.
    sock.setblocking(False)
    return sock


def _unusable(fd: int, why: str) -> BindError:
    return BindError(
        f"cannot listen on descriptor {fd}: {why}",
        code="POUNCE_BIND_NOT_A_SOCKET",
        hint="The process that starts the server must pass a bound socket on under this number.",
    )


def systemd_sockets(name: str) -> list[int]:
    """The descriptors that systemd has passed to this process under `name` (FileDescriptorName= of the socket unit,
    which is the unit's own name by default), all of them for an empty name. Raises `BindError` when there is none.
    """
    count = os.environ.get("LISTEN_FDS", "")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal() or not int(count):
        raise BindError(
            f"there is no systemd socket {name!r}: this process was given none",
            code="POUNCE_BIND_NO_SYSTEMD_SOCKET",
            hint="Start the server by its socket unit; LISTEN_FDS and LISTEN_PID come from there.",
        )
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    fds = range(FIRST_FD, FIRST_FD + int(count))
    named = list(zip(fds, names + ["unknown"] * len(fds), strict=False))
    found = [fd for fd, its_name in named if name in ("", its_name)]
    if not found:
        raise BindError(
            f"there is no systemd socket {name!r}",
            code="POUNCE_BIND_NO_SYSTEMD_SOCKET",
            hint=f"This process was given {', '.join(sorted({its_name for _, its_name in named}))}.",
        )
    return found
