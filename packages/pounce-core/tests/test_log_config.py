"""`log_config`: configurations of logging, those made for other servers too, whose handlers no loop waits for."""

import atexit
import copy
import io
import json
import logging
import logging.config
import pickle
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pounce import ConfigError, ServerConfig
from pounce.observe.access_entry import AccessEntry
from pounce.observe.logs import Logs, reopen_log_files

log = logging.getLogger("pounce.test_log_config")
access = logging.getLogger("pounce.access")


def entry(target: str = "/a?b=c", status: int = 200) -> AccessEntry:
    return AccessEntry(1_700_000_000.25, "192.0.2.7:4711", "GET", target, "1.1", status, 20, 0.5, 3, "http", True)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """What a configuration changes is put back."""
    manager = logging.getLogger().manager
    loggers: list[Any] = [logging.getLogger(), *manager.loggerDict.values()]
    before = [(each, vars(each).copy(), list(getattr(each, "handlers", ()))) for each in loggers]
    names, known = set(manager.loggerDict), logging._handlers.copy()  # type: ignore[attr-defined]
    yield
    for name in set(manager.loggerDict) - names:
        logger = manager.loggerDict[name]
        if isinstance(logger, logging.Logger):
            for handler in tuple(logger.handlers):
                logger.removeHandler(handler)
                handler.close()
            logger.setLevel(logging.NOTSET)
            logger.propagate = True
    for logger, values, handlers in before:
        for handler in set(getattr(logger, "handlers", ())) - set(handlers):
            handler.close()
        vars(logger).update(values)
        if handlers or hasattr(logger, "handlers"):
            logger.handlers = handlers
    logging._handlers.update(known)  # type: ignore[attr-defined]
    manager._clear_cache()  # type: ignore[attr-defined]


class Kept(logging.Handler):
    """Keeps the lines that are made of records, and the threads that it is called on."""

    lines: ClassVar[list[str]] = []
    threads: ClassVar[set[str]] = set()

    def emit(self, record: logging.LogRecord) -> None:
        Kept.lines.append(self.format(record))
        Kept.threads.add(threading.current_thread().name)


@pytest.fixture(autouse=True)
def nothing_is_kept() -> None:
    Kept.lines, Kept.threads = [], set()


@pytest.fixture(autouse=True)
def nothing_is_left_of_frameworks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some configure the loggers of other servers, and handlers of the root, and leave them."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [each for each in root.handlers if "pytest" in type(each).__module__])
    for name in root.manager.loggerDict.copy():
        if name.partition(".")[0] in ("uvicorn", "gunicorn", "hypercorn", "_granian", "granian"):
            monkeypatch.delitem(root.manager.loggerDict, name)


def making(loggers: dict[str, Any], form: str = "%(name)s %(levelname)s %(message)s", **more: Any) -> dict[str, Any]:
    """A configuration whose handler `kept` keeps everything."""
    return {
        "formatters": {"form": {"format": form}},
        "handlers": {"kept": {"()": Kept, "formatter": "form"}},
        "loggers": loggers,
        **more,
    }


KEPT: dict[str, Any] = {"handlers": ["kept"], "propagate": False}


def logged(given: Any, **settings: Any) -> list[str]:
    """What comes of a message, a debug message, and a request."""
    with Logs(ServerConfig(log_config=given, **settings)):
        log.info("said")
        log.debug("not said")
        access.info(entry())
    return Kept.lines


LINE = '192.0.2.7:4711 - "GET /a?b=c HTTP/1.1" 200 20 500.0ms w3'


