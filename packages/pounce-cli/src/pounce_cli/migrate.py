"""`pounce migrate`: from a command line or a file of another server to the same for this one.

What is read is a command line (also one in a Procfile, a unit of systemd or a Dockerfile), `gunicorn.conf.py`, or a
configuration of hypercorn. What is written is one text: `pounce.toml`, with the command that needs no file in its
comments, and there too what has not been taken over, and why.
"""

import contextlib
import functools
import json
import math
import os
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pounce.config import ServerConfig, describe
from pounce.errors import ConfigError
from pounce.observe.logs import escaped_line
from pounce.options import Option, parse_option
from pounce_cli.config import toml_string, toml_value
from pounce_cli.dockerfile import Image, images
from pounce_cli.errors import UsageError
from pounce_cli.flags import flag_of, plugin_options, spellings, switched_off_by
from pounce_cli.foreign import FLAGS
from pounce_cli.peers import SERVERS, Default, NoEquivalent, Server, Theirs

__all__ = ["Migration", "Remark", "answer_to", "migrate", "of_file", "of_words", "setting_of", "show"]

FILE = "pounce.toml"
WRAPPERS = (("exec",), ("env",), ("uv", "run"), ("poetry", "run"), ("pdm", "run"), ("pipenv", "run"), ("dotenv", "run"))
"""What may stand in front of a server in a command line."""
VARIABLES = {"WEB_CONCURRENCY": "workers", "PORT": "port", "FORWARDED_ALLOW_IPS": "trusted_hosts"}


class Remark(NamedTuple):
    """Something that is not the same here."""

    what: str
    why: str


@dataclass
class Migration:
    """What was read, in our words."""

    server: Server
    app: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    """By name, as they stand in a file."""
    remarks: list[Remark] = field(default_factory=list)
    """What has no equivalent."""
    notes: list[Remark] = field(default_factory=list)
    """What is taken over and means something slightly different."""
    env_files: tuple[str, ...] = ()
    """Files of variables."""
    said: set[str] = field(default_factory=set)
    """The settings of which something was said, also where that is our default."""

    @property
    def defaults(self) -> list[Default]:
        """Defaults of theirs that ours differ from, where nothing else was said."""
        return [each for each in self.server.defaults if each.setting not in self.said]

    @property
    def command(self) -> list[str]:
        """The command that needs no file."""
        files = [word for each in self.env_files for word in ("--env-file", each)]
        return ["pounce", "serve", self.app or "main:app", *files, *self._flags()]

    def _flags(self) -> Iterator[str]:
        known = {item.name: item for item in _options()}
        for name, value in self.settings.items():
            item = known[name]
            if item.kind is bool:
                yield flag_of(name) if value else switched_off_by(item)[0]
            elif isinstance(value, tuple):
                yield from (word for each in value for word in (flag_of(name), str(each)))
            elif item.kind is dict:
                yield from (word for key, each in value.items() for word in (flag_of(name), f"{key}={each}"))
            elif not isinstance(value, Mapping):
                yield from _with_value(flag_of(name), _as_written(item, value))

    def toml(self, *, same_defaults: bool = False) -> str:
        """The settings as `pounce.toml`, plugins in tables behind the others."""
        known = {item.name: item for item in _options()}
        settings = dict(self.settings)
        comments = {each.setting: each.why for each in self.defaults}
        if same_defaults:
            settings |= {each.setting: each.value for each in self.defaults}
        lines: list[str] = []
        tables: dict[str, list[str]] = {}
        if self.app is not None:
            lines.append(f"app = {toml_string(self.app)}")
        if self.env_files:
            lines.append(f"env_file = [{', '.join(map(toml_string, self.env_files))}]")
        for name, value in settings.items():
            plugin, _, last = name.rpartition(".")
            comment = f"  # {comments[name]}" if name in comments else ""
            line = f"{last} = {toml_value(known[name], value)}{comment}"
            (tables.setdefault(plugin, []) if plugin else lines).append(line)
        for plugin, inner in tables.items():
            lines += ["", f"[{plugin}]", *inner]
        return "\n".join(lines)


def _with_value(flag: str, text: str) -> tuple[str, ...]:
    # What begins with a hyphen would be taken for a flag, and nothing for nothing.
    return (f"{flag}={text}",) if not text or text.startswith("-") else (flag, text)


def _as_written(item: Option, value: Any) -> str:
    if item.unit == "octal":
        return f"{value:o}"
    return f"{value:g}" if isinstance(value, float) else str(value)


@functools.cache
def _options() -> tuple[Option, ...]:
    return (*(item for item in describe() if item.flag), *plugin_options(lambda plugin: True))


