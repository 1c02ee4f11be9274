"""Files beneath a directory: opened so that no name leads out of it.

A path is opened component by component, each below the descriptor of the one before, and no link is followed. Where
links are allowed they are resolved first, and what they lead to is opened in the same way below the directory, if that
is where it lies. So a file that is exchanged for a link between the look and the opening is not found, never followed.
"""

import hashlib
import os
import stat
from typing import NamedTuple

__all__ = ["SMALL", "File", "Stamp", "components", "load", "look", "read"]

SMALL = 65_536
"""Bytes up to which a file is read at once and kept."""
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_DIRECTORY = getattr(os, "O_PATH", os.O_RDONLY) | os.O_CLOEXEC | os.O_DIRECTORY


type Stamp = tuple[int, int, int, int, int]
"""Device, inode, size and time of change in nanoseconds: while it is the same, so is the file."""


class File(NamedTuple):
    """A regular file that was opened, or read whole."""

    stamp: Stamp
    size: int
    modified: int
    """Unix time in whole seconds."""
    etag: bytes
    """Strong: of the content where it was read, else of size and time."""
    content: bytes | None
    fd: int
    """The open file where it was not read, else -1."""


def components(path: str) -> list[str] | None:
    """The parts of a path below a mount, `[]` for the mount itself; None for one that must not be looked up.

    That is one with empty parts, `.`, `..`, NUL, or names that begin with a dot, but for `.well-known` (RFC 8615).
    """
    if not path:
        return []
    if "\0" in path:
        return None
    parts = path.split("/")
    for part in parts:
        if not part or (part[0] == "." and part != ".well-known"):
            return None
    return parts


def load(directory: str, parts: list[str], follow: bool) -> File | None:
    """Open a regular file, and read it if it is small; None when there is no such file. Blocks."""
    fd = _open(directory, parts, follow, _FLAGS)
    if fd is None:
        return None
    keep = False
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return None
        content = None
        if status.st_size <= SMALL:
            content = read(fd, 0, SMALL + 1)
            if len(content) > SMALL:
                content = None
        if content is not None:
            etag = b'"%s"' % hashlib.blake2b(content, digest_size=12).hexdigest().encode()
            return File(_stamp(status), len(content), int(status.st_mtime), etag, content, -1)
        keep = True
        etag = b'"%x-%x"' % (status.st_mtime_ns, status.st_size)
        return File(_stamp(status), status.st_size, int(status.st_mtime), etag, None, fd)
    finally:
        if not keep:
            os.close(fd)


def look(directory: str, parts: list[str], follow: bool) -> Stamp | None:
    """The stamp of a regular file now; None when there is none. Blocks."""
    fd = _open(directory, parts, follow, _FLAGS)
    if fd is None:
        return None
    try:
        status = os.fstat(fd)
        return _stamp(status) if stat.S_ISREG(status.st_mode) else None
    finally:
        os.close(fd)


def read(fd: int, offset: int, count: int) -> bytes:
    """Up to `count` bytes; fewer at the end of the file only. Blocks."""
    piece = os.pread(fd, count, offset)
    if len(piece) == count or not piece:
        return piece
    pieces = [piece]
    got = len(piece)
    while got < count and (piece := os.pread(fd, count - got, offset + got)):
        pieces.append(piece)
        got += len(piece)
    return b"".join(pieces)


def _stamp(status: os.stat_result) -> Stamp:
    # The last one, which nobody can set, where the others are as they were (RFC 9110 8.8.1).
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _open(directory: str, parts: list[str], follow: bool, flags: int) -> int | None:
    """A descriptor of what lies at `parts` below `directory`; None when nothing may be had there."""
    try:
        if follow:
            root = os.path.realpath(directory, strict=True)
            target = os.path.realpath(os.path.join(root, *parts), strict=True)
            if target != root and not target.startswith(root.rstrip("/") + "/"):
                return None
            directory = root
            parts = os.path.relpath(target, root).split("/") if target != root else []
        at = os.open(directory, _DIRECTORY)
    except OSError, ValueError:
        return None
    try:
        for part in parts[:-1]:
            below = os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = below
        return os.open(parts[-1] if parts else ".", flags, dir_fd=at)
    except OSError, ValueError:
        # Not there, a link, a name that is too long or that the file system cannot have, or not ours to read.
        return None
    finally:
        os.close(at)
