"""A server of the Model Context Protocol, over streamable HTTP at /mcp.

    pip install mcp
    pounce serve mcp_app:app
"""

from mcp.server.mcpserver import MCPServer

server = MCPServer("notes")
_notes: dict[str, str] = {}


@server.tool()
def remember(name: str, text: str) -> str:
    """Keep a note under a name."""
    _notes[name] = text
    return f"{len(_notes)} notes"


@server.tool()
def recall(name: str) -> str:
    """The note of that name."""
    return _notes.get(name, "nothing")


app = server.streamable_http_app()
