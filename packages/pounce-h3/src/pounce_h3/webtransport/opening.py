"""Opening: an extended CONNECT becomes a session, or is refused."""

from typing import cast

from pounce.errors import BadRequest
from pounce.exchange.service import Service as RequestCore
from pounce.plugin import Exchange, RequestHead, Service, Stream
from pounce_h3.sessions import Sessions
from pounce_h3.stream import H3Stream
from pounce_h3.webtransport.exchange import WebTransportExchange
from pounce_h3.webtransport.handshake import read_handshake

__all__ = ["open_session"]

TOO_MANY = BadRequest(
    "too many sessions on one connection",
    status=429,
    code="POUNCE_WT_TOO_MANY_SESSIONS",
    hint="http3_webtransport_max_sessions is how many there may be.",
)


def open_session(service: Service, head: RequestHead, stream: Stream) -> Exchange:
    """Start the application for a session, or refuse it: the exchange that has the stream then."""
    # What is refused becomes an HTTP exchange, which is more of the core than plugins are promised.
    core = cast(RequestCore, service)
    carrier = cast(H3Stream, stream)
    sessions = cast(Sessions, carrier.table.sessions)
    try:
        handshake = read_handshake(service, head)
    except BadRequest as error:
        return service.refuse(head, stream, error)
    if sessions.count >= service.config.http3_webtransport_max_sessions:
        return service.refuse(head, stream, TOO_MANY)
    exchange = WebTransportExchange(core, head, carrier, sessions, handshake)
    service.call_app(exchange)
    if stream.exchange is not exchange:
        # There was no place for it, or it was answered at once.
        sessions.remove(carrier.id, exchange)
    return stream.exchange or exchange
