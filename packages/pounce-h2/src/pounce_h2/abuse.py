"""What a peer may do wrong, and for how long.

Each kind of frame that makes work without carrying a request has a budget of its own, so that a flood of one kind ends
its connection with ENHANCE_YOUR_CALM.
"""

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

from pounce.contract.stream import ConnectionInfo
from pounce.exchange.budget import Budget
from pounce_h2.frames import ErrorCode

if TYPE_CHECKING:
    from pounce.contract.wire import Service

__all__ = ["Budgets", "ConnectionFailed", "report"]

LOG_INTERVAL = 1.0
"""Seconds between two lines about errors of peers."""


class ConnectionFailed(Exception):
    """The connection must end with GOAWAY and this code (RFC 9113 5.4.1)."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def _too_many(message: str) -> ConnectionFailed:
    return ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, message)


class Budgets:
    """Those of one connection."""

    __slots__ = ("empty_data", "ping", "pointless", "priority", "reset", "settings", "unknown", "window_update")

    def __init__(self, reset_burst: int, reset_rate: float, time: Callable[[], float]) -> None:
        # CVE-2023-44487, CVE-2025-8671: requests whose work is thrown away, by the peer's RST_STREAM or because it
        # makes us send one.
        self.reset = Budget("streams that were reset", reset_burst, reset_rate, time, _too_many)
        # CVE-2019-9512: each is answered. gRPC measures its bandwidth with one for each round trip.
        self.ping = Budget("PING frames", 1000, 100, time, _too_many)
        # CVE-2019-9515: each is answered. Nobody changes settings often.
        self.settings = Budget("SETTINGS frames", 100, 1, time, _too_many)
        # CVE-2019-9518: DATA that neither carries nor ends anything.
        self.empty_data = Budget("empty DATA frames", 100, 10, time, _too_many)
        # CVE-2019-9513: reordering costs time.
        self.priority = Budget("PRIORITY and PRIORITY_UPDATE frames", 1000, 100, time, _too_many)
        # Fair ones follow DATA, and each DATA frame that we send pays for two.
        self.window_update = Budget("WINDOW_UPDATE frames", 2000, 200, time, _too_many)
        # Frames for streams that are over, SETTINGS acknowledgements, GOAWAY again and again. Some are under way when
        # an upload is reset: what fills a connection's window in pieces of 1 KiB is within the burst.
        self.pointless = Budget("frames that change nothing", 5000, 500, time, _too_many)
        self.unknown = Budget("frames of unknown types", 1000, 100, time, _too_many)


def report(service: Service, info: ConnectionInfo, message: str) -> None:
    """A line about what a peer did wrong; one a second for all connections of the worker."""
    shared = service.shared
    now = service.loop.time()
    if now - shared.get("h2.logged", -inf) < LOG_INTERVAL:
        shared["h2.unlogged"] = shared.get("h2.unlogged", 0) + 1
        return
    shared["h2.logged"] = now
    more = shared.pop("h2.unlogged", 0)
    service.log.info(
        "HTTP/2 error of a client%s: %s%s",
        f" ({info.peer[0]})" if info.peer else "",
        message,
        f" (and {more} more since the last line)" if more else "",
    )
