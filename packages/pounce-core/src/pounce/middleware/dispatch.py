"""Several applications behind one server."""

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any

from pounce.errors import ConfigError
from pounce.middleware.base import App, Scope, Send, called_like_a_coroutine_function, refuse

__all__ = ["Dispatch"]


class _Mounted:
    """An application, where it is mounted, and the state of its lifespan."""

    def __init__(self, where: str, app: App) -> None:
        host, slash, path = where.partition("/")
        if not slash:
            raise ConfigError(f"a mount is a path, or a host and a path (got {where!r})", hint='For example "/api".')
        self.host = host.lower().encode()
        self.path = f"/{path}".rstrip("/")
        self.app = app
        self.state: dict[str, Any] = {}

    def fits(self, host: bytes, path: str) -> bool:
        return (not self.host or self.host == host) and (
            not self.path or path == self.path or path.startswith(self.path + "/")
        )


@called_like_a_coroutine_function
class Dispatch:
    """An ASGI application that hands requests on by host and path: `Dispatch({"/api": api, "/": site})`.

    A key is a path, or a host and a path: `"api.example.org/"`. The longest path that fits decides, one with a host
    before one without. The application finds its path in `root_path`, as ASGI has it; `path` stays whole. Without one
    that fits the answer is 404. Every application has its lifespan and its state; one that has no lifespan goes
    without. It works under any server. Raises `ConfigError`.
    """

    def __init__(self, applications: Mapping[str, App]) -> None:
        mounted = [_Mounted(where, app) for where, app in applications.items()]
        self._mounted = sorted(mounted, key=lambda each: (len(each.path), bool(each.host)), reverse=True)

    def __call__(self, scope: Scope, receive: Any, send: Send) -> Awaitable[None]:
        if scope["type"] == "lifespan":
            return self._lifespan(scope, receive, send)
        if scope["type"] not in ("http", "websocket"):
            raise NotImplementedError(f"Dispatch knows no scope of type {scope['type']!r}")
        root = scope.get("root_path", "")
        path: str = scope["path"]
        below = path[len(root) :] if path.startswith(root) else path
        host = next((value for name, value in scope["headers"] if name == b"host"), b"").lower()
        if not host.endswith(b"]"):
            host = host.rpartition(b":")[0] or host
        for each in self._mounted:
            if each.fits(host, below):
                inner = {**scope, "root_path": root + each.path}
                if "state" in scope:
                    inner["state"] = {**scope["state"], **each.state}
                return each.app(inner, receive, send)
        return refuse(scope, send, 404, b"Not Found")

    async def _lifespan(self, scope: Scope, receive: Any, send: Send) -> None:
        lifespans = [_Lifespan(each, scope) for each in self._mounted]
        await receive()
        failures = [why for why in await asyncio.gather(*(each.start() for each in lifespans)) if why is not None]
        if failures:
            await asyncio.gather(*(each.stop() for each in lifespans))
            await send({"type": "lifespan.startup.failed", "message": "; ".join(failures)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        failures = [why for why in await asyncio.gather(*(each.stop() for each in lifespans)) if why is not None]
        if failures:
            await send({"type": "lifespan.shutdown.failed", "message": "; ".join(failures)})
        else:
            await send({"type": "lifespan.shutdown.complete"})


class _Lifespan:
    """The lifespan of one of the applications."""

    def __init__(self, mounted: _Mounted, scope: Scope) -> None:
        self._mounted = mounted
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        mounted.state = dict(scope.get("state", {}))
        self._scope = {**scope, "state": mounted.state}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> str | None:
        """What went wrong; an application that does not know lifespans is none the worse for it."""
        self._task = asyncio.create_task(self._run())
        return await self._ask("lifespan.startup")

    async def stop(self) -> str | None:
        if self._task is None or self._task.done():
            return None
        why = await self._ask("lifespan.shutdown")
        await asyncio.wait([self._task])
        return why

    async def _run(self) -> None:
        await self._mounted.app(self._scope, self._messages.get, self._answers.put)

    async def _ask(self, kind: str) -> str | None:
        task = self._task
        assert task is not None
        self._messages.put_nowait({"type": kind})
        answer = asyncio.create_task(self._answers.get())
        await asyncio.wait([task, answer], return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            message = answer.result()
            return str(message.get("message", "")) if message["type"].endswith(".failed") else None
        answer.cancel()
        if task.cancelled() or task.exception() is None or kind == "lifespan.startup":
            # It returned, or raised because it has no lifespan.
            return None
        return repr(task.exception())
