"""BindService: the service of a worker, as the connections of a bind see it that has settings of its own.

It is made once for each such bind of a worker, and is the worker's service in everything but what follows from these
settings: what is counted, kept and changed by one is counted, kept and changed by all.
"""

from collections.abc import Callable, Mapping
from typing import Any

from pounce.config import ServerConfig
from pounce.contract.parser import Parser
from pounce.exchange.service import Identity, Service

__all__ = ["BindService"]


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
        self._take_settings(config, settings, create_parser, identity)
        self.__dict__["_worker"] = service

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_worker"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        # What is set from the beginning is the bind's own; all that changes later belongs to the worker.
        worker = self.__dict__.get("_worker")
        if worker is None:
            object.__setattr__(self, name, value)
        else:
            setattr(worker, name, value)
