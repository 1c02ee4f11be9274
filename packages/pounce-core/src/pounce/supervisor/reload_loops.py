"""ReloadLoops: notices that an application writes files that count, so that it would be reloaded for ever.

Either has caused three reloads in a short time, and the third is the last:

    one file, whatever becomes of it         it counts no more right after a start, nor until it has been left alone
    files with new names, below one folder   what appears there right after a start counts no more, nor what becomes of
    that were there right after a start      it until the start is over; what a person edits there does

The folder is the one nearest to the files that has had all three of them below it: that of `runs/1.json`, `runs/2.json`
and of `runs/1/a.json`, `runs/2/a.json` is `runs`. A file that was gone, as while an editor writes it, has no new name.
"""

import logging
import os
import re
import shlex
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from typing import Literal

from pounce.supervisor.watched_tree import Snapshot

__all__ = ["Changes", "ReloadLoops"]

log = logging.getLogger("pounce.reload")

type Changes = dict[str, Literal["appeared", "changed", "gone"]]
"""What has become of files, by their paths."""

LOOP_RELOADS = 3
LOOP_SECONDS = 5.0
"""So many reloads within this time, and that for as many starts: the application writes the files itself."""
AFTER_START = 2.5
"""Seconds after the end of a start within which a file that appears is taken for one of its application."""


class ReloadLoops:
    """What of the changes below `folders` counts; `name` says how to write a path.

    `start_began()` and `start_ended()` come from any thread, all else from that of the watcher.
    """

    def __init__(self, folders: Sequence[str], name: Callable[[str], str]) -> None:
        self._folders = folders
        self._name = name
        self._start_took = 0.0
        self._start_over = 0.0
        """When what appears is no more taken for the application's."""
        self.forget()

    def forget(self) -> None:
        """Everything counts again."""
        self._causes: dict[str, deque[float]] = {}
        """When each file has caused the last reloads."""
        self._appearances: dict[str, deque[tuple[float, str]]] = {}
        """When files that appeared below each folder have caused the last reloads, and the newest of them."""
        self._ignored: dict[str, float] = {}
        """Files that the application writes, with the time of their last change."""
        self._own_folders: set[str] = set()
        """Those in which the application makes files with new names."""
        self._made: set[str] = set()
        """Files that appeared with a new name right after a start, until they are gone or edited later."""
        self._gone: set[str] = set()
        """Other files that were there once."""

    def start_began(self) -> None:
        """The application is started anew, which may take as long as the last time."""
        self._start_over = time.monotonic() + self._start_took + AFTER_START

    def start_ended(self, took: float) -> None:
        """The application has started within so many seconds: as long a reload is under way, and written to."""
        self._start_took = took
        self._start_over = time.monotonic() + AFTER_START

    def without_own(self, changes: Changes, lag: float) -> Changes:
        """The changes that are to cause a reload, as far as is known; `lag` is how long after a change it may be."""
        now = time.monotonic()
        right_after = now <= self._start_over + lag
        found: Changes = {}
        for path, what in changes.items():
            if what == "appeared" and right_after and path not in self._gone:
                self._made.add(path)
            made = path in self._made
            if what == "gone" and not made:
                self._gone.add(path)
            elif made and not (right_after and what != "gone"):
                self._made.discard(path)
            own = self._has_own(path) and (made or (what == "gone" and right_after))
            left_alone = True
            if path in self._ignored:
                left_alone = not right_after and now - self._ignored[path] > self._short() + lag
                self._ignored[path] = now
            if left_alone and not (own and (right_after or what == "gone")):
                found[path] = what
        return found

    def caused(self, changes: Changes, snapshot: Snapshot, lag: float) -> None:
        """These have caused a reload. Look whether that goes on for ever, and say so."""
        now = time.monotonic()
        for path in changes:
            times = self._causes.setdefault(path, deque(maxlen=LOOP_RELOADS))
            times.append(now)
            if len(times) == LOOP_RELOADS and now - times[0] <= self._short():
                self._ignored[path] = now
                del self._causes[path]
                log.warning(
                    "%s has caused %d reloads within %.0f s, as if the application wrote it: it counts again when it"
                    " has been left alone for %.0f s. With --reload-exclude %s it never does",
                    self._name(path), LOOP_RELOADS, max(1.0, now - times[0]), max(1.0, self._short()),
                    shlex.quote(self._name(path)),
                )  # fmt: skip
        fresh = self._made - self._ignored.keys()
        made = [path for path, what in changes.items() if what == "appeared" and path in fresh]
        made.sort(key=lambda path: (snapshot[path][0] if path in snapshot else 0, path))
        newest = {folder: path for path in made for folder in self._above(path)}
        for folder, path in newest.items():
            self._appearances.setdefault(folder, deque(maxlen=LOOP_RELOADS)).append((now, path))
        looping = {
            folder
            for folder in newest
            if len(found := self._appearances[folder]) == LOOP_RELOADS
            and now - found[0][0] <= self._short() + LOOP_RELOADS * lag
        }
        for folder in {next((each for each in self._above(path) if each in looping), "") for path in made} - {""}:
            self._own_folders.add(folder)
            paths = [path for _, path in self._appearances.pop(folder)]
            log.warning(
                "New files in %s have caused %d reloads right after a start, %s the last, as if the application wrote"
                " them: what appears there right after a start is not watched any more. %s",
                self._name(folder), LOOP_RELOADS, self._name(paths[-1]), self._advice(folder, paths),
            )  # fmt: skip

    def _short(self) -> float:
        return LOOP_SECONDS + LOOP_RELOADS * self._start_took

    def _above(self, path: str) -> Iterator[str]:
        """The folders above a path, from the nearest to the watched one."""
        while path not in self._folders and (above := os.path.dirname(path)) != path:
            path = above
            yield path

    def _has_own(self, path: str) -> bool:
        return bool(self._own_folders) and not self._own_folders.isdisjoint(self._above(path))

    def _advice(self, folder: str, paths: Sequence[str]) -> str:
        """How to exclude what is called as these files are, or the folders below `folder` that they are in."""
        names = [path[len(folder) + 1 :].partition(os.sep)[0] for path in paths]
        before = _common(names).rstrip("0123456789")
        after = _common([name[len(before) :][::-1] for name in names])[::-1].lstrip("0123456789")
        differing = "*"
        if not before and all(name[0] in "0123456789" for name in names):
            differing = "[0-9]*"
        elif not before and after in ("", ".py"):
            # That would be all of the application.
            return "With --reload-exclude 'PATTERN', of their names and no others, they never are"
        place = "" if folder in self._folders else f"{self._name(folder)}/"
        pattern = shlex.quote(f"{_escaped(place + before)}{differing}{_escaped(after)}")
        return f"With --reload-exclude {pattern} they never are"


def _common(texts: Sequence[str]) -> str:
    """What they all begin with."""
    return "".join(letters[0] for letters in takewhile(lambda letters: len({*letters}) == 1, zip(*texts, strict=False)))


def _escaped(text: str) -> str:
    return re.sub(r"([*?\[\\])", r"\\\1", text)
