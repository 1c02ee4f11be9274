"""HTTP/1.1 as a plugin: the wire, and the parser that the core brings."""

import asyncio
from typing import TYPE_CHECKING

from pounce.plugin import API_VERSION, Parser, ParserChoice, ParserLimits, Plugin, Wire

if TYPE_CHECKING:
    from pounce.contract.wire import Service
    from pounce.h1.connection import H1Connection

__all__ = ["plugin"]


_made: type[H1Connection] | None = None
"""What connections are of, once it is imported: to ask for that each time takes as long as a field of a request."""


def connect(service: Service) -> asyncio.Protocol:
    global _made
    if _made is None:
        from pounce.h1.connection import H1Connection

        _made = H1Connection
    return _made(service)


def create_h11(limits: ParserLimits) -> Parser:
    from pounce.h1.h11_parser import H11Parser

    return H11Parser(limits)


plugin = Plugin(
    name="h1",
    api=API_VERSION,
    wires=(Wire(name="h1", connect=connect, alpn=("http/1.1",)),),
    parsers=(ParserChoice(name="h11", priority=0, create=create_h11),),
)
