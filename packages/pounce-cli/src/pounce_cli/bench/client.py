"""What all clients of a load have in common."""

from typing import NamedTuple, Protocol

__all__ = ["Answers", "Client", "Request"]


class Request(NamedTuple):
    """The request that is sent again and again."""

    method: str
    path: str
    authority: str
    scheme: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


class Answers(NamedTuple):
    """What came of some bytes."""

    statuses: list[int]
    """Of the answers that are complete with them; 0 for one that was broken off."""
    reply: bytes = b""
    """What the protocol has to send for them."""
    closes: bool = False
    """The server ends the connection behind them, in good order."""


class Client(Protocol):
    """One connection: bytes in, statuses out."""

    @property
    def begin(self) -> bytes:
        """What is sent first."""

    def requests(self, count: int) -> bytes:
        """What to send for so many requests."""

    def received(self, data: bytes) -> Answers:
        """What came of it. Raises `ValueError` for what is not of the protocol."""

    def closed(self) -> list[int]:
        """The answers that the end of the connection completes."""
