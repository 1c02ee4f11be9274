"""WebSocket endpoints of Starlette, FastAPI, Litestar and Django Channels.

Each application has `/room/{name}`, which greets, answers JSON with JSON and bytes with bytes, and closes with 4001 for
`"bye"`; and `/closed`, which is refused.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
import websockets
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.urls import re_path
from fastapi import FastAPI
from litestar import Litestar
from litestar import WebSocket as LitestarWebSocket
from litestar import websocket as litestar_websocket
from litestar.exceptions import WebSocketDisconnect as LitestarDisconnect
from litestar.params import FromPath
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from tests.frameworks import django_site
from tests.frameworks.gates import Gate
from tests.frameworks.tunnel import TunnelWebSocket
from tests.frameworks.wires import PATIENCE, Site


async def room(websocket: WebSocket, name: str) -> None:
    await websocket.accept(subprotocol="chat", headers=[(b"x-room", name.encode())])
    await websocket.send_json({"hello": name, "scheme": websocket.url.scheme})
    try:
        while True:
            message = await websocket.receive()
            websocket._raise_on_disconnect(message)
            if message.get("bytes") is not None:
                await websocket.send_bytes(message["bytes"])
            elif message["text"] == "bye":
                await websocket.close(4001, "see you")
                return
            else:
                await websocket.send_json({"received": json.loads(message["text"])})
    except WebSocketDisconnect as gone:
        if gone.reason:
            Gate.named(gone.reason).left.set()


async def closed(websocket: WebSocket) -> None:
    await websocket.close()


def starlette() -> Any:
    async def endpoint(websocket: WebSocket) -> None:
        await room(websocket, websocket.path_params["name"])

    return Starlette(routes=[WebSocketRoute("/room/{name}", endpoint), WebSocketRoute("/closed", closed)])


def fastapi() -> Any:
    app = FastAPI()
    app.websocket("/room/{name}")(room)
    app.websocket("/closed")(closed)
    return app


def litestar() -> Any:
    @litestar_websocket("/room/{name:str}")
    async def endpoint(socket: LitestarWebSocket, name: FromPath[str]) -> None:
        await socket.accept(subprotocols="chat", headers={"x-room": name})
        await socket.send_json({"hello": name, "scheme": socket.url.scheme})
        try:
            while True:
                message: Any = await socket.receive()
                if message["type"] == "websocket.disconnect":
                    raise LitestarDisconnect(code=message["code"], detail=message["reason"])
                if message.get("bytes") is not None:
                    await socket.send_bytes(message["bytes"])
                elif message["text"] == "bye":
                    await socket.close(4001, "see you")
                    return
                else:
                    await socket.send_json({"received": json.loads(message["text"])})
        except LitestarDisconnect as gone:
            if gone.detail:
                Gate.named(gone.detail).left.set()

    @litestar_websocket("/closed")
    async def refused(socket: LitestarWebSocket) -> None:
        await socket.close()

    return Litestar([endpoint, refused])


class Consumer(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        if self.scope["path"] == "/closed":
            await self.close()
            return
        name = self.scope["url_route"]["kwargs"]["name"]
        await self.accept(subprotocol="chat", headers=[(b"x-room", name.encode())])
        await self.send(json.dumps({"hello": name, "scheme": self.scope["scheme"]}))

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if bytes_data is not None:
            await self.send(bytes_data=bytes_data)
        elif text_data == "bye":
            await self.close(4001, "see you")
        else:
            await self.send(json.dumps({"received": json.loads(text_data or "")}))

    async def websocket_disconnect(self, message: Any) -> None:
        if message.get("reason") and message["code"] != 4001:
            Gate.named(message["reason"]).left.set()
        await super().websocket_disconnect(message)


def channels() -> Any:
    routes = [re_path(r"^room/(?P<name>\w+)$", Consumer.as_asgi()), re_path("^closed$", Consumer.as_asgi())]
    return ProtocolTypeRouter({"http": django_site.application, "websocket": URLRouter(routes)})


@pytest.fixture(params=[starlette, fastapi, litestar, channels], ids=lambda make: make.__name__)
def site(request: pytest.FixtureRequest, serve: Callable[..., Site]) -> Site:
    return serve(request.param(), lifespan="off")


def connect(site: Site, path: str) -> Any:
    if site.wire.name in ("h2", "h3"):
        return TunnelWebSocket(site, path, "chat")
    context = site.context if site.wire.tls else None
    url = site.url.replace("http", "ws", 1) + path
    return websockets.connect(url, ssl=context, subprotocols=["chat"])  # type: ignore[list-item]


def run(conversation: Callable[[], Any]) -> None:
    asyncio.run(asyncio.wait_for(conversation(), PATIENCE))


def test_conversation_and_the_end_by_the_application(site: Site) -> None:
    async def conversation() -> None:
        async with connect(site, "/room/blue") as ws:
            assert ws.subprotocol == "chat"
            assert ws.response.headers["x-room"] == "blue"
            assert json.loads(await ws.recv()) == {"hello": "blue", "scheme": "wss" if site.wire.tls else "ws"}
            await ws.send('{"a": "Zürich ☃"}')
            assert json.loads(await ws.recv()) == {"received": {"a": "Zürich ☃"}}
            await ws.send(bytes(range(256)) * 1000)
            assert await ws.recv() == bytes(range(256)) * 1000
            await ws.send("bye")
            with pytest.raises(websockets.ConnectionClosedError):
                await ws.recv()
            assert (ws.close_code, ws.close_reason) == (4001, "see you")

    run(conversation)


def test_application_hears_that_the_client_closed_and_why(site: Site) -> None:
    gate = Gate()

    async def conversation() -> None:
        async with connect(site, "/room/blue") as ws:
            await ws.recv()
            await ws.close(3333, gate.key)

    run(conversation)
    assert gate.was_left()


def test_refusal_is_403(site: Site) -> None:
    async def conversation() -> None:
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with connect(site, "/closed"):
                pass
        assert refused.value.response.status_code == 403

    run(conversation)
