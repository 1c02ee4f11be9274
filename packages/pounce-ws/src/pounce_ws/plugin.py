"""WebSocket as a plugin."""

from pounce.plugin import API_VERSION, Exchange, Plugin, RequestHead, Service, Stream, Upgrade

__all__ = ["plugin"]


def connect(service: Service, head: RequestHead, stream: Stream) -> Exchange:
    from pounce_ws.handshake import open_websocket

    return open_websocket(service, head, stream)


plugin = Plugin(name="ws", api=API_VERSION, upgrades=(Upgrade(token=b"websocket", open=connect),))
