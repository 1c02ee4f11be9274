"""Where settings come from: the command line, else the environment, else a file, else the default.

A variable is the name of its setting in capitals behind `POUNCE_`. The file is the one that `--config` or
`POUNCE_CONFIG` names, else `pounce.toml` in the current folder, else `pyproject.toml` there, of which only the table
`tool.pounce` counts. Settings of a plugin are a table of its name.

Nothing is passed over: what is no setting is an error that says where it stands.

Where to listen is one question with three kinds of answers: host and port, uds, or bind. The nearest place that has one
answers it; what places behind it say of another kind does not count.
"""

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any, NamedTuple

from pounce.config import ServerConfig, describe
from pounce.errors import ConfigError
from pounce.options import Option, parse_option, unknown_setting
from pounce_cli.flags import Given, flag_of, flags, plugin_options

__all__ = ["CONFIG", "Setting", "config_of", "log_format", "settings_of", "variable_of"]

PREFIX = "POUNCE_"
CONFIG = "POUNCE_CONFIG"
FOREIGN_VARIABLES = {"FORWARDED_ALLOW_IPS": "trusted_hosts"}
"""Variables of other servers that mean a setting of ours."""
FILES = ("pounce.toml", "pyproject.toml")
_WHERE = {"host": "address", "port": "address", "uds": "uds", "bind": "bind"}
"""What says where to listen, and the kind of answer that it is."""


class Setting(NamedTuple):
    """A value, and where it was given: a flag, a variable, or a file and a key."""

    value: Any
    origin: str


class Written(NamedTuple):
    """A value as it was written, not converted yet."""

    name: str
    value: Any
    origin: str


def config_of(given: Given) -> ServerConfig:
    """The configuration that was asked for. Raises `ConfigError` naming origin, value and what is allowed."""
    found = settings_of(given)
    settings: dict[str, Any] = {}
    tables: dict[str, dict[str, Any]] = {}
    for name, setting in found.items():
        plugin, dot, field = name.rpartition(".")
        (tables.setdefault(plugin, {}) if dot else settings)[field] = setting.value
    if tables:
        settings["plugin_settings"] = tables
    try:
        return ServerConfig.of(settings)
    except ConfigError as exc:
        # Two that contradict each other may come from different places.
        origins = [f"{name}: {at.origin}" for name, at in found.items() if re.search(rf"\b{name}\b", exc.message)]
        exc.hint = " ".join(filter(None, [exc.hint, f"({', '.join(origins)})" if origins else None]))
        raise


def settings_of(given: Given) -> dict[str, Setting]:
    """What is set, by the name of the setting (`port`, `h2.stream_window`). Raises `ConfigError`."""
    variables = {name: text for name, text in os.environ.items() if name.startswith(PREFIX) and name != CONFIG}
    for foreign, setting in FOREIGN_VARIABLES.items():
        if foreign in os.environ:
            variables.setdefault(variable_of(setting), os.environ[foreign])
    in_file = [*_in_file(given.config)]
    on_line = [*_on_line(given)]
    known = _known({item.name for item in (*in_file, *on_line)}, variables)
    found = _above({}, {item.name: _converted(known, item) for item in in_file})
    names = {variable_of(name): name for name in known}
    in_environment: dict[str, Setting] = {}
    for variable, text in variables.items():
        if variable not in names:
            raise unknown_setting(variable, names)
        in_environment[names[variable]] = _converted(known, Written(names[variable], text, variable))
    return _above(_above(found, in_environment), {item.name: _converted(known, item) for item in on_line})


def _above(found: dict[str, Setting], nearer: dict[str, Setting]) -> dict[str, Setting]:
    """What a nearer place says, above what was `found`. Raises `ConfigError` where it says twice where to listen."""
    said = {_WHERE[name]: name for name, setting in nearer.items() if name in _WHERE and setting.value != ()}
    if len(said) > 1:
        one, other, *_ = said.values()
        raise ConfigError(
            f"{one} and {other} exclude each other",
            hint="Each says where to listen; leave out one of them. "
            f"({one}: {nearer[one].origin}, {other}: {nearer[other].origin})",
        )
    return {name: at for name, at in found.items() if not said or _WHERE.get(name) in (None, *said)} | nearer


def log_format(config: str | None) -> str | None:
    """What environment or file say of `log_format`, where an error is to be told in it; None without such a word."""
    try:
        found = {item.name: item.value for item in _in_file(config)}
    except ConfigError:
        found = {}
    written = os.environ.get(variable_of("log_format"), found.get("log_format"))
    return written if isinstance(written, str) else None


