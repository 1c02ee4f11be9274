"""The status page: how the server does, in a browser, by server-sent events.

The page itself tells nothing, and is for everybody. What it shows is at `events` below it, on loopback or for the
token, which it asks for where it must.
"""

import asyncio
import json
import re
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from pounce.endpoints.access import may_see
from pounce.endpoints.answer import answer
from pounce.exchange.scope import split_target

if TYPE_CHECKING:
    from pounce.contract.head import RequestHead
    from pounce.contract.pieces import Response
    from pounce.contract.wire import ASGIApp, Service

__all__ = ["status_page_responder"]

INTERVAL = 1.0
"""Seconds between two events."""
NOSNIFF = (b"x-content-type-options", b"nosniff")
VIEWERS_MAX = 32
"""Of one worker at a time."""


def status_page_responder(service: Service) -> Callable[[RequestHead], Response | ASGIApp | None]:
    """Answers GET and HEAD of `status_page_path`, and of `events` below it: 200, 403, or 503 for too many viewers."""
    page = (files("pounce.endpoints") / "status_page.html").read_bytes()
    policy = _policy(page)
    at = service.config.status_page_path.encode()
    events = at + b"events"
    token = service.config.secret("introspection_token")
    viewers = 0

    async def show(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, 200, b"text/html; charset=utf-8", page, NOSNIFF, (b"content-security-policy", policy))

    def stream(relayed: bool) -> ASGIApp:
        async def stream(scope: Any, receive: Any, send: Any) -> None:
            nonlocal viewers
            if not may_see(scope, token, relayed=relayed):
                await answer(send, 403, b"text/plain", b"this is told on loopback, or for the token alone\n", NOSNIFF)
            elif viewers >= VIEWERS_MAX:
                await answer(send, 503, b"text/plain", b"too many look already\n", NOSNIFF)
            else:
                viewers += 1
                try:
                    await _events(service, scope, send)
                finally:
                    viewers -= 1

        return stream

    direct, through = stream(False), stream(True)

    def respond(head: RequestHead) -> Response | ASGIApp | None:
        # `in` has bytes raise an error, and drop it, before it looks.
        if head.target.find(at) < 0 or head.method not in (b"GET", b"HEAD"):
            return None
        path = split_target(head.target)[0]
        if path == at:
            return show
        if path == events:
            return through if head.relayed else direct
        return None

    return respond


async def _events(service: Service, scope: Any, send: Any) -> None:
    """An event every second, until the client leaves or the worker ends."""
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if scope["method"] == "HEAD":
        await send({"type": "http.response.body"})
        return
    begun = service.loop.time()
    try:
        while not service.draining:
            try:
                totals = await service.totals()
            except TimeoutError:
                found: dict[str, Any] = {}
            else:
                found = {"counts": totals.counts, "gauges": totals.gauges | totals.processes}
            found["at"] = service.loop.time() - begun
            await send({"type": "http.response.body", "body": _event(found), "more_body": True})
            await asyncio.sleep(INTERVAL)
        await send({"type": "http.response.body"})
    except OSError:
        # The viewer has left.
        pass


def _event(found: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(found).encode() + b"\n\n"


def _policy(page: bytes) -> bytes:
    """Nothing runs and nothing is shown but what is in the page (CSP 3)."""

    def hashes(tag: bytes) -> bytes:
        found = re.findall(rb"<%b>(.*?)</%b>" % (tag, tag), page, re.DOTALL)
        return b" ".join(b"'sha256-%b'" % b64encode(sha256(each).digest()) for each in found)

    return (
        b"default-src 'none'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        b"script-src %b; style-src %b" % (hashes(b"script"), hashes(b"style"))
    )
