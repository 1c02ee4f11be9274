"""Choosing the wire of a connection: by what its bind names, by ALPN, by its first bytes, else HTTP/1.1."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, cast

from pounce.net.connection import Connection

if TYPE_CHECKING:
    from pounce.contract.wire import Service, Wire
    from pounce.net.proxy_protocol import ProxyHeader

__all__ = ["WireChooser", "WireTable"]


@dataclass(frozen=True, slots=True)
class WireTable:
    """The wires of a server by what selects them; made from the registry, the same for every worker."""

    default: Wire
    by_alpn: dict[str, Wire]
    by_preface: dict[bytes, Wire]

    def of_preface(self, first: bytes) -> Wire | None:
        """The wire whose preface `first` starts with, the default when none can match any more, None while one still
        can and more bytes are needed."""
        for preface, wire in self.by_preface.items():
            if first.startswith(preface):
                return wire
        if any(preface.startswith(first) for preface in self.by_preface):
            return None
        return self.default


class WireChooser(Connection):
    """The protocol of a connection until it is known which wire speaks on it."""

    __slots__ = ("_first", "_named", "_opened", "_table")

    def __init__(
        self,
        service: Service,
        table: WireTable,
        named: Wire | None,
        opened: Callable[[], object] = lambda: None,
        proxied: ProxyHeader | None = None,
    ) -> None:
        """`opened` is called when the connection has joined the others, or has failed to; `proxied` is what a proxy
        has said of it."""
        super().__init__(service, "sniff")
        self.proxied = proxied
        self._opened = opened
        self._table = table
        self._named = named
        self._first = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        wire = self._named or self._of_alpn(transport)
        if wire is None and not self._table.by_preface:
            wire = self._table.default
        if wire is not None:
            self.transport = transport  # type: ignore[assignment]
            self._hand_over(wire)
            self._opened()
            return
        super().connection_made(transport)
        self._opened()
        self.deadline = self.loop.time() + self.service.config.header_timeout

    def _of_alpn(self, transport: asyncio.BaseTransport) -> Wire | None:
        ssl_object = transport.get_extra_info("ssl_object")
        if ssl_object is not None:
            return self._table.by_alpn.get(ssl_object.selected_alpn_protocol() or "")
        # Where the proxy ended TLS, it has negotiated for us.
        return self._table.by_alpn.get(self.proxied.alpn or "") if self.proxied is not None else None

    def data_received(self, data: bytes) -> None:
        self._first += data
        wire = self._table.of_preface(self._first)
        if wire is not None:
            protocol = self._hand_over(wire)
            if protocol is not None:
                # The time that was spent here counts.
                protocol.deadline = min(protocol.deadline, self.deadline)
                protocol.data_received(self._first)

    def eof_received(self) -> None:
        self.close()

    def deadline_passed(self) -> None:
        self.deadline = inf
        self.close()

    def drain(self) -> None:
        self.deadline = min(self.deadline, self.loop.time() + 1.0)

    def _hand_over(self, wire: Wire) -> Connection | None:
        """Put the wire's own protocol in this one's place; a wire that fails closes its connection, no more."""
        try:
            return self.hand_over(wire.connect(self.service), wire.name)
        except Exception:
            self.service.count("plugin_error")
            self.service.log.exception("Plugin %s failed to take a connection", wire.name)
            self.transport.abort()
            self.service.connection_closed(cast(Connection, self.transport.get_protocol()))
            return None
