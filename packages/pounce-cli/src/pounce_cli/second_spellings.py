"""Flags of uvicorn and gunicorn that mean the same here, by our names for them.

Names that differ as names do are second spellings of the settings themselves (`also=` in `pounce.settings`). What is
here has another form: a single letter, a number in place of a word, a switch in place of a value, or no setting at all.
"""

import os
import sys
from collections.abc import Sequence

from pounce.errors import ConfigError
from pounce.variables import use_colors

__all__ = ["FLAGS", "respelled"]

NAMES = {
    "-w": "--workers",
    "-b": "--bind",
    "--limit-max-requests": "--max-requests",
    "--reuse-port": "--reuseport",
}
COMMANDS = ("serve", "check", "doctor", "config")
"""Those that take flags of the server."""
FLAGS = {
    *NAMES, "--fd", "--no-server-header", "--ws-per-message-deflate", "--no-ws-per-message-deflate", "--use-colors",
    "--no-use-colors", "--chdir",
}  # fmt: skip
"""All flags that are understood so."""
VALUES = {
    "--ssl-cert-reqs": {"0": "none", "1": "optional", "2": "required"},
    "--interface": {"asgi3": "asgi"},
}
TRUTHS = {"true", "false", "1", "0", "yes", "no", "on", "off", "t", "f", "y", "n"}


def respelled(words: Sequence[str]) -> list[str]:
    """The words of a command line, with our spelling of what has another. Raises `ConfigError` for a folder of
    `--chdir` that cannot be entered."""
    if not words or words[0] not in COMMANDS:
        return [*words]
    found: list[str] = []
    place = 0
    while place < len(words):
        word = words[place]
        following = words[place + 1] if place + 1 < len(words) else ""
        flag, equals, text = word.partition("=")
        place += 1
        if not word.startswith("-"):
            found.append(word)
        elif flag in NAMES:
            found.append(_address(NAMES[flag] + equals + text))
            if flag == "-b" and not equals and following:
                found[-1:] = [_address(f"--bind={following}")]
                place += 1
        elif flag[:2] in NAMES and not flag.startswith("--"):
            found.append(_address(f"{NAMES[flag[:2]]}={word[2:].removeprefix('=')}"))
        elif flag in VALUES and (text if equals else following) in VALUES[flag]:
            found.append(f"{flag}={VALUES[flag][text if equals else following]}")
            place += not equals
        elif flag == "--fd":
            found.append(f"--bind=fd://{text if equals else following}")
            place += not equals
        elif flag == "--chdir":
            _change_folder(text if equals else following)
            place += not equals
        elif flag == "--no-server-header":
            found.append("--server-header=")
        elif flag in ("--use-colors", "--no-use-colors"):
            use_colors(flag == "--use-colors")
        elif flag in ("--ws-per-message-deflate", "--no-ws-per-message-deflate"):
            value = text if equals else following if following.lower() in TRUTHS else ""
            place += bool(value and not equals)
            on = value.lower() not in ("false", "0", "no", "off", "f", "n") and not flag.startswith("--no-")
            found.append("--websocket-compression" if on else "--no-websocket-compression")
        else:
            found.append(word)
    return found


def _address(word: str) -> str:
    """gunicorn's `:8000` is every address."""
    return word.replace("--bind=:", "--bind=0.0.0.0:", 1)


def _change_folder(folder: str) -> None:
    absolute = os.path.abspath(folder)
    try:
        os.chdir(absolute)
    except OSError as exc:
        raise ConfigError(f"--chdir {folder!r}: {exc.strerror or exc}", code="POUNCE_CLI_USAGE") from exc
    # The successor of a hot upgrade is started with the same words, in this folder.
    for number, word in enumerate(sys.orig_argv):
        if word == f"--chdir={folder}":
            sys.orig_argv[number] = f"--chdir={absolute}"
        elif word == folder and number and sys.orig_argv[number - 1] == "--chdir":
            sys.orig_argv[number] = absolute
