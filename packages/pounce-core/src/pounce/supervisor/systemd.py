"""What systemd is told of a service of Type=notify (sd_notify(3)): ready, reloading, stopping, and still alive.

Without NOTIFY_SOCKET in the environment nothing is sent and nothing costs anything.
"""

import logging
import os
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import asyncio

__all__ = ["Notifier"]

log = logging.getLogger("pounce")

PATIENCE = 1.0
"""Seconds that systemd may take to accept a message."""


class Notifier:
    """Sends the state of a service to the one who started it. No method raises for what systemd does or does not."""

    def __init__(self, address: str | None = None, watchdog: float | None = None) -> None:
        """`address` is a path, or the name of an abstract socket after an `@`; None sends nothing.

        `watchdog` is the time in seconds within which a sign of life is due, None when none is.
        """
        self._address = address
        self._watchdog = watchdog
        self._beat: asyncio.TimerHandle | None = None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """For the service that this process is, by NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID."""
        address = environ.get("NOTIFY_SOCKET") or None
        if address is not None and address[0] not in "/@":
            log.warning("NOTIFY_SOCKET is neither a path nor an abstract socket; systemd is told nothing")
            address = None
        microseconds = environ.get("WATCHDOG_USEC", "")
        due = address is not None and microseconds.isdecimal() and int(microseconds) > 0
        mine = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        return cls(address, int(microseconds) / 1e6 if due and mine else None)

    @property
    def watchdog_interval(self) -> float | None:
        """Seconds between two calls of `watchdog()`: half of what is allowed; None when none are expected."""
        return None if self._watchdog is None else self._watchdog / 2

    def ready(self, status: str = "") -> None:
        """The start, or a reload, is complete."""
        self._send("READY=1", _status(status))

    def reloading(self, status: str = "") -> None:
        """A reload begins; `ready()` follows when it is over."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now}", _status(status))

    def stopping(self, status: str = "") -> None:
        """The end begins."""
        self._send("STOPPING=1", _status(status))

    def status(self, text: str) -> None:
        """One line for people, which `systemctl status` shows."""
        self._send(_status(text))

    def main_pid(self, pid: int) -> None:
        """Another process is the service's main one from now on."""
        self._send(f"MAINPID={pid}")

    def watchdog(self) -> None:
        """A sign of life."""
        self._send("WATCHDOG=1")

    def start_watchdog(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give signs of life as long as `loop` turns, where they are expected; call on the loop."""
        interval = self.watchdog_interval
        if interval is not None:
            self.watchdog()
            self._beat = loop.call_later(interval, self.start_watchdog, loop)

    def stop_watchdog(self) -> None:
        """Give no more signs of life."""
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(PATIENCE)
                sock.sendto("\n".join(filter(None, lines)).encode(), address)
        except OSError as exc:
            log.warning("systemd could not be told %s: %s", lines[0], exc.strerror or exc)


def _status(text: str) -> str:
    """As one line: a line break would begin another assignment."""
    return f"STATUS={' '.join(text.split())}" if text else ""
