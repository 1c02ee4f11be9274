"""Variables of the environment that files have set.

A program that takes the place of this one reads the files anew. It must not find there what they said before: what is
set already stays as it is.
"""

import io
import os
from collections.abc import Iterable

from pounce.errors import ConfigError

__all__ = ["inheritable", "load_env_files", "set_by_file", "use_colors"]

_set: dict[str, str] = {}
"""Written by the main thread, before anything is served."""


def set_by_file(name: str, value: str) -> None:
    """Set a variable as a file says, unless it is set. Raises `ValueError` for what no variable can be."""
    if name not in os.environ:
        os.environ[name] = value
        _set[name] = value


def inheritable() -> dict[str, str]:
    """The environment for a program that is started in place of this one: all but what files have set here, and nobody
    has changed since."""
    # One by one: another thread of the program may take a variable away meanwhile.
    found = {name: value for name in os.environ if (value := os.environ.get(name)) is not None}
    return {name: value for name, value in found.items() if _set.get(name) != value}


def load_env_files(paths: Iterable[str], origin: str) -> None:
    """Set the variables of these files, which `origin` names, the last file above the others, and none that is set.
    Raises `ConfigError`; where a file cannot be read, nothing is set."""
    values: dict[str, str] = {}
    for path in paths:
        values |= _variables_in(path, origin)
    for name, text in values.items():
        try:
            set_by_file(name, text)
        except ValueError as exc:
            raise ConfigError(f"{origin}: {name!r} in a file of variables cannot be one: {exc}") from exc


def _variables_in(path: str, origin: str) -> dict[str, str]:
    try:
        from dotenv import dotenv_values
        from dotenv.parser import parse_stream
    except ImportError as exc:
        raise ConfigError(
            f"{origin} needs the package python-dotenv, which is not installed",
            hint="pip install 'pounce-cli[env-file]'",
        ) from exc
    try:
        # Editors of Windows begin a file with a mark that is no part of the first name.
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{origin}: the file of variables {path} cannot be read: {exc}") from exc
    # The library only warns, and lets variables be missing. What a line holds may be a secret, and is not repeated.
    for binding in parse_stream(io.StringIO(text)):
        if binding.error or (binding.key is not None and binding.value is None):
            written = binding.original.string
            before = written[: len(written) - len(written.lstrip())]
            raise ConfigError(
                f"{origin}: line {binding.original.line + before.count("\n")} of {path} does not set a variable",
                hint="A file of variables has lines NAME=value, with quotes that are closed; # begins a comment."
                + (" Settings in TOML are given with --config." if path.endswith(".toml") else ""),
            )
    return {name: value for name, value in dotenv_values(stream=io.StringIO(text)).items() if value is not None}


def use_colors(on: bool) -> None:
    """Have output with colors or without, wherever it goes."""
    os.environ["FORCE_COLOR" if on else "NO_COLOR"] = "1"
    os.environ.pop("NO_COLOR" if on else "FORCE_COLOR", None)
