"""The whole answer of an endpoint that is an ASGI application."""

from typing import Any

__all__ = ["answer"]


async def answer(send: Any, status: int, content_type: bytes, body: bytes, *more: tuple[bytes, bytes]) -> None:
    """Send it, with `more` fields; nobody is to keep it."""
    headers = [
        (b"content-type", content_type),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        *more,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
