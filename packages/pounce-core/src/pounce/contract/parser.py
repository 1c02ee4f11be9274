"""Parser: what reads the requests of one HTTP/1.1 connection."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pounce.contract.head import Headers, RequestHead

__all__ = ["EndOfBody", "Parser", "ParserChoice", "ParserLimits"]


@dataclass(frozen=True, slots=True)
class ParserLimits:
    """Bounds for an HTTP/1.1 parser."""

    max_header_size: int = 65536
    """Bytes of a head or trailer section, empty line included."""
    max_headers: int = 100
    """Fields in one of them."""


class EndOfBody:
    """The body is complete; `trailers` holds the fields after a chunked one (RFC 9112 7.1.2), else None."""

    __slots__ = ("trailers",)

    def __init__(self, trailers: Headers | None = None) -> None:
        self.trailers = trailers


class Parser(Protocol):
    """Reads the requests of one HTTP/1.1 connection: bytes go in, events are taken out.

    The events of one request are its head, the pieces of its body, and `EndOfBody` unless the head's
    `content_length` is 0. Then follows the next head: bytes of later requests stay inside until asked for.

    A parser may have a method `take_body() -> bytes | None`, which is called after a head with a body, before any other
    event: it gives the body and takes its end with it, if all of it is here and nothing is wrong with it nor follows in
    trailers. Else it gives None, and the events go on as if it had not been called. It raises nothing.

    It may have another one, `first_event(data: bytes)`, which is called between requests, where nothing is `buffered`:
    what `receive_data(data)` and `next_event()` do, in one step.
    """

    def receive_data(self, data: bytes) -> None:
        """Keep `data` for `next_event`; raises nothing."""

    def next_event(self) -> RequestHead | bytes | EndOfBody | None:
        """The next event, None when more bytes are needed.

        Raises `BadRequest` with status, code and position when the bytes are not a request or exceed a limit,
        as early as that is certain; the parser must not be used after that.
        """

    def take_rest(self) -> bytes:
        """The bytes after the last event, which an upgraded protocol takes over; the parser is empty then."""

    @property
    def buffered(self) -> int:
        """Number of bytes that no event has covered yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParserChoice:
    """An HTTP/1.1 parser; among the installed ones the highest `priority` is used unless one is named."""

    name: str
    """As the setting `http_parser` names it."""
    priority: int
    """That of the server's own is 0."""
    create: Callable[[ParserLimits], Parser]
    """Makes the parser of one connection."""
