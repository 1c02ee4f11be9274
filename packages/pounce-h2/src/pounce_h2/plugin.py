"""The HTTP/2 wire as a plugin, and its settings."""

import asyncio
from dataclasses import dataclass

from pounce.plugin import API_VERSION, Plugin, RequestHead, Service, Switch, Wire, option
from pounce_h2.frames import PREFACE

__all__ = ["H2Settings", "plugin"]


@dataclass(frozen=True, slots=True, kw_only=True)
class H2Settings:
    """Settings of HTTP/2, the table `h2` among those of plugins. Sizes are bytes.

    How large a header section may be, how many fields it may have, and every deadline are the server's own settings.
    """

    stream_window: int = option(
        1_048_576,
        "Size of what may wait of one request body for the application (SETTINGS_INITIAL_WINDOW_SIZE).",
        unit="bytes",
        ge=1024,
        le=2**31 - 1,
    )
    connection_window: int = option(
        4_194_304,
        "Size of what may wait of all request bodies of a connection.",
        unit="bytes",
        ge=65_535,
        le=2**31 - 1,
    )
    max_concurrent_streams: int = option(100, "Requests that a connection may have at once.", ge=1, le=2**31 - 1)
    max_frame_size: int = option(
        16_384, "Size of a frame's payload that is accepted.", unit="bytes", ge=16_384, le=2**24 - 1
    )
    reset_burst: int = option(
        500,
        "Requests of a connection that may be reset at once, before it is closed with ENHANCE_YOUR_CALM.",
        ge=1,
        le=2**31 - 1,
    )
    reset_rate: float = option(50.0, "Requests that may be reset a second in the long run.", ge=0)
    upgrade: bool = option(
        False, "Let clients in clear text change from HTTP/1.1 by Upgrade: h2c; never behind a proxy that passes it on."
    )


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
