"""EndpointService: the service of a worker, as the connections of a bind see it that is for endpoints alone."""

from collections.abc import Callable, Mapping
from typing import Any

from pounce.config import ServerConfig
from pounce.contract.parser import Parser
from pounce.contract.pieces import Response
from pounce.exchange.bind_service import BindService
from pounce.exchange.service import Identity, Service

__all__ = ["EndpointService"]

SPARE = 32
"""Connections that it may have where all that the server may have are taken: who looks then has reason to."""

NOTHING_HERE = Response(404, [(b"content-type", b"text/plain; charset=utf-8")], b"There is nothing here.\n")


class EndpointService(BindService):
    """Answers what the responders of these `names` answer, and nothing else. Neither the limits for clients nor what is
    around the application concern it."""

    def __init__(
        self,
        service: Service,
        config: ServerConfig,
        settings: Mapping[str, Any],
        create_parser: Callable[[], Parser] | None,
        identity: Identity | None,
        names: tuple[str, ...],
    ) -> None:
        super().__init__(service, config, settings, create_parser, identity)
        here = [(name, respond) for name, respond in service.aside if name in names]
        self._responders = (*(respond for _, respond in here), lambda head: NOTHING_HERE)
        self._responder_names = (*(name for name, _ in here), "nothing")
        self.upgrades, self.switches = {}, {}
        self.peers = None
        self._admit = None

    @property
    def max_connections(self) -> int:  # type: ignore[override] # the worker's own changes, and is set there
        limit: int = vars(self)["_worker"].max_connections
        return limit and limit + SPARE
