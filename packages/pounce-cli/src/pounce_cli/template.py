"""`pounce config init`: a pounce.toml with every setting in it, as comments that say what it does and its default."""

import os
import textwrap
from collections.abc import Iterator

from pounce.config import describe
from pounce.errors import ConfigError
from pounce.options import Option
from pounce_cli.config import toml_value
from pounce_cli.flags import plugin_options

__all__ = ["template", "write_template"]

FILE = "pounce.toml"
WIDTH = 110
HEAD = """\
# Settings of pounce. Each is here with its default: take away the # in front of those that are to be another.
# Durations may be "30s" or "5m", sizes "16MiB". `pounce config show` tells what holds, and where it comes from.

# The application, so that `pounce serve` alone starts it.
# app = "main:app"

# Files of variables for the process.
# env_file = ".env"
"""
PROFILE = """
# ---- Profiles: what a table says counts above the rest, with --profile or POUNCE_PROFILE

# [profiles.prod]
# host = "0.0.0.0"
# workers = 0
"""


def template() -> str:
    """The text of the file."""
    return HEAD + "".join(f"{line}\n" for line in _lines()) + PROFILE


def write_template(*, force: bool = False) -> str:
    """Write it into the current folder, and give its name. Raises `ConfigError` where there is one, without `force`."""
    if os.path.exists(FILE) and not force:
        raise ConfigError(f"{FILE} is there already", hint="With --force it is written anew.")
    try:
        with open(FILE, "w", encoding="utf-8") as file:
            file.write(template())
    except OSError as exc:
        raise ConfigError(f"{FILE} cannot be written: {exc.strerror or exc}") from exc
    return FILE


def _lines() -> Iterator[str]:
    groups: dict[str, list[Option]] = {}
    for item in describe():
        if item.flag:
            groups.setdefault(item.group, []).append(item)
    for group, items in groups.items():
        yield from ("", f"# ---- {group.capitalize()}")
        for item in items:
            yield from _setting(item)
    # Tables come last: what stands behind one belongs to it.
    plugin = ""
    for item in plugin_options(lambda plugin: True):
        if item.name.rpartition(".")[0] != plugin:
            plugin = item.name.rpartition(".")[0]
            yield from ("", f"# ---- Plugin {plugin}", "", f"# [{plugin}]")
        yield from _setting(item)


def _setting(item: Option) -> Iterator[str]:
    yield ""
    yield from textwrap.wrap(item.help, WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
    value = {} if item.kind is dict and item.default is None else item.default
    allowed = f"  # {item.allowed}" if item.kind not in (bool, object) else ""
    if value is None:
        yield f"# {item.field} =  # not set{': ' + item.allowed if allowed else ''}"
    else:
        yield f"# {item.field} = {toml_value(item, value)}{allowed}"
