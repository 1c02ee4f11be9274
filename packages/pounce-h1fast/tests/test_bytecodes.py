"""Bytecodes that a request may take, counted: on every machine the same, however busy it is.

The bounds lie well above what is needed. Who meets one has made every request dearer: `python -m
benchmarks.micro.bytecodes` tells which functions have grown.
"""

import pytest
from benchmarks.micro.bytecodes import CONNECTIONS, count, each

from pounce.worker.loop import HAS_OWN

BOUNDS = {"hello": 1430, "browser-like": 1630, "echo": 1850, "mixed": 1890, "chunked": 1870}
CONNECTION_BOUND = 2700


@pytest.mark.parametrize("load", BOUNDS)
def test_request_takes_no_more_bytecodes_than_it_may(load: str) -> None:
    found = count(load)
    largest = ", ".join(f"{code.co_qualname} {number}" for code, number in found.most_common(10))
    assert each(found) <= BOUNDS[load], largest


@pytest.mark.skipif(not HAS_OWN, reason="this system has no epoll")
def test_new_connection_takes_no_more_bytecodes_than_it_may() -> None:
    found = count(CONNECTIONS)
    largest = ", ".join(f"{code.co_qualname} {number}" for code, number in found.most_common(10))
    assert each(found) <= CONNECTION_BOUND, largest
