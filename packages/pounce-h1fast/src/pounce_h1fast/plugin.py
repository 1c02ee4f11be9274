"""The parser as a plugin."""

from typing import TYPE_CHECKING

from pounce.plugin import API_VERSION, Parser, ParserChoice, ParserLimits, Plugin

__all__ = ["plugin"]


if TYPE_CHECKING:
    from pounce_h1fast.parser import FastParser

_made: type[FastParser] | None = None
"""What is made for each connection, once it is imported."""


def create(limits: ParserLimits) -> Parser:
    global _made
    if _made is None:
        from pounce_h1fast.parser import FastParser

        _made = FastParser
    return _made(limits)


plugin = Plugin(name="h1fast", api=API_VERSION, parsers=(ParserChoice(name="h1fast", priority=10, create=create),))
