"""The HTTP/2 wire as a plugin."""

import asyncio
from typing import TYPE_CHECKING

from pounce.plugin import API_VERSION, Plugin, RequestHead, Service, Switch, Wire
from pounce_h2.frames import PREFACE
from pounce_h2.settings import H2Settings

if TYPE_CHECKING:
    from pounce_h2.connection import H2Connection

__all__ = ["H2Settings", "plugin"]


def connect(service: Service) -> asyncio.Protocol:
    return _kind(service)(service)


def switch(service: Service, head: RequestHead) -> asyncio.Protocol | None:
    if not service.settings["h2"].upgrade or head.scheme != "http":
        return None
    from pounce_h2.upgrade import upgraded

    return upgraded(service, head, _kind(service))


def _kind(service: Service) -> type[H2Connection]:
    settings: H2Settings | None = service.settings.get("h2")
    if settings is not None and settings.keep_alive_interval:
        from pounce_h2.pings import PingedConnection

        return PingedConnection
    from pounce_h2.connection import H2Connection

    return H2Connection


plugin = Plugin(
    name="h2",
    api=API_VERSION,
    wires=(Wire(name="h2", connect=connect, alpn=("h2",), preface=PREFACE),),
    switches=(Switch(token=b"h2c", connect=switch),),
    settings=H2Settings,
)
