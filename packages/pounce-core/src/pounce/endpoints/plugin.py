"""What brings the endpoints into a worker where settings ask for them."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from pounce.plugin import API_VERSION, Plugin, RequestHead, Responder, Response

if TYPE_CHECKING:
    from pounce.contract.wire import ASGIApp, Service

__all__ = ["plugin"]


def info(service: Service) -> Callable[[RequestHead], Response | ASGIApp | None] | None:
    if not service.config.introspection_enabled:
        return None
    from pounce.endpoints.info import info_responder

    return info_responder(service)


def status_page(service: Service) -> Callable[[RequestHead], Response | ASGIApp | None] | None:
    if not service.config.status_page_enabled:
        return None
    from pounce.endpoints.status_page import status_page_responder

    return status_page_responder(service)


plugin = Plugin(
    name="endpoints",
    api=API_VERSION,
    responders=(Responder(name="info", create=info), Responder(name="status_page", create=status_page)),
)
