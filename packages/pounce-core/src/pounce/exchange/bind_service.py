"""BindService: the service of a worker, as the connections of a bind see it that has settings of its own.

It is made once for each such bind of a worker, and is the worker's service in everything but what follows from these
settings: what is counted, kept and changed by one is counted, kept and changed by all.
"""

from collections.abc import Callable, Mapping
from typing import Any

from pounce.config import ServerConfig
from pounce.contract.parser import Parser
from pounce.exchange.service import Identity, Service

__all__ = ["CHANGING", "BindService"]


CHANGING = frozenset((
    "ask_totals", "disconnects", "draining", "fleet", "max_connections", "place", "requests", "state",
    "workers",
))  # fmt: skip
"""What of a service is another value later on. All else is made once."""


class BindService(Service):
    """`config` and `settings` are the bind's, and so is what a `Service` makes of them."""

    def __init__(
        self,
        service: Service,
        config: ServerConfig,
        settings: Mapping[str, Any],
        create_parser: Callable[[], Parser] | None,
        identity: Identity | None,
    ) -> None:
        # What stays as it is need not be asked of the worker with each request.
        for name in Service.__slots__:
            if name not in CHANGING:
                setattr(self, name, getattr(service, name))
        self._take_settings(config, settings, create_parser, identity)
        vars(self)["_worker"] = service

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["_worker"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in CHANGING:
            setattr(vars(self)["_worker"], name, value)
        else:
            super().__setattr__(name, value)
