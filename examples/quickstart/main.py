"""An application: what pounce calls for every request. FastAPI, Django and other frameworks make one too."""

from typing import Any


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    found = scope["path"] == "/"
    body = b"Hello, World!\n" if found else b"There is nothing here.\n"
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200 if found else 404, "headers": headers})
    await send({"type": "http.response.body", "body": body})
