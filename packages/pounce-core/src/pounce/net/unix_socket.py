"""Unix sockets: a file that never has more permissions than it is to have, and never somebody else's place."""

import errno
import grp
import os
import pwd
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pounce.errors import BindError, ConfigError

__all__ = ["LONGEST", "hint_for", "open_unix"]

LONGEST = 107 if sys.platform == "linux" else 103
"""Bytes of a Unix socket's path (unix(7), its NUL excluded)."""


def open_unix(path: str, mode: int, user: str | None, group: str | None, backlog: int) -> socket.socket:
    """A socket that listens at `path`, in place of one that was left behind.

    Raises `BindError` where somebody answers, or where a file is that is no socket; `ConfigError` for a path or an
    owner that cannot be; `OSError`.
    """
    if "\0" in path:
        raise ConfigError(f"the path of a Unix socket must have no NUL (got {path!r})")
    owners = _number(user, "user"), _number(group, "group")
    with _alone_at(path):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        bound = False
        try:
            sock.setblocking(False)
            _remove_stale(path)
            mask = os.umask(0o777)
            try:
                sock.bind(path)
            finally:
                os.umask(mask)
            bound = True
            if owners != (-1, -1):
                os.chown(path, *owners, follow_symlinks=False)
            _chmod(path, mode)
            sock.listen(backlog)
        except OSError:
            if bound:
                os.unlink(path)
            sock.close()
            raise
        return sock


def hint_for(path: str) -> str | None:
    """What helps where no Unix socket can be opened at `path`, as far as the path shows it."""
    size = len(os.fsencode(path))
    if size > LONGEST:
        return f"The path of a Unix socket has at most {LONGEST} bytes, and this one {size}: choose a shorter one."
    folder = os.path.dirname(path)
    if folder and not os.path.isdir(folder):
        return f"There is no folder {folder}: make it first, or choose another path."
    return None


def _chmod(path: str, mode: int) -> None:
    """As `os.chmod`, but never of what a link leads to: what lies there may not be the socket any more."""
    try:
        os.chmod(path, mode, follow_symlinks=False)
    except NotImplementedError:
        # Said of a link, and by systems that have no such call.
        if os.path.islink(path):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from None
        os.chmod(path, mode)


def _number(name: str | None, kind: str) -> int:
    """User or group as a number, -1 for None."""
    if name is None:
        return -1
    if name.isdecimal():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid if kind == "user" else grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError(f"there is no {kind} {name!r} on this machine") from None


@contextmanager
def _alone_at(path: str) -> Iterator[None]:
    """While this lasts, no other server looks whether the socket at `path` is alive, and replaces it.

    The lock is a name that only one socket of the machine can have; it leaves no file, and ends with its process.
    """
    if sys.platform != "linux":
        yield
        return
    # It loads OpenSSL.
    import hashlib

    name = b"\0pounce-" + hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest().encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as lock:
        try:
            lock.bind(name)
        except OSError as exc:
            raise _in_use(path) from exc
        yield


def _remove_stale(path: str) -> None:
    """Remove a Unix socket that nobody answers on; anything else at `path` is an error."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise BindError(f"{path} exists and is not a socket", code="POUNCE_BIND_IN_USE", hint="Choose another path.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except FileNotFoundError:
            return
        except OSError:
            pass
    raise _in_use(path)


def _in_use(path: str) -> BindError:
    return BindError(
        f"{path} is in use by another process",
        code="POUNCE_BIND_IN_USE",
        hint="Stop that process or choose another path.",
    )
