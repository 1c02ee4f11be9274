"""Hostile connections against a running server: how long the turns of its loop become.

Processor time is looked at, and not how long a neighbour waits: that would say more about the machine.
"""

from pathlib import Path

import pytest
from benchmarks.neighbour.__main__ import LOOPS, PARSERS, hostile, server, turns
from benchmarks.neighbour.hostile import DATAGRAMS, KINDS

pytestmark = pytest.mark.faults

SECONDS = 2.0
TURN = 8.0
"""Milliseconds of processor time into which 99 of 100 moments fall; without a share for each connection it is up to
several seconds."""
MESSAGE = 40.0
"""The same where messages of 16 MB are put together, which are then copied as a whole."""


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("kind", KINDS)
def test_turns_stay_short_beside_a_hostile_connection(
    kind: str, loop: str, parser: str, tls_files: tuple[str, str]
) -> None:
    if not kind.startswith("h1") and parser != PARSERS[0]:
        pytest.skip("the parser of HTTP/1.1 does not matter")
    tls = kind in DATAGRAMS or kind.endswith("TLS")
    with server(loop, parser, kind, (Path(tls_files[0]), Path(tls_files[1]))) as port, hostile(port, kind):
        found = turns(port, tls, SECONDS)
    print(f"\n{kind}, {loop}, {parser}: {found.p99:.2f} ms, at the longest {found.longest:.2f} ms")
    assert found.p99 < (MESSAGE if kind == "ws deflate" else TURN)
