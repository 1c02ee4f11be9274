"""SyslogSink: a syslog daemon on this machine or another, by RFC 5424 over a Unix socket or UDP (RFC 5426)."""

import errno
import logging
import os
import re
import socket
import time
from typing import Any

from pounce.errors import ConfigError
from pounce.observe.datagrams import LogSocket, severity

__all__ = ["SyslogSink"]

LOCAL = "/dev/log"
PORT = 514
LONGEST = 2048
"""Octets that a message is cut to where more does not pass; RFC 5424 6.1: receivers should take as many."""
FACILITIES = (
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp",
    "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
)  # fmt: skip


class SyslogSink:
    """`address` is the path of a Unix socket, `host` or `host:port`; empty is `/dev/log`. `tag` is the APP-NAME."""

    structured = True
    has_fields = False

    def __init__(self, address: str = "", tag: str = "pounce", facility: str = "daemon") -> None:
        """Raises `ConfigError`, and `OSError` where nobody listens."""
        if facility not in FACILITIES:
            raise ConfigError(
                f"facility must be one of {', '.join(FACILITIES)} (got {facility!r})", hint="For example local0."
            )
        self._facility = FACILITIES.index(facility) * 8
        host = _printable(socket.gethostname(), 255)
        self._between = f"{host} {_printable(tag, 48)} {os.getpid()}"
        self._socket = LogSocket(*_address_of(address))

    def write(self, line: str, record: logging.LogRecord) -> None:
        at = record.created
        whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))
        head = (
            f"<{self._facility + severity(record.levelno)}>1 {whole}.{int(at % 1 * 1_000_000):06d}Z {self._between}"
            f" {_printable(record.name, 32)} - "
        )
        data = (head + line).encode("utf-8", "backslashreplace")
        try:
            self._socket.send(data)
        except OSError as exc:
            if exc.errno != errno.EMSGSIZE:
                raise
            self._socket.send(data[:LONGEST].decode("utf-8", "ignore").encode())

    def reopen(self) -> None:
        """A daemon is found again when something is to be sent."""

    def close(self) -> None:
        self._socket.close()


def _printable(name: str, longest: int) -> str:
    """Printable US-ASCII of a length that RFC 5424 6 allows, or its NILVALUE."""
    return re.sub(r"[^!-~]", "", name)[:longest] or "-"


def _address_of(text: str) -> tuple[int, Any]:
    path = (text or LOCAL).removeprefix("unix:")
    if "/" in path:
        return socket.AF_UNIX, path
    host, colon, port = text.rpartition(":") if text.count(":") == 1 or "]:" in text else (text, "", "")
    if colon and not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise ConfigError(f"the address of syslog must be a path, host or host:port (got {text!r})")
    family, _, _, _, address = socket.getaddrinfo(
        host.strip("[]"), int(port) if colon else PORT, type=socket.SOCK_DGRAM
    )[0]
    return family, address
