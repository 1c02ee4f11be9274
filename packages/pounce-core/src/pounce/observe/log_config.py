"""The setting `log_config`: a configuration of `logging`, applied, and what the server logs handed to it.

The handlers that it makes would write where they are called, which is on an event loop. So none is put on a logger of
the server. What the configuration says of `pounce` and `pounce.access` is said of loggers of other names, which nobody
logs to but the thread that writes:

    pounce.access ──▶ queue ──▶ thread ──▶ pounce_log.access ──▶ its handlers, and those of the loggers above it

Of the same kind are the loggers of other servers: where a configuration has `uvicorn.access` and nothing of ours, it is
that to which requests are handed, in the form that handlers, filters and formatters made for uvicorn expect.
"""

import atexit
import copy
import json
import logging
import logging.config
import sys
from collections.abc import Mapping
from configparser import ConfigParser
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from pounce.app_failure import in_words, is_from_outside
from pounce.config import ServerConfig
from pounce.errors import ConfigError
from pounce.importer import look_in_app_dir
from pounce.observe.access_entry import AccessEntry, escaped, escaped_line
from pounce.observe.formats import LOGGER, access_fields

__all__ = ["Configured"]

OWN = "pounce"
SHADOW = "pounce_log"
"""What stands for `pounce` in the names of loggers."""


class Family(NamedTuple):
    """Two loggers of one server."""

    log: str
    access_log: str


FAMILIES = (
    Family(SHADOW, f"{SHADOW}.access"),
    Family("uvicorn.error", "uvicorn.access"),
    Family("gunicorn.error", "gunicorn.access"),
    Family("hypercorn.error", "hypercorn.access"),
    Family("_granian", "granian.access"),
)
UVICORN = FAMILIES[1]
FORMATTERS = {
    f"uvicorn.logging.{theirs}": f"pounce.observe.foreign_formatters.{ours}"
    for theirs, ours in (
        ("DefaultFormatter", "DefaultFormatter"),
        ("ColourizedFormatter", "DefaultFormatter"),
        ("AccessFormatter", "AccessFormatter"),
    )
}


