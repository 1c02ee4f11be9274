"""Pings: whether a client is still there, by what it is asked and by how long it says nothing (RFC 6455 5.5.2)."""

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pounce.config import ServerConfig

__all__ = ["Pings"]


class Pings:
    """The times of one WebSocket, in seconds of the loop's clock."""

    __slots__ = ("_asked", "_due", "_interval", "_pong_timeout", "heard", "idle_timeout", "last_message")

    def __init__(self, config: ServerConfig) -> None:
        self._interval = config.websocket_ping_interval
        self._pong_timeout = config.websocket_ping_timeout
        self._due = inf
        self._asked = 0.0
        """When the pong that is waited for was asked for; 0 while none is."""
        self.heard = False
        """Something arrived after that."""
        self.idle_timeout = config.websocket_idle_timeout
        self.last_message = 0.0
        """In either direction; kept where there is an idle timeout."""

    def begin(self, now: float) -> None:
        """The WebSocket is open."""
        self.last_message = now
        self._due = now + (self._interval or inf)

    def deadline(self) -> float:
        """The next of: a ping, the end of waiting for its pong, the end of waiting for a message."""
        deadline = self._due
        if self._asked:
            deadline = min(deadline, self._asked + self._pong_timeout)
        if self.idle_timeout:
            deadline = min(deadline, self.last_message + self.idle_timeout)
        return deadline

    def is_due(self, now: float) -> bool:
        """Whether the time for a ping has come; the next one comes an interval later."""
        if now < self._due:
            return False
        self._due = now + self._interval
        return True

    def ask(self, now: float) -> None:
        """A ping was written."""
        if self._pong_timeout:
            self._asked, self.heard = now, False

    def pong_is_missing(self, now: float, held: int) -> bool:
        """Whether the client has said nothing for too long, though it was asked.

        `held` bytes of it wait for the application.
        """
        if not self._asked:
            return False
        if self.heard:
            # Whatever it was: a client that is in the middle of a frame cannot send a pong.
            self._asked = 0.0
            return False
        if held:
            # The pong may be there already, behind messages that the application has not taken.
            self._asked = now
            return False
        return now - self._asked >= self._pong_timeout

    def is_idle(self, now: float) -> bool:
        """Whether there was no message for too long."""
        return bool(self.idle_timeout) and now - self.last_message >= self.idle_timeout
