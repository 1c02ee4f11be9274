"""Logging of a server process: standard `logging`, written by a thread of its own.

An event loop must not wait for a terminal or a pipe that nobody reads. Records go into a bounded queue; when it is
full they are counted and dropped, and the number is logged as soon as there is room again.
"""

import _thread
import contextlib
import json
import logging
import logging.handlers
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, Self, TextIO

from pounce.config import ServerConfig
from pounce.errors import PounceError, concerning
from pounce.observe.access_entry import AccessEntry, escaped_line
from pounce.observe.formats import LOGGER, access_fields, access_format, timestamp
from pounce.observe.losses import losses
from pounce.observe.sinks import Sink, StreamSink, sink_of

__all__ = ["LastWords", "Logs", "escaped_line", "keep_enabled", "reopen_log_files", "start_failed", "wants_json"]

QUEUE_SIZE = 10_000
AT_ONCE = 4096
"""Bytes of lines that are written together at the most: PIPE_BUF, up to which no other process writes in between in a
pipe."""
NOTHING = object()
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
    """Close the log files of this process and open them anew, by their names: the server's own, and those of all
    `logging.FileHandler`s.

    For whoever has moved them away, as logrotate does.
    """
    loggers = [logging.getLogger(), *logging.getLogger().manager.loggerDict.copy().values()]
    for logger in loggers:
        for handler in tuple(getattr(logger, "handlers", ())):
            if isinstance(handler, BoundedQueueHandler):
                handler.reopen()
            elif isinstance(handler, logging.FileHandler):
                reopen_file(handler)


def reopen_file(handler: logging.FileHandler) -> None:
    """Have it write to the file that has its name now."""
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


def keep_enabled(*names: str) -> None:
    """Have no configuration of logging disable the loggers `pounce.*` that there are, and undo where one has.

    Nor those that `log_config` has in their place: `pounce_log.*` and `names`.
    """
    for name, logger in logging.getLogger().manager.loggerDict.copy().items():
        is_own = name.partition(".")[0] in ("pounce", "pounce_log") or name in names
        if is_own and type(logger) is logging.Logger:
            logger.__class__ = OwnLogger
            logger.disabled = False


class Logs:
    """Context manager: within it the loggers `pounce.*` write to where the settings say, from a thread.

    The loggers are put back as they were on leaving. Raises `ConfigError` when it is made, for a format that cannot be
    understood, or a file that cannot be opened. `stream` takes the place of `sys.stderr`.
    """

    def __init__(self, config: ServerConfig, stream: TextIO | None = None) -> None:
        access_format(config.access_log_format)
        self._levels: dict[str, int | str] = {"pounce": config.log_level.upper()}
        records: queue.SimpleQueue[Any] = queue.SimpleQueue()
        form: str | None = None
        if config.log_config is None:
            log, access_log = _outputs(config, stream)
            form = (access_log or log).form
            self._writer = Writer(records, log, access_log)
        else:
            from pounce.observe.log_config import Configured

            keep_enabled()
            configured = Configured(config)
            self._levels = configured.levels()
            for name in (*self._levels, *configured.family):
                logging.getLogger(name)
            keep_enabled(*configured.family)
            self._writer = Writer(records, configured)
        self._handler = BoundedQueueHandler(records, self._writer.reopen, form)
        self._logger = logging.getLogger("pounce")
        self._before: dict[str, int] = {}
        self._propagated = True

    def __enter__(self) -> Self:
        self._before = {name: logging.getLogger(name).level for name in self._levels}
        for name, level in self._levels.items():
            logging.getLogger(name).setLevel(level)
        self._propagated = self._logger.propagate
        self._logger.propagate = False
        self._logger.addHandler(self._handler)
        self._writer.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._logger.removeHandler(self._handler)
        for name, level in self._before.items():
            logging.getLogger(name).setLevel(level)
        self._logger.propagate = self._propagated
        self._handler.report_dropped(at_all_costs=True)
        self._writer.stop()


