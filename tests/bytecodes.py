"""Bytecodes as they are executed: what a piece of work costs, the same on whatever machine."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["counted", "switch"]

TOOL = 4
"""An id that no tool of Python's own has."""

monitoring = sys.monitoring


@contextmanager
def counted(tell: Callable[[Any], bool]) -> Iterator[None]:
    """Within, `tell` is called with the code of each bytecode of this thread while counting is on; False where it is
    none that it wants to hear of again."""
    this_thread = threading.get_ident()

    def count(code: Any, offset: int) -> object:
        # Else a server that another test has left running.
        if threading.get_ident() == this_thread and not tell(code):
            return monitoring.DISABLE
        return None

    monitoring.use_tool_id(TOOL, "cost")
    monitoring.register_callback(TOOL, monitoring.events.INSTRUCTION, count)
    try:
        yield
    finally:
        switch(False)
        monitoring.register_callback(TOOL, monitoring.events.INSTRUCTION, None)
        monitoring.free_tool_id(TOOL)


def switch(on: bool) -> None:
    """Count from now on, or no longer."""
    monitoring.set_events(TOOL, monitoring.events.INSTRUCTION if on else 0)
