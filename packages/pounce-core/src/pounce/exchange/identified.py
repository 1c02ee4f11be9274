"""Exchanges whose answers carry the id of their request: what HttpExchange is where request ids are on."""

from typing import TYPE_CHECKING, Any

from pounce.contract.head import extended
from pounce.exchange.http import HELD, HttpExchange

if TYPE_CHECKING:
    from pounce.contract.pieces import Response

__all__ = ["IdentifiedExchange"]


class IdentifiedExchange(HttpExchange):
    """Adds the field that the setting `request_id_header` names, unless the application has sent one.

    It stands behind the fields that answers share, so that those are still encoded once for all.
    """

    __slots__ = ()

    def _send_start(self, message: Any) -> None:
        super()._send_start(message)
        if self.answer == HELD:
            self._add_id()

    def _begin_own(self, response: Response) -> None:
        super()._begin_own(response)
        self._add_id()

    def _add_id(self) -> None:
        fields: Any = self._headers
        name = self.service.request_id_field
        extensions: Any = self.head.extensions
        if name not in (fields.by_name or fields.names()) and extensions is not None:
            self._headers = extended(fields, [(name, extensions["request_id"].encode())])
