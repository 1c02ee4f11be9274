"""FileWatcher: notices that files of an application have changed.

Which files count is in reload_rules.py, what they look like in watched_tree.py. That is looked at now and again, or,
where the package watchfiles is installed, when the system reports that something has changed: what it reports is a hint
to look, so that both find the same. What the application writes itself is told apart in reload_loops.py.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial

from pounce.config import ServerConfig
from pounce.errors import ConfigError
from pounce.supervisor.reload_loops import Changes, ReloadLoops
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
        self._loops = ReloadLoops(folders, self._name)
        self._forget = threading.Event()
        """The thread shall, before it looks at anything else."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pounce file watcher", daemon=True)
        self._cost = 0.0
        self._before = self._look()

    def start(self) -> None:
        """Begin to watch; what has changed since this was made counts too. Once `started()` was called."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no more; returns when that is so."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def started(self, took: float) -> None:
        """The application has started within so many seconds, for the first time or anew."""
        self._loops.start_ended(took)

    def react_to_all(self) -> None:
        """Forget which files were found to be written by the application itself; it is about to be started anew."""
        self._forget.set()
        self._loops.start_began()

    def _run(self) -> None:
        reported = _watchfiles_is_installed()
        for found in self._reported() if reported else self._polled():
            if self._forget.is_set():
                self._forget.clear()
                self._loops.forget()
            lag = self._delay + (0.0 if reported else self._pause())
            if changes := self._loops.without_own(found, lag):
                names = sorted(map(self._name, changes))
                log.info("Changed: %s", ", ".join(names[:5]) + (" …" if len(names) > 5 else ""))
                self._loops.caused(changes, self._before, lag)
                self._loops.start_began()
                self._changed()

    def _reported(self) -> Iterator[Changes]:
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

    def _polled(self) -> Iterator[Changes]:
        while not self._stop.wait(self._pause()):
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

    def _pause(self) -> float:
        """Seconds between two looks, when polling."""
        return max(INTERVAL, self._cost / SHARE)

    def _differing(self, now: Snapshot | None = None) -> Changes:
        """The files that look different from the last time; what they look like now is held against the next time."""
        before, self._before = self._before, self._look() if now is None else now
        return {
            path: "appeared" if path not in before else "changed" if path in self._before else "gone"
            for path, _ in before.items() ^ self._before.items()
        }

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
