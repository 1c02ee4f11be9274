"""Shared: what the workers of one process have in common, made once before they start."""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pounce.app_failure import in_words, is_from_outside
from pounce.config import ServerConfig, describe
from pounce.contract.parser import ParserLimits
from pounce.display import display_of
from pounce.errors import AppImportError, ConfigError, TLSError
from pounce.exchange.service import Admit, ASGIApp, Service
from pounce.gil import gil_enabled
from pounce.importer import adapted, called, import_app, import_factory, import_object, is_factory, made_by
from pounce.net.bind import Bind, binds_of
from pounce.observe.logs import keep_enabled
from pounce.registry import Registry
from pounce.worker.gil_watch import GilWatch
from pounce.worker.state import Description

if TYPE_CHECKING:
    from pounce.admission.buffers import Buffers
    from pounce.admission.concurrency import Gate
    from pounce.admission.peers import Peers
    from pounce.net.tls import ServerTLS

__all__ = ["Shared", "admission_of", "prepare"]

log = logging.getLogger("pounce")


@dataclass(frozen=True, slots=True)
class Shared:
    """What the workers of one process have in common; nothing of it changes while they serve, but for certificates
    that are renewed, what `gil_watch` has seen, and what is in `gate`, `peers` and `buffers`."""

    config: ServerConfig
    application: Callable[[], ASGIApp]
    """Gives a worker its application, on its loop: the same to all, or one of its own. Raises `AppImportError`."""
    registry: Registry
    tls: ServerTLS | None
    """That of binds which have none of their own."""
    gil_watch: GilWatch
    generation: int = 0
    """How often the server was reloaded before this process started."""
    admission: tuple[Callable[[Service], Admit], ...] = ()
    """Makes the steps by which each worker admits requests."""
    peers: Peers | None = None
    """Counts the connections of each address in all of them."""
    buffers: Buffers | None = None
    """What all of them hold for their peers."""
    bind_tls: Mapping[Bind, ServerTLS] = MappingProxyType({})
    """Of binds that have settings of TLS of their own."""
    gate: Gate | None = None
    """What bounds the requests that run in all of them."""

    def describe(self) -> Description:
        """How it is served."""
        return Description(
            gil=gil_enabled(),
            tls=self.tls is not None,
            wires=tuple(self.registry.wires),
            http_parser=self.registry.parser(self.config.http_parser).name,
            display=display_of(self.config, self._first_app()),
        )

    @property
    def all_tls(self) -> tuple[ServerTLS, ...]:
        """The server's and those of binds."""
        return (*([self.tls] if self.tls is not None else []), *self.bind_tls.values())

    def _first_app(self) -> ASGIApp | None:
        application = self.application
        return application.first if isinstance(application, OnePerWorker) else application()


def prepare(config: ServerConfig, app: ASGIApp | str, registry: Registry | None = None, generation: int = 0) -> Shared:
    """Find the plugins, import or make the application, read the certificate. Raises a `PounceError`."""
    registry = registry or Registry.discover(config)
    # The application may configure its own log when it is imported.
    keep_enabled()
    _report_plugins(registry)
    # What is needed for certain is imported before the application, whose folder may have modules of the same names.
    tls, bind_tls = _tls(config, registry)
    registry.parser(config.http_parser).create(ParserLimits())
    admission = admission_of(config)
    application = _application(app, config)
    # From here on nobody else looks at what is imported.
    return Shared(
        config,
        application,
        registry,
        tls,
        GilWatch(),
        generation,
        admission=admission,
        peers=peers_of(config),
        buffers=buffers_of(config),
        gate=gate_of(config),
        bind_tls=bind_tls,
    )


def buffers_of(config: ServerConfig) -> Buffers | None:
    """What is held for the peers of one process; None where nobody adds that up."""
    if not config.max_buffered:
        return None
    from pounce.admission.buffers import Buffers

    return Buffers(config.max_buffered)


def peers_of(config: ServerConfig) -> Peers | None:
    """What counts the connections of each address; None where nobody does. Raises `ConfigError`."""
    if not config.max_connections_per_peer:
        return None
    from pounce.admission.peers import Peers

    return Peers(config)


def gate_of(config: ServerConfig) -> Gate | None:
    """What bounds the requests that run in one process; None where nothing does."""
    if not config.limit_concurrency:
        return None
    from pounce.admission.concurrency import Gate

    return Gate(config.limit_concurrency, config.request_queue_max_depth if config.request_queue_enabled else None)


def admission_of(config: ServerConfig) -> tuple[Callable[[Service], Admit], ...]:
    """What makes the steps by which the workers of a process admit requests. Raises `ConfigError`."""
    if not config.rate_limit_enabled:
        return ()
    from pounce.admission.rate_limit import RateLimits

    return (RateLimits(config),)


