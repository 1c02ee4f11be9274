"""Which process listens on a port, where the system shows it (Linux): for whoever finds the port taken."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["holder_of"]

LISTENING = "0A"
"""State of a socket in /proc/net/tcp that accepts connections."""


def holder_of(port: int, proc: Path = Path("/proc"), *, ipv6: bool = False) -> str | None:
    """The process that listens on this TCP port, in words; None where it cannot be seen.

    Sockets of other users are seen by root alone. `proc` is where that file system is found. With `ipv6` whoever
    listens over that is looked for first, else whoever does over IPv4.
    """
    names = ("tcp6", "tcp") if ipv6 else ("tcp", "tcp6")
    found = next(filter(None, ([*_inodes(port, proc / "net" / name)] for name in names)), [])
    sockets = {f"socket:[{inode}]" for inode in found}
    if not sockets:
        return None
    # The oldest is most often the one to stop.
    for pid in sorted(int(name) for name in os.listdir(proc) if name.isdecimal()):
        if any(link in sockets for link in _links(proc / str(pid) / "fd")):
            return f"process {pid}{_name(proc / str(pid))}"
    return None


def _inodes(port: int, table: Path) -> Iterator[str]:
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        fields = line.split()
        if len(fields) > 9 and fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
            yield fields[9]


def _links(folder: Path) -> list[str]:
    links: list[str] = []
    # It may have ended, or be somebody else's; and one of its descriptors may be closed by now.
    with suppress(OSError):
        for name in os.listdir(folder):
            with suppress(OSError):
                links.append(os.readlink(folder / name))
    return links


def _name(folder: Path) -> str:
    try:
        words = (folder / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    # Arguments may be secret; what follows -m names a program.
    shown = [os.path.basename(words[0])]
    if len(words) > 2 and re.match(rb"-m$|[^-]", words[1]):
        shown += [os.path.basename(word) for word in words[1 : 3 if words[1] == b"-m" else 2]]
    return f" ({os.fsdecode(b' '.join(shown))})" if words[0] else ""
