"""Settings: those of this server (RFC 9113 6.5), and what the peer has told of its own."""

from dataclasses import dataclass

from pounce.config import ServerConfig
from pounce.plugin import option
from pounce_h2.abuse import ConnectionFailed
from pounce_h2.frames import SETTING, ErrorCode, Setting, settings_frame

__all__ = ["FRAME_MAX", "TABLE_SIZE", "WINDOW_DEFAULT", "WINDOW_MAX", "H2Settings", "PeerSettings", "announced"]

WINDOW_MAX = 2**31 - 1
WINDOW_DEFAULT = 65_535
"""Both windows of a connection begin with it (RFC 9113 6.9.2)."""
TABLE_SIZE = 4096
"""Octets of a dynamic table: the default of SETTINGS_HEADER_TABLE_SIZE."""
FRAME_MAX = 16_384
"""Bytes of DATA in one frame, so that streams can take turns."""


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


def announced(settings: H2Settings, config: ServerConfig, has_upgrades: bool) -> bytes:
    """The SETTINGS that a connection begins with."""
    values = {
        Setting.MAX_CONCURRENT_STREAMS: settings.max_concurrent_streams,
        Setting.INITIAL_WINDOW_SIZE: settings.stream_window,
        Setting.MAX_FRAME_SIZE: settings.max_frame_size,
        Setting.MAX_HEADER_LIST_SIZE: config.max_header_size,
        Setting.NO_RFC7540_PRIORITIES: 1,
    }
    if has_upgrades:
        values[Setting.ENABLE_CONNECT_PROTOCOL] = 1
    return settings_frame(values)


class PeerSettings:
    """What the peer has told, and what follows from it for what is sent to it."""

    __slots__ = ("data_frame_max", "frame_max", "initial_window", "table_must_shrink", "table_size")

    def __init__(self) -> None:
        self.initial_window = WINDOW_DEFAULT
        """What a new stream may send."""
        self.frame_max = 16_384
        self.data_frame_max = FRAME_MAX
        """Payload of a frame, and of one that carries DATA."""
        self.table_size = TABLE_SIZE
        self.table_must_shrink = False
        """The peer has made its dynamic table smaller than it was, and was not yet told that this is known."""

    def apply(self, payload: bytes) -> int:
        """Take the payload of a SETTINGS frame: by how much the windows of all streams move (RFC 9113 6.9.2).

        Raises `ConnectionFailed`.
        """
        window = self.initial_window
        for setting, value in SETTING.iter_unpack(payload):
            if setting == Setting.INITIAL_WINDOW_SIZE:
                if value > WINDOW_MAX:
                    raise ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, "SETTINGS_INITIAL_WINDOW_SIZE is too large")
                window = value
            else:
                self._set(setting, value)
        # Every stream is touched, so once for a frame that may say it 2,730 times: nothing is sent in between.
        change = window - self.initial_window
        self.initial_window = window
        return change

    def _set(self, setting: int, value: int) -> None:
        match setting:
            case Setting.HEADER_TABLE_SIZE:
                if value < self.table_size:
                    self.table_must_shrink = True
            case Setting.ENABLE_PUSH | Setting.ENABLE_CONNECT_PROTOCOL | Setting.NO_RFC7540_PRIORITIES:
                if value > 1:
                    raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, f"setting {setting} is neither 0 nor 1")
            case Setting.MAX_FRAME_SIZE:
                if not 16_384 <= value < 2**24:
                    raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "SETTINGS_MAX_FRAME_SIZE is out of range")
                self.frame_max = value
                self.data_frame_max = min(value, FRAME_MAX)

    def shrink_table(self, block: bytes) -> bytes:
        """`block` with the update that RFC 7541 4.2 demands after the peer has made its dynamic table smaller."""
        self.table_must_shrink = False
        self.table_size = 0
        return b"\x20" + block
