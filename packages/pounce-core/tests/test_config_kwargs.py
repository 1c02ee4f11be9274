"""ServerConfigKwargs has what ServerConfig has. Run as a program this writes the file anew."""

import dataclasses
import re
import typing
from pathlib import Path

import pounce
from pounce.config import ServerConfig, describe
from pounce.config_kwargs import ServerConfigKwargs

FILE = Path(pounce.__file__).parent / "config_kwargs.py"
HEAD = '''"""ServerConfigKwargs: the settings as keyword arguments, for type checkers.

Made from `ServerConfig` by packages/pounce-core/tests/test_config_kwargs.py.
"""

from collections.abc import Mapping
from typing import Any, TypedDict

from pounce.settings.types import (
{types})

__all__ = ["ServerConfigKwargs"]


class ServerConfigKwargs(TypedDict, total=False):
    """What `pounce.run()` takes beside the application: every setting, second spellings, and arguments of uvicorn."""

'''

OF_UVICORN = {
    "fd": "int | None",
    "ws": "str",
    "ws_per_message_deflate": "bool",
    "limit_max_requests": "int | None",
    "timeout_worker_healthcheck": "float",
    "reset_contextvars": "bool",
}
"""Arguments of `uvicorn.run()` that are no spellings of a setting, and mean something here."""


def written() -> str:
    """The file as it has to be."""
    source = "".join(path.read_text() for path in (FILE.parent / "settings").glob("*.py"))
    types = dict(re.findall(r"^    (\w+): (.*?) = option\(", source, re.MULTILINE))
    lines = [f"    {item.name}: {types[item.name]}\n" for item in describe()]
    lines += [f"    {also}: {types[item.name]}\n" for item in describe() for also in item.also]
    lines += [f"    {name}: {hint}\n" for name, hint in OF_UVICORN.items()]
    known = re.findall(r"^type (\w+) = ", source, re.MULTILINE)
    used = sorted({name for line in lines for name in known if re.search(rf"\b{name}\b", line)}, key=str.lower)
    return HEAD.replace("{types}", "".join(f"    {name},\n" for name in used)) + "".join(lines)


def test_the_file_is_made_from_the_settings() -> None:
    assert FILE.read_text() == written()


def test_every_field_is_a_keyword_of_its_type() -> None:
    hints = typing.get_type_hints(ServerConfigKwargs)
    fields = typing.get_type_hints(ServerConfig)
    assert {field.name for field in dataclasses.fields(ServerConfig)} <= set(hints)
    assert {name: hints[name] for name in fields} == fields


if __name__ == "__main__":
    FILE.write_text(written())
