"""Exchanges whose answers say how much of a rate limit is left: what HttpExchange is with `rate_limit_fields` all."""

from typing import TYPE_CHECKING, Any

from pounce.contract.head import extended
from pounce.exchange.http import HELD, HttpExchange

if TYPE_CHECKING:
    from pounce.contract.pieces import Response

__all__ = ["RATE_LIMIT", "RatedExchange"]

RATE_LIMIT = "pounce.rate_limit"
"""Among the extensions of a head that was admitted: the fields for its answer."""


class RatedExchange(HttpExchange):
    """Adds RateLimit and RateLimit-Policy, behind the fields that answers share."""

    __slots__ = ()

    def _send_start(self, message: Any) -> None:
        super()._send_start(message)
        if self.answer == HELD:
            self._add_rate_limit()

    def _begin_own(self, response: Response) -> None:
        super()._begin_own(response)
        self._add_rate_limit()

    def _add_rate_limit(self) -> None:
        extensions: Any = self.head.extensions
        if extensions is None or RATE_LIMIT not in extensions:
            return
        fields: Any = self._headers
        self._headers = extended(fields, list(extensions[RATE_LIMIT]))
