"""The health endpoint: is this worker taking requests?"""

import json
import time
from collections.abc import Callable

from pounce.contract.head import RequestHead
from pounce.contract.pieces import API_VERSION, Plugin, Responder, Response
from pounce.contract.wire import Service
from pounce.exchange.scope import split_target

__all__ = ["plugin"]


def health_responder(service: Service) -> Callable[[RequestHead], Response | None] | None:
    """Answers GET and HEAD of `health_check_path`: 200 with `"status": "ok"`, 503 with `"draining"`."""
    if service.config.health_check_path is None:
        return None
    wanted = service.config.health_check_path.encode()
    started = time.monotonic()

    def respond(head: RequestHead) -> Response | None:
        if wanted not in head.target or split_target(head.target)[0] != wanted:
            return None
        if head.method not in (b"GET", b"HEAD"):
            return None
        body = json.dumps(
            {
                "status": "draining" if service.draining else "ok",
                "uptime_seconds": round(time.monotonic() - started, 1),
                "worker_id": service.worker_id,
                "active_connections": len(service.connections),
            }
        ).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-cache, no-store"),
        ]
        return Response(503 if service.draining else 200, headers, body)

    return respond


plugin = Plugin(name="health", api=API_VERSION, responders=(Responder(name="health", create=health_responder),))
