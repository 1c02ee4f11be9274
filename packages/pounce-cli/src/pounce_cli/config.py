"""`pounce config show`: every setting, and where its value comes from."""

import json
from collections.abc import Mapping
from typing import Any

from pounce.config import describe
from pounce.observe.logs import escaped_line
from pounce.options import Option
from pounce_cli.flags import Given, plugin_options
from pounce_cli.sources import Setting, config_of, settings_of

__all__ = ["show_config", "toml_value"]


def show_config(given: Given) -> None:
    """Print the configuration as TOML, with origins as comments. Raises `ConfigError` where a setting is wrong."""
    config_of(given)
    found = settings_of(given)
    table = ""
    for item in (*(item for item in describe() if item.flag), *plugin_options(lambda plugin: True)):
        plugin = item.name.rpartition(".")[0]
        if plugin != table:
            table = plugin
            print(f"\n[{escaped_line(plugin)}]")
        # The place may be the name of a file.
        print(escaped_line(_line(item, found.get(item.name))))


def _line(item: Option, setting: Setting | None) -> str:
    value = item.default if setting is None else setting.value
    if value is None:
        return f"# {item.field} is not set"
    shown = '"***"' if item.secret and value else toml_value(item, value)
    return f"{item.field} = {shown}" + (f"  # {setting.origin}" if setting is not None else "")


def toml_value(item: Option, value: Any) -> str:
    """A value as it stands in a file."""
    return f"0o{value:o}" if item.unit == "octal" else _inline(value)


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_inline(each)}" for key, each in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_inline, value)) + "]"
    # Strings of JSON are strings of TOML.
    return json.dumps(value)
