"""Names that nothing but annotations use: imported when somebody asks for an annotation, and no earlier.

A module has them from the import that type checkers read, and else as `type Name = late("module:Name")`, whose right
side is evaluated on demand (PEP 695). Without them `inspect.signature()` and `typing.get_type_hints()` would fail.
"""

from typing import Any

__all__ = ["late"]


def late(place: str) -> Any:
    """What `module:name` says."""
    from importlib import import_module

    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
