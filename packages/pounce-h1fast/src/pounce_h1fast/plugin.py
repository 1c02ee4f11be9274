"""The parser as a plugin."""

from pounce.plugin import API_VERSION, Parser, ParserChoice, ParserLimits, Plugin

__all__ = ["plugin"]


def create(limits: ParserLimits) -> Parser:
    from pounce_h1fast.parser import FastParser

    return FastParser(limits)


plugin = Plugin(name="h1fast", api=API_VERSION, parsers=(ParserChoice(name="h1fast", priority=10, create=create),))