def _outputs(config: ServerConfig, stream: TextIO | None) -> tuple[Lines, Lines | None]:
    """Of the log and, where it goes elsewhere, of the access log. Raises `ConfigError`."""
    with concerning("error_log_file"):
        log = _output(config, config.error_log_file, stream or sys.stderr)
    if config.access_log_file is None or config.access_log_file == config.error_log_file or not config.access_log:
        return log, None
    try:
        with concerning("access_log_file"):
            return log, _output(config, config.access_log_file, sys.stdout)
    except BaseException:
        log.close()
        raise


def _output(config: ServerConfig, target: str | None, stream: TextIO) -> Lines:
    sink = StreamSink(stream) if target is None else sink_of(target)
    as_json = config.log_format == "json"
    if config.log_format == "auto":
        shown = stream if target is None else sys.stdout if target == "-" else None
        # A journal has fields of its own for what JSON would have names for.
        as_json = not (sink.has_fields or (shown is not None and shown.isatty()))
    return Lines(sink, JSONFormatter() if as_json else TextFormatter(MESSAGE if sink.structured else LINE))


class LastWords:
    """Writes as `Logs` does, when that is over and logging with it: its thread waits for what is still to be said."""

    def __init__(self, config: ServerConfig) -> None:
        records: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._level = logging.getLevelName(config.log_level.upper())
        try:
            output = _output(config, config.error_log_file, sys.stderr)
        except PounceError:
            # It could be opened at the start, and there is nowhere else to say that it can no more.
            output = _output(config, None, sys.stderr)
        self._writer = Writer(records, output)
        self._handler = BoundedQueueHandler(records, self._writer.reopen)
        self._writer.start()

    def say(self, level: int, message: str, *arguments: object) -> None:
        """Write one line, if `log_level` has it."""
        if level >= self._level:
            self._handler.handle(logging.LogRecord("pounce", level, "", 0, message, arguments, None))

    def close(self) -> None:
        """Wait until all is written, as long as `Logs` does."""
        self._writer.stop()