def variable_of(name: str) -> str:
    """The variable of a setting: `POUNCE_H2_STREAM_WINDOW`."""
    return PREFIX + re.sub(r"\W", "_", name).upper()


def _known(names: Set[str], variables: Iterable[str]) -> dict[str, Option]:
    """Settings by name: the server's, and those of plugins that these names and variables may mean."""
    known = {item.name: item for item in flags()}
    plugins = {name.rpartition(".")[0] for name in names if "." in name}
    own = {variable_of(name) for name in known}
    strange = tuple(variable for variable in variables if variable not in own)
    if plugins or strange:
        options = plugin_options(
            lambda plugin: plugin in plugins or any(name.startswith(variable_of(plugin) + "_") for name in strange)
        )
        known |= {item.name: item for item in options}
    return known


def _converted(known: Mapping[str, Option], written: Written) -> Setting:
    name, value, origin = written
    item = known.get(name)
    if item is None:
        raise _unknown(known, written)
    try:
        if isinstance(value, tuple):
            parts = [parse_option(item, text) for text in value]
            value = {key: each for part in parts for key, each in part.items()} if item.kind is dict else sum(parts, ())
        return Setting(parse_option(item, value) if isinstance(value, str) else item.checked(value), origin)
    except (ValueError, OverflowError) as exc:
        raise item.refused(value, origin, _hint(item, value)) from exc


def _unknown(known: Mapping[str, Option], written: Written) -> ConfigError:
    error = unknown_setting(written.name, known, written.origin)
    plugin = written.name.rpartition(".")[0]
    if written.name == "tool.pounce":
        error.hint = "In this file settings stand at the top; [tool.pounce] is for pyproject.toml."
    elif plugin and not any(name.startswith(plugin + ".") for name in known):
        error.hint = f"No plugin {plugin} with settings is installed."
    elif written.name in {item.name for item in describe()}:
        error.hint = "It can be set from Python alone."
    return error


def _hint(item: Option, value: Any) -> str | None:
    from pounce_cli.foreign import VALUES

    if (item.name, str(value).lower()) in VALUES:
        return VALUES[item.name, str(value).lower()]
    if item.choices:
        close = difflib.get_close_matches(str(value).lower(), item.choices, 1)
        return f"Did you mean {close[0]}?" if close else None
    return _EXAMPLES.get(item.unit)


_EXAMPLES: dict[str | None, str] = {
    "seconds": "For example 30, 30s, 5m or 500ms.",
    "bytes": "For example 65536, 64KiB or 16MiB.",
    "octal": "For example 660.",
}


def _on_line(given: Given) -> Iterator[Written]:
    for name, value in given.settings.items():
        yield Written(name, value, flag_of(name))
    seen = set(given.settings)
    for text in given.tables:
        name, equals, value = text.partition("=")
        if not (equals and all(name.rpartition("."))):
            raise ConfigError(
                f"--set must be NAME.field=value (got {text!r})", hint="For example --set h2.max_frame_size=64KiB."
            )
        if name in seen:
            raise ConfigError(f"{flag_of(name)} is given more than once", code="POUNCE_CLI_USAGE")
        seen.add(name)
        yield Written(name, value, f"--set {name}")


def _in_file(named: str | None) -> Iterator[Written]:
    path = named or os.environ.get(CONFIG) or None
    if path is None:
        found = next((name for name in FILES if os.path.isfile(name)), None)
        if found is None:
            return
    else:
        found = path
    table, prefix = _read(found), ""
    if os.path.basename(found) == "pyproject.toml":
        prefix = "tool.pounce."
        match table:
            case {"tool": {"pounce": dict(settings)}}:
                table = settings
            case {"tool": {"pounce": other}}:
                raise ConfigError(
                    f"{found}: tool.pounce must be a table (got {other!r})", hint="Settings of pounce stand there."
                )
            case _ if path is None:
                return
            case _:
                raise ConfigError(f"{path} has no table [tool.pounce]", hint="Settings of pounce stand there.")
    tables = {item.name for item in describe() if item.flag and item.kind in (dict, object)}
    for key, value in table.items():
        if isinstance(value, dict) and key not in tables:
            for field, inner in value.items():
                yield Written(f"{key}.{field}", inner, f"{found}: {prefix}{key}.{field}")
        else:
            yield Written(key, value, f"{found}: {prefix}{key}")


def _read(path: str) -> dict[str, Any]:
    import tomllib

    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as exc:
        raise ConfigError(f"the configuration file {path} cannot be read: {exc.strerror or exc}") from exc
    except ValueError as exc:
        raise ConfigError(f"the configuration file {path} is not TOML: {exc}") from exc
