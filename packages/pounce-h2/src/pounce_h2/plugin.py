"""The HTTP/2 wire as a plugin, and its settings."""

import asyncio
from dataclasses import dataclass

from pounce.plugin import API_VERSION, Plugin, Service, Wire
from pounce_h2.frames import PREFACE

__all__ = ["H2Settings", "plugin"]


@dataclass(frozen=True, slots=True, kw_only=True)
class H2Settings:
    """Settings of HTTP/2, the table `h2` among those of plugins. Sizes are bytes.

    How large a header section may be, how many fields it may have, and every deadline are the server's own settings.
    Raises `ValueError`.
    """

    stream_window: int = 1_048_576
    """Bytes of a request body that may wait for the application (SETTINGS_INITIAL_WINDOW_SIZE)."""
    connection_window: int = 4_194_304
    """Bytes of all request bodies of a connection that may wait for the application."""
    max_concurrent_streams: int = 100
    """Requests that a connection may have at once."""
    max_frame_size: int = 16_384
    """Size of a frame's payload that is accepted, from 16,384 to 16,777,215."""
    reset_burst: int = 500
    """Requests of a connection that may be reset at once, before it is closed with ENHANCE_YOUR_CALM."""
    reset_rate: float = 50.0
    """Requests that may be reset a second in the long run."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("stream_window", 1024, 2**31 - 1),
            ("connection_window", 65_535, 2**31 - 1),
            ("max_concurrent_streams", 1, 2**31 - 1),
            ("max_frame_size", 16_384, 2**24 - 1),
            ("reset_burst", 1, 2**31 - 1),
        ):
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise ValueError(f"{name} must be an integer from {low} to {high} (got {value!r})")
        if type(self.reset_rate) not in (int, float) or not self.reset_rate >= 0:
            raise ValueError(f"reset_rate must be a number of at least 0 (got {self.reset_rate!r})")


def connect(service: Service) -> asyncio.Protocol:
    from pounce_h2.connection import H2Connection

    return H2Connection(service)


plugin = Plugin(
    name="h2",
    api=API_VERSION,
    wires=(Wire(name="h2", connect=connect, alpn=("h2",), preface=PREFACE),),
    settings=H2Settings,
)