class OnePerWorker:
    """Calls a factory for each worker, so that each loop has an application of its own."""

    def __init__(self, app: ASGIApp | str, config: ServerConfig) -> None:
        """Raises `AppImportError` when the factory cannot be had."""
        self._config = config
        self._name = app if isinstance(app, str) else repr(app)
        self._factory: object = app
        if isinstance(app, str):
            self._factory, culprit = import_factory(app, config)
            _report_gil(culprit)
        self._lock = threading.Lock()
        """Makes them one after the other: nobody has written a factory to run on several threads at once."""
        self._made = 0
        self.first: ASGIApp | None = None
        """The first that was made."""

    def __call__(self) -> ASGIApp:
        with self._lock:
            had_gil = gil_enabled()
            try:
                app: ASGIApp = made_by(self._factory, self._name, self._config)
            except AppImportError as exc:
                if self._made and exc.hint is None:
                    exc.hint = (
                        "It could be called before. With application_scope process all workers have one application,"
                        " with worker_mode process each has a process."
                    )
                raise
            self._made += 1
            self.first = self.first or app
            if gil_enabled() and not had_gil:
                _report_gil(self._name)
            return app


def has_one_per_worker(app: ASGIApp | str, config: ServerConfig) -> bool:
    """Whether each worker is to have an application of its own. Raises `ConfigError` where it cannot have one."""
    scope = config.application_scope
    if is_factory(app, config):
        return scope == "worker" or (scope == "auto" and config.lifespan_scope == "worker")
    if scope == "worker" and config.worker_mode not in ("process", "subinterpreter"):
        raise ConfigError(
            "application_scope worker needs a factory, for an application that is there already is one for all",
            hint="Name what makes it: main:create_app(), or main:create_app with --factory.",
        )
    return False


def _application(app: ASGIApp | str, config: ServerConfig) -> Callable[[], ASGIApp]:
    if has_one_per_worker(app, config):
        return OnePerWorker(app, config)
    loaded = _load_app(app, config)
    return lambda: loaded


def _load_app(app: ASGIApp | str, config: ServerConfig) -> ASGIApp:
    """The application itself, for one that is named or made by a factory. Raises a `PounceError`."""
    if isinstance(app, str):
        loaded: ASGIApp
        loaded, culprit = import_app(app, config)
        _report_gil(culprit)
        return loaded
    if not callable(app):
        raise ConfigError(f"app must be an ASGI application or module:attribute (got {app!r})")
    checked: ASGIApp = adapted(called(app, repr(app)) if config.factory else app, config)
    return checked


def _tls(config: ServerConfig, registry: Registry) -> tuple[ServerTLS | None, dict[Bind, ServerTLS]]:
    """The server's, and that of each bind which has settings of its own for it. Raises a `PounceError`."""
    # Also without TLS: whether the wires that binds name are there shows before anything is opened.
    offers: list[tuple[str, ...]] = []
    own: dict[Bind, tuple[ServerConfig, tuple[str, ...]]] = {}
    for bind in binds_of(config):
        alpn: tuple[str, ...] = ()
        if bind.datagrams:
            registry.datagram_wire(bind.wires[0])
        else:
            alpn = registry.wire_table(bind.wires).alpn
        its = registry.config_of(bind, config)
        if bind.tls is not False and its.uses_tls and any(getattr(its, name) != getattr(config, name) for name in TLS):
            own[bind] = its, alpn
        elif not bind.datagrams:
            offers.append(alpn)
    if not config.uses_tls and not own:
        return None, {}
    from pounce.net.tls import ServerTLS

    tls = ServerTLS(config, registry.wire_table().alpn, offers, _change(config)) if config.uses_tls else None
    return tls, {bind: ServerTLS(its, alpn, change=_change(its)) for bind, (its, alpn) in own.items()}


TLS = [item.name for item in describe() if item.per_bind and item.group == "tls" and item.name.startswith("ssl_")]
"""Settings that go into contexts, of which a bind may have its own."""


def _change(config: ServerConfig) -> Any:
    """What changes contexts, if anything does; it raises `TLSError`. Raises `AppImportError`."""
    given: Any = config.ssl_context
    if given is None:
        return None
    hook = import_object(given, config, "ssl_context") if isinstance(given, str) else given

    def change(context: Any) -> None:
        try:
            hook(context)
        except BaseException as exc:
            if is_from_outside(exc):
                raise
            raise TLSError(f"ssl_context failed: {in_words(exc)}", code="POUNCE_TLS_CONTEXT_HOOK_FAILED") from exc

    return change


def _report_gil(culprit: str | None) -> None:
    if culprit is not None:
        log.warning("Importing %s switched the GIL on: workers will not run in parallel", culprit)


def _report_plugins(registry: Registry) -> None:
    for entry in registry.loaded:
        if entry.skipped and not entry.skipped.startswith(("disabled", "plugins are off", "not among")):
            log.warning("Plugin %s (%s) is skipped: %s", entry.name, entry.distribution, entry.skipped)
        if entry.gil_enabled:
            log.warning("Plugin %s (%s) switched the GIL on", entry.name, entry.distribution)
