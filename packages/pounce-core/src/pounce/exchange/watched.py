"""What observers are told beside the end of a request, where one of them wants to know: a subclass and a set, so that
nothing is called where none does."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from pounce.contract.stream import ConnectionInfo

if TYPE_CHECKING:
    from pounce.contract.pieces import Observer
    from pounce.contract.wire import LiveConnection
    from pounce.exchange.http import HttpExchange

__all__ = ["WatchedConnections", "watched"]


class Service(Protocol):
    """What calls observers."""

    observers: tuple[Observer, ...]

    def tell(self, observer: Observer, event: Callable[..., None], *args: object) -> None: ...


class WatchedConnections(set["LiveConnection"]):
    """The connections of a worker, as `Service.connections`. What has no `ConnectionInfo` is not yet one, or was."""

    def __init__(self, service: Service) -> None:
        super().__init__()
        self._service = service
        self._opened = _methods(service.observers, "connection_opened")
        self._closed = _methods(service.observers, "connection_closed")

    def add(self, connection: LiveConnection, /) -> None:
        super().add(connection)
        info = getattr(connection, "connection", None)
        if isinstance(info, ConnectionInfo):
            for observer, tell in self._opened:
                self._service.tell(observer, tell, info, connection.wire)

    def discard(self, connection: object, /) -> None:
        super().discard(connection)
        info = getattr(connection, "connection", None)
        if isinstance(info, ConnectionInfo):
            for observer, tell in self._closed:
                self._service.tell(observer, tell, info)


def watched(exchange_class: type[HttpExchange], service: Service) -> type[HttpExchange]:
    """The same class, whose instances tell observers that they begin; itself where none wants to know."""
    starters = _methods(service.observers, "started")
    if not starters:
        return exchange_class

    class Watched(exchange_class):  # type: ignore[misc,valid-type]
        __slots__ = ()

        def __init__(self, service: Any, head: Any, stream: Any) -> None:
            # By what stood there before, while it was not known whether the request may start.
            announced = getattr(getattr(stream, "exchange", None), "announced", False)
            super().__init__(service, head, stream)
            if announced:
                return
            for observer, tell in starters:
                service.tell(observer, tell, self)

    return Watched


def _methods(observers: tuple[Observer, ...], name: str) -> list[tuple[Observer, Callable[..., None]]]:
    found = ((observer, getattr(observer, name, None)) for observer in observers)
    return [(observer, method) for observer, method in found if method is not None]
