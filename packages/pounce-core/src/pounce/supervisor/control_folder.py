"""Where the control sockets of a user's servers are, so that the command line finds them by itself.

A folder that nobody else can enter: `pounce` in `XDG_RUNTIME_DIR`, or in `/run/user/UID`, where there is one, else
`pounce-UID` in the folder for temporary files. In it each server has a socket with the name of its application and its
process id.
"""

import errno
import os
import re
import socket
import stat

__all__ = ["AUTO", "OFF", "is_named", "new_path", "running"]

AUTO = "auto"
OFF = "off"
SUFFIX = ".control"
NAME_MAX = 24
"""Characters of a name: the whole path of a Unix socket has hardly more than a hundred bytes."""

_unusual = re.compile(r"[^A-Za-z0-9_.:-]+")


def is_named(path: str | None) -> bool:
    """The setting `control_socket` names a path, and neither leaves it to the server nor switches it off."""
    return path not in (None, AUTO, OFF)


def new_path(app: object) -> str:
    """Where the server in this process may have its control socket; what is left there by others is removed.

    `app` is the application, or a name for it, which the socket bears. Raises `OSError` where there is no safe folder.
    """
    first, second = _folders()
    try:
        folder = _made(first)
    except OSError:
        folder = _made(second)
    for path in _sockets(folder):
        _answers(path)
    name = _unusual.sub("-", app if isinstance(app, str) else "app").strip(".-")[-NAME_MAX:] or "app"
    return os.path.join(folder, f"{name}-{os.getpid()}{SUFFIX}")


def running() -> list[str]:
    """The control sockets of this user's servers on which somebody answers; those that were left behind are removed."""
    return [path for folder in _folders() if _is_safe(folder) for path in _sockets(folder) if _answers(path)]


def _folders() -> tuple[str, str]:
    """Where they may be; the first is where a server has its own if it can."""
    user = os.geteuid()
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    runtime = given if os.path.isabs(given) else f"/run/user/{user}"
    return os.path.join(runtime, "pounce"), os.path.abspath(f"{os.environ.get('TMPDIR') or '/tmp'}/pounce-{user}")


def _made(folder: str) -> str:
    """The folder itself. Raises `OSError` where it cannot be made, or is not for this user alone."""
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        pass
    if not _is_safe(folder):
        raise PermissionError(errno.EPERM, "is not for this user alone", folder)
    return folder


def _is_safe(folder: str) -> bool:
    """It is this user's, nobody else can enter it, and nobody else can put another in its place."""
    user = os.geteuid()
    try:
        own, above = os.lstat(folder), os.stat(os.path.dirname(folder))
    except OSError:
        return False
    kept = above.st_uid in (0, user) and (not above.st_mode & 0o022 or bool(above.st_mode & stat.S_ISVTX))
    return kept and stat.S_ISDIR(own.st_mode) and own.st_uid == user and not own.st_mode & 0o077


def _sockets(folder: str) -> list[str]:
    try:
        return [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.endswith(SUFFIX)]
    except OSError:
        return []


def _answers(path: str) -> bool:
    """Whether somebody does; a socket on which nobody can any more is removed."""
    with socket.socket(socket.AF_UNIX) as probe:
        # A server that stands still has a queue.
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            # It bears the name of a process that is gone: a socket has its name when it listens, and not before.
            try:
                os.unlink(path)
            except OSError:
                pass
            return False
        except BlockingIOError:
            return True
        except OSError:
            return False
    return True
