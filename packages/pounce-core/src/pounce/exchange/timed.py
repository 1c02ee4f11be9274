"""Server-Timing: exchanges whose answers tell how long what took, where the setting `server_timing` is on.

    parse   reading and understanding the head, as far as its wire says so in `head.extensions[PARSED_IN]`
    queue   from there to the start of the application
    app     the application, to its last piece, or to its head where no more can be told
    total   all of it

The field stands in front of the body, where the last two are not over yet. So clients that take trailers (`TE:
trailers`, RFC 9110 10.1.4) get those in the trailer section, which HTTP/1.1 has where the answer gives no length.
"""

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from pounce.contract.head import RequestHead, extended
from pounce.contract.parser import EndOfBody, Parser
from pounce.exchange.http import HELD, TRAILERS, HttpExchange

if TYPE_CHECKING:
    from pounce.contract.head import Headers
    from pounce.contract.pieces import Response
    from pounce.contract.stream import Stream
    from pounce.contract.wire import ASGIApp
    from pounce.exchange.host import Host

__all__ = ["PARSED_IN", "TimedExchange", "TimedParser", "timed"]

PARSED_IN = "pounce.parsed_in"
"""Name of the extension: seconds that it took to read the head. Without it they are not known, and count as none."""
NAME = b"server-timing"


class TimedExchange(HttpExchange):
    """Adds Server-Timing (https://www.w3.org/TR/server-timing/) to its answer, beside what the application sends."""

    __slots__ = ("_app_has_trailers", "_app_started", "_parsed_in", "_tells_at_the_end")

    def __init__(self, service: Host, head: RequestHead, stream: Stream) -> None:
        super().__init__(service, head, stream)
        extensions: dict[str, Any] = head.extensions or {}
        self._parsed_in: float = extensions.get(PARSED_IN, 0.0)
        self._app_started = 0.0
        self._app_has_trailers = False
        self._tells_at_the_end = False

    async def run(self, app: ASGIApp) -> None:
        self._app_started = monotonic()
        await super().run(app)

    def _send_start(self, message: Any) -> None:
        super()._send_start(message)
        if self.answer == HELD:
            self._tells_at_the_end = self._takes_trailers()
            if self._tells_at_the_end:
                self._app_has_trailers = self._trailers is not None
                if self._trailers is None:
                    self._trailers = []
                self._extend([(b"trailer", NAME), (NAME, b", ".join(self._begin()))])
            else:
                self._extend([(NAME, self._whole())])

    def _begin_own(self, response: Response) -> None:
        super()._begin_own(response)
        self._tells_at_the_end = False
        self._extend([(NAME, self._whole())])

    def _send_body(self, body: Any, more: bool) -> bool:
        is_last = not more and self._tells_at_the_end
        waits = super()._send_body(body, more)
        if is_last and self.answer == TRAILERS and not self._app_has_trailers:
            self._send_trailers({})
        return waits

    def _send_trailers(self, message: dict[str, Any]) -> None:
        if self._tells_at_the_end and not message.get("more_trailers", False):
            message = {**message, "headers": [*message.get("headers", ()), (NAME, b", ".join(self._end()))]}
        super()._send_trailers(message)

    def _takes_trailers(self) -> bool:
        head = self.head
        if not self.stream.has_trailers or self._is_bodiless():
            return False
        if self._expected is not None and head.version[0] == "1":
            # RFC 9112 6.3: a body with Content-Length has no trailer section.
            return False
        accepted = b",".join(value for name, value in head.headers if name == b"te").lower()
        return any(member.partition(b";")[0].strip() == b"trailers" for member in accepted.split(b","))

    def _begin(self) -> list[bytes]:
        told = [metric(b"parse", self._parsed_in)]
        if self._app_started:
            told.append(metric(b"queue", self._app_started - self.started))
        return told

    def _end(self) -> list[bytes]:
        now = monotonic()
        told = [metric(b"app", now - self._app_started)] if self._app_started else []
        return [*told, metric(b"total", now - self.started + self._parsed_in)]

    def _whole(self) -> bytes:
        """All of it at once, as one text: nearly every answer."""
        started = self._app_started
        if not started:
            return b", ".join(self._begin() + self._end())
        now, parsed_in, began = monotonic(), self._parsed_in, self.started
        return (
            f"parse;dur={parsed_in * 1000:.3f}, queue;dur={(started - began) * 1000:.3f},"
            f" app;dur={(now - started) * 1000:.3f}, total;dur={(now - began + parsed_in) * 1000:.3f}"
        ).encode()

    def _extend(self, own: Headers) -> None:
        fields: Any = self._headers
        self._headers = extended(fields, own)


def metric(name: bytes, seconds: float) -> bytes:
    """One entry of Server-Timing; its duration is in milliseconds."""
    return b"%b;dur=%.3f" % (name, seconds * 1000)


class TimedParser:
    """An HTTP/1.1 parser that says how long it took to read a head."""

    def __init__(self, parser: Parser) -> None:
        self._parser = parser
        self._spent = 0.0
        self.receive_data = parser.receive_data
        self.take_rest = parser.take_rest
        take_body = getattr(parser, "take_body", None)
        if take_body is not None:
            self.take_body = take_body

    @property
    def buffered(self) -> int:
        return self._parser.buffered

    def next_event(self) -> RequestHead | bytes | EndOfBody | None:
        started = monotonic()
        event = self._parser.next_event()
        if type(event) is RequestHead:
            event.extensions = {PARSED_IN: self._spent + monotonic() - started}
            self._spent = 0.0
        elif event is None:
            # Of a head that is not complete, or of a body.
            self._spent += monotonic() - started
        else:
            self._spent = 0.0
        return event


def timed(create_parser: Callable[[], Parser]) -> Callable[[], Parser]:
    """The same parsers with a clock."""
    return lambda: TimedParser(create_parser())
