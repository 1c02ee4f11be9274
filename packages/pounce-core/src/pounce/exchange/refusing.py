"""Refusing: what exchanges of upgrades have in common that leave their stream to an HttpExchange, to refuse by HTTP."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pounce.contract.head import RequestHead
    from pounce.contract.stream import Stream
    from pounce.errors import PounceError
    from pounce.exchange.host import Host
    from pounce.exchange.http import HttpExchange

__all__ = ["Refusing"]


class Refusing:
    """An exchange that opens something else than an answer, unless it is refused."""

    __slots__ = ()

    head: RequestHead
    service: Host
    stream: Stream
    _http: HttpExchange | None
    """What refuses it, from `_hand_over()` on."""

    def _hand_over(self) -> HttpExchange:
        """Let an HttpExchange answer the request; observers see that one."""
        raise NotImplementedError

    def _deny(self, error: PounceError) -> None:
        self._hand_over().respond(self.service.error_pages.answer(error, self.head, self.stream))

    # As the worker asks of each exchange that runs

    @property
    def answer(self) -> int | None:
        """Where the answer is that refuses; None while there is none."""
        return None if self._http is None else self._http.answer

    def flush_head(self) -> None:
        """Send the head of that answer, which waits for its body."""
        if self._http is not None:
            self._http.flush_head()
