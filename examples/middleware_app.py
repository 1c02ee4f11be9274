"""A middleware of one's own, under any server: it counts what each client has got, and refuses beyond a quota.

    pounce serve middleware_app:app
    curl -i http://127.0.0.1:8000/      # the third is refused

or, around an application that knows nothing of it, in pounce.toml: `middleware = ["middleware_app:Quota"]`.
"""

import threading


class Quota:
    """Refuses clients with 429 that have got more than `limit` bytes."""

    def __init__(self, app, limit: int = 10_000) -> None:
        self._app, self._limit = app, limit
        self._sent: dict[str, int] = {}
        self._lock = threading.Lock()  # workers share this object where they are threads

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        client = scope["client"][0] if scope["client"] else "unix"
        if self._sent.get(client, 0) >= self._limit:
            await send({"type": "http.response.start", "status": 429, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            return

        async def counting(message):
            if message["type"] == "http.response.body":
                with self._lock:
                    self._sent[client] = self._sent.get(client, 0) + len(message.get("body", b""))
            await send(message)

        await self._app(scope, receive, counting)


async def large(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"x" * 6000})


app = Quota(large)
