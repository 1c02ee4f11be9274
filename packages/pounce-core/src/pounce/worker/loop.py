"""Which event loop a worker runs on."""

import asyncio
import importlib
from collections.abc import Callable
from typing import Any

from pounce.errors import ConfigError

__all__ = ["loop_factory"]


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the loop that the setting `loop` names; None stands for asyncio's own.

    `auto` is uvloop where it is installed, else asyncio. Anything with a colon is `module:factory`, called without
    arguments. Raises `ConfigError`.
    """
    if name == "asyncio":
        return None
    if name in ("auto", "uvloop"):
        try:
            import uvloop
        except ImportError as exc:
            if name == "auto":
                return None
            raise ConfigError(
                "loop is uvloop, which is not installed", hint="Install it: pip install 'pounce-core[uvloop]'"
            ) from exc
        factory: Callable[[], Any] = uvloop.new_event_loop
        return factory
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ConfigError(f"loop must be auto, asyncio, uvloop or module:factory (got {name!r})")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as exc:
        raise ConfigError(f"loop {name!r} cannot be imported: {exc}") from exc
    if not callable(found):
        raise ConfigError(f"loop {name!r} is not callable")
    made: Callable[[], Any] = found
    return made
