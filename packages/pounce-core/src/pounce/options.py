"""Options: settings that are fields of a dataclass, described once for checks, flags, files and documentation.

`ServerConfig` is made of them, and so are the settings of plugins.
"""

import copy
import dataclasses
import math
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from pounce.errors import ConfigError
from pounce.spelling import did_you_mean

__all__ = ["Option", "Table", "option", "options_of", "parse_option", "secret_from", "unknown_setting"]


def option(
    default: Any,
    help: str,
    *,
    group: str = "",
    unit: str | None = None,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    flag: bool = True,
    beta: bool = False,
    factory: bool = False,
    secret: bool = False,
    also: tuple[str, ...] = (),
    needs: str | None = None,
    per_bind: bool = False,
) -> Any:
    """A field with what people and programs need to know about it.

    `unit` is "seconds", "bytes", "octal" or None; `ge`, `gt` and `le` bound a number; `flag` is False for settings
    that only Python code can give; `factory` says that `default` is called for each instance, `secret` that the value
    must not be shown; `also` lists second spellings of the name. `needs`, for settings of the server alone, names that
    without which this one does nothing, or several of which one is enough (`a or b`). `per_bind`, for them as well,
    says that a bind may have its own.
    """
    metadata = dict(  # noqa: C408
        help=help,
        group=group,
        unit=unit,
        ge=ge,
        gt=gt,
        le=le,
        flag=flag,
        beta=beta,
        secret=secret,
        also=also,
        needs=needs,
        per_bind=per_bind,
    )
    if factory:
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata, repr=not secret)


@dataclasses.dataclass(frozen=True, slots=True)
class Option:
    """One setting, described.

    `name` is that of the field; a plugin's settings begin with the name of the plugin: `h2.stream_window`. `kind` is
    bool, int, float, str, tuple, dict (of str) or object; `of_anything` says that the items of a tuple need not be str;
    `nullable` says that None is a value; `choices` lists the values of an enumeration, else it is empty. For the other
    fields see `option()`.
    """

    name: str
    kind: type
    nullable: bool
    choices: tuple[str, ...]
    default: Any
    help: str
    group: str
    unit: str | None
    ge: float | None
    gt: float | None
    le: float | None
    flag: bool
    beta: bool
    secret: bool
    also: tuple[str, ...]
    """Second spellings of the name."""
    of_anything: bool
    needs: str | None
    per_bind: bool

    @property
    def field(self) -> str:
        """The name within its dataclass."""
        return self.name.rpartition(".")[2]

    @property
    def allowed(self) -> str:
        """What a value may be, in words: `an integer from 0 to 65535`."""
        if self.choices:
            words = "one of " + ", ".join(self.choices)
        elif self.unit == "octal":
            words = f"an octal number from {self.ge:o} to {self.le:o}"
        elif self.of_anything:
            words = "a list"
        else:
            words = _KIND_WORDS[self.kind]
            if self.unit in ("seconds", "bytes"):
                words += f" of {self.unit}"
            if self.gt is not None:
                words += f" above {self.gt}"
            elif self.ge is not None and self.le is not None:
                words += f" from {self.ge} to {self.le}"
            elif self.ge is not None:
                words += f" of at least {self.ge}" if self.unit is None else f", at least {self.ge}"
        return words + (" or none" if self.nullable else "")

    def checked(self, value: Any) -> Any:
        """The value in its own type (an int becomes a float where one is due); raises `ConfigError`."""
        if value is None and self.nullable:
            return None
        if self.kind is object:
            return value
        if self.choices:
            if isinstance(value, str) and value.lower() in self.choices:
                return value.lower()
            raise self.refused(value)
        if self.kind is tuple:
            if isinstance(value, (list, tuple, set, frozenset)) and (
                self.of_anything or all(isinstance(item, str) for item in value)
            ):
                return tuple(value)
            raise self.refused(value)
        if self.kind is dict:
            if isinstance(value, Mapping) and all(isinstance(text, str) for pair in value.items() for text in pair):
                return Table(value)
            raise self.refused(value)
        if self.kind is float and type(value) is int:
            value = float(value)
        if type(value) is not self.kind:
            raise self.refused(value)
        if self.kind in (int, float) and not self._in_range(value):
            raise self.refused(value)
        return value

    def _in_range(self, value: Any) -> bool:
        return not (
            not math.isfinite(value)
            or (self.ge is not None and value < self.ge)
            or (self.gt is not None and value <= self.gt)
            or (self.le is not None and value > self.le)
        )

    def refused(self, value: Any, where: str | None = None, hint: str | None = None) -> ConfigError:
        """The error for a value that is not allowed; `where` is what to call the setting. A secret is not repeated."""
        got = "" if self.secret else f" (got {value!r})"
        return ConfigError(f"{where or self.name} must be {self.allowed}{got}", hint=hint)


