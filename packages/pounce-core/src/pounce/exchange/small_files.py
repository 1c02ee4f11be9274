"""Reading what a small file has in the page cache, without waiting and without a thread."""

import os

__all__ = ["SMALLER_FILE", "SMALL_FILE", "read_at_once"]

SMALL_FILE = 65_536
"""Bytes of a file, or of a part of it, that are rather copied behind the head of their answer than read by a thread."""
SMALLER_FILE = 16_384
"""The same where the kernel can send them: sendfile(2) takes a write of its own for the head, less for each byte."""

NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)


def read_at_once(fd: int, offset: int, count: int) -> bytes | None:
    """`count` bytes of a file from `offset` on; None where they cannot all be had without waiting for a disk.

    That is also where the system cannot tell, or the file system of the file, or where the file is shorter.
    """
    if not count:
        return b""
    if not NOWAIT:
        return None
    buffer = bytearray(count)
    try:
        if os.preadv(fd, (buffer,), offset, NOWAIT) < count:
            return None
    except OSError:
        # Whoever reads it the other way meets the same, if it is an error.
        return None
    return bytes(buffer)
