"""AccessEntry: one request, as it is logged."""

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["AccessEntry", "escaped", "escaped_line"]


@dataclass(slots=True)
class AccessEntry:
    """One request; nobody changes it. The values are as the client sent them: whoever writes them out must escape them.

    `status` is 0 when no answer was begun; `complete` tells whether it reached its end; durations are in seconds.
    """

    at: float
    client: str
    method: str
    target: str
    version: str
    status: int
    sent: int
    duration: float
    worker: int
    scheme: str
    complete: bool
    close_code: int | None = None
    """Of a WebSocket that has ended (RFC 6455 7.4)."""
    request_id: object = None
    """Text where requests have ids, else None."""
    trace_id: str | None = None
    """Of the W3C Trace Context that the request is part of, where one is known."""
    tls: tuple[object, object] | None = None
    """Version and cipher suite, the numbers of IANA; None without TLS."""
    queued: float = 0.0
    """How long it waited for a place to run."""
    first_byte: float | None = None
    """When the answer began, where it did not leave as a whole: then `duration` is the time to its first byte too."""
    picked: tuple[str | None, ...] = ()
    """What the format of the line asked for beyond all this, in its own order."""
    write: Callable[[AccessEntry], str] | None = None
    """Makes the line, where the setting `access_log_format` says how."""

    def __str__(self) -> str:
        """The line, by default that of the text format."""
        return self.text() if self.write is None else self.write(self)

    def text(self) -> str:
        """The line of the text format."""
        status = self.status or "-"
        broken = "" if self.complete else " (incomplete)"
        if self.close_code is not None:
            broken = f" (closed {self.close_code})"
        number = "" if self.request_id is None else f" [{self.request_id}]"
        return (
            f'{self.client} - "{escaped(self.method)} {escaped(self.target)} HTTP/{self.version}" {status}'
            f" {self.sent} {self.duration * 1000:.1f}ms w{self.worker}{broken}{number}"
        )


def escaped(text: str) -> str:
    """`text` with everything that could forge or garble a log line as backslash escapes."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return text.encode("unicode_escape").decode("ascii").replace('"', '\\"')


def escaped_line(line: str) -> str:
    """`line` without control characters that a terminal would obey."""
    return line if line.isprintable() else "".join(c if c.isprintable() else escaped(c) for c in line)