# What is read


def migrate(words: Sequence[str]) -> Migration:
    """What a command line means here, or the file that is its only word. Raises `ConfigError`."""
    if len(words) == 1 and os.path.isfile(words[0]):
        return of_file(words[0])
    if len(words) == 1 and _is_like_a_file(words[0]) and _server_in(words) is None:
        raise UsageError(
            f"there is no file {words[0]}", hint="For a command line: pounce migrate uvicorn main:app --workers 4"
        )
    return of_words(words)


def _is_like_a_file(word: str) -> bool:
    name = os.path.basename(word)
    return " " not in word and (name != word or "." in name or name in ("Procfile", "Dockerfile", "Containerfile"))


def of_file(path: str) -> Migration:
    """What a configuration file, or the command line in a file, means here. Raises `ConfigError`."""
    name = os.path.basename(path)
    if name.endswith((".py", ".toml")):
        server = SERVERS["gunicorn" if name.endswith(".py") and "hypercorn" not in name else "hypercorn"]
        named = f"file:{path}" if name.endswith(".py") else path
        return _made(server, None, {}, {"config": (path, named)})
    text = _text(path)
    # Of several images the last is what is built where nobody says another.
    for image in reversed(images(text)):
        if (migration := _of_image(image)) is not None:
            return migration
    for line in text.replace("\\\n", " ").splitlines():
        if match := re.match(r"\s*(?:web:|ExecStart=-?)\s*(.+)", line):
            words = _words_in(match[1])
            if _is_of_another(words):
                return of_words(words)
    raise UsageError(
        f"{path} has no command line of another server, and is no configuration of one",
        hint="Give the command line itself: pounce migrate uvicorn main:app --workers 4",
    )


def _of_image(image: Image) -> Migration | None:
    """What an image starts; None where that is no other server."""
    entrypoint, cmd = (_words_in(text) if text else [] for text in image)
    remark = None
    lines = [cmd]
    if image.entrypoint and not _is_exec(image.entrypoint):
        lines = [entrypoint]
        remark = Remark(f"CMD {image.cmd}", "ENTRYPOINT is in shell form: Docker does not look at CMD then.")
    elif image.entrypoint and image.cmd and not _is_exec(image.cmd):
        # One that is no server runs what it is given, as tini does.
        lines = [entrypoint, cmd]
        remark = Remark(f"CMD {image.cmd}", "In shell form it is /bin/sh -c for ENTRYPOINT: write it as a list.")
    elif image.entrypoint:
        lines = [entrypoint + cmd, cmd]
    words = next(filter(_is_of_another, lines), None)
    if words is None:
        return None
    migration = of_words(words)
    if remark is not None and image.cmd and words is entrypoint:
        migration.remarks.append(remark)
    return migration


def _is_exec(text: str) -> bool:
    """Whether it is a list, and not a line for the shell."""
    return text.startswith("[")


def _is_of_another(words: Sequence[str]) -> bool:
    found = _server_in(words)
    return found is not None and found[0].name != "bengal-pounce"


def _words_in(text: str) -> list[str]:
    try:
        return [*map(str, json.loads(text))] if text.lstrip().startswith("[") else shlex.split(text)
    except ValueError as exc:
        raise UsageError(f"{text!r} is no command line: {exc}") from exc


def of_words(words: Sequence[str]) -> Migration:
    """What a command line of another server means here. Raises `ConfigError` where it is none."""
    if len(words) == 1 and " " in words[0]:
        words = _words_in(words[0])
    found = _server_in(words)
    if found is None:
        raise UsageError(
            f"{shlex.join(words)!r} begins with no server that is known",
            hint=f"Known are {', '.join(SERVERS)}; for example pounce migrate uvicorn main:app --workers 4",
        )
    server, rest, variables = found
    if server.name == "bengal-pounce":
        rest = rest[1:] if rest[:1] in (["serve"], ["check"]) else rest
    app, given = _read(server, rest)
    return _made(server, app, variables, given)


def _server_in(words: Sequence[str]) -> tuple[Server, list[str], dict[str, str]] | None:
    rest, variables = [*words], {}
    while rest:
        name, equals, value = rest[0].partition("=")
        if equals and re.fullmatch(r"\w+", name):
            variables[name] = value
            rest = rest[1:]
        elif wrapper := next((each for each in WRAPPERS if tuple(rest[: len(each)]) == each), None):
            rest = rest[len(wrapper) :]
        elif re.fullmatch(r"(.*/)?python[\d.]*t?", rest[0]) and rest[1:2] == ["-m"]:
            rest = rest[2:]
        else:
            break
    if not rest:
        return None
    name = os.path.basename(rest[0])
    server = SERVERS.get("bengal-pounce" if name == "pounce" else name)
    return (server, rest[1:], variables) if server is not None else None


