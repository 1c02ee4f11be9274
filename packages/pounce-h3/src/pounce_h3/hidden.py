"""A module that is not found while others are imported."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec

__all__ = ["hidden"]

_lock = threading.Lock()
"""Protects `sys.meta_path` from two who change it at once."""


class _Hides:
    def __init__(self, name: str) -> None:
        self._name = name
        self._thread = threading.get_ident()

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name == self._name and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"{name} is not wanted here", name=name)
        return None


@contextmanager
def hidden(name: str) -> Iterator[None]:
    """Within it this thread does not find the module `name`, unless it was imported before; all other threads do."""
    hides = _Hides(name)
    with _lock:
        # Always another list: other threads that import look through the one that they have begun with.
        sys.meta_path = [hides, *sys.meta_path]
        try:
            yield
        finally:
            sys.meta_path = [finder for finder in sys.meta_path if finder is not hides]
