"""What a message costs, in bytecodes on one connection in memory: the same on whatever machine, however busy."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from benchmarks.load.websocket_apps import echo
from benchmarks.load.websocket_client import HANDSHAKE, masked, unmasked
from tests.bytecodes import counted, switch

import pounce
import pounce_ws
from pounce.config import ServerConfig
from pounce.registry import Registry
from pounce.testing import MemoryConnection

SOURCES = tuple(str(Path(str(package.__file__)).parent) for package in (pounce, pounce_ws))
MESSAGES = 10
"""So few that an application has its share of the turn."""


def executed(size: int) -> int:
    """Bytecodes of the server for a message of so many bytes that comes alone, and the same back."""
    found = 0

    def tell(code: Any) -> bool:
        nonlocal found
        is_ours: bool = code.co_filename.startswith(SOURCES)
        found += is_ours
        return is_ours

    async def serve() -> None:
        connection = MemoryConnection(echo, registry=Registry.discover(ServerConfig()), access_log=False)
        connection.feed(HANDSHAKE)
        await connection.settle()
        frame = masked(b"x" * size)
        for number in range(2 * MESSAGES):
            if number == MESSAGES:
                switch(True)
            connection.protocol.data_received(frame)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        switch(False)
        assert connection.received.endswith(unmasked(b"x" * size) * 2 * MESSAGES)

    with counted(tell):
        asyncio.run(serve())
    return round(found / MESSAGES)


@pytest.mark.parametrize("size", [64, 2**14])
def test_message_costs_little(size: int) -> None:
    assert executed(size) <= 900