type Given = dict[str, tuple[str, Any]]
"""What was said of the options of a server, by their keys: how it was written, and the value."""


def _read(server: Server, words: Sequence[str]) -> tuple[str | None, Given]:
    """The application and the options of a command line."""
    apps: list[str] = []
    given: Given = {}
    rest = iter(words)
    for word in rest:
        if word == "--":
            continue
        if not word.startswith("-") or word == "-":
            apps.append(word)
            continue
        flag, equals, text = word.partition("=")
        option = server.of_flag(flag) or _abbreviated(server, flag)
        if option is None and not flag.startswith("--"):
            flag, text = word[:2], word[2:].removeprefix("=")
            option, equals = server.of_flag(flag), "=" if text else ""
        if option is None:
            raise UsageError(f"{server.name} has no option {word}")
        if option.takes == "switch":
            given[option.key] = (flag, flag not in option.off and not flag.startswith("--no-sendfile"))
            if not flag.startswith("--") and text:
                # Several letters behind one hyphen.
                app, others = _read(server, [f"-{text}", *rest])
                return (apps[0] if apps else app), given | others
            continue
        if not equals:
            text = next(rest, "")
        before = given.get(option.key, (flag, []))[1] if option.takes == "list" else None
        given[option.key] = (flag, text if before is None else [*before, text])
    return (apps[0] if apps else None), given


def _abbreviated(server: Server, flag: str) -> Theirs | None:
    """The option of which this is the beginning, as argparse takes it."""
    if not flag.startswith("--") or server.name not in ("gunicorn", "hypercorn", "daphne"):
        return None
    found = [each for each in server.options if any(name.startswith(flag) for name in each.flags)]
    return found[0] if len(found) == 1 else None


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{path} cannot be read: {exc}") from exc


def _in_toml(path: str) -> Given:
    try:
        table = tomllib.loads(_text(path))
    except ValueError as exc:
        raise ConfigError(f"{path} is not TOML: {exc}") from exc
    return {key: (key, value) for key, value in table.items()}


def _in_python(path: str) -> Given:
    """What a configuration in Python sets: it is run, as its own server does."""
    _text(path)
    try:
        # What it prints is none of what is written here.
        with contextlib.redirect_stdout(sys.stderr):
            names = runpy.run_path(path)
    except (Exception, SystemExit) as exc:
        raise ConfigError(f"{path} cannot be run: {type(exc).__name__}: {exc}") from exc
    return {
        key: (key, value)
        for key, value in names.items()
        if key in ("wsgi_app", "application_path") or any(server.of_key(key) for server in SERVERS.values())
    }


# What comes of it


def _made(server: Server, app: str | None, variables: Mapping[str, str], given: Given) -> Migration:
    migration = Migration(server)
    given = _in_file_of(server, given) | _in_variables(migration, variables) | given
    wsgi_app = given.pop("wsgi_app", None) or given.pop("application_path", None)
    app = app or given.pop("app", ("", None))[1] or (wsgi_app[1] if wsgi_app else None)
    if app is not None:
        migration.app = _app(migration, app)
    for key, (written, value) in given.items():
        option = server.of_key(key)
        if option is None:
            migration.remarks.append(Remark(written, f"{server.name} has no such option."))
        elif key not in ("version", "help", "config"):
            _take(migration, option, written, value)
    _settle(migration, given)
    _check(migration)
    return migration


def _in_file_of(server: Server, given: Given) -> Given:
    """What is in the configuration file that a line names, or that its server finds by itself."""
    named = given["config"][1] if "config" in given else None
    if server.name == "gunicorn":
        path = named or ("gunicorn.conf.py" if os.path.isfile("gunicorn.conf.py") else None)
        if path is None:
            return {}
        return _in_module(path[7:]) if path.startswith("python:") else _in_python(path.removeprefix("file:"))
    if server.name == "hypercorn" and named is not None:
        if named.startswith("python:"):
            return _in_module(named[7:])
        return _in_python(named[5:]) if named.startswith("file:") else _in_toml(named)
    if server.name == "bengal-pounce" and named is not None:
        raise ConfigError(f"{named} is a file of this server too", hint="Look with pounce config show what it says.")
    return {}


def _in_module(name: str) -> Given:
    return _in_python(name.replace(".", os.sep) + ".py")


