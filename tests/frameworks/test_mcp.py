"""An MCP server over streamable HTTP: a session of POSTs whose answers are event streams."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import httpx2
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import MCPServer
from tests.frameworks.gates import Gate
from tests.frameworks.http3 import AsyncH3Transport
from tests.frameworks.wires import PATIENCE, Site


class Body(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()

    async def aclose(self) -> None:
        await self._stream.aclose()


class H3Transport(httpx2.AsyncBaseTransport):
    """HTTP/3 for the httpx that this client uses."""

    def __init__(self) -> None:
        self._transport = AsyncH3Transport()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        content = await request.aread()
        asked = httpx.Request(request.method, str(request.url), headers=request.headers.raw, content=content)
        answer = await self._transport.handle_async_request(asked)
        assert isinstance(answer.stream, httpx.AsyncByteStream)
        return httpx2.Response(answer.status_code, headers=answer.headers.raw, stream=Body(answer.stream))

    async def aclose(self) -> None:
        await self._transport.aclose()


def add_server() -> MCPServer:
    server = MCPServer("adder")

    @server.tool()
    def add(a: int, b: int) -> int:
        """The sum."""
        return a + b

    return server


def client_of(site: Site) -> httpx2.AsyncClient:
    how = {"transport": H3Transport()} if site.wire.name == "h3" else dict(site.wire.client_settings)
    return httpx2.AsyncClient(verify=site.context, trust_env=False, **how)


def test_tools_are_listed_and_called(serve: Callable[..., Site]) -> None:
    site = serve(add_server().streamable_http_app())

    async def run() -> tuple[list[str], str]:
        async with (
            client_of(site) as client,
            streamable_http_client(f"{site.url}/mcp", http_client=client) as (read, write),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            tools = await session.list_tools()
            result = await session.call_tool("add", {"a": 2, "b": 3})
            return [tool.name for tool in tools.tools], result.content[0].text

    assert asyncio.run(run()) == (["add"], "5")


class Watched:
    """An application and the stream of events that a client of it waits at."""

    def __init__(self, app: Any, gate: Gate) -> None:
        self.app = app
        self.gate = gate

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            await send(message)
            if message["type"] == "http.response.start":
                self.gate.reached.set()

        if scope.get("method") != "GET":
            await self.app(scope, receive, send)
            return
        try:
            await self.app(scope, receive, sending)
        finally:
            self.gate.left.set()


def test_stream_of_events_ends_when_its_client_leaves(serve: Callable[..., Site]) -> None:
    gate = Gate()
    site = serve(Watched(add_server().streamable_http_app(), gate), shutdown_timeout=2 * PATIENCE)

    async def run() -> None:
        async with (
            client_of(site) as client,
            streamable_http_client(f"{site.url}/mcp", http_client=client, terminate_on_close=False) as (read, write),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            assert await asyncio.to_thread(gate.was_reached)
            assert not gate.left.is_set()

    asyncio.run(run())
    assert gate.was_left()
    site.server.stop(timeout=PATIENCE)
