"""What a message costs, in bytecodes on one connection in memory: the same on whatever machine, however busy."""

import asyncio
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from benchmarks.load.websocket_apps import echo
from benchmarks.load.websocket_client import HANDSHAKE, masked, unmasked

import pounce
import pounce_ws
from pounce.config import ServerConfig
from pounce.registry import Registry
from pounce.testing import MemoryConnection

SOURCES = tuple(str(Path(str(package.__file__)).parent) for package in (pounce, pounce_ws))
MESSAGES = 10
"""So few that an application has its share of the turn."""
TOOL = 4
"""An id that no tool of Python's own has."""

monitoring = sys.monitoring


def executed(size: int) -> int:
    """Bytecodes of the server for a message of so many bytes that comes alone, and the same back."""
    found: Counter[str] = Counter()
    this_thread = threading.get_ident()

    def count(code: Any, offset: int) -> object:
        if threading.get_ident() != this_thread:
            # A server that another test has left running.
            return None
        if not code.co_filename.startswith(SOURCES):
            return monitoring.DISABLE
        found[code.co_qualname] += 1
        return None

    async def serve() -> None:
        connection = MemoryConnection(echo, registry=Registry.discover(ServerConfig()), access_log=False)
        connection.feed(HANDSHAKE)
        await connection.settle()
        frame = masked(b"x" * size)
        for number in range(2 * MESSAGES):
            if number == MESSAGES:
                monitoring.set_events(TOOL, monitoring.events.INSTRUCTION)
            connection.protocol.data_received(frame)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        monitoring.set_events(TOOL, 0)
        assert connection.received.endswith(unmasked(b"x" * size) * 2 * MESSAGES)

    monitoring.use_tool_id(TOOL, "cost")
    monitoring.register_callback(TOOL, monitoring.events.INSTRUCTION, count)
    try:
        asyncio.run(serve())
    finally:
        monitoring.set_events(TOOL, 0)
        monitoring.register_callback(TOOL, monitoring.events.INSTRUCTION, None)
        monitoring.free_tool_id(TOOL)
    return round(found.total() / MESSAGES)


@pytest.mark.parametrize("size", [64, 2**14])
def test_message_costs_little(size: int) -> None:
    assert executed(size) <= 900
