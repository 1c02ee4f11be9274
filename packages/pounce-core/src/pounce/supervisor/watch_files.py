"""FileWatcher: notices that files of an application have changed.

Polls the times and sizes of files, or, where the package watchfiles is installed, has the system report changes.
"""

import fnmatch
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pounce.config import ServerConfig
from pounce.errors import ConfigError

__all__ = ["FileWatcher"]

log = logging.getLogger("pounce.reload")

INTERVAL = 0.5
"""Seconds between two looks, when polling."""
INCLUDED = tuple(
    f"*.{suffix}"
    for suffix in ("py", "pyi", "toml", "yaml", "yml", "json", "cfg", "ini", "md", "html", "css", "js", "svg")
)
EXCLUDED = (
    ".*", "__pycache__", "node_modules", "venv", "env", "dist", "build", "*.egg-info", "*.pyc", "*.swp", "*~",
)  # fmt: skip

type Snapshot = dict[str, tuple[int, int]]


class FileWatcher:
    """Calls `changed` on a thread of its own once files have changed and then rested for `reload_delay`.

    What is watched are the files below `app_dir` and `reload_dirs` whose name is that of a pattern: the usual ones and
    `reload_include`, without `reload_exclude`. Excluded folders are not entered; only what lies below a watched folder
    counts, not where that itself lies.

    Raises `ConfigError` for a folder that is not there.
    """

    def __init__(self, config: ServerConfig, changed: Callable[[], None]) -> None:
        for folder in config.reload_dirs:
            if not Path(folder).is_dir():
                raise ConfigError(f"reload_dirs: there is no folder {folder}")
        folders = dict.fromkeys(str(Path(folder).resolve()) for folder in (config.app_dir or ".", *config.reload_dirs))
        self._folders = [folder for folder in folders if not _is_below(folder, folders)]
        self._included = (*INCLUDED, *map(_pattern, config.reload_include))
        self._excluded = (*EXCLUDED, *map(_pattern, config.reload_exclude))
        self._delay = config.reload_delay
        self._changed = changed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pounce file watcher", daemon=True)
        self._before = self.snapshot()

    def start(self) -> None:
        """Begin to watch; what has changed since this was made counts too."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no more; returns when that is so."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        changes = self._reported() if _watchfiles_is_installed() else self._polled()
        for names in changes:
            log.info("Changed: %s", ", ".join(sorted(names)[:5]) + (" …" if len(names) > 5 else ""))
            self._changed()

    def _reported(self) -> Iterator[set[str]]:
        import watchfiles

        # It tells of what changes from now on.
        if early := self._differing(self.snapshot()):
            yield early
        for changes in watchfiles.watch(
            *self._folders,
            watch_filter=lambda change, path: self.is_watched(path),
            debounce=max(1, int(self._delay * 1000)),
            step=max(1, int(self._delay * 1000)),
            stop_event=self._stop,
            raise_interrupt=False,
        ):
            yield {self._short(path) for _, path in changes}

    def _polled(self) -> Iterator[set[str]]:
        while not self._stop.wait(INTERVAL):
            now = self.snapshot()
            if now == self._before:
                continue
            rest = time.monotonic() + self._delay
            latest = now
            while time.monotonic() < rest and not self._stop.wait(min(self._delay, 0.05)):
                now = self.snapshot()
                if now != latest:
                    latest, rest = now, time.monotonic() + self._delay
            yield self._differing(latest)
            self._before = latest

    def _differing(self, now: Snapshot) -> set[str]:
        return {self._short(path) for path, _ in self._before.items() ^ now.items()}

    def _short(self, path: str) -> str:
        return os.path.relpath(path)

    def snapshot(self) -> Snapshot:
        """Time and size of every watched file, by its path."""
        found: Snapshot = {}
        for top in self._folders:
            for folder, folders, files in os.walk(top):
                folders[:] = [name for name in folders if not _matches(name, self._excluded)]
                for name in files:
                    if _matches(name, self._included) and not _matches(name, self._excluded):
                        path = os.path.join(folder, name)
                        try:
                            status = os.stat(path)
                        except OSError:
                            continue
                        found[path] = (status.st_mtime_ns, status.st_size)
        return found

    def is_watched(self, path: str) -> bool:
        """Whether a change of this file counts."""
        for folder in self._folders:
            if path.startswith(folder + os.sep):
                parts = path[len(folder) + 1 :].split(os.sep)
                return _matches(parts[-1], self._included) and not any(_matches(part, self._excluded) for part in parts)
        return False


def _is_below(folder: str, others: dict[str, None]) -> bool:
    return any(folder.startswith(other.rstrip(os.sep) + os.sep) for other in others)


def _pattern(text: str) -> str:
    """`.css` is `*.css`."""
    return f"*{text}" if text.startswith(".") and not set(text) & set("*?[") else text


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _watchfiles_is_installed() -> bool:
    try:
        import watchfiles  # noqa: F401
    except ImportError:
        return False
    return True
