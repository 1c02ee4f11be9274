"""The access log: a line for each request, once its last byte has left."""

import logging
import re
from collections.abc import Callable
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from pounce.config import ServerConfig
from pounce.errors import ConfigError
from pounce.exchange.scope import METHODS, split_target
from pounce.observe.access_entry import AccessEntry
from pounce.observe.formats import FIELD_MAX, LOGGER, access_format, cut, plain_line, usual_line
from pounce.observe.logs import BoundedQueueHandler
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


INFO, WARNING = logging.INFO, logging.WARNING


class AccessLog:
    """Observer that hands an `AccessEntry` to the logger `pounce.access`; or the line that it makes of one to the
    thread that writes, where nobody else would get the record.

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
        self._chooses = self._filter is not None or bool(self._health) or self._sample < 1
        write, self._pick = access_format(config.access_log_format)
        # Made for this worker alone, as each entry counts it.
        self._write = write
        self._as_text = write if write is not None else usual_line("text")
        self._as_json = write if write is not None else usual_line("json")
        named = config.access_log_format if config.access_log_format in ("text", "json") else None
        self._is_usual = write is None or named is not None
        self._plain_text, self._plain_json = plain_line(named or "text"), plain_line(named or "json")
        self._some_wait = config.limit_concurrency > 0
        self._methods = {method.encode(): method for method in METHODS}
        self._service = service
        self._own: list[BoundedQueueHandler] = []
        """The one handler that takes lines, once it is known."""
        self._log = logging.getLogger(LOGGER)

    def upgraded(self, exchange: Completed) -> None:
        """A line for the handshake; that of `completed()` tells how and when it ended."""
        self.completed(exchange)

    def completed(self, exchange: Completed) -> None:
        status, log = exchange.status, self._log
        if not log.isEnabledFor(INFO if status < 500 else WARNING):
            return
        if self._chooses and not self._wants(exchange, status):
            return
        head = exchange.head
        given = head.target
        target = given.decode() if given.isascii() else given.decode("latin-1")
        method = self._methods.get(head.method) or cut(head.method.decode("latin-1"))
        # Thousands of lines may wait until they are written.
        if len(target) > FIELD_MAX:
            target = cut(target)
        connection, extensions, origin = exchange.stream.connection, head.extensions, head.origin
        peer, tls, started = connection.peer if origin is None else origin.peer, connection.tls, exchange.started
        client = f"{peer[0]}:{peer[1]}" if peer is not None else "unix"
        request_id = extensions.get("request_id") if extensions is not None else None
        try:
            first_byte, trace_id, trusts = exchange.first_byte, exchange.trace_id, exchange.service.trusts  # type: ignore[attr-defined]
            queued = exchange.queued if self._some_wait else 0.0
        except AttributeError:
            first_byte, trace_id = getattr(exchange, "first_byte", None), getattr(exchange, "trace_id", None)
            # Binds may differ in whom they trust.
            trusts = getattr(exchange, "service", self._service).trusts
            queued = getattr(exchange, "queued", 0.0)
        if trace_id is None and trusts is not None and trusts(connection):
            trace_id = _trace_id(head)
        writer = self._own_writer(log)
        if writer is not None and self._is_usual and tls is None and first_byte is None and trace_id is None:
            if exchange.close_code is None and not exchange.broken and not queued:
                plain = self._plain_json if writer.form == "json" else self._plain_text
                duration = monotonic() - started
                writer.take(
                    plain(
                        time(),
                        client,
                        method,
                        target,
                        head.version,
                        head.scheme,
                        status,
                        exchange.bytes_sent,
                        duration,
                        self._worker,
                        request_id,
                    )
                )
                return
        # By position: with names it would take three times as long.
        entry = AccessEntry(
            time(),
            client,
            method,
            target,
            head.version,
            status,
            exchange.bytes_sent,
            monotonic() - started,
            self._worker,
            head.scheme,
            not exchange.broken,
            exchange.close_code,
            request_id,
            trace_id,
            (tls.get("tls_version"), tls.get("cipher_suite")) if tls is not None else None,
            queued,
            first_byte - started if first_byte is not None else None,
            self._pick(exchange) if self._pick is not None else (),
            self._write,
        )
        if writer is not None:
            writer.take((self._as_json if writer.form == "json" else self._as_text)(entry))
        else:
            # As its `log()` does, but for the search through the stack for who calls it: that is here.
            level = INFO if status < 500 else WARNING
            log.handle(log.makeRecord(LOGGER, level, "", 0, entry, (), None))

    def _wants(self, exchange: Completed, status: int) -> bool:
        """Whether the settings want a line for this one."""
        if self._sample < 1 and 0 < status < 400 and not exchange.broken and self._random() >= self._sample:
            return False
        head = exchange.head
        if self._health and split_target(head.target)[0] in self._health and head.method in (b"GET", b"HEAD"):
            return False
        if self._filter is None:
            return True
        method, target = head.method.decode("latin-1"), head.target.decode("latin-1")
        return bool(self._filter(method, target.partition("?")[0], status))

    def _own_writer(self, log: logging.Logger) -> BoundedQueueHandler | None:
        """What takes lines as they are, where it alone would get the record: a line then costs none."""
        above: Any = log.parent
        if log.handlers or log.filters or not log.propagate or above.propagate:
            return None
        own = self._own
        if above.handlers != own:
            handlers = above.handlers
            if len(handlers) != 1 or type(handlers[0]) is not BoundedQueueHandler or handlers[0].form is None:
                return None
            own = self._own = handlers.copy()
        handler = own[0]
        return None if handler.filters or handler.level else handler


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

        found = import_object(found, config, "access_log_filter")
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
