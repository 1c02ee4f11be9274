"""Exchanges that know the trace of their request: what HttpExchange is where `otel_endpoint` is set."""

from contextvars import ContextVar
from typing import TYPE_CHECKING

from pounce.exchange.http import HttpExchange

if TYPE_CHECKING:
    from pounce.contract.head import RequestHead
    from pounce.contract.stream import Stream
    from pounce.contract.wire import ASGIApp
    from pounce.exchange.host import Host

__all__ = ["TracedExchange", "running"]

running: ContextVar[TracedExchange | None] = ContextVar("running", default=None)
"""The exchange whose application this is, for the middleware that begins its span."""


class TracedExchange(HttpExchange):
    """Has a place for the trace that its request became part of; the access log reads it."""

    __slots__ = ("trace_id",)

    def __init__(self, service: Host, head: RequestHead, stream: Stream) -> None:
        super().__init__(service, head, stream)
        self.trace_id: str | None = None

    async def run(self, app: ASGIApp) -> None:
        running.set(self)
        await super().run(app)
