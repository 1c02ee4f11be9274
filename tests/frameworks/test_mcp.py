"""An MCP server over streamable HTTP: a session of POSTs whose answers are event streams."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.frameworks.gates import Gate
from tests.frameworks.wires import PATIENCE, Site


@pytest.fixture(scope="module")
def mcp() -> Any:
    """Imported by the process that runs these tests, and not by each that collects them."""
    from tests.frameworks import mcp_parts

    return mcp_parts


def test_tools_are_listed_and_called(serve: Callable[..., Site], mcp: Any) -> None:
    site = serve(mcp.add_server().streamable_http_app())

    async def run() -> tuple[list[str], str]:
        async with (
            mcp.client_of(site) as client,
            mcp.streamable_http_client(f"{site.url}/mcp", http_client=client) as (read, write),
            mcp.ClientSession(read, write) as session,
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


def test_stream_of_events_ends_when_its_client_leaves(serve: Callable[..., Site], mcp: Any) -> None:
    gate = Gate()
    site = serve(Watched(mcp.add_server().streamable_http_app(), gate), shutdown_timeout=2 * PATIENCE)

    async def run() -> None:
        async with (
            mcp.client_of(site) as client,
            mcp.streamable_http_client(f"{site.url}/mcp", http_client=client, terminate_on_close=False) as streams,
            mcp.ClientSession(*streams) as session,
        ):
            await session.initialize()
            assert await asyncio.to_thread(gate.was_reached)
            assert not gate.left.is_set()

    asyncio.run(run())
    assert gate.was_left()
    site.server.stop(timeout=PATIENCE)
