"""PidFile: tells others the process id of a running server."""

import os
import re
import stat
from pathlib import Path
from typing import Self

from pounce.errors import ConfigError

__all__ = ["PidFile"]

SIZE_MAX = 64
"""Bytes of a file that may hold a process id."""

_number = re.compile(rb"\s*(-?\d+)\s*").fullmatch


class PidFile:
    """Context manager: the file is there within it, and removed on leaving it if it is still this process's.

    Everybody may read it, whatever the umask. Raises `ConfigError` when it names another process that runs, when what
    is there is anything but a file that holds a number, which may be precious, and when it cannot be written. The
    process `successor_of` keeps it until `write()`.
    """

    def __init__(self, path: str | None, *, successor_of: int | None = None) -> None:
        self._path = Path(path) if path is not None else None
        self._successor_of = successor_of

    def __enter__(self) -> Self:
        if self._successor_of is None:
            self.write()
        return self

    def write(self) -> None:
        """Make it name this process."""
        if self._path is None:
            return
        try:
            other = self._read()
            if other == os.getpid():
                # It may not be allowed to write there any more.
                return
            if other is not None and other not in (os.getpid(), self._successor_of) and _runs(other):
                raise ConfigError(
                    f"pid_file {self._path} names process {other}, which is running",
                    hint="Stop that server, or choose another file.",
                )
            self._replace(f"{os.getpid()}\n".encode())
        except OSError as exc:
            folder, hint = self._path.parent, None
            if not folder.is_dir():
                hint = f"There is no folder {folder}: make it first, or choose another file."
            raise ConfigError(f"pid_file {self._path} cannot be written: {exc.strerror or exc}", hint=hint) from exc

    def __exit__(self, *exc_info: object) -> None:
        try:
            if self._path is not None and self._read() == os.getpid():
                self._path.unlink(missing_ok=True)
        except ConfigError, OSError:
            # It is another's by now.
            pass

    def _read(self) -> int | None:
        """The process that it names, None for none. Raises `ConfigError` for what is no such file, and `OSError`."""
        assert self._path is not None
        try:
            # Not through a link, nor waiting for the other end of a pipe.
            fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as exc:
            if self._path.is_symlink():
                raise self._refused("is a symbolic link") from exc
            raise
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise self._refused("is no regular file")
            data = os.read(fd, SIZE_MAX + 1)
        finally:
            os.close(fd)
        match = _number(data)
        if match is None or len(data) > SIZE_MAX:
            raise self._refused("is there already, and does not hold a number")
        pid = int(match[1])
        # Of nobody; the system takes them for groups of processes.
        return pid if pid > 0 else None

    def _refused(self, what: str) -> ConfigError:
        return ConfigError(
            f"pid_file {self._path} {what}",
            hint="It would be overwritten, and removed at the end: choose another file, or remove this one yourself.",
        )

    def _replace(self, data: bytes) -> None:
        """Whoever reads the file finds all of it. Raises `OSError`."""
        assert self._path is not None
        # A name that nobody can know before, and a file that was not there.
        beside = self._path.with_name(f".pid-{os.urandom(8).hex()}")
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            try:
                os.fchmod(fd, 0o644)
                os.write(fd, data)
                # What a crash of the machine leaves must not be an empty file, which the next start would refuse.
                os.fsync(fd)
            finally:
                os.close(fd)
            beside.replace(self._path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError, OverflowError:
        return False
    except OSError:
        # Not ours, but there.
        pass
    return True
