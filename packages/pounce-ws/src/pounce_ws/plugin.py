"""WebSocket as a plugin."""

from typing import TYPE_CHECKING, cast

from pounce.plugin import API_VERSION, Exchange, Plugin, RequestHead, Service, Stream, Upgrade

if TYPE_CHECKING:
    from pounce.exchange.service import Service as RequestCore

__all__ = ["plugin"]


def connect(service: Service, head: RequestHead, stream: Stream) -> Exchange:
    from pounce_ws.opening import open_websocket

    # A handshake that is refused becomes an HTTP exchange, which is more of the core than plugins are promised.
    return open_websocket(cast("RequestCore", service), head, stream)


plugin = Plugin(name="ws", api=API_VERSION, upgrades=(Upgrade(token=b"websocket", open=connect),))
