"""`pounce config schema`: what a configuration file may have, as JSON Schema, for editors and checks.

It is made from the settings that the server itself checks by, so it allows what that allows; only what settings have to
do with each other it does not know.
"""

from typing import Any

from pounce.config import describe
from pounce.options import Option
from pounce_cli.flags import plugin_options

__all__ = ["json_schema"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_DURATION = r"^\s*\d{1,18}(\.\d+)?\s*(ms|s|m|h|d)?\s*$"
_SIZE = r"^\s*\d{1,18}(\.\d+)?\s*([bB]|[kKmMgG]([iI]?[bB])?)?\s*$"
_STRINGS = {"type": "array", "items": {"type": "string"}}
_ANYTHING: dict[str, dict[str, Any]] = {
    "log_config": {"type": ["object", "string"]},
    "lifecycle_collector": {"type": ["string", "array"]},
    "middleware": {"type": ["array", "string"]},
}
"""Settings of no type that an `Option` names."""


def json_schema() -> dict[str, Any]:
    """The schema of `pounce.toml`, with the settings of installed plugins (JSON Schema 2020-12)."""
    settings = _properties([item for item in describe() if item.flag])
    for item in plugin_options(lambda plugin: True):
        plugin, _, field = item.name.rpartition(".")
        table = settings.setdefault(plugin, _table({}, f"Settings of the plugin {plugin}."))
        table["properties"][field] = _schema_of(item)
    settings["app"] = {"type": "string", "description": "The application: module:attribute.", "pattern": ":"}
    settings["env_file"] = {"anyOf": [{"type": "string"}, _STRINGS], "description": "Files of variables."}
    settings["display"] = _table(
        {name: {"type": "string"} for name in ("name", "tagline", "version", "signage")} | {"lines": _STRINGS},
        "What the banner shows.",
    )
    settings["profiles"] = {
        "type": "object",
        "description": "Tables of settings that count above the others: --profile NAME.",
        "additionalProperties": {"$ref": "#", "properties": {"profiles": False}},
    }
    return {
        "$schema": DIALECT,
        "$id": "urn:pounce:settings",
        "title": "pounce.toml",
        "description": "Settings of the ASGI server pounce; in pyproject.toml the table tool.pounce.",
        "type": "object",
        "properties": settings,
        "additionalProperties": False,
    }


def _table(properties: dict[str, Any], description: str) -> dict[str, Any]:
    return {"type": "object", "description": description, "properties": properties, "additionalProperties": False}


def _properties(items: list[Option]) -> dict[str, Any]:
    found = {item.name: _schema_of(item) for item in items}
    for item in items:
        for also in item.also:
            found[also] = {**found[item.name], "description": f"The same as {item.name}.", "deprecated": True}
    return found


def _schema_of(item: Option) -> dict[str, Any]:
    found = {"description": f"{item.help} (beta)" if item.beta else item.help, **_type_of(item)}
    default = item.default
    if default is not None and not item.secret and item.kind is not object:
        found["default"] = list(default) if isinstance(default, tuple) else default
    return found


def _type_of(item: Option) -> dict[str, Any]:
    if item.choices:
        return {"type": "string", "enum": list(item.choices)}
    if item.name in _ANYTHING:
        return _ANYTHING[item.name]
    if item.unit == "octal":
        return {"anyOf": [_number(item), {"type": "string", "pattern": "^(0o)?[0-7]+$"}]}
    if item.unit in ("seconds", "bytes"):
        pattern = _DURATION if item.unit == "seconds" else _SIZE
        return {"anyOf": [_number(item), {"type": "string", "pattern": pattern}]}
    if item.kind in (int, float):
        return _number(item)
    if item.kind is tuple:
        return {"anyOf": [_STRINGS, {"type": "string"}]}
    if item.kind is dict:
        return {"type": "object", "additionalProperties": {"type": "string"}}
    return {"type": {bool: "boolean", str: "string"}.get(item.kind, "string")}


def _number(item: Option) -> dict[str, Any]:
    bounds = {"minimum": item.ge, "exclusiveMinimum": item.gt, "maximum": item.le}
    kind = "integer" if item.kind is int else "number"
    return {"type": kind, **{name: bound for name, bound in bounds.items() if bound is not None}}
