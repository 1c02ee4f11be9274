"""Choosing the wire of a connection: by what its bind names, by ALPN, by its first bytes, else HTTP/1.1."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, cast

from pounce.net.connection import Connection

if TYPE_CHECKING:
    from pounce.contract.wire import Preface, Service, Wire
    from pounce.net.proxy_protocol import ProxyHeader

__all__ = ["WireChooser", "WireTable"]


@dataclass(frozen=True, slots=True)
class WireTable:
    """The wires of a server by what selects them; made from the registry, the same for every worker."""

    default: Wire
    by_alpn: dict[str, Wire]
    by_preface: dict[bytes, Wire]
    needs_alpn: bool = False
    """Over TLS a protocol has to be negotiated: nothing here is spoken without (RFC 9113 3.2)."""
    by_rule: tuple[tuple[Preface, Wire], ...] = ()

    @property
    def alpn(self) -> tuple[str, ...]:
        """ALPN ids to offer: those of plugins first, HTTP/1.1 last."""
        return tuple(sorted(self.by_alpn, key=lambda protocol: protocol == "http/1.1"))

    def shows_by_nothing(self, alpn: str | None) -> bool:
        """Whether the wire of this ALPN id has neither a preface nor the place of the default."""
        wire = self.by_alpn.get(alpn or "")
        told = (self.default, *self.by_preface.values(), *(wire for _, wire in self.by_rule))
        return wire is not None and wire not in told

    def of_preface(self, first: bytes) -> Wire | None:
        """The wire whose preface `first` starts with, the default when none can match any more, None while one still
        can and more bytes are needed."""
        for preface, wire in self.by_preface.items():
            if first.startswith(preface):
                return wire
        undecided = any(preface.startswith(first) for preface in self.by_preface)
        for rule, wire in self.by_rule:
            try:
                said = rule.matches(first[: rule.size])
            except Exception as exc:
                exc.add_note(f"in the preface of the wire {wire.name}")
                raise
            if said:
                return wire
            undecided |= said is None and len(first) < rule.size
        return None if undecided else self.default


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
        table = self._table
        negotiated, is_tls = self._negotiated(transport)
        wire = table.by_alpn.get(negotiated)
        if wire is None and table.needs_alpn and is_tls:
            # RFC 7301 3.2 wants an alert, no_application_protocol, during the handshake; Python's ssl has no way to
            # send it, and goes on without a protocol.
            self.service.count("alpn_refused", "TLS without a protocol that is spoken here, closing")
            transport.abort()  # type: ignore[attr-defined]
            self._opened()
            self.service.connection_closed(self)
            return
        wire = self._named or wire
        if wire is None and not (table.by_preface or table.by_rule):
            wire = table.default
        if wire is not None:
            self.transport = transport  # type: ignore[assignment]
            self._hand_over(wire)
            self._opened()
            return
        super().connection_made(transport)
        self._opened()
        self.deadline = self.loop.time() + self.service.config.header_timeout

    def _look_who_it_is(self) -> None:
        """For its wire, which has the number of the connection, and of which alone observers are told."""

    def _negotiated(self, transport: asyncio.BaseTransport) -> tuple[str, bool]:
        """The ALPN id that was negotiated, empty for none, and whether there is TLS."""
        ssl_object = transport.get_extra_info("ssl_object")
        if ssl_object is not None:
            return ssl_object.selected_alpn_protocol() or "", True
        # A proxy says what its client speaks with it. One that passes bytes on speaks the same, one that reads requests
        # speaks with us as it likes: so it is believed of a protocol that its own first bytes do not tell.
        if self.proxied is not None and self._table.shows_by_nothing(self.proxied.alpn):
            return self.proxied.alpn or "", False
        return "", False

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
            failed = cast(Connection, self.transport.get_protocol())
            # It is not ready for the event of the end either.
            self.transport.set_protocol(self)
            failed.forget_descriptor()
            self.service.connection_closed(failed)
            self.abort()
            return None
