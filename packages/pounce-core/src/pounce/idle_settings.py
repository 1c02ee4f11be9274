"""Settings that were given and do nothing, because what makes them matter is not there."""

import logging
import os
import sys
from typing import TYPE_CHECKING

from pounce.config import OPTIONS, ServerConfig
from pounce.net.bind import binds_of
from pounce.observe.logs import BoundedQueueHandler
from pounce.supervisor.modes import is_supervised, workers_of

if TYPE_CHECKING:
    import asyncio

__all__ = ["idle_settings"]


def idle_settings(config: ServerConfig, loop: asyncio.AbstractEventLoop | None = None) -> str:
    """What there is to say about them: `ssl_ciphers (without ssl_certfile)`; empty where all of them matter.

    `loop` is that of the program around the server, where it serves there. Raises `ConfigError` for a bind that cannot
    be understood.
    """
    found: dict[str, list[str]] = {}
    for item in OPTIONS:
        if getattr(config, item.name) == item.default:
            continue
        reason = _reason(item.name, config, loop)
        if reason is None and item.needs and not any(_is_on(name, config) for name in item.needs.split(" or ")):
            reason = f"without {item.needs}"
        if reason is not None:
            found.setdefault(reason, []).append(item.name)
    return "; ".join(f"{', '.join(names)} ({reason})" for reason, names in found.items())


def _is_on(name: str, config: ServerConfig) -> bool:
    match name:
        case "ssl_certfile":
            return config.uses_tls or any(bind.has_certificate for bind in binds_of(config))
        case "proxy_protocol":
            return any(bind.has_proxy_header(config) for bind in binds_of(config))
        case "uds":
            return any(bind.path is not None for bind in binds_of(config))
        case "lifespan":
            return config.lifespan != "off"
        case _:
            return bool(getattr(config, name))


def _reason(name: str, config: ServerConfig, loop: asyncio.AbstractEventLoop | None) -> str | None:
    """Why a setting does nothing that does where it needs no other one."""
    match name:
        case "host" | "port" if config.bind or config.uds is not None:
            return "with bind or uds"
        case "cpu_affinity" if not hasattr(os, "sched_setaffinity"):
            return "this system has none"
        case "max_rss" if sys.platform != "linux":
            return "this system does not tell"
        case "loop" if loop is not None and workers_of(config) == 1 and not is_supervised(config):
            is_uvloop = type(loop).__module__.startswith("uvloop")
            if (config.loop == "uvloop", config.loop == "asyncio") in ((not is_uvloop, False), (False, is_uvloop)):
                return "the loop is that of the program"
        case "log_format" | "error_log_file" | "access_log_file" if config.log_config is not None:
            return "log_config says it"
        case "log_level" | "log_format" | "log_config" | "error_log_file" | "access_log_file":
            if not is_supervised(config) and not _logs_are_set_up():
                return "the program sets up logging"
    return None


def _logs_are_set_up() -> bool:
    return any(isinstance(handler, BoundedQueueHandler) for handler in logging.getLogger("pounce").handlers)
