"""Several applications behind one server."""

import asyncio
import traceback
from collections.abc import Awaitable, Mapping
from typing import Any

from pounce.errors import ConfigError
from pounce.middleware.base import App, Scope, Send, called_like_a_coroutine_function, refuse

__all__ = ["Dispatch"]


class _Mounted:
    """An application, and where it is mounted."""

    def __init__(self, where: str, app: App) -> None:
        host, slash, path = where.partition("/")
        if not slash:
            raise ConfigError(f"a mount is a path, or a host and a path (got {where!r})", hint='For example "/api".')
        self.host = host.lower().removesuffix(".").encode()
        self.path = f"/{path}".rstrip("/")
        self.app = app

    def fits(self, host: bytes, path: str) -> bool:
        return (not self.host or self.host == host) and (
            not self.path or path == self.path or path.startswith(self.path + "/")
        )


@called_like_a_coroutine_function
class Dispatch:
    """An ASGI application that hands requests on by host and path: `Dispatch({"/api": api, "/": site})`.

    A key is a path, or a host and a path: `"api.example.org/"`. A dot behind a host says nothing. The longest path that
    fits decides, one with a host before one without. The application finds its path in `root_path`, as ASGI has it;
    `path` stays whole. Without one that fits the answer is 404. Every application has its lifespan and its state; one
    that has no lifespan goes without. The hooks of workers (`worker_hooks`) call all of them. It works under any
    server. Raises `ConfigError`.
    """

    def __init__(self, applications: Mapping[str, App]) -> None:
        mounted = [_Mounted(where, app) for where, app in applications.items()]
        self._mounted = sorted(mounted, key=lambda each: (len(each.path), bool(each.host)), reverse=True)
        # The states are kept in that of the lifespan, which a server with several loops has one of for each.
        self._key = f"pounce.middleware.Dispatch {id(self)}"

    def __call__(self, scope: Scope, receive: Any, send: Send) -> Awaitable[None]:
        if scope["type"] == "lifespan":
            return self._lifespan(scope, receive, send)
        if scope["type"].startswith("pounce.worker."):
            return self._tell_all(scope, receive, send)
        if scope["type"] not in ("http", "websocket", "webtransport"):
            raise NotImplementedError(f"Dispatch knows no scope of type {scope['type']!r}")
        root = scope.get("root_path", "")
        path: str = scope["path"]
        below = path[len(root) :] if path.startswith(root) else path
        host = next((value for name, value in scope["headers"] if name == b"host"), b"").lower()
        if not host.endswith(b"]"):
            host = (host.rpartition(b":")[0] or host).removesuffix(b".")
        for each in self._mounted:
            if each.fits(host, below):
                inner = {**scope, "root_path": root + each.path}
                if "state" in scope:
                    inner["state"] = state = dict(scope["state"])
                    state.update(state.pop(self._key, {}).get(each, {}))
                return each.app(inner, receive, send)
        return refuse(scope, send, 404, b"Not Found")

    async def _lifespan(self, scope: Scope, receive: Any, send: Send) -> None:
        given = scope.get("state", {})
        states = {each: dict(given) for each in self._mounted}
        given[self._key] = states
        lifespans = [_Lifespan(each.app, {**scope, "state": state}) for each, state in states.items()]
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

    async def _tell_all(self, scope: Scope, receive: Any, send: Send) -> None:
        """Call every application with its own state, which nobody else has: loops may have the lifespan in common."""
        given = scope["state"]
        before = given.get(self._key, {})
        states = {each: dict(before.get(each, given)) for each in self._mounted}
        given[self._key] = states
        await asyncio.gather(*(each.app({**scope, "state": states[each]}, receive, send) for each in self._mounted))


class _Lifespan:
    """The lifespan of one of the applications."""

    def __init__(self, app: App, scope: Scope) -> None:
        self._app = app
        self._scope = scope
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._knows_lifespans = False

    async def start(self) -> str | None:
        """What went wrong; an application that does not know lifespans is none the worse for it."""
        self._task = asyncio.create_task(self._run())
        return await self._ask("lifespan.startup")

    async def stop(self) -> str | None:
        if self._task is None:
            return None
        if self._task.done():
            return self._failure()
        why = await self._ask("lifespan.shutdown")
        await asyncio.wait([self._task])
        return why

    async def _run(self) -> None:
        await self._app(self._scope, self._receive, self._answers.put)

    async def _receive(self) -> dict[str, Any]:
        self._knows_lifespans = True
        return await self._messages.get()

    def _failure(self) -> str | None:
        """What an application has raised, unless that was to say that it has no lifespan."""
        task = self._task
        error = None if task is None or task.cancelled() else task.exception()
        return "".join(traceback.format_exception(error)) if error is not None and self._knows_lifespans else None

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
        return self._failure()
