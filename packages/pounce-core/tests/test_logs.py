"""Logging never holds up the server."""

import asyncio
import io
import json
import logging
import logging.config
import os
import queue
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pounce import ServerConfig
from pounce.observe.logs import (
    BoundedQueueHandler,
    JSONFormatter,
    LastWords,
    Logs,
    TextFormatter,
    Writer,
    keep_enabled,
    wants_json,
)
from pounce.observe.losses import Losses
from pounce.registry import Registry
from pounce.testing import MemoryConnection

log = logging.getLogger("pounce.test_logs")


class BlockedStream(io.StringIO):
    """A stream that takes nothing until it is released, like a pipe that nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()
        self.released = threading.Event()

    def write(self, text: str) -> int:
        self.reached.set()
        assert self.released.wait(60)
        return super().write(text)


def config(**settings: Any) -> ServerConfig:
    return ServerConfig.of({"log_format": "text", **settings})


def test_records_are_written_by_another_thread() -> None:
    threads: list[str] = []

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            threads.append(threading.current_thread().name)
            return super().write(text)

    stream = Stream()
    with Logs(config(), stream):
        log.info("hello %s", "world")
    assert "hello world" in stream.getvalue()
    assert threading.current_thread().name not in threads


def test_everything_logged_is_written_before_the_end() -> None:
    stream = io.StringIO()
    with Logs(config(), stream):
        for number in range(500):
            log.info("line %d.", number)
    assert [f"line {number}." in stream.getvalue() for number in range(500)] == [True] * 500


def test_blocked_stream_does_not_block_who_logs() -> None:
    stream = BlockedStream()
    with Logs(config(), stream):
        log.info("first")
        assert stream.reached.wait(60)
        started = time.monotonic()
        for _ in range(20_000):
            log.info("more")
        assert time.monotonic() - started < 60
        stream.released.set()
    assert "log records were dropped" in stream.getvalue()


def test_blocked_stream_does_not_hold_up_the_end_for_ever() -> None:
    stream = BlockedStream()
    ended = threading.Event()

    def serve() -> None:
        with Logs(config(), stream):
            for _ in range(20_000):
                log.info("more")
        ended.set()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        assert ended.wait(60)
    finally:
        stream.released.set()
        thread.join(60)


def test_dropped_records_are_counted_and_reported_when_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = Losses()
    monkeypatch.setattr("pounce.observe.logs.losses", lost)
    records: queue.SimpleQueue[Any] = queue.SimpleQueue()
    handler = BoundedQueueHandler(records, lambda: None, size=2)
    for number in range(5):
        handler.handle(logging.LogRecord("pounce", logging.INFO, "", 0, f"line {number}", (), None))
    assert [records.get_nowait().getMessage() for _ in range(2)] == ["line 0", "line 1"]
    handler.handle(logging.LogRecord("pounce", logging.INFO, "", 0, "line 5", (), None))
    report, line = records.get_nowait(), records.get_nowait()
    assert report.getMessage().startswith("3 log records were dropped")
    assert report.levelno == logging.WARNING
    assert line.getMessage() == "line 5"
    assert lost.take() == 3


def test_loggers_are_put_back_as_they_were() -> None:
    logger = logging.getLogger("pounce")
    before = (logger.level, logger.propagate, list(logger.handlers))
    with Logs(config(log_level="debug"), io.StringIO()):
        assert logger.level == logging.DEBUG
    assert (logger.level, logger.propagate, logger.handlers) == before


def test_level_is_the_one_configured() -> None:
    stream = io.StringIO()
    with Logs(config(log_level="error"), stream):
        log.warning("too quiet")
        log.error("loud enough")
    assert "too quiet" not in stream.getvalue()
    assert "loud enough" in stream.getvalue()


def test_stream_that_is_closed_costs_the_line_only(capfd: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    stream.close()
    with Logs(config(), stream):
        log.info("lost")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("log_format", "stream", "json_lines"),
    [
        ("json", Terminal(), True),
        ("text", io.StringIO(), False),
        ("auto", Terminal(), False),
        ("auto", io.StringIO(), True),
    ],
)
def test_format_is_chosen(log_format: str, stream: io.StringIO, json_lines: bool) -> None:
    assert wants_json(config(log_format=log_format), stream) is json_lines


def test_last_words_are_said_where_the_log_file_cannot_be_had_any_more(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for folder, said in ((tmp_path, ""), (tmp_path / "gone", "the end\n")):
        words = LastWords(config(error_log_file=str(folder / "log")))
        words.say(logging.ERROR, "the %s", "end")
        words.close()
        assert capfd.readouterr().err.endswith(said)
    assert (tmp_path / "log").read_text().endswith("the end\n")


def record(message: str, *args: object, **more: Any) -> logging.LogRecord:
    made = logging.LogRecord("pounce.x", logging.WARNING, "", 0, message, args, None)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def test_json_line_has_time_level_logger_and_message() -> None:
    line = json.loads(JSONFormatter().format(record("hello %s\n", "world\x1b")))
    assert line.pop("ts").endswith("+00:00")
    assert line == {"level": "warning", "logger": "pounce.x", "message": "hello world\x1b\n"}


def test_json_is_one_line_whatever_is_logged() -> None:
    text = JSONFormatter().format(record("a\nb\x1b\u2028", exc_info=_exc_info()))
    assert len(text.splitlines()) == 1
    assert "ValueError" in json.loads(text)["exception"]


def _exc_info() -> Any:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        return sys.exc_info()


def test_json_event_has_its_own_fields() -> None:
    line = json.loads(JSONFormatter().format(record("Listening", event={"event": "startup", "pid": os.getpid()})))
    assert (line["event"], line["pid"]) == ("startup", os.getpid())


@pytest.mark.parametrize("text", ["\x1b[31m", "\r", "\x07", "\x9b", "\u202e", "\x00"], ids=repr)
def test_text_line_has_no_control_characters(text: str) -> None:
    assert text not in TextFormatter().format(record("before %s after", text))


@pytest.fixture
def restored() -> Iterator[None]:
    """What a configuration changes is put back."""
    root = logging.getLogger()
    before = {name: vars(each).get("disabled") for name, each in root.manager.loggerDict.items()}
    handlers, level, known = root.handlers[:], root.level, logging._handlers.copy()  # type: ignore[attr-defined]
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging._handlers.update(known)  # type: ignore[attr-defined]
    for name, disabled in before.items():
        if disabled is not None:
            logging.getLogger(name).disabled = disabled


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("before", [True, False], ids=["before the start", "after it"])
def test_configuration_of_an_application_silences_no_logger_of_the_server(before: bool) -> None:
    other, own = logging.getLogger("not_of_the_server"), logging.getLogger("pounce.test_logs")
    if not before:
        keep_enabled()
    logging.config.dictConfig({"version": 1})
    if before:
        keep_enabled()
    assert (other.disabled, own.disabled) == (True, False)


@pytest.mark.usefixtures("restored")
def test_logger_that_is_given_a_level_or_disabled_by_its_name_obeys() -> None:
    keep_enabled()
    own = logging.getLogger("pounce.test_logs")
    logging.config.dictConfig({"version": 1, "loggers": {"pounce.test_logs": {"level": "CRITICAL"}}})
    assert not own.isEnabledFor(logging.ERROR)
    own.setLevel(logging.NOTSET)
    own.disabled = True
    assert not own.isEnabledFor(logging.CRITICAL)


# Lines of the access log


async def answers(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"12345"})


def serve(requests: int, during: Callable[[int], object] = lambda number: None, **settings: Any) -> None:
    """Answer requests for /0, /1 and so on; `during` is called after each."""

    async def served() -> None:
        registry = Registry.discover(config(**settings))
        connection = MemoryConnection(answers, registry=registry, access_log=True, **settings)
        for number in range(requests):
            connection.feed(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
            during(number)

    asyncio.run(served())


@pytest.fixture
def no_records(monkeypatch: pytest.MonkeyPatch) -> list[logging.LogRecord]:
    """Records of the access log that are made all the same."""
    made: list[logging.LogRecord] = []
    make = logging.Logger.makeRecord

    def counted(self: logging.Logger, name: str, *args: Any) -> logging.LogRecord:
        record = make(self, name, *args)
        if name == "pounce.access":
            made.append(record)
        return record

    monkeypatch.setattr(logging.Logger, "makeRecord", counted)
    return made


@pytest.mark.parametrize("form", ["text", "json"])
def test_lines_of_requests_are_written_without_records(form: str, no_records: list[logging.LogRecord]) -> None:
    stream = io.StringIO()
    with Logs(config(log_format=form), stream):
        serve(3)
    pattern = {
        "text": r"\S{10} \d\d:\d\d:\d\d,\d{3} INFO     pounce\.access - \S+ - \"GET (\S+) HTTP/1\.1\" 200 5 .*",
        "json": r'{"ts": "[^"]+", "level": "info", "method": "GET", "path": "([^"]+)", "status": 200, "bytes": 5, .*}',
    }
    found = [re.fullmatch(pattern[form], line) for line in stream.getvalue().splitlines()]
    assert [match and match[1] for match in found] == ["/0", "/1", "/2"]
    assert no_records == []


def test_lines_stand_among_records_in_their_order() -> None:
    stream = io.StringIO()
    with Logs(config(access_log_format="%(U)s"), stream):
        serve(4, lambda number: log.info("after %d", number), access_log_format="%(U)s")
    assert [line.rpartition(" - ")[2] for line in stream.getvalue().splitlines()] == [
        text for number in range(4) for text in (f"/{number}", f"after {number}")
    ]


def test_handler_of_somebody_else_gets_records_from_the_next_request_on(no_records: list[logging.LogRecord]) -> None:
    stream, logger = io.StringIO(), logging.getLogger("pounce.access")
    seen: list[str] = []

    class Seen(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())

    handler = Seen()
    with Logs(config(access_log_format="%(U)s"), stream):
        serve(2, lambda number: logger.addHandler(handler), access_log_format="%(U)s")
        logger.removeHandler(handler)
    assert stream.getvalue().splitlines() == ["/0", "/1"]
    assert seen == ["/1"]
    assert [record.levelname for record in no_records] == ["INFO"]


@pytest.mark.parametrize("sign", ["a", "\u00e9"])
def test_lines_that_leave_at_once_fit_in_one_piece_of_a_pipe(sign: str) -> None:
    lines = [f"{number} {sign * 700}" for number in range(20)]
    records: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for line in (*lines, None):
        records.put(line)
    written: list[list[str]] = []

    class Output:
        def write_lines(self, lines: list[str]) -> None:
            written.append(lines)

    output: Any = Output()
    Writer(records, output)._monitor()
    assert [line for piece in written for line in piece] == lines
    # PIPE_BUF of Linux, up to which lines of several processes do not mix (pipe(7)).
    assert 2048 < max(len("".join(f"{line}\n" for line in piece).encode()) for piece in written) <= 4096


def test_lines_that_do_not_fit_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = Losses()
    monkeypatch.setattr("pounce.observe.logs.losses", lost)
    stream = BlockedStream()
    with Logs(config(), stream):
        log.info("first")
        assert stream.reached.wait(60)
        handler: Any = logging.getLogger("pounce").handlers[-1]
        for number in range(10_100):
            handler.take(f"line {number}.")
        stream.released.set()
    text = stream.getvalue()
    assert lost.take() == 100
    assert "100 log records were dropped" in text
    assert [f"line {number}." in text for number in (0, 9_999, 10_000)] == [True, True, False]
