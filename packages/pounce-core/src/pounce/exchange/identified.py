"""Exchanges whose answers carry the id of their request: what HttpExchange is where request ids are on."""

from typing import TYPE_CHECKING, Any

from pounce.contract.head import AnswerFields, ExtendedFields
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
        fields, extensions = self._headers, self.head.extensions
        name = self.service.request_id_field
        if type(fields) is AnswerFields and extensions is not None and name not in (fields.by_name or fields.names()):
            number: Any = extensions["request_id"]
            self._headers = ExtendedFields(fields, [(name, number.encode())])
