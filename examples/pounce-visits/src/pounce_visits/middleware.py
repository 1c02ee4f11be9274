"""The middleware: a field in each answer of the application."""

from typing import Any

from pounce.plugin import ASGIApp, Service
from pounce_visits.counts import Visits


def create_middleware(service: Service, app: ASGIApp) -> ASGIApp | None:
    if not service.settings["visits"].field:
        return None
    visits = Visits.of(service)

    async def with_field(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        before = service.counts.get(visits.name_of(scope["raw_path"].decode("ascii", "replace")), 0)

        async def send_on(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), (b"x-visits", b"%d" % before)]}
            await send(message)

        await app(scope, receive, send_on)

    return with_field
