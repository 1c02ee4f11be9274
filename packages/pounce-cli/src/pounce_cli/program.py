"""`pounce run`: a program that starts uvicorn, with this server in its place.

What environment and configuration file say of settings stands above what the program says.
"""

import os
import traceback
from collections.abc import Sequence
from typing import Any

from pounce_cli.errors import UsageError
from pounce_cli.flags import Given
from pounce_cli.sources import settings_of

__all__ = ["run"]


def run(words: Sequence[str], config: str | None) -> None:
    """Run the program: a file, or `-m` and a module, and its arguments. Raises `ConfigError`."""
    if not words or (words[0] == "-m" and len(words) < 2):
        raise UsageError("no program is given", hint="For example: pounce run program.py, or pounce run -m package")
    if ":" in words[0]:
        raise UsageError(
            f"{words[0]} names an application, not a program", hint=f"To serve it: pounce serve {words[0]}"
        )
    if words[0] != "-m" and not os.path.exists(words[0]):
        raise UsageError(f"there is no program {words[0]}", hint="For a module: pounce run -m package")
    from pounce.compat.uvicorn import install, run_program

    install(_overrides(config))
    try:
        run_program(words)
    except ImportError as exc:
        if words[0] != "-m" or not _is_of_the_search(exc):
            raise
        raise UsageError(f"-m {words[1]} cannot be run: {exc}", hint="For a file: pounce run program.py") from exc


def _is_of_the_search(error: ImportError) -> bool:
    """Whether it was raised by who looks for the module, and not by code of the program."""
    raised_in = {frame.f_globals.get("__name__") for frame, _ in traceback.walk_tb(error.__traceback__)}
    return raised_in <= {__name__, "pounce.compat.uvicorn", "runpy"}


def _overrides(config: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, setting in settings_of(Given(config=config)).items():
        plugin, dot, field = name.rpartition(".")
        (found.setdefault("plugin_settings", {}).setdefault(plugin, {}) if dot else found)[field] = setting.value
    # The program has its application.
    found.pop("app", None)
    return found
