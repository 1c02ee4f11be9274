"""Lets the tests import the modules beside them, and runs those on both wires that ask for it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(params=["h1", "h2"])
def wire(request: pytest.FixtureRequest) -> Iterator[str]:
    """`opened()` makes clients of this wire."""
    import peer

    peer.chosen[0] = peer.WIRES[request.param]
    yield request.param
    peer.chosen[0] = peer.Peer
