"""The wires on which applications are served here, and the client that speaks each.

A further wire is a further entry of `WIRES`; every test of frameworks runs on it from then on.
"""

import logging
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from benchmarks.load.certificate import certificate_files
from tests.frameworks.http3 import AsyncH3Transport, H3Transport

from pounce.testing import TestServer

PATIENCE = 60.0
"""Seconds after which a test that waits for an event gives up."""


@dataclass(frozen=True, slots=True)
class Wire:
    """One way to reach the server: `name`, with or without TLS, the server's settings and the client's."""

    name: str
    tls: bool
    http_version: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    client_settings: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name}-{'tls' if self.tls else 'tcp'}"


WIRES = [
    Wire(name, tls=tls, http_version="HTTP/1.1", settings={"http_parser": parser})
    for name, parser in (("h1-h11", "h11"), ("h1-fast", "h1fast"))
    for tls in (False, True)
] + [
    Wire("h2", tls=tls, http_version="HTTP/2", client_settings={"http1": False, "http2": True}) for tls in (False, True)
]
WIRES.append(Wire("h3", tls=True, http_version="HTTP/3", settings={"http3_enabled": True}))


@dataclass(frozen=True, slots=True)
class Certificate:
    """A self-signed certificate for localhost and 127.0.0.1, and its key."""

    certificate: Path
    key: Path

    @classmethod
    def make(cls, folder: Path) -> Certificate:
        return cls(*certificate_files(folder))

    @property
    def settings(self) -> dict[str, Any]:
        """Of a server that uses it."""
        return {"ssl_certfile": str(self.certificate), "ssl_keyfile": str(self.key)}

    def client_context(self) -> ssl.SSLContext:
        """Of a client that trusts it and nothing else."""
        return ssl.create_default_context(cafile=str(self.certificate))


class Site:
    """An application that is being served."""

    def __init__(self, server: TestServer, app: Any, wire: Wire, certificate: Certificate) -> None:
        self.server = server
        self.app = app
        self.wire = wire
        self.certificate = certificate
        self.context = certificate.client_context()
        self.url = server.url

    def _settings(self, settings: dict[str, Any]) -> dict[str, Any]:
        return (
            {"base_url": self.url, "verify": self.context, "trust_env": False, "timeout": PATIENCE}
            | dict(self.wire.client_settings)
            | settings
        )

    def client(self, **settings: Any) -> httpx.Client:
        if self.wire.name == "h3":
            settings["transport"] = H3Transport(str(self.certificate.certificate))
        return httpx.Client(**self._settings(settings))

    def async_client(self, **settings: Any) -> httpx.AsyncClient:
        if self.wire.name == "h3":
            settings["transport"] = AsyncH3Transport()
        return httpx.AsyncClient(**self._settings(settings))


@contextmanager
def serve_on(wire: Wire, certificate: Certificate, app: Any, **settings: Any) -> Iterator[Site]:
    """Serve `app` on a wire."""
    settings = dict(wire.settings) | (certificate.settings if wire.tls else {}) | settings
    with TestServer(app, **settings) as server:
        yield Site(server, app, wire, certificate)


class ServerLog(logging.Handler):
    """Errors that the server logs. A test takes those that it expects; any other fails it."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._lines: list[str] = []
        self._logged = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._logged:
            self._lines.append(record.getMessage() + (f": {record.exc_info[1]!r}" if record.exc_info else ""))
            self._logged.notify_all()

    def take(self, count: int = 0) -> list[str]:
        """What was logged since the last call: messages, with the exception behind each.

        Waits until there are `count`: an answer may arrive before the server has logged what became of it.
        """
        with self._logged:
            self._logged.wait_for(lambda: len(self._lines) >= count, PATIENCE)
            lines, self._lines = self._lines, []
        return lines

    @contextmanager
    def watching(self) -> Iterator[None]:
        loggers = [logging.getLogger(name) for name in ("pounce", "asyncio")]
        for logger in loggers:
            logger.addHandler(self)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeHandler(self)