@pytest.mark.parametrize(
    ("loggers", "root", "said"),
    [
        ({"pounce": KEPT}, None, ["pounce.test_log_config INFO said", f"pounce.access INFO {LINE}"]),
        ({}, {"handlers": ["kept"]}, ["pounce.test_log_config INFO said", f"pounce.access INFO {LINE}"]),
        ({"pounce.access": KEPT}, None, [f"pounce.access INFO {LINE}"]),
        ({"pounce": KEPT, "pounce.access": {"level": "WARNING"}}, None, ["pounce.test_log_config INFO said"]),
        ({}, {"handlers": ["kept"], "level": "ERROR"}, []),
        (
            {"gunicorn.error": KEPT, "gunicorn.access": KEPT},
            None,
            ["gunicorn.error INFO said", f"gunicorn.access INFO {LINE}"],
        ),
        ({"hypercorn.access": KEPT}, None, [f"hypercorn.access INFO {LINE}"]),
        ({"_granian": KEPT, "granian.access": KEPT}, None, ["_granian INFO said", f"granian.access INFO {LINE}"]),
        ({"pounce": KEPT, "uvicorn": KEPT}, None, ["pounce.test_log_config INFO said", f"pounce.access INFO {LINE}"]),
    ],
    ids=[
        "pounce", "root", "access alone", "level", "level of root", "gunicorn", "hypercorn", "granian", "pounce first",
    ],
)  # fmt: skip
def test_records_go_to_the_logger_that_stands_for_theirs(
    loggers: dict[str, Any], root: dict[str, Any] | None, said: list[str]
) -> None:
    more = {} if root is None else {"root": root}
    assert logged(making(loggers, **more)) == said


def test_log_level_holds_where_the_configuration_has_none_and_where_it_is_given() -> None:
    assert logged(making({"pounce": KEPT}), log_level="error") == []
    levelled = {**KEPT, "level": "ERROR"}
    assert "pounce.test_log_config DEBUG not said" in logged(making({"pounce": levelled}), log_level="debug")


def test_form_of_the_access_log_is_its_message() -> None:
    given = making({"pounce": KEPT}, "%(message)s")
    with Logs(ServerConfig(log_config=given, access_log_format="%(m)s")):
        access.info(replace(entry(), write=lambda entry: entry.method))
    assert Kept.lines == ["GET"]


def test_values_of_a_request_are_attributes_of_its_record() -> None:
    given = making({"pounce": KEPT}, "%(method)s %(path)s %(status)s %(client)s %(worker)s")
    with Logs(ServerConfig(log_config=given)):
        access.info(entry("/\n"))
    assert Kept.lines == ["GET /\\n 200 192.0.2.7:4711 3"]


UVICORN: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "default": {"()": "uvicorn.logging.DefaultFormatter", "fmt": "%(levelprefix)s %(message)s", "use_colors": None},
        "access": {
            "()": "uvicorn.logging.AccessFormatter",
            "fmt": '%(levelprefix)s %(client_addr)s - "%(request_line)s" %(status_code)s',
        },
    },
    "handlers": {
        "default": {"formatter": "default", "class": "logging.StreamHandler", "stream": "ext://sys.stderr"},
        "access": {"formatter": "access", "class": "logging.StreamHandler", "stream": "ext://sys.stdout"},
    },
    "loggers": {
        "uvicorn": {"handlers": ["default"], "level": "INFO", "propagate": False},
        "uvicorn.error": {"level": "INFO"},
        "uvicorn.access": {"handlers": ["access"], "level": "INFO", "propagate": False},
    },
}
"""As uvicorn has it, and as files are that were made from it."""


def test_configuration_of_uvicorn_does_here_what_it_does_there(capfd: pytest.CaptureFixture[str]) -> None:
    with Logs(ServerConfig(log_config=UVICORN)):
        log.info("said")
        access.info(entry('/"\x1b'))
        access.warning(entry(status=599))
        access.info(entry(status=0))
    captured = capfd.readouterr()
    assert captured.err == "INFO:     said\n"
    assert captured.out.splitlines() == [
        'INFO:     192.0.2.7:4711 - "GET /\\"\\x1b HTTP/1.1" 200 OK',
        'WARNING:  192.0.2.7:4711 - "GET /a?b=c HTTP/1.1" 599 ',
        'INFO:     192.0.2.7:4711 - "GET /a?b=c HTTP/1.1" 0 ',
    ]


def test_colours_are_shown_where_they_are_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    given = copy.deepcopy(UVICORN)
    given["formatters"]["access"]["use_colors"] = True
    with Logs(ServerConfig(log_config=given)):
        access.info(entry())
    assert capfd.readouterr().out == (
        '\x1b[32mINFO\x1b[0m:     192.0.2.7:4711 - "GET /a?b=c HTTP/1.1" \x1b[32m200 OK\x1b[0m\n'
    )


