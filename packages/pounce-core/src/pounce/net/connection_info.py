"""What is known of a connection, read off its transport."""

import asyncio

from pounce.contract.stream import ConnectionInfo
from pounce.contract.turns import Share
from pounce.contract.wire import Service
from pounce.net.proxy_protocol import ProxyHeader

__all__ = ["connection_info", "local_address"]


def connection_info(
    transport: asyncio.Transport, service: Service, proxied: ProxyHeader | None = None, share: Share | None = None
) -> ConnectionInfo:
    """Read off a connected transport what streams and applications are told of it.

    `proxied` is what a proxy in front has said: its addresses take the place of the transport's, and a client that
    speaks TLS with the proxy makes the scheme https.
    """
    peer = transport.get_extra_info("peername")
    local = transport.get_extra_info("sockname")
    ssl_object = transport.get_extra_info("ssl_object")
    alpn = tls = None
    if ssl_object is not None:
        from pounce.net.tls import tls_extension

        alpn = ssl_object.selected_alpn_protocol()
        tls = tls_extension(ssl_object)
    info = ConnectionInfo(
        id=service.next_connection_id(),
        peer=(peer[0], peer[1]) if isinstance(peer, tuple) else None,
        local=local_address(local),
        scheme="http" if ssl_object is None else "https",
        alpn=alpn,
        tls=tls,
        share=share,
    )
    if proxied is not None:
        info.proxy = proxied.extension(info.peer)
        info.peer, info.local = proxied.peer or info.peer, proxied.local or info.local
        if proxied.tls is not None:
            info.scheme = "https"
    return info


def local_address(sockname: object) -> tuple[str, int | None] | None:
    """What a socket says of its own address as `ConnectionInfo.local` has it."""
    if isinstance(sockname, tuple):
        return sockname[0], sockname[1]
    return (sockname, None) if isinstance(sockname, str) else None
