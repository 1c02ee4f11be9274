"""Server hooks: functions of the operator that are called in the process which holds the sockets.

They see the life of the server, not that of the application, which under a supervisor is imported elsewhere. They are
called on the thread that supervises, or on the loop where there is one alone; whoever takes long keeps that waiting.
"""

import logging
import os
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Any

from pounce.app_failure import in_words, is_from_outside
from pounce.config import ServerConfig
from pounce.config_checks import HOOKS
from pounce.errors import ConfigError, SupervisorError
from pounce.importer import import_object

__all__ = ["ServerEvent", "ServerHooks"]

log = logging.getLogger("pounce")


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """What a hook is told."""

    name: str
    """Of the setting: `when_ready`."""
    pid: int
    """Of the process that calls it."""
    urls: tuple[str, ...] = ()
    """Where clients find the server, once it serves."""
    generation: int = 0
    """How often it was reloaded."""
    worker_pid: int | None = None
    """The process that has ended."""
    exit_code: int | None = None
    """The negative number of a signal where one ended it."""


class ServerHooks:
    """Those that a configuration has. Raises `AppImportError` for one that cannot be imported.

    And `ConfigError` for what is no function, or one that is to be awaited.
    """

    def __init__(self, config: ServerConfig) -> None:
        self.urls: tuple[str, ...] = ()
        """What all are told of the server from now on, as is the generation."""
        self.generation = 0
        self._hooks: dict[str, Any] = {}
        for name in HOOKS:
            hook = getattr(config, name)
            if hook is not None:
                self._hooks[name] = _checked(name, import_object(hook, config, name) if isinstance(hook, str) else hook)

    def call(self, name: str, **told: Any) -> None:
        """Call it, if there is one; what it raises is logged. `on_starting` raises `SupervisorError`."""
        hook = self._hooks.get(name)
        if hook is None:
            return
        try:
            hook(ServerEvent(name, os.getpid(), self.urls, self.generation, **told))
        except BaseException as exc:
            if is_from_outside(exc):
                raise
            if name == "on_starting":
                raise SupervisorError(f"on_starting failed: {in_words(exc)}", code="POUNCE_HOOK_FAILED") from exc
            log.exception("%s failed", name)


def _checked(name: str, hook: Any) -> Any:
    """Raises `ConfigError`: what would fail at the end is told at the start."""
    if not callable(hook):
        raise ConfigError(f"{name} must be a function (got {hook!r})")
    if iscoroutinefunction(hook) or iscoroutinefunction(type(hook).__call__):
        # With a supervisor there is no loop that could run it.
        raise ConfigError(f"{name} must not be async", hint="Give an ordinary function, which blocks until it returns.")
    return hook
