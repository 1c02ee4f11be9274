"""What a worker has counted, sent to a statsd server: datagrams that nobody waits for.

Each worker sends what it has counted since it last did, which the server adds up, and its own gauges, which bear the
number of the worker. Plain statsd has no labels: they become parts of the name. dogstatsd has them as tags.
"""

import re
import socket
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from pounce.errors import ConfigError

if TYPE_CHECKING:
    from pounce.contract.wire import Service

__all__ = ["Statsd", "datagrams"]

DATAGRAM_MAX = 1432
"""Bytes that are in one, so that no network takes it apart."""


class Statsd:
    """Sends for one worker; an observer that observes nothing by itself."""

    def __init__(self, service: Service) -> None:
        config = service.config
        self._service = service
        self._prefix = config.statsd_prefix
        self._tags = config.statsd_format == "dogstatsd"
        self._interval = config.statsd_interval
        self._due = service.loop.time() + self._interval
        self._sent: dict[str, float] = {}
        self._sock = _socket(config.statsd_address or "")
        service.on_tick.add(self._tick)
        service.on_end.add(self._end)

    def completed(self, exchange: object) -> None:
        """Others count."""

    def _tick(self, now: float) -> None:
        if now >= self._due:
            self._due = now + self._interval
            self._send()

    async def _end(self) -> None:
        self._send()
        self._sock.close()

    def _send(self) -> None:
        totals = self._service.own_totals()
        lines = []
        # What a process has used up only grows too.
        grown = {name: value for name, value in totals.processes.items() if name.partition("{")[0].endswith("_total")}
        counts = totals.counts | grown
        for name, count in counts.items():
            # Of its process another worker may have told before this one.
            more = count - self._sent.get(name, count if name in grown else 0)
            if more > 0:
                lines.append(self._line(name, more, "c"))
        self._sent = counts
        worker = f"worker={self._service.worker_id}"
        gauges = totals.gauges | {name: value for name, value in totals.processes.items() if name not in grown}
        for name, value in gauges.items():
            if "{" not in name:
                name = f"{name}{{{worker}}}"
            elif "worker=" not in name:
                name = f"{name[:-1]},{worker}}}"
            lines.append(self._line(name, value, "g"))
        for datagram in datagrams(lines):
            try:
                self._sock.send(datagram)
            except OSError:
                # Nobody is there, or takes it.
                self._service.count("statsd_lost")

    def _line(self, name: str, value: float, kind: str) -> str:
        """One number; `name` is that of totals, with labels."""
        name, _, labels = name.partition("{")
        labels = labels.rstrip("}")
        name = f"{self._prefix}.{name}" if self._prefix else name
        if self._tags:
            tags = f"|#{labels.replace(':', '_').replace('=', ':')}" if labels else ""
            return f"{_plain(name)}:{value:g}|{kind}{tags}"
        return f"{_plain('.'.join([name, *labels.split(',')]) if labels else name)}:{value:g}|{kind}"


def _plain(name: str) -> str:
    """Without what has a meaning in a line."""
    return re.sub(r"[^\w.\-]", "_", name)


def datagrams(lines: Iterable[str]) -> Iterator[bytes]:
    """As many lines in each as it can take."""
    found = b""
    for line in lines:
        piece = line.encode()
        if found and len(found) + 1 + len(piece) > DATAGRAM_MAX:
            yield found
            found = b""
        found = found + b"\n" + piece if found else piece
    if found:
        yield found


def _socket(address: str) -> socket.socket:
    """Connected to `host:port` or `unix:/path`. Raises `ConfigError` where there is no such address."""
    try:
        if address.startswith("unix:"):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            target: Any = address.removeprefix("unix:")
        else:
            host, _, port = address.rpartition(":")
            if not (host and port.isascii() and port.isdecimal() and int(port) < 65536):
                raise ConfigError(
                    f"statsd_address must be host:port or unix:/path (got {address!r})",
                    hint="For example 127.0.0.1:8125 or unix:/run/statsd.",
                )
            [(family, _, _, _, target), *_] = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
            sock = socket.socket(family, socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as exc:
        raise ConfigError(
            f"statsd_address {address!r} cannot be had: {getattr(exc, 'strerror', None) or exc}",
            hint="It is host:port or unix:/path, for example 127.0.0.1:8125 or unix:/run/statsd.",
        ) from exc
    try:
        sock.setblocking(False)
        sock.connect(target)
    except OSError as exc:
        sock.close()
        raise ConfigError(f"statsd_address {address!r} cannot be reached: {exc.strerror or exc}") from exc
    return sock
