"""WatchedTree: the files of watched folders that count for a reload, and what they look like now.

A folder is read again only when its own time has changed, and excluded ones never, so that a look costs one call of the
system for each folder and each file that counts. Links to folders are followed, each folder once.
"""

import os
import time
from collections.abc import Iterator, Sequence

from pounce.supervisor.reload_rules import ReloadRules

__all__ = ["Snapshot", "WatchedTree"]

type Snapshot = dict[str, tuple[int, int, int]]
"""Time, size and inode of every file that counts, by its path."""

VENV = "pyvenv.cfg"
"""It is in a folder that is a virtual environment, whatever its name."""
SETTLED = 2_000_000_000
"""Nanoseconds after which a folder has another time when it is changed again."""


class Folder:
    """One folder, as it was read."""

    __slots__ = ("files", "folders", "is_link", "only_named", "path", "read_at", "relative", "rules", "stamp")

    def __init__(self, path: str, relative: str, rules: ReloadRules, *, only_named: bool, is_link: bool) -> None:
        self.path = path
        self.relative = relative
        self.rules = rules
        self.only_named = only_named
        self.is_link = is_link
        self.stamp: tuple[int, int, int] | None = None
        self.read_at = 0
        self.files: list[str] = []
        self.folders: dict[str, Folder] = {}

    def read(self, status: os.stat_result) -> None:
        """Find out what is in it, if that may have changed."""
        stamp = (status.st_mtime_ns, status.st_ino, status.st_dev)
        if stamp == self.stamp and self.read_at - status.st_mtime_ns > SETTLED:
            return
        self.stamp, self.read_at = stamp, time.time_ns()
        before, self.files, self.folders = self.folders, [], {}
        try:
            with os.scandir(self.path) as entries:
                found = list(entries)
        except OSError:
            return
        is_venv = bool(self.relative) and any(entry.name == VENV for entry in found)
        if is_venv and not self.rules.enters(self.relative, is_venv=True):
            return
        only_named = self.only_named or (is_venv and self.rules.is_only_named(self.relative, is_venv=True))
        for entry in found:
            relative = f"{self.relative}/{entry.name}" if self.relative else entry.name
            if _is_folder(entry):
                if self.rules.enters(relative):
                    self.folders[entry.name] = self._below(entry, relative, before, only_named)
            elif self.rules.wants(relative, only_named=only_named):
                self.files.append(entry.path)

    def _below(self, entry: os.DirEntry[str], relative: str, before: dict[str, Folder], only_named: bool) -> Folder:
        only_named = only_named or self.rules.is_only_named(relative)
        known, is_link = before.get(entry.name), entry.is_symlink()
        if known is not None and (known.only_named, known.is_link) == (only_named, is_link):
            return known
        return Folder(entry.path, relative, self.rules, only_named=only_named, is_link=is_link)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


class WatchedTree:
    """What is below `folders`, which are absolute paths, each with rules of its own."""

    def __init__(self, folders: Sequence[str], rules: Sequence[ReloadRules]) -> None:
        self._tops = [
            Folder(path, "", each, only_named=False, is_link=True) for path, each in zip(folders, rules, strict=True)
        ]

    def snapshot(self) -> Snapshot:
        """What the files that count look like now."""
        found: Snapshot = {}
        stat = os.stat
        for folder in self._folders():
            for path in folder.files:
                try:
                    status = stat(path)
                except OSError:
                    continue
                found[path] = (status.st_mtime_ns, status.st_size, status.st_ino)
        return found

    def _folders(self) -> Iterator[Folder]:
        """All of them, read; those behind links after all others, and none twice below the same top."""
        for top in self._tops:
            seen: set[tuple[int, int]] = set()
            links = [top]
            while links:
                waiting = [links.pop(0)]
                while waiting:
                    folder = waiting.pop()
                    try:
                        status = os.stat(folder.path)
                    except OSError:
                        continue
                    if (status.st_dev, status.st_ino) in seen:
                        continue
                    seen.add((status.st_dev, status.st_ino))
                    folder.read(status)
                    yield folder
                    for below in folder.folders.values():
                        (links if below.is_link else waiting).append(below)

    def places(self) -> dict[str, list[Folder]]:
        """Where the watched folders, and those behind links in them, really are, as of the last snapshot."""
        found: dict[str, list[Folder]] = {}
        for top in self._tops:
            waiting = [top]
            while waiting:
                folder = waiting.pop()
                waiting += folder.folders.values()
                if folder.is_link and os.path.isdir(folder.path):
                    found.setdefault(os.path.realpath(folder.path), []).append(folder)
        return found

    @staticmethod
    def may_concern(places: dict[str, list[Folder]], change: object, path: str) -> bool:
        """Whether a change of what is really at `path` may be one of the snapshot."""
        for place, folders in places.items():
            if path == place or path.startswith(place + os.sep):
                rest = path[len(place) + 1 :].replace(os.sep, "/")
                if any(_may_count(folder, rest, path) for folder in folders):
                    return True
        return False


def _may_count(folder: Folder, rest: str, path: str) -> bool:
    if not rest or rest.endswith(VENV):
        return True
    parts = f"{folder.relative}/{rest}".strip("/").split("/")
    only_named = folder.only_named
    for number in range(folder.relative.count("/") + bool(folder.relative) + 1, len(parts)):
        above = "/".join(parts[:number])
        if not folder.rules.enters(above):
            return False
        only_named = only_named or folder.rules.is_only_named(above)
    relative = "/".join(parts)
    if folder.rules.wants(relative, only_named=only_named):
        return True
    return folder.rules.enters(relative) and (os.path.isdir(path) or not os.path.lexists(path))
