"""Variables of the environment that files have set.

A program that takes the place of this one reads the files anew. It must not find there what they said before: what is
set already stays as it is.
"""

import os

__all__ = ["inheritable", "set_by_file"]

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