def test_filters_made_for_uvicorn_see_what_they_know() -> None:
    seen: list[Any] = []

    def wanted(record: logging.LogRecord) -> bool:
        seen.append((record.name, record.args, record.getMessage()))
        return record.args is not None and record.args[2] != "/health"  # type: ignore[index,call-overload,comparison-overlap]

    given = making({"uvicorn.access": {**KEPT, "filters": ["f"]}}, filters={"f": {"()": lambda: wanted}})
    with Logs(ServerConfig(log_config=given)):
        access.info(entry("/health"))
        access.info(entry("/a"))
    line = '192.0.2.7:4711 - "GET /a HTTP/1.1" 200'
    assert seen[1] == ("uvicorn.access", ("192.0.2.7:4711", "GET", "/a", "1.1", 200), line)
    assert Kept.lines == [f"uvicorn.access INFO {line}"]


TOML = """
[formatters.form]
format = "%(message)s"
[handlers.file]
class = "logging.FileHandler"
filename = "FILE"
formatter = "form"
[loggers.pounce]
handlers = ["file"]
"""
YAML = """
formatters: {form: {format: "%(message)s"}}
handlers: {file: {class: logging.FileHandler, filename: FILE, formatter: form}}
loggers: {pounce: {handlers: [file]}}
"""
INI = """
[loggers]
keys=root,pounce
[handlers]
keys=file
[formatters]
keys=form
[logger_root]
handlers=
[logger_pounce]
qualname=pounce
handlers=file
[handler_file]
class=FileHandler
formatter=form
args=("FILE",)
[formatter_form]
format=%(message)s
"""
JSON = json.dumps({
    "formatters": {"form": {"format": "%(message)s"}},
    "handlers": {"file": {"class": "logging.FileHandler", "filename": "FILE", "formatter": "form"}},
    "loggers": {"pounce": {"handlers": ["file"]}},
})
FILES = {"l.toml": TOML, "l.yaml": YAML, "l.yml": YAML, "l.json": JSON, "l.ini": INI, "logging.conf": INI}


@pytest.mark.parametrize("name", FILES)
def test_file_is_read_in_the_form_that_its_name_says(tmp_path: Path, name: str) -> None:
    written = tmp_path / "log"
    (tmp_path / name).write_text(FILES[name].replace("FILE", str(written)))
    logged(str(tmp_path / name))
    assert written.read_text() == f"said\n{LINE}\n"


def test_files_of_handlers_are_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "log"
    (tmp_path / "l.toml").write_text(TOML.replace("FILE", str(path)))
    with Logs(ServerConfig(log_config=str(tmp_path / "l.toml"))):
        log.info("one")
        path.rename(tmp_path / "old")
        reopen_log_files()
        log.info("two")
    assert "two" in path.read_text()


def test_handlers_are_called_by_the_thread_that_writes() -> None:
    logged(making({"pounce": KEPT}))
    assert len(Kept.lines) == 2
    assert threading.current_thread().name not in Kept.threads


class Blocked(logging.Handler):
    """Waits for somebody who does not come."""

    reached = threading.Event()
    released = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.reached.set()
        assert self.released.wait(60)


def test_handler_that_waits_holds_up_neither_who_logs_nor_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    unregistered: list[Any] = []
    monkeypatch.setattr(atexit, "unregister", unregistered.append)
    monkeypatch.setattr("pounce.observe.logs.END_TIMEOUT", 0.01)
    blocked = {"handlers": ["blocked"], "propagate": False}
    given = {"handlers": {"blocked": {"()": Blocked}}, "loggers": {"pounce": blocked}}
    with Logs(ServerConfig(log_config=given)) as logs:
        thread: Any = logs._writer._thread  # type: ignore[attr-defined]
        log.info("first")
        assert Blocked.reached.wait(60)
        for _ in range(20_000):
            log.info("more")
    assert unregistered == [logging.shutdown]
    Blocked.released.set()
    logs._handler.queue.put(None, timeout=60)
    thread.join(60)
    assert not thread.is_alive()


