"""Visits: how often each path was asked for, counted by an observer and told by a responder, in a field, and in a
terminal."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pounce.plugin import (
    API_VERSION,
    Command,
    MiddlewareChoice,
    ObserverFactory,
    Plugin,
    Responder,
    option,
)
from pounce_visits.counts import Visits
from pounce_visits.middleware import create_middleware
from pounce_visits.responder import create_responder


@dataclass(frozen=True)
class Settings:
    path: str | None = option("/visits", "Path at which the counts are told; none tells them nowhere.")
    field: bool = option(False, "Tell in a field of each answer how often its worker had its path before.")
    most: int = option(1000, "Paths that each worker counts; all others are one.", ge=1)

    def __post_init__(self) -> None:
        if self.path is not None and not self.path.startswith("/"):
            raise ValueError(f"visits.path must start with / (got {self.path!r})")


def load_command() -> Callable[..., Any]:
    from pounce_visits.command import visits

    return visits


plugin = Plugin(
    name="visits",
    api=API_VERSION,
    settings=Settings,
    observers=(ObserverFactory(name="visits", create=Visits.of),),
    responders=(Responder(name="visits", create=create_responder),),
    middleware=(MiddlewareChoice(name="visits", create=create_middleware, where="content"),),
    commands=(Command(name="visits", load=load_command),),
)
