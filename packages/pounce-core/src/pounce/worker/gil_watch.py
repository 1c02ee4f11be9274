"""GilWatch: says so when something that is imported while the server runs switches the GIL on, and what it was."""

import logging
import sys
import threading
from importlib.machinery import EXTENSION_SUFFIXES

from pounce.gil import gil_enabled

__all__ = ["GilWatch"]

log = logging.getLogger("pounce")


class GilWatch:
    """Looks again and again; for imports of plugins and of the application, the start names the culprit itself."""

    told = threading.Event()
    """Somebody in this process has said so: the workers of a process share their GIL."""

    def __init__(self) -> None:
        self._off = not gil_enabled()
        self._modules = sys.modules.copy()

    def look(self) -> None:
        """Warn, once, when the GIL is on and was off the last time."""
        if not self._off:
            return
        if gil_enabled():
            self._off = False
            if not self.told.is_set():
                self.told.set()
                log.warning(
                    "The GIL was switched on while serving, by %s: workers do not run in parallel any more",
                    ", ".join(self._culprits()) or "something that is not known",
                )
        elif len(sys.modules) != len(self._modules):
            self._modules = sys.modules.copy()

    def _culprits(self) -> list[str]:
        """Extension modules that were not there the last time."""
        return [
            name
            for name, module in sys.modules.copy().items()
            if name not in self._modules and str(getattr(module, "__file__", "")).endswith(tuple(EXTENSION_SUFFIXES))
        ]