def test_no_lock_of_standard_error_is_held_while_its_reader_is_waited_for(capfd: pytest.CaptureFixture[str]) -> None:
    with Logs(ServerConfig(log_config=UVICORN)):
        (handler,) = logging.getLogger("uvicorn").handlers
        assert isinstance(handler, logging.StreamHandler)
        assert handler.stream is not sys.stderr
        log.info("said")
    assert handler.stream is sys.stderr
    assert "said" in capfd.readouterr().err


def test_what_messages_and_exceptions_say_cannot_drive_a_terminal() -> None:
    with Logs(ServerConfig(log_config=making({"pounce": KEPT}))):
        try:
            raise ValueError("\x1b[31m")
        except ValueError:
            log.exception("of a client: %s", "\x1b\r")
    (line,) = Kept.lines
    assert line.startswith("pounce.test_log_config ERROR of a client: \\x1b\\r\nTraceback")
    assert line.endswith("ValueError: \\x1b[31m")


def test_application_that_configures_logging_silences_nothing() -> None:
    for loggers in ({"pounce": KEPT}, {"uvicorn.error": KEPT, "uvicorn.access": KEPT}):
        Kept.lines = []
        with Logs(ServerConfig(log_config=making(loggers))):
            logging.config.dictConfig({"version": 1})
            log.info("said")
            access.info(entry())
        assert len(Kept.lines) == 2


def test_levels_of_loggers_are_put_back() -> None:
    before = (logging.getLogger("pounce").level, access.level)
    with Logs(ServerConfig(log_config=making({"pounce": KEPT, "pounce.access": {"level": "ERROR"}}))):
        assert not access.isEnabledFor(logging.WARNING)
    assert (logging.getLogger("pounce").level, access.level) == before


def test_filter_that_fails_is_told_and_ends_nothing() -> None:
    def failing(record: logging.LogRecord) -> bool:
        if record.name == "pounce.access":
            raise RuntimeError("no")
        return True

    given = making({"pounce": KEPT, "pounce.access": {"filters": ["f"]}}, "%(message)s")
    with Logs(ServerConfig(log_config=given | {"filters": {"f": {"()": lambda: failing}}})):
        access.info(entry())
        log.info("said")
    assert Kept.lines == ["log_config: RuntimeError: no", "said"]


def test_table_goes_to_other_processes_with_the_other_settings() -> None:
    config = ServerConfig(log_config=UVICORN)
    assert hash(config) == hash(ServerConfig(log_config=UVICORN))
    assert pickle.loads(pickle.dumps(config)) == config


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("no.toml", None, "cannot be read: No such file"),
        ("l.toml", "= 3", "is not TOML"),
        ("l.json", "{", "is not JSON"),
        ("l.yaml", "a: [", "is not YAML"),
        ("l.ini", "x", "is not INI"),
        ("l.json", "[]", "has no table in it"),
        ("l.json", '{"handlers": {"a": {"class": "no.Such"}}}', "cannot be used: Unable to configure handler"),
        ("l.json", '{"version": 1, "handlers": {"a": {"()": "sys.exit"}}}', "cannot be used: SystemExit"),
        ("l.ini", "[loggers]\nkeys=root", "log_config cannot be used"),
        ("l.json", '{"version": 2}', "log_config cannot be used: Unsupported version"),
    ],
)
def test_configuration_that_cannot_be_used_is_an_error(tmp_path: Path, name: str, text: str | None, said: str) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        Logs(ServerConfig(log_config=str(path)), io.StringIO())
    assert said in caught.value.message


def test_yaml_needs_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    (tmp_path / "l.yaml").write_text(YAML)
    with pytest.raises(ConfigError, match="needs PyYAML"):
        Logs(ServerConfig(log_config=str(tmp_path / "l.yaml")))


def test_what_is_no_configuration_is_refused() -> None:
    with pytest.raises(ConfigError, match="log_config must be a table or the name of a file"):
        ServerConfig(log_config=3)
