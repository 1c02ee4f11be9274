"""Sending what waits to be sent, within a bound, when a worker ends."""

import asyncio
import threading
from collections.abc import Callable

__all__ = ["FLUSH_TIMEOUT", "flushed"]

FLUSH_TIMEOUT = 5.0
"""Seconds that a worker waits at its end for a receiver."""


async def flushed(flush: Callable[[], object], timeout: float = FLUSH_TIMEOUT) -> None:
    """Call `flush`, which blocks, on a thread, and wait for it no longer than `timeout` seconds."""
    loop = asyncio.get_running_loop()
    is_over = asyncio.Event()

    def run() -> None:
        try:
            flush()
        finally:
            try:
                loop.call_soon_threadsafe(is_over.set)
            except RuntimeError:
                # Nobody waits any longer: the loop is closed.
                pass

    # No thread of an executor, whose end Python waits for when it exits.
    threading.Thread(target=run, name="pounce flush", daemon=True).start()
    try:
        async with asyncio.timeout(timeout):
            await is_over.wait()
    except TimeoutError:
        pass