class Table(Mapping[str, Any]):
    """Settings by name, or tables of them by the name of their plugin; immutable, and a dict once it is copied."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, Any]) -> None:
        self._items = dict(items)

    def __getitem__(self, name: str) -> Any:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        # Values may be of any kind; where tables are equal their names are.
        return hash(frozenset(self._items))

    def __repr__(self) -> str:
        return repr(self._items)

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return copy.deepcopy(self._items, memo)


_KIND_WORDS = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a string",
    tuple: "a list of strings",
    dict: "a table of strings",
    object: "a value of the documented form",
}


def options_of(cls: type, plugin: str = "") -> tuple[Option, ...]:
    """The fields of a dataclass in their order; `plugin` is the name of the plugin whose settings they are.

    A field need not be made by `option()`: then its type is all that is known, and one of a type that `Option` does not
    name has no flag.
    """
    prefix = f"{plugin}." if plugin else ""
    hints = typing.get_type_hints(cls) if any(isinstance(field.type, str) for field in dataclasses.fields(cls)) else {}
    return tuple(_described(field, hints.get(field.name, field.type), prefix) for field in dataclasses.fields(cls))


def secret_from(name: str, path: str) -> str:
    """The first line of a file that a setting names, where a secret is. Raises `ConfigError`, without the secret."""
    try:
        # Editors of Windows begin a file with a mark that is no part of the text.
        with open(path, encoding="utf-8-sig") as file:
            text = file.readline().rstrip("\r\n")
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{name} {path} cannot be read: {getattr(exc, 'strerror', None) or 'it is no text'}") from exc
    if not text:
        raise ConfigError(f"{name} {path} has nothing in its first line")
    return text


def unknown_setting(name: str, known: Iterable[str], where: str | None = None) -> ConfigError:
    """The error for a name that is no setting, with the one that may be meant; `where` is what to call it."""
    return ConfigError(f"{where or name} is not a setting", hint=did_you_mean(name, known))


def _described(field: dataclasses.Field[Any], hint: Any, prefix: str) -> Option:
    members = typing.get_args(hint) if isinstance(hint, types.UnionType) else ()
    nullable = type(None) in members
    if nullable and len(members) == 2:
        hint = members[0] if members[1] is type(None) else members[1]
    if isinstance(hint, typing.TypeAliasType):
        hint = hint.__value__
    choices: tuple[str, ...] = ()
    if typing.get_origin(hint) is Literal:
        choices, hint = typing.get_args(hint), str
    of_anything = hint == tuple[Any, ...]
    if of_anything or hint == tuple[str, ...]:
        hint = tuple
    elif hint == Mapping[str, str]:
        hint = dict
    kind = hint if hint in (bool, int, float, str, tuple, dict) else object
    default = None if field.default is dataclasses.MISSING else field.default
    metadata = {**(field.metadata or option(None, "", flag=kind is not object).metadata)}
    metadata["also"] = tuple(prefix + name for name in metadata["also"])
    return Option(
        name=prefix + field.name,
        kind=kind,
        nullable=nullable,
        choices=choices,
        default=default,
        of_anything=of_anything,
        **metadata,
    )


_UNITS: dict[str | None, dict[str, float]] = {
    "seconds": {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400},
    "bytes": {
        "": 1, "b": 1, "k": 1024, "kib": 1024, "kb": 1000, "m": 1024**2, "mib": 1024**2, "mb": 1000**2,
        "g": 1024**3, "gib": 1024**3, "gb": 1000**3,
    },
}  # fmt: skip


def parse_option(item: Option, text: str) -> Any:
    """The value that `text` stands for: `30s`, `5m`, `16MiB`, `on`, `0o660`. Raises `ConfigError`.

    Durations take ms, s, m, h, d; sizes take B, KB, MB, GB (powers of 1000), KiB, MiB, GiB, K, M, G (powers of 1024).
    """
    value: Any = text
    if item.kind is bool:
        words = {
            "1": True,
            "true": True,
            "yes": True,
            "on": True,
            "0": False,
            "false": False,
            "no": False,
            "off": False,
        }
        value = words.get(text.strip().lower(), text)
    elif item.unit == "octal":
        value = int(text, 8) if re.fullmatch(r"(0o)?[0-7]+", text) else text
    elif item.unit in _UNITS:
        match = re.fullmatch(r"\s*(\d{1,18}(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
        factor = _UNITS[item.unit].get(match[2]) if match else None
        if match and factor:
            number = float(match[1]) * factor
            # Part of a byte is a mistake; rounded down to 0 it would switch a limit off.
            value = number if item.kind is float else int(number) if number.is_integer() else text
    elif item.kind is int:
        value = int(text) if re.fullmatch(r"-?\d{1,18}", text) else text
    elif item.kind is float:
        value = float(text) if re.fullmatch(r"-?\d+(\.\d+)?", text) else text
    elif item.kind is tuple:
        value = tuple(part.strip() for part in text.split(",") if part.strip())
    elif item.kind is dict:
        pairs = [part.partition("=") for part in text.split(",") if part.strip()]
        value = {key.strip(): found.strip() for key, _, found in pairs} if all(pair[1] for pair in pairs) else text
    return item.checked(value)
