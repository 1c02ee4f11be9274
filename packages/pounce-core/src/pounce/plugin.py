"""The plugin contract: everything the author of a plugin needs to import.

A distribution offers a `Plugin` through the entry-point group `pounce.plugins`:

    [project.entry-points."pounce.plugins"]
    gopher = "pounce_gopher:plugin"

The module should be light: it is imported in every process that starts the server. A wire turns bytes into a
`RequestHead` and a `Stream` and calls `service.open(head, stream)`; `Connection` is a base class with corked
writes, back-pressure and deadlines. `coroutine_wire` is the easy mode. `pounce.testing.check_wire` and
`check_parser` prove a plugin.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from pounce.contract.head import Headers, Origin, RequestHead
from pounce.contract.parser import EndOfBody, Parser, ParserChoice, ParserLimits
from pounce.contract.pieces import (
    API_VERSION,
    Command,
    MiddlewareChoice,
    Observer,
    ObserverFactory,
    Plugin,
    Responder,
    Response,
)
from pounce.contract.stream import Body, Completed, ConnectionInfo, Exchange, FileRange, RunsApp, Stream
from pounce.contract.totals import Totals
from pounce.contract.turns import Share
from pounce.contract.wire import (
    Address,
    ASGIApp,
    DatagramSocket,
    DatagramTransport,
    DatagramWire,
    Preface,
    Service,
    Switch,
    Upgrade,
    Wire,
)
from pounce.errors import BadRequest, ClientGone
from pounce.net.body_connection import BodyConnection
from pounce.net.connection import Connection
from pounce.net.request_connection import RequestConnection
from pounce.options import option

__all__ = [
    "API_VERSION",
    "ASGIApp",
    "Address",
    "BadRequest",
    "Body",
    "BodyConnection",
    "ClientGone",
    "Command",
    "Completed",
    "Connection",
    "ConnectionInfo",
    "DatagramSocket",
    "DatagramTransport",
    "DatagramWire",
    "EndOfBody",
    "Exchange",
    "FileRange",
    "Headers",
    "MiddlewareChoice",
    "Observer",
    "ObserverFactory",
    "Origin",
    "Parser",
    "ParserChoice",
    "ParserLimits",
    "Plugin",
    "Preface",
    "RequestConnection",
    "RequestHead",
    "Responder",
    "Response",
    "RunsApp",
    "Service",
    "Share",
    "Stream",
    "Switch",
    "Totals",
    "Upgrade",
    "Wire",
    "coroutine_wire",
    "option",
]


READ_STEPS = 4
"""What a coroutine takes from its connection's share of a turn for each read."""


class FairReader(asyncio.StreamReader):
    """A reader that leaves others their turn, also where there is always something to read."""

    share: Share

    async def read(self, n: int = -1) -> bytes:
        await self.share.spend(READ_STEPS)
        return await super().read(n)

    async def readuntil(self, separator: Any = b"\n") -> bytes:
        await self.share.spend(READ_STEPS)
        return await super().readuntil(separator)

    async def readexactly(self, n: int) -> bytes:
        await self.share.spend(READ_STEPS)
        return await super().readexactly(n)


def coroutine_wire(
    handle: Callable[[Service, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> Callable[[Service], asyncio.Protocol]:
    """The easy mode: a `connect` for `Wire` from a coroutine function, which is run once for each connection.

    The connection is closed when it returns; an exception closes it too and is logged. Slower than a protocol.
    What it reads takes from its connection's share of a turn of the loop.
    """

    def connect(service: Service) -> asyncio.Protocol:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = cast(Connection, writer.transport.get_protocol())
            cast(FairReader, reader).share = connection.share
            try:
                await handle(service, reader, writer)
            except ConnectionError, asyncio.IncompleteReadError:
                service.count("client_gone", "%s: the peer left", connection.wire)
            except Exception:  # noqa: BLE001 - logged there
                service.connection_failed(connection)
            finally:
                writer.close()

        reader = FairReader(limit=65536, loop=service.loop)
        return asyncio.StreamReaderProtocol(reader, serve, loop=service.loop)

    return connect