def _in_variables(migration: Migration, variables: Mapping[str, str]) -> Given:
    found: Given = {}
    for variable, text in variables.items():
        prefix = migration.server.environment
        option = migration.server.of_key(variable.removeprefix(prefix).lower()) if prefix else None
        if variable in VARIABLES:
            migration.settings[VARIABLES[variable]] = text
        elif option is not None and variable.startswith(prefix):
            found[option.key] = (variable, text.split(",") if option.takes == "list" else _switched(option, text))
        else:
            migration.remarks.append(Remark(variable, "Set it for pounce in the same way."))
    return found


def _switched(option: Theirs, text: str) -> Any:
    return text.lower() in ("1", "true", "yes", "on") if option.takes == "switch" else text


def _app(migration: Migration, name: str) -> str:
    for interface in ("asgi", "wsgi"):
        if migration.server.name == "hypercorn" and name.startswith(f"{interface}:"):
            migration.settings["interface"] = interface
            name = name.partition(":")[2]
    module, _, attribute = name.partition(":")
    if module.endswith(".py") or "/" in module:
        module = module.removesuffix(".py").removeprefix("./").replace("/", ".")
    attribute = attribute or migration.server.attribute
    if "(" in attribute and not attribute.endswith("()"):
        migration.remarks.append(Remark(name, "A factory is called without arguments: write one that gives them."))
        attribute = attribute.partition("(")[0] + "()"
    return f"{module}:{attribute}" if attribute else module


def setting_of(option: Theirs) -> Option | None:
    """The setting that an option is, by what its table says or by its flag; None where there is none."""
    for item in _options():
        if item.name == option.setting or (option.setting is None and set(option.flags) & {*spellings(item)}):
            return item
    return None


def _take(migration: Migration, option: Theirs, written: str, value: Any) -> None:
    item = setting_of(option)
    if item is None and option.convert is None:
        # A file often says what is off, which it is here too.
        if written.startswith("-") or value not in (None, False, "", [], {}, 0):
            migration.remarks.append(Remark(written, answer_to(option, written)))
        return
    if value is None:
        return
    try:
        found = option.convert(value) if option.convert is not None else _same(item, value)
    except NoEquivalent as exc:
        migration.remarks.append(Remark(f"{written} {value}", str(exc)))
        return
    except (TypeError, ValueError, AttributeError) as exc:
        migration.remarks.append(Remark(f"{written} {value}", f"It cannot be read: {exc}."))
        return
    if option.convert is not None and isinstance(found, dict):
        settings = found
    else:
        assert item is not None
        settings = {item.name: found}
    for name, each in settings.items():
        before = migration.settings.get(name)
        if isinstance(each, tuple) and isinstance(before, tuple):
            migration.settings[name] = (*before, *each)
        else:
            migration.settings[name] = each
    if settings and option.note:
        migration.notes.append(Remark(written, option.note))


def answer_to(option: Theirs, written: str | None = None) -> str:
    """What there is instead of an option without a setting, or why there is nothing."""
    flags = [each for each in (written, *option.flags) if each in FLAGS]
    # A letter is another option of each server, and a word is not.
    flag = next((each for each in flags if each.startswith("--")), flags[0] if flags else "")
    return option.why or FLAGS.get(flag, "That server alone has it.")


def _same(item: Option | None, value: Any) -> Any:
    if item is not None and item.kind is tuple:
        texts = [value] if isinstance(value, str) else value
        return tuple(part.strip() for text in texts for part in str(text).split(",") if part.strip())
    return value if isinstance(value, (str, int, float, bool, dict)) else str(value)


def _settle(migration: Migration, given: Given) -> None:
    """What several options have to do with each other."""
    settings = migration.settings
    for key in ("limit_max_requests_jitter", "max_requests_jitter"):
        most, jitter = _number(settings.get("max_requests")), _number(given.get(key, ("", None))[1])
        if most and jitter is not None:
            settings["recycle_jitter"] = min(100, math.ceil(100 * jitter / most))
            _forget(migration, given[key][0])
    for key in ("env_file", "env_files"):
        if key in given:
            written, files = given[key]
            migration.env_files = tuple(map(str, files)) if isinstance(files, (list, tuple)) else (str(files),)
            _forget(migration, written)
    mounts = given.get("static_path_mount")
    if mounts is not None:
        routes = given.get("static_path_route", ("", ["/static"]))[1]
        settings["static_files"] = dict(zip(routes, mounts[1], strict=False))
        _forget(migration, mounts[0])
        _forget(migration, given.get("static_path_route", ("", ""))[0])
    if settings.get("interface") == "asgi":
        settings.pop("wsgi_threads", None)
    elif "threads" in given:
        settings["wsgi_threads"] = given["threads"][1]
    if "worker_timeout" in settings and migration.server.name == "gunicorn" and _is_sync(settings, given):
        written = given["timeout"][0]
        settings["app_timeout"] = settings.pop("worker_timeout")
        migration.notes[:] = [each for each in migration.notes if each.what != written]
        why = "The client gets 504; no worker is ended, and a thread goes on until its view returns."
        migration.notes.append(Remark(written, why))
    if settings.get("ssl_cert_reqs", "none") == "none":
        settings.pop("ssl_cert_reqs", None)
        if settings.pop("ssl_ca_certs", None) is not None:
            migration.remarks.append(Remark("ca_certs", "Not needed: no client is asked for a certificate."))
    nearest = next((name for name in ("bind", "uds") if settings.get(name)), None)
    for name in ("uds", "host", "port"):
        if nearest is not None and name != nearest:
            settings.pop(name, None)
    if "port" in settings and settings.get("host") == "":
        settings["host"] = "0.0.0.0"


