"""Served: the files of one mount, and those of them that are kept.

Small files are read once and kept with their coded siblings, and looked at again at most once a second. Whatever may
block happens on a thread of the loop's executor.
"""

import asyncio
import os
import re
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

from pounce.exchange.response_headers import http_date
from pounce.middleware.static import files
from pounce.middleware.static.content_types import content_type
from pounce.middleware.static.mounts import StaticMount

__all__ = ["SIBLINGS", "Entry", "Served", "Variant"]

type Headers = list[tuple[bytes, bytes]]

LOOK_INTERVAL = 1.0
"""Seconds after which a file that is kept is looked at again."""
SIBLINGS = ((b"br", ".br"), (b"zstd", ".zst"), (b"gzip", ".gz"))
"""Codings of files that lie beside the original, the best first, and the ends of their names."""
IMMUTABLE = "public, max-age=31536000, immutable"


class Variant(NamedTuple):
    """One representation of a file: as it is, or coded."""

    file: files.File
    parts: list[str]
    """Where it lies."""
    headers: Headers
    """All fields of a whole answer, Content-Length included; shared between answers, never changed."""


class Entry:
    """A file and its coded siblings, as they were when last looked at."""

    __slots__ = ("coded", "looked", "plain")

    def __init__(self, plain: Variant, coded: Mapping[bytes, Variant], looked: float) -> None:
        self.plain = plain
        self.coded = coded
        self.looked = looked

    @property
    def variants(self) -> tuple[Variant, ...]:
        return (self.plain, *self.coded.values())

    def close(self) -> None:
        """Close what is open."""
        for variant in self.variants:
            if variant.file.fd >= 0:
                os.close(variant.file.fd)


class Served:
    """The files of one mount."""

    def __init__(self, mount: StaticMount) -> None:
        self.mount = mount
        self._kept: OrderedDict[tuple[str, ...], Entry] = OrderedDict()
        self._immutable = re.compile(mount.immutable).search if mount.immutable else None

    def known(self, parts: tuple[str, ...]) -> Entry | None:
        """What is kept of a file and was looked at a moment ago."""
        entry = self._kept.get(parts)
        if entry is None or time.monotonic() - entry.looked >= LOOK_INTERVAL:
            return None
        self._kept.move_to_end(parts)
        return entry

    async def entry(self, parts: tuple[str, ...]) -> Entry | None:
        """What is there now, None where there is no file. Whoever asks closes it."""
        known = self._kept.get(parts)
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        if known is not None:
            # Others go on with what is known, while one looks.
            known.looked = now
            if await loop.run_in_executor(None, self._is_current, known):
                return known
            self._kept.pop(parts, None)
        loading = loop.run_in_executor(None, self._load, list(parts), now)
        try:
            entry = await asyncio.shield(loading)
        except asyncio.CancelledError:
            loading.add_done_callback(_close_loaded)
            raise
        size = self.mount.stat_cache_size if self.mount.stat_cache else 0
        if entry is not None and size and all(each.file.content is not None for each in entry.variants):
            self._kept[parts] = entry
            self._kept.move_to_end(parts)
            while len(self._kept) > size:
                self._kept.popitem(last=False)
        return entry

    async def has_index(self, parts: tuple[str, ...]) -> bool:
        """Whether a directory has a page of its own."""
        if self.mount.index_file is None:
            return False
        index = [*parts, *self.mount.index_file.split("/")]
        return await asyncio.get_running_loop().run_in_executor(None, self._look, index) is not None

    # On a thread of the executor

    def _is_current(self, entry: Entry) -> bool:
        """Whether nothing has changed: neither a file nor which siblings there are."""
        if any(self._look(each.parts) != each.file.stamp for each in entry.variants):
            return False
        if not self.mount.precompressed:
            return True
        *folder, name = entry.plain.parts
        missing = [end for coding, end in SIBLINGS if coding not in entry.coded]
        return all(self._look([*folder, name + end]) is None for end in missing)

    def _look(self, parts: list[str]) -> files.Stamp | None:
        return files.look(self.mount.directory, parts, self.mount.follow_symlinks)

    def _load(self, parts: list[str], now: float) -> Entry | None:
        mount = self.mount
        plain = files.load(mount.directory, parts, mount.follow_symlinks)
        if plain is None:
            return None
        *folder, name = parts
        coded: dict[bytes, Variant] = {}
        for coding, end in SIBLINGS if mount.precompressed else ():
            sibling = files.load(mount.directory, [*folder, name + end], mount.follow_symlinks)
            if sibling is None:
                continue
            if sibling.modified >= plain.modified:
                coded[coding] = self._variant(sibling, [*folder, name + end], name, coding)
            elif sibling.fd >= 0:
                # Made of an earlier version.
                os.close(sibling.fd)
        return Entry(self._variant(plain, parts, name, None), coded, now)

    def _variant(self, file: files.File, parts: list[str], name: str, coding: bytes | None) -> Variant:
        mount = self.mount
        if coding is not None:
            file = file._replace(etag=file.etag[:-1] + b"-" + coding + b'"')
        headers: Headers = [
            (b"content-type", content_type(name, mount.extra_mime_types).encode("latin-1")),
            (b"content-length", b"%d" % file.size),
            (b"etag", file.etag),
            (b"last-modified", http_date(file.modified)),
            (b"accept-ranges", b"bytes"),
        ]
        never_changes = self._immutable is not None and self._immutable(name)
        cache_control = IMMUTABLE if never_changes else mount.cache_control
        if cache_control:
            headers.append((b"cache-control", cache_control.encode("latin-1")))
        if coding is not None:
            headers.append((b"content-encoding", coding))
        if mount.precompressed:
            headers.append((b"vary", b"accept-encoding"))
        return Variant(file, parts, headers)


def _close_loaded(loading: asyncio.Future[Entry | None]) -> None:
    if not loading.cancelled() and loading.exception() is None and (entry := loading.result()) is not None:
        entry.close()
