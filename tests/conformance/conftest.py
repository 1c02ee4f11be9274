"""Fixtures of the conformance suite."""

from collections.abc import Iterator

import pytest
from tests.conformance.wires import CASES, Certificate, Shared, Wire


@pytest.fixture(scope="session")
def certificate(tls_files: tuple[str, str]) -> Certificate:
    return Certificate(*tls_files)


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    with Shared() as servers:
        yield servers


@pytest.fixture(params=CASES, ids=str)
def wire(
    request: pytest.FixtureRequest, certificate: Certificate, shared: Shared, caplog: pytest.LogCaptureFixture
) -> Iterator[Wire]:
    """Starts servers; the test runs once for each wire. Nothing may fail behind the back of the server."""
    with Wire(request.param, certificate, shared) as started:
        yield started
    strays = [
        record for record in caplog.get_records("call") if record.name == "asyncio" and record.levelname == "ERROR"
    ]
    assert not strays, strays[0].getMessage() + (f": {strays[0].exc_info[1]!r}" if strays[0].exc_info else "")
