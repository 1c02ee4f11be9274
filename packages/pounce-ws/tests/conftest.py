"""Lets the tests import the modules beside them, and runs those on all wires that ask for it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(params=["h1", "h2", "h3"])
def wire(request: pytest.FixtureRequest, tls_files: tuple[str, str]) -> Iterator[str]:
    """`opened()` makes clients of this wire."""
    import peer

    peer.certificate[:] = tls_files
    peer.chosen[0] = peer.WIRES[request.param]
    yield request.param
    peer.chosen[0] = peer.Peer
