"""Fixtures of the conformance suite."""

import logging
from collections.abc import Iterator

import pytest
from tests.conformance.wires import CASES, Certificate, Shared, Wire


@pytest.fixture(scope="session")
def certificate(tls_files: tuple[str, str]) -> Certificate:
    return Certificate(*tls_files)


class Strays(logging.Handler):
    """Errors that reached a loop, as nothing should."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(record.getMessage() + (f": {record.exc_info[1]!r}" if record.exc_info else ""))


@pytest.fixture(scope="module")
def shared(request: pytest.FixtureRequest) -> Iterator[Shared]:
    """What the tests of a file have in common. Each fixture of a test costs time, so this is the only one of `wire`."""
    strays = Strays()
    logger = logging.getLogger("asyncio")
    logger.addHandler(strays)
    with Shared(request.getfixturevalue("certificate")) as servers:
        servers.strays = strays.found
        yield servers
    logger.removeHandler(strays)
    assert strays.found == []


@pytest.fixture(params=CASES, ids=str)
def wire(request: pytest.FixtureRequest, shared: Shared) -> Iterator[Wire]:
    """Starts servers; the test runs once for each wire. Nothing may fail behind the back of the server."""
    with Wire(request.param, shared) as started:
        yield started
    strays, shared.strays[:] = shared.strays[:], []
    assert strays == []
