"""GilWatch: says so when something that is imported while the server runs switches the GIL on, and what it was."""

import importlib._bootstrap
import logging
import re
import sys
import threading
from importlib.machinery import EXTENSION_SUFFIXES
from math import inf
from types import ModuleType

from pounce.gil import gil_enabled

__all__ = ["GilWatch"]

log = logging.getLogger("pounce")

SECONDS, LOOKS = 2.0, 8
"""How long, and how often in that time, the GIL must have been found on. CPython switches it on for as long as it
imports an extension module, whichever it is, and off again where that can do without."""

_enabled_for = re.compile(r"The global interpreter lock \(GIL\) has been enabled to load module '([^']+)'")


class GilWatch:
    """Looks again and again, from any thread; for imports of plugins and of the application, the start names the
    culprit itself. One for the workers of a process, made before they import what they need."""

    told = False
    """Somebody in this process has said so: all servers in it share its GIL."""
    _lock = threading.Lock()
    """Protects all fields, also that of the class."""

    def __init__(self) -> None:
        self._off = not gil_enabled()
        self._modules = sys.modules.copy()
        """Those that were there when it was off for the last time."""
        self._since = inf
        """When it was found on, since when it was not found off."""
        self._looks = 0

    def look(self, now: float) -> None:
        """Warn, once, when the GIL was off and is on to stay. `now` is in seconds, of any clock."""
        if not self._off:
            return
        with self._lock:
            if not gil_enabled():
                self._since = inf
                if len(sys.modules) != len(self._modules):
                    self._modules = sys.modules.copy()
                return
            if self._since == inf:
                self._since, self._looks = now, 0
            self._looks += 1
            if not self._off or self._looks < LOOKS or now - self._since < SECONDS:
                return
            self._off = False
            told, GilWatch.told = GilWatch.told, True
        if not told:
            log.warning(
                "The GIL was switched on while serving, by %s: workers do not run in parallel any more",
                ", ".join(self._culprits()) or "something that is not known",
            )

    def _culprits(self) -> list[str]:
        """What Python has warned of, else the extension modules that were not there the last time."""
        # The frame that imports is importlib's, so what was warned of is noted there.
        warned = vars(importlib._bootstrap).get("__warningregistry__", {})
        texts = [str(key[0]) for key in warned.copy() if isinstance(key, tuple)]
        named = [found[1] for text in texts if (found := _enabled_for.match(text)) is not None]
        return named or [
            name
            for name, module in sys.modules.copy().items()
            # Others than modules may do anything when they are asked for an attribute.
            if name not in self._modules
            and type(module) is ModuleType
            and str(vars(module).get("__file__")).endswith(tuple(EXTENSION_SUFFIXES))
        ]
