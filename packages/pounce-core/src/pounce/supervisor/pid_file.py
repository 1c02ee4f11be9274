"""PidFile: tells others the process id of a running server."""

import os
from pathlib import Path
from typing import Self

from pounce.errors import ConfigError

__all__ = ["PidFile"]


class PidFile:
    """Context manager: the file is there within it, and removed on leaving it if it is still this process's.

    Raises `ConfigError` when it names another process that runs, or cannot be written. The process `successor_of` keeps
    it until `write()`.
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
        other = self._read()
        if other is not None and other not in (os.getpid(), self._successor_of) and _runs(other):
            raise ConfigError(
                f"pid_file {self._path} names process {other}, which is running",
                hint="Stop that server, or choose another file.",
            )
        beside = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            # Whoever reads it finds all of it.
            beside.write_text(f"{os.getpid()}\n")
            beside.replace(self._path)
        except OSError as exc:
            raise ConfigError(f"pid_file {self._path} cannot be written: {exc.strerror or exc}") from exc

    def __exit__(self, *exc_info: object) -> None:
        if self._path is not None and self._read() == os.getpid():
            self._path.unlink(missing_ok=True)

    def _read(self) -> int | None:
        assert self._path is not None
        try:
            pid = int(self._path.read_text())
        except OSError, ValueError:
            return None
        # Of nobody; the system takes them for groups of processes.
        return pid if pid > 0 else None


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError, OverflowError:
        return False
    except OSError:
        # Not ours, but there.
        pass
    return True
