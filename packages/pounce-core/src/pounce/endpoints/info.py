"""What runs here, as JSON, for those who operate it: `introspection_path`."""

import json
import platform
import sysconfig
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pounce.config import ServerConfig, describe
from pounce.contract.totals import METRICS
from pounce.endpoints.access import may_see
from pounce.endpoints.answer import answer
from pounce.exchange.scope import split_target
from pounce.gil import gil_enabled

if TYPE_CHECKING:
    from pounce.contract.head import RequestHead
    from pounce.contract.pieces import Response
    from pounce.contract.wire import ASGIApp, Service

__all__ = ["info_responder", "redacted"]


def info_responder(service: Service) -> Callable[[RequestHead], Response | ASGIApp | None]:
    """Answers GET and HEAD of `introspection_path`: 200 with JSON, or 403."""
    config = service.config
    wanted = config.introspection_path.encode()
    token = config.secret("introspection_token")
    began = time.monotonic()

    async def told() -> dict[str, Any]:
        try:
            totals = await service.totals()
        except TimeoutError:
            server = None
        else:
            counts = {name: count for name, count in totals.counts.items() if not name.startswith(METRICS)}
            gauges = totals.gauges
            server = {"counts": counts, "connections": gauges["connections"], "running": gauges["running"]}
        return {
            "runtime": _runtime(began, config),
            "worker": {
                "worker_id": service.worker_id,
                "generation": service.generation,
                "active_connections": len(service.connections),
                "draining": service.draining,
            },
            "server": server,
            "config": redacted(config),
        }

    def app(relayed: bool) -> ASGIApp:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            if may_see(scope, token, relayed=relayed):
                status, found = 200, await told()
            else:
                status, found = 403, {"error": "this is told on loopback, or for the token alone"}
            await answer(send, status, b"application/json", json.dumps(found, indent=2).encode())

        return app

    direct, through = app(False), app(True)

    def respond(head: RequestHead) -> Response | ASGIApp | None:
        # `in` has bytes raise an error, and drop it, before it looks.
        if head.target.find(wanted) < 0 or split_target(head.target)[0] != wanted:
            return None
        if head.method not in (b"GET", b"HEAD"):
            return None
        return through if head.relayed else direct

    return respond


def redacted(config: ServerConfig) -> dict[str, Any]:
    """The settings without what may be nobody's business: numbers, switches and choices are told, of all else only
    whether it was set, `NAME_set`."""
    found: dict[str, Any] = {}
    for item in describe():
        value = getattr(config, item.name)
        if not item.secret and (value is None or isinstance(value, bool | int | float) or item.choices):
            found[item.name] = value
        else:
            found[f"{item.name}_set"] = bool(value) and value != item.default
    return found


def _runtime(began: float, config: ServerConfig) -> dict[str, Any]:
    from pounce import __version__

    return {
        "pounce_version": __version__,
        "python_version": platform.python_version(),
        "python_build": {
            "implementation": platform.python_implementation(),
            "compiler": platform.python_compiler(),
            "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        },
        "gil_enabled": gil_enabled(),
        "worker_mode": config.worker_mode,
        "uptime_seconds": round(time.monotonic() - began, 1),
    }
