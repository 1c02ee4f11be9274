"""Health: whether a worker lives, and whether it and its whole server take requests."""

import json
import time
from collections.abc import Callable

from pounce.contract.head import RequestHead
from pounce.contract.pieces import API_VERSION, Plugin, Responder, Response
from pounce.contract.wire import Fleet, Service
from pounce.exchange.scope import split_target

__all__ = ["plugin"]

LIVE, READY = b"/livez", b"/readyz"
PROBES = (LIVE, READY)


def health_responder(service: Service) -> Callable[[RequestHead], Response | None] | None:
    """Answers GET and HEAD of `health_check_path`: 200 with `"status": "ok"`, 503 with `"draining"`."""
    if service.config.health_check_path is None:
        return None
    wanted = service.config.health_check_path.encode()
    started = time.monotonic()

    def respond(head: RequestHead) -> Response | None:
        # `in` has bytes raise an error, and drop it, before it looks.
        if head.target.find(wanted) < 0 or split_target(head.target)[0] != wanted:
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
        return _answer(body, ready=not service.draining)

    return respond


def probes(service: Service) -> Callable[[RequestHead], Response | None] | None:
    """Answers GET and HEAD of `/livez`, by which orchestrators decide on a restart, and of `/readyz`, by which load
    balancers decide on traffic.

    Who answers the first is alive. The second is about the server as a whole: in a reload an old worker that drains
    still has connections, and would take a server out of service that serves.
    """
    if not service.config.probes:
        return None

    def respond(head: RequestHead) -> Response | None:
        path = split_target(head.target)[0]
        if path not in PROBES or head.method not in (b"GET", b"HEAD"):
            return None
        if path == LIVE:
            return _answer(b'{"status": "ok"}', ready=True)
        fleet = service.fleet or _alone(service)
        workers = {name: getattr(fleet, name) for name in ("wanted", "serving", "starting", "draining")}
        status = "ok" if fleet.ready else "draining"
        return _answer(json.dumps({"status": status, "workers": workers}).encode(), ready=fleet.ready)

    return respond


def _alone(service: Service) -> Fleet:
    """Without a supervisor the workers of this process are all there are, and they end together."""
    count = service.workers
    if service.draining:
        return Fleet(wanted=count, serving=0, starting=0, draining=count, ready=False)
    return Fleet(wanted=count, serving=count, starting=0, draining=0, ready=True)


def _answer(body: bytes, *, ready: bool) -> Response:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-cache, no-store"),
    ]
    return Response(200 if ready else 503, headers, body)


plugin = Plugin(
    name="health",
    api=API_VERSION,
    responders=(
        Responder(name="health", create=health_responder),
        Responder(name="probes", create=probes),
    ),
)
