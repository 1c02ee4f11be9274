"""Where settings come from: the command line, else the environment, else a file, else the default.

A variable is the name of its setting in capitals behind `POUNCE_`. The files are those that `--config` or
`POUNCE_CONFIG` names, a later one above an earlier, else `pounce.toml` in the current folder, else `pyproject.toml`
there, of which only the table `tool.pounce` counts. Settings of a plugin are a table of its name. The table
`profiles.NAME` of a file is above the rest of it where `--profile NAME` asks for it.

Nothing is passed over: what is no setting is an error that says where it stands.

Where to listen is one question with three kinds of answers: host and port, uds, or bind. The nearest place that has one
answers it; what places behind it say of another kind does not count.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from typing import Any, NamedTuple

from pounce.config import ServerConfig, describe
from pounce.errors import ConfigError, PounceError
from pounce.options import Option, parse_option, unknown_setting
from pounce.spelling import did_you_mean
from pounce.variables import load_env_files
from pounce_cli.flags import Config, Given, flag_of, flags, package_of, plugin_options
from pounce_cli.flags import app_of as named_app

__all__ = [
    "APP",
    "CONFIG",
    "ENV_FILE",
    "PROFILE",
    "Found",
    "Setting",
    "app_of",
    "config_of",
    "find",
    "log_format",
    "naming_places",
    "settings_of",
    "variable_of",
]

PREFIX = "POUNCE_"
CONFIG = "POUNCE_CONFIG"
APP = "POUNCE_APP"
PROFILE = "POUNCE_PROFILE"
ENV_FILE = "POUNCE_ENV_FILE"
NO_SETTINGS = ("app", "env_file")
"""What a file may have beside settings."""
FOREIGN_VARIABLES = {"FORWARDED_ALLOW_IPS": "trusted_hosts", "PORT": "port", "WEB_CONCURRENCY": "workers"}
"""Variables of other servers, and of platforms, that mean a setting of ours."""
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


class Found(NamedTuple):
    """What all places say."""

    settings: dict[str, Setting]
    """By the name of the setting (`port`, `h2.stream_window`)."""
    app: Setting | None
    """The application, where environment or file name one."""
    service_links: tuple[str, ...]
    """Variables that are Kubernetes' and nobody's settings."""


def config_of(given: Given, found: Found | None = None) -> ServerConfig:
    """The configuration that was asked for. Raises `ConfigError` naming origin, value and what is allowed."""
    at = (found or find(given)).settings
    settings: dict[str, Any] = {}
    tables: dict[str, dict[str, Any]] = {}
    for name, setting in at.items():
        plugin, dot, field = name.rpartition(".")
        (tables.setdefault(plugin, {}) if dot else settings)[field] = setting.value
    if tables:
        settings["plugin_settings"] = tables
    with naming_places(at):
        return ServerConfig.of(settings)


@contextmanager
def naming_places(settings: Mapping[str, Setting]) -> Iterator[None]:
    """Have errors of what is within say where the settings were given that they name."""
    try:
        yield
    except PounceError as exc:
        # Two that contradict each other may come from different places.
        origins = [f"{name}: {at.origin}" for name, at in settings.items() if _is_about(exc, name)]
        exc.hint = " ".join(filter(None, [exc.hint, f"({', '.join(origins)})" if origins else None])) or None
        raise


def _is_about(error: PounceError, name: str) -> bool:
    """Whether an error names this setting; one that is not about settings alone does so with its first word.

    What is quoted is a value, and `host:port` is a form of one.
    """
    text = re.sub(r"(?<!\w)'[^']*'", "", error.message)
    if not isinstance(error, ConfigError):
        return re.match(rf"{re.escape(name)}\b", text) is not None
    return re.search(rf"(?<![\w:]){re.escape(name)}(?!\w|:\w)", text) is not None


def app_of(given: Given, found: Found) -> str:
    """The application that was named: on the line, else by environment or file. Raises `ConfigError`."""
    if given.apps or found.app is None:
        return named_app(given)
    name, origin = found.app
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{origin} must name the application as module:attribute (got {name!r})")
    return name


def settings_of(given: Given) -> dict[str, Setting]:
    """What is set, by the name of the setting. Raises `ConfigError`."""
    return find(given).settings


def find(given: Given) -> Found:
    """What all places say. Raises `ConfigError`.

    Variables of the files that `--env-file` names become those of the process, where it does not have them.
    """
    if given.env_files:
        load_env_files(given.env_files, "--env-file")
    else:
        load_env_files(filter(None, os.environ.get(ENV_FILE, "").split(os.pathsep)), ENV_FILE)
    layers = [*_in_files(given.config, given.profile)]
    for layer in layers:
        for name, value, origin in layer:
            if name == "env_file":
                load_env_files(_paths(value, origin), origin)
    in_environment, service_links = _in_environment()
    on_line = [*_on_line(given)]
    in_files = [_by_one_name(item for item in layer if item.name not in NO_SETTINGS) for layer in layers]
    names = {item.name for layer in (*in_files, on_line) for item in layer}
    known = _known(names, [item.name for item in in_environment])
    found: dict[str, Setting] = {}
    for layer in in_files:
        found = _above(found, {item.name: _converted(known, item) for item in layer})
    by_variable = {variable_of(also): item.name for item in known.values() for also in (*item.also, item.name)}
    converted: dict[str, Setting] = {}
    for variable, text, origin in in_environment:
        if variable not in by_variable:
            error = unknown_setting(variable, by_variable)
            error.hint = package_of(variable, by_variable) or error.hint
            raise error
        name = by_variable[variable]
        if name in converted:
            raise _given_twice(converted[name].origin, origin)
        converted[name] = _converted(known, Written(name, text, origin))
    found = _above(found, converted)
    found = _above(found, {item.name: _converted(known, item) for item in on_line})
    apps = [Setting(item.value, item.origin) for layer in layers for item in layer if item.name == "app"]
    if os.environ.get(APP):
        apps.append(Setting(os.environ[APP], APP))
    return Found(found, apps[-1] if apps else None, service_links)


def _by_one_name(items: Iterable[Written]) -> list[Written]:
    """The same, with the names of settings in place of their second spellings. Raises `ConfigError` for both."""
    found: dict[str, Written] = {}
    for item in items:
        name = _ALSO.get(item.name, item.name)
        if name in found:
            raise _given_twice(found[name].origin, item.origin)
        found[name] = item._replace(name=name)
    return [*found.values()]


def _given_twice(one: str, other: str) -> ConfigError:
    return ConfigError(f"{one} and {other} are two spellings of one setting", hint="Give one.")


_ALSO = {also: item.name for item in describe() for also in item.also}


def _in_environment() -> tuple[list[Written], tuple[str, ...]]:
    """Variables of settings, each with the name that it would have as one of ours; and those that are service links."""
    environ = os.environ
    links = tuple(name for name, text in environ.items() if _is_service_link(name, text))
    ours = [
        Written(name, text, name)
        for name, text in environ.items()
        if name.startswith(PREFIX) and name not in (CONFIG, APP, PROFILE, ENV_FILE, *links)
    ]
    names = {item.name for item in ours}
    for foreign, setting in FOREIGN_VARIABLES.items():
        # Of where to listen there is one answer in a place, and ours are nearer.
        instead = {variable_of(setting)} | ({"POUNCE_BIND", "POUNCE_UDS"} if setting == "port" else set())
        if environ.get(foreign) and not names & instead:
            ours.append(Written(variable_of(setting), environ[foreign], foreign))
    return ours, links


def _is_service_link(name: str, text: str) -> bool:
    """Whether Kubernetes has set this in a container beside a Service whose name begins with `pounce`.

    It does so for each Service together with the variable NAME_SERVICE_HOST. A port that somebody has set is a number.
    """
    match = _service_link(name)
    if match is None or match[1] + "_SERVICE_HOST" not in os.environ:
        return False
    return match[2] != "PORT" or "://" in text


_service_link = re.compile(
    r"(POUNCE(?:_\w+?)??)_(SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)"
).fullmatch


def _paths(value: Any, origin: str) -> list[str]:
    paths = [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise ConfigError(f"{origin} must be the name of a file, or a list of them (got {value!r})")
    return paths


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


def log_format(config: Config) -> str | None:
    """What environment or file say of `log_format`, where an error is to be told in it; None without such a word."""
    try:
        found = {item.name: item.value for layer in _in_files(config, None) for item in layer}
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
        missing = f"No plugin {plugin} with settings is installed."
        error.hint = package_of(written.name, ()) or missing
    elif written.name in {item.name for item in describe()}:
        error.hint = "It can be set from Python alone."
    return error


def _hint(item: Option, value: Any) -> str | None:
    from pounce_cli.foreign import VALUES

    if (item.name, str(value).lower()) in VALUES:
        return VALUES[item.name, str(value).lower()]
    if item.choices:
        return did_you_mean(str(value), item.choices)
    return _FORMS.get(item.name) or _EXAMPLES.get(item.unit)


_EXAMPLES: dict[str | None, str] = {
    "seconds": "For example 30, 30s, 5m or 500ms.",
    "bytes": "For example 65536, 64KiB or 16MiB.",
    "octal": "For example 660.",
}
_FORMS = {
    "static_files": "For example /static=public: the path, and the directory that is served there.",
    "error_pages": "For example 404=missing.html: a status, and the page that is sent with it.",
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


def _in_files(named: Config, profile: str | None) -> Iterator[list[Written]]:
    """What files say, the nearest last: one after the other, each followed by its table for the profile."""
    profile = profile or os.environ.get(PROFILE) or None
    profiles: dict[str, bool] = {}
    for path in _files(named):
        table, prefix = _settings_in(path, asked=named is not None or bool(os.environ.get(CONFIG)))
        own = table.pop("profiles", {})
        if not isinstance(own, dict) or not all(isinstance(each, dict) for each in own.values()):
            raise ConfigError(f"{path}: {prefix}profiles must be a table of tables (got {own!r})")
        profiles |= dict.fromkeys(own, True)
        yield [*_written(table, path, prefix)]
        if profile in own:
            yield [*_written(own[profile], path, f"{prefix}profiles.{profile}.")]
    if profile is not None and profile not in profiles:
        there = f"There are {', '.join(profiles)}." if profiles else "The configuration file has no profiles."
        raise ConfigError(f"there is no profile {profile!r}", hint=did_you_mean(profile, profiles) or there)


def _files(named: Config) -> tuple[str, ...]:
    """The files to read, in order."""
    if named is not None:
        return (named,) if isinstance(named, str) else named
    in_environment = tuple(filter(None, os.environ.get(CONFIG, "").split(os.pathsep)))
    return in_environment or tuple(name for name in FILES if os.path.isfile(name))[:1]


def _settings_in(path: str, *, asked: bool) -> tuple[dict[str, Any], str]:
    """The table of settings in a file, and what its keys begin with there. Raises `ConfigError`; where nobody has
    `asked` for this file it need not have one."""
    table = _read(path)
    if os.path.basename(path) != "pyproject.toml":
        return table, ""
    match table:
        case {"tool": {"pounce": dict(settings)}}:
            return settings, "tool.pounce."
        case {"tool": {"pounce": other}}:
            raise ConfigError(
                f"{path}: tool.pounce must be a table (got {other!r})", hint="Settings of pounce stand there."
            )
        case _ if not asked:
            return {}, ""
    raise ConfigError(f"{path} has no table [tool.pounce]", hint="Settings of pounce stand there.")


def _written(table: dict[str, Any], path: str, prefix: str) -> Iterator[Written]:
    tables = {item.name for item in describe() if item.flag and item.kind in (dict, object)}
    for key, value in table.items():
        if key == "display" and isinstance(value, dict):
            # As bengal-pounce has them.
            for field, inner in value.items():
                name = field if field == "signage" else f"app_{field}"
                yield Written(name, inner, f"{path}: {prefix}display.{field}")
        elif isinstance(value, dict) and key not in tables:
            for field, inner in value.items():
                yield Written(f"{key}.{field}", inner, f"{path}: {prefix}{key}.{field}")
        else:
            yield Written(key, value, f"{path}: {prefix}{key}")


def _read(path: str) -> dict[str, Any]:
    import tomllib

    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as exc:
        raise ConfigError(f"the configuration file {path} cannot be read: {exc.strerror or exc}") from exc
    except ValueError as exc:
        raise ConfigError(f"the configuration file {path} is not TOML: {exc}") from exc
