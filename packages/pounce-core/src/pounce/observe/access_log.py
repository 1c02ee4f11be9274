"""The access log: a line for each request, once its last byte has left."""

import logging
import re
from collections.abc import Callable
from functools import partial
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from pounce.config import ServerConfig
from pounce.errors import ConfigError
from pounce.exchange.scope import split_target
from pounce.observe.access_entry import AccessEntry
from pounce.observe.formats import FIELD_MAX, LOGGER, access_format, cut
from pounce.plugin import API_VERSION, ObserverFactory, Plugin

if TYPE_CHECKING:
    from pounce.contract.head import RequestHead
    from pounce.contract.wire import Service
    from pounce.plugin import Completed

__all__ = ["plugin"]

_traceparent = re.compile(
    rb"(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
).fullmatch
"""W3C Trace Context 3.2; what follows in the end is of versions to come."""


class AccessLog:
    """Observer that hands an `AccessEntry` to the logger `pounce.access`; formatting happens where it is written.

    Beside what a `Completed` has it reads attributes that an exchange may have: `first_byte` (when its answer began, a
    `time.monotonic()`), `trace_id` (32 hexadecimal digits) and `answer_fields`.
    """

    def __init__(self, service: Service) -> None:
        config = service.config
        self._worker = service.worker_id
        self._filter = _filter_of(config)
        self._health = _health_paths(config)
        self._sample = config.access_log_sample
        self._random = _random_of(self._sample)
        write, self._pick = access_format(config.access_log_format)
        # Each entry counts it, so workers must not have the same one.
        self._write = partial(write) if write is not None else None
        self._service = service
        self._log = logging.getLogger(LOGGER)

    def upgraded(self, exchange: Completed) -> None:
        """A line for the handshake; that of `completed()` tells how and when it ended."""
        self.completed(exchange)

    def completed(self, exchange: Completed) -> None:
        status = exchange.status
        level = logging.WARNING if status >= 500 else logging.INFO
        if not self._log.isEnabledFor(level):
            return
        if self._sample < 1 and 0 < status < 400 and not exchange.broken and self._random() >= self._sample:
            return
        head = exchange.head
        if self._health and split_target(head.target)[0] in self._health and head.method in (b"GET", b"HEAD"):
            return
        method, target = head.method.decode("latin-1"), head.target.decode("latin-1")
        if self._filter is not None and not self._filter(method, target.partition("?")[0], status):
            return
        # Thousands of lines may wait until they are written.
        if len(target) > FIELD_MAX:
            target = cut(target)
        if len(method) > FIELD_MAX:
            method = cut(method)
        connection, extensions, started = exchange.stream.connection, head.extensions, exchange.started
        peer = (head.origin or connection).peer
        first_byte, tls = getattr(exchange, "first_byte", None), connection.tls
        trace_id = getattr(exchange, "trace_id", None)
        # Binds may differ in whom they trust.
        trusts = getattr(exchange, "service", self._service).trusts
        if trace_id is None and trusts is not None and trusts(connection):
            trace_id = _trace_id(head)
        entry = AccessEntry(
            at=time(),
            client=f"{peer[0]}:{peer[1]}" if peer is not None else "unix",
            method=method,
            target=target,
            version=head.version,
            status=status,
            sent=exchange.bytes_sent,
            duration=monotonic() - started,
            worker=self._worker,
            scheme=head.scheme,
            complete=not exchange.broken,
            close_code=exchange.close_code,
            request_id=extensions.get("request_id") if extensions is not None else None,
            trace_id=trace_id,
            tls=(tls.get("tls_version"), tls.get("cipher_suite")) if tls is not None else None,
            queued=getattr(exchange, "queued", 0.0),
            first_byte=first_byte - started if first_byte is not None else None,
            picked=self._pick(exchange) if self._pick is not None else (),
            write=self._write,
        )
        # As its `log()` does, but for the search through the stack for who calls it: that is here.
        self._log.handle(self._log.makeRecord(LOGGER, level, "", 0, entry, (), None))


def _trace_id(head: RequestHead) -> str | None:
    """The trace that a request says it is part of; None unless it says so once and well."""
    given = [value for name, value in head.headers if name == b"traceparent"]
    found = _traceparent(given[0]) if len(given) == 1 else None
    return found[1].decode() if found is not None else None


def _random_of(sample: float) -> Callable[[], float]:
    if sample == 1:
        return lambda: 0.0
    from random import Random

    return Random().random


def _filter_of(config: ServerConfig) -> Callable[[str, str, int], Any] | None:
    """Raises `AppImportError`, `ConfigError`."""
    found: Any = config.access_log_filter
    if isinstance(found, str):
        from pounce.importer import import_object

        found = import_object(found, config)
        if not callable(found):
            raise ConfigError(f"access_log_filter {config.access_log_filter!r} is no function")
    asked: Callable[[str, str, int], Any] | None = found
    return asked


def _health_paths(config: ServerConfig) -> tuple[bytes, ...]:
    """What is asked again and again by machines, and not logged."""
    if config.access_log_health:
        return ()
    own = (config.health_check_path.encode(),) if config.health_check_path is not None else ()
    return (*own, b"/livez", b"/readyz") if config.probes else own


def create(service: Service) -> AccessLog | None:
    return AccessLog(service) if service.config.access_log else None


plugin = Plugin(name="access_log", api=API_VERSION, observers=(ObserverFactory(name="access_log", create=create),))
