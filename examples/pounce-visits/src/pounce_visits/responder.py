"""The responder: tells the counts of the worker that was asked; a POST begins anew, with the paths in its body."""

import json
from collections.abc import Callable
from typing import Any

from pounce.plugin import ASGIApp, RequestHead, Response, Service
from pounce_visits.counts import Visits

type Respond = Callable[[RequestHead], Response | ASGIApp | None]


def create_responder(service: Service) -> Respond | None:
    if service.settings["visits"].path is None:
        return None
    path = service.settings["visits"].path.encode()
    visits = Visits.of(service)

    async def set_counts(scope: Any, receive: Any, send: Any) -> None:
        # The body, and the client's address, are for an application.
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if scope["client"] is not None and scope["client"][0] not in ("127.0.0.1", "::1"):
            await send({"type": "http.response.start", "status": 403, "headers": []})
        else:
            visits.begin(body.decode("utf-8", "replace").split())
            await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    def respond(head: RequestHead) -> Response | ASGIApp | None:
        if head.target != path:
            return None
        if head.method == b"POST":
            return set_counts
        told = {"worker": service.worker_id, "open": visits.open, "visits": visits.by_path}
        return Response(200, [(b"content-type", b"application/json")], json.dumps(told).encode())

    return respond
