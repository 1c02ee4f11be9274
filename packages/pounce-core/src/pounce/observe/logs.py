"""Logging of a server process: standard `logging`, written by a thread of its own.

An event loop must not wait for a terminal or a pipe that nobody reads. Records go into a bounded queue; when it is
full they are counted and dropped, and the number is logged as soon as there is room again.
"""

import _thread
import contextlib
import io
import json
import logging
import logging.handlers
import os
import queue
import sys
import threading
import time
from typing import Any, Self, TextIO

from pounce.config import ServerConfig
from pounce.errors import PounceError
from pounce.observe.access_entry import AccessEntry, escaped
from pounce.observe.formats import access_fields, timestamp

__all__ = ["LastWords", "Logs", "escaped_line", "keep_enabled", "reopen_log_files", "start_failed", "wants_json"]

QUEUE_SIZE = 10_000
END_TIMEOUT = 2.0
"""Seconds that what is still to be written may hold up the end."""


def wants_json(config: ServerConfig, stream: TextIO | None = None) -> bool:
    """Whether logs are JSON lines: as configured; with `auto`, where the stream is no terminal."""
    if config.log_format == "auto":
        return not (stream or sys.stderr).isatty()
    return config.log_format == "json"


def start_failed(error: PounceError, traceback: str = "") -> str:
    """The JSON line of an error that ends the start; with the traceback of the application, where that has one."""
    line: dict[str, object] = {"ts": timestamp(time.time()), "level": "error", "event": "start_failed"}
    line |= {"code": error.code, "message": error.message, "hint": error.hint}
    if traceback:
        line["exception"] = traceback.rstrip()
    return json.dumps(line)


def reopen_log_files() -> None:
    """Close the files of all `logging.FileHandler`s of this process and open them anew, by their names.

    For whoever has moved them away, as logrotate does.
    """
    loggers = [logging.getLogger(), *logging.getLogger().manager.loggerDict.copy().values()]
    for logger in loggers:
        for handler in tuple(getattr(logger, "handlers", ())):
            if isinstance(handler, logging.FileHandler):
                with handler.lock or contextlib.nullcontext():
                    if handler.stream is not None:
                        handler.stream.close()
                        handler.stream = handler._open()


