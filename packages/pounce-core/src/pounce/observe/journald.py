"""JournalSink: systemd's journal, by its native protocol, so that each value of a request is a field of its own.

    journalctl -t pounce HTTP_STATUS=500

The protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL) is one datagram for each record: lines of NAME=value, or for a value
of several lines its name, its length in eight bytes and itself. What is too long for a datagram goes into a sealed file
in memory, whose descriptor is sent in its place.
"""

import errno
import fcntl
import logging
import os
import socket
import struct
from typing import Any

from pounce.observe.access_entry import AccessEntry
from pounce.observe.datagrams import LogSocket, severity
from pounce.observe.formats import access_fields

__all__ = ["JournalSink"]

LOCAL = "/run/systemd/journal/socket"
OWN_FIELDS = frozenset(("ts", "level"))
"""The journal has these of every record."""
_length = struct.Struct("<Q").pack


class JournalSink:
    """`address` is the path of the socket, empty for that of systemd; `tag` is the SYSLOG_IDENTIFIER."""

    structured = has_fields = True

    def __init__(self, address: str = "", tag: str = "pounce") -> None:
        """Raises `OSError` where nobody listens."""
        self._tag = tag
        self._socket = LogSocket(socket.AF_UNIX, address or LOCAL)

    def write(self, line: str, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = {
            "MESSAGE": line,
            "PRIORITY": severity(record.levelno),
            "SYSLOG_IDENTIFIER": self._tag,
            "LOGGER": record.name,
        }
        if isinstance(record.msg, AccessEntry):
            prefix, values = "HTTP_", access_fields(record.msg)
        else:
            event = getattr(record, "event", None)
            prefix, values = "SERVER_", event if isinstance(event, dict) else {}
            if record.pathname:
                fields |= {"CODE_FILE": record.pathname, "CODE_LINE": record.lineno, "CODE_FUNC": record.funcName}
        fields |= {prefix + name.upper(): value for name, value in values.items() if name not in OWN_FIELDS}
        data = b"".join(_field(name, value) for name, value in fields.items())
        try:
            self._socket.send(data)
        except OSError as exc:
            if exc.errno != errno.EMSGSIZE:
                raise
            self._send_in_file(data)

    def _send_in_file(self, data: bytes) -> None:
        fd = os.memfd_create("pounce-log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with os.fdopen(fd, "wb", closefd=False) as file:
                file.write(data)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
            self._socket.send(b"", fd)
        finally:
            os.close(fd)

    def reopen(self) -> None:
        """The journal is found again when something is to be sent."""

    def close(self) -> None:
        self._socket.close()


def _field(name: str, value: object) -> bytes:
    data = str(value).encode("utf-8", "backslashreplace")
    if b"\n" in data:
        return name.encode() + b"\n" + _length(len(data)) + data + b"\n"
    return b"%b=%b\n" % (name.encode(), data)
