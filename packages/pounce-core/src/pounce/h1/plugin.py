"""HTTP/1.1 as a plugin: the wire, and the parser that the core brings."""

import asyncio
from typing import TYPE_CHECKING

from pounce.plugin import API_VERSION, Parser, ParserChoice, ParserLimits, Plugin, Wire

if TYPE_CHECKING:
    from pounce.contract.wire import Service

__all__ = ["plugin"]


def connect(service: Service) -> asyncio.Protocol:
    from pounce.h1.connection import H1Connection

    return H1Connection(service)


def create_h11(limits: ParserLimits) -> Parser:
    from pounce.h1.h11_parser import H11Parser

    return H11Parser(limits)


plugin = Plugin(
    name="h1",
    api=API_VERSION,
    wires=(Wire(name="h1", connect=connect, alpn=("http/1.1",)),),
    parsers=(ParserChoice(name="h11", priority=0, create=create_h11),),
)
