"""Applications that answer in place of the server's error pages, by the status of the error.

Such an application gets the request in question with `scope["extensions"]["pounce.error"]`, which has `status`, `code`
and `message`, and no body. Whatever status it gives, the answer has that of the error, and the fields that the server's
own page would have. One that fails in turn is answered by that page.

The request may have been with the user's application before, which may not have ended: so the error has an exchange of
its own, which takes over the stream.
"""

from typing import TYPE_CHECKING, Any

from pounce.contract.head import RequestHead
from pounce.exchange.http import HELD, HttpExchange

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pounce.contract.head import Headers
    from pounce.contract.stream import Stream
    from pounce.contract.wire import ASGIApp
    from pounce.errors import PounceError
    from pounce.exchange.host import Host

__all__ = ["ErrorApps"]


class ErrorApps:
    """The error applications of one worker."""

    def __init__(self, apps: Mapping[str, ASGIApp], exchange_class: type[HttpExchange], *, debug: bool) -> None:
        """`apps` are by status, as `404`, or by class, as `5xx`."""
        self._apps = apps
        self._debug = debug
        self._exchange_class: Any = type("ErrorExchange", (_ForError, exchange_class), {"__slots__": ("error",)})

    def answer(
        self,
        service: Host,
        error: PounceError,
        head: RequestHead,
        stream: Stream,
        started: float,
        failure: BaseException | None,
    ) -> bool:
        """Have the application for this error answer, if there is one. What it raised is shown by the page, though."""
        app = self._apps.get(str(error.status)) or self._apps.get(f"{error.status // 100}xx")
        if app is None or (self._debug and failure is not None):
            return False
        exchange = self._exchange_class(service, _told(head, error), stream)
        exchange.error = error
        exchange.started = started
        service.run_app(exchange, app)
        return True


class _ForError(HttpExchange):
    """The exchange of an error application."""

    __slots__ = ()

    error: PounceError

    def data_received(self, data: bytes) -> None:
        self.stream.consumed(len(data))

    def eof_received(self, trailers: Headers | None = None) -> None:
        pass

    def _send_start(self, message: Any) -> None:
        if int(message["status"]) >= 200:
            message = {**message, "status": self.error.status}
        super()._send_start(message)
        if self.answer == HELD:
            # As on the page of the server, and once: the code is the server's, when to come back the application's.
            fields = [field for field in self._headers if field[0] != b"x-pounce-error-code"]
            fields.append((b"x-pounce-error-code", self.error.code.encode()))
            present = {name for name, _ in fields}
            fields += [field for field in self.error.fields if field[0] not in present]
            if self.error.status == 503 and all(name != b"retry-after" for name, _ in fields):
                fields.append((b"retry-after", b"5"))
            self._headers = fields

    def _answer_by_app(self, error: PounceError, failure: BaseException | None) -> bool:
        return False


def _told(head: RequestHead, error: PounceError) -> RequestHead:
    """The head of the request as its error application is told of it: there is no body for it."""
    told = {"status": error.status, "code": error.code, "message": error.message}
    return RequestHead(
        head.method,
        head.target,
        head.headers,
        head.version,
        head.scheme,
        content_length=0,
        keep_alive=head.keep_alive,
        extensions={**(head.extensions or {}), "pounce.error": told},
        origin=head.origin,
        # The places are no more those of the fields.
        relayed=bool(head.relayed),
    )
