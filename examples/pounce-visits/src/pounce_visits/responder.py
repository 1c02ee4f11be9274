"""The responder: tells the counts of the whole server, whichever worker is asked."""

import json
from collections.abc import Callable
from typing import Any

from pounce.plugin import ASGIApp, RequestHead, Response, Service
from pounce_visits.counts import COUNT, OPEN

type Respond = Callable[[RequestHead], Response | ASGIApp | None]


def create_responder(service: Service) -> Respond | None:
    if service.settings["visits"].path is None:
        return None
    path = service.settings["visits"].path.encode()
    not_allowed = Response(405, [(b"allow", b"GET")])

    async def tell(scope: Any, receive: Any, send: Any) -> None:
        # It takes time, since other workers are asked.
        totals = await service.totals()
        counts = {name.removeprefix(COUNT): count for name, count in totals.counts.items() if name.startswith(COUNT)}
        body = json.dumps({"open": totals.gauges.get(OPEN, 0), "visits": counts}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body})

    def respond(head: RequestHead) -> Response | ASGIApp | None:
        if head.target != path:
            return None
        return tell if head.method == b"GET" else not_allowed

    return respond
