"""StartFolder: where a server was started, by a name that may lead elsewhere later (`/srv/current`)."""

import os
from collections.abc import Iterable

__all__ = ["StartFolder"]


class StartFolder:
    """The current directory when this was made, by the name by which it was entered.

    The directory itself stays the same when the link by which it was entered is moved; what is started for new code
    has to be started where the name leads then.
    """

    def __init__(self) -> None:
        self._real = os.getcwd()
        named = os.environ.get("PWD", "")
        try:
            is_it = os.path.isabs(named) and os.path.samefile(named, self._real)
        except OSError:
            is_it = False
        self.name = named if is_it else self._real

    def renamed(self, path: str) -> str:
        """`path` by that name, where it lies in this directory and is there by that name too."""
        if self.name != self._real and (path == self._real or path.startswith(self._real + os.sep)):
            named = self.name + path[len(self._real) :]
            if os.path.exists(named):
                return named
        return path

    def all_renamed(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Each of `paths` by that name, as of `sys.path`."""
        return tuple(map(self.renamed, paths))