class BoundedQueueHandler(logging.handlers.QueueHandler):
    """Never waits: counts what does not fit. How much waits is looked at before something is added, so that each thread
    may add one more."""

    def __init__(
        self,
        records: queue.SimpleQueue[Any],
        reopen: Callable[[], None],
        form: str | None = None,
        size: int = QUEUE_SIZE,
    ) -> None:
        super().__init__(records)
        self._records = records
        self._size = size
        self._dropped = 0
        self.form = form
        """Of the lines of the access log, `text` or `json`, where `take()` may be given them; else None."""
        self.reopen = reopen
        """Has the files that the records are written to opened again."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """The record as it is: it stays in the process, and is formatted by the thread that writes it."""
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        self.take(record)

    def take(self, line: str | logging.LogRecord) -> None:
        """Have a line of the access log written as it is, or a record."""
        if self._dropped:
            self.report_dropped()
        if self._records.qsize() < self._size:
            self._records.put(line)
        else:
            self._dropped += 1
            losses.add()

    def report_dropped(self, at_all_costs: bool = False) -> None:
        """Say how many records were lost, if there is room to say it."""
        if self._dropped and (at_all_costs or self._records.qsize() < self._size):
            record = _warning(f"{self._dropped} log records were dropped because they could not be written fast enough")
            self._dropped = 0
            self._records.put(record)


class Output(Protocol):
    """Takes records."""

    def write(self, record: logging.LogRecord) -> str | None:
        """Write a line. What cannot be written is counted; gives what to say of that when it can again."""

    def write_lines(self, lines: list[str]) -> str | None:
        """The same of lines that are made, at once."""

    def reopen(self) -> str | None:
        """Open its file again; gives what to say where that fails."""

    def close(self) -> None: ...

    def leave(self) -> None:
        """The thread that writes to it does not end, and is left."""


class Lines:
    """A sink, and the form of the lines that go there."""

    form: str | None
    """That of lines which somebody else may make; None where their record has to be there as well."""

    def __init__(self, sink: Sink, formatter: logging.Formatter) -> None:
        self.form = None if sink.structured else "json" if isinstance(formatter, JSONFormatter) else "text"
        self._sink = sink
        self._formatter = formatter
        self._lost = 0
        self._why = ""

    def write(self, record: logging.LogRecord) -> str | None:
        try:
            line = self._formatter.format(record)
        except Exception as exc:  # noqa: BLE001 - a record that does not fit its message must not end the thread
            line = f"a log record cannot be written: {record.msg!r} with {record.args!r}: {exc!r}"
        return self._put(line, record)

    def write_lines(self, lines: list[str]) -> str | None:
        return self._put("\n".join(lines), WAKE, len(lines))

    def _put(self, text: str, record: logging.LogRecord, count: int = 1) -> str | None:
        try:
            self._sink.write(text, record)
        except (OSError, ValueError) as exc:
            # Nobody is there to read, the stream is closed, the disk is full.
            self._lost += count
            losses.add(count)
            self._why = str(exc)
            return None
        count, self._lost = self._lost, 0
        return f"{count} log records could not be written: {self._why}" if count else None

    def reopen(self) -> str | None:
        try:
            self._sink.reopen()
        except OSError as exc:
            return f"The log file {exc.filename} cannot be opened again, the old one is kept: {exc.strerror or exc}"
        return None

    def close(self) -> None:
        self._sink.close()

    def leave(self) -> None:
        """Nobody else waits for it."""


def _warning(message: str) -> logging.LogRecord:
    return logging.LogRecord("pounce", logging.WARNING, "", 0, message, (), None)


def _size(line: str) -> int:
    return len(line) if line.isascii() else len(line.encode(errors="backslashreplace"))


class Writer(logging.handlers.QueueListener):
    """The thread that writes. Leaves what cannot be written behind when it is stopped: a server must end also when
    nobody reads its log.

    Hence no lock is held while it waits that others need: neither that of a `logging.Handler`, which
    `logging.shutdown()` takes, nor that of `sys.stderr`, which the interpreter takes at its end.
    """

    def __init__(self, records: queue.SimpleQueue[Any], log: Output, access_log: Output | None = None) -> None:
        super().__init__(records)
        self._records = records
        self._log = log
        self._access_log = access_log or log
        self._outputs = (log,) if access_log is None else (log, access_log)
        self._is_to_reopen = False

    def start(self) -> None:
        """As in the base class; in an interpreter beside the main one no thread can be a daemon."""
        if _thread.daemon_threads_allowed():
            super().start()
        else:
            self._thread = threading.Thread(target=self._monitor, name="pounce log")
            self._thread.start()

    def reopen(self) -> None:
        """Have the thread open its files again. From any thread, and from a signal handler's; returns at once."""
        self._is_to_reopen = True
        # What waits in the queue wakes it as well.
        self._records.put(WAKE)

    def _monitor(self) -> None:
        """What the thread does, until it takes None."""
        records = self._records
        item = records.get()
        while item is not None:
            if type(item) is not str:
                self.handle(item)
                item = records.get()
                continue
            self._reopen_if_asked()
            lines, size = [item], _size(item)
            following: Any = NOTHING
            # What is there already is written at once, as far as a pipe takes it in one piece. Nobody else takes from
            # the queue.
            while not records.empty():
                following = records.get()
                if type(following) is not str or (size := size + 1 + _size(following)) >= AT_ONCE:
                    break
                lines.append(following)
                following = NOTHING
            self._say(self._access_log.write_lines(lines))
            item = records.get() if following is NOTHING else following

    def handle(self, record: logging.LogRecord) -> None:
        self._reopen_if_asked()
        if record is not WAKE:
            self._say((self._access_log if record.name == LOGGER else self._log).write(record))

    def _reopen_if_asked(self) -> None:
        if self._is_to_reopen:
            self._is_to_reopen = False
            for output in self._outputs:
                self._say(output.reopen())

    def _say(self, trouble: str | None) -> None:
        if trouble is not None:
            self._log.write(_warning(trouble))

    def stop(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            # It is what the thread ends at.
            self._records.put(None)
            thread.join(END_TIMEOUT)
        is_left = thread is not None and thread.is_alive()
        for output in self._outputs:
            if is_left:
                output.leave()
            else:
                output.close()


WAKE = _warning("")
"""No record of anybody: there is something to do."""
LINE = "%(asctime)s %(levelname)-8s %(name)s - %(message)s"
MESSAGE = "%(message)s"


class TextFormatter(logging.Formatter):
    """Lines for people; a traceback follows the line it belongs to."""

    def __init__(self, form: str = LINE) -> None:
        super().__init__(form)

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
