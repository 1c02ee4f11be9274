"""ReloadRules: which files of a watched folder count for a reload.

Patterns are lines of a .gitignore, relative to the folder: `data/`, `/data/*.csv`, `**/cache`, `!keep`. What is
excluded by default is a list of such lines too, and those of `reload_exclude` follow it, so the last one that matches
decides. A line of `reload_include` adds files; where it names something (`.env`, `build/schema.json`, not `*.json`) it
takes that out of what is excluded by default, and nothing else in there.

    a file counts:  no folder above it is excluded, nor itself, or `reload_include` names what is excluded by default
               and  reload_include matches it; or its name is *.py, outside of what was excluded by default
"""

import os
import re
from collections.abc import Iterator, Sequence

from pounce.errors import ConfigError

__all__ = ["ReloadRules", "rules_of"]

INCLUDED = ("*.py",)
EXCLUDED = (
    ".*", "__pycache__/", "node_modules/", "site-packages/", "dist/", "build/", "*.egg-info/", "*.swp", "*~",
)  # fmt: skip
_SUFFIX = re.compile(r"\.?[\w-]+")
"""A word that may be meant as the end of a name."""


class Line:
    """One line of a .gitignore. Raises `ValueError`, with what is wrong with it, for one that can never match."""

    def __init__(self, text: str) -> None:
        rest = text if text.endswith("\\ ") else text.rstrip(" ")
        if not rest or rest.startswith("#"):
            raise ValueError("it is empty" if not rest else "it is a comment")
        self.negated = rest.startswith("!")
        rest = rest.removeprefix("!")
        self.folders_only = rest.endswith("/")
        anchored = "/" in rest.rstrip("/")
        while rest.startswith("./"):
            rest = rest[2:]
        segments = [segment for segment in rest.split("/") if segment]
        if not segments:
            raise ValueError("it names the watched folder itself")
        if {".", ".."} & set(segments):
            raise ValueError("it leads out of the watched folder, or nowhere")
        translated = [_translated(segment) for segment in segments]
        before = "" if anchored else "(?:.*/)?"
        self._matches = re.compile(before + _joined(segments, translated), re.DOTALL).fullmatch
        self._named = [
            re.compile(before + _joined(segments[: number + 1], translated), re.DOTALL).fullmatch
            for number, segment in enumerate(segments)
            if segment[0] not in "*?["
        ]

    def matches(self, path: str, *, is_folder: bool) -> bool:
        """Whether this very file or folder is meant."""
        return (is_folder or not self.folders_only) and self._matches(path) is not None

    def covers(self, path: str) -> bool:
        """Whether this file is meant, or a folder above it."""
        return self.matches(path, is_folder=False) or any(
            self.matches(above, is_folder=True) for above in _folders_above(path)
        )

    def names(self, path: str) -> bool:
        """Whether this file or folder, or what is in it, is meant by its name and not only by a wildcard."""
        return any(matches(path) is not None for matches in self._named)


def _joined(segments: Sequence[str], translated: Sequence[str]) -> str:
    found, last = "", len(segments) - 1
    for number, segment in enumerate(segments):
        if segment == "**":
            found += ".+" if number == last else "(?:.*/)?"
        else:
            found += translated[number] + ("" if number == last else "/")
    return found


def _translated(segment: str) -> str:
    """A name with wildcards as a regular expression."""
    found, at = "", 0
    while at < len(segment):
        character, at = segment[at], at + 1
        if character == "*":
            found += "[^/]*"
        elif character == "?":
            found += "[^/]"
        elif character == "\\":
            if at == len(segment):
                raise ValueError("it ends in a backslash")
            found, at = found + re.escape(segment[at]), at + 1
        elif character == "[":
            # A bracket that comes first is one of the characters.
            first = at + 1 if segment[at : at + 1] in ("!", "^") else at
            end = segment.find("]", first + 1)
            if end < 0:
                raise ValueError("it has a [ without its ]")
            inner = re.sub(r"([\[&~|\\])", r"\\\1", segment[first:end])
            found, at = found + f"(?!/)[{'^' if first > at else ''}{inner}]", end + 1
        else:
            found += re.escape(character)
    return found


def _folders_above(path: str) -> Iterator[str]:
    at = path.find("/")
    while at >= 0:
        yield path[:at]
        at = path.find("/", at + 1)


