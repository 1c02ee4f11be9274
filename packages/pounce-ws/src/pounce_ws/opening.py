"""Opening: a handshake becomes a WebSocket, or is refused."""

from pounce.errors import BadRequest
from pounce.exchange.service import Service
from pounce.plugin import Exchange, RequestHead, Stream
from pounce_ws.exchange import WebSocketExchange
from pounce_ws.handshake import read_handshake

__all__ = ["open_websocket"]


def open_websocket(service: Service, head: RequestHead, stream: Stream) -> Exchange:
    """Start the application for a handshake, or refuse it: the exchange that has the stream then."""
    try:
        handshake = read_handshake(service, head)
    except BadRequest as error:
        service.count(error.code, "%s", error.message)
        refusal = service.exchange_class(service, head, stream)
        response = service.error_pages.answer(error, head, stream)
        if error.code == "POUNCE_WS_BAD_VERSION":
            # RFC 6455 4.4: the versions that the server does support; RFC 9110 15.5.22: 426 has an Upgrade field.
            response.headers.append((b"sec-websocket-version", b"13"))
            if error.status == 426 and head.version == "1.1":
                response.headers.append((b"upgrade", b"websocket"))
        refusal.respond(response)
        return refusal
    exchange = WebSocketExchange(service, head, stream, handshake)
    service.call_app(exchange)
    return stream.exchange or exchange
