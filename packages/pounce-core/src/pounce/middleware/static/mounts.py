"""StaticMount: a directory, the path it is served under, and how."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pounce.errors import ConfigError

__all__ = ["HASHED", "StaticMount", "ordered"]

HASHED = r"[.-](?=[0-9a-f]*[0-9])(?=[0-9a-f]*[a-f])[0-9a-f]{8,64}\."
"""Names with a hash of their content, as build tools make them: `app.4f3a9c1b.js`."""


@dataclass(frozen=True, slots=True)
class StaticMount:
    """A directory and the path that its files are served under. Raises `ConfigError` for a directory that is not there.

    `url_path` begins with a slash; a slash at its end makes no difference. `cache_control` is the value of that field,
    empty for none. `precompressed`: a file with `.br`, `.zst` or `.gz` behind its name is sent in its place to clients
    that take it, unless it is older. `follow_symlinks`: links are followed that end inside of the directory.
    `index_file` is served for a directory; None serves nothing there. `extra_mime_types` are media types by ending,
    with its dot. `fallback` is a file that browsers get for a page that neither the mount nor the application has: the
    one page of an application that runs in the browser. `immutable` is a regular expression; a file whose name it is
    found in never changes (`HASHED` knows names with a hash). `stat_cache` off looks at the file for each request;
    `stat_cache_size` is how many small files are kept.
    """

    url_path: str
    directory: str
    cache_control: str = "public, max-age=3600"
    precompressed: bool = True
    follow_symlinks: bool = False
    index_file: str | None = "index.html"
    extra_mime_types: Mapping[str, str] = field(default_factory=dict)
    stat_cache: bool = True
    stat_cache_size: int = 1024
    fallback: str | None = None
    immutable: str = ""

    def __post_init__(self) -> None:
        if not self.url_path.startswith("/"):
            raise ConfigError(
                f"url_path (static_files) must begin with / (got {self.url_path!r})",
                hint="For example /static=public.",
            )
        directory = os.path.abspath(os.fspath(self.directory))
        if not os.path.isdir(directory):
            raise ConfigError(
                f"static_files for {self.url_path}: there is no directory {os.fspath(self.directory)!r}",
                code="POUNCE_STATIC_NO_DIRECTORY",
            )
        try:
            re.compile(self.immutable)
        except re.error as exc:
            raise ConfigError(
                f"immutable (static_immutable) must be a regular expression: {exc} (got {self.immutable!r})"
            ) from exc
        for field_name in ("index_file", "fallback"):
            name = getattr(self, field_name)
            if name is not None and (not name or name.startswith((".", "/")) or "\0" in name):
                raise ConfigError(
                    f"{field_name} (static_{field_name}) must be the name of a file in the directory (got {name!r})"
                )
        object.__setattr__(self, "url_path", self.url_path.rstrip("/"))
        object.__setattr__(self, "directory", directory)
        object.__setattr__(self, "extra_mime_types", {k.lower(): v for k, v in self.extra_mime_types.items()})


def ordered(mounts: Iterable[StaticMount]) -> tuple[StaticMount, ...]:
    """The longest path first, so that the first that fits is the nearest.

    Raises `ConfigError` for a path twice, and for a fallback that none of the mounts which name it has.
    """
    found = sorted(mounts, key=lambda mount: len(mount.url_path), reverse=True)
    paths = [mount.url_path for mount in found]
    for path in paths:
        if paths.count(path) > 1:
            raise ConfigError(f"static_files are mounted twice at {path or '/'}")
    for fallback in {mount.fallback for mount in found if mount.fallback is not None}:
        folders = [mount.directory for mount in found if mount.fallback == fallback]
        if not any(os.path.isfile(os.path.join(folder, fallback)) for folder in folders):
            raise ConfigError(
                f"fallback (static_fallback) must be the name of a file in the directory (got {fallback!r})",
                hint=f"There is none of this name in {' or '.join(folders)}.",
            )
    return tuple(found)
