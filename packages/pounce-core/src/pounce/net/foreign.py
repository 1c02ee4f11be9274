"""ForeignConnection: an `asyncio.Protocol` that knows nothing of this server, among its connections."""

import asyncio
from typing import Any, cast

from pounce.contract.wire import Service
from pounce.net.connection import Connection

__all__ = ["ForeignConnection", "ProxiedTransport"]


class ForeignConnection(Connection):
    """Gives any `asyncio.Protocol` a place among the connections by passing every event on to it.

    What told that a connection is for this protocol has been read before it was there. So it may have paused the
    transport and yet be due those bytes: they are kept until it reads, which is looked at with every tick.
    """

    __slots__ = ("_first", "protocol")

    def __init__(self, service: Service, wire: str, protocol: asyncio.Protocol) -> None:
        super().__init__(service, wire)
        self.protocol = protocol
        self._first = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        seen = transport if self.proxied is None else cast(asyncio.Transport, ProxiedTransport(self))
        self.protocol.connection_made(seen)

    def data_received(self, data: bytes) -> None:
        if not self.transport.is_reading() and not self._resting:
            self._first += data
            self.service.on_tick.add(self._look)
            return
        if self._first:
            data = self._take_first() + data
        self.protocol.data_received(data)

    def eof_received(self) -> bool | None:
        if self._first:
            self.protocol.data_received(self._take_first())
        return self.protocol.eof_received()

    def _look(self, now: float) -> None:
        if self.transport.is_reading():
            try:
                self.protocol.data_received(self._take_first())
            except Exception as exc:  # noqa: BLE001 - it goes where asyncio has it go
                self.failed("data_received", exc)

    def _take_first(self) -> bytes:
        first, self._first = self._first, b""
        self.service.on_tick.discard(self._look)
        return first

    def pause_writing(self) -> None:
        super().pause_writing()
        self.protocol.pause_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._take_first()
        try:
            self.protocol.connection_lost(exc)
        finally:
            super().connection_lost(exc)

    def drain(self) -> None:
        """Passed on where the protocol has a `drain()`; without one it may go on until the shutdown timeout."""
        drain = getattr(self.protocol, "drain", None)
        if drain is not None:
            drain()


class ProxiedTransport:
    """A transport that tells a foreign protocol the address of the client in place of the proxy's."""

    def __init__(self, connection: Connection) -> None:
        self._transport = connection.transport
        info = connection.connection
        self._addresses = {"peername": info.peer, "sockname": info.local}

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._addresses.get(name) or self._transport.get_extra_info(name, default)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