class ReloadRules:
    """The rules for one watched folder. Paths are relative to it and have slashes."""

    def __init__(self, include: Sequence[Line], exclude: Sequence[Line]) -> None:
        self._include = include
        self._exclude = [*_DEFAULTS, *exclude]

    def enters(self, path: str, *, is_venv: bool = False) -> bool:
        """Whether files below this folder may count, as far as it decides that itself."""
        by = self._excluded_by(path, is_folder=True, is_venv=is_venv)
        return by is None or (by in _BY_DEFAULT and self._is_named(path))

    def is_only_named(self, path: str, *, is_venv: bool = False) -> bool:
        """Whether this folder is excluded by default, so that only what is included by name counts in it."""
        return self._excluded_by(path, is_folder=True, is_venv=is_venv) in _BY_DEFAULT

    def wants(self, path: str, *, only_named: bool = False) -> bool:
        """Whether this file counts, where all folders above it are entered."""
        by = self._excluded_by(path, is_folder=False)
        if by is not None and not (by in _BY_DEFAULT and self._is_named(path)):
            return False
        included = False
        for line in self._include:
            if line.negated == included and line.covers(path):
                included = not included
        if only_named:
            return included and self._is_named_below(path)
        return included or (by is None and any(line.covers(path) for line in _ALWAYS))

    def excludes_by_name(self, path: str) -> bool:
        """Whether no file of this name can count, because `reload_exclude` has it or a folder above it."""
        above = [(each, True) for each in _folders_above(path)]
        found = [self._excluded_by(each, is_folder=is_folder) for each, is_folder in (*above, (path, False))]
        return any(by is not None and by not in _BY_DEFAULT for by in found)

    def _is_named_below(self, path: str) -> bool:
        """Whether a line that covers this file names the folders above it that are excluded by default."""
        excluded = [above for above in _folders_above(path) if self.is_only_named(above)]
        return any(
            line.covers(path) and all(line.names(above) for above in excluded)
            for line in self._include
            if not line.negated
        )

    def _is_named(self, path: str) -> bool:
        return any(line.names(path) for line in self._include if not line.negated)

    def _excluded_by(self, path: str, *, is_folder: bool, is_venv: bool = False) -> Line | None:
        by: Line | None = _VENV if is_venv else None
        for line in self._exclude:
            if line.matches(path, is_folder=is_folder):
                by = None if line.negated else line
        return by


_ALWAYS = tuple(map(Line, INCLUDED))
_VENV = Line("*")
_DEFAULTS = tuple(map(Line, EXCLUDED))
_BY_DEFAULT = frozenset({_VENV, *_DEFAULTS})


def rules_of(folders: Sequence[str], include: Sequence[str], exclude: Sequence[str]) -> list[ReloadRules]:
    """The rules for each of these folders, which are absolute. Raises `ConfigError` for a pattern without a match."""
    including = [_lines("reload_include", text, folders) for text in include]
    excluding = [_lines("reload_exclude", text, folders) for text in exclude]
    rules = [
        ReloadRules(
            [line for lines in including for line in lines[at]], [line for lines in excluding for line in lines[at]]
        )
        for at in range(len(folders))
    ]
    for text in include:
        path = text.strip("/")
        if "/" in path and set(text).isdisjoint("*?[!\\") and all(each.excludes_by_name(path) for each in rules):
            raise _never("reload_include", text, "reload_exclude has it")
    return rules


def _lines(option: str, text: str, folders: Sequence[str]) -> list[list[Line]]:
    """What a pattern means in each of the folders."""
    sign, path = ("!", text[1:]) if text.startswith("!") else ("", text)
    texts: list[str | None] = [text] * len(folders)
    if os.path.isabs(path):
        inside = [_inside(folder, path) for folder in folders]
        if any(rest is not None for rest in inside):
            texts = [None if rest is None else f"{sign}/{rest}" for rest in inside]
        elif os.path.lexists(path) and path.strip("/") and not any(os.path.lexists(each + path) for each in folders):
            raise _never(option, text, "it lies outside of the watched folders")
    try:
        lines = [[] if each is None else [Line(each)] for each in texts]
        if _SUFFIX.fullmatch(text) and (text.startswith(".") or option == "reload_include"):
            # Also what ends in it, as people mean by ".css" or "css".
            for each in lines:
                each.append(Line(f"*.{text.removeprefix('.')}"))
    except ValueError as exc:
        raise _never(option, text, str(exc)) from exc
    return lines


def _inside(folder: str, path: str) -> str | None:
    """Where an absolute path is in a folder, by whatever name that is called."""
    for name in (folder, os.path.realpath(folder)):
        if path.rstrip("/") == name or path.startswith(name + os.sep):
            return path[len(name) + 1 :]
    return None


def _never(option: str, text: str, why: str) -> ConfigError:
    return ConfigError(
        f"{option} {text!r} can never match: {why}",
        hint="Patterns are lines as of a .gitignore, relative to each watched folder, for example data/ or *.sql.",
    )
