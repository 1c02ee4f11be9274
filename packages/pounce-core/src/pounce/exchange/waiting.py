"""Waiting: the exchange of a request of which is not yet known whether it may start.

It stands between what the server answers itself and what answers all else, the application or an upgrade. Whatever
comes of the body meanwhile stays with the wire, whose back-pressure bounds it, and nothing runs. When it is known, it
leaves the stream to the exchange that the request would have had at once, or to that of its refusal. A client that
leaves takes its place with it: the promise is cancelled.
"""

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Any

from pounce.errors import BadRequest

if TYPE_CHECKING:
    from pounce.contract.head import Headers, RequestHead
    from pounce.contract.stream import Exchange, Stream
    from pounce.exchange.host import Host

__all__ = ["Verdict", "WaitingExchange"]

type Verdict = BadRequest | None
"""The error that a request is answered with in place of the application's answer; None lets it start."""


class WaitingExchange:
    """A request whose application may start later."""

    __slots__ = (
        "_ended",
        "_half_closed",
        "_pieces",
        "_promise",
        "_trailers",
        "announced",
        "head",
        "service",
        "started",
        "stream",
    )

    waits = True
    bytes_sent = 0
    broken = False
    close_code: int | None = None
    queued = 0.0
    status = 0

    def __init__(self, service: Host, head: RequestHead, stream: Stream, promise: asyncio.Future[Verdict]) -> None:
        """`promise` gets a result on the worker's loop, and no exception; it is cancelled when the client leaves."""
        stream.exchange = self
        self.service = service
        self.head = head
        self.stream = stream
        self.started = monotonic()
        self._promise: asyncio.Future[Verdict] | None = promise
        self._pieces: list[bytes] = []
        self._ended = False
        self._trailers: Headers | None = None
        self._half_closed = False
        self.announced = head.upgrade is None
        """Observers know that it has started, and are not told again by the exchange that answers it."""
        if self.announced:
            for observer in service.observers:
                tell = getattr(observer, "started", None)
                if tell is not None:
                    service.tell(observer, tell, self)
        promise.add_done_callback(self._decided)

    # Events from the wire

    def data_received(self, data: bytes) -> None:
        self._pieces.append(data)

    def eof_received(self, trailers: Headers | None = None) -> None:
        self._ended = True
        self._trailers = trailers

    def half_closed(self) -> None:
        self._half_closed = True

    def resume_writing(self) -> None:
        pass

    def stream_lost(self, exc: Exception | None) -> None:
        promise, self._promise = self._promise, None
        if promise is not None:
            promise.cancel()
            # For the log and the counts, and for the answer to a peer that broke a rule.
            self._exchange().stream_lost(exc)

    # The end of waiting

    def _decided(self, promise: asyncio.Future[Verdict]) -> None:
        if self._promise is None:
            # The client has left.
            return
        self._promise = None
        verdict = promise.result()
        service, head, stream = self.service, self.head, self.stream
        if verdict is not None:
            self._give_body_to(service.refuse(head, stream, verdict))
        elif (upgrade := service.upgrade_for(head)) is not None:
            self._give_body_to(service.open_upgrade(upgrade, head, stream))
        else:
            exchange = self._exchange()
            self._give_body_to(exchange)
            # One whose body is too large is answered.
            if not exchange.status:
                service.start(exchange, service.app)

    def _exchange(self) -> Any:
        exchange = self.service.exchange_class(self.service, self.head, self.stream)
        exchange.started = self.started
        return exchange

    def _give_body_to(self, exchange: Exchange) -> None:
        pieces, self._pieces = self._pieces, []
        if pieces:
            exchange.data_received(b"".join(pieces))
        if self._ended:
            exchange.eof_received(self._trailers)
        if self._half_closed:
            exchange.half_closed()
