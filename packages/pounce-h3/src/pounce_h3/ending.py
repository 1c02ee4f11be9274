"""Ending: how a connection comes to its end in good order (RFC 9114 5.2).

    ─drain─▶ GOAWAY that names no request ─a moment─▶ GOAWAY that names the last one
    ─as many requests as there may be─▶ GOAWAY that names the last one ─all answered, and acknowledged─▶ closed

What is on its way when a connection is closed would be lost. So after the last answer its peer has time to acknowledge
what was sent, for as long as it goes on doing so.
"""

from math import inf

from pounce_h3.output import Output
from pounce_h3.streams import Streams

__all__ = ["Ending"]

DRAIN_GRACE = 0.25
"""Seconds in which requests that were on their way when a drain began are still taken."""
LINGER = 3.0
"""Seconds in which a peer has to acknowledge something of what was sent last, before the connection is closed."""
NO_REQUEST = (1 << 62) - 4
"""The highest id that a request may have."""


class Ending:
    """How far the end of a connection is; `Streams.goaway` says whether it has begun."""

    __slots__ = ("_linger_until", "_output", "_streams", "_unacknowledged")

    def __init__(self, output: Output, streams: Streams) -> None:
        self._output = output
        self._streams = streams
        self._unacknowledged = self._linger_until = inf

    def drain(self) -> None:
        """Announce the end, and take what is on its way."""
        output, streams = self._output, self._streams
        if streams.goaway is None and not output.quic.is_over:
            streams.go_away(NO_REQUEST)
            output.watch(output.loop.time() + DRAIN_GRACE)

    def look(self) -> None:
        """The time of requests that were on their way is over: name the last request that is served."""
        if self._streams.goaway == NO_REQUEST:
            self._streams.leave()

    def close_when_done(self, is_held: bool) -> None:
        """After GOAWAY: close once every answer has arrived; `is_held` while something waits here to be read."""
        output, streams = self._output, self._streams
        if streams.goaway == NO_REQUEST or output.quic.is_over:
            return
        if is_held or streams.are_busy:
            self._unacknowledged = inf
            return
        now = output.loop.time()
        left = output.quic.unacknowledged
        if left < self._unacknowledged:
            self._unacknowledged = left
            self._linger_until = now + LINGER
        if left and now < self._linger_until:
            output.watch(self._linger_until)
        elif output.owner is not None:
            output.owner.close()