class OwnLogger(logging.Logger):
    """One that a configuration of logging which does not name it leaves as it is.

    By default `logging.config.dictConfig()` disables whatever it does not know, so an application that configures its
    own log would lose the tracebacks of its failures. A level holds, and so does `disabled` where it is set by name.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if name != "disabled" or sys._getframe(1).f_globals.get("__name__") != "logging.config":
            super().__setattr__(name, value)


def keep_enabled() -> None:
    """Have no configuration of logging disable the loggers `pounce.*` that there are, and undo where one has."""
    for name, logger in logging.getLogger().manager.loggerDict.copy().items():
        if name.partition(".")[0] == "pounce" and type(logger) is logging.Logger:
            logger.__class__ = OwnLogger
            logger.disabled = False


class Logs:
    """Context manager: within it the loggers `pounce.*` write to a stream, from a thread.

    The loggers are put back as they were on leaving.
    """

    def __init__(self, config: ServerConfig, stream: TextIO | None = None) -> None:
        stream = stream or sys.stderr
        formatter = JSONFormatter() if wants_json(config, stream) else TextFormatter()
        records: queue.Queue[Any] = queue.Queue(QUEUE_SIZE)
        self._handler = BoundedQueueHandler(records)
        self._listener = Writer(records, stream, formatter)
        self._logger = logging.getLogger("pounce")
        self._level = config.log_level.upper()
        self._before: tuple[int, bool] = (logging.NOTSET, True)

    def __enter__(self) -> Self:
        self._before = (self._logger.level, self._logger.propagate)
        self._logger.setLevel(self._level)
        self._logger.propagate = False
        self._logger.addHandler(self._handler)
        self._listener.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._logger.removeHandler(self._handler)
        self._logger.setLevel(self._before[0])
        self._logger.propagate = self._before[1]
        self._handler.report_dropped(END_TIMEOUT)
        self._listener.stop()


class LastWords:
    """Writes as `Logs` does, when that is over and logging with it: its thread waits for what is still to be said."""

    def __init__(self, config: ServerConfig) -> None:
        formatter = JSONFormatter() if wants_json(config) else TextFormatter()
        records: queue.Queue[Any] = queue.Queue(QUEUE_SIZE)
        self._level = logging.getLevelName(config.log_level.upper())
        self._handler = BoundedQueueHandler(records)
        self._listener = Writer(records, sys.stderr, formatter)
        self._listener.start()

    def say(self, level: int, message: str, *arguments: object) -> None:
        """Write one line, if `log_level` has it."""
        if level >= self._level:
            self._handler.handle(logging.LogRecord("pounce", level, "", 0, message, arguments, None))

    def close(self) -> None:
        """Wait until all is written, as long as `Logs` does."""
        self._listener.stop()


class BoundedQueueHandler(logging.handlers.QueueHandler):
    """Never waits: counts what does not fit."""

    def __init__(self, records: queue.Queue[Any]) -> None:
        super().__init__(records)
        self._records = records
        self._dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """The record as it is: it stays in the process, and is formatted by the thread that writes it."""
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        if self._dropped:
            self.report_dropped()
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self._dropped += 1

    def report_dropped(self, timeout: float = 0.0) -> None:
        """Say how many records were lost, if within `timeout` seconds there is room to say it."""
        if self._dropped:
            message = f"{self._dropped} log records were dropped because they could not be written fast enough"
            record = logging.LogRecord("pounce", logging.WARNING, "", 0, message, (), None)
            try:
                self._records.put(record, timeout > 0, timeout)
                self._dropped = 0
            except queue.Full:
                pass


class Writer(logging.handlers.QueueListener):
    """The thread that writes. Leaves what cannot be written behind when it is stopped: a server must end also when
    nobody reads its log.

    Hence no lock is held while it waits that others need: neither that of a `logging.Handler`, which
    `logging.shutdown()` takes, nor that of `sys.stderr`, which the interpreter takes at its end.
    """

    def __init__(self, records: queue.Queue[Any], stream: TextIO, formatter: logging.Formatter) -> None:
        super().__init__(records)
        self._records = records
        self._formatter = formatter
        self._stream = stream
        self._own: io.FileIO | None = None
        try:
            self._own = io.FileIO(os.dup(stream.fileno()), "w")
        except OSError, ValueError, AttributeError:
            # It has no descriptor: a stream in memory.
            pass

    def start(self) -> None:
        """As in the base class; in an interpreter beside the main one no thread can be a daemon."""
        if _thread.daemon_threads_allowed():
            super().start()
        else:
            self._thread = threading.Thread(target=self._monitor, name="pounce log")  # type: ignore[attr-defined]
            self._thread.start()

    def handle(self, record: logging.LogRecord) -> None:
        try:
            line = self._formatter.format(record)
        except Exception as exc:  # noqa: BLE001 - a record that does not fit its message must not end the thread
            line = f"a log record cannot be written: {record.msg!r} with {record.args!r}: {exc!r}"
        try:
            self._write(line + "\n")
        except OSError, ValueError:
            # Nobody is there to read, or the stream is closed: there is no place to say so.
            pass

    def _write(self, text: str) -> None:
        if self._own is None:
            self._stream.write(text)
            self._stream.flush()
            return
        data = text.encode("utf-8", "backslashreplace")
        while data:
            data = data[self._own.write(data) :]

    def stop(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            try:
                # None is what the thread ends at.
                self._records.put(None, timeout=END_TIMEOUT)
                thread.join(END_TIMEOUT)
            except queue.Full:
                pass
        if self._own is not None and (thread is None or not thread.is_alive()):
            self._own.close()


class TextFormatter(logging.Formatter):
    """Lines for people; a traceback follows the line it belongs to."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-8s %(name)s - %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        entry = record.msg
        if isinstance(entry, AccessEntry) and entry.write is not None:
            return entry.write(entry)
        return super().format(record)

    def formatException(self, ei: Any) -> str:
        # What an exception says may come from a client.
        return "\n".join(escaped_line(line) for line in super().formatException(ei).split("\n"))

    def formatMessage(self, record: logging.LogRecord) -> str:
        if not isinstance(record.msg, AccessEntry):
            record.message = "\n".join(escaped_line(line) for line in record.message.split("\n"))
        return super().formatMessage(record)


def escaped_line(line: str) -> str:
    """`line` without control characters that a terminal would obey."""
    return line if line.isprintable() else "".join(c if c.isprintable() else escaped(c) for c in line)


class JSONFormatter(logging.Formatter):
    """One JSON object for each record; JSON escapes what needs it."""

    def format(self, record: logging.LogRecord) -> str:
        level = record.levelname.lower()
        entry = record.msg
        if isinstance(entry, AccessEntry):
            return json.dumps(access_fields(entry), default=str) if entry.write is None else entry.write(entry)
        line: dict[str, object] = {"ts": timestamp(record.created), "level": level}
        event = getattr(record, "event", None)
        if isinstance(event, dict):
            line |= event
        else:
            line |= {"logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
