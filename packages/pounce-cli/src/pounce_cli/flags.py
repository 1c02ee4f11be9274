"""From settings to flags, and from what was written on a command line to a `ServerConfig`.

Nothing here lists a setting: names, values, help and defaults come from `pounce.config.describe()`.
"""

import difflib
from collections.abc import Mapping
from typing import Any, NamedTuple

from pounce.config import Option, ServerConfig, describe, parse_option
from pounce.errors import ConfigError

__all__ = ["Given", "app_of", "config_of", "flags", "shown_default", "spellings", "value_name"]

UVICORN_NAMES = {
    "http_parser": "--http",
    "keep_alive_timeout": "--timeout-keep-alive",
    "shutdown_timeout": "--timeout-graceful-shutdown",
    "http3_enabled": "--http3",
    "websocket_max_message_size": "--ws-max-size",
    "websocket_ping_interval": "--ws-ping-interval",
    "websocket_ping_timeout": "--ws-ping-timeout",
    "reload_dirs": "--reload-dir",
}
"""Second spellings: those of uvicorn where it has another name, and a short one."""


class Given(NamedTuple):
    """What a command line of `serve` says, nothing converted yet."""

    apps: tuple[str, ...] = ()
    """The application, in the order of the line, each time it is named."""
    settings: Mapping[str, str | bool | tuple[str, ...]] = {}
    """Text by the name of the setting; a bool for a switch, a tuple for what may be repeated."""
    tables: tuple[str, ...] = ()
    """The values of `--set`."""


def flags() -> tuple[Option, ...]:
    """The settings that have a flag."""
    return tuple(item for item in describe() if item.flag)


def spellings(item: Option) -> tuple[str, ...]:
    """How a flag may be written: `("--http-parser", "--http")`."""
    name = "--" + item.name.replace("_", "-")
    return (name, UVICORN_NAMES[item.name]) if item.name in UVICORN_NAMES else (name,)


def switched_off(item: Option) -> str:
    """The other way of a switch: `--no-access-log`."""
    return "--no-" + item.name.replace("_", "-")


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


def app_of(given: Given) -> str:
    """The one application that was named. Raises `ConfigError`."""
    if len(given.apps) == 1:
        return given.apps[0]
    if not given.apps:
        raise ConfigError(
            "no application is given",
            code="POUNCE_CLI_USAGE",
            hint="Name it as module:attribute, for example: pounce serve main:app",
        )
    raise ConfigError(
        f"the application is given more than once ({', '.join(given.apps)})",
        code="POUNCE_CLI_USAGE",
        hint="Give it either first, or with --app.",
    )


def config_of(given: Given) -> ServerConfig:
    """The configuration that was asked for. Raises `ConfigError` naming flag, value and what is allowed."""
    by_name = {item.name: item for item in flags()}
    settings: dict[str, Any] = {name: _value(by_name[name], written) for name, written in given.settings.items()}
    if given.tables:
        settings["plugin_settings"] = _tables(given.tables)
    return ServerConfig.of(settings)


def _value(item: Option, written: str | bool | tuple[str, ...]) -> Any:
    if isinstance(written, bool):
        return written
    if isinstance(written, tuple):
        return tuple(part for text in written for part in _parsed(item, text))
    return _parsed(item, written)


def _parsed(item: Option, text: str) -> Any:
    try:
        return parse_option(item, text)
    except (ValueError, OverflowError) as exc:
        raise ConfigError(
            f"{spellings(item)[0]} must be {item.allowed} (got {text!r})", hint=_hint(item, text)
        ) from exc


def _hint(item: Option, text: str) -> str | None:
    if item.choices:
        close = difflib.get_close_matches(text.lower(), item.choices, 1)
        return f"Did you mean {close[0]}?" if close else None
    return _EXAMPLES.get(item.unit)


_EXAMPLES: dict[str | None, str] = {
    "seconds": "For example 30, 30s, 5m or 500ms.",
    "bytes": "For example 65536, 64KiB or 16MiB.",
    "octal": "For example 660.",
}


def _tables(written: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    tables: dict[str, dict[str, Any]] = {}
    for text in written:
        where, equals, value = text.partition("=")
        plugin, dot, field = where.partition(".")
        if not (equals and dot and plugin and field):
            raise ConfigError(
                f"--set must be NAME.field=value (got {text!r})", hint="For example --set h2.max_streams=100."
            )
        tables.setdefault(plugin, {})[field] = _scalar(value)
    return tables


def _scalar(text: str) -> bool | int | float | str:
    """`text` as TOML has it where that is a boolean, a number or a quoted string, else as it is."""
    import tomllib

    try:
        document = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value = document.get("value")
    return value if len(document) == 1 and isinstance(value, (bool, int, float, str)) else text
