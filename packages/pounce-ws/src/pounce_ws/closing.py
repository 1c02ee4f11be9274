"""Closing: what has ended a WebSocket, how the client is answered, and what the application is told (RFC 6455 7)."""

from typing import Any, NamedTuple

from pounce.errors import ClientGone
from pounce_ws.frames import Control, parse_close
from pounce_ws.violation import Violation

__all__ = ["ABNORMAL", "Answer", "Closing", "answer_to"]

ABNORMAL = 1006
"""A code for the application alone (RFC 6455 7.4.1): there was no Close at all."""


class Answer(NamedTuple):
    """How something that ends the reading is answered."""

    code: int
    reason: str
    """For the client; RFC 6455 5.5.1: a Close is echoed by its code."""
    told: str
    """The reason for the application."""
    is_last: bool
    """The client sends nothing more, or nothing that can be understood: the stream ends with the answer."""
    is_violation: bool


def answer_to(event: Control | Violation) -> Answer:
    """Answer a Close with one of the same code (RFC 6455 5.5.1), a breach with its own (7.1.7)."""
    try:
        if isinstance(event, Violation):
            raise event
        code, told = parse_close(event.payload)
        return Answer(code, "", told, True, False)
    except Violation as violation:
        # After a Close nothing follows, after code 1002 nothing that can be understood.
        is_last = event is not violation or violation.code == 1002
        return Answer(violation.code, violation.reason, violation.reason, is_last, True)


class Closing:
    """The end of one WebSocket, from what begins it."""

    __slots__ = ("_given_out", "broken", "by_app", "code", "final", "told")

    def __init__(self) -> None:
        self.code: int | None = None
        """What it was closed with; None while it is open, and where it never was."""
        self.broken = False
        """There was no Close."""
        self.by_app = False
        """The application has closed it, or has ended: it is told nothing more."""
        self.final: Control | Violation | None = None
        """What ended the reading, and was not answered yet: a Close, or a breach of the protocol."""
        self.told: tuple[int, str] | None = None
        """What the application is told at the end, after the messages before it."""
        self._given_out = False

    def begin(self, code: int, reason: str) -> None:
        """A Close is sent."""
        self.code = code
        if not self.by_app:
            self.told = code, reason

    def end(self, code: int, reason: str) -> None:
        """The stream has ended, or is lost; what began the end counts."""
        if self.code is None:
            self.code = code
            self.broken = code == ABNORMAL
        if self.told is None:
            self.told = self.code, reason
        self.final = None

    def last_word(self) -> dict[str, Any]:
        """The `websocket.disconnect`. Raises `ClientGone` when it was given out before."""
        assert self.told is not None
        if self._given_out:
            raise ClientGone("the WebSocket is closed, and the application was told")
        self._given_out = True
        code, reason = self.told
        return {"type": "websocket.disconnect", "code": code, "reason": reason}

    def put_back(self) -> None:
        """Who was told does not want to know any more: the next one is told again."""
        self._given_out = False
