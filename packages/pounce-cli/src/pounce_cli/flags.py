"""From settings to flags, and what was written on a command line.

Nothing here lists a setting: names, values, help and defaults come from `pounce.config.describe()` and from the plugins
that are installed.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from pounce.config import describe
from pounce.errors import ConfigError, PluginError
from pounce.options import Option

__all__ = [
    "Config",
    "Given",
    "app_of",
    "flag_of",
    "flags",
    "package_of",
    "plugin_flags",
    "plugin_options",
    "serving",
    "shown_default",
    "spellings",
    "switched_off_by",
    "value_name",
]

HELP = ("--help", "-h")
PACKAGES = {"h2": "pounce-h2", "h3": "pounce-h3"}
"""Of this server's own plugins with settings, which need not be installed."""
NO_APPLICATION = "pounce.middleware.static:no_application"


type Config = str | tuple[str, ...] | None
"""Names of configuration files; None where none is named."""


class Given(NamedTuple):
    """What a command line of `serve` says, nothing converted yet."""

    apps: tuple[str, ...] = ()
    """The application, in the order of the line, each time it is named."""
    settings: Mapping[str, str | bool | tuple[str, ...]] = {}
    """Text by the name of the setting; a bool for a switch, a tuple for what may be repeated."""
    tables: tuple[str, ...] = ()
    """The values of `--set`."""
    config: Config = None
    """The configuration file, or several in their order."""
    profile: str | None = None
    env_files: tuple[str, ...] = ()
    """Files of variables."""


def flags() -> tuple[Option, ...]:
    """The settings of the server that have a flag."""
    return tuple(item for item in describe() if item.flag)


def plugin_flags(words: Iterable[str]) -> tuple[Option, ...]:
    """The settings of the plugins that these words may mean; of all where help is asked for.

    Plugins are looked for only where a flag is not one of the server's.
    """
    own = _own_spellings()
    names = [word.partition("=")[0] for word in words]
    asked = [name for name in names if (name.startswith("--") and name not in own) or name in HELP]
    if not asked:
        return ()

    def wanted(plugin: str) -> bool:
        begin = plugin.replace("_", "-") + "-"
        return any(name in HELP or name.startswith((f"--{begin}", f"--no-{begin}")) for name in asked)

    return plugin_options(wanted)


def plugin_options(wanted: Callable[[str], bool]) -> tuple[Option, ...]:
    """The settings of installed plugins that are wanted. Raises `PluginError` where one has a flag of the server."""
    from pounce.registry import installed_options

    own = _own_spellings()
    found = tuple(item for item in installed_options(wanted) if item.flag)
    for item in found:
        if flag_of(item.name) in own:
            raise PluginError(
                f"the setting {item.name} of a plugin would have the flag {flag_of(item.name)} of the server",
                code="POUNCE_PLUGIN_CONFLICT",
            )
    return found


def package_of(name: str, known: Iterable[str]) -> str | None:
    """What to do for a flag, variable or setting that is none of the `known`, where its plugin is missing."""
    for plugin, package in PACKAGES.items():
        begins = re.compile(rf"(--(no-)?|POUNCE_)?{plugin}[-_.]", re.IGNORECASE).match
        if begins(name) and not any(map(begins, known)):
            return f"It comes with the plugin {plugin}: pip install {package}"
    return None


def _own_spellings() -> set[str]:
    own = {flag for item in flags() for flag in (*spellings(item), *switched_off_by(item))}
    return own | {"--app", "--set", "--config", "--static", "--profile", "--env-file"}


def flag_of(name: str) -> str:
    """The flag of a setting: `--h2-stream-window`."""
    return "--" + name.replace("_", "-").replace(".", "-")


def spellings(item: Option) -> tuple[str, ...]:
    """How a flag may be written: `("--http-parser", "--http")`."""
    return tuple(flag_of(name) for name in (item.name, *item.also))


def switched_off_by(item: Option) -> tuple[str, ...]:
    """The other way of a switch: `("--no-http2-enabled", "--no-http2")`."""
    return tuple("--no-" + flag[2:] for flag in spellings(item))


def value_name(item: Option) -> str:
    """What stands for the value of a flag in the help."""
    if item.choices:
        return "CHOICE"
    return {"seconds": "TIME", "bytes": "SIZE", "octal": "MODE"}.get(
        item.unit or "", _VALUE_NAMES.get(item.kind, "TEXT")
    )


_VALUE_NAMES = {int: "NUMBER", float: "NUMBER"}


def shown_default(item: Option) -> str | None:
    """The default as one would write it on a command line; None where it says nothing."""
    value = item.default
    if value is None or value in ("", ()):
        return None
    if item.kind is bool:
        return "on" if value else "off"
    if item.unit == "octal":
        return f"{value:o}"
    if item.unit == "seconds":
        return f"{value:g}s"
    if item.unit == "bytes":
        for size, unit in ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB")):
            if value and value % size == 0:
                return f"{value // size}{unit}"
    if item.kind is tuple:
        return ", ".join(value)
    return str(value)


def serving(folder: str | None, given: Given) -> Given:
    """The same with the files of `folder` at `/`: alone, where no application is named. Unchanged for None."""
    if folder is None:
        return given
    before = given.settings.get("static_files", ())
    assert isinstance(before, tuple)
    settings = {**given.settings, "static_files": (*before, f"/={folder}")}
    return given._replace(apps=given.apps or (NO_APPLICATION,), settings=settings)


def app_of(given: Given) -> str:
    """The one application that was named. Raises `ConfigError`."""
    if len(given.apps) == 1:
        return given.apps[0]
    if not given.apps:
        raise ConfigError(
            "no application is given",
            code="POUNCE_CLI_USAGE",
            hint="Name it as module:attribute, for example: pounce serve main:app; or give --static DIR.",
        )
    raise ConfigError(
        f"the application is given more than once ({', '.join(given.apps)})",
        code="POUNCE_CLI_USAGE",
        hint="Give it either first, or with --app.",
    )
