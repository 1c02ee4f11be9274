"""Sinks: where log lines go. Streams and files are here, `syslog` and `journald` have files of their own.

A sink belongs to the thread that writes the log, which alone may wait for it.
"""

import io
import logging
import os
import sys
from typing import Protocol, TextIO
from urllib.parse import parse_qsl

from pounce.errors import ConfigError

__all__ = ["FileSink", "Sink", "StreamSink", "sink_of"]

FILE_MODE = 0o640
"""Of a log file that is made: what clients do is nobody else's business."""


class Sink(Protocol):
    """Where lines go."""

    structured: bool
    """Each record comes with its time and level, so that its line need not have them."""
    has_fields: bool
    """And with all of its values by name."""

    def write(self, line: str, record: logging.LogRecord) -> None:
        """May wait. Raises `OSError` or `ValueError` where it cannot be done."""

    def reopen(self) -> None:
        """Somebody has moved the file away: open the one of its name. Raises `OSError`, and keeps the old one then."""

    def close(self) -> None: ...


class StreamSink:
    """A stream of text, such as `sys.stderr`.

    No lock of it is held while something waits that others need: the interpreter takes that of `sys.stderr` at its end.
    """

    structured = has_fields = False

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._own: io.FileIO | None = None
        try:
            self._own = io.FileIO(os.dup(stream.fileno()), "w")
        except OSError, ValueError, AttributeError:
            # It has no descriptor: a stream in memory.
            pass

    def write(self, line: str, record: logging.LogRecord) -> None:
        if self._own is None:
            self._stream.write(line + "\n")
            self._stream.flush()
        else:
            _write_all(self._own, line)

    def reopen(self) -> None:
        """It has no name to open it by."""

    def close(self) -> None:
        if self._own is not None:
            self._own.close()


class FileSink:
    """A file that grows at its end, whoever else writes to it: other processes of the server."""

    structured = has_fields = False

    def __init__(self, path: str) -> None:
        """Raises `ConfigError`."""
        self._path = os.path.abspath(path)
        try:
            self._file = self._open()
        except OSError as exc:
            raise ConfigError(
                f"the log file {path} cannot be opened: {exc.strerror or exc}",
                hint="The user that runs the server must be able to write to it, and to its folder if it is not there.",
            ) from exc

    def _open(self) -> io.FileIO:
        # A pipe that nobody reads must not hold up the start: that is an error. Without O_NONBLOCK it would wait.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        fd = os.open(self._path, flags, FILE_MODE)
        os.set_blocking(fd, True)
        return io.FileIO(fd, "w")

    def write(self, line: str, record: logging.LogRecord) -> None:
        _write_all(self._file, line)

    def reopen(self) -> None:
        try:
            new = self._open()
        except OSError as exc:
            exc.filename = self._path
            raise
        self._file.close()
        self._file = new

    def close(self) -> None:
        self._file.close()


def sink_of(target: str) -> Sink:
    """The sink that a setting names: a file by its path, `-`, `syslog…` or `journald…`. Raises `ConfigError`."""
    kind, _, rest = target.partition("?")[0].partition(":")
    if target == "-":
        return StreamSink(sys.stdout)
    if kind not in ("syslog", "journald"):
        return FileSink(target)
    options = dict(parse_qsl(target.partition("?")[2], keep_blank_values=True))
    known = {"tag", "facility"} if kind == "syslog" else {"tag"}
    if strange := options.keys() - known:
        raise ConfigError(
            f"{target!r} has an option {min(strange)!r}", hint=f"{kind} takes {' and '.join(sorted(known))}."
        )
    try:
        if kind == "syslog":
            from pounce.observe.syslog import SyslogSink

            return SyslogSink(rest, **options)
        from pounce.observe.journald import JournalSink

        return JournalSink(rest, **options)
    except OSError as exc:
        raise ConfigError(
            f"the log {target} cannot be reached: {exc.strerror or exc}",
            hint="Nobody listens there. A file of this name is written as ./syslog or ./journald.",
        ) from exc


def _write_all(file: io.FileIO, line: str) -> None:
    data = (line + "\n").encode("utf-8", "backslashreplace")
    while data:
        data = data[file.write(data) or 0 :]
