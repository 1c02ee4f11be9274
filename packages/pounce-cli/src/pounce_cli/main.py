"""The way of one command: read the line, run what it names, say what went wrong.

`pounce serve` with well-formed flags takes the short way: `plain_line` reads it without the parsing library, whose
import would take longer than the server needs to start. Everything else is the library's: help, versions, completion,
the commands of plugins, and every line with a mistake in it.
"""

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pounce.errors import PounceError
from pounce.gc_hold import hold, let_go
from pounce_cli.second_spellings import respelled

if TYPE_CHECKING:
    from pounce.registry import Registry

__all__ = ["main"]

INTERRUPTED = 130
"""Exit code after Ctrl-C before the server handles signals itself: 128 and the number of SIGINT, as shells have it."""
UNREAD = 141
"""Exit code when nobody reads the output to its end, as with `| head`: the same with SIGPIPE."""


def main(arguments: Sequence[str] | None = None, *, discover: Callable[[], Registry] | None = None) -> int:
    """Run the command line `arguments` (default: those of the process) and return its exit code.

    `discover` finds the plugins that may bring commands, by default the installed ones; it is not called for `serve`.
    """
    words = _joined(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(respelled(words), discover)
    except KeyboardInterrupt:
        return INTERRUPTED
    except PounceError as exc:
        from pounce_cli.errors import report, wants_json

        report(exc, as_json=wants_json(words))
        return exc.exit_code
    finally:
        let_go()


def _joined(words: Sequence[str]) -> list[str]:
    """The words, with a hyphen that follows a flag as its value, which libraries take for a flag: standard output."""
    joined: list[str] = []
    for word in words:
        if word == "-" and joined and joined[-1].startswith("--") and "=" not in joined[-1]:
            joined[-1] += "=-"
        else:
            joined.append(word)
    return joined


def _run(words: list[str], discover: Callable[[], Registry] | None) -> int:
    if words[:1] == ["serve"]:
        hold()
        from pounce_cli.plain_line import read

        given = read(words[1:])
        if given is not None:
            from pounce_cli.serve import serve

            serve(given)
            return 0
    from pounce_cli.commands import run

    try:
        code = run(words, discover=discover)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        # What is left in the buffer must not fail again at the end of the interpreter.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return UNREAD
