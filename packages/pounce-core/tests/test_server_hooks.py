"""What can be a server hook, and what is refused before anything starts."""

from functools import partial
from typing import Any

import pytest

from pounce.config import ServerConfig
from pounce.errors import ConfigError
from pounce.supervisor.server_hooks import ServerEvent, ServerHooks

told: list[str] = []
no_function = "text"


def note(event: ServerEvent) -> None:
    told.append(event.name)


async def noting(event: ServerEvent) -> None:
    told.append(event.name)


class Noting:
    async def __call__(self, event: ServerEvent) -> None:
        told.append(event.name)


@pytest.mark.parametrize("hook", [note, partial(note), f"{__name__}:note"], ids=["function", "partial", "name"])
def test_function_is_called_with_the_event(hook: Any) -> None:
    told.clear()
    ServerHooks(ServerConfig(on_exit=hook)).call("on_exit")
    assert told == ["on_exit"]


@pytest.mark.parametrize(
    "hook",
    [noting, partial(noting), Noting(), f"{__name__}:noting"],
    ids=["function", "partial", "object", "name"],
)
def test_hook_that_nobody_would_await_is_refused(hook: Any) -> None:
    with pytest.raises(ConfigError, match="on_exit must not be async"):
        ServerHooks(ServerConfig(on_exit=hook))


def test_name_of_what_is_no_function_is_refused() -> None:
    with pytest.raises(ConfigError, match="on_exit must be a function"):
        ServerHooks(ServerConfig(on_exit=f"{__name__}:no_function"))
