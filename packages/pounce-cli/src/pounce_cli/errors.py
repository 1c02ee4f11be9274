"""Errors on start: one clear block on stderr, or one JSON object where logs are JSON."""

import sys
from collections.abc import Sequence

from pounce.config import ServerConfig
from pounce.errors import ConfigError, PounceError
from pounce.importer import application_traceback
from pounce.observe import logs
from pounce_cli.sources import log_format

__all__ = ["UsageError", "report", "wants_json"]


class UsageError(ConfigError):
    """The command line cannot be understood."""

    default_code = "POUNCE_CLI_USAGE"


def wants_json(words: Sequence[str]) -> bool:
    """Whether the log of the server that `words` ask for is JSON, also when they have a mistake in them.

    Of a line that asks for none, too: where logs are read by machines, so is what a command has to say.
    """
    said: dict[str, str] = {}
    for word, following in zip(words, [*words[1:], ""], strict=True):
        flag, equals, text = word.partition("=")
        said[flag] = text if equals else following
    asked = said.get("--log-format") or log_format(said.get("--config"))
    try:
        return logs.wants_json(ServerConfig.of({"log_format": asked or "auto"}))
    except ConfigError:
        return logs.wants_json(ServerConfig())


def report(error: PounceError, *, as_json: bool) -> None:
    """Print `error` on stderr; where the application's code raised, also its traceback, without the server's frames."""
    traceback = application_traceback(error)
    if as_json:
        print(logs.start_failed(error, traceback), file=sys.stderr)
        return
    _print_block(error)
    if traceback:
        print(f"\n{traceback}", end="", file=sys.stderr)


def _print_block(error: PounceError) -> None:
    from rich.console import Console
    from rich.text import Text

    text = Text.assemble(("Error: ", "bold red"), _printable(error.message), ("\n  Code: ", "dim"), error.code)
    if error.hint:
        text.append_text(Text.assemble(("\n  Hint: ", "dim"), _printable(error.hint)))
    Console(stderr=True, highlight=False).print(text, soft_wrap=True)


def _printable(text: str) -> str:
    return "\n".join(logs.escaped_line(line) for line in text.split("\n"))
