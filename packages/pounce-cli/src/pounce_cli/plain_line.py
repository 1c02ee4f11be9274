"""Reads a `serve` line without mistakes in it.

Process managers start servers all day with the same well-formed flags. Such a line is read here, if and only if every
word is certain: a known flag with a value, a switch, one application at the most. Anything else (help, a flag given
twice, a value that begins with a hyphen, a word that is not known) is left to the parsing library, which knows what to
say about it; a test holds the two against each other. Measured: the library's import takes about as long as the
server's own.
"""

from collections.abc import Iterable, Sequence

from pounce.options import Option
from pounce_cli.flags import Given, flags, plugin_flags, serving, spellings, switched_off_by

__all__ = ["read"]


def read(words: Sequence[str]) -> Given | None:
    """What the words after `serve` say; None when one of them is not certain."""
    values, repeatable, switches = _known((*flags(), *plugin_flags(words)))
    apps: list[str] = []
    tables: tuple[str, ...] = ()
    config: tuple[str, ...] = ()
    env_files: tuple[str, ...] = ()
    profile: str | None = None
    static: str | None = None
    settings: dict[str, str | bool | tuple[str, ...]] = {}
    rest = iter(words)
    for word in rest:
        if not word.startswith("-"):
            apps.append(word)
            continue
        flag, equals, text = word.partition("=")
        if flag in switches:
            name, on = switches[flag]
            if equals or name in settings:
                return None
            settings[name] = on
            continue
        if not equals:
            text = next(rest, "")
        if not text or (text.startswith("-") and not (equals and text == "-")):
            return None
        if flag == "--app":
            apps.append(text)
        elif flag == "--set":
            tables += (text,)
        elif flag == "--config":
            config += (text,)
        elif flag == "--env-file":
            env_files += (text,)
        elif flag == "--profile" and profile is None:
            profile = text
        elif flag == "--static" and static is None:
            static = text
        elif flag in repeatable:
            before = settings.get(repeatable[flag], ())
            assert isinstance(before, tuple)
            settings[repeatable[flag]] = (*before, text)
        elif flag in values and values[flag] not in settings:
            settings[values[flag]] = text
        else:
            return None
    given = serving(static, Given(tuple(apps), settings, tables, config or None, profile, env_files))
    return given if len(given.apps) <= 1 and all(given.apps) else None


def _known(options: Iterable[Option]) -> tuple[dict[str, str], dict[str, str], dict[str, tuple[str, bool]]]:
    """Settings by the spellings of their flags: those with a value, those with several, and the switches."""
    values: dict[str, str] = {}
    repeatable: dict[str, str] = {}
    switches: dict[str, tuple[str, bool]] = {}
    for item in options:
        for flag in switched_off_by(item) if item.kind is bool else ():
            switches[flag] = (item.name, False)
        for flag in spellings(item):
            if item.kind is bool:
                switches[flag] = (item.name, True)
            elif item.kind in (tuple, dict):
                repeatable[flag] = item.name
            else:
                values[flag] = item.name
    return values, repeatable, switches
