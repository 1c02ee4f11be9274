"""HTTP/3 as a plugin: a wire over datagrams."""

import asyncio
import socket
from typing import TYPE_CHECKING

from pounce.errors import ConfigError
from pounce.plugin import API_VERSION, DatagramSocket, DatagramWire, Exchange, Plugin, Upgrade
from pounce_h3.hidden import hidden
from pounce_h3.settings import H3Settings

if TYPE_CHECKING:
    from pounce.plugin import Address, RequestHead, Service, Stream

__all__ = ["plugin"]

BROTLI = "brotli"
"""What qh3 imports where it is installed, to read certificates that are compressed (RFC 8879): no server does, and that
of PyPI switches the GIL on."""


def connect(service: Service, address: Address) -> asyncio.DatagramProtocol:
    try:
        with hidden(BROTLI):
            from pounce_h3.endpoint import Endpoint
    except ImportError as exc:
        # Extension modules that cannot be loaded in a subinterpreter say so.
        raise ConfigError(
            f"HTTP/3 is not to be had here: {exc}", hint="With qh3, set worker_mode to thread or process."
        ) from exc
    return Endpoint(service, address)


def open_socket(sock: socket.socket) -> DatagramSocket:
    with hidden(BROTLI):
        from pounce_h3.qh3_engine import open_socket

    return open_socket(sock)


def takes_session(service: Service, head: RequestHead) -> bool:
    return head.version == "3" and service.config.http3_webtransport_enabled


def open_session(service: Service, head: RequestHead, stream: Stream) -> Exchange:
    from pounce_h3.webtransport.opening import open_session

    return open_session(service, head, stream)


plugin = Plugin(
    name="h3",
    api=API_VERSION,
    datagrams=(DatagramWire(name="h3", connect=connect, alpn=("h3",), open_socket=open_socket, advertise="h3"),),
    upgrades=(Upgrade(token=b"webtransport", open=open_session, takes=takes_session),),
    settings=H3Settings,
)
