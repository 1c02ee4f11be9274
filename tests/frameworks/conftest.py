"""Fixtures for tests of real applications behind a real server.

A module that has a function `application()` and, if it likes, a dict `SETTINGS`, gets its application served once
for each wire: `site` is the server, `client` a client of it. `serve` serves any other application for one test.
"""

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from tests.frameworks import common
from tests.frameworks.wires import WIRES, Certificate, ServerLog, Site, Wire, serve_on


@pytest.fixture(scope="session", params=WIRES, ids=str)
def wire(request: pytest.FixtureRequest) -> Wire:
    return request.param


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate.make(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def site(wire: Wire, certificate: Certificate, request: pytest.FixtureRequest) -> Iterator[Site]:
    """The module's application, served for all of its tests."""
    app = request.module.application()
    with serve_on(wire, certificate, app, **getattr(request.module, "SETTINGS", {})) as served:
        yield served


@pytest.fixture
def client(site: Site) -> Iterator[httpx.Client]:
    with site.client() as client:
        yield client


@pytest.fixture
def serve(wire: Wire, certificate: Certificate) -> Iterator[Callable[..., Site]]:
    """A function that serves an application, with its settings, until the test is over."""
    with ExitStack() as stack:

        def start(app: Any, **settings: Any) -> Site:
            return stack.enter_context(serve_on(wire, certificate, app, **settings))

        yield start


@pytest.fixture(autouse=True)
def server_log() -> Iterator[ServerLog]:
    """Errors that the server logged; one that the test did not take fails it."""
    log = ServerLog()
    with log.watching():
        yield log
    assert log.take() == []


LEFT_OPEN = "ignore:unclosed file <_io.BufferedReader name='.*/file.bin'>:ResourceWarning"
"""Frameworks open files on threads, and one whose request is given up meanwhile is left to the collector."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith("tests/frameworks/"):
            item.add_marker(pytest.mark.filterwarnings(LEFT_OPEN))


@pytest.fixture(scope="module", autouse=True)
def collected() -> Iterator[None]:
    """What a module leaves to the collector is collected at its end, and not while another one is tested."""
    yield
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "unclosed file", ResourceWarning)
        gc.collect()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The files that applications serve."""
    common.FOLDER = tmp_path_factory.mktemp("files")
    (common.FOLDER / "file.bin").write_bytes(common.FILE_CONTENT)