def _is_sync(settings: Mapping[str, Any], given: Given) -> bool:
    """Whether a worker of gunicorn has one request at a time: so it is by default, and with threads it is another."""
    has_class = "worker_class" in given and settings.get("interface") != "wsgi"
    return not has_class and (_number(given.get("threads", ("", 1))[1]) or 1) == 1


def _number(value: Any) -> int | None:
    """Not negative; None for what is none, which is told where the setting is looked at."""
    try:
        return max(0, int(value))
    except (TypeError, ValueError, OverflowError):
        return None


def _forget(migration: Migration, written: str) -> None:
    migration.remarks[:] = [each for each in migration.remarks if each.what != written]


def _check(migration: Migration) -> None:
    """Have each setting as its file would have it, and none that would not be taken."""
    known = {item.name: item for item in _options()}
    migration.said |= migration.settings.keys()
    for name, value in list(migration.settings.items()):
        item = known.get(name)
        if item is None:
            del migration.settings[name]
            migration.remarks.append(Remark(name, f"Install pounce-{name.partition('.')[0]} for this setting."))
            continue
        try:
            text = str(value) if isinstance(value, (str, int, float)) and item.kind is not bool else value
            migration.settings[name] = parse_option(item, text) if isinstance(text, str) else item.checked(value)
        except (ValueError, OverflowError):
            del migration.settings[name]
            migration.remarks.append(Remark(f"{flag_of(name)} {value}", f"Here it is {item.allowed}."))
            continue
        if migration.settings[name] == item.default and name != "bind":
            del migration.settings[name]
    try:
        own = {name: value for name, value in migration.settings.items() if "." not in name}
        ServerConfig.of(own)
    except ConfigError as exc:
        migration.remarks.append(Remark("together", f"{exc.message}. {exc.hint or ''}".strip()))


# What is written


def show(migration: Migration, *, source: str, same_defaults: bool, as_json: bool) -> str:
    """The migration as text: a file with comments, or JSON."""
    if as_json:
        # Tables among them are of a kind that JSON does not know.
        settings = {name: dict(at) if isinstance(at, Mapping) else at for name, at in migration.settings.items()}
        return json.dumps(
            {
                "server": migration.server.name,
                "app": migration.app,
                "command": shlex.join(migration.command),
                "settings": settings,
                "toml": migration.toml(same_defaults=same_defaults),
                "not_taken_over": [each._asdict() for each in migration.remarks],
                "notes": [each._asdict() for each in migration.notes],
                "defaults": [each._asdict() for each in migration.defaults],
            },
            indent=2,
        )
    return "\n".join(_lines(migration, source, same_defaults)) + "\n"


def _lines(migration: Migration, source: str, same_defaults: bool) -> Iterator[str]:
    yield f"# From: {escaped_line(source)}"
    yield f"# Start with: pounce serve{'' if migration.app else ' main:app'}"
    # A comment is one line, whatever stands in a word.
    yield escaped_line(f"# Or without this file: {shlex.join(migration.command)}")
    yield from _remarks("Not taken over", migration.remarks)
    yield from _remarks("Nearly the same", migration.notes)
    if text := migration.toml(same_defaults=same_defaults):
        yield ""
        yield text
    if migration.defaults and not same_defaults:
        known = {item.name: item for item in _options()}
        yield ""
        yield f"# Defaults of {migration.server.name} that ours differ from: take the # away to have them."
        for each in migration.defaults:
            yield f"# {each.setting} = {toml_value(known[each.setting], each.value)}  # {each.why}"


def _remarks(title: str, remarks: Sequence[Remark]) -> Iterator[str]:
    if remarks:
        yield "#"
        yield f"# {title}:"
        yield from (escaped_line(f"#   {each.what}: {each.why}") for each in remarks)
