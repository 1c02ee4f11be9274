"""Errors on start: one clear block on stderr, or one JSON object where logs are JSON."""

import json
import sys
import time
import traceback
from collections.abc import Sequence
from types import TracebackType

from pounce.config import ServerConfig
from pounce.errors import AppImportError, ConfigError, LifespanError, PounceError
from pounce.observe import logs

__all__ = ["UsageError", "report", "wants_json"]


class UsageError(ConfigError):
    """The command line cannot be understood."""

    default_code = "POUNCE_CLI_USAGE"


def wants_json(words: Sequence[str]) -> bool:
    """Whether the log of the server that `words` ask for is JSON, also when they have a mistake in them."""
    asked = "auto"
    for word, following in zip(words, [*words[1:], ""], strict=True):
        flag, equals, text = word.partition("=")
        if flag == "--log-format":
            asked = text if equals else following
    try:
        return logs.wants_json(ServerConfig.of({"log_format": asked}))
    except ConfigError:
        return logs.wants_json(ServerConfig())


def report(error: PounceError, *, as_json: bool) -> None:
    """Print `error` on stderr; where the application's code raised, also its traceback, without the server's frames."""
    code = _application_error(error)
    if as_json:
        line: dict[str, object] = {"ts": logs.timestamp(time.time()), "level": "error", "event": "start_failed"}
        line |= {"code": error.code, "message": error.message, "hint": error.hint}
        if code is not None:
            line["exception"] = "".join(traceback.format_exception(code)).rstrip()
        print(json.dumps(line), file=sys.stderr)
        return
    _print_block(error)
    if code is not None:
        print(file=sys.stderr)
        traceback.print_exception(code)


def _print_block(error: PounceError) -> None:
    from rich.console import Console
    from rich.text import Text

    text = Text.assemble(("Error: ", "bold red"), _printable(error.message), ("\n  Code: ", "dim"), error.code)
    if error.hint:
        text.append_text(Text.assemble(("\n  Hint: ", "dim"), _printable(error.hint)))
    Console(stderr=True, highlight=False).print(text, soft_wrap=True)


def _printable(text: str) -> str:
    return "\n".join(logs.escaped_line(line) for line in text.split("\n"))


def _application_error(error: PounceError) -> BaseException | None:
    """The exception behind `error`, from the first frame of the application's code on; None if it has none."""
    cause = error.__cause__
    if cause is None or not isinstance(error, (AppImportError, LifespanError)):
        return None
    frames = cause.__traceback__
    while frames is not None and _is_ours(frames):
        frames = frames.tb_next
    # A file that does not compile has no frame, its place is in the exception.
    return cause.with_traceback(frames) if frames is not None or isinstance(cause, SyntaxError) else None


def _is_ours(frames: TracebackType) -> bool:
    module = frames.tb_frame.f_globals.get("__name__") or ""
    return module.partition(".")[0] in (
        "pounce",
        "pounce_cli",
        "importlib",
        "_frozen_importlib",
        "_frozen_importlib_external",
    )
