"""Exchanges whose answers carry the id of their request: what HttpExchange is where request ids are on."""

from typing import TYPE_CHECKING, Any

from pounce.contract.pieces import Response
from pounce.exchange.http import HELD, HttpExchange

if TYPE_CHECKING:
    from pounce.contract.head import Headers

__all__ = ["IdentifiedExchange"]


class IdentifiedExchange(HttpExchange):
    """Adds the field that the setting `request_id_header` names, unless the application has sent one."""

    __slots__ = ()

    def _send_start(self, message: Any) -> None:
        super()._send_start(message)
        if self.answer == HELD:
            self._headers = self._with_id(self._headers)

    def respond(self, response: Response) -> None:
        super().respond(Response(response.status, self._with_id(list(response.headers)), response.body))

    def _with_id(self, headers: Headers) -> Headers:
        extensions = self.head.extensions
        number = extensions.get("request_id") if extensions is not None else None
        field = self.service.request_id_field
        if not isinstance(number, str) or any(name == field for name, _ in headers):
            return headers
        return [*headers, (field, number.encode())]
