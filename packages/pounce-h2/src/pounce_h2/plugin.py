"""The HTTP/2 wire as a plugin."""

import asyncio

from pounce.plugin import API_VERSION, Plugin, RequestHead, Service, Switch, Wire
from pounce_h2.frames import PREFACE
from pounce_h2.settings import H2Settings

__all__ = ["H2Settings", "plugin"]


def connect(service: Service) -> asyncio.Protocol:
    from pounce_h2.connection import H2Connection

    return H2Connection(service)


def switch(service: Service, head: RequestHead) -> asyncio.Protocol | None:
    if not service.settings["h2"].upgrade or head.scheme != "http":
        return None
    from pounce_h2.upgrade import upgraded

    return upgraded(service, head)


plugin = Plugin(
    name="h2",
    api=API_VERSION,
    wires=(Wire(name="h2", connect=connect, alpn=("h2",), preface=PREFACE),),
    switches=(Switch(token=b"h2c", connect=switch),),
    settings=H2Settings,
)
