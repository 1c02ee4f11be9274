"""FileWatcher: notices that files of an application have changed.

Which files count is in reload_rules.py, what they look like in watched_tree.py. That is looked at now and again, or,
where the package watchfiles is installed, when the system reports that something has changed: what it reports is a hint
to look, so that both find the same.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial

from pounce.config import ServerConfig
from pounce.errors import ConfigError
from pounce.supervisor.reload_rules import rules_of
from pounce.supervisor.watched_tree import Snapshot, WatchedTree

__all__ = ["FileWatcher"]

log = logging.getLogger("pounce.reload")

INTERVAL = 0.5
"""Seconds between two looks, when polling; more where a look takes long."""
SHARE = 0.04
"""Part of a CPU that polling may take."""
REST = 0.05
"""Seconds between two looks while files change."""
LINKS = 1000
"""Milliseconds after which it is noticed that a link leads elsewhere, where the system reports changes."""
LOOP_RELOADS = 3
LOOP_SECONDS = 5.0
"""So many reloads within this time, and that for as many starts, by one file: the application writes it itself."""


class FileWatcher:
    """Calls `changed` on a thread of its own once files have changed and then rested for `reload_delay`.

    What is watched lies below `reload_dirs`, or `app_dir` where there are none. Only what lies below a watched folder
    is held against the rules, not where that itself lies.

    Raises `ConfigError` for a folder that is not there, and for a pattern that can never match.
    """

    def __init__(self, config: ServerConfig, changed: Callable[[], None], start_folder: str | None = None) -> None:
        """Relative folders are below `start_folder`, by whose name a link may lead elsewhere later."""
        for folder in config.reload_dirs:
            if not os.path.isdir(folder):
                raise ConfigError(f"reload_dirs: there is no folder {folder}")
        base = start_folder or os.getcwd()
        named = config.reload_dirs or (config.app_dir or ".",)
        folders = list(dict.fromkeys(os.path.normpath(os.path.join(base, folder)) for folder in named))
        rules = rules_of(folders, config.reload_include, config.reload_exclude)
        self._folders = folders
        self._tree = WatchedTree(folders, rules)
        self._delay = config.reload_delay
        self._changed = changed
        self._causes: dict[str, deque[float]] = {}
        """When each file has caused the last reloads."""
        self._ignored: set[str] = set()
        self.start_took = 0.0
        """Seconds that the application took for its last start: as long a reload is under way, and written to."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pounce file watcher", daemon=True)
        self._cost = 0.0
        self._before = self._look()

    def start(self) -> None:
        """Begin to watch; what has changed since this was made counts too."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no more; returns when that is so."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def react_to_all(self) -> None:
        """Forget which files were found to be written by the application itself."""
        self._ignored.clear()
        self._causes.clear()

    def _run(self) -> None:
        changes = self._reported() if _watchfiles_is_installed() else self._polled()
        for paths in changes:
            paths -= self._ignored
            if paths:
                names = sorted(map(self._name, paths))
                log.info("Changed: %s", ", ".join(names[:5]) + (" …" if len(names) > 5 else ""))
                self._look_for_loops(paths)
                self._changed()

    def _look_for_loops(self, paths: set[str]) -> None:
        """An application that writes a file which counts would be reloaded for ever."""
        now = time.monotonic()
        for path in paths:
            times = self._causes.setdefault(path, deque(maxlen=LOOP_RELOADS))
            times.append(now)
            if len(times) == LOOP_RELOADS and now - times[0] <= LOOP_SECONDS + LOOP_RELOADS * self.start_took:
                self._ignored.add(path)
                log.warning(
                    "%s has caused %d reloads within %.0f s, as if the application wrote it: it is not watched any"
                    " more. With --reload-exclude %s it never is",
                    self._name(path), LOOP_RELOADS, max(1.0, now - times[0]), self._name(path),
                )  # fmt: skip

    def _reported(self) -> Iterator[set[str]]:
        import watchfiles

        rest = max(1, int(self._delay * 1000))
        while not self._stop.is_set():
            places = self._tree.places()
            # It tells of what changes from then on.
            if changed := self._differing():
                yield changed
            if not places or places.keys() != self._tree.places().keys():
                self._stop.wait(REST if places else LINKS / 1000)
                continue
            changes = watchfiles.watch(
                *places,
                watch_filter=partial(self._tree.may_concern, places),
                debounce=rest,
                step=rest,
                rust_timeout=LINKS,
                yield_on_timeout=True,
                stop_event=self._stop,
                raise_interrupt=False,
            )
            with closing(changes), suppress(FileNotFoundError):
                # What has changed before the first answer may have been too early for it.
                for number, hints in enumerate(changes):
                    if (hints or not number) and (changed := self._differing()):
                        yield changed
                    if self._tree.places().keys() != places.keys():
                        break

    def _polled(self) -> Iterator[set[str]]:
        while not self._stop.wait(max(INTERVAL, self._cost / SHARE)):
            latest = self._look()
            if latest == self._before:
                continue
            rest = time.monotonic() + self._delay
            while time.monotonic() < rest and not self._stop.wait(min(self._delay, max(REST, self._cost))):
                now = self._look()
                if now != latest:
                    latest, rest = now, time.monotonic() + self._delay
            yield self._differing(latest)

    def _look(self) -> Snapshot:
        begun = time.thread_time()
        found = self._tree.snapshot()
        self._cost = time.thread_time() - begun
        return found

    def _differing(self, now: Snapshot | None = None) -> set[str]:
        """The files that look different from the last time; what they look like now is held against the next time."""
        before, self._before = self._before, self._look() if now is None else now
        return {path for path, _ in before.items() ^ self._before.items()}

    def _name(self, path: str) -> str:
        """A path as one would write it, from the watched folder on."""
        for folder in self._folders:
            if path.startswith(folder + os.sep):
                return path[len(folder) + 1 :]
        return path


def _watchfiles_is_installed() -> bool:
    try:
        import watchfiles  # noqa: F401
    except ImportError:
        return False
    return True
