"""What the tests of MCP need of its packages, which take long to import."""

from collections.abc import AsyncIterator

import httpx
import httpx2
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import MCPServer
from tests.frameworks.http3 import AsyncH3Transport
from tests.frameworks.wires import Site

__all__ = ["ClientSession", "add_server", "client_of", "streamable_http_client"]


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
