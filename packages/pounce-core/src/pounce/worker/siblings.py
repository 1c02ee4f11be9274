"""Siblings: how the workers of one server find each other, whatever process they are in."""

import errno
import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Self

from pounce.errors import SupervisorError

__all__ = ["Siblings", "new_secret"]

LONGEST_FOLDER = 80
"""Bytes in the name of the folder for temporary files: that of a Unix socket has 103 at the most."""


def new_secret() -> bytes:
    """A secret for one server."""
    return os.urandom(32)


@dataclass(frozen=True, slots=True)
class Siblings:
    """What the workers of a server must know in order to find each other."""

    secret: bytes = field(default_factory=new_secret, repr=False)
    """Theirs alone: for what one of them gives to a client and another one has to understand."""
    folder: str = ""
    """Where their mailboxes are; empty where a worker is alone."""
    process: int = 1
    """Number of the process, from 1 to 65535."""

    @classmethod
    def make(cls) -> Self:
        """A folder and a secret for a new server. Raises `SupervisorError`."""
        # A supervisor is small, and one without datagrams needs neither.
        import tempfile

        try:
            if len(os.fsencode(tempfile.gettempdir())) > LONGEST_FOLDER:
                raise OSError(errno.ENAMETOOLONG, f"{tempfile.gettempdir()} is too long a name for that")
            return cls(folder=tempfile.mkdtemp(prefix="pounce-"))
        except OSError as exc:
            raise SupervisorError(
                f"the workers need a folder for the sockets between them: {exc.strerror or exc}",
                hint="Set TMPDIR to a folder that this user can write to.",
            ) from exc

    def of_process(self, number: int) -> Self:
        """The same, for the process with this number."""
        return replace(self, process=(number - 1) % 0xFFFF + 1)

    @property
    def is_private(self) -> bool:
        """The folder is there, and nobody else can enter it."""
        try:
            status = os.lstat(self.folder)
        except OSError:
            return False
        return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077

    def remove_if_empty(self) -> None:
        """Remove the folder if none of them is left."""
        with suppress(OSError):
            os.rmdir(self.folder)

    def remove(self) -> None:
        """Remove the folder, at the end of the server."""
        if self.folder:
            import shutil

            shutil.rmtree(self.folder, ignore_errors=True)
