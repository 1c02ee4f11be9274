"""StartFolder: where a server was started, by a name that may lead elsewhere later (`/srv/current`)."""

import os
from collections.abc import Iterable

from pounce.errors import ConfigError

__all__ = ["StartFolder"]


class StartFolder:
    """The current directory when this was made, by the name by which it was entered.

    The directory itself stays the same when the link by which it was entered is moved; what is started for new code
    has to be started where the name leads then. Raises `ConfigError` where there is none any more.
    """

    def __init__(self) -> None:
        try:
            self._real = os.getcwd()
        except OSError as exc:
            raise ConfigError(
                f"the current directory cannot be told: {exc.strerror or exc}",
                hint="It was deleted, or lies where this user may not look: change to another one, and start again.",
            ) from exc
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
