"""Applications whose parts belong to an event loop, each below a path of its own, made by a factory.

    GET  /NAME      uses them; answers 200 with what came of it
    header x-worker  the worker that answered

Nothing here knows how many workers there are. What takes long to import is imported where it is made: each process that
runs tests imports this module.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
from channels.layers import InMemoryChannelLayer, channel_layers, get_channel_layer
from litestar import Litestar, Request, get
from litestar.events import listener
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}
"""The first request of a client of MCP."""


# aiohttp.ClientSession in app.state


@asynccontextmanager
async def with_session(app: Starlette) -> AsyncIterator[None]:
    async with aiohttp.ClientSession() as session:
        app.state.session = session
        yield


async def fetch(request: StarletteRequest) -> Response:
    async with request.app.state.session.get(request.query_params["url"]) as answer:
        return PlainTextResponse(await answer.text())


def aiohttp_app() -> Any:
    return Starlette(routes=[Route("/", fetch)], lifespan=with_session)


# A lock, for which several wait


def contended(lock: asyncio.Lock) -> Any:
    async def contend(request: StarletteRequest) -> Response:
        order: list[int] = []

        async def take_turns(number: int) -> None:
            async with lock:
                await asyncio.sleep(0)
                order.append(number)

        async with asyncio.TaskGroup() as tasks:
            for number in range(3):
                tasks.create_task(take_turns(number))
        return PlainTextResponse(str(order))

    return Starlette(routes=[Route("/", contend)])


LOCK = asyncio.Lock()
"""As modules have them."""


def lock_app() -> Any:
    return contended(asyncio.Lock())


def module_lock_app() -> Any:
    return contended(LOCK)


# MCP over streamable HTTP


def mcp_app() -> Any:
    from mcp.server.mcpserver import MCPServer

    return MCPServer("empty").streamable_http_app(streamable_http_path="/", stateless_http=True, json_response=True)


# Litestar's events


@listener("asked")
async def tell_the_loop(answer: asyncio.Future[str]) -> None:
    loop = answer.get_loop()
    where = "the same loop" if asyncio.get_running_loop() is loop else "another loop"
    loop.call_soon_threadsafe(answer.set_result, where)


@get("/")
async def ask(request: Request[Any, Any, Any]) -> str:
    answer = asyncio.get_running_loop().create_future()
    request.app.emit("asked", answer)
    return str(await answer)


def litestar_app() -> Any:
    return Litestar([ask], listeners=[tell_the_loop], openapi_config=None)


# Channels


def channels_app() -> Any:
    if "default" not in channel_layers.backends:
        channel_layers.set("default", InMemoryChannelLayer())

    async def send_and_receive(request: StarletteRequest) -> Response:
        layer = get_channel_layer()
        name = await layer.new_channel()
        await layer.group_add("group", name)
        waiting = asyncio.create_task(layer.receive(name))
        await layer.group_send("group", {"type": "said", "text": str(id(layer))})
        message = await waiting
        await layer.group_discard("group", name)
        return PlainTextResponse(message["text"])

    return Starlette(routes=[Route("/", send_and_receive)])


# python-socketio


def socketio_app() -> Any:
    import socketio

    server = socketio.AsyncServer(async_mode="asgi")

    @server.event
    async def say(sid: str, text: str) -> None:
        await server.emit("said", text)

    return socketio.ASGIApp(server, socketio_path="/")


# All of them


APPS: dict[str, Callable[[], Any]] = {
    "aiohttp": aiohttp_app,
    "lock": lock_app,
    "module-lock": module_lock_app,
    "mcp": mcp_app,
    "litestar": litestar_app,
    "channels": channels_app,
    "socketio": socketio_app,
}


class Several:
    """ASGI applications below paths of their own, with a lifespan each."""

    def __init__(self, apps: dict[str, Any]) -> None:
        self._apps = apps

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            async with AsyncExitStack() as running:
                for app in self._apps.values():
                    await running.enter_async_context(lifespan_of(app, scope))
                await send({"type": "lifespan.startup.complete"})
                await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        worker = str(scope["extensions"]["pounce.worker"]["worker_id"]).encode()

        async def send_with_worker(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), (b"x-worker", worker)]}
            await send(message)

        _, name, *_ = scope["path"].split("/")
        path = scope["path"].removeprefix(f"/{name}") or "/"
        inner = {**scope, "path": path, "raw_path": path.encode()}
        await self._apps[name](inner, receive, send_with_worker)


@asynccontextmanager
async def lifespan_of(app: Any, scope: Any) -> AsyncIterator[None]:
    """Start an application, and let it shut down; without one it is left alone."""
    events: asyncio.Queue[str] = asyncio.Queue()
    answers: asyncio.Queue[str] = asyncio.Queue()

    async def receive() -> Any:
        return {"type": await events.get()}

    async def send(message: Any) -> None:
        answers.put_nowait(message["type"])

    events.put_nowait("lifespan.startup")
    task = asyncio.create_task(app({**scope, "state": {}}, receive, send))
    answered = asyncio.create_task(answers.get())
    await asyncio.wait([task, answered], return_when=asyncio.FIRST_COMPLETED)
    if not answered.done() or answered.result() != "lifespan.startup.complete":
        await task
        raise RuntimeError("it did not start")
    try:
        yield
    finally:
        events.put_nowait("lifespan.shutdown")
        await task


def create_app(names: tuple[str, ...] = tuple(APPS)) -> Several:
    return Several({name: APPS[name]() for name in names})


def __getattr__(name: str) -> Any:
    """`app`, with all of them, which take a second to be imported."""
    if name == "app":
        globals()[name] = create_app()
        return globals()[name]
    raise AttributeError(name)
