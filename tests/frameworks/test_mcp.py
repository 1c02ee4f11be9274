"""An MCP server over streamable HTTP: a session of POSTs whose answers are event streams."""

import asyncio
from collections.abc import Callable

import httpx2
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import MCPServer
from tests.frameworks.wires import Site


def add_server() -> MCPServer:
    server = MCPServer("adder")

    @server.tool()
    def add(a: int, b: int) -> int:
        """The sum."""
        return a + b

    return server


def test_tools_are_listed_and_called(serve: Callable[..., Site]) -> None:
    site = serve(add_server().streamable_http_app())

    async def run() -> tuple[list[str], str]:
        async with (
            httpx2.AsyncClient(verify=site.context, trust_env=False) as client,
            streamable_http_client(f"{site.url}/mcp", http_client=client) as (read, write),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            tools = await session.list_tools()
            result = await session.call_tool("add", {"a": 2, "b": 3})
            return [tool.name for tool in tools.tools], result.content[0].text

    assert asyncio.run(run()) == (["add"], "5")