class Configured:
    """A configuration that is in force, and where records go to, which the thread that writes gives to it."""

    def __init__(self, config: ServerConfig) -> None:
        """Applies the configuration. Raises `ConfigError`."""
        # It may name formatters and filters of the application.
        look_in_app_dir(config)
        try:
            named, self._root_has_level = _applied(config.log_config)
        except ConfigError:
            raise
        except BaseException as exc:
            if is_from_outside(exc):
                raise
            if not isinstance(exc, Exception):
                # Of a handler or a filter of the application.
                raise ConfigError(f"log_config cannot be used: {in_words(exc)}") from exc
            why = f"{exc}: {exc.__cause__}" if exc.__cause__ is not None else str(exc)
            hint = "Python's manual has its schema under logging.config."
            raise ConfigError(f"log_config cannot be used: {why}", hint=hint) from exc
        self.family = next((family for family in FAMILIES if _is_named(family, named)), FAMILIES[0])
        self._default = config.log_level.upper()
        self._asked = config.log_level != ServerConfig.__dataclass_fields__["log_level"].default
        self._own_names = {OWN, LOGGER} | {_own(name) for name in named if name.partition(".")[0] == SHADOW}
        self._streams: list[tuple[logging.StreamHandler[TextIO], TextIO, TextIO]] = []
        self._take_streams()

    def levels(self) -> dict[str, int | str]:
        """The level of each logger of the server."""
        return {name: self._level_of(name) for name in self._own_names}

    def _level_of(self, name: str) -> int | str:
        if self._asked:
            return self._default
        logger: logging.Logger | None = self._logger_of(name)
        while logger is not None and logger.parent is not None:
            if logger.level:
                return logger.level
            logger = logger.parent
        return logging.getLogger().level if self._root_has_level else self._default

    def _logger_of(self, name: str) -> logging.Logger:
        """Where records of a logger of the server go."""
        if name == LOGGER:
            return logging.getLogger(self.family.access_log)
        if self.family.log != SHADOW:
            return logging.getLogger(self.family.log)
        return logging.getLogger(SHADOW + name.removeprefix(OWN))

    def _take_streams(self) -> None:
        """Have what goes to standard output and error go there by streams of our own: the interpreter takes the locks
        of `sys.stderr` and `sys.stdout` at its end, which must not wait for who does not read."""
        made: dict[int, TextIO] = {}
        loggers = [logging.getLogger(), *(self._logger_of(name) for name in self._own_names)]
        for logger in list(loggers):
            while logger.parent is not None:
                logger = logger.parent
                loggers.append(logger)
        for handler in {handler for logger in loggers for handler in logger.handlers}:
            if type(handler) is logging.StreamHandler and handler.stream in (sys.stdout, sys.stderr):
                stream = handler.stream
                try:
                    fd = stream.fileno()
                except OSError, ValueError, AttributeError:
                    continue
                if fd not in made:
                    made[fd] = open(fd, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
                handler.setStream(made[fd])
                self._streams.append((handler, stream, made[fd]))

    def write(self, record: logging.LogRecord) -> str | None:
        """Hand a record to the handlers that there are for it. Gives nothing: a handler that fails says so itself."""
        name = record.name
        if isinstance(record.msg, AccessEntry):
            _spread(record, record.msg, as_uvicorn=self.family is UVICORN)
        else:
            _escape(record)
        logger = self._logger_of(name)
        if self.family.log != SHADOW:
            record.name = logger.name
        try:
            logger.handle(record)
        except Exception as exc:  # noqa: BLE001 - a filter that fails must not end the thread
            return f"log_config: {type(exc).__name__}: {exc}" if name != OWN else None
        return None

    def write_lines(self, lines: list[str]) -> str | None:
        """Nobody makes lines for it: its handlers have formatters of their own."""
        raise NotImplementedError

    def reopen(self) -> None:
        """Its files are those of loggers, like those of the application."""

    def close(self) -> None:
        for handler, before, own in self._streams:
            handler.setStream(before)
            own.close()

    def leave(self) -> None:
        """Its handlers are still being waited for, and nobody may wait for them at the exit."""
        atexit.unregister(logging.shutdown)


def _is_named(family: Family, named: set[str]) -> bool:
    tops = {family.log.partition(".")[0], family.access_log.partition(".")[0]}
    return any(name.partition(".")[0] in tops for name in named)


def _own(name: str) -> str:
    return OWN + name.removeprefix(SHADOW)


def _shadow(name: str) -> str:
    top, dot, rest = name.partition(".")
    return SHADOW + dot + rest if top == OWN else name


# What a configuration says


def _applied(given: Any) -> tuple[set[str], bool]:
    """Apply it; gives the names of its loggers, and whether it has a level for all others."""
    if isinstance(given, str):
        given = _read(given)
    if isinstance(given, ConfigParser):
        return _applied_ini(given)
    found = {"version": 1, **copy.deepcopy(dict(given))}
    loggers = found.get("loggers", {})
    found["loggers"] = {_shadow(name): each for name, each in loggers.items()}
    for formatter in found.get("formatters", {}).values():
        for key in ("()", "class"):
            if isinstance(formatter.get(key), str):
                formatter[key] = FORMATTERS.get(formatter[key], formatter[key])
    logging.config.dictConfig(found)
    return set(found["loggers"]), "level" in found.get("root", {})


def _applied_ini(parser: ConfigParser) -> tuple[set[str], bool]:
    named = set()
    for section in parser.sections():
        if section.startswith("logger_") and parser.has_option(section, "qualname"):
            name = _shadow(parser.get(section, "qualname"))
            parser.set(section, "qualname", name)
            named.add(name)
        elif section.startswith("formatter_") and parser.has_option(section, "class"):
            theirs = parser.get(section, "class")
            parser.set(section, "class", FORMATTERS.get(theirs, theirs))
    logging.config.fileConfig(parser, disable_existing_loggers=False)
    return named, parser.has_option("logger_root", "level")


def _read(path: str) -> Mapping[str, Any] | ConfigParser:
    """A file in the form that its name says: .toml, .json, .yaml, else that of `logging.config.fileConfig()`."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as exc:
        raise ConfigError(
            f"the file {path} of log_config cannot be read: {exc.strerror or exc}",
            hint="It is the name of a file in TOML, JSON, YAML or INI.",
        ) from exc
    form = path.rpartition(".")[2].lower()
    try:
        found: Any = _parsed(text, form)
    except ConfigError:
        raise
    except Exception as exc:
        raise ConfigError(f"the file {path} of log_config is not {_FORMS.get(form, 'INI')}: {exc}") from exc
    if not isinstance(found, Mapping):
        raise ConfigError(f"the file {path} of log_config has no table in it")
    return found


_FORMS = {"toml": "TOML", "json": "JSON", "yaml": "YAML", "yml": "YAML"}


def _parsed(text: str, form: str) -> Any:
    if form == "toml":
        import tomllib

        return tomllib.loads(text)
    if form == "json":
        return json.loads(text)
    if form in ("yaml", "yml"):
        try:
            import yaml
        except ImportError as exc:
            raise ConfigError("log_config is a file in YAML, which needs PyYAML", hint="pip install pyyaml") from exc
        return yaml.safe_load(text)
    parser = ConfigParser()
    parser.read_string(text)
    return parser


# What handlers get


def _spread(record: logging.LogRecord, entry: AccessEntry, *, as_uvicorn: bool) -> None:
    """Make of a request what formatters can use: a message, and an attribute for each of its values."""
    fields = access_fields(entry)
    record.__dict__.update({name: escaped(value) if type(value) is str else value for name, value in fields.items()})
    if as_uvicorn:
        record.msg = '%s - "%s %s HTTP/%s" %d'
        record.args = (entry.client, escaped(entry.method), escaped(entry.target), entry.version, entry.status)
    else:
        record.msg = str(entry)


def _escape(record: logging.LogRecord) -> None:
    """What a message and an exception say may come from a client."""
    message = record.getMessage()
    if not message.isprintable():
        record.msg, record.args = _escaped_lines(message), None
    if record.exc_info and not record.exc_text:
        record.exc_text = _escaped_lines(logging.Formatter().formatException(record.exc_info))


def _escaped_lines(text: str) -> str:
    return "\n".join(escaped_line(line) for line in text.split("\n"))
