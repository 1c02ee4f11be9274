"""Host: what the exchanges of HTTP requests need of their service, beside what wires and plugins may use of it."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from pounce.contract import wire
from pounce.contract.head import Headers, RequestHead
from pounce.contract.pieces import Observer
from pounce.contract.stream import Exchange, RunsApp, Stream
from pounce.errors import BadRequest, PounceError
from pounce.exchange.crossing import Crossing
from pounce.exchange.draining import DrainNotice
from pounce.exchange.error_pages import ErrorPages
from pounce.exchange.response_headers import ResponseHeaders

__all__ = ["Compression", "ErrorApps", "Host"]


class ErrorApps(Protocol):
    """What answers in place of error pages; see `pounce.exchange.error_apps`."""

    def answer(
        self,
        service: Host,
        error: PounceError,
        head: RequestHead,
        stream: Stream,
        started: float,
        failure: BaseException | None,
    ) -> bool: ...


class Compression(Protocol):
    """What codes the answers of an application; see `pounce.middleware.compression`."""

    min_size: int
    """Below it an answer is not to be coded, whatever else it says."""

    def leaves(self, status: int, fields: Headers) -> bool:
        """Whether an answer with these fields is left as it is, whatever its client accepts."""

    def sender(self, scope: dict[str, Any], send: Any, /) -> Any:
        """The `send` for the application of this request; what it makes of an answer goes to `send`."""


class Host(wire.Service, Protocol):
    """`pounce.exchange.service.Service` as the requests see it that it opens: their files stand below its own."""

    app: wire.ASGIApp
    compressed: wire.ASGIApp | None
    """The application whose answers `compression` is asked about."""
    compression: Compression | None
    crossing: Crossing
    described: dict[str, Any]
    disconnects: bool
    drain_notice: DrainNotice
    error_apps: ErrorApps | None
    error_pages: ErrorPages
    exchange_class: Any
    """What answers requests over HTTP here: an `HttpExchange`."""
    max_request_size: int
    methods: dict[bytes, str]
    observers: tuple[Observer, ...]
    offered: Any
    offers_hints: bool
    receivers: set[Any]
    """Exchanges whose application waits in `receive()`."""
    request_id_field: bytes
    response_headers: ResponseHeaders
    state: dict[str, Any]

    def start(self, exchange: RunsApp, app: wire.ASGIApp) -> None:
        """Start the application of a request, as soon as there is a place for it."""

    def run_app(self, exchange: RunsApp, app: wire.ASGIApp) -> asyncio.Task[None]:
        """Start an application of the user's for a request, which may take `app_timeout`."""

    def start_app(self, exchange: RunsApp, app: wire.ASGIApp) -> asyncio.Task[None]:
        """Start an application for one exchange, whatever is the matter with it."""

    def app_failed(self, error: BaseException) -> None:
        """Count and log what the application raised."""

    def upgrade_for(self, head: RequestHead) -> wire.Upgrade | None:
        """The upgrade that a request asks for, if it is to be had."""

    def open_upgrade(self, upgrade: wire.Upgrade, head: RequestHead, stream: Stream) -> Exchange:
        """Give a request that may start to the upgrade that it asks for."""

    def tell(self, observer: Observer, event: Callable[..., None], *args: object) -> None:
        """Call a method of an observer; what it raises is counted and logged."""

    def too_large(self) -> BadRequest:
        """The error for a request body above `max_request_size`."""
