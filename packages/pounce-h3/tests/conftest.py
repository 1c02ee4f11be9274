"""Fixtures of the tests of HTTP/3."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest
from tests.conformance.wires import CASES, Certificate, Shared, Started, Wire

[H3] = [case for case in CASES if case.quic]


@pytest.fixture
def wire(tls_files: tuple[str, str]) -> Iterator[Wire]:
    """Starts servers that speak HTTP/3."""
    with Shared(Certificate(*tls_files)) as shared, Wire(H3, shared) as started:
        yield started


@pytest.fixture
def start(wire: Wire) -> Callable[..., Started]:
    return partial(wire.start, lifespan="off")
