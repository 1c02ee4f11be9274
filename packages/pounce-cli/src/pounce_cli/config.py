"""`pounce config show`: every setting, and where its value comes from."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pounce.config import describe
from pounce.observe.logs import escaped_line
from pounce.options import Option
from pounce_cli.flags import Given, plugin_options
from pounce_cli.sources import Found, Setting, config_of, find

__all__ = ["show_config", "toml_string", "toml_value"]


def show_config(given: Given, *, as_json: bool = False, origin: bool | None = None) -> None:
    """Print the configuration as TOML, with origins as comments, or as JSON. Raises `ConfigError` where a setting is
    wrong.

    With `origin` each value of the JSON is an object, with the place where it was found, `default` for none; without it
    TOML has no such comments.
    """
    found = find(given)
    config_of(given, found)
    options = (*(item for item in describe() if item.flag), *plugin_options(lambda plugin: True))
    if as_json:
        print(json.dumps(_as_json(options, found, origin=bool(origin)), indent=2))
        return
    if found.app is not None:
        print(escaped_line(_line("app", toml_string(found.app.value), found.app if origin is not False else None)))
    table = ""
    for item in options:
        plugin = item.name.rpartition(".")[0]
        if plugin != table:
            table = plugin
            print(f"\n[{escaped_line(plugin)}]")
        setting = found.settings.get(item.name)
        value = item.default if setting is None else setting.value
        if value is None:
            print(f"# {item.field} is not set")
        else:
            # The place may be the name of a file.
            shown = '"***"' if item.secret and value else toml_value(item, value)
            print(escaped_line(_line(item.field, shown, setting if origin is not False else None)))


def _line(name: str, shown: str, setting: Setting | None) -> str:
    return f"{name} = {shown}" + (f"  # {setting.origin}" if setting is not None else "")


def _as_json(options: Sequence[Option], found: Found, *, origin: bool) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if found.app is not None:
        settings["app"] = {"value": found.app.value, "origin": found.app.origin} if origin else found.app.value
    for item in options:
        plugin, _, field = item.name.rpartition(".")
        setting = found.settings.get(item.name)
        value = item.default if setting is None else setting.value
        if isinstance(value, Mapping):
            value = dict(value)
        elif item.kind is dict and value is None:
            value = {}
        if item.secret and value:
            value = "***"
        place = settings.setdefault(plugin, {}) if plugin else settings
        at = setting.origin if setting is not None else "default"
        place[field] = {"value": value, "origin": at} if origin else value
    return settings


def toml_value(item: Option, value: Any) -> str:
    """A value as it stands in a file."""
    return f"0o{value:o}" if item.unit == "octal" else _inline(value)


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{toml_string(key)} = {_inline(each)}" for key, each in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return toml_string(value) if isinstance(value, str) else json.dumps(value)


def toml_string(text: str) -> str:
    """Text as it stands in a file: as in JSON, but for what that writes as two halves, or leaves as it is."""
    shown = json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
    # Bytes that are no text, of a name of a file: a file of TOML cannot have them.
    return shown.encode("utf-8", "replace").decode()
