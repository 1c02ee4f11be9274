"""Settings: those of the plugin that the server does not share with others, and those that both ends announce (RFC 9114
7.2.4)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pounce.errors import ConfigError
from pounce.options import secret_from
from pounce.plugin import option
from pounce_h3.codes import H3_FRAME_ERROR, H3_SETTINGS_ERROR
from pounce_h3.engine import QuicError
from pounce_h3.frames import SETTINGS, frame, varint

if TYPE_CHECKING:
    from pounce.config import ServerConfig

__all__ = ["BLOCKED_STREAMS", "H3_DATAGRAM", "H3Settings", "announced", "check_settings"]

BLOCKED_STREAMS = 16
"""Requests that may wait for the peer's dynamic table."""

# RFC 9114 7.2.4.1, RFC 9204 5, RFC 9220 5
QPACK_MAX_TABLE_CAPACITY, MAX_FIELD_SECTION_SIZE, QPACK_BLOCKED_STREAMS, ENABLE_CONNECT_PROTOCOL = 0x1, 0x6, 0x7, 0x8
# RFC 9297 2.1.1, draft-ietf-webtrans-http3-02 8.2 and -07 8.2
H3_DATAGRAM, ENABLE_WEBTRANSPORT, WEBTRANSPORT_MAX_SESSIONS = 0x33, 0x2B603742, 0xC671706A
HTTP2_SETTINGS = frozenset((0x0, 0x2, 0x3, 0x4, 0x5))


@dataclass(frozen=True, slots=True)
class H3Settings:
    """`plugin_settings["h3"]`. Raises `ConfigError`.

    Several servers behind one address, and the same server after a restart, need the same secret. Without it the server
    draws one, which its processes share.
    """

    secret: str = option(
        "",
        "What the keys of Retry tokens, stateless resets and connection ids are made from; at least 16 characters.",
        secret=True,
    )
    secret_file: str | None = option(None, "File whose first line is that secret.")
    zoomies_beyond_loopback: bool = option(
        False, "Let the engine zoomies be reached from other machines. It was not made for peers that mean harm."
    )

    def __post_init__(self) -> None:
        if self.secret_file is not None:
            if self.secret:
                raise ConfigError("h3.secret and h3.secret_file exclude each other", hint="Leave out one of them.")
            object.__setattr__(self, "secret", secret_from("h3.secret_file", self.secret_file))
        if 0 < len(self.secret) < 16:
            raise ConfigError("h3.secret must be a text of at least 16 characters, or empty")


def announced(config: ServerConfig) -> bytes:
    """Our SETTINGS."""
    capacity = config.http3_qpack_max_table_capacity
    settings = {
        QPACK_MAX_TABLE_CAPACITY: capacity,
        # It counts 32 octets more for each field than max_header_size does: whatever is within it is served.
        MAX_FIELD_SECTION_SIZE: config.max_header_size,
        QPACK_BLOCKED_STREAMS: BLOCKED_STREAMS if capacity else 0,
        ENABLE_CONNECT_PROTOCOL: 1,
    }
    if config.http3_webtransport_enabled:
        settings |= {
            H3_DATAGRAM: 1,
            ENABLE_WEBTRANSPORT: 1,
            WEBTRANSPORT_MAX_SESSIONS: config.http3_webtransport_max_sessions,
        }
    return frame(SETTINGS, b"".join(varint(name) + varint(value) for name, value in settings.items()))


def check_settings(values: list[int] | None) -> dict[int, int]:
    """Those of the peer, which are None where its frame is not made of integers. Raises `QuicError`."""
    if values is None or len(values) % 2:
        raise QuicError(H3_FRAME_ERROR, "SETTINGS is not made of pairs")
    settings = dict(zip(values[::2], values[1::2], strict=True))
    if len(settings) * 2 != len(values) or settings.keys() & HTTP2_SETTINGS:
        raise QuicError(H3_SETTINGS_ERROR, "a setting is repeated or reserved")
    if settings.get(ENABLE_CONNECT_PROTOCOL, 0) > 1:
        raise QuicError(H3_SETTINGS_ERROR, "SETTINGS_ENABLE_CONNECT_PROTOCOL is neither 0 nor 1")
    if settings.get(H3_DATAGRAM, 0) > 1:
        raise QuicError(H3_SETTINGS_ERROR, "SETTINGS_H3_DATAGRAM is neither 0 nor 1")
    # What the peer's decoder can do is of no interest: nothing is put into its table.
    return settings
